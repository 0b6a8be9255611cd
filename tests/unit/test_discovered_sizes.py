"""Limits, windows and sampling that fit the days that there are."""

import datetime as dt

import pyarrow as pa
import pytest

from deepfm.discovery.sample import Day
from deepfm.discovery.sizing import ctr_limits, null_limit, sampling_of, size_days
from deepfm.discovery.toml_text import noise_of_auc
from deepfm.errors import UsageError
from tests.deliveries import FIRST, config_of, deliver, look, with_extra


def days_of_rows(*rows: int, gaps: int = 1) -> list[Day]:
    return [Day(FIRST + dt.timedelta(days=index * gaps), count, read=True) for index, count in enumerate(rows)]


def test_a_window_has_clicks_enough_and_not_more_days_than_there_are():
    assert size_days(days_of_rows(*[50_000] * 30), ctr=0.1).window_days == 7
    assert size_days(days_of_rows(*[10_000] * 90), ctr=0.05).window_days == 20
    assert size_days(days_of_rows(*[1_000] * 90), ctr=0.01).window_days == 60
    assert size_days(days_of_rows(*[1_000] * 5), ctr=0.01).window_days == 4
    with pytest.raises(UsageError, match="one day"):
        size_days(days_of_rows(1_000), ctr=0.1)


@pytest.mark.parametrize("gaps", [1, 2, 7, 40])
def test_the_newest_day_has_a_window_that_its_own_limits_allow(gaps):
    days = size_days(days_of_rows(*[5_000] * 12, gaps=gaps), ctr=0.1)
    dates = [day.date for day in days_of_rows(*[5_000] * 12, gaps=gaps)]
    for date in (days.run_date, days.backfill_start):
        present = sum(0 < (date - day).days <= days.window_days for day in dates)
        assert present >= days.min_days
        assert 1 - present / days.window_days <= (days.max_missing_share or 0.5)


def test_a_small_last_day_is_not_the_one_to_run():
    days = size_days(days_of_rows(5_000, 5_200, 4_900, 5_100, 4_800, 5_000, 5_000, 5_000, 5_000, 5_000, 20), ctr=0.1)
    assert (days.run_date, days.last) == (FIRST + dt.timedelta(days=9), FIRST + dt.timedelta(days=10))
    assert days.min_rows == 500


def test_sampling_follows_the_clicks_that_there_are():
    assert sampling_of(0.3, window_clicks=10**6)[0] is None
    assert sampling_of(0.01, window_clicks=50_000)[0] == 4
    assert sampling_of(0.01, window_clicks=5_000)[0] == 10
    assert sampling_of(0.005, window_clicks=200)[0] == 20
    assert sampling_of(0.1, window_clicks=2_600)[0] is None  # nine rows without a click for each


def test_limits_leave_room():
    assert ctr_limits(0.01, day_clicks=100) == (0.002, 0.05)
    assert ctr_limits(0.01, day_clicks=5) == ctr_limits(0.5, day_clicks=500) == (None, None)
    assert null_limit(0.05, default=0.2) is None
    assert null_limit(0.3, default=0.2) == 0.45
    assert null_limit(1.0, default=0.2) == 1.0


def test_a_drop_that_is_chance_on_a_small_day_is_allowed(tmp_path):
    assert noise_of_auc(40, default=0.005) == 0.02
    assert noise_of_auc(1, default=0.005) == 0.05
    assert noise_of_auc(20_000, default=0.005) is None
    assert config_of(look(deliver(tmp_path))).gate.max_drop == 0.01  # 120 clicks a day


def test_a_field_that_is_often_missing_gets_its_own_limit(tmp_path):
    def rare(click, rng):
        return pa.array(rng.choice(["x", "y"], len(click)), mask=rng.random(len(click)) < 0.6)

    found = look(deliver(tmp_path, with_extra(coupon=rare)))
    assert 0.7 < (config_of(found).fields["coupon"].max_null_share or 0) < 0.9
