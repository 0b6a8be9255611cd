"""Rows of CSV, TSV, Parquet or JSON lines: as they came, and as a model takes them; a batch at a time."""

import csv
import difflib
import gzip
import io
import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
from numpy.typing import NDArray

from deepfm.columns import typed_column
from deepfm.data.casting import field_values
from deepfm.data.files import DataFile, is_csv, is_data, open_file
from deepfm.data.raw import raw_columns
from deepfm.errors import DataCorruptError, DataRejectedError, DeepFMError, NotFoundError, UsageError
from deepfm.manifests import InputSpec

BATCH_ROWS = 16_384
"""Rows in memory at a time."""
STDIN = Path("-")
"""What stands for JSON lines on standard input."""
JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
"""How the name of a file of JSON lines ends."""
_LONGEST_LINE = 16 << 20
"""Bytes of one JSON line: a file without line ends must not fill the memory."""
_SAMPLE_BYTES = 1 << 20
_COLUMNS_NAMED = 8
_RATHER_JSON = f"Write JSON lines: --out FILE{JSON_SUFFIXES[0]}."
_READ_ERRORS = (OSError, EOFError, zlib.error)


class Rows(Protocol):
    """Consecutive rows of an input."""

    names: Sequence[str]
    """The columns, in order; of JSON lines, those of the first line."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def values(self, field: InputSpec) -> NDArray[Any]:
        """The column of one of the model's inputs as the graph takes it, [N].

        Raises:
            DataRejectedError: terminal; a row lacks it, or holds something of another type. The line names the row.
        """
        ...

    def columns(self) -> list[list[object]]:
        """The rows as they came, column by column in the order of `names`; None where a row lacks one.

        Raises:
            DataRejectedError: terminal; a JSON line has a field that the first one lacks.
        """
        ...

    def records(self) -> Iterable[dict[str, object]]:
        """The rows as mappings; from a CSV, the model's inputs in their types and the other columns as text."""
        ...

    def batch(self, schema: pa.Schema | None) -> pa.RecordBatch:
        """The rows as `records`, in an Arrow batch, with the schema of an earlier one if it is given.

        Raises:
            DataRejectedError: terminal; JSON lines that have fields of their own, or values that no one type holds.
        """
        ...


class _ParquetRows:
    """Rows of a Parquet file."""

    def __init__(self, batch: pa.RecordBatch, numbers: range, *, where: str) -> None:
        self.names: Sequence[str] = batch.schema.names
        self._batch, self._numbers, self._where = batch, numbers, where

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def values(self, field: InputSpec) -> NDArray[Any]:
        column = self._batch.column(field.name).to_pylist()
        return _typed(column, field, self._numbers, where=f"{self._where}, row ")

    def columns(self) -> list[list[object]]:
        return [column.to_pylist() for column in self._batch.columns]

    def records(self) -> Iterable[dict[str, object]]:
        return cast("list[dict[str, object]]", self.batch(None).to_pylist())

    def batch(self, schema: pa.Schema | None) -> pa.RecordBatch:  # noqa: ARG002 - its own is that of the whole file
        return self._batch


class _CsvRows(_ParquetRows):
    """Rows of a CSV: text, which the model's inputs are read from."""

    def __init__(self, batch: pa.RecordBatch, numbers: range, *, where: str, inputs: Sequence[InputSpec]) -> None:
        super().__init__(batch, numbers, where=where)
        self._fields = {field.name: field_values(batch.column(field.name), field.dtype) for field in inputs}

    def values(self, field: InputSpec) -> NDArray[Any]:
        values, unreadable = self._fields[field.name]
        if unreadable.any():
            number = self._numbers[int(unreadable.argmax())]
            raise _misfit(field, "other text", where=f"{self._where}, row {number}")
        return raw_columns(pa.RecordBatch.from_arrays([values], names=[field.name]), [field])[field.name]

    def batch(self, schema: pa.Schema | None) -> pa.RecordBatch:  # noqa: ARG002 - its own is that of the whole file
        columns = dict(zip(self.names, self._batch.columns, strict=True))
        return pa.RecordBatch.from_pydict(columns | {name: values for name, (values, _) in self._fields.items()})


class _JsonRows:
    """Rows of JSON lines, each with fields of its own."""

    def __init__(self, rows: list[dict[str, object]], lines: list[int], *, names: Sequence[str], where: str) -> None:
        self.names = names
        self._rows, self._lines, self._where = rows, lines, where

    def __len__(self) -> int:
        return len(self._rows)

    def values(self, field: InputSpec) -> NDArray[Any]:
        for line, row in zip(self._lines, self._rows, strict=True):
            if field.name not in row:
                raise _absent(field, list(row), where=f"{self._where}, line {line}")
        return _typed([row[field.name] for row in self._rows], field, self._lines, where=f"{self._where}, line ")

    def columns(self) -> list[list[object]]:
        known = set(self.names)
        for line, row in zip(self._lines, self._rows, strict=True):
            if strange := row.keys() - known:
                raise DataRejectedError(
                    "a line has a field that the first one lacks",
                    observed=ascii(min(strange)[:80]),
                    where=f"{self._where}, line {line}",
                    next_step=_RATHER_JSON,
                )
        return [[row.get(name) for row in self._rows] for name in self.names]

    def records(self) -> Iterable[dict[str, object]]:
        return self._rows

    def batch(self, schema: pa.Schema | None) -> pa.RecordBatch:
        columns = dict(zip(self.names, self.columns(), strict=True))
        try:
            return pa.RecordBatch.from_pydict(columns, schema=schema)
        except (pa.ArrowException, OverflowError) as cause:
            raise DataRejectedError(
                "the values of a field are of several types",
                where=f"{self._where}, lines {self._lines[0]} to {self._lines[-1]}",
                next_step=_RATHER_JSON,
            ) from cause


def is_json(path: Path) -> bool:
    """Whether an input or output holds JSON lines."""
    return path == STDIN or path.name.lower().endswith(JSON_SUFFIXES)


def read_rows(path: Path, inputs: Sequence[InputSpec], *, delimiter: str | None = None) -> Iterator[Rows]:
    """All rows of a file, or of standard input, in batches; one empty batch for a table without rows.

    Args:
        path: The file; its name says what it holds.
        inputs: What a model needs of them.
        delimiter: Between the cells of a CSV; unset, a tab for `.tsv` and a comma otherwise.

    Raises:
        UsageError: terminal; the name says no format that can be read.
        NotFoundError: terminal; there is no such file.
        DataCorruptError: terminal; the file cannot be read to its end.
        DataRejectedError: terminal; a column is missing, or there twice.
    """
    if path != STDIN and not path.is_file():
        next_step = "It is a folder: name a file in it." if path.is_dir() else "Check the path; - reads standard input."
        raise NotFoundError("there is no such file", where=str(path), next_step=next_step)
    if is_json(path):
        return _json_rows(path)
    if not is_data(path.name):
        raise UsageError(
            "the file's name says no format",
            observed=ascii(path.name[:80]),
            required=f".csv, .tsv, .parquet or {JSON_SUFFIXES[0]}, and .gz after any but .parquet",
        )
    return _arrow_rows(path, inputs, delimiter=delimiter)


def estimated_rows(path: Path) -> int | None:
    """About how many lines a text file has, from its beginning and its size; None where that cannot be told."""
    if path == STDIN:
        return None
    try:
        with path.open("rb") as raw, _unpacked(raw, path) as stream:
            lines = stream.read(_SAMPLE_BYTES).count(b"\n")
            return lines * path.stat().st_size // max(raw.tell(), 1)
    except _READ_ERRORS:  # whoever reads the rows says so
        return None


def _arrow_rows(path: Path, inputs: Sequence[InputSpec], *, delimiter: str | None) -> Iterator[Rows]:
    where = str(path)
    file = open_file(path, key=where, delimiter=delimiter)
    names = file.schema.names
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise DataCorruptError("two columns have one name", observed=ascii(doubled[0][:80]), where=where)
    for field in inputs:
        if field.name not in names:
            raise _absent(field, names, where=where)
    start = 0
    for batch in _whole_rows(file, path, delimiter=delimiter):
        numbers = range(start + 1, start + 1 + batch.num_rows)
        start += batch.num_rows
        if is_csv(where):
            yield _CsvRows(batch, numbers, where=where, inputs=inputs)
        else:
            yield _ParquetRows(batch, numbers, where=where)


def _whole_rows(file: DataFile, path: Path, *, delimiter: str | None) -> Iterator[pa.RecordBatch]:
    """The batches of a file, with the row in the error where a CSV has a short or long one; at least one batch."""
    batch = None
    try:
        for batch in file.batches(batch_rows=BATCH_ROWS):
            yield batch
    except DataCorruptError as cause:
        if is_csv(path.name) and (found := _uneven_row(path, len(file.schema), delimiter=delimiter)):
            row, cells = found
            raise DataCorruptError(
                "a row has too few or too many cells",
                observed=cells,
                required=str(len(file.schema)),
                where=f"{path}, row {row}",
            ) from cause
        raise
    if batch is None:
        yield pa.RecordBatch.from_pylist([], schema=file.schema)


def _uneven_row(path: Path, columns: int, *, delimiter: str | None) -> tuple[int, int] | None:
    """Number and cells of the first row of a CSV that has another number of cells than the header."""
    with _binary(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        reader = csv.reader(text, delimiter=delimiter or ("\t" if ".tsv" in path.name.lower() else ","))
        try:
            rows = ((number, len(row)) for number, row in enumerate(filter(None, reader)))
            return next(((number, cells) for number, cells in rows if cells != columns), None)
        except csv.Error:
            return None


def _json_rows(path: Path) -> Iterator[Rows]:
    where = "standard input" if path == STDIN else str(path)
    names: Sequence[str] = ()
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    for line, row in _json_objects(path, where):
        names = names or list(row)
        rows.append(row)
        lines.append(line)
        if len(rows) == BATCH_ROWS:
            yield _JsonRows(rows, lines, names=names, where=where)
            rows, lines = [], []
    if rows:
        yield _JsonRows(rows, lines, names=names, where=where)


def _json_objects(path: Path, where: str) -> Iterator[tuple[int, dict[str, object]]]:
    with _binary(path) as stream:
        for number, line in enumerate(_lines(stream, where), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as cause:
                raise DataCorruptError("the line is no JSON", where=f"{where}, line {number}") from cause
            if not isinstance(row, dict):
                raise DataCorruptError("the line is no JSON object", where=f"{where}, line {number}")
            yield number, row


def _lines(stream: BinaryIO, where: str) -> Iterator[bytes]:
    try:
        while line := stream.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                raise DataCorruptError(f"a line is longer than {_LONGEST_LINE} bytes", where=where)
            yield line
    except _READ_ERRORS as cause:
        raise DataCorruptError("the file cannot be read to its end", where=where) from cause


@contextmanager
def _binary(path: Path) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    try:
        raw = path.open("rb")
    except OSError as cause:
        raise DataCorruptError(f"the file cannot be opened: {cause.strerror}", where=str(path)) from cause
    with raw, _unpacked(raw, path) as stream:
        yield stream


def _unpacked(raw: BinaryIO, path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if path.name.lower().endswith(".gz") else raw


def _typed(column: list[object], field: InputSpec, numbers: Sequence[int], *, where: str) -> NDArray[Any]:
    try:
        return typed_column(column, field)
    except UsageError as refusal:
        for number, value in zip(numbers, column, strict=True):
            if (found := _refused(value, field)) is not None:
                raise _misfit(field, str(found.observed), where=f"{where}{number}") from refusal
        raise


def _refused(value: object, field: InputSpec) -> DeepFMError | None:
    try:
        typed_column([value], field)
    except UsageError as refusal:
        return refusal
    return None


def _misfit(field: InputSpec, observed: str, *, where: str) -> DataRejectedError:
    return DataRejectedError(f"field {field.name} cannot be used", observed=observed, required=field.dtype, where=where)


def _absent(field: InputSpec, names: Sequence[str], *, where: str) -> DataRejectedError:
    by_lower_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(field.name.lower(), by_lower_case, n=1)
    next_step = "The model's inputs are found by name: rename the column that holds it, or add one of missing values."
    if near:
        next_step = f"Is it the column {by_lower_case[near[0]]}? Rename it."
    shown = ", ".join(ascii(name[:40])[1:-1] for name in names[:_COLUMNS_NAMED])
    more = f" and {len(names) - _COLUMNS_NAMED} more" if len(names) > _COLUMNS_NAMED else ""
    if len(names) == 1 and (other := next((mark for mark in ";\t|," if mark in names[0]), None)):
        next_step = f"Cells seem to be separated by {other!r}: set data.csv_delimiter in the TOML, and give --config."
    return DataRejectedError(
        f"field {field.name} is missing",
        observed=f"columns {shown}{more}" if names else "no column",
        where=where,
        next_step=next_step,
    )
