"""Raw impressions of one day: which files there are, what they hold, and their rows in a stream."""

import datetime as dt
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepfm.config import RetrainConfig
from deepfm.data.casting import Canonical, canonical
from deepfm.data.files import DataFile, is_data, open_file
from deepfm.data.schema import columns_of
from deepfm.documents import stage_key
from deepfm.errors import ConfigError, DataNotReadyError
from deepfm.layout import name_below, partition_date, partition_is_file, partition_prefix, partitions_folder
from deepfm.manifests import Partition, RawFile
from deepfm.storage import LocalCache, ObjectStore

BATCH_ROWS = 65_536
"""Rows in memory at a time; the size of a file or of its row groups does not matter."""
_READERS = 8
"""Files that are hashed at a time."""


class RawBatch(NamedTuple):
    """Consecutive rows of a partition in canonical form."""

    start: int
    """Position of the first row in the partition, files in the order of their keys."""
    rows: pa.RecordBatch
    unreadable: Mapping[str, NDArray[np.bool_]] = MappingProxyType({})
    """By column, which rows, bool [N], held a cell that does not fit and is null now."""


def find_partition(
    source: ObjectStore, config: RetrainConfig, logical_date: dt.date, *, cache: LocalCache
) -> Partition | None:
    """The partition as delivered, fingerprinted by the content of its files; None if there is none.

    A file is read only if it is not known to be as it was when it was last hashed.
    """
    template = config.data.partition
    prefix = partition_prefix(template, logical_date)
    folder = prefix.rpartition("/")[0] if partition_is_file(template) else prefix
    found = [info for info in source.list(folder) if delivered_day(template, info.key) == logical_date]
    if not found:
        return None
    with ThreadPoolExecutor(_READERS) as pool:
        held = pool.map(lambda info: cache.digest(source, info), found)
        files = tuple(RawFile(key=info.key, **each._asdict()) for info, each in zip(found, held, strict=True))
    parts = [(file.key.removeprefix(prefix), file.size_bytes, file.sha256) for file in files]
    return Partition(logical_date=logical_date, files=files, fingerprint=stage_key(parts))


def days_with_data(source: ObjectStore, config: RetrainConfig) -> list[dt.date]:
    """Every logical date that the source holds a data file for, oldest first."""
    template = config.data.partition
    days = {delivered_day(template, info.key) for info in source.list(partitions_folder(template))}
    return sorted(day for day in days if day is not None)


def delivered_day(template: str, key: str) -> dt.date | None:
    """The day whose data an object holds; None for markers, hidden files and files of other kinds, too."""
    day = partition_date(template, key)
    if day is None or partition_is_file(template) or is_data(name_below(partition_prefix(template, day), key)):
        return day
    return None


def not_delivered(source: ObjectStore, config: RetrainConfig, logical_date: dt.date) -> ConfigError | DataNotReadyError:
    """The error that says which days there are instead; a source without any day is a mistake, not a delay."""
    days = days_with_data(source, config)
    if not days:
        others = [info.key for info in source.list(partitions_folder(config.data.partition)) if is_data(info.key)]
        return ConfigError(
            "data.source holds no partition at all",
            observed=f"{len(others)} data files of other names, such as {others[0]}" if others else None,
            required=f"Parquet or CSV files by the name {config.data.partition}",
            where=source.url,
            next_step="Check data.source, which is relative to the working directory, and data.partition.",
        )
    there = f"{days[0]} to {days[-1]}, {len(days)} days"
    return DataNotReadyError(
        f"clicks of {logical_date} are not there",
        observed=there,
        required=f"Parquet or CSV by the name {config.data.partition}",
        where=source.url,
        next_step="Check data.source and the date, or run again once the day is delivered.",
    )


def read_schemas(
    source: ObjectStore, partition: Partition, config: RetrainConfig, *, cache: LocalCache
) -> dict[str, pa.Schema]:
    """The Arrow schema of every file; `deepfm.data.files.is_text` tells that of a CSV.

    Raises:
        DataCorruptError: terminal; a file is not readable as what its name says.
    """
    return {file.key: _open(source, file, config, cache=cache).schema for file in partition.files}


def iterate_rows(
    source: ObjectStore, partition: Partition, config: RetrainConfig, *, cache: LocalCache
) -> Iterator[RawBatch]:
    """All rows of a partition in canonical form and a fixed order.

    Every batch but the last holds `BATCH_ROWS` rows: what is made of equal rows is equal, whatever files they came in.

    Raises:
        DataCorruptError: terminal; a file cannot be read to its end.
    """
    start = 0
    for rows, unreadable in _regrouped(_parts(source, partition, config, cache=cache), BATCH_ROWS):
        yield RawBatch(start, rows, unreadable)
        start += rows.num_rows


def _parts(
    source: ObjectStore, partition: Partition, config: RetrainConfig, *, cache: LocalCache
) -> Iterator[Canonical]:
    names = [column.name for column in columns_of(config)]
    for file in partition.files:
        for batch in _open(source, file, config, cache=cache).batches(names, batch_rows=BATCH_ROWS):
            yield canonical(batch, config)


def _regrouped(parts: Iterator[Canonical], size: int) -> Iterator[Canonical]:
    """The same rows in groups of `size`, the last one smaller."""
    pending: list[Canonical] = []
    count = 0
    for part in parts:
        start = 0
        while start < part.rows.num_rows:
            taken = _sliced(part, start, start + size - count)
            start, count = start + taken.rows.num_rows, count + taken.rows.num_rows
            pending.append(taken)
            if count == size:
                yield _joined(pending)
                pending, count = [], 0
    if pending:
        yield _joined(pending)


def _sliced(part: Canonical, start: int, end: int) -> Canonical:
    return Canonical(
        part.rows.slice(start, end - start), {name: mask[start:end] for name, mask in part.unreadable.items()}
    )


def _joined(parts: list[Canonical]) -> Canonical:
    if len(parts) == 1:
        return parts[0]
    (rows,) = pa.Table.from_batches([part.rows for part in parts]).combine_chunks().to_batches()
    names = {name for part in parts for name in part.unreadable}
    masks = {
        name: np.concatenate([part.unreadable.get(name, np.zeros(part.rows.num_rows, np.bool_)) for part in parts])
        for name in sorted(names)
    }
    return Canonical(rows, masks)


def _open(source: ObjectStore, file: RawFile, config: RetrainConfig, *, cache: LocalCache) -> DataFile:
    path = cache.path(source, file.key, sha256=file.sha256, size_bytes=file.size_bytes)
    return open_file(path, key=file.key, delimiter=config.data.csv_delimiter)
