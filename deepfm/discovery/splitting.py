"""A flat file cut into daily partitions in bounded memory: rows are sorted by day in runs on the disk, then merged.

As many rows as fit into memory are sorted by their day and written as one run, a batch for each day. Then each day is
collected from all runs. So one file is open at a time for writing, whatever the number of days, and rows of a day
stay in the order of the file.
"""

import datetime as dt
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepfm.discovery.flat import MOST_DAYS, Contents, FlatFile, Told
from deepfm.discovery.survey import PSEUDO_DAYS
from deepfm.discovery.times import NONE, days_of
from deepfm.errors import UsageError
from deepfm.storage.local import disk_errors

UNDATED = "_without_a_day.parquet"
"""File of the rows that no day was found for."""
LAST_PSEUDO_DAY = dt.date(2000, 1, 31)
"""Made up, and never the clock's: the same file is cut into the same days tomorrow."""
_RUN_BYTES = 64 << 20
_GROUP_ROWS = 131_072
_EPOCH = dt.date(1970, 1, 1)


class Cut(NamedTuple):
    """How rows come to their days."""

    by: str | None = None
    """Column of dates; unset, rows are cut into blocks."""
    zone: str = "UTC"
    pseudo_days: int = 0
    last_day: dt.date = LAST_PSEUDO_DAY


class SplitOutcome(NamedTuple):
    """What was written."""

    days: int
    first: dt.date
    last: dt.date
    rows: int
    undated: int
    written: dict[dt.date, int]
    """Rows of every day, oldest first."""


def part_of(out: Path, date: dt.date) -> Path:
    """The file of a day."""
    return out / f"dt={date}" / "part-0.parquet"


def split_file(file: FlatFile, out: Path, cut: Cut, *, told: Told) -> SplitOutcome:
    """The file's rows in one Parquet file a day below `out`, which is there whole or not at all.

    Raises:
        UsageError: terminal; `out` is in use, the column tells no day, or there are too few rows for the blocks.
        DataCorruptError: terminal; the file cannot be read to its end.
        ConfigError: terminal; the disk is full or cannot be written.
    """
    with disk_errors(str(out)):
        if cut.by is not None:
            file.check_column(cut.by)
        check_free(out)
        contents = file.look(cut.by, zone=cut.zone, told=told)
        if cut.by is None:
            _check_blocks(contents, cut)
        with _whole_or_nothing(out) as folder:
            days = {_date(day): rows for day, rows in _write(file, contents, cut, folder, told=told).items()}
            if cut.by is None:
                _mark(folder, cut)
    return SplitOutcome(len(days), min(days), max(days), contents.rows, contents.undated, days)


def check_free(out: Path) -> None:
    """Nothing, if a folder can be made there.

    Raises:
        UsageError: terminal; something is there already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already", required="a new folder", next_step="Choose another --out.")


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it at the end; after an error nothing is left."""
    target = out.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent / f".{target.name[:100]}-{uuid4().hex}.tmp"
    folder.mkdir()
    try:
        yield folder
        check_free(out)
        folder.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(file: FlatFile, contents: Contents, cut: Cut, folder: Path, *, told: Told) -> dict[int, int]:
    """The days written, sorted, with their rows; rows without a day are in a file of their own."""
    runs = _Runs(folder / "_runs", contents.schema)
    done = 0
    for batch in file.rows(contents):
        runs.add(batch, _days(batch, done, contents, cut))
        done += batch.num_rows
        told("sorting", done, contents.rows)
    written: dict[int, int] = {}
    for day in runs.finish():
        path = folder / UNDATED if day == NONE else part_of(folder, _date(day))
        path.parent.mkdir(exist_ok=True)
        written[day] = _write_day(path, contents.schema, runs.batches(day))
        told("writing", sum(written.values()), contents.rows)
    runs.remove()
    return {day: rows for day, rows in written.items() if day != NONE}


def _days(batch: pa.RecordBatch, start: int, contents: Contents, cut: Cut) -> NDArray[np.int64]:
    """The day of every row, int64 [N], in days since 1970."""
    if cut.by is None or contents.form is None:
        first = (cut.last_day - _EPOCH).days - cut.pseudo_days + 1
        return first + np.arange(start, start + batch.num_rows, dtype=np.int64) * cut.pseudo_days // contents.rows
    return days_of(batch.column(cut.by), contents.form, zone=cut.zone)


def _write_day(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    """Rows written, in row groups of a size that reads well, whatever the batches' size."""
    rows, pending = 0, list[pa.RecordBatch]()
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for batch in batches:
            pending.append(batch)
            rows += batch.num_rows
            if sum(part.num_rows for part in pending) >= _GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(pending))
                pending = []
        if pending:
            writer.write_table(pa.Table.from_batches(pending))
    return rows


class _Runs:
    """Rows sorted by day, in Arrow files of bounded size: a batch for each day and run."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir()
        self._folder, self._schema = folder, schema
        self._pending: list[pa.RecordBatch] = []
        self._days: list[NDArray[np.int64]] = []
        self._bytes = 0
        self._index: dict[int, list[tuple[int, int]]] = {}
        self._count = 0

    def add(self, batch: pa.RecordBatch, days: NDArray[np.int64]) -> None:
        """Take in rows with their days."""
        self._pending.append(batch)
        self._days.append(days)
        self._bytes += batch.nbytes
        if self._bytes >= _RUN_BYTES:
            self._flush()

    def finish(self) -> list[int]:
        """The days that there are, sorted; no day (the least number) first."""
        if self._pending:
            self._flush()
        return sorted(self._index)

    def batches(self, day: int) -> Iterator[pa.RecordBatch]:
        """The rows of a day, in the order in which they came."""
        for run, position in self._index[day]:
            with pa.memory_map(str(self._path(run))) as source:
                yield pa.ipc.open_file(source).get_batch(position)

    def remove(self) -> None:
        """Nothing of the runs is left."""
        shutil.rmtree(self._folder)

    def _flush(self) -> None:
        days = np.concatenate(self._days)
        order = np.argsort(days, kind="stable")
        rows = pa.Table.from_batches(self._pending).take(pa.array(order))
        found, starts = np.unique(days[order], return_index=True)
        ends = [*starts[1:], len(days)]
        with pa.ipc.new_file(self._path(self._count), self._schema) as sink:
            position = 0
            for day, start, end in zip(found.tolist(), starts.tolist(), ends, strict=True):
                for batch in rows.slice(start, end - start).to_batches():
                    sink.write_batch(batch)
                    self._index.setdefault(day, []).append((self._count, position))
                    position += 1
        self._count += 1
        self._pending, self._days, self._bytes = [], [], 0

    def _path(self, run: int) -> Path:
        return self._folder / f"{run}.arrow"


def _mark(folder: Path, cut: Cut) -> None:
    text = f"{cut.pseudo_days} blocks of rows in the order of one file; the dates are made up.\n"
    (folder / PSEUDO_DAYS).write_text(text, encoding="utf-8")


def _check_blocks(contents: Contents, cut: Cut) -> None:
    if not 2 <= cut.pseudo_days <= min(MOST_DAYS, contents.rows):
        most = f"2 to {MOST_DAYS:,}, and not more than the {contents.rows:,} rows"
        raise UsageError("--pseudo-days is out of range", observed=cut.pseudo_days, required=most)


def _date(day: int) -> dt.date:
    return _EPOCH + dt.timedelta(days=day)
