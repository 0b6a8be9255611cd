"""A whole, unsampled day scored through exported ONNX files, and the figures that follow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepfm.config import RetrainConfig
from deepfm.data.preparing import valid_batches
from deepfm.data.raw import raw_columns
from deepfm.data.sampling import group_hashes, labels_of, row_hashes
from deepfm.errors import UndefinedMetricError
from deepfm.manifests import Comparison, EvaluationReport, InputSpec, ValidationReport
from deepfm.metrics import AucEstimate, auc_error, calibration_ratio, gauc, log_loss, normalised_entropy, paired_auc
from deepfm.serving import Scorer
from deepfm.storage import LocalCache, ObjectStore


class HoldoutScores(NamedTuple):
    """A scored day."""

    labels: NDArray[np.uint8]
    """[N]"""
    groups: NDArray[np.uint64] | None
    """[N], or None where no group is configured."""
    probabilities: tuple[NDArray[np.float32], ...]
    """One [N] per model."""


def score_holdout(
    source: ObjectStore,
    report: ValidationReport,
    config: RetrainConfig,
    *,
    quarantine: Path,
    cache: LocalCache,
    models: Sequence[tuple[Scorer, Sequence[InputSpec]]],
) -> HoldoutScores:
    """Every valid row of a day through every model, in one pass.

    Memory: a batch of rows, and per row of the day 1 byte, 8 bytes of group, 4 bytes per model.
    """
    labels, groups = [np.empty(0, np.uint8)], [np.empty(0, np.uint64)]
    scores: list[list[NDArray[np.float32]]] = [[np.empty(0, np.float32)] for _ in models]
    for batch in valid_batches(source, report.partition, config, quarantine=quarantine, cache=cache):
        labels.append(labels_of(batch.rows, config))
        if config.data.group:
            hashes = row_hashes(batch, config, day_ordinal=0)
            groups.append(group_hashes(batch, config, rows=hashes))
        for index, (scorer, inputs) in enumerate(models):
            scores[index].append(scorer.probabilities(raw_columns(batch.rows, inputs)))
    return HoldoutScores(
        np.concatenate(labels),
        np.concatenate(groups) if config.data.group else None,
        tuple(np.concatenate(parts) for parts in scores),
    )


def report_on(scores: HoldoutScores, index: int, *, version: str, config: RetrainConfig) -> EvaluationReport:
    """The figures of one model on a scored day.

    Raises:
        UndefinedMetricError: terminal; the day has one class only.
    """
    probabilities = scores.probabilities[index].astype(np.float64)
    estimate: AucEstimate = auc_error(probabilities, scores.labels, groups=scores.groups)
    grouped: Mapping[str, float | None] = {"gauc": None, "gauc_coverage": None}
    if scores.groups is not None:
        grouped = _grouped(probabilities, scores.labels, scores.groups)
    return EvaluationReport(
        version=version,
        rows=len(scores.labels),
        clicks=int(scores.labels.sum()),
        auc=estimate.auc,
        auc_error=estimate.error,
        log_loss=log_loss(probabilities, scores.labels),
        normalised_entropy=normalised_entropy(probabilities, scores.labels),
        calibration_ratio=calibration_ratio(probabilities, scores.labels),
        error_unit=f"group {config.data.group}" if config.data.group else "row",
        **grouped,
    )


def compare(scores: HoldoutScores) -> Comparison:
    """Model 0 minus model 1 on the same rows."""
    challenger, champion = (column.astype(np.float64) for column in scores.probabilities)
    paired = paired_auc(challenger, champion, scores.labels, groups=scores.groups)
    return Comparison(difference=paired.difference, error=paired.error)


def _grouped(
    probabilities: NDArray[np.float64], labels: NDArray[np.uint8], groups: NDArray[np.uint64]
) -> dict[str, float | None]:
    try:
        value, coverage = gauc(probabilities, labels, groups)
    except UndefinedMetricError:
        return {"gauc": None, "gauc_coverage": 0.0}
    return {"gauc": value, "gauc_coverage": coverage}
