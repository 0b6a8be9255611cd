"""The curves of a scored day: ROC points, calibration bins and score histograms, bounded whatever the rows.

Every count is exact at its threshold. Only the number of thresholds is limited, so a curve is thinned, never smoothed.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepfm.config import GateConfig
from deepfm.curves import CALIBRATION_BINS, MAX_ROC_POINTS, MAX_SCORE_BINS, CalibrationBin, Curves, ModelCurves
from deepfm.evaluation.holdout import HoldoutScores
from deepfm.manifests import ValidationReport
from deepfm.metrics import normal_quantile

Column = NDArray[np.float32]
_NEAREST_TO_CERTAIN = 1e-7
"""Scores are kept this far from 0 and 1 before their log-odds are taken: 16 on either side."""
_LOWEST_WIDTH = 2.0**-10
"""Width of a score bin, in log-odds, where a model gives every row about the same score."""


def curves_of(
    scores: HoldoutScores,
    holdout: ValidationReport,
    *,
    versions: Sequence[str],
    compared_entry: int,
    gate: GateConfig,
) -> Curves:
    """The curves of the models on a scored day, on one grid of scores so that they can be laid over each other.

    Args:
        scores: [N] labels of both classes, and [N] probabilities for each model.
        holdout: The day's validation.
        versions: The challenger, and the champion if it was scored.
        compared_entry: Log entry of the champion, 0 for none.
        gate: The configuration that will decide.
    """
    start, width, bins = _logit_grid(scores.probabilities)
    models = [
        ModelCurves(
            version=version,
            calibration=_calibration(column, scores.labels),
            **_roc(column, scores.labels),
            **_histogram(column, scores.labels, start=start, width=width, bins=bins),
        )
        for version, column in zip(versions, scores.probabilities, strict=True)
    ]
    return Curves(
        model=holdout.model,
        version=versions[0],
        logical_date=holdout.logical_date,
        compared_entry=compared_entry,
        holdout_key=holdout.key,
        gate=gate.model_dump(),
        logit_start=start,
        logit_width=width,
        challenger=models[0],
        champion=models[1] if len(models) > 1 else None,
    )


def _roc(scores: Column, labels: NDArray[np.uint8]) -> dict[str, tuple[int, ...]]:
    """Thresholds at evenly spaced clicks and evenly spaced negatives: no step is longer than 1 % in either direction.

    Rows of equal score cannot be told apart by a threshold: only there the steps are longer, and straight.
    """
    clicks, negatives = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    each = (MAX_ROC_POINTS - 2) // 2
    picked = [ordered[np.linspace(0, ordered.size - 1, each).round().astype(int)] for ordered in (clicks, negatives)]
    thresholds = np.unique(np.concatenate(picked))[::-1]
    return {
        name: (0, *(ordered.size - np.searchsorted(ordered, thresholds, side="left")).tolist())
        for name, ordered in (("roc_clicks", clicks), ("roc_negatives", negatives))
    }


def _calibration(scores: Column, labels: NDArray[np.uint8]) -> tuple[CalibrationBin, ...]:
    ordered = np.sort(scores)
    edges = np.unique(ordered[np.arange(1, CALIBRATION_BINS) * ordered.size // CALIBRATION_BINS])
    bins = np.searchsorted(edges, scores, side="right")
    count = len(edges) + 1
    rows = np.bincount(bins, minlength=count)
    clicks = np.bincount(bins[labels == 1], minlength=count)
    sums = np.bincount(bins, weights=scores, minlength=count)
    return tuple(
        _bin(mean=float(sums[i] / rows[i]), rows=int(rows[i]), clicks=int(clicks[i])) for i in range(count) if rows[i]
    )


def _bin(*, mean: float, rows: int, clicks: int) -> CalibrationBin:
    """A bin with the Wilson interval of its rate, which stays inside [0, 1] and is not empty without clicks."""
    z, rate = normal_quantile(0.975), clicks / rows
    shrunk = 1.0 + z * z / rows
    centre = (rate + z * z / (2 * rows)) / shrunk
    reach = z / shrunk * math.sqrt(rate * (1.0 - rate) / rows + z * z / (4 * rows * rows))
    # Rounding alone can put an end on the wrong side of a rate of 0 or 1.
    low, high = min(rate, max(0.0, centre - reach)), max(rate, min(1.0, centre + reach))
    return CalibrationBin(mean_score=mean, rows=rows, clicks=clicks, low=low, high=high)


def _logit_grid(columns: Sequence[Column]) -> tuple[float, float, int]:
    """Start, width and number of the score bins: a power of two wide, with edges at its multiples."""
    ends = np.array([[column.min(), column.max()] for column in columns])
    low, high = (float(end) for end in _logits(np.array([ends[:, 0].min(), ends[:, 1].max()])))
    # One bin fewer than allowed, because the first edge lies below the lowest score.
    width = max(_LOWEST_WIDTH, 2.0 ** math.ceil(math.log2(max(high - low, _LOWEST_WIDTH) / (MAX_SCORE_BINS - 1))))
    first, last = math.floor(low / width), math.floor(high / width)
    return first * width, width, last - first + 1


def _histogram(
    scores: Column, labels: NDArray[np.uint8], *, start: float, width: float, bins: int
) -> dict[str, tuple[int, ...]]:
    index = np.clip(((_logits(scores) - start) / width).astype(np.intp), 0, bins - 1)
    return {
        name: tuple(np.bincount(index[labels == label], minlength=bins).tolist())
        for name, label in (("negatives_by_score", 0), ("clicks_by_score", 1))
    }


def _logits(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    chances = np.clip(scores.astype(np.float64), _NEAREST_TO_CERTAIN, 1.0 - _NEAREST_TO_CERTAIN)
    return np.log(chances) - np.log1p(-chances)
