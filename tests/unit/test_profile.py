"""The streaming pass over a day, against pandas on the whole frame: figures, reasons, positions; no row is lost."""

import datetime as dt
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepfm.config import RetrainConfig
from deepfm.data import partitions
from deepfm.data.preparing import valid_batches
from deepfm.data.profile import DAY
from deepfm.storage import LocalCache, open_store
from tests.tiny_days import HOLDOUT, Profiled, click_day, profiled, tiny_config, with_column, write_day

CONFIG = tiny_config()
NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
UTC_TIMES = pa.timestamp("us", tz="UTC")
ROWS = st.fixed_dictionaries(
    {
        "click": st.sampled_from([0, 1, 0, 1, 2, -1, None]),
        "time": st.sampled_from([NOON, NOON, NOON - dt.timedelta(days=1), NOON + dt.timedelta(hours=12), None]),
        "id": st.sampled_from([*(f"k{n}" for n in range(12)), None]),
        "user": st.sampled_from(["a", "b", "", "emoji 🦊", None]),
        "item": st.one_of(st.integers(-(2**63), 2**63 - 1), st.none(), st.integers(0, 2)),
        "price": st.one_of(
            st.floats(0, 1e6), st.none(), st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 1e300, -0.0, 5e-324])
        ),
    }
)
KINDS = {
    "click": pa.int64(),
    "time": UTC_TIMES,
    "id": pa.string(),
    "user": pa.string(),
    "item": pa.int64(),
    "price": pa.float64(),
}


@pytest.fixture
def run(tmp_path: Path):
    def profile(*tables: pa.Table, config: RetrainConfig = CONFIG, date: dt.date = HOLDOUT) -> Profiled:
        write_day(tmp_path / "raw", date, *tables)
        return profiled(tmp_path / "raw", config, date, scratch=tmp_path)

    return profile


def quarantined(day: Profiled) -> dict[int, set[str]]:
    table = pq.read_table(day.quarantine)
    if "reasons" not in table.column_names:
        assert table.num_rows == 0
        return {}
    pairs = zip(table["position"].to_pylist(), table["reasons"].to_pylist(), strict=True)
    return {position: set(reasons.split(",")) for position, reasons in pairs}


def naive_reasons(rows: list[dict[str, Any]]) -> dict[int, set[str]]:
    """Row by row, as the docstring of the profile says it."""
    start = dt.datetime.combine(HOLDOUT, dt.time(), dt.UTC)
    seen: set[str] = set()
    found: dict[int, set[str]] = {}
    for position, row in enumerate(rows):
        reasons = set()
        if row["click"] not in (0, 1):
            reasons.add("label")
        if row["time"] is None:
            reasons.add("event_time_missing")
        elif not start <= row["time"] < start + dt.timedelta(days=1):
            reasons.add("outside_day")
        if row["id"] is None:
            reasons.add("event_key_missing")
        price = row["price"]
        if price is not None and np.isfinite(price) and not 0.0 <= price <= 1e6:
            reasons.add("price_out_of_range")
        if not reasons and row["id"] in seen:
            reasons.add("event_key_duplicate")
        if not reasons:
            seen.add(row["id"])
        if reasons:
            found[position] = reasons
    return found


def figures(frame: pd.DataFrame, column: str) -> dict[str, float]:
    row = frame.loc[frame["column"] == column].iloc[0].drop("column")
    return {str(name): float(figure) for name, figure in row.items()}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS, max_size=30), st.integers(1, 7), st.integers(1, 3))
def test_streaming_figures_are_those_of_the_whole_frame(rows, batch_rows, parts):
    tables = [
        pa.table({name: pa.array([row[name] for row in part], kind) for name, kind in KINDS.items()})
        for part in np.array_split(np.array(rows, dtype=object), parts)
    ]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(partitions, "BATCH_ROWS", batch_rows)
        write_day(Path(folder, "raw"), HOLDOUT, *tables)
        day = profiled(Path(folder, "raw"), CONFIG, HOLDOUT, scratch=Path(folder))
        expected = naive_reasons(rows)
        assert quarantined(day) == expected
    assert day.reasons == {reason: sum(reason in found for found in expected.values()) for reason in day.reasons}
    valid = [row for position, row in enumerate(rows) if position not in expected]
    clicks = sum(row["click"] for row in valid)
    got = figures(day.frame, DAY)
    assert (got["rows"], got["valid_rows"], got["clicks"]) == (len(rows), len(valid), clicks)
    assert got["negatives"] == len(valid) - clicks
    assert (day.report.valid_rows, day.report.quarantined_rows) == (len(valid), len(expected))
    check_fields(day.frame, rows)


def check_fields(frame: pd.DataFrame, rows: list[dict[str, Any]]) -> None:
    many = max(len(rows), 1)
    for name in ("user", "item"):
        values = [None if row[name] == "" else row[name] for row in rows]
        assert figures(frame, name)["null_share"] == pytest.approx(values.count(None) / many)
        distinct = len(set(values) - {None})
        assert figures(frame, name)["distinct"] == (distinct or pytest.approx(np.nan, nan_ok=True))
    price = pd.Series([row["price"] for row in rows], dtype="float64")
    finite = price[np.isfinite(price)]
    got = figures(frame, "price")
    assert got["null_share"] == pytest.approx(1 - len(finite) / many if rows else 0)
    assert got["non_finite_share"] == pytest.approx(np.isinf(price).sum() / many)
    assert got["out_of_range_share"] == pytest.approx(((finite < 0) | (finite > 1e6)).sum() / many)
    assert got["minimum"] == pytest.approx(finite.min(), nan_ok=True)
    assert got["maximum"] == pytest.approx(finite.max(), nan_ok=True)
    assert got["mean"] == pytest.approx(finite.mean(), rel=1e-9, nan_ok=True)


def test_nothing_is_lost_between_the_delivery_and_what_is_prepared(run, tmp_path, monkeypatch):
    monkeypatch.setattr(partitions, "BATCH_ROWS", 7)
    first, second = click_day(HOLDOUT, rows=40), click_day(HOLDOUT, rows=30, seed=1)
    bad = with_column(second, "price", pa.array([-1.0 if row % 5 == 0 else 1.0 for row in range(30)]))
    day = run(first, bad)
    batches = valid_batches(
        open_store(str(tmp_path / "raw")),
        day.report.partition,
        CONFIG,
        quarantine=day.quarantine,
        cache=LocalCache(tmp_path / "cache", 2**30),
    )
    ids = [key for batch in batches for key in batch.rows.column("id").to_pylist()]
    set_aside = pq.read_table(day.quarantine)
    delivered = first["id"].to_pylist() + second["id"].to_pylist()
    assert sorted(ids + set_aside["id"].to_pylist()) == sorted(delivered)
    assert day.report.rows == 70
    assert len(ids) == day.report.valid_rows
    assert [delivered[p] for p in set_aside["position"].to_pylist()] == set_aside["id"].to_pylist()


def test_the_first_of_duplicates_stays_over_files_and_batches(run, monkeypatch):
    monkeypatch.setattr(partitions, "BATCH_ROWS", 3)
    first = with_column(click_day(HOLDOUT, rows=5), "id", pa.array(["a", "b", "a", "c", "b"]))
    second = with_column(click_day(HOLDOUT, rows=4), "id", pa.array(["d", "a", "e", "d"]))
    day = run(first, second)
    assert quarantined(day) == {position: {"event_key_duplicate"} for position in (2, 4, 6, 8)}


def test_integer_event_keys_beyond_floats_are_no_duplicates(run):
    keys = pa.array([2**53, 2**53 + 1, 2**53 + 2, 2**53 + 1], pa.int64())
    day = run(with_column(click_day(HOLDOUT, rows=4), "id", keys))
    assert quarantined(day) == {3: {"event_key_duplicate"}}


@pytest.mark.parametrize(
    ("date", "hours"),
    [(dt.date(2026, 3, 29), 23), (dt.date(2026, 10, 25), 25), (dt.date(2026, 3, 4), 24)],
)
def test_rows_outside_the_local_day_are_set_aside_whatever_the_clocks_do(run, date, hours):
    config = tiny_config({"time_zone": "Europe/Berlin", "data.event_key": None})
    start = dt.datetime.combine(date, dt.time(), dt.UTC) - dt.timedelta(hours=2)
    offset = config.day_bounds_utc(date)[0] - start
    times = [start + dt.timedelta(minutes=30 * step) for step in range(56)]
    table = with_column(click_day(HOLDOUT, rows=56), "time", pa.array(times, UTC_TIMES)).drop_columns(["id"])
    day = run(table, config=config, date=date)
    inside = [position for position in range(56) if position not in quarantined(day)]
    assert len(inside) == 2 * hours
    assert times[inside[0]] == start + offset
    assert set().union(*quarantined(day).values()) == {"outside_day"}


def test_the_bounds_of_a_day_are_half_open(run):
    start, end = CONFIG.day_bounds_utc(HOLDOUT)
    tick = dt.timedelta(microseconds=1)
    times = pa.array([start - tick, start, end - tick, end], UTC_TIMES)
    assert quarantined(run(with_column(click_day(HOLDOUT, rows=4), "time", times))) == {
        0: {"outside_day"},
        3: {"outside_day"},
    }


def test_without_time_and_key_only_labels_and_ranges_are_asked_for(run):
    config = tiny_config({"data.event_time": None, "data.event_key": None})
    table = with_column(click_day(HOLDOUT, rows=3), "click", pa.array([1, 3, 0])).drop_columns(["time", "id"])
    day = run(table, config=config)
    assert quarantined(day) == {1: {"label"}}
    assert set(day.reasons) == {"label"}


def test_a_day_without_rows_has_figures_that_are_unknown_not_zero(run):
    day = run(click_day(HOLDOUT, rows=0))
    got = figures(day.frame, DAY)
    assert got["rows"] == got["valid_rows"] == 0
    assert np.isnan(got["ctr"])
    assert np.isnan(got["bad_share"])
    assert quarantined(day) == {}


def test_numbers_that_are_not_a_number_count_as_missing(run):
    table = with_column(click_day(HOLDOUT, rows=4), "price", pa.array([np.nan, None, np.inf, 2.0], from_pandas=False))
    assert table["price"].null_count == 1
    got = figures(run(table).frame, "price")
    assert (got["null_share"], got["non_finite_share"]) == (0.75, 0.25)
