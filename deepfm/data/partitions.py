"""Raw impressions of one day: which files there are, what they hold, and their rows in a stream."""

import datetime as dt
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from deepfm.config import RetrainConfig
from deepfm.data.schema import canonical, columns_of
from deepfm.documents import stage_key
from deepfm.errors import ConfigError, DataCorruptError, DataNotReadyError
from deepfm.layout import name_below, partition_date, partition_is_file, partition_prefix, partitions_folder
from deepfm.manifests import Partition, RawFile
from deepfm.storage import LocalCache, ObjectStore

BATCH_ROWS = 65_536
"""Rows in memory at a time; the size of a file or of its row groups does not matter."""
_CHUNK_BYTES = 1 << 20


class RawBatch(NamedTuple):
    """Consecutive rows of a partition, canonical columns."""

    start: int
    """Position of the first row in the partition, files in the order of their keys."""
    rows: pa.RecordBatch


def find_partition(
    source: ObjectStore, config: RetrainConfig, logical_date: dt.date, *, scratch: Path
) -> Partition | None:
    """The partition as delivered, fingerprinted by the content of its Parquet files; None if there is none."""
    template = config.data.partition
    prefix = partition_prefix(template, logical_date)
    folder = prefix.rpartition("/")[0] if partition_is_file(template) else prefix
    keys = [info.key for info in source.list(folder) if _day_of(template, info.key) == logical_date]
    if not keys:
        return None
    files = tuple(_raw_file(source, key, scratch=scratch) for key in sorted(keys))
    parts = [(file.key.removeprefix(prefix), file.size_bytes, file.sha256) for file in files]
    return Partition(logical_date=logical_date, files=files, fingerprint=stage_key(parts))


def days_with_data(source: ObjectStore, config: RetrainConfig) -> list[dt.date]:
    """Every logical date that the source holds a Parquet file for, oldest first."""
    template = config.data.partition
    days = {_day_of(template, info.key) for info in source.list(partitions_folder(template))}
    return sorted(day for day in days if day is not None)


def not_delivered(source: ObjectStore, config: RetrainConfig, logical_date: dt.date) -> ConfigError | DataNotReadyError:
    """The error that says which days there are instead; a source without any day is a mistake, not a delay."""
    days = days_with_data(source, config)
    if not days:
        return ConfigError(
            "data.source holds no partition at all",
            required=f"Parquet files below {config.data.partition}",
            where=source.url,
            next_step="Check data.source, which is relative to the working directory, and data.partition.",
        )
    there = f"{days[0]} to {days[-1]}, {len(days)} days"
    return DataNotReadyError(
        f"clicks of {logical_date} are not there",
        observed=there,
        required=f"a Parquet file below {config.data.partition}",
        where=source.url,
        next_step="Check data.source and the date, or run again once the day is delivered.",
    )


def read_schemas(source: ObjectStore, partition: Partition, *, cache: LocalCache) -> dict[str, pa.Schema]:
    """The Arrow schema of every file.

    Raises:
        DataCorruptError: terminal; a file is not readable as Parquet.
    """
    return {file.key: _open(source, file, cache=cache).schema_arrow for file in partition.files}


def iterate_rows(
    source: ObjectStore, partition: Partition, config: RetrainConfig, *, cache: LocalCache
) -> Iterator[RawBatch]:
    """All rows of a partition in batches of at most `BATCH_ROWS`, in a fixed order; page checksums are verified.

    Raises:
        DataCorruptError: terminal; a file cannot be read to its end.
        DataRejectedError: terminal; a value does not fit its canonical type.
    """
    names = [column.name for column in columns_of(config)]
    start = 0
    for file in partition.files:
        reader = _open(source, file, cache=cache)
        batches = reader.iter_batches(batch_size=BATCH_ROWS, columns=names)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as cause:
                raise _corrupt(file.key, cause) from cause
            if batch is None:
                break
            yield RawBatch(start, canonical(batch, config))
            start += batch.num_rows


def _open(source: ObjectStore, file: RawFile, *, cache: LocalCache) -> pq.ParquetFile:
    path = cache.path(source, file.key, sha256=file.sha256, size_bytes=file.size_bytes)
    try:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as cause:
        raise _corrupt(file.key, cause) from cause


def _corrupt(key: str, cause: BaseException) -> DataCorruptError:
    reason = str(cause).splitlines()[0][:160] if str(cause) else type(cause).__name__
    return DataCorruptError(f"{key} is not readable as Parquet: {reason}", next_step="Deliver the file again.")


def _day_of(template: str, key: str) -> dt.date | None:
    """The day whose data an object holds; None for markers, hidden files and files of other kinds, too."""
    day = partition_date(template, key)
    if day is None or partition_is_file(template) or _is_data(name_below(partition_prefix(template, day), key)):
        return day
    return None


def _is_data(key: str) -> bool:
    name = key.rpartition("/")[2]
    return name.endswith(".parquet") and not name.startswith(("_", "."))


def _raw_file(source: ObjectStore, key: str, *, scratch: Path) -> RawFile:
    path = source.fetch(key, scratch=scratch)
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    if path.parent == scratch:
        path.unlink()
    return RawFile(key=key, sha256=digest.hexdigest(), size_bytes=size)
