"""What names, values and times are taken for, and in which zone days are cut."""

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from deepfm.discovery import naming
from deepfm.discovery.source import find_days
from deepfm.discovery.times import Form, days_of, form_of
from deepfm.discovery.values import typed
from deepfm.discovery.zones import find_cut
from deepfm.layout import partition_date
from deepfm.storage import ObjectInfo
from tests.deliveries import FIRST


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("dt={:%Y-%m-%d}/part-0.parquet", "dt={date}"),
        ("date={:%Y-%m-%d}/hour=03/part-0.parquet", "date={date}"),
        ("ds={:%Y%m%d}/a.csv", "ds={date:%Y%m%d}"),
        ("{:%Y-%m-%d}/a.csv.gz", "{date}"),
        ("raw/{:%Y%m%d}/a.tsv", "raw/{date:%Y%m%d}"),
        ("year={0:%Y}/month={0:%m}/day={0:%d}/a.parquet", "year={date:%Y}/month={date:%m}/day={date:%d}"),
        ("{0:%Y}/{0:%m}/{0:%d}/a.parquet", "{date:%Y}/{date:%m}/{date:%d}"),
        ("clicks-{:%Y-%m-%d}.csv", "clicks-{date}.csv"),
        ("clicks_{:%Y_%m_%d}.CSV.gz", "clicks_{date:%Y_%m_%d}.CSV.gz"),
        ("{0:%Y}/clicks-{0:%Y-%m-%d}.csv", "{date:%Y}/clicks-{date}.csv"),
        ("{0:%Y-%m}/clicks-{0:%Y%m%d}.parquet", "{date:%Y-%m}/clicks-{date:%Y%m%d}.parquet"),
        ("dt={0:%Y-%m-%d}/clicks-{0:%Y-%m-%d}.parquet", "dt={date}"),
    ],
)
def test_the_template_of_common_names(name, template):
    dates = [dt.date(2025, 12, 30) + dt.timedelta(days=offset) for offset in range(5)]
    keys = [name.format(date) for date in dates]
    found = find_days([ObjectInfo(key, 1) for key in keys])
    assert found is not None
    assert (found.template, list(found.files), found.ignored) == (template, dates, ())
    assert [partition_date(found.template, key) for key in keys] == dates


def test_the_template_of_most_files_wins_and_the_others_are_named():
    keys = [f"dt=2026-03-0{day}/a.parquet" for day in (1, 2, 3)] + ["old/2026-02-28/a.parquet", "all.csv"]
    found = find_days([ObjectInfo(key, 1) for key in keys])
    assert found is not None
    assert (found.template, found.rivals) == ("dt={date}", ("old/{date}",))
    assert found.ignored == ("all.csv",)


@pytest.mark.parametrize(
    "key", ["a.parquet", "2026-13-01/a.parquet", "v1234567890/a.csv", "dt={date}/a.csv", "99999999.csv"]
)
def test_a_name_without_a_date_is_none(key):
    assert find_days([ObjectInfo(key, 1)]) is None


@pytest.mark.parametrize(
    ("name", "rank"),
    [("user_id", 0), ("userId", 0), ("USER_ID", 0), ("uid", 0), ("member_id", 1), ("visitor", 2), ("device_id", 11)],
)
def test_names_of_users(name, rank):
    assert naming.group_rank(name) == rank


@pytest.mark.parametrize(
    "name", ["user_feature_0", "user_agent", "device", "users_per_item", "userland", "item_id", ""]
)
def test_names_that_are_not_of_users(name):
    assert naming.group_rank(name) is None


@pytest.mark.parametrize(
    "name",
    ["policy", "propensity_score", "pscore", "source_row", "row_number", "Unnamed: 0", "file_name", "batch_id",
     "ingested_at", "load_ts", "experiment_name", "ab_group", "variant", "bucket"],
)  # fmt: skip
def test_names_of_metadata(name):
    assert naming.is_metadata(name)


@pytest.mark.parametrize(
    "name", ["item_id", "position", "age_bucket", "product_variant", "row_type", "price", "profile", "loadout", "brand"]
)
def test_names_that_are_not_of_metadata(name):
    assert not naming.is_metadata(name)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "22", None, "-3"], "integer"),
        (["1", "NA", "null"], "integer"),
        (["01", "02"], "text"),
        (["1.5", "2", ".5e3"], "number"),
        (["1", "2", "x"], "text"),
        (["1", "-"], "text"),
        (["5.", "1e5"], "number"),
        (["99999999999999999999"], "text"),
        (["NA", "nan"], "text"),
        ([None, None], "empty"),
    ],
)
def test_text_of_a_csv_is_what_all_its_cells_are(values, kind):
    assert typed("a", pa.chunked_array([pa.array(values, pa.string())]), from_text=True).kind == kind


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([1.0, None, 3.0]), "integer"),
        (pa.array([1.0, float("nan"), 3.0]), "integer"),
        (pa.array([1.0, 2.0]), "number"),
        (pa.array([1.5, None]), "number"),
        (pa.array([2**63 + 1], pa.uint64()), "text"),
        (pa.array(["1", "2"]), "text"),
        (pa.array([True, False]), "flag"),
        (pa.array([[1], [2]]), "nested"),
        (pa.array([b"x"]), "nested"),
        (pa.array(["a", "b"]).dictionary_encode().dictionary_decode(), "text"),
    ],
)
def test_stored_types_are_kept_but_for_whole_floats_with_holes(array, kind):
    assert typed("a", pa.chunked_array([array]), from_text=False).kind == kind


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["2026-03-09T10:00:00Z", "2026-03-09 11:00:00.5+01:00"], Form("text", aware=True)),
        (["2026-03-09 10:00", "2026-03-09T10:00:01"], Form("text")),
        (["2026-03-09", None], Form("day_text")),
        (["20260309"], Form("compact")),
        ([20260309], Form("compact")),
        ([1_773_050_400], Form("epoch", "s", aware=True)),
        ([1_773_050_400_000], Form("epoch", "ms", aware=True)),
        (["1773050400000000"], Form("epoch", "us", aware=True)),
        ([dt.date(2026, 3, 9)], Form("date")),
        ([17, 4], None),
        (["09.03.2026"], None),
        (["2026"], None),
        ([None], None),
    ],
)
def test_the_form_of_times(values, form):
    assert form_of(pa.array(values)) == form


@pytest.mark.parametrize(
    ("values", "zone", "day"),
    [
        (["2026-03-09T23:30:00Z"], "Europe/Berlin", "2026-03-10"),
        (["2026-03-09T23:30:00"], "Europe/Berlin", "2026-03-09"),
        (["2026-03-10T00:30:00+02:00"], "UTC", "2026-03-09"),
        ([1_773_098_400], "Asia/Tokyo", "2026-03-10"),
        (["20260309"], "Asia/Tokyo", "2026-03-09"),
        ([np.datetime64("2026-03-09T23:59", "s")], "Asia/Tokyo", "2026-03-09"),
        ([dt.datetime(2026, 3, 9, 23, 59, tzinfo=dt.UTC)], "Asia/Tokyo", "2026-03-10"),
        ([np.datetime64("1969-12-31T23:59", "s")], "UTC", "1969-12-31"),
    ],
)
def test_the_day_of_a_time(values, zone, day):
    array = pa.array(values)
    form = form_of(array)
    assert form is not None
    assert str(np.datetime64(int(days_of(array, form, zone=zone)[0]), "D")) == day


def test_cells_without_the_form_have_no_day():
    array = pa.array(["2026-03-09"] * 19 + ["2026-02-30", None, "soon"])
    days = days_of(array, Form("day_text"), zone="UTC")
    assert (days == np.iinfo(np.int64).min).tolist() == [False] * 19 + [True] * 3


def instants(zone: str, dates: list[dt.date], rows: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    """Instants spread over local days, one row in a hundred a day late, and the days of their partitions."""
    rng = np.random.default_rng(0)
    when, days = [], []
    for date in dates:
        start = dt.datetime.combine(date, dt.time(), ZoneInfo(zone)).timestamp()
        seconds = start + rng.random(rows) * 86_390 - 86_400 * (rng.random(rows) < 0.01)
        when.append((seconds * 1e6).astype(np.int64))
        days.append(np.full(rows, (date - dt.date(1970, 1, 1)).days))
    return np.concatenate(when), np.concatenate(days)


@pytest.mark.parametrize(
    ("zone", "dates", "found"),
    [
        ("UTC", [FIRST], "UTC"),
        ("Asia/Tokyo", [FIRST], "Etc/GMT-9"),
        ("America/Lima", [FIRST], "Etc/GMT+5"),
        ("Asia/Kolkata", [FIRST], "Asia/Kolkata"),
        ("Europe/Berlin", [dt.date(2026, 1, 5), dt.date(2026, 7, 6)], "Europe/Berlin"),
        ("Europe/Berlin", [dt.date(2026, 1, 5)], "Etc/GMT-1"),
    ],
)
def test_the_zone_in_which_days_are_cut(zone, dates, found):
    cut = find_cut(*instants(zone, dates))
    assert cut.zone == found
    assert cut.outside.mean() < 0.02
