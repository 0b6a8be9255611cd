"""What a backfill of a range would do, day by day, before it does anything."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from deepfm.backfilling import dates_between
from deepfm.calendar.rows import CalendarDay, calendar_of
from deepfm.config import RetrainConfig
from deepfm.data.window import calendar_days
from deepfm.errors import UsageError
from deepfm.workspace import Workspace

LARGE_DAYS = 31
"""Ranges longer than this have to be meant."""

Which = Literal["missing", "missing and failed", "all"]
"""Dates that no run has brought to an end; also those that were refused or are stale; every date with data."""
_WORDS = {"promote": "cleared", "reject": "rejected", "inconclusive": "inconclusive"}
Order = Literal["oldest first", "newest first"]


class PlannedDay(NamedTuple):
    """One day of the range."""

    row: CalendarDay
    """What is known of it."""
    chosen: bool
    """Whether it is retrained."""

    @property
    def date(self) -> dt.date:
        """The day."""
        return self.row.date

    @property
    def word(self) -> str:
        """What the day is, in a word or two, for a calendar."""
        row = self.row
        known = (
            ("champion", row.champion),
            ("stale", row.stale),
            (_WORDS.get(row.verdict or "", ""), row.verdict),
            ("undecided", row.trained),
            ("not delivered", row.delivered is False),
            ("refused", row.valid is False),
            ("window too small", row.delivered and not row.trainable),
            ("prepared", row.prepared),
            ("valid", row.valid),
        )
        return next((word for word, holds in known if holds), "delivered")


class Plan(NamedTuple):
    """What a backfill would do."""

    days: tuple[PlannedDay, ...]
    """The range, oldest first."""
    source_problem: str
    """Why it is not known what was delivered; empty if it is."""

    @property
    def chosen(self) -> tuple[dt.date, ...]:
        """The dates that are retrained, oldest first."""
        return tuple(day.date for day in self.days if day.chosen)

    @property
    def counts(self) -> Counter[str]:
        """How many days there are of each word."""
        return Counter(day.word for day in self.days)


def check_range(start: dt.date, end: dt.date, *, last_whole: dt.date, large: bool = False) -> None:
    """Nothing, if a backfill of the range can be meant.

    Args:
        start: First logical date.
        end: Last one.
        last_whole: The last day that is over, where the model is.
        large: Whether more than a month was confirmed.

    Raises:
        UsageError: terminal; the range is reversed, too long or not over yet.
    """
    days = len(dates_between(start, end))
    if end > last_whole:
        raise UsageError(
            "range ends with a day that is not over",
            observed=str(end),
            required=f"{last_whole} at most",
            next_step="Choose an earlier end.",
        )
    if days > LARGE_DAYS and not large:
        raise UsageError(
            "range is long",
            observed=f"{days} days from {start} to {end}",
            required=f"more than {LARGE_DAYS} days confirmed",
            next_step="Tick large, if it is meant.",
        )


def plan_of(workspace: Workspace, start: dt.date, end: dt.date, which: Which, *, promoting: bool = False) -> Plan:
    """What a backfill of a range would do; nothing is written.

    Args:
        workspace: Where to look.
        start: First logical date.
        end: Last one.
        which: Which dates to retrain.
        promoting: Whether what the gate clears is to be promoted: then a date that was only cleared is not at its end.

    Raises:
        StoreUnavailableError: transient.
        IntegrityError: terminal; a stored document is damaged.
    """
    calendar = calendar_of(workspace, start=start, end=end)
    days = tuple(PlannedDay(row, _chosen(row, which, promoting=promoting)) for row in calendar.days)
    return Plan(days, calendar.source_problem)


def _chosen(row: CalendarDay, which: Which, *, promoting: bool) -> bool:
    if row.delivered is False:
        return False
    # A run that was cut off before its verdict, or between a verdict to promote and the promotion, goes on.
    cut_off = row.trained and not row.standing and (row.verdict is None or (promoting and row.verdict == "promote"))
    missing = (not row.trained and row.trainable) or cut_off
    if which == "missing":
        return missing
    if which == "missing and failed":
        return missing or bool(row.stale) or row.valid is False
    return row.trained or row.trainable or row.valid is False


class NeededDays(NamedTuple):
    """The days that some dates need."""

    judged: tuple[dt.date, ...]
    """Days to validate: the dates and their windows."""
    windows: frozenset[dt.date]
    """Those of them that train."""


def days_needed(config: RetrainConfig, dates: Sequence[dt.date]) -> NeededDays:
    """Every day that retraining some dates reads, each once.

    Args:
        config: The model's configuration.
        dates: Logical dates.
    """
    windows = frozenset(day for date in dates for day in calendar_days(config, date))
    return NeededDays(tuple(sorted(windows.union(dates))), windows)
