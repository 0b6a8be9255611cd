"""Which Arrow types a column may have, decided from the schema alone, and what is said about others."""

import pyarrow as pa
import pytest

from deepfm.data.files import open_file
from deepfm.data.schema import check_schema, columns_of
from tests.tiny_days import HOLDOUT, click_day, tiny_config

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
DECIMALS = {"decimal": pa.decimal128(10, 2), "whole decimal": pa.decimal256(40, 0)}
DATES = {"date": pa.date32(), "date in milliseconds": pa.date64()}
CODED = pa.dictionary(pa.int32(), pa.int64())
NUMBERS = {**INTEGERS, **DECIMALS, "double": pa.float64(), "bool": pa.bool_(), "coded": CODED}
NULL = {"null": pa.null()}
NEVER = {
    "list": pa.list_(pa.int64()),
    "struct": pa.struct([("a", pa.int64())]),
    "map": pa.map_(pa.string(), pa.int64()),
    "binary": pa.binary(),
    "time": pa.time64("us"),
    "duration": pa.duration("s"),
    "dictionary of lists": pa.dictionary(pa.int32(), pa.list_(pa.int64())),
}
IDS = {**TEXT, **{name: kind for name, kind in NUMBERS.items() if name not in {"decimal", "bool"}}, **NULL}
ALLOWED = {
    "click": {**NUMBERS, **FLOATS, **NULL},
    "time": {**STAMPS, **TEXT, **DATES, **NULL},
    "user": IDS,
    "item": {**NUMBERS, **NULL},
    "price": {**NUMBERS, **FLOATS, **NULL},
    "id": IDS,
}
EVERY = {**TEXT, **FLOATS, **STAMPS, **NEVER, **DATES, **NUMBERS, **NULL, "naive": pa.timestamp("us")}


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


def test_a_missing_a_doubled_and_a_renamed_column_are_named():
    plain = schema()
    assert broken(plain.remove(plain.get_field_index("item"))) == [("column_present", "item")]
    assert broken(plain.append(pa.field("item", pa.int64()))) == [("column_present", "item")]
    renamed = pa.schema([field.with_name("Click") if field.name == "click" else field for field in plain])
    assert broken(renamed) == [("column_present", "click")]
    assert broken(pa.schema([])) == [("column_present", column.name) for column in columns_of(CONFIG)]


def test_a_finding_says_what_was_seen_where_and_what_is_asked_for():
    (finding,) = check_schema(schema(item=pa.list_(pa.int8())), CONFIG, where="dt=2026-03-04/part-0.parquet")
    sentence = "column_type of item: list<item: int8> in dt=2026-03-04/part-0.parquet, required integer"
    assert finding.sentence == sentence
    assert finding.severity == "critical"


@pytest.mark.parametrize(
    ("column", "kind", "words"),
    [
        ("price", pa.string(), 'float or integer; for text set fields.price.kind to "categorical"'),
        ("item", pa.large_string(), 'integer; for text set fields.item.dtype to "string"'),
        ("time", pa.int64(), 'for integers since 1970 set data.event_time_unit to "s", "ms" or "us"'),
        ("click", pa.string(), "integer, bool or float"),
    ],
)
def test_a_type_that_is_refused_comes_with_the_next_step(column, kind, words):
    (finding,) = check_schema(schema(**{column: kind}), CONFIG, where="part-0.parquet")
    assert finding.required.endswith(words)


def test_numbers_since_1970_are_times_once_their_unit_is_known():
    config = tiny_config({"data.event_time_unit": "ms"})
    for kind in (pa.int64(), pa.int32(), pa.float64()):
        assert broken(schema(time=kind)) == [("column_type", "time")]
        assert broken(schema(time=kind), config) == []


def test_a_label_that_nobody_named_is_said_to_be_the_default():
    plain = schema().remove(0)
    (unnamed,) = check_schema(plain, CONFIG, where="part-0.parquet")
    assert unnamed.required == 'one column of exactly this name; data.label is "click" unless it is set'
    (named,) = check_schema(plain, tiny_config({"data.label": "click"}), where="part-0.parquet")
    assert named.required == "one column of exactly this name"


def test_every_column_of_a_csv_is_text_and_its_first_line_is_shown_only_if_it_is_a_header(tmp_path):
    def findings(header: str):
        path = tmp_path / "part-0.csv"
        path.write_text(f"{header}\n", encoding="utf-8")
        return list(check_schema(open_file(path, key=path.name).schema, CONFIG, where=path.name))

    assert findings("price,item,user,id,time,click,more") == []
    (finding,) = findings("price,item,user,id,when,click")
    assert finding.observed.startswith("missing, there are price, item, user, id, when, click in ")
    rows = findings("9.5,7,secret-user,secret-id,2026-03-04,1")
    assert len(rows) == 6
    assert all("secret" not in finding.sentence for finding in rows)
    assert rows[0].observed == (
        "missing, and so is every other; the first line has 6 cells, is it a header line? in part-0.csv"
    )


def test_times_without_a_zone_need_the_zone_to_be_configured():
    config = tiny_config({"data.event_time_zone": "America/New_York"})
    assert broken(schema(time=pa.timestamp("us")), config) == []


def test_a_column_with_two_roles_is_read_once():
    names = [column.name for column in columns_of(CONFIG)]
    assert sorted(names) == sorted(set(names)) == ["click", "id", "item", "price", "time", "user"]
    assert dict(columns_of(CONFIG))["user"] == "string"
