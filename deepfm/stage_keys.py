"""What the result of each stage depends on, as one key: equal inputs, equal key, and the stored result is used.

The stages of `deepfm.pipeline` name their results by these keys, and the calendar asks the same functions what a run
would make today, so the two cannot disagree.
"""

import datetime as dt
from collections.abc import Sequence

from deepfm import layout
from deepfm.config import RetrainConfig
from deepfm.documents import stage_key
from deepfm.manifests import Gap, Partition

FORMAT = {"validate": 3, "prepare": 3, "window": 1, "train": 2}
"""Raised by hand when a stage computes something else from the same inputs, so that nothing stale is reused."""
_NOT_INPUTS = {"device", "checkpoint_every_seconds"}


def validate_key(config: RetrainConfig, partition: Partition) -> str:
    """Key of the judgement on a partition; where the source is does not matter, what it delivered does."""
    rules = (config.data.model_copy(update={"source": ""}), config.fields, config.validation, config.time_zone)
    return stage_key(FORMAT["validate"], partition.fingerprint, *rules)


def prepare_key(config: RetrainConfig, validated: str) -> str:
    """Key of the prepared day that a judgement's key leads to."""
    return stage_key(FORMAT["prepare"], validated, config.sampling, config.categorical, config.numeric)


def window_key(config: RetrainConfig, logical_date: dt.date, days: Sequence[str], gaps: Sequence[Gap]) -> str:
    """Key of the window over prepared days, given by their keys, oldest first."""
    held_back = (config.training.validation_share, config.training.validation_by)
    return stage_key(FORMAT["window"], logical_date, list(days), list(gaps), config.vocabulary.min_count, held_back)


def version_id(config: RetrainConfig, logical_date: dt.date, window: str) -> str:
    """The id of the version that a window, given by its key, and the configuration make."""
    training = config.training.model_dump(exclude=_NOT_INPUTS)
    key = stage_key(FORMAT["train"], window, config.network, config.loss, training, config.vocabulary.oov_rate)
    return layout.version_id(logical_date, key)


def gate_key(config: RetrainConfig, validated: str) -> str:
    """Fingerprint of the gate's configuration and of the holdout as delivered, given by its judgement's key."""
    return stage_key(config.gate, validated)
