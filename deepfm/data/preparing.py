"""One accepted partition, sampled and encoded once, for whatever windows come to use it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepfm.config import RetrainConfig
from deepfm.data.partitions import RawBatch, iterate_rows
from deepfm.data.profile import quarantined_positions
from deepfm.data.sampling import group_hashes, keep_rate, labels_of, row_hashes, sampled
from deepfm.data.shards import ShardRows, ShardWriter
from deepfm.data.vocabulary import DayDictionary
from deepfm.manifests import Partition, ValidationReport
from deepfm.moments import Moments
from deepfm.storage import LocalCache, ObjectStore

ROWS_FILE = "rows.arrow"
"""The shard of a prepared day."""


class PreparedRows(NamedTuple):
    """What preparing a day left in the scratch folder."""

    sampled_rows: int
    keep_rate: float
    dictionary_sizes: dict[str, int]
    moments: dict[str, Moments]
    files: dict[str, Path]


@dataclass
class RunningMoments:
    """Count, mean and sum of squared distances, merged batch by batch (Chan et al., 1983)."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in values, float32 [N]; NaN is left out."""
        finite = values[np.isfinite(values)].astype(np.float64)
        if len(finite):
            mean = float(finite.mean())
            self.merge(Moments(count=len(finite), mean=mean, m2=float(((finite - mean) ** 2).sum())))

    def merge(self, other: Moments) -> None:
        """Take in the moments of other values."""
        total = self.count + other.count
        if total == 0:
            return
        delta = other.mean - self.mean
        self.mean += delta * other.count / total
        self.m2 += other.m2 + delta * delta * self.count * other.count / total
        self.count = total

    def freeze(self) -> Moments:
        """The moments so far."""
        return Moments(count=self.count, mean=self.mean, m2=self.m2)


def values_file(index: int) -> str:
    """Name of the file with a categorical field's values and counts; code i is its row i."""
    return f"values-{index}.parquet"


def valid_batches(
    source: ObjectStore, partition: Partition, config: RetrainConfig, *, quarantine: Path, cache: LocalCache
) -> Iterator[RawBatch]:
    """The rows of a partition that validation left, in a fixed order; `start` still counts delivered rows.

    Rows of one batch may have gaps in their positions, so positions inside a batch are not to be relied on.
    """
    bad = quarantined_positions(quarantine)
    for batch in iterate_rows(source, partition, config, cache=cache):
        inside = bad[(bad >= batch.start) & (bad < batch.start + batch.rows.num_rows)] - batch.start
        if not len(inside):
            yield batch
            continue
        keep = np.ones(batch.rows.num_rows, dtype=np.bool_)
        keep[inside] = False
        yield RawBatch(batch.start, batch.rows.filter(pa.array(keep)))


def prepare_rows(
    source: ObjectStore,
    report: ValidationReport,
    config: RetrainConfig,
    *,
    quarantine: Path,
    cache: LocalCache,
    scratch: Path,
) -> PreparedRows:
    """The shard and the values files of an accepted day, in `scratch`.

    Memory: a batch, and the distinct values of each categorical field.
    """
    rate = keep_rate(config.sampling, rows=report.valid_rows, clicks=report.clicks)
    dictionaries = {name: DayDictionary(config.fields[name]) for name in config.categorical}
    moments = {name: RunningMoments() for name in config.numeric}
    rows, path = 0, scratch / ROWS_FILE
    with ShardWriter(path, fields=len(dictionaries), numeric=len(moments)) as writer:
        for batch in valid_batches(source, report.partition, config, quarantine=quarantine, cache=cache):
            shard = _encode(batch, config, dictionaries, rate=rate, day_ordinal=report.logical_date.toordinal())
            for column, name in enumerate(config.numeric):
                moments[name].add(shard.numeric[:, column])
            writer.write(shard)
            rows += len(shard)
    files = {ROWS_FILE: path}
    for index, dictionary in enumerate(dictionaries.values()):
        files[values_file(index)] = scratch / values_file(index)
        pq.write_table(dictionary.table(), files[values_file(index)], write_page_checksum=True)
    sizes = {name: len(dictionary) for name, dictionary in dictionaries.items()}
    return PreparedRows(rows, rate, sizes, {name: m.freeze() for name, m in moments.items()}, files)


def numeric_matrix(rows: pa.RecordBatch, config: RetrainConfig) -> NDArray[np.float32]:
    """The numeric fields, float32 [N, D]; NaN where a value is missing or infinite."""
    matrix = np.empty((rows.num_rows, len(config.numeric)), dtype=np.float32)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and so missing
        for column, name in enumerate(config.numeric):
            matrix[:, column] = rows.column(name).to_numpy(zero_copy_only=False)
    matrix[~np.isfinite(matrix)] = np.nan
    return matrix


def _encode(
    batch: RawBatch, config: RetrainConfig, dictionaries: dict[str, DayDictionary], *, rate: float, day_ordinal: int
) -> ShardRows:
    labels = labels_of(batch.rows, config)
    hashes = row_hashes(batch, config, day_ordinal=day_ordinal)
    kept = sampled(labels, hashes, rate=rate, seed=config.sampling.seed)
    codes = np.empty((int(kept.sum()), len(dictionaries)), dtype=np.int32)
    for column, (name, dictionary) in enumerate(dictionaries.items()):
        codes[:, column] = dictionary.encode(batch.rows.column(name), kept)[kept]
    return ShardRows(
        codes=codes,
        numeric=numeric_matrix(batch.rows, config)[kept],
        labels=labels[kept],
        groups=group_hashes(batch, config, rows=hashes)[kept],
        rows=hashes[kept],
    )
