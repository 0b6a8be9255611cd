"""Columns that tell the label, and columns that tell each other.

Chance does it seldom: with ten clicks, a column of noise reaches an AUC of .98 once in 10^13 columns.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepfm.discovery.values import Values
from deepfm.metrics import auc

LEAK_AUC = 0.98
"""From here on a column says what happened after the impression."""
DOUBT_AUC = 0.9
"""From here on a person has to look."""
MIN_OF_A_CLASS = 10
"""Fewest clicks, and fewest rows without one, that a test needs."""
_FOLDS = 5
_PRIOR_ROWS = 5.0
_BINS = 64
_PURE_SHARE = 0.05
_CHANCE = 1e-9
_ENOUGH_ROWS = 1_000
_TOLD_BY_NULLS = 0.95
_SAME = 0.99
_MANY = 50

Clicked = NDArray[np.bool_]


class Verdict(NamedTuple):
    """What a column alone says about the label."""

    auc: float
    """0.5 where there is too little to say."""
    reason: str
    """Why it must not be a field; empty if it may."""


def tells_label(values: Values, clicked: Clicked) -> Verdict:
    """Whether a column alone tells the label.

    The score of a value is its share of clicks in the other folds, so that a value seen once says nothing; numbers are
    also cut into bins, and taken as they are. Missing is a value.
    """
    clicks, others = int(clicked.sum()), int((~clicked).sum())
    if min(clicks, others) < MIN_OF_A_CLASS:
        return Verdict(0.5, "")
    reached = _out_of_fold_auc(_binned(values), clicked)
    if values.kind in {"integer", "number"}:
        numbers = values.floats()
        there = np.isfinite(numbers)
        if min(int(clicked[there].sum()), int((~clicked[there]).sum())) >= MIN_OF_A_CLASS:
            alone = auc(numbers[there], clicked[there])
            reached = max(reached, alone, 1.0 - alone)
    return Verdict(reached, _leak(values, clicked, reached))


def repeats(values: Values, other: Values) -> bool:
    """Whether two columns are two names of one thing: each value of one goes with one value of the other.

    Exactly, or for 99 in 100 rows where there are many values: two films may share a title.
    """
    few, many = sorted((values.distinct, other.distinct))
    if few < 3 or many > 1.1 * few or many * 2 > len(values.codes):
        return False
    share = min(_determined(values.codes, other.codes), _determined(other.codes, values.codes))
    return share == 1.0 or (few >= _MANY and share >= _SAME)


def _leak(values: Values, clicked: Clicked, reached: float) -> str:
    nulls = values.nulls
    if reached < LEAK_AUC:
        return _always_clicked(values.codes, clicked)
    if nulls.any() and abs(clicked[nulls].mean() - clicked[~nulls].mean()) > _TOLD_BY_NULLS:
        there, missing = clicked[~nulls].mean(), clicked[nulls].mean()
        return f"tells the label: {there:.0%} clicked where there, {missing:.0%} where missing"
    if _pure(values.codes, clicked):
        return "tells the label: all rows of a value have the same label"
    return f"tells the label: it alone reaches AUC {reached:.3f}"


def _always_clicked(codes: NDArray[np.int64], clicked: Clicked) -> str:
    """The reason, if one value, or whatever is not the usual value, was clicked without exception.

    Such as an amount paid, which is 0 but for a few of the clicks.
    """
    rows, clicks = np.bincount(codes), np.bincount(codes, clicked)
    usual = int(rows.argmax())
    rows = np.append(rows, len(codes) - rows[usual])
    clicks = np.append(clicks, clicked.sum() - clicks[usual])
    always = (clicks == rows) & (clicks >= _PURE_SHARE * clicked.sum())
    always &= clicked.mean() ** np.minimum(rows, _ENOUGH_ROWS) * len(rows) < _CHANCE
    if not always.any():
        return ""
    value = "values that are not the usual one were" if always[-1] else "one of its values was"
    return f"tells the label: {value} clicked in all of {int(rows[always].max())} rows"


def _binned(values: Values) -> NDArray[np.int64]:
    if values.kind not in {"integer", "number"} or values.distinct <= _BINS:
        return values.codes
    numbers = values.floats()
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.asarray(np.where(np.isnan(numbers), len(edges) + 1, np.searchsorted(edges, numbers)), dtype=np.int64)


def _out_of_fold_auc(codes: NDArray[np.int64], clicked: Clicked) -> float:
    """AUC of the share of clicks that a value has in the other folds, shrunk to the share of all."""
    fold = np.random.default_rng(0).integers(0, _FOLDS, len(codes))
    size, prior = int(codes.max()) + 1, clicked.mean()
    rows, clicks = np.bincount(codes, minlength=size), np.bincount(codes, clicked, minlength=size)
    scores = np.empty(len(codes))
    for index in range(_FOLDS):
        own = fold == index
        other_rows = rows - np.bincount(codes[own], minlength=size)
        other_clicks = clicks - np.bincount(codes[own], clicked[own], minlength=size)
        shares = (other_clicks + prior * _PRIOR_ROWS) / (other_rows + _PRIOR_ROWS)
        scores[own] = shares[codes[own]]
    return auc(scores, clicked)


def _pure(codes: NDArray[np.int64], clicked: Clicked) -> bool:
    rows, clicks = np.bincount(codes), np.bincount(codes, clicked)
    return bool(((clicks == 0) | (clicks == rows)).all())


def _determined(codes: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Share of rows whose value of the other column is the commonest for their own value."""
    pairs, counts = np.unique(codes * (int(other.max()) + 1) + other, return_counts=True)
    best = np.zeros(int(codes.max()) + 1, dtype=np.int64)
    np.maximum.at(best, pairs // (int(other.max()) + 1), counts)
    return float(best.sum() / len(codes))
