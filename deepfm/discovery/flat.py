"""One flat file seen twice: what its cells are and when its rows happened, then the rows themselves, typed.

A CSV has no types. Its columns are looked at to the end before the first row is written, so that all days agree.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepfm.data.files import is_csv
from deepfm.discovery.roles import absent
from deepfm.discovery.tables import opened
from deepfm.discovery.times import NONE, Form, days_of, form_of
from deepfm.discovery.values import INTEGER, MISSING, NUMBER
from deepfm.errors import DataRejectedError, UsageError

BATCH_ROWS = 65_536
MOST_DAYS = 3_660
"""More days than this, and the column is most likely no date."""

Told = Callable[[str, int, int | None], None]
"""Hears what is at work, how many rows are done, and of how many if that is known."""
Cells = Literal["integer", "number", "text"]


class Contents(NamedTuple):
    """What the first pass over a file found."""

    schema: pa.Schema
    """Columns as they will be written."""
    rows: int
    days: NDArray[np.int64]
    """Days since 1970 that there are, sorted; empty if no column of dates was named."""
    form: Form | None
    """How the named column stores dates."""
    undated: int
    """Rows without a date."""


class FlatFile:
    """A CSV or Parquet file that is read in a stream, as often as asked."""

    def __init__(self, path: Path, key: str) -> None:
        self._file, _ = opened(path, key)
        self._from_text = is_csv(key)
        self.name = key
        doubled = {name for name in self._file.schema.names if self._file.schema.names.count(name) > 1}
        if doubled:
            raise DataRejectedError(f"{key} has columns twice", observed=", ".join(sorted(doubled)))

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in their order."""
        return list(self._file.schema.names)

    def check_column(self, by: str) -> None:
        """Nothing, if the column of dates is there.

        Raises:
            UsageError: terminal; it is not.
        """
        if by not in self.columns:
            raise absent(by, self.columns, option="--by")

    def look(self, by: str | None, *, zone: str, told: Told) -> Contents:
        """The first pass: types of the cells, number of rows, days.

        Raises:
            UsageError: terminal; the column is not there, holds no dates, or too many of them.
            DataCorruptError: terminal; the file cannot be read to its end.
        """
        if by is not None:
            self.check_column(by)
        cells = {name: _Cells() for name in self.columns} if self._from_text else {}
        days = _Days(by, zone) if by is not None else None
        rows = 0
        for batch in self._batches(self.columns if self._from_text else [by] if by else self.columns[:1]):
            for name, seen in cells.items():
                seen.add(batch.column(name))
            if days is not None:
                days.add(batch.column(str(by)))
            rows += batch.num_rows
            told("reading", rows, self._file.rows)
        if not rows:
            raise DataRejectedError(f"{self.name} holds no row", next_step="Check the file.")
        if days is not None:
            days.check(rows)
        schema = pa.schema([(field.name, _written(field, cells.get(field.name))) for field in self._file.schema])
        found = np.array(sorted(days.found) if days else [], dtype=np.int64)
        return Contents(schema, rows, found, days.form if days else None, days.undated if days else 0)

    def rows(self, contents: Contents) -> Iterator[pa.RecordBatch]:
        """All rows, in order, with the types that the first pass found."""
        for batch in self._batches(self.columns):
            columns = [
                _converted(column, field.type) for column, field in zip(batch.columns, contents.schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=contents.schema)

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        return self._file.batches(columns, batch_rows=BATCH_ROWS)


class _Cells:
    """What all cells of a text column can be read as, so far."""

    def __init__(self) -> None:
        self._kind: Cells = "integer"
        self._seen = False

    def add(self, values: pa.Array) -> None:
        if self._kind == "text":
            return
        distinct = values.drop_null().unique()
        known = distinct.filter(pc.invert(pc.match_substring_regex(distinct, MISSING)))
        self._seen |= len(known) > 0
        if self._kind == "integer" and not _all_match(known, INTEGER):
            self._kind = "number"
        if self._kind == "number" and not _all_match(known, NUMBER):
            self._kind = "text"

    @property
    def type(self) -> pa.DataType:
        if not self._seen or self._kind == "text":
            return pa.string()
        return pa.int64() if self._kind == "integer" else pa.float64()


class _Days:
    """The days of a column, so far."""

    def __init__(self, by: str, zone: str) -> None:
        self._by, self._zone = by, zone
        self.form: Form | None = None
        self.found: set[int] = set()
        self.undated = 0

    def add(self, values: pa.Array) -> None:
        if self.form is None:
            self.form = form_of(values)
        if self.form is None:
            if values.null_count < len(values):
                raise self._refused("text or numbers that are no dates")
            self.undated += len(values)
            return
        days = days_of(values, self.form, zone=self._zone)
        there = days != NONE
        self.undated += int((~there).sum())
        self.found.update(np.unique(days[there]).tolist())
        if len(self.found) > MOST_DAYS:
            raise UsageError(
                f"--by {self._by} holds more than {MOST_DAYS:,} days",
                required="a date of the row: is it really one?",
                next_step="Name another column.",
            )

    def check(self, rows: int) -> None:
        if not self.found:
            raise self._refused("no date at all")
        if self.undated > rows / 2:
            raise self._refused(f"no date in {self.undated:,} of {rows:,} rows")

    def _refused(self, observed: str) -> UsageError:
        return UsageError(
            f"--by {self._by} cannot tell the day",
            observed=observed,
            required="times, dates, text such as 2026-03-09, 2026-03-09T10:00:00Z or 20260309, or numbers since 1970",
            next_step="Name another column, or cut the file into blocks with --pseudo-days.",
        )


def _written(field: pa.Field, cells: _Cells | None) -> pa.DataType:
    if cells is not None:
        return cells.type
    return field.type.value_type if pa.types.is_dictionary(field.type) else field.type


def _converted(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    missing = pc.fill_null(pc.match_substring_regex(column, MISSING), False)  # noqa: FBT003 - Arrow's call
    return pc.if_else(missing, pa.scalar(None, pa.string()), column).cast(kind)


def _all_match(values: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py() is not False)
