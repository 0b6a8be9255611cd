"""The training window: prepared days under one vocabulary, each with an array that remaps its codes to window ids."""

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepfm.config import RetrainConfig
from deepfm.data.hashing import below_share, mix64
from deepfm.data.preparing import ROWS_FILE, RunningMoments, values_file
from deepfm.data.shards import ShardRows, open_shard
from deepfm.data.vocabulary import build_vocabulary, look_up
from deepfm.errors import WindowError
from deepfm.manifests import Gap, Normalisation, PreparedDay
from deepfm.moments import Moments

_SLICE_SALT = 211


class AssembledWindow(NamedTuple):
    """What assembling a window left in the scratch folder."""

    vocabulary_sizes: dict[str, int]
    normalisation: dict[str, Normalisation]
    files: dict[str, Path]


def calendar_days(config: RetrainConfig, logical_date: dt.date) -> list[dt.date]:
    """The calendar days of a logical date's window, oldest first; the logical date is not among them."""
    return [logical_date - dt.timedelta(days=back) for back in range(config.window.window_days, 0, -1)]


def check_window(config: RetrainConfig, *, accepted: int, gaps: Sequence[Gap], logical_date: dt.date) -> None:
    """Nothing, if the window is large enough.

    Raises:
        WindowError: terminal; too few accepted days, or too large a share missing.
    """
    rules = config.window
    missing = len(gaps) / rules.window_days
    if accepted >= rules.min_days and missing <= rules.max_missing_share:
        return
    named = ", ".join(f"{gap.logical_date} ({gap.reason})" for gap in gaps[:5])
    more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
    raise WindowError(
        f"window before {logical_date} is too small",
        observed=f"{accepted} accepted days, {missing:.0%} missing: {named}{more}",
        required=f"at least {rules.min_days} days and at most {rules.max_missing_share:.0%} missing",
        where="window.min_days, window.max_missing_share",
        next_step="Choose a later date, deliver the missing days, or relax the rule.",
    )


def fewest_days(config: RetrainConfig) -> int:
    """How many accepted days a window needs."""
    rules = config.window
    within_share = (n for n in range(rules.window_days + 1) if 1 - n / rules.window_days <= rules.max_missing_share)
    return max(rules.min_days, min(within_share))


def vocabulary_file(index: int) -> str:
    """Name of the file with a categorical field's vocabulary; its row i has id i + 1."""
    return f"vocabulary-{index}.parquet"


def remap_file(logical_date: dt.date) -> str:
    """Name of the file that maps a day's codes to window ids, int32, all fields one after the other."""
    return f"remap-{logical_date.isoformat()}.npy"


def held_back(rows: ShardRows, config: RetrainConfig, *, logical_date: dt.date) -> NDArray[np.bool_]:
    """Which rows, bool [N], are kept from training for early stopping.

    They are chosen by the hash of the group, or of the row, salted with the logical date: whose history a model does
    not learn from changes every day.
    """
    training = config.training
    keys = rows.groups if training.validation_by == "group" else rows.rows
    return below_share(mix64(keys, seed=_SLICE_SALT + logical_date.toordinal()), training.validation_share)


def assemble(
    days: Sequence[PreparedDay],
    files: Mapping[dt.date, Mapping[str, Path]],
    config: RetrainConfig,
    *,
    logical_date: dt.date,
    scratch: Path,
) -> AssembledWindow:
    """Vocabularies, normalisation and remap arrays of a window, in `scratch`.

    A value's count is that of the rows that train, held-back rows left out: so every id gets gradients.

    Args:
        days: Prepared days, oldest first.
        files: Local files of each day, by name.
        config: The model's configuration.
        logical_date: The holdout day.
        scratch: Where the files go.
    """
    counts = {day.logical_date: _training_counts(day, files[day.logical_date], config, logical_date) for day in days}
    remaps: dict[dt.date, list[NDArray[np.int32]]] = {day.logical_date: [] for day in days}
    sizes: dict[str, int] = {}
    written: dict[str, Path] = {}
    for index, name in enumerate(config.categorical):
        values = [_values(files[day.logical_date][values_file(index)]) for day in days]
        field_counts = [counts[day.logical_date][index] for day in days]
        vocabulary = build_vocabulary(values, field_counts, min_count=config.vocabulary.min_count)
        known = vocabulary.column("value").combine_chunks()
        for day, day_values in zip(days, values, strict=True):
            remaps[day.logical_date].append(look_up(day_values, known))
        sizes[name] = len(known) + 1
        written[vocabulary_file(index)] = scratch / vocabulary_file(index)
        pq.write_table(vocabulary, written[vocabulary_file(index)], write_page_checksum=True)
    for date, arrays in remaps.items():
        written[remap_file(date)] = scratch / remap_file(date)
        np.save(written[remap_file(date)], np.concatenate(arrays), allow_pickle=False)
    return AssembledWindow(sizes, _normalise(days, config), written)


def read_vocabulary(path: Path) -> pa.Array:
    """The values of a vocabulary file; value i has id i + 1."""
    return _values(path)


def _values(path: Path) -> pa.Array:
    column = pq.read_table(path, columns=["value"], page_checksum_verification=True).column("value")
    return column.combine_chunks()


def _training_counts(
    day: PreparedDay, files: Mapping[str, Path], config: RetrainConfig, logical_date: dt.date
) -> list[NDArray[np.int64]]:
    """Per categorical field, how many training rows of the day hold each code."""
    sizes = [day.dictionary_sizes[name] for name in config.categorical]
    counts = [np.zeros(size, dtype=np.int64) for size in sizes]
    for rows in open_shard(files[ROWS_FILE], fields=len(sizes), numeric=len(config.numeric)):
        train = ~held_back(rows, config, logical_date=logical_date)
        for index, size in enumerate(sizes):
            counts[index] += np.bincount(rows.codes[train, index], minlength=size)
    return counts


def _normalise(days: Sequence[PreparedDay], config: RetrainConfig) -> dict[str, Normalisation]:
    return {name: _normalisation([day.moments[name] for day in days]) for name in config.numeric}


def _normalisation(moments: Sequence[Moments]) -> Normalisation:
    running = RunningMoments()
    for part in moments:
        running.merge(part)
    deviation = (running.m2 / running.count) ** 0.5 if running.count else 0.0
    # Training and the graph divide in float32, where less than this is zero.
    spread = deviation >= np.finfo(np.float32).tiny
    return Normalisation(mean=running.mean, deviation=deviation if spread else 1.0)
