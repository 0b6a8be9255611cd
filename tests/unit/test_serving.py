"""The consumer: every accepted spelling of a value, every refusal, and the chain of digests."""

import datetime as dt
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm import layout, scorer
from deepfm.columns import NUMPY_TYPES, typed_column
from deepfm.config import NetworkConfig
from deepfm.documents import sha256_hex
from deepfm.errors import IntegrityError, NotFoundError, UsageError
from deepfm.export.graph import GraphSpec, build_onnx
from deepfm.manifests import MISSING_INT64, FileEntry, InputSpec, LogEntry, Normalisation, VersionManifest, Window
from deepfm.model import DeepFM
from deepfm.onnx_file import MINIMUM_ONNXRUNTIME
from deepfm.serving import ChampionModel, Scorer
from deepfm.storage import open_store

USER = InputSpec(name="user", kind="categorical", dtype="string")
ITEM = InputSpec(name="item", kind="categorical", dtype="int64")
PRICE = InputSpec(name="price", kind="numeric", dtype="float32")
INPUTS = (USER, ITEM, PRICE)
MODEL, VERSION, ATTEMPT = "shop", "2026-01-08-0123456789abcdef", "a1"
DAY = dt.date(2026, 1, 8)
MODEL_KEY = layout.file_key(layout.attempt_prefix(MODEL, VERSION, ATTEMPT), "model.onnx")


@pytest.fixture(scope="module")
def onnx_bytes():
    torch.manual_seed(0)
    model = DeepFM(vocabulary_sizes=(4, 4), numeric_fields=1, network=NetworkConfig(embedding_dim=3, hidden=(4,)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    spec = GraphSpec(
        inputs=INPUTS,
        vocabularies=(("u1", "u2", ""), np.array([17, 2**62 + 1, MISSING_INT64])),
        normalisation=(Normalisation(mean=2.0, deviation=3.0),),
        metadata={},
    )
    return build_onnx(model, spec)


@pytest.fixture
def store_url(tmp_path, onnx_bytes):
    """A store whose log names one version."""
    store = open_store(f"file://{tmp_path}")
    publish(store, onnx_bytes, files={"model.onnx": entry_of(onnx_bytes)})
    return store.url


def entry_of(data):
    return FileEntry(sha256=sha256_hex(data), size_bytes=len(data))


def publish(store, data, *, files, **changes):
    window = Window(
        model=MODEL,
        logical_date=DAY,
        key="0" * 16,
        days=(),
        gaps=(),
        keep_rate=1.0,
        categorical=("user", "item"),
        numeric=("price",),
        vocabulary_sizes={"user": 4, "item": 4},
        normalisation={"price": Normalisation(mean=2.0, deviation=3.0)},
        files={},
    )
    manifest = VersionManifest(
        model=MODEL,
        version=VERSION,
        logical_date=DAY,
        attempt=ATTEMPT,
        window=window,
        inputs=INPUTS,
        keep_rate=1.0,
        pos_weight=1.0,
        focal=None,
        minimum_onnxruntime=MINIMUM_ONNXRUNTIME,
        files=files,
    )
    manifest = manifest.model_copy(update=changes)
    head = LogEntry(
        model=MODEL,
        sequence=1,
        operation="promote",
        version=VERSION,
        logical_date=DAY,
        manifest_sha256=sha256_hex(manifest.to_bytes()),
        decision_sha256=None,
        compared_entry=0,
        attempt="x1",
        challenger_auc=0.7,
        champion_auc=None,
        actor="test",
        reason="first",
        created_utc=dt.datetime(2026, 1, 9, tzinfo=dt.UTC),
    )
    store.write(MODEL_KEY, data)
    store.write(layout.version_manifest(MODEL, VERSION), manifest.to_bytes())
    store.write(layout.log_entry(MODEL, 1), head.to_bytes())


@pytest.fixture
def champion(store_url):
    return ChampionModel.open(store_url, MODEL, threads=1)


COLUMNS = {"user": ["u1", None, "zz"], "item": [17, None, 3], "price": [1.0, None, math.inf]}


def test_champion_names_itself(champion):
    assert (champion.version, champion.logical_date, champion.sequence) == (VERSION, DAY, 1)
    assert champion.inputs == INPUTS


def test_every_shape_of_data_gives_the_same_scores(champion):
    expected = champion.predict(COLUMNS)
    assert expected.dtype == np.float32
    assert expected.shape == (3,)
    assert len(set(expected.tolist())) == 3
    rows = [dict(zip(COLUMNS, values, strict=True)) for values in zip(*COLUMNS.values(), strict=True)]
    table = pa.table({**COLUMNS, "item": pa.array(COLUMNS["item"], pa.int64())})
    frame = pd.DataFrame(COLUMNS)
    nullable = frame.astype({"user": "string", "item": "Int64", "price": "Float32"})
    categories = {**COLUMNS, "user": pd.Series(COLUMNS["user"], dtype="category")}
    encoded = {**COLUMNS, "user": pa.array(COLUMNS["user"]).dictionary_encode()}
    arrays = {
        "user": np.array(["u1", None, "zz"], dtype=object),
        "item": np.array([17, MISSING_INT64, 3]),
        "price": np.array([1.0, np.nan, -np.inf]),
    }
    for data in (rows, tuple(rows), table, table.to_batches()[0], frame, nullable, categories, encoded, arrays):
        np.testing.assert_array_equal(champion.predict(data), expected)


@pytest.mark.parametrize(
    "nothing", [[], (), {"user": [], "item": [], "price": []}, pd.DataFrame(columns=list(COLUMNS))]
)
def test_no_rows_give_no_scores(champion, nothing):
    scores = champion.predict(nothing)
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


def test_unknown_columns_are_ignored_and_data_is_not_changed(champion):
    given_columns = {**COLUMNS, "extra": object()}
    np.testing.assert_array_equal(champion.predict(given_columns), champion.predict(COLUMNS))
    assert given_columns["user"] == ["u1", None, "zz"]


@pytest.mark.parametrize(
    ("field", "column", "expected"),
    [
        (USER, ["a", None, math.nan, pd.NA, pd.NaT, np.nan, ""], ["a", "", "", "", "", "", ""]),
        (USER, [17, np.int32(4), -(10**20)], ["17", "4", "-100000000000000000000"]),
        (USER, np.array(["a", "bc"]), ["a", "bc"]),
        (USER, np.array([1, 2], dtype=np.uint64), ["1", "2"]),
        (USER, [np.str_("a"), "a\0b\0", "😀"], ["a", "a\0b\0", "😀"]),
        (USER, np.array([np.nan, np.nan]), ["", ""]),
        (ITEM, [1, None, math.nan, pd.NA, True], [1, MISSING_INT64, MISSING_INT64, MISSING_INT64, 1]),
        (ITEM, np.array([2.0, np.nan, -(2.0**53) + 1]), [2, MISSING_INT64, -(2**53) + 1]),
        (ITEM, [2**53 + 1, 2**24 + 1, 2**63 - 1, -(2**63)], [2**53 + 1, 2**24 + 1, 2**63 - 1, -(2**63)]),
        (ITEM, np.array([2**63 - 1], dtype=np.uint64), [2**63 - 1]),
        (ITEM, np.array([250], dtype=np.uint8), [250]),
        (ITEM, np.array([True, False]), [1, 0]),
        (ITEM, np.ma.MaskedArray([5, 6], mask=[False, True]), [5, MISSING_INT64]),
        (PRICE, [1, 2.5, None, pd.NA, True, np.float64(3)], [1.0, 2.5, math.nan, math.nan, 1.0, 3.0]),
        (PRICE, np.array([1e300, 1.0]), [math.inf, 1.0]),
        (PRICE, [1.5, None], [1.5, math.nan]),
        (ITEM, pd.Series([2**53 + 1, None], dtype="Int64"), [2**53 + 1, MISSING_INT64]),
        (ITEM, pd.Series([2**53 + 1, 5]), [2**53 + 1, 5]),
        (USER, pd.Series(["a", None]), ["a", ""]),
        (USER, pd.Index(["a", "b"]), ["a", "b"]),
        (PRICE, np.array([1, 2]), [1.0, 2.0]),
    ],
)
def test_values_are_converted_without_loss(field, column, expected):
    typed = typed_column(column, field)
    assert typed.dtype == NUMPY_TYPES[field.dtype]
    if field is PRICE:
        np.testing.assert_array_equal(typed, np.array(expected, dtype=np.float32))
    else:
        assert typed.tolist() == expected


@pytest.mark.parametrize(
    ("field", "column", "observed"),
    [
        (USER, ["a", 1.5], "float"),
        (USER, [True], "bool"),
        (USER, np.array([True]), "bool"),
        (USER, [b"a"], "bytes"),
        (USER, np.array([b"a"]), "bytes"),
        (USER, ["a", "\ud800"], "lone surrogate"),
        (USER, [["a"], ["b"]], "list"),
        (USER, [np.array([1, 2])], "ndarray"),
        (ITEM, np.array(["2026-01-01"], dtype="M8[ns]"), "datetime64[ns]"),
        (USER, "u1", "a single str"),
        (USER, None, "a single NoneType"),
        (USER, np.array([["u1"]], dtype=object), "2 dimensions"),
        (ITEM, ["17"], "str"),
        (ITEM, [1.5], "fraction"),
        (ITEM, np.array([2.0**53]), "not below 2^53"),
        (ITEM, np.array([3.0], dtype=np.float32), "float32, which merges ids"),
        (ITEM, [np.float32(3)], "float32"),
        (ITEM, [math.inf], "fraction"),
        (ITEM, [2**63], "beyond 64 bits"),
        (ITEM, np.array([2**63], dtype=np.uint64), "beyond 64 bits"),
        (ITEM, 17, "a single int"),
        (PRICE, ["1.5"], "str"),
        (PRICE, np.array(["1.5"]), "str"),
        (PRICE, [1 + 2j], "complex"),
        (PRICE, [np.complex64(1)], "complex64"),
        (PRICE, [10**400], "an integer beyond float64"),
        (PRICE, pd.Series([pd.Timestamp("2026-01-01")]), "datetime"),
    ],
)
def test_other_values_are_refused_in_one_line(field, column, observed):
    with pytest.raises(UsageError) as refusal:
        typed_column(column, field)
    message = str(refusal.value)
    assert observed in message
    assert message.startswith(f"field {field.name} cannot be used: ")
    assert message.endswith(f"required a column of {field.dtype}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"user": ["u1"], "item": [1]}, "field price is missing, required columns user, item, price"),
        ([{"user": "u1", "item": 1, "price": 1.0}, {"user": "u1", "price": 1.0}], r"field item is missing \(row 1\)"),
        (["u1"], r"row is not a mapping: str \(row 0\)"),
        ({"user": ["u1"], "item": [1, 2], "price": [1.0]}, "field item has another length: 2, required 1, as user has"),
        ("user", "data has no columns: str"),
        (3, "data has no columns: int"),
        ({"user": "u1", "item": 1, "price": 1.0}, "field user cannot be used: a single str"),
        (pd.DataFrame({"user": ["u1"]}), "field item is missing"),
    ],
)
def test_data_of_another_shape_is_refused(champion, data, message):
    with pytest.raises(UsageError, match=message):
        champion.predict(data)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=20))
def test_integers_arrive_exactly(values):
    expected = [MISSING_INT64 if value is None else value for value in values]
    assert typed_column(values, ITEM).tolist() == expected
    assert typed_column(pa.array(values, pa.int64()), ITEM).tolist() == expected
    assert typed_column(pd.array(values, dtype="Int64"), ITEM).tolist() == expected


def test_rows_are_scored_in_bounded_batches(onnx_bytes, monkeypatch):
    loaded = Scorer(onnx_bytes, INPUTS, threads=1)
    rng = np.random.default_rng(0)
    columns = {
        "user": rng.choice(np.array(["u1", "u2", "x"], dtype=object), 1000),
        "item": rng.choice(np.array([17, 5]), 1000),
        "price": rng.normal(size=1000).astype(np.float32),
    }
    whole = loaded.probabilities(columns)
    monkeypatch.setattr(scorer, "BATCH_ROWS", 7)
    np.testing.assert_allclose(loaded.probabilities(columns), whole, rtol=1e-6)


def test_threads_share_a_scorer(onnx_bytes):
    loaded = Scorer(onnx_bytes, INPUTS, threads=1)
    columns = {field.name: typed_column(COLUMNS[field.name], field) for field in INPUTS}
    expected = loaded.probabilities(columns)
    with ThreadPoolExecutor(4) as pool:
        for scores in pool.map(lambda _: loaded.probabilities(columns), range(50)):
            np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": np.array([1], dtype=np.int32)}, "array of int32"),
        ({"price": np.array([[1.0]], dtype=np.float32)}, "2 dimensions"),
        ({"user": np.array(["u1"])}, "array of <U2"),
    ],
)
def test_scorer_takes_typed_columns_only(onnx_bytes, change, message):
    columns = {field.name: typed_column([None], field) for field in INPUTS}
    with pytest.raises(UsageError, match=message):
        Scorer(onnx_bytes, INPUTS).probabilities({**columns, **change})
    columns.pop("item")
    with pytest.raises(UsageError, match="field item is missing"):
        Scorer(onnx_bytes, INPUTS).probabilities(columns)


@pytest.mark.parametrize(
    "inputs", [INPUTS[:2], (USER, PRICE, ITEM), (ITEM.model_copy(update={"name": "user"}), *INPUTS[1:])]
)
def test_a_file_with_other_inputs_is_refused(onnx_bytes, inputs):
    with pytest.raises(IntegrityError, match="model file has other inputs"):
        Scorer(onnx_bytes, inputs)


def test_a_file_that_the_runtime_refuses_is_a_typed_error(onnx_bytes):
    file = onnx.load_from_string(onnx_bytes)
    choice = next(node for node in file.graph.node if node.op_type == "Where")
    choice.input[0] = choice.input[1]  # of numbers, not of truths
    with pytest.raises(IntegrityError, match="onnxruntime cannot load the model file"):
        Scorer(file.SerializeToString(), INPUTS)


def test_tampered_bytes_are_refused(store_url, onnx_bytes):
    store = open_store(store_url)
    flipped = bytearray(onnx_bytes)
    flipped[len(flipped) // 2] ^= 1
    store.write(MODEL_KEY, bytes(flipped))
    with pytest.raises(IntegrityError, match=r"digest does not match: .*model\.onnx"):
        ChampionModel.open(store_url, MODEL)
    store.write(MODEL_KEY, onnx_bytes[:-1])
    with pytest.raises(IntegrityError, match="size in bytes does not match"):
        ChampionModel.open(store_url, MODEL)


def test_a_manifest_that_the_log_does_not_name_is_refused(store_url):
    store = open_store(store_url)
    key = layout.version_manifest(MODEL, VERSION)
    store.write(key, store.read(key).replace(b'"pos_weight": 1.0', b'"pos_weight": 2.0'))
    with pytest.raises(IntegrityError, match="manifest's digest does not match"):
        ChampionModel.open(store_url, MODEL)


def test_a_version_without_a_model_file_is_refused(tmp_path, onnx_bytes):
    store = open_store(f"file://{tmp_path}")
    publish(store, onnx_bytes, files={})
    with pytest.raises(IntegrityError, match=r"has no model\.onnx"):
        ChampionModel.open(store.url, MODEL)


def test_a_file_of_another_kind_is_refused_although_its_digest_is_right(tmp_path):
    store = open_store(f"file://{tmp_path}")
    data = b"\x80\x04not a model"
    publish(store, data, files={"model.onnx": entry_of(data)})
    with pytest.raises(IntegrityError, match="model file is"):
        ChampionModel.open(store.url, MODEL)


def test_no_champion_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="model shop has no champion"):
        ChampionModel.open(f"file://{tmp_path}", MODEL)


def test_import_is_light():
    heavy = "torch", "prefect", "pandas", "great_expectations", "pyarrow", "onnx", "boto3"
    program = f"import sys, deepfm.serving; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_column_that_is_there_twice_is_refused(champion):
    table = pa.table([[1], [2], [3], [4.0]], names=["user", "user", "item", "price"])
    with pytest.raises(UsageError, match="field user is there 2 times"):
        champion.predict(table)


def test_an_integer_without_end_is_refused(champion):
    with pytest.raises(UsageError, match="more than a thousand digits"):
        champion.predict({"user": [10**5000], "item": [1], "price": [1.0]})
