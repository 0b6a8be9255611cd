"""What `deepfm init` takes each column for, and what it says of it."""

import datetime as dt
import tomllib
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from deepfm.config_file import parse_config
from deepfm.discovery.toml_text import model_name, render, source_text
from tests.deliveries import ROWS, column, columns, config_of, deliver, look, with_extra


def test_what_a_newcomer_has(tmp_path):
    found = look(deliver(tmp_path))
    assert (found.label, found.partition, found.days.run_date) == ("click", "dt={date}", dt.date(2026, 3, 3))
    assert [(c.name, c.role, c.dtype) for c in found.columns] == [
        ("click", "label", None),
        ("user_id", "group", "string"),
        ("item", "field", "int64"),
    ]
    config = config_of(found)
    assert (config.data.group, config.categorical, config.window.window_days) == ("user_id", ("user_id", "item"), 2)


EXCLUDED = {
    "rating": (lambda click, rng: click * 4 + rng.integers(0, 3, len(click)), "label"),
    "dwell": (lambda click, rng: pa.array(rng.random(len(click)), mask=click == 0), "missing"),
    "country": (lambda click, _: ["de"] * len(click), "same value"),
    "nothing": (lambda click, _: pa.nulls(len(click), pa.string()), "missing in all"),
    "token": (lambda click, rng: [f"{n:x}" for n in rng.integers(0, 2**62, len(click))], "value of its own"),
    "policy": (lambda click, rng: rng.choice(["a", "b"], len(click)), "logged"),
    "source_row": (lambda click, rng: rng.permutation(len(click)), "logged"),
    "e_mail": (lambda click, rng: [f"a{n}@b.org" for n in rng.integers(0, 9, len(click))], "who somebody is"),
    "contact": (lambda click, rng: [f"a{n}@b.org" for n in rng.integers(0, 9, len(click))], "who somebody is"),
    "host": (lambda click, rng: [f"10.0.0.{n}" for n in rng.integers(0, 9, len(click))], "who somebody is"),
    "item_name": (lambda _click, _rng: None, "repeats item"),
    "tags": (lambda click, _: [["a", "b"]] * len(click), "neither text nor a number"),
    "opened": (lambda click, rng: rng.integers(0, 2**31, len(click)).astype("datetime64[s]"), "a time or a date"),
    "day": (lambda click, rng: rng.integers(20260301, 20260329, len(click)), "a time or a date"),
    "since": (lambda click, rng: [f"2025-01-{n:02}" for n in rng.integers(1, 29, len(click))], "a time or a date"),
    "session_id": (lambda click, rng: rng.integers(0, 200, len(click)), "ends with the visit"),
    "comment": (
        lambda click, rng: [f"a long text of many words about {n} and {n}" for n in rng.integers(0, 500, len(click))],
        "hardly repeats",
    ),
    "converted": (lambda click, rng: rng.integers(0, 2, len(click)), "outcome"),
    "user agent": (lambda click, rng: rng.integers(0, 5, len(click)), "rename the column"),
    "probability": (lambda click, rng: rng.random(len(click)), "rename the column"),
}


@pytest.mark.parametrize("name", EXCLUDED)
def test_what_is_left_out_with_its_reason(tmp_path, name):
    make, reason = EXCLUDED[name]

    def day(date: dt.date) -> dict[str, Any]:
        plain = columns(date)
        values = make(plain["click"], np.random.default_rng(date.toordinal()))
        return plain | {name: values if values is not None else [f"thing {item}" for item in plain["item"]]}

    found = look(deliver(tmp_path, day))
    assert column(found, name).role == "left_out"
    assert reason in column(found, name).note
    text = render(found, model="m", out=Path("m.toml"))
    assert [line for line in text.splitlines() if line.startswith("#") and name in line and reason in line]
    assert config_of(found).categorical == ("user_id", "item")


@pytest.mark.parametrize(("weekend", "left_out"), [({3}, True), ({2, 3}, False), ({1}, False)])
def test_a_flag_that_turns_on_the_newest_day_is_left_out(tmp_path, weekend, left_out):
    """A model that has never seen a weekend would judge one by a vector that was never trained."""

    def day(date: dt.date) -> dict[str, Any]:
        return columns(date) | {"weekend": np.full(ROWS, int(date.day in weekend))}

    found = look(deliver(tmp_path, day))
    assert (column(found, "weekend").role == "left_out") is left_out
    assert ("no day before" in column(found, "weekend").note) is left_out


def test_what_was_left_out_comes_back_without_its_mark(tmp_path):
    found = look(deliver(tmp_path, with_extra(policy=lambda click, rng: rng.choice(["a", "b"], len(click)))))
    text = render(found, model="m", out=Path("m.toml"))
    assert "# policy = {" in text
    config = parse_config(tomllib.loads(text.replace("# policy = {", "policy = {")), where="test")
    assert "policy" in config.fields


FIELDS = {
    "price": (lambda click, rng: rng.lognormal(size=len(click)), ("numeric", "float32")),
    "age": (lambda click, rng: rng.integers(18, 80, len(click)), ("numeric", "float32")),
    "hour": (lambda click, rng: rng.integers(0, 24, len(click)), ("categorical", "int64")),
    "is_new": (lambda click, rng: rng.random(len(click)) < 0.5, ("categorical", "int64")),
    "shop_id": (lambda click, rng: rng.integers(0, 20, len(click)).astype(float), ("categorical", "int64")),
    "shop": (lambda click, rng: pa.array(rng.integers(0, 20, len(click)) * 1.0, mask=click == 1), None),
    "user_feature_0": (lambda click, rng: rng.choice(["x", "y", "z"], len(click)), ("categorical", "string")),
    "views_7d": (lambda click, rng: rng.integers(0, 10**6, len(click)), ("numeric", "float32")),
}


@pytest.mark.parametrize("name", FIELDS)
def test_what_becomes_a_field_of_which_type(tmp_path, name):
    make, shape = FIELDS[name]
    found = look(deliver(tmp_path, with_extra(**{name: make})))
    if shape is None:  # missing exactly where it was clicked
        assert "missing" in column(found, name).note
        return
    assert (column(found, name).kind, column(found, name).dtype) == shape
    assert name in config_of(found).fields


def test_whole_floats_with_holes_are_ids(tmp_path):
    def holes(click, rng):
        return pa.array(rng.integers(0, 20, len(click)) * 1.0, mask=rng.random(len(click)) < 0.1)

    found = look(deliver(tmp_path, with_extra(shop=holes)))
    assert (column(found, "shop").kind, column(found, "shop").dtype) == ("categorical", "int64")


def test_doubts_stay_in_with_a_word(tmp_path):
    def day(date: dt.date) -> dict[str, Any]:
        plain, rng = columns(date), np.random.default_rng(1)
        return plain | {
            "position": rng.integers(1, 4, ROWS),
            "genres": rng.choice(["Action|Comedy", "Comedy", "Drama|Action", "Drama", "Action", "Comedy|Drama"], ROWS),
            "nearly": plain["click"] * 2.6 + rng.normal(size=ROWS),
        }

    found = look(deliver(tmp_path, day))
    assert "known when a click is predicted" in column(found, "position").note
    assert "one category here" in column(found, "genres").note
    assert "AUC 0.9" in column(found, "nearly").note
    assert {"position", "genres", "nearly"} <= set(config_of(found).fields)


def test_no_value_that_may_tell_of_a_person_is_shown(tmp_path):
    def day(date: dt.date) -> dict[str, Any]:
        return columns(date) | {
            "zip_code": ["SECRET-1", "SECRET-2"] * (ROWS // 2),
            "email": ["SECRET@x.org", "SECRET@y.org"] * (ROWS // 2),
            "impression_id": [f"SECRET-{date}-{n}" for n in range(ROWS)],
            "user_id": [f"SECRET-{n % 30}" for n in range(ROWS)],
        }

    found = look(deliver(tmp_path, day))
    assert (found.column_of("event_key"), found.column_of("group")) != (None, None)
    assert "SECRET" not in render(found, model="m", out=Path("m.toml"))
    assert "SECRET" not in found.model_dump_json()


def test_wishes_win(tmp_path):
    def day(date: dt.date) -> dict[str, Any]:
        return columns(date) | {"bought": np.arange(ROWS) % 2, "who": [f"w{n % 30}" for n in range(ROWS)]}

    found = look(deliver(tmp_path, day), label="bought", group="who", exclude=("item",))
    assert (found.label, column(found, "who").role) == ("bought", "group")
    assert column(found, "item").note == "you asked for it"


def timed(zone: str = "UTC", *, convert=lambda times: times, late: float = 0.01):
    def make(date: dt.date) -> dict[str, Any]:
        rng = np.random.default_rng(date.toordinal())
        start = dt.datetime.combine(date, dt.time(), ZoneInfo(zone)).astimezone(dt.UTC).replace(tzinfo=None)
        late_rows = rng.random(ROWS) < late
        seconds = rng.integers(0, 86_000, ROWS) - 86_400 * late_rows
        times = np.datetime64(start, "us") + seconds.astype("timedelta64[s]")
        return columns(date) | {"shown_at": convert(times)}

    return make


@pytest.mark.parametrize(
    ("convert", "unit", "zone"),
    [
        (lambda times: pa.array(times, pa.timestamp("us", tz="UTC")), None, None),
        (pa.array, None, "UTC"),
        (lambda times: [f"{time}Z" for time in times.astype("datetime64[s]")], None, None),
        (lambda times: [f"{time}" for time in times.astype("datetime64[ms]")], None, "UTC"),
        (lambda times: times.astype("datetime64[s]").astype(np.int64), "s", None),
        (lambda times: times.astype("datetime64[ms]").astype(np.int64), "ms", None),
        (lambda times: times.astype(np.int64), "us", None),
    ],
)
def test_event_times_however_they_are_stored(tmp_path, convert, unit, zone):
    data = config_of(look(deliver(tmp_path, timed(convert=convert)))).data
    assert (data.event_time, data.event_time_unit, data.event_time_zone) == ("shown_at", unit, zone)


def test_days_that_are_cut_elsewhere(tmp_path):
    utc = pa.timestamp("us", tz="UTC")
    found = look(deliver(tmp_path, timed("Asia/Tokyo", convert=lambda times: pa.array(times, utc))))
    assert found.time_zone == "Etc/GMT-9"
    assert "Asia/Tokyo" in found.zone_note
    assert config_of(found).time_zone == "Etc/GMT-9"


def test_times_that_lie_anywhere_are_not_used(tmp_path):
    found = look(deliver(tmp_path, timed(late=0.5)))
    assert found.times is None
    assert "a time or a date" in column(found, "shown_at").note


def test_many_late_rows_raise_the_limit_of_bad_rows(tmp_path):
    assert config_of(look(deliver(tmp_path / "few", timed(late=0.01)))).validation.max_bad_share == 0.05
    assert config_of(look(deliver(tmp_path / "many", timed(late=0.05)))).validation.max_bad_share >= 0.1


def test_names_and_values_of_all_kinds_stay_inside_their_line(tmp_path):
    hostile = 'a"b\\c\n[gate]\nmin_auc = 0.5 # \x07\x7f'

    def day(date: dt.date) -> pa.Table:
        plain = columns(date)
        plain["größe"] = [hostile, "x"] * (ROWS // 2)
        plain[hostile] = plain.pop("click")
        return pa.table(plain)

    found = look(deliver(tmp_path, day), label=hostile)
    config = config_of(found)
    assert config.data.label == hostile
    assert "größe" in config.fields
    assert config.gate.min_auc == 0.55


def test_every_line_of_the_text_is_short_and_the_defaults_are_shown(tmp_path):
    text = render(look(deliver(tmp_path / "x")), model="m", out=Path("m.toml"))
    assert max(len(line) for line in text.splitlines() if not line.startswith("source")) <= 120
    assert "# min_auc = 0.55 # " in text
    assert "#   deepfm run --config m.toml --date 2026-03-03" in text
    shown = text.replace("# [training]", "[training]").replace("# [gate]", "[gate]")
    for key in ("epochs", "l2_embedding", "batch_size", "device", "max_drop"):
        shown = shown.replace(f"# {key} = ", f"{key} = ")
    assert parse_config(tomllib.loads(shown), where="test").training.epochs == 4


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("days", "./days"),
        ("./days/", "./days"),
        ("../days", "../days"),
        (".", "."),
        ("/a/b", "/a/b"),
        ("s3://b/p", "s3://b/p"),
    ],
)
def test_the_source_works_from_the_working_directory(where, text):
    assert source_text(where) == text


@pytest.mark.parametrize(("out", "name"), [("M.toml", "m"), ("My Clicks.toml", "my-clicks"), ("ü.toml", "clicks")])
def test_a_model_is_named_after_its_file(out, name):
    assert model_name(Path(out)) == name
