"""What a backfill would do with each kind of day, without a store."""

import datetime as dt
from typing import Any

import pytest

from deepfm.calendar.rows import CalendarDay
from deepfm.errors import UsageError
from deepfm.planning import PlannedDay, Which, _chosen, check_range, days_needed
from tests.tiny_days import tiny_config

DAY = dt.date(2026, 3, 4)


def row(**known: Any) -> CalendarDay:
    base = {"date": DAY, "delivered": True, "valid": True, "prepared": True, "trained": False, "trainable": True}
    return CalendarDay(**{**base, **known})


KINDS = {
    # what it is called, and whether it is chosen by missing, by missing and failed, and by all
    "never run": (row(), "prepared", (True, True, True)),
    "not judged yet": (row(valid=None, prepared=False), "delivered", (True, True, True)),
    "not prepared yet": (row(prepared=False), "valid", (True, True, True)),
    "not delivered": (row(delivered=False, valid=None, trainable=False), "not delivered", (False, False, False)),
    "not delivered any more": (
        row(delivered=False, trained=True, verdict="promote", standing="was", trainable=False),
        "cleared",
        (False, False, False),
    ),
    "refused": (row(valid=False, trainable=False), "refused", (False, True, True)),
    "window too small": (row(trainable=False), "window too small", (False, False, False)),
    "champion": (
        row(trained=True, verdict="promote", champion=True, standing="champion"),
        "champion",
        (False, False, True),
    ),
    "rejected": (row(trained=True, verdict="reject"), "rejected", (False, False, True)),
    "inconclusive": (row(trained=True, verdict="inconclusive"), "inconclusive", (False, False, True)),
    "undecided": (row(trained=True), "undecided", (True, True, True)),
    "cut off before its promotion": (row(trained=True, verdict="promote"), "cleared", (True, True, True)),
    "promoted by name": (row(trained=True, standing="was"), "undecided", (False, False, True)),
    "stale": (row(trained=True, verdict="promote", standing="was", stale=True), "stale", (False, True, True)),
    "unknown source": (row(delivered=None), "prepared", (True, True, True)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_day_has_a_word_and_is_chosen_or_not(kind):
    day, word, chosen = KINDS[kind]
    assert PlannedDay(day, chosen=False).word == word
    kinds: tuple[Which, ...] = ("missing", "missing and failed", "all")
    assert tuple(_chosen(day, which, promoting=True) for which in kinds) == chosen


def test_what_was_cleared_and_not_promoted_is_at_its_end_where_nothing_is_to_be_promoted():
    cleared = row(trained=True, verdict="promote")
    assert not _chosen(cleared, "missing", promoting=False)
    assert _chosen(cleared, "missing", promoting=True)


@pytest.mark.parametrize(
    ("days", "large", "words"),
    [(31, False, None), (32, False, "Tick large"), (32, True, None), (366, True, None), (367, True, "at most 366")],
)
def test_a_long_range_has_to_be_meant(days, large, words):
    start = DAY - dt.timedelta(days=days - 1)
    if words is None:
        check_range(start, DAY, last_whole=DAY, large=large)
        return
    with pytest.raises(UsageError, match=words):
        check_range(start, DAY, last_whole=DAY, large=large)


def test_the_last_whole_day_is_a_date_and_the_one_after_is_not():
    check_range(DAY, DAY, last_whole=DAY)
    with pytest.raises(UsageError, match="not over"):
        check_range(DAY, DAY + dt.timedelta(days=1), last_whole=DAY)


def test_every_day_that_two_dates_read_is_needed_once():
    config = tiny_config()
    needed = days_needed(config, [DAY, DAY + dt.timedelta(days=1)])
    back = config.window.window_days
    assert needed.judged == tuple(DAY + dt.timedelta(days=n) for n in range(-back, 2))
    assert needed.windows == frozenset(needed.judged[:-1])
