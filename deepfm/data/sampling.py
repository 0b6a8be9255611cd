"""Which rows of a day are kept: every click, and negatives by a hash, so that the choice never moves."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepfm.config import RetrainConfig, SamplingConfig
from deepfm.data.hashing import below_share, hash_positions, hash_values, mix64
from deepfm.data.partitions import RawBatch

_SAMPLE_SALT = 101
_GROUP_SEED = 7


def keep_rate(config: SamplingConfig, *, rows: int, clicks: int) -> float:
    """w, the probability in (0, 1] with which a negative of this day is kept.

    For r negatives per click, w = r · clicks / negatives; a day that has fewer negatives keeps them all.
    """
    if config.keep_rate is not None:
        return config.keep_rate
    negatives = rows - clicks
    if config.negatives_per_positive is None or negatives <= 0 or clicks <= 0:
        return 1.0
    return min(1.0, config.negatives_per_positive * clicks / negatives)


def row_hashes(batch: RawBatch, config: RetrainConfig, *, day_ordinal: int) -> NDArray[np.uint64]:
    """A uint64 per row that stands for the impression: of its event key, else of day and position."""
    if config.data.event_key:
        return hash_values(batch.rows.column(config.data.event_key), seed=0)
    return hash_positions(batch.start, batch.rows.num_rows, seed=day_ordinal)


def group_hashes(batch: RawBatch, config: RetrainConfig, *, rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A uint64 per row that stands for its group (user); the row itself where no group is configured or known."""
    if config.data.group:
        column = batch.rows.column(config.data.group)
        missing = column.is_null().to_numpy(zero_copy_only=False)
        return np.where(missing, rows, hash_values(column, seed=_GROUP_SEED))
    return rows


def sampled(labels: NDArray[np.uint8], hashes: NDArray[np.uint64], *, rate: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are kept: all clicks, and a negative iff hash64(seed, key) < w · 2^64.

    The choice for an impression depends on its key alone: not on the order of rows or files.
    """
    chosen: NDArray[np.bool_] = (labels == 1) | below_share(mix64(hashes, seed=seed + _SAMPLE_SALT), rate)
    return chosen


def labels_of(rows: pa.RecordBatch, config: RetrainConfig) -> NDArray[np.uint8]:
    """The labels, uint8 [N]; only for batches whose bad rows are gone."""
    return np.asarray(rows.column(config.data.label).to_numpy(zero_copy_only=False), dtype=np.uint8)
