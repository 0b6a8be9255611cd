"""A bounded number of rows from days spread over a source: whole days if it is small, a handful of them if it is not.

Every second row goes whenever there are too many, so that what remains is spread evenly, does not depend on how the
rows are stored, and is the same in every run.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepfm.data.files import DataFile, is_csv
from deepfm.discovery.source import Delivered
from deepfm.discovery.tables import fetched, named_once, opened, unified
from deepfm.errors import DataCorruptError
from deepfm.storage import ObjectInfo, ObjectStore

SAMPLE_ROWS = 200_000
"""Most rows that are looked at."""
_READ_BYTES = 64 << 20
"""Bytes that are read at most, but for one file of each chosen day; a smaller source is read whole."""
_READ_FILES = 1_000
_FILE_ROWS = 2_000_000
"""Rows of one file after which it is left."""
_LAST_DAYS = 6


class Day(NamedTuple):
    """One day as far as it is known."""

    date: dt.date
    rows: int
    """Counted where its files were read whole, else estimated from their size."""
    read: bool
    """Whether it was looked into."""
    broken: str = ""
    """Which of its files cannot be read; empty if none."""


class Sample(NamedTuple):
    """Rows of some days, all columns, and what reading them told."""

    rows: pa.Table
    day: NDArray[np.int64]
    """Index into `days` of every row."""
    days: tuple[Day, ...]
    """Every day of the source, oldest first."""
    from_text: bool
    """Whether the files are CSV, whose columns are all text."""
    delimiter: str | None
    """Of the CSV, if it is not the usual one."""
    partial: tuple[str, ...]
    """Columns that some of the files read do not have."""
    doubled: tuple[str, ...]
    """Columns that a file has more than once."""
    unreadable: tuple[str, ...]
    """Files that could not be read, with the reason."""
    whole: bool
    """Whether all rows of all files are there."""


def read_sample(store: ObjectStore, delivered: Delivered, *, scratch: Path) -> Sample:
    """Up to `SAMPLE_ROWS` rows of a source and the size of its days.

    Raises:
        DataCorruptError: terminal; no file at all is readable.
        StoreUnavailableError: transient.
    """
    chosen = _chosen(delivered.files)
    reading = _Reading(store, scratch)
    for index, date in enumerate(delivered.files):
        for info in chosen.get(date, ()):
            reading.read(info, index)
    if not reading.schemas:
        raise reading.errors[0]
    return reading.sample(delivered.files, chosen)


def _chosen(files: Mapping[dt.date, Sequence[ObjectInfo]]) -> dict[dt.date, Sequence[ObjectInfo]]:
    """The files to read of each day to read."""
    everything = [info for day in files.values() for info in day]
    if sum(info.size_bytes for info in everything) <= _READ_BYTES and len(everything) <= _READ_FILES:
        return dict(files)
    dates = list(files)
    picked = sorted({dates[0], dates[len(dates) // 2], *dates[-_LAST_DAYS:]})
    budget = _READ_BYTES // len(picked)
    return {date: _within(files[date], budget, _READ_FILES // len(picked)) for date in picked}


def _within(files: Sequence[ObjectInfo], budget: int, most: int) -> list[ObjectInfo]:
    """Files spread over a day that fit into a number of bytes; at least one."""
    size = sum(info.size_bytes for info in files)
    count = max(1, min(len(files), most, int(len(files) * budget / max(size, 1))))
    return [files[int(position)] for position in np.linspace(0, len(files) - 1, count)]


class _Reading:
    """Reads files one after the other and keeps an even share of their rows."""

    def __init__(self, store: ObjectStore, scratch: Path) -> None:
        self._store, self._scratch = store, scratch
        self._tables: list[pa.Table] = []
        self._days: list[NDArray[np.int64]] = []
        self._stride, self._kept = 1, 0
        self._seen = 0
        self._counted: Counter[int] = Counter()
        self._cut = False
        self._from_text = True
        self._delimiter: str | None = None
        self._doubled: set[str] = set()
        self.schemas: list[list[str]] = []
        self.errors: list[DataCorruptError] = []
        self._broken: dict[int, str] = {}

    def read(self, info: ObjectInfo, day: int) -> None:
        """Take in one file; one that cannot be read is remembered."""
        try:
            with fetched(self._store, info.key, scratch=self._scratch) as path:
                file, delimiter = opened(path, info.key)
                names, doubled = named_once(file.schema)
                for rows in self._rows(file, names, day):
                    self._add(rows, day)
        except DataCorruptError as error:
            self.errors.append(error)
            self._broken.setdefault(day, f"{info.key.rpartition('/')[2]} cannot be read")
            return
        self.schemas.append(names)
        self._doubled.update(doubled)
        self._from_text &= is_csv(info.key)
        self._delimiter = delimiter or self._delimiter

    def sample(
        self, files: Mapping[dt.date, Sequence[ObjectInfo]], chosen: Mapping[dt.date, Sequence[ObjectInfo]]
    ) -> Sample:
        """What was read."""
        read_bytes = sum(info.size_bytes for day in chosen.values() for info in day)
        density = sum(self._counted.values()) / max(read_bytes, 1)
        days = []
        for index, (date, infos) in enumerate(files.items()):
            whole = len(chosen.get(date, ())) == len(infos)
            size = sum(info.size_bytes for info in infos)
            rows = self._counted[index] if whole else round(size * density)
            days.append(Day(date, rows, date in chosen, self._broken.get(index, "")))
        everything = all(len(chosen.get(date, ())) == len(infos) for date, infos in files.items())
        names = {name for schema in self.schemas for name in schema}
        return Sample(
            rows=unified(self._tables),
            day=np.concatenate(self._days) if self._days else np.zeros(0, np.int64),
            days=tuple(days),
            from_text=self._from_text,
            delimiter=self._delimiter,
            partial=tuple(sorted(name for name in names if any(name not in schema for schema in self.schemas))),
            doubled=tuple(sorted(self._doubled)),
            unreadable=tuple(str(error) for error in self.errors),
            whole=not self._cut and not self.errors and everything and self._stride == 1,
        )

    def _rows(self, file: DataFile, names: list[str], day: int) -> Iterator[pa.RecordBatch]:
        read = 0
        for batch in file.batches(names):
            if read >= _FILE_ROWS:
                self._cut = True
                self._counted[day] += (file.rows or read) - read
                return
            yield batch
            read += batch.num_rows

    def _add(self, batch: pa.RecordBatch, day: int) -> None:
        self._counted[day] += batch.num_rows
        chosen = np.arange(-self._seen % self._stride, batch.num_rows, self._stride)
        self._seen += batch.num_rows
        rows = pa.Table.from_batches([batch])
        self._tables.append(rows if self._stride == 1 else rows.take(pa.array(chosen)))
        self._days.append(np.full(len(chosen), day, dtype=np.int64))
        self._kept += len(chosen)
        while self._kept > SAMPLE_ROWS:
            self._halve()

    def _halve(self) -> None:
        position, self._kept = 0, 0
        for index, table in enumerate(self._tables):
            chosen = np.arange(position % 2, table.num_rows, 2)
            position += table.num_rows
            self._tables[index] = table.take(pa.array(chosen))
            self._days[index] = self._days[index][chosen]
            self._kept += len(chosen)
        self._stride *= 2
