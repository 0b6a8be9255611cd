"""Which days a run would refuse, as far as the rows read tell it."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepfm.config import ValidationConfig
from deepfm.discovery.sample import Day
from deepfm.discovery.values import Values

_ENOUGH = 20.0
"""Expected rows of a class from which on it is no chance that a part of a day holds none."""


def unusable_days(
    days: Sequence[Day], day: NDArray[np.int64], label: Values, clicked: NDArray[np.bool_], *, whole: bool
) -> dict[dt.date, str]:
    """Days that validation will refuse, with the reason: a file, the label, or no row at all.

    Args:
        days: All of the source.
        day: Index into `days` of every row read, [N].
        label: Of the rows read.
        clicked: Which rows were clicked, bool [N].
        whole: Whether all rows were read; in a part of a day, a class may be missing by chance.
    """
    rows = np.bincount(day, minlength=len(days))
    missing = np.bincount(day[label.nulls], minlength=len(days))
    clicks = np.bincount(day[clicked], minlength=len(days))
    limit = _missing_limit(missing[rows > 0] / rows[rows > 0])
    rarer = min(float(clicked.mean()), 1 - float(clicked.mean())) if len(clicked) else 0.0
    found: dict[dt.date, str] = {}
    for index, known in enumerate(days):
        labelled = int(rows[index] - missing[index])
        told = whole or labelled * rarer >= _ENOUGH
        if known.broken:
            found[known.date] = known.broken
        elif not rows[index]:
            if known.read and not known.rows:
                found[known.date] = "no row"
        elif not labelled:
            found[known.date] = f"{label.name} is missing in all rows"
        elif missing[index] > limit * rows[index]:
            found[known.date] = f"{label.name} is missing in {missing[index] / rows[index]:.0%} of the rows"
        elif told and clicks[index] in {0, labelled}:
            found[known.date] = "no click" if not clicks[index] else "clicks alone"
    return found


def _missing_limit(shares: NDArray[np.float64]) -> float:
    """Share of rows without a label that the limit on bad rows will have room for: twice that of the middle day."""
    return max(float(ValidationConfig().max_bad_share), 2 * float(np.median(shares)) if len(shares) else 0.0)
