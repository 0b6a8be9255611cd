"""Values and ids: every value has one, what is rare or banned has the OOV id, and nothing is mistaken for another."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm.config import FieldConfig
from deepfm.data.vocabulary import OOV_ID, DayDictionary, build_vocabulary, look_up
from deepfm.manifests import MISSING_INT64

TEXT = FieldConfig(kind="categorical")
NUMBER = FieldConfig(kind="categorical", dtype="int64")
texts = st.one_of(
    st.none(),
    st.sampled_from(["a", "b", "", "None", "nan", "NaN", "e\u0301", "é", "\x00", "=1+1", "a\n"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
numbers = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -1, 2**24, 2**24 + 1, 2**53 + 1]))
FIELDS = [(TEXT, pa.string(), texts), (NUMBER, pa.int64(), numbers)]


def days_of(values):
    return st.lists(st.lists(values, max_size=12), min_size=1, max_size=4)


def oracle(days, missing, min_count):
    """Ids of a window by a plain dictionary: sorted values from 1 on."""
    counts = Counter(missing if value is None else value for day in days for value in day)
    known = [value for value, count in counts.items() if count >= min_count and value not in ("None", "nan")]
    in_order = sorted(known, key=lambda value: value.encode() if isinstance(value, str) else value)
    return {value: position + 1 for position, value in enumerate(in_order)}


@pytest.mark.parametrize(("field", "kind", "values"), FIELDS, ids=["text", "int64"])
@given(data=st.data(), min_count=st.integers(2, 4))
def test_ids_are_those_of_a_plain_dictionary(field, kind, values, data, min_count):
    days = data.draw(days_of(values))
    unseen = data.draw(st.lists(values, max_size=5))
    missing = "" if kind == pa.string() else MISSING_INT64
    tables, codes = [], []
    for day in days:
        dictionary = DayDictionary(field)
        codes.append(dictionary.encode(pa.array(day, kind), np.ones(len(day), np.bool_)))
        tables.append(dictionary.table())
    vocabulary = build_vocabulary(
        [table["value"].combine_chunks() for table in tables],
        [table["sampled_rows"].to_numpy() for table in tables],
        min_count=min_count,
    )
    known = vocabulary["value"].combine_chunks()
    expected = oracle(days, missing, min_count)
    assert dict(zip(known.to_pylist(), range(1, len(known) + 1), strict=True)) == expected
    for day, table, code in zip(days, tables, codes, strict=True):
        wanted = [expected.get(missing if value is None else value, OOV_ID) for value in day]
        assert look_up(pa.array(day, kind), known).tolist() == wanted
        remap = look_up(table["value"].combine_chunks(), known)
        assert remap[code].tolist() == wanted
    assert look_up(pa.array(unseen, kind), known).tolist() == [
        expected.get(missing if value is None else value, OOV_ID) for value in unseen
    ]


@given(st.lists(st.lists(texts, max_size=10), min_size=1, max_size=4), st.data())
def test_a_day_counts_all_rows_and_the_sampled_ones(batches, data):
    dictionary = DayDictionary(TEXT)
    rows: Counter[str] = Counter()
    sampled: Counter[str] = Counter()
    order: list[str] = []
    for batch in batches:
        kept = data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch)))
        codes = dictionary.encode(pa.array(batch, pa.string()), np.array(kept, dtype=np.bool_))
        values = [value or "" for value in batch]
        order = list(dict.fromkeys(order + values))
        assert codes.dtype == np.int32
        assert codes.tolist() == [order.index(value) for value in values]
        rows.update(values)
        sampled.update(value for value, keep in zip(values, kept, strict=True) if keep)
    assert dictionary.table().to_pydict() == {
        "value": order,
        "rows": [rows[value] for value in order],
        "sampled_rows": [sampled[value] for value in order],
    }
    assert len(dictionary) == len(order)


@pytest.mark.parametrize("banned", ["None", "nan"])
def test_what_numpy_makes_of_a_null_never_has_an_id(banned):
    values = pa.array([banned, "x", ""])
    vocabulary = build_vocabulary([values], [np.array([100, 100, 100])], min_count=2)
    assert vocabulary["value"].to_pylist() == ["", "x"]
    assert look_up(pa.array([banned]), vocabulary["value"].combine_chunks()).tolist() == [OOV_ID]


def test_counts_add_up_over_days():
    first, second = pa.array(["a", "b"]), pa.array(["b", "c"])
    vocabulary = build_vocabulary([first, second], [np.array([1, 1]), np.array([1, 1])], min_count=2)
    assert vocabulary.to_pydict() == {"value": ["b"], "rows": [2]}


def test_composed_and_decomposed_accents_are_two_values():
    vocabulary = build_vocabulary([pa.array(["e\u0301", "é"])], [np.array([5, 5])], min_count=2)
    assert len(vocabulary) == 2


def test_an_empty_window_knows_nothing_and_still_encodes():
    vocabulary = build_vocabulary([pa.array([], pa.string())], [np.array([], dtype=np.int64)], min_count=2)
    assert look_up(pa.array(["a", None]), vocabulary["value"].combine_chunks()).tolist() == [OOV_ID, OOV_ID]
    assert DayDictionary(TEXT).encode(pa.array([], pa.string()), np.zeros(0, np.bool_)).tolist() == []
