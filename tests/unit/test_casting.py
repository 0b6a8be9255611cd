"""The canonical form: the same cell is the same value however it is stored, and one that does not fit is marked."""

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm.data.casting import canonical, field_values
from deepfm.data.files import _TEXT_MARK
from deepfm.data.schema import columns_of
from tests.tiny_days import HOLDOUT, click_day, tiny_config, with_column

CONFIG = tiny_config()
BERLIN = tiny_config({"data.event_time_zone": "Europe/Berlin"})
KINDS = {"string": pa.string(), "key": pa.string(), "int64": pa.int64(), "label": pa.int64(), "numeric": pa.float64()}
BAD = object()
"""Stands for a cell that does not fit."""


def cells(column: str, values: pa.Array, config=CONFIG, *, csv: bool = False) -> list:
    """What a column becomes; `BAD` where a cell did not fit."""
    rows = with_column(click_day(HOLDOUT, rows=len(values)), column, values).to_batches()[0]
    if csv:
        others = [name for name in rows.schema.names if name != column]
        plain = {name: pa.nulls(len(values), pa.string()) for name in others}
        rows = pa.record_batch({**plain, column: values}).replace_schema_metadata(_TEXT_MARK)
    result = canonical(rows, config)
    assert result.rows.schema.names == [known.name for known in columns_of(config)]
    role = dict(columns_of(config))[column]
    assert result.rows.column(column).type == KINDS.get(role, pa.timestamp("us", tz="UTC"))
    assert set(result.unreadable) <= {column}
    found = result.rows.column(column).to_pylist()
    lost = result.unreadable.get(column, np.zeros(len(values), dtype=bool))
    assert all(value is None for value, is_lost in zip(found, lost, strict=True) if is_lost)
    return [BAD if is_lost else value for value, is_lost in zip(found, lost, strict=True)]


def utc(*parts: int) -> dt.datetime:
    year, month, day, hour, minute, second, microsecond = (*parts, *[0] * (7 - len(parts)))
    return dt.datetime(year, month, day, hour, minute, second, microsecond, tzinfo=dt.UTC)


D = decimal.Decimal
LARGE = 2**53
STORED = [
    ("user", pa.array(["a", "", None, "7"]), ["a", None, None, "7"]),
    ("user", pa.array(["NA", "nan", " x "]), ["NA", "nan", " x "]),
    ("user", pa.array([7, -1, None], pa.int16()), ["7", "-1", None]),
    ("user", pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
    ("user", pa.array([7.0, None, np.nan, 7.5, np.inf, float(LARGE), -0.0]), ["7", None, None, BAD, BAD, BAD, "0"]),
    ("user", pa.array([D("7"), None, D(10) ** 30], pa.decimal128(38, 0)), ["7", None, "1" + "0" * 30]),
    ("user", pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
    ("user", pa.array([5, None, 6]).dictionary_encode(), ["5", None, "6"]),
    ("id", pa.array([1, 2**63 - 1], pa.int64()), ["1", "9223372036854775807"]),
    ("id", pa.array([1.0, 1.5]), ["1", BAD]),
    ("item", pa.array([2**63 - 1, -(2**63) + 1, LARGE + 1, None]), [2**63 - 1, -(2**63) + 1, LARGE + 1, None]),
    ("item", pa.array([1, 2**63, 2**64 - 1], pa.uint64()), [1, BAD, BAD]),
    ("item", pa.array([3.0, 3.5, np.nan, None, -np.inf, float(LARGE)]), [3, BAD, None, None, BAD, BAD]),
    ("item", pa.array([True, False, None]), [1, 0, None]),
    ("item", pa.array([D("3.00"), D("3.50"), None]), [3, BAD, None]),
    ("item", pa.array([D(2**63 - 1), D(2**63)]), [2**63 - 1, BAD]),
    ("price", pa.array([LARGE + 1], pa.int64()), [float(LARGE)]),
    ("price", pa.array([1, 0, None], pa.uint8()), [1.0, 0.0, None]),
    ("price", pa.array([True, False, None]), [1.0, 0.0, None]),
    ("price", pa.array([D("3.25"), None]), [3.25, None]),
    ("price", pa.array([0.5, np.inf, None], pa.float32()), [0.5, np.inf, None]),
    ("click", pa.array([True, False, None]), [1, 0, None]),
    ("click", pa.array([1.0, 0.0, np.nan, None, 0.5, 2.0]), [1, 0, None, None, BAD, 2]),
    ("click", pa.array([1, 0, 7, None], pa.int8()), [1, 0, 7, None]),
    ("click", pa.array([D(1), D(0), None]), [1, 0, None]),
    ("time", pa.array([dt.date(2026, 3, 4), None]), [utc(2026, 3, 4), None]),
    ("time", pa.array([dt.date(2026, 3, 4)], pa.date64()), [utc(2026, 3, 4)]),
    ("time", pa.array(["2026-03-04T12:00:00Z", "", "noon", None]), [utc(2026, 3, 4, 12), None, BAD, None]),
] + [(column, pa.nulls(2), [None, None]) for column in ("user", "id", "item", "price", "click", "time")]


@pytest.mark.parametrize(("column", "values", "expected"), STORED, ids=[f"{s[0]}-{s[1].type}" for s in STORED])
def test_a_stored_value_becomes_its_canonical_form_or_is_marked(column, values, expected):
    assert cells(column, values) == expected


WRITTEN: list[tuple[str, list[str | None], list[Any]]] = [
    ("user", ["a", "", "NA", "null", " x ", "007"], ["a", None, "NA", "null", " x ", "007"]),
    ("id", ["1", None], ["1", None]),
    ("item", ["7", " 7 ", "-7", "7.0", "7e0", "7.5", "abc", "0x10", "1_0"], [7, 7, -7, 7, 7, BAD, BAD, BAD, BAD]),
    ("item", ["9223372036854775807", "9223372036854775808", "9007199254740993.0"], [2**63 - 1, BAD, BAD]),
    ("item", ["NA", "nan", "NULL", "None", "\\N", "", " ", "inf"], [None] * 7 + [BAD]),
    ("price", ["1", "1.5", "-.5", "1.", "+2", "1e3", " 4 "], [1.0, 1.5, -0.5, 1.0, 2.0, 1000.0, 4.0]),
    ("price", ["na", "NaN", "null", "none", "\\n"], [None] * 5),
    ("price", ["inf", "-Infinity", "1e400"], [np.inf, -np.inf, np.inf]),
    ("price", ["abc", "1,5", "0x1p3", "$5", "1 000", "--1", "e5", "."], [BAD] * 8),
    ("click", ["0", "1", "true", "False", "0.0", "1.0", "TRUE", " 1 "], [0, 1, 1, 0, 0, 1, 1, 1]),
    ("click", ["yes", "0.5", "2", "", "NULL"], [BAD, BAD, 2, None, None]),
]


@pytest.mark.parametrize(("column", "values", "expected"), WRITTEN, ids=[f"{w[0]}-{w[1][0]}" for w in WRITTEN])
def test_the_text_of_a_csv_is_read_by_role(column, values, expected):
    assert cells(column, pa.array(values, pa.string()), csv=True) == expected


NOON = utc(2026, 3, 4, 12)
ZONED = {
    "2026-03-04T12:00:00Z": NOON,
    "2026-03-04 12:00:00+00:00": NOON,
    "2026-03-04 12:00:00 UTC": NOON,
    "2026-03-04 12:00:00 +0000": NOON,
    "2026-03-04 14:00:00+02": NOON,
    "2026-03-04T07:00-05:00": NOON,
    "2026-03-04T12:00:00.123456789Z": NOON.replace(microsecond=123456),
    "2026-03-04T12Z": NOON,
}
PLAIN = {
    "2026-03-04 13:00:00": NOON,
    "2026-03-04T13:00": NOON,
    "2026-03-04 13:00:00.5": NOON.replace(microsecond=500_000),
    "2026-03-04": utc(2026, 3, 3, 23),
    "2026-10-25 02:30:00": utc(2026, 10, 25, 0, 30),
}
NO_TIME = ["2026-02-30", "2026-03-04 25:00:00", "20260304", "1772625600", "04.03.2026", "3/4/2026", "noon", "2026-03",
           "0001-01-01 00:00:00", "2026-03-04T12:00:00.1234567890Z", "2026-03-04\n12:00"]  # fmt: skip


@pytest.mark.parametrize("csv", [False, True])
def test_text_is_a_time_if_it_is_iso_8601(csv):
    times = {**ZONED, **PLAIN, **dict.fromkeys(NO_TIME, BAD)}
    assert cells("time", pa.array(list(times)), BERLIN, csv=csv) == list(times.values())


def test_a_clock_without_a_zone_needs_one_and_a_date_does_not():
    config = tiny_config({"time_zone": "America/New_York"})
    expected = [*[BAD] * 3, utc(2026, 3, 4, 5), BAD]
    assert cells("time", pa.array(list(PLAIN)), config) == expected
    assert cells("time", pa.array([dt.date(2026, 3, 4)]), config) == [utc(2026, 3, 4, 5)]


def test_local_times_that_a_change_of_the_clocks_made_twice_or_never_are_taken_the_same_way():
    twice, never = dt.datetime(2026, 10, 25, 2, 30), dt.datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001
    stamps = pa.array([twice, never], pa.timestamp("us"))
    first, second = cells("time", stamps, BERLIN)
    assert first == utc(2026, 10, 25, 0, 30)
    assert abs(second - utc(2026, 3, 29, 1)) <= dt.timedelta(minutes=30)
    assert cells("time", pa.array([str(twice), str(never)]), BERLIN) == [first, second]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6)])
def test_numbers_since_1970_are_times_in_the_configured_unit(unit, factor):
    config = tiny_config({"data.event_time_unit": unit})
    number = int(NOON.timestamp()) * factor
    assert cells("time", pa.array([number, None]), config) == [NOON, None]
    assert cells("time", pa.array([float(number), np.nan]), config) == [NOON, None]
    texts = pa.array([str(number), f"{number}.0", "2026-03-04T12:00:00Z", "", "x", "9" * 18])
    assert cells("time", texts, config, csv=True) == [NOON, NOON, NOON, None, BAD, BAD]
    other = tiny_config({"data.event_time_unit": "s"})
    if unit != "s":
        assert cells("time", pa.array([number]), other) == [BAD]


def test_fractions_of_a_second_are_kept():
    config = tiny_config({"data.event_time_unit": "s"})
    (found,) = cells("time", pa.array([NOON.timestamp() + 0.25]), config)
    assert found == NOON.replace(microsecond=250_000)


def test_text_that_is_not_utf8_is_marked_cell_by_cell():
    offsets = pa.array([0, 2, 3, 4], pa.int32()).buffers()[1]
    values = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer("é".encode() + b"\xffz")])
    assert cells("user", values) == ["é", BAD, "z"]


@given(st.lists(st.floats(allow_nan=False) | st.none() | st.text(max_size=6), min_size=1))
def test_a_number_that_python_writes_is_read_back_and_nothing_breaks_the_others(values):
    texts = [repr(value) if isinstance(value, float) else value for value in values]
    found, lost = field_values(pa.array(texts, pa.string()), "float32")
    for value, result, is_lost in zip(values, found.to_pylist(), lost, strict=True):
        if isinstance(value, float):
            assert result == value
        elif value is None:
            assert result is None
            assert not is_lost


@given(st.lists(st.integers(-(2**64), 2**64) | st.integers(-5, 5) | st.none(), min_size=1, max_size=40))
def test_an_integer_of_64_bits_is_read_back_and_others_are_marked(values):
    found, lost = field_values(pa.array([None if v is None else str(v) for v in values], pa.string()), "int64")
    fits = [value is None or -(2**63) <= value < 2**63 for value in values]
    assert found.to_pylist() == [value if fit else None for value, fit in zip(values, fits, strict=True)]
    assert lost.tolist() == [not fit for fit in fits]


@given(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2250, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_a_time_that_python_writes_is_read_back(moment):
    whole_minutes = moment.utcoffset() is None or not moment.utcoffset().total_seconds() % 60
    expected = moment.astimezone(dt.UTC) if whole_minutes else BAD
    assert cells("time", pa.array([moment.isoformat(), moment.isoformat(" ")])) == [expected] * 2


def test_the_order_of_columns_and_what_nobody_asked_for_do_not_matter():
    plain = click_day(HOLDOUT, rows=5)
    turned = plain.select(plain.column_names[::-1]).append_column("extra", pa.array([1] * 5))
    assert canonical(turned.to_batches()[0], CONFIG).rows.equals(canonical(plain.to_batches()[0], CONFIG).rows)
