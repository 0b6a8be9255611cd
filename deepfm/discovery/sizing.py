"""From the days that there are to limits that ordinary ones of them keep, a window, and a sampling ratio."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence

import numpy as np

from deepfm.config import WindowConfig
from deepfm.discovery.found import FoundDays, UnusableDay, told
from deepfm.discovery.sample import Day
from deepfm.errors import UsageError

_ENOUGH_CLICKS = 10_000
"""Clicks (or rows without one, where those are fewer) that a window should hold."""
_SHORTEST, _LONGEST = 7, 60
_COMMON_CTR = 0.2
_PLENTY, _FEW = 10_000, 2_000
_CLICKS_FOR_A_LIMIT = 20
_CTR_FACTOR = 5.0
_NONE: Mapping[dt.date, str] = {}
_DEFAULT_MISSING = float(WindowConfig().max_missing_share)


def size_days(days: Sequence[Day], *, ctr: float, unusable: Mapping[dt.date, str] = _NONE) -> FoundDays:
    """The limits and the window that fit the days of a source.

    Args:
        days: All of them, oldest first.
        ctr: Share of clicks.
        unusable: Those that a run would refuse, with the reason; they count for nothing.

    Raises:
        UsageError: terminal; there are not two days, one to train on and one to judge on.
    """
    usable = [day for day in days if day.date not in unusable]
    rows = np.array([day.rows for day in usable] or [0])
    smallest = min(float(np.quantile(rows, 0.1, method="lower")) / 2, float(np.median(rows)) / 10)
    min_rows = int(_digit(max(2.0, smallest)))
    usual = [day.date for day in usable if day.rows >= min_rows]
    small = {day.date: f"{day.rows:,} rows, min_rows is {min_rows:,}" for day in usable if day.rows < min_rows}
    refused = tuple(UnusableDay(date=date, reason=why) for date, why in sorted({**unusable, **small}.items()))
    middle = int(np.median(rows))
    if len(usual) < 2:
        raise _too_few(usual, refused)
    run_date = usual[-1]
    span = (run_date - usual[0]).days
    window_days = min(span, _window(middle * min(ctr, 1 - ctr), density=len(usual) / (span + 1)))
    present = _present(usual, run_date, window_days)
    while not present:  # the gap before the last day is longer than the window
        window_days = min(span, window_days * 2)
        present = _present(usual, run_date, window_days)
    missing = 1 - present / window_days
    min_days, limit = max(1, present // 2), _missing_limit(missing)
    fewest = max(min_days, window_days * (1 - (limit or _DEFAULT_MISSING)))
    start = next(day for day in usual if _present(usual, day, window_days) >= fewest)
    return FoundDays(
        first=usable[0].date,
        last=usable[-1].date,
        count=len(usable),
        unusable=refused,
        rows=sum(day.rows for day in days),
        usual_rows=middle,
        run_date=run_date,
        backfill_start=start,
        min_rows=min_rows,
        min_days=min_days,
        window_days=window_days,
        max_missing_share=limit,
    )


def _too_few(usual: Sequence[dt.date], unusable: Sequence[UnusableDay]) -> UsageError:
    return UsageError(
        f"the source holds {'one day' if usual else 'no day'}{' that can be used' if unusable else ''}",
        observed="; ".join(
            filter(None, (*map(str, usual), f"unusable are {told(unusable, most=3)}" if unusable else ""))
        ),
        required="a day to judge on and at least one before it to train on",
        next_step="Deliver another day, or cut a flat file with: deepfm split FILE --pseudo-days 8 --out DIR",
    )


def sampling_of(ctr: float, *, window_clicks: int) -> tuple[int | None, str]:
    """Negatives kept per click, and why."""
    if ctr >= _COMMON_CTR:
        return None, f"{ctr:.0%} of the rows are clicks: nothing is gained by leaving rows out"
    clicks = f"about {int(float(f'{window_clicks:.1e}')):,} clicks in a window"
    plenty = window_clicks >= _PLENTY
    ratio = 4 if plenty else 10 if window_clicks >= _FEW else 20
    if (1 - ctr) / ctr <= ratio:
        return None, f"{ctr:.0%} of the rows are clicks, and {clicks} are few: all rows are worth keeping"
    why = "plenty; predictions are corrected for it exactly" if plenty else "few: more rows without a click help"
    return ratio, f"1:{ratio}, because {clicks} are {why}"


def ctr_limits(ctr: float, *, day_clicks: float) -> tuple[float | None, float | None]:
    """A fifth and five times the share of clicks, where days have enough of them for that to mean something."""
    if ctr >= _COMMON_CTR or day_clicks < _CLICKS_FOR_A_LIMIT:
        return None, None
    return _digit(ctr / _CTR_FACTOR), min(1.0, _digit(ctr * _CTR_FACTOR))


def null_limit(seen: float, *, default: float) -> float | None:
    """A limit above what was seen, where the default is too near to it."""
    needed = seen * 1.2 + 0.05
    return None if needed <= default else min(1.0, math.ceil(needed * 20) / 20)


def _window(rare_a_day: float, *, density: float) -> int:
    needed = _ENOUGH_CLICKS / max(rare_a_day * density, 1e-9)
    return math.ceil(min(max(needed, _SHORTEST), _LONGEST))


def _present(days: Sequence[dt.date], date: dt.date, window_days: int) -> int:
    return sum(1 for day in days if 0 < (date - day).days <= window_days)


def _missing_limit(missing: float) -> float | None:
    """A limit half-way between the gaps seen and none at all, where the default leaves less room."""
    return None if missing <= _DEFAULT_MISSING / 2 else min(0.99, math.ceil((1 + missing) * 50) / 100)


def _digit(value: float) -> float:
    """The value cut to one significant digit."""
    unit = 10.0 ** math.floor(math.log10(value))
    return round(math.floor(value / unit + 1e-9) * unit, 12)
