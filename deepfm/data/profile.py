"""One streaming pass over a partition: the figures that the rules judge, and the rows to set aside.

The figures form a small frame, one row per column and one row `*` for the day, so that a history of days is a table.
Memory: a batch, eight bytes per row for the event keys, and at most `DISTINCT_CAP` values per field.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepfm import layout
from deepfm.config import FieldConfig, RetrainConfig
from deepfm.data.hashing import hash_values
from deepfm.data.partitions import RawBatch, iterate_rows
from deepfm.manifests import Partition
from deepfm.storage import LocalCache, ObjectStore

DISTINCT_CAP = 100_000
"""Distinct values are counted exactly up to here; the figure says `at least` beyond."""
DAY = "*"
"""Name of the profile's row that is about the whole day."""

Mask = NDArray[np.bool_]


class Reason(NamedTuple):
    """Why rows of a batch are set aside."""

    name: str
    mask: Mask


@dataclass
class FieldFigures:
    """Running figures of one field."""

    nulls: int = 0
    non_finite: int = 0
    out_of_range: int = 0
    total: float = 0.0
    count: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    values: set[object] = field(default_factory=set)

    def add(self, array: pa.Array, config: FieldConfig) -> None:
        """Take in one batch of a field's values."""
        if config.kind == "categorical":
            self.nulls += array.null_count
            if len(self.values) < DISTINCT_CAP:
                self.values.update(pc.unique(array.drop_null()).to_pylist())
            return
        values = _floats(array)
        finite = values[np.isfinite(values)]
        self.nulls += len(values) - len(finite)  # neither NaN nor an infinity says anything: both are missing
        self.non_finite += int(np.isinf(values).sum())
        self.out_of_range += int(outside(values, config).sum())
        self.count += len(finite)
        self.total += float(finite.sum())
        if len(finite):
            self.minimum = min(self.minimum, float(finite.min()))
            self.maximum = max(self.maximum, float(finite.max()))

    def row(self, name: str, rows: int) -> dict[str, object]:
        """This field's row of the profile frame."""
        share = 1.0 / max(rows, 1)
        return {
            "column": name,
            "rows": float(rows),
            "null_share": self.nulls * share,
            "non_finite_share": self.non_finite * share,
            "out_of_range_share": self.out_of_range * share,
            "distinct": float(len(self.values)) if self.values else np.nan,
            "minimum": self.minimum if self.count else np.nan,
            "maximum": self.maximum if self.count else np.nan,
            "mean": self.total / self.count if self.count else np.nan,
        }


@dataclass
class DayFigures:
    """Running figures of the whole day."""

    rows: int = 0
    valid_rows: int = 0
    clicks: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        """The day's row of the profile frame; rates are NaN where there is no row to have one."""
        return {
            "column": DAY,
            "rows": float(self.rows),
            "valid_rows": float(self.valid_rows),
            "clicks": float(self.clicks),
            "negatives": float(self.valid_rows - self.clicks),
            "ctr": self.clicks / self.valid_rows if self.valid_rows else np.nan,
            "bad_share": 1.0 - self.valid_rows / self.rows if self.rows else np.nan,
        }


class Profile(NamedTuple):
    """What the pass found."""

    frame: pd.DataFrame
    """One row per field and one for the day; figures that a row does not have are NaN."""
    day: DayFigures
    """The day's counts."""
    quarantine: Path
    """Parquet file of the rows set aside, with `position` and `reasons`."""


def profile_partition(
    source: ObjectStore, partition: Partition, config: RetrainConfig, *, cache: LocalCache, scratch: Path
) -> Profile:
    """Figures and quarantined rows of a partition.

    A row is set aside if a cell of it cannot be read as what its column is, its label is not 0 or 1, its event time is
    missing or outside the day, a number is outside its declared range, or its event key is missing or that of a valid
    row before it: the first such row stays. A cell that cannot be read is not counted as missing.

    Raises:
        DataCorruptError: terminal; a file cannot be read.
    """
    day = DayFigures()
    fields = {name: FieldFigures() for name in config.fields}
    duplicates = _duplicate_positions(source, partition, config, cache=cache)
    path = scratch / layout.QUARANTINE_FILE
    with _QuarantineWriter(path) as writer:
        for batch in iterate_rows(source, partition, config, cache=cache):
            reasons = list(bad_rows(batch, config, partition.logical_date, duplicates))
            bad = np.logical_or.reduce([reason.mask for reason in reasons])
            _add_batch(day, batch, bad, reasons, config)
            for name, figures in fields.items():
                figures.add(_readable(batch, name), config.fields[name])
            writer.write(batch, bad, reasons)
    rows = [day.row(), *(figures.row(name, day.rows) for name, figures in fields.items())]
    return Profile(pd.DataFrame(rows), day, path)


def bad_rows(
    batch: RawBatch, config: RetrainConfig, logical_date: dt.date, duplicates: NDArray[np.int64]
) -> Iterator[Reason]:
    """Every reason that applies to some rows of a batch, at least one reason in all."""
    data, rows = config.data, batch.rows
    for name, mask in batch.unreadable.items():
        yield Reason(unreadable_reason(name), mask)
    zero_or_one = _true(pc.is_in(rows.column(data.label), value_set=pa.array([0, 1], pa.int64())))
    yield Reason("label", ~zero_or_one & ~_unread(batch, data.label))
    if data.event_time:
        yield from _time_reasons(batch, data.event_time, config, logical_date)
    if data.event_key:
        missing = _true(rows.column(data.event_key).is_null())
        yield Reason("event_key_missing", missing & ~_unread(batch, data.event_key))
        inside = duplicates[(duplicates >= batch.start) & (duplicates < batch.start + rows.num_rows)]
        mask = np.zeros(rows.num_rows, dtype=np.bool_)
        mask[inside - batch.start] = True
        yield Reason("event_key_duplicate", mask)
    for name in config.numeric:
        mask = outside(_floats(rows.column(name)), config.fields[name])
        if mask.any():
            yield Reason(f"{name}_out_of_range", mask)


def unreadable_reason(column: str) -> str:
    """Name of the reason that a cell of a column cannot be read as what the column is."""
    return f"{column}_unreadable"


def outside(values: NDArray[np.float64], config: FieldConfig) -> Mask:
    """Which values, float64 [N], are finite and outside the field's declared range."""
    mask = np.zeros(len(values), dtype=np.bool_)
    if config.minimum is not None:
        mask |= values < config.minimum
    if config.maximum is not None:
        mask |= values > config.maximum
    return mask & np.isfinite(values)


def quarantined_positions(path: Path) -> NDArray[np.int64]:
    """Sorted positions of the rows that a quarantine file holds."""
    table = pq.read_table(path, columns=["position"])
    return np.asarray(table.column("position").to_numpy(), dtype=np.int64)


def _time_reasons(batch: RawBatch, column: str, config: RetrainConfig, logical_date: dt.date) -> Iterator[Reason]:
    times = batch.rows.column(column)
    start, end = config.day_bounds_utc(logical_date)
    kind = pa.timestamp("us", tz="UTC")
    inside = pc.and_(
        pc.greater_equal(times, pa.scalar(start, kind)),
        pc.less(times, pa.scalar(end, kind)),
    )
    missing = _true(times.is_null())
    yield Reason("event_time_missing", missing & ~_unread(batch, column))
    yield Reason("outside_day", ~_true(inside) & ~missing)


def _duplicate_positions(
    source: ObjectStore, partition: Partition, config: RetrainConfig, *, cache: LocalCache
) -> NDArray[np.int64]:
    """Positions of valid rows whose event key an earlier valid row has; keys are told apart by their 64-bit hash."""
    key = config.data.event_key
    if key is None:
        return np.empty(0, dtype=np.int64)
    hashes, positions = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for batch in iterate_rows(source, partition, config, cache=cache):
        column = batch.rows.column(key)
        reasons = bad_rows(batch, config, partition.logical_date, np.empty(0, dtype=np.int64))
        there = ~np.logical_or.reduce([reason.mask for reason in reasons])
        hashes.append(hash_values(column, seed=0)[there])
        positions.append(batch.start + np.flatnonzero(there))
    keys, where = np.concatenate(hashes), np.concatenate(positions)
    order = np.argsort(keys, kind="stable")
    repeated = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
    return np.sort(where[order[repeated]])


def _add_batch(day: DayFigures, batch: RawBatch, bad: Mask, reasons: list[Reason], config: RetrainConfig) -> None:
    labels = pc.fill_null(batch.rows.column(config.data.label), 0).to_numpy(zero_copy_only=False)
    day.rows += batch.rows.num_rows
    day.valid_rows += int((~bad).sum())
    day.clicks += int(labels[~bad].sum())
    for reason in reasons:
        day.reasons[reason.name] = day.reasons.get(reason.name, 0) + int(reason.mask.sum())


class _QuarantineWriter:
    """Writes bad rows as they come; the file exists, empty, for a day without any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is None:
            pq.write_table(pa.table({"position": pa.array([], pa.int64())}), self._path)
        else:
            self._writer.close()

    def write(self, batch: RawBatch, bad: Mask, reasons: list[Reason]) -> None:
        chosen = np.flatnonzero(bad)
        if not len(chosen):
            return
        names = np.array([reason.name for reason in reasons], dtype=object)
        hits = np.stack([reason.mask[chosen] for reason in reasons], axis=1)
        texts = [",".join(names[row]) for row in hits]
        rows = batch.rows.take(pa.array(chosen))
        table = pa.Table.from_batches([rows])
        table = table.append_column("position", pa.array(batch.start + chosen, pa.int64()))
        table = table.append_column("reasons", pa.array(texts, pa.string()))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, write_page_checksum=True)
        self._writer.write_table(table)


def _unread(batch: RawBatch, column: str) -> Mask:
    return batch.unreadable.get(column, np.zeros(batch.rows.num_rows, dtype=np.bool_))


def _readable(batch: RawBatch, column: str) -> pa.Array:
    array, unread = batch.rows.column(column), batch.unreadable.get(column)
    return array if unread is None else array.filter(pa.array(~unread))


def _true(array: pa.Array) -> Mask:
    """A boolean Arrow array as a mask; null is False."""
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), dtype=np.bool_)  # noqa: FBT003


def _floats(array: pa.Array) -> NDArray[np.float64]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)
