"""Batches of a window in a shuffled order that depends on seed and epoch alone.

Blocks of consecutive rows are read in random order into a buffer of `shuffle_rows`, permuted there and cut: memory is
bounded by the buffer, whatever the size of the window, and a window that fits the buffer is shuffled completely.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepfm.config import RetrainConfig
from deepfm.data.hashing import below_share, mix64
from deepfm.data.preparing import ROWS_FILE
from deepfm.data.shards import ShardRows, open_shard
from deepfm.data.vocabulary import OOV_ID
from deepfm.data.window import held_back, remap_file
from deepfm.manifests import PreparedDay, Window

BLOCK_ROWS = 2048
"""Consecutive rows that stay together until they reach the shuffle buffer."""
MAX_SLICE_ROWS = 500_000
"""Rows of the early-stopping slice at most; a larger one is thinned by hash."""
_STEPS_PER_EPOCH = 250
_THINNING_SALT = 307


class Batch(NamedTuple):
    """One step's rows on the training device."""

    ids: Tensor
    """int64 [B, F], ids within each field."""
    numeric: Tensor
    """float32 [B, D], standardised; 0 where missing."""
    labels: Tensor
    """float32 [B]."""
    weights: Tensor
    """float32 [B]: 1, or w_ref / w_d for a negative of day d."""


class Slice(NamedTuple):
    """The rows held back for early stopping."""

    batch: Batch
    labels: NDArray[np.uint8]
    groups: NDArray[np.uint64]


class _Rows(NamedTuple):
    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    labels: NDArray[np.uint8]
    weights: NDArray[np.float32]
    groups: NDArray[np.uint64]
    keys: NDArray[np.uint64]


@dataclass(frozen=True)
class _Day:
    chunks: list[ShardRows]
    remap: NDArray[np.int32]
    offsets: NDArray[np.int64]
    negative_weight: float


class _Block(NamedTuple):
    day: int
    chunk: int
    start: int
    stop: int


class WindowRows:
    """The rows of a window, read from memory-mapped shards and remapped to window ids as they are needed."""

    def __init__(
        self,
        window: Window,
        days: Mapping[dt.date, PreparedDay],
        files: Mapping[dt.date, Mapping[str, Path]],
        config: RetrainConfig,
    ) -> None:
        """Open every day's shard and remap array.

        Args:
            window: The window.
            days: Its prepared days, by date.
            files: Local files of each day by name, the window's remap arrays among them.
            config: The model's configuration.
        """
        self._config, self._logical_date = config, window.logical_date
        scale = [window.normalisation[name] for name in window.numeric]
        self._mean = np.array([item.mean for item in scale], dtype=np.float32)
        self._deviation = np.array([item.deviation for item in scale], dtype=np.float32)
        self._sizes = [window.vocabulary_sizes[name] for name in window.categorical]
        self._days = [
            _open_day(days[day.logical_date], files[day.logical_date], window, window.keep_rate / day.keep_rate)
            for day in window.days
        ]
        self._blocks = [
            _Block(index, chunk, start, min(start + BLOCK_ROWS, len(rows)))
            for index, day in enumerate(self._days)
            for chunk, rows in enumerate(day.chunks)
            for start in range(0, len(rows), BLOCK_ROWS)
        ]
        self.training_rows = sum(int((~self._held_back(block)).sum()) for block in self._blocks)

    def epoch(self, epoch: int, *, batch_size: int, device: torch.device, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch; rows that do not fill the last batch are left to the next epoch's shuffle.

        Args:
            epoch: Number of the epoch; with the seed it fixes the order.
            batch_size: Rows of a batch.
            device: Where the tensors go.
            skip: Batches at the beginning that were already used (after a resume).
        """
        rng = np.random.default_rng([self._config.training.seed, epoch])
        rest: _Rows | None = None
        for buffer in self._buffers(rng):
            rows = buffer if rest is None else _concatenated([rest, buffer])
            full = len(rows.labels) // batch_size * batch_size
            for start in range(0, full, batch_size):
                if skip:
                    skip -= 1
                    continue
                yield _to_batch(_taken(rows, slice(start, start + batch_size)), device)
            rest = _taken(rows, slice(full, None))

    def validation_slice(self, *, device: torch.device) -> Slice:
        """The held-back rows, in file order, thinned to `MAX_SLICE_ROWS`."""
        total = sum(block.stop - block.start for block in self._blocks) - self.training_rows
        share = min(1.0, MAX_SLICE_ROWS / max(total, 1))
        parts = []
        for block in self._blocks:
            rows = self._read(block)
            chosen = self._held_back(block) & below_share(mix64(rows.keys, seed=_THINNING_SALT), share)
            parts.append(_taken(rows, np.flatnonzero(chosen)))
        rows = _concatenated(parts)
        return Slice(_to_batch(rows, device), rows.labels, rows.groups)

    def inverse_counts(self) -> Tensor:
        """One over the rows of an epoch that are expected to hold an id, float32 [V], the fields one after the other.

        A share `oov_rate` of the look-ups is moved to OOV: without them the OOV id of a field that has no rare value
        would count as one row, and a prior spread over its look-ups would hold it at 0.
        """
        counts = [np.zeros(size, dtype=np.float64) for size in self._sizes]
        for block in self._blocks:
            ids = self._read(block).ids[~self._held_back(block)]
            for column, size in enumerate(self._sizes):
                counts[column] += np.bincount(ids[:, column], minlength=size)
        moved = self._config.vocabulary.oov_rate
        for field in counts:
            known = field[1:].sum()
            field[1:] *= 1.0 - moved
            field[OOV_ID] += moved * known
        return torch.from_numpy(1.0 / np.maximum(np.concatenate(counts), 1.0)).float()

    def _buffers(self, rng: np.random.Generator) -> Iterator[_Rows]:
        order = rng.permutation(len(self._blocks))
        per_buffer = max(1, self._config.training.shuffle_rows // BLOCK_ROWS)
        for first in range(0, len(order), per_buffer):
            parts = []
            for index in order[first : first + per_buffer]:
                block = self._blocks[index]
                parts.append(_taken(self._read(block), np.flatnonzero(~self._held_back(block))))
            rows = _concatenated(parts)
            rows = _taken(rows, rng.permutation(len(rows.labels)))
            forgotten = rng.random(rows.ids.shape, dtype=np.float32) < self._config.vocabulary.oov_rate
            rows.ids[forgotten] = OOV_ID
            yield rows

    def _held_back(self, block: _Block) -> NDArray[np.bool_]:
        chunk = self._days[block.day].chunks[block.chunk]
        return held_back(_shard_slice(chunk, block), self._config, logical_date=self._logical_date)

    def _read(self, block: _Block) -> _Rows:
        day = self._days[block.day]
        rows = _shard_slice(day.chunks[block.chunk], block)
        numeric = (rows.numeric - self._mean) / self._deviation
        weights = np.where(rows.labels == 1, np.float32(1.0), np.float32(day.negative_weight))
        return _Rows(
            ids=day.remap[rows.codes + day.offsets],
            numeric=np.nan_to_num(numeric, nan=0.0, posinf=None, neginf=None),
            labels=rows.labels,
            weights=weights,
            groups=rows.groups,
            keys=rows.rows,
        )


def resolve_batch_size(config: RetrainConfig, *, rows: int) -> int:
    """Rows of a step: the configured number, or for `auto` a power of two from 32 to 4096 by rows.

    `auto` aims at 250 steps an epoch or more: fewer steps cost far more AUC than small batches cost time.
    """
    wanted = config.training.batch_size
    most = max(rows, 1) // _STEPS_PER_EPOCH
    size = min(4096, max(32, 1 << max(most.bit_length() - 1, 0))) if wanted == "auto" else wanted
    return max(1, min(size, rows))


def _open_day(day: PreparedDay, files: Mapping[str, Path], window: Window, negative_weight: float) -> _Day:
    sizes = [day.dictionary_sizes[name] for name in window.categorical]
    return _Day(
        chunks=open_shard(files[ROWS_FILE], fields=len(sizes), numeric=len(window.numeric)),
        remap=np.load(files[remap_file(day.logical_date)], mmap_mode="r", allow_pickle=False),
        offsets=np.cumsum([0, *sizes[:-1]], dtype=np.int64),
        negative_weight=negative_weight,
    )


def _shard_slice(chunk: ShardRows, block: _Block) -> ShardRows:
    rows = slice(block.start, block.stop)
    return ShardRows(
        codes=chunk.codes[rows],
        numeric=chunk.numeric[rows],
        labels=chunk.labels[rows],
        groups=chunk.groups[rows],
        rows=chunk.rows[rows],
    )


def _taken(rows: _Rows, index: slice | NDArray[np.int64]) -> _Rows:
    return _Rows._make(column[index] for column in rows)


def _concatenated(parts: list[_Rows]) -> _Rows:
    return _Rows._make(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _to_batch(rows: _Rows, device: torch.device) -> Batch:
    return Batch(
        ids=torch.from_numpy(rows.ids.astype(np.int64)).to(device),
        numeric=torch.from_numpy(rows.numeric).to(device),
        labels=torch.from_numpy(rows.labels.astype(np.float32)).to(device),
        weights=torch.from_numpy(rows.weights).to(device),
    )
