"""Days that a run would refuse, as `deepfm init` finds them."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deepfm.discovery.found import told
from deepfm.discovery.sample import Day
from deepfm.discovery.sizing import size_days
from deepfm.errors import UsageError
from tests.deliveries import FIRST, columns, deliver, look

LAST = FIRST + dt.timedelta(days=5)


def days_of_rows(*rows: int) -> list[Day]:
    return [Day(FIRST + dt.timedelta(days=index), count, read=True) for index, count in enumerate(rows)]


def clicks_of(change: Callable[[Any], Any], *dates: dt.date) -> Callable[[dt.date], dict[str, Any]]:
    """Plain days; on those named, the clicks are changed."""

    def make(date: dt.date) -> dict[str, Any]:
        plain = columns(date)
        return plain | {"click": change(plain["click"])} if date in dates else plain

    return make


def without(share: float) -> Callable[[Any], Any]:
    return lambda click: pa.array(click, mask=np.arange(len(click)) < share * len(click))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (np.zeros_like, "no click"),
        (np.ones_like, "clicks alone"),
        (without(1.0), "click is missing in all rows"),
        (without(0.25), "click is missing in 25% of the rows"),
    ],
)
def test_a_label_that_validation_refuses_makes_a_day_unusable(tmp_path, change, reason):
    found = look(deliver(tmp_path, clicks_of(change, LAST), days=6))
    assert [(day.date, day.reason) for day in found.days.unusable] == [(LAST, reason)]
    assert (found.days.count, found.days.last) == (5, LAST - dt.timedelta(days=1))
    assert found.days.run_date == found.days.last
    assert found.ctr == look(deliver(tmp_path / "sound", days=5)).ctr


def test_labels_that_are_late_on_every_day_are_no_reason(tmp_path):
    found = look(deliver(tmp_path, lambda date: columns(date) | {"click": without(0.2)(columns(date)["click"])}))
    assert found.days.unusable == ()
    assert found.max_bad_share is not None


def test_a_day_of_which_a_file_cannot_be_read_does_not_count(tmp_path):
    deliver(tmp_path, days=6)
    (tmp_path / f"dt={LAST}" / "part-1.parquet").write_bytes(b"PAR1")
    days = look(tmp_path).days
    assert (days.count, days.run_date) == (5, LAST - dt.timedelta(days=1))
    assert told(days.unusable, most=5) == f"{LAST} (part-1.parquet cannot be read)"


def test_a_day_of_few_rows_is_named():
    days = size_days(days_of_rows(*[5_000] * 10, 20), ctr=0.1)
    assert [day.reason for day in days.unusable] == ["20 rows, min_rows is 500"]


def test_a_part_of_a_day_without_clicks_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("deepfm.discovery.sample.SAMPLE_ROWS", 200)
    rare = clicks_of(lambda click: (np.arange(len(click)) == 1).astype(np.int64), LAST)
    assert look(deliver(tmp_path, rare, days=6)).days.unusable == ()


def test_clicks_that_only_an_unusable_day_shows_are_counted_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("deepfm.discovery.sample.SAMPLE_ROWS", 200)
    days = [FIRST + dt.timedelta(days=day) for day in range(5)]
    none = clicks_of(np.zeros_like, *days)
    late = clicks_of(without(0.5), LAST)
    found = look(deliver(tmp_path, lambda date: late(date) if date == LAST else none(date), days=6))
    assert [day.date for day in found.days.unusable] == [LAST]
    assert found.ctr > 0


def test_too_few_usable_days_are_an_error_that_names_the_others(tmp_path):
    deliver(tmp_path, clicks_of(np.zeros_like, FIRST), days=2)
    with pytest.raises(UsageError, match=r"one day that can be used: 2026-03-02; unusable are 2026-03-01 \(no click\)"):
        look(tmp_path)


def test_many_days_are_told_shortly():
    days = size_days(days_of_rows(*[5_000] * 3), ctr=0.1, unusable={}).unusable
    assert (days, told(days, most=3)) == ((), "")
    gone = {FIRST + dt.timedelta(days=day): "no row" for day in range(4)}
    found = size_days(days_of_rows(*[5_000] * 8), ctr=0.1, unusable=gone)
    assert told(found.unusable, most=2) == "2026-03-01 (no row), 2026-03-02 (no row) and 2 more"
    assert (found.first, found.count) == (FIRST + dt.timedelta(days=4), 4)
