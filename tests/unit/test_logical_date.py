"""The logical date: that of the schedule in the model's own time zone, whatever the clock says."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from prefect.runtime import flow_run

from deepfm.errors import UsageError
from flows import logical_date
from tests.tiny_days import HOLDOUT, tiny_config

ScheduledTime = type(flow_run.scheduled_start_time)
"""What Prefect hands out: a subclass of datetime, of a package of its own."""


def resolved(monkeypatch, scheduled: str | None, *, requested: dt.date | None = None, **settings) -> dt.date:
    """The date of a run with that scheduled time."""

    class Run:
        scheduled_start_time = ScheduledTime.fromisoformat(scheduled) if scheduled else None

    monkeypatch.setattr(logical_date, "flow_run", Run)
    return logical_date.resolve_logical_date(requested, tiny_config(settings))


@pytest.mark.parametrize(
    ("scheduled", "zone", "expected"),
    [
        ("2026-03-29T00:30:00+00:00", "Europe/Berlin", "2026-03-28"),  # before the clocks go forward
        ("2026-03-29T22:30:00+00:00", "Europe/Berlin", "2026-03-29"),  # that day has 23 hours
        ("2026-10-24T22:30:00+00:00", "Europe/Berlin", "2026-10-24"),  # half past midnight there
        ("2026-10-25T22:30:00+00:00", "Europe/Berlin", "2026-10-24"),  # that day has 25 hours
        ("2026-10-25T23:30:00+00:00", "Europe/Berlin", "2026-10-25"),
        ("2026-03-01T05:00:00+00:00", "America/New_York", "2026-02-28"),
        ("2026-03-01T04:59:59+00:00", "America/New_York", "2026-02-27"),
        ("2024-03-01T11:00:00+00:00", "Pacific/Kiritimati", "2024-03-01"),
        ("2024-03-01T03:00:00+00:00", "UTC", "2024-02-29"),
        ("2026-01-01T04:00:00+00:00", "UTC", "2025-12-31"),
    ],
)
def test_it_is_the_local_day_before_the_scheduled_time(monkeypatch, scheduled, zone, expected):
    date = resolved(monkeypatch, scheduled, time_zone=zone)
    assert date == dt.date.fromisoformat(expected)
    assert type(date) is dt.date  # not a subclass of Prefect's, which prints and computes in its own way


@pytest.mark.parametrize("hour", range(24))
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_every_hour_of_a_day_gives_the_same_date_when_the_clocks_change(monkeypatch, day, hour):
    local = f"{day}T{hour:02d}:15:00"
    scheduled = dt.datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    before = dt.date.fromisoformat(day) - dt.timedelta(days=1)
    assert resolved(monkeypatch, scheduled.astimezone(dt.UTC).isoformat(), time_zone="Europe/Berlin") == before


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Kiritimati", "Asia/Kathmandu"])
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2024-02-29", "2026-12-31"])
def test_every_minute_of_odd_days_belongs_to_the_local_day_before(monkeypatch, day, zone):
    first = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)
    config, seen = tiny_config({"time_zone": zone}), []
    for minute in range(24 * 60):
        scheduled = first + dt.timedelta(minutes=minute, seconds=59, microseconds=999_000)

        class Run:
            scheduled_start_time = scheduled

        monkeypatch.setattr(logical_date, "flow_run", Run)
        seen.append(logical_date.resolve_logical_date(None, config))
        assert seen[-1] == scheduled.astimezone(ZoneInfo(zone)).date() - dt.timedelta(days=1)
    assert seen == sorted(seen)
    assert len(set(seen)) == (1 if zone == "UTC" else 2)


@pytest.mark.parametrize(("lag", "expected"), [(0, "2026-03-05"), (1, "2026-03-04"), (30, "2026-02-03")])
def test_the_lag_is_in_calendar_days(monkeypatch, lag, expected):
    assert resolved(monkeypatch, "2026-03-05T03:00:00+00:00", lag_days=lag) == dt.date.fromisoformat(expected)


def test_a_requested_date_wins_over_the_schedule(monkeypatch):
    assert resolved(monkeypatch, "2031-01-01T03:00:00+00:00", requested=HOLDOUT) == HOLDOUT


def test_without_either_there_is_no_date(monkeypatch):
    with pytest.raises(UsageError, match="Pass logical_date"):
        resolved(monkeypatch, None)
