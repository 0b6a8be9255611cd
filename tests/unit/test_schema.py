"""Which Arrow types a column may have, decided from the schema alone, and their one canonical form."""

import datetime as dt

import pyarrow as pa
import pytest

from deepfm.data.schema import canonical, check_schema, columns_of
from deepfm.errors import DataRejectedError
from tests.tiny_days import HOLDOUT, click_day, tiny_config, with_column

CONFIG = tiny_config()
TEXT = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "large dictionary": pa.dictionary(pa.int8(), pa.large_string()),
}
INTEGERS = {str(kind): kind for kind in (pa.int8(), pa.uint8(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64())}
FLOATS = {str(kind): kind for kind in (pa.float16(), pa.float32(), pa.float64())}
STAMPS = {unit: pa.timestamp(unit, tz="Europe/Berlin") for unit in ("s", "ms", "us", "ns")}
NEVER = {
    "list": pa.list_(pa.int64()),
    "struct": pa.struct([("a", pa.int64())]),
    "map": pa.map_(pa.string(), pa.int64()),
    "decimal": pa.decimal128(10, 2),
    "binary": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "duration": pa.duration("s"),
    "null": pa.null(),
    "dictionary of integers": pa.dictionary(pa.int32(), pa.int64()),
    "dictionary of views": pa.dictionary(pa.int32(), pa.string_view()),
}
ALLOWED = {
    "click": {**INTEGERS, "bool": pa.bool_()},
    "time": STAMPS,
    "user": TEXT,
    "item": INTEGERS,
    "price": {**INTEGERS, **FLOATS},
    "id": {**TEXT, **INTEGERS},
}
EVERY = {**TEXT, **INTEGERS, **FLOATS, **STAMPS, **NEVER, "bool": pa.bool_(), "naive": pa.timestamp("us")}


def schema(**changes: pa.DataType) -> pa.Schema:
    plain = click_day(HOLDOUT, rows=1).schema
    return pa.schema([pa.field(field.name, changes.get(field.name, field.type)) for field in plain])


def broken(found: pa.Schema, config=CONFIG) -> list[tuple[str, str]]:
    return [(finding.rule, finding.column) for finding in check_schema(found, config, where="part-0.parquet")]


@pytest.mark.parametrize("column", ALLOWED)
@pytest.mark.parametrize("name", EVERY)
def test_a_type_is_allowed_or_refused_by_role(column, name):
    rule = "time_zone" if (column, name) == ("time", "naive") else "column_type"
    expected = [] if name in ALLOWED[column] else [(rule, column)]
    assert broken(schema(**{column: EVERY[name]})) == expected


@pytest.mark.parametrize(("column", "name"), [(column, name) for column, kinds in ALLOWED.items() for name in kinds])
def test_every_allowed_type_has_a_canonical_form(column, name):
    plain = click_day(HOLDOUT, rows=3)
    kind = ALLOWED[column][name]
    values = pa.array([1, 0, None]) if not (pa.types.is_integer(kind) and column == "id") else pa.array([1, 2, 3])
    if name in TEXT:
        values = pa.array(["a", "", None])
    if name in STAMPS:
        values = pa.array([dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)] * 2 + [None], pa.timestamp("s", tz="UTC"))
    if pa.types.is_dictionary(kind):
        cast = pa.DictionaryArray.from_arrays(
            pa.array([0, 1, None], kind.index_type), pa.array(["a", ""], kind.value_type)
        )
    elif pa.types.is_float16(kind):
        cast = pa.array([1.0, 0.0, None], pa.float32()).cast(kind)
    else:
        cast = values.cast(kind)
    result = canonical(with_column(plain, column, cast).to_batches()[0], CONFIG).column(column)
    wanted = {"click": pa.int64(), "time": pa.timestamp("us", tz="UTC"), "user": pa.string(), "item": pa.int64()}
    assert result.type == wanted.get(column, {"price": pa.float64()}.get(column, result.type))
    assert result.type in (pa.int64(), pa.string(), pa.float64(), pa.timestamp("us", tz="UTC"))
    assert result.to_pylist() == values.to_pylist()


def test_a_missing_a_doubled_and_a_renamed_column_are_named():
    plain = schema()
    assert broken(plain.remove(plain.get_field_index("item"))) == [("column_present", "item")]
    assert broken(plain.append(pa.field("item", pa.int64()))) == [("column_present", "item")]
    renamed = pa.schema([field.with_name("Click") if field.name == "click" else field for field in plain])
    assert broken(renamed) == [("column_present", "click")]
    assert broken(pa.schema([])) == [("column_present", column.name) for column in columns_of(CONFIG)]


def test_the_order_of_columns_and_what_nobody_asked_for_do_not_matter():
    plain = click_day(HOLDOUT, rows=5)
    turned = plain.select(plain.column_names[::-1]).append_column("extra", pa.array([1] * 5))
    assert broken(turned.schema) == []
    assert canonical(turned.to_batches()[0], CONFIG).equals(canonical(plain.to_batches()[0], CONFIG))


def test_a_finding_says_what_was_seen_where_and_what_is_asked_for():
    (finding,) = check_schema(schema(item=pa.string()), CONFIG, where="dt=2026-03-04/part-0.parquet")
    assert finding.sentence == "column_type of item: string in dt=2026-03-04/part-0.parquet, required integer"
    assert finding.severity == "critical"


def test_times_without_a_zone_need_the_zone_to_be_configured():
    config = tiny_config({"data.event_time_zone": "America/New_York"})
    assert broken(schema(time=pa.timestamp("us")), config) == []
    naive = pa.array([dt.datetime(2026, 3, 4, 12)], pa.timestamp("us"))  # noqa: DTZ001 - the point of the test
    rows = with_column(click_day(HOLDOUT, rows=1), "time", naive).to_batches()[0]
    assert canonical(rows, config).column("time").to_pylist() == [dt.datetime(2026, 3, 4, 17, tzinfo=dt.UTC)]


def test_local_times_that_a_change_of_the_clocks_made_twice_or_never_are_taken_the_same_way():
    config = tiny_config({"data.event_time_zone": "Europe/Berlin"})
    twice, never = dt.datetime(2026, 10, 25, 2, 30), dt.datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001
    rows = with_column(click_day(HOLDOUT, rows=2), "time", pa.array([twice, never], pa.timestamp("us"))).to_batches()[0]
    first, second = canonical(rows, config).column("time").to_pylist()
    assert first == dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC)
    assert abs(second - dt.datetime(2026, 3, 29, 1, tzinfo=dt.UTC)) <= dt.timedelta(minutes=30)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("item", pa.array([2**63], pa.uint64())),
        ("id", pa.array([2**64 - 1], pa.uint64())),
        ("price", pa.array([2**53 + 1], pa.int64())),
    ],
)
def test_an_integer_that_would_lose_digits_is_refused_by_column(column, values):
    rows = with_column(click_day(HOLDOUT, rows=1), column, values).to_batches()[0]
    with pytest.raises(DataRejectedError, match=f"column {column} has a value that does not fit"):
        canonical(rows, CONFIG)


def test_large_ids_stay_whole():
    values = [2**63 - 1, -(2**63) + 1, 2**53 + 1, 0, -1]
    rows = with_column(click_day(HOLDOUT, rows=5), "item", pa.array(values, pa.int64())).to_batches()[0]
    assert canonical(rows, CONFIG).column("item").to_pylist() == values


def test_text_that_is_not_utf8_is_refused_by_column():
    offsets = pa.py_buffer(b"\x00\x00\x00\x00\x01\x00\x00\x00")
    values = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    rows = with_column(click_day(HOLDOUT, rows=1), "user", values).to_batches()[0]
    with pytest.raises(DataRejectedError, match="column user"):
        canonical(rows, CONFIG)


def test_a_column_with_two_roles_is_read_once():
    names = [column.name for column in columns_of(CONFIG)]
    assert sorted(names) == sorted(set(names)) == ["click", "id", "item", "price", "time", "user"]
    assert dict(columns_of(CONFIG))["user"] == "string"
