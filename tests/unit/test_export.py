"""The exported graph against torch, brute force and the runtime's own traps."""

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm.config import NetworkConfig
from deepfm.errors import ConfigError, IntegrityError, ParityError
from deepfm.export import graph, parity
from deepfm.export.graph import GraphSpec, build_onnx
from deepfm.export.parity import check_parity, local_ids, reference_logit
from deepfm.manifests import MISSING_INT64, InputSpec, Normalisation
from deepfm.model import DeepFM
from deepfm.onnx_file import OUTPUT, check_structure
from deepfm.serving import Scorer

USER = InputSpec(name="user", kind="categorical", dtype="string")
ITEM = InputSpec(name="item", kind="categorical", dtype="int64")
PRICE = InputSpec(name="price", kind="numeric", dtype="float32")
AGE = InputSpec(name="age", kind="numeric", dtype="float32")
USERS = ("u1", "", "é", "😀", "a\0b", "日本", " u1")
ITEMS = np.array([7, -1, MISSING_INT64, 2**24, 2**24 + 1, 2**62 + 1, 2**62], dtype=np.int64)


def make_spec(inputs=(USER, ITEM, PRICE, AGE), **changes):
    known = {
        "user": USERS,
        "item": ITEMS,
    }
    norms = {"price": Normalisation(mean=3.5, deviation=2.0), "age": Normalisation(mean=-1.0, deviation=0.25)}
    values = {
        "inputs": inputs,
        "vocabularies": tuple(known[field.name] for field in inputs if field.kind == "categorical"),
        "normalisation": tuple(norms[field.name] for field in inputs if field.kind == "numeric"),
        "metadata": {"version": "v", "model": "m"},
    }
    return GraphSpec(**{**values, **changes})


def make_model(spec, seed=0, std=0.3, **network):
    torch.manual_seed(seed)
    model = DeepFM(
        vocabulary_sizes=[len(values) + 1 for values in spec.vocabularies],
        numeric_fields=len(spec.normalisation),
        network=NetworkConfig(**{"embedding_dim": 4, "hidden": (6, 5), **network}),
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        if name.endswith("running_var"):
            buffer.uniform_(0.2, 3.0)
    return model.eval()


def make_columns(rows, seed=0):
    rng = np.random.default_rng(seed)
    users = np.array([*USERS, "unseen", "None", "nan", "e\u0301"], dtype=object)
    items = np.array([*ITEMS, 8, 2**24 - 1, 2**62 - 1], dtype=np.int64)
    return {
        "user": rng.choice(users, rows),
        "item": rng.choice(items, rows),
        "price": rng.choice(np.array([0.0, 5.0, -3.0, np.nan, np.inf], dtype=np.float32), rows),
        "age": rng.normal(-1.0, 0.3, rows).astype(np.float32),
    }


def score(model, spec, columns):
    return Scorer(build_onnx(model, spec), spec.inputs, threads=1).probabilities(columns)


def bias_only(spec, logit):
    """A network whose logit is one number on every row."""
    model = make_model(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.bias.fill_(logit)
    return model


def calibrated(logit, **changes):
    spec = make_spec((USER,), **changes)
    return float(score(bias_only(spec, logit), spec, {"user": np.array(["u1"], dtype=object)})[0])


def logit_of(p):
    return math.log(p) - math.log1p(-p)


@pytest.mark.parametrize("network", [{}, {"batch_norm": True}, {"dropout": 0.5}, {"hidden": ()}])
@pytest.mark.parametrize("inputs", [(USER,), (ITEM,), (USER, ITEM), (USER, ITEM, PRICE, AGE), (ITEM, AGE)])
def test_graph_agrees_with_torch(inputs, network):
    spec = make_spec(inputs, keep_rate=0.2)
    model = make_model(spec, **network)
    data = build_onnx(model, spec)
    check_structure(data)
    figures = check_parity(data, model, spec, columns=make_columns(200))
    assert figures.max_logit_difference <= 2e-5
    assert figures.rows == 207


@pytest.mark.parametrize("rows", [0, 1, 7, 1000])
def test_batches_of_any_size(rows):
    spec = make_spec()
    model, columns = make_model(spec), make_columns(rows)
    scores = score(model, spec, columns)
    assert scores.shape == (rows,)
    assert scores.dtype == np.float32
    if rows:
        check_parity(build_onnx(model, spec), model, spec, columns=columns)


def test_the_graph_itself_takes_an_empty_batch():
    """Consumers may call onnxruntime without `Scorer`, which never asks for no rows."""
    spec = make_spec(focal=(0.25, 2.0))
    session = ort.InferenceSession(build_onnx(make_model(spec), spec), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {name: column[:, None] for name, column in make_columns(0).items()})
    assert scores.shape == (0, 1)


def test_ids_follow_the_vocabulary_exactly():
    """Integers above 2^24 and 2^53 stay apart; every unknown, and what numpy makes of a null, is OOV."""
    spec = make_spec((USER, ITEM), vocabularies=((*USERS, "None", "nan"), ITEMS))
    model = make_model(spec)
    users = [*USERS, "None", "nan", "unseen", "U1", "a", "e\u0301", None, math.nan]
    expected_users = [*range(1, 8), *[0] * 8]
    items = [*ITEMS.tolist(), 2**24 - 1, 2**62 - 1, 0]
    expected_items = [*range(1, 8), 0, 0, 0]
    pairs = [(u, i) for u in range(len(users)) for i in range(len(items))]
    columns = {
        "user": np.array([users[u] for u, _ in pairs], dtype=object),
        "item": np.array([items[i] for _, i in pairs], dtype=np.int64),
    }
    ids = torch.tensor([[expected_users[u], expected_items[i]] for u, i in pairs])
    expected = torch.sigmoid(reference_logit(model, ids, torch.zeros(len(pairs), 0), spec)).numpy()
    np.testing.assert_allclose(score(model, spec, columns), expected, rtol=1e-5)
    assert len(np.unique(expected)) == 8 * 8


def test_every_look_up_states_its_default():
    """Left out, `default_int64` is -1 and Gather reads the last row of the table."""
    spec = make_spec((USER, ITEM))
    model = make_model(spec)
    file = onnx.load_from_string(build_onnx(model, spec))
    look_ups = [node for node in file.graph.node if node.op_type == "LabelEncoder"]
    assert len(look_ups) == 2
    for node in look_ups:
        (default,) = [attribute for attribute in node.attribute if attribute.name == "default_int64"]
        assert default.i == 0
        node.attribute.remove(default)
    with pytest.raises(IntegrityError, match="attributes of a look-up"):
        Scorer(file.SerializeToString(), spec.inputs)


def test_empty_vocabulary_sends_everything_to_oov():
    spec = make_spec((USER, ITEM), vocabularies=((), np.array([], dtype=np.int64)))
    model = make_model(spec)
    scores = score(model, spec, make_columns(50))
    assert len(np.unique(scores)) == 1
    check_parity(build_onnx(model, spec), model, spec, columns=make_columns(50))


def test_missing_numbers_are_the_mean():
    spec = make_spec((USER, PRICE))
    model = make_model(spec)
    prices = np.array([3.5, np.nan, np.inf, -np.inf, 3.6], dtype=np.float32)
    scores = score(model, spec, {"user": np.array(["u1"] * 5, dtype=object), "price": prices})
    assert len(set(scores[:4].tolist())) == 1
    assert scores[4] != scores[0]


def test_huge_numbers_stay_probabilities():
    spec = make_spec((USER, PRICE))
    prices = np.array([1e30, -1e38, 3.4e38], dtype=np.float32)
    for seed in range(5):
        scores = score(make_model(spec, seed=seed), spec, {"user": np.array(["u1"] * 3, dtype=object), "price": prices})
        assert np.all((scores > 0) & (scores < 1))


@pytest.mark.parametrize(
    "names", [("id", "logit"), ("fm", "deep"), ("row", "number"), ("half", "bias"), ("vectors", "offsets")]
)
def test_field_names_cannot_meet_inner_names(names):
    spec = make_spec((USER, PRICE))
    inputs = tuple(field.model_copy(update={"name": name}) for field, name in zip(spec.inputs, names, strict=True))
    renamed = make_spec((USER, PRICE))
    renamed = GraphSpec(
        inputs=inputs, vocabularies=renamed.vocabularies, normalisation=renamed.normalisation, metadata={}
    )
    model, columns = make_model(spec), make_columns(20)
    same = {names[0]: columns["user"], names[1]: columns["price"]}
    np.testing.assert_array_equal(score(model, renamed, same), score(model, spec, columns))


@settings(max_examples=25, deadline=None)
@given(
    vocabulary=st.lists(
        st.text(max_size=6).filter(lambda text: text.isprintable() or "\0" in text), max_size=8, unique=True
    ),
    asked=st.lists(st.text(max_size=6), min_size=1, max_size=8),
)
def test_any_text_is_looked_up_as_python_does(vocabulary, asked):
    spec = make_spec((USER,), vocabularies=(tuple(vocabulary),))
    model = make_model(spec)
    values = np.empty(len(asked) + len(vocabulary), dtype=object)
    values[:] = [*asked, *vocabulary]
    ids = torch.from_numpy(local_ids(values, tuple(vocabulary)))[:, None]
    expected = torch.sigmoid(reference_logit(model, ids, torch.zeros(len(values), 0), spec)).numpy()
    np.testing.assert_allclose(score(model, spec, {"user": values}), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("gamma", "alpha", "predicted", "truth"),
    [(2.0, 0.25, 0.1084, 0.0100), (2.0, 0.25, 0.3260, 0.3000), (1.0, 0.5, 0.3828, 0.3000)],
)
def test_focal_inverse_gives_known_rates(gamma, alpha, predicted, truth):
    assert calibrated(logit_of(predicted), focal=(alpha, gamma)) == pytest.approx(truth, abs=6e-5)


@pytest.mark.parametrize("focal", [(0.25, 2.0), (0.5, 1.0), (0.75, 0.5), (0.1, 5.0), (0.4, 0.0)])
@pytest.mark.parametrize("truth", [0.002, 0.05, 0.3, 0.9])
def test_focal_inverse_undoes_the_minimiser(focal, truth):
    """The p that minimises the expected focal loss at click rate q, found by search, is mapped back to q."""
    alpha, gamma = focal

    def expected_loss(z):
        log_p, log_not_p = -np.logaddexp(0, -z), -np.logaddexp(0, z)
        on_click = -alpha * np.exp(gamma * log_not_p) * log_p
        otherwise = -(1 - alpha) * np.exp(gamma * log_p) * log_not_p
        return truth * on_click + (1 - truth) * otherwise

    low, high = -15.0, 15.0
    for _ in range(6):
        grid = np.linspace(low, high, 2001)
        best = int(np.argmin(expected_loss(grid)))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 2000)]
    assert calibrated((low + high) / 2, focal=focal) == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize(("keep_rate", "pos_weight"), [(1.0, 1.0), (0.04, 1.0), (1.0, 25.0), (0.1, 3.0)])
@pytest.mark.parametrize("truth", [1e-6, 0.01, 0.4])
def test_prior_correction_recovers_the_natural_rate(keep_rate, pos_weight, truth):
    """Keeping a share of negatives and weighing clicks turn the odds q/(1-q) into q c / ((1-q) w)."""
    seen = truth * pos_weight / (truth * pos_weight + (1 - truth) * keep_rate)
    found = calibrated(logit_of(seen), keep_rate=keep_rate, pos_weight=pos_weight)
    assert found == pytest.approx(truth, rel=2e-6)
    if pos_weight == 1.0:
        assert found == pytest.approx(seen / (seen + (1 - seen) / keep_rate), rel=2e-6)


@pytest.mark.parametrize("logit", [-1e30, -40.0, -18.0, 18.0, 40.0, 1e30])
@pytest.mark.parametrize("focal", [None, (0.25, 2.0), (0.25, 8.0)])
def test_extreme_logits_stay_inside_the_open_interval(logit, focal):
    assert 0.0 < calibrated(logit, focal=focal, keep_rate=0.01) < 1.0


def test_small_probabilities_are_exact():
    """The runtime's own Sigmoid is 7 % off at -14."""
    for z in (-30.0, -14.0, -9.0, -4.0):
        assert calibrated(z) == pytest.approx(1 / (1 + math.exp(-z)), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(-45, 45), st.sampled_from([None, (0.25, 2.0), (0.5, 1.0), (0.1, 8.0)]), st.floats(0.01, 1.0))
def test_reference_and_graph_agree_on_the_inverse(logit, focal, keep_rate):
    spec = make_spec((USER,), focal=focal, keep_rate=keep_rate)
    model = bias_only(spec, logit)
    check_parity(build_onnx(model, spec), model, spec, columns={"user": np.array(["u1"], dtype=object)})


@pytest.mark.parametrize(
    "tensor", ["w.embedding", "w.first_order", "w.mean", "w.deviation", "w.bias", "w.prior_correction"]
)
def test_parity_refuses_another_weight(tensor):
    spec = make_spec()
    model = make_model(spec)
    file = onnx.load_from_string(build_onnx(model, spec))
    (weight,) = [w for w in file.graph.initializer if w.name == tensor]
    changed = onnx.numpy_helper.to_array(weight) + np.float32(0.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, name=tensor))
    with pytest.raises(ParityError, match=r"logits differ by .*, required at most 0\.0001 \(batch of"):
        check_parity(file.SerializeToString(), model, spec, columns=make_columns(50))


def test_parity_refuses_weights_that_are_no_numbers():
    spec = make_spec()
    model = make_model(spec)
    with torch.no_grad():
        model.bias.fill_(float("nan"))
    with pytest.raises(IntegrityError, match=r"weights of 'w\.bias': NaN or an infinity"):
        check_parity(build_onnx(model, spec), model, spec, columns=make_columns(5))


def test_parity_works_without_rows():
    spec = make_spec()
    model = make_model(spec)
    assert check_parity(build_onnx(model, spec), model, spec, columns=make_columns(0)).rows == 7


def test_parity_sees_rows_in_chunks(monkeypatch):
    monkeypatch.setattr(parity, "CHUNK_ROWS", 3)
    spec = make_spec()
    model = make_model(spec)
    check_parity(build_onnx(model, spec), model, spec, columns=make_columns(20))


def test_export_does_not_depend_on_training_mode():
    spec = make_spec()
    model = make_model(spec, batch_norm=True, dropout=0.5)
    evaluated = build_onnx(model, spec)
    assert build_onnx(model.train(), spec) == evaluated
    assert model.training


def test_file_carries_metadata_and_nothing_of_this_machine():
    file = onnx.load_from_string(build_onnx(make_model(make_spec()), make_spec()))
    onnx.checker.check_model(file, full_check=True)
    assert {entry.key: entry.value for entry in file.metadata_props} == {"version": "v", "model": "m"}
    assert [entry.key for entry in file.metadata_props] == ["model", "version"]
    assert not any((file.producer_name, file.producer_version, file.doc_string, file.graph.doc_string))
    assert not file.graph.value_info
    assert not any(node.doc_string or node.metadata_props or node.name for node in file.graph.node)
    assert [output.name for output in file.graph.output] == [OUTPUT]


def test_bytes_do_not_depend_on_the_order_of_metadata():
    ordered = make_spec(metadata={str(i): "x" for i in range(9)})
    reverse = make_spec(metadata={str(i): "x" for i in reversed(range(9))})
    assert build_onnx(make_model(ordered), ordered) == build_onnx(make_model(reverse), reverse)


def test_values_given_twice_are_refused():
    spec = make_spec((USER, ITEM), vocabularies=(("a", "b", "a"), ITEMS))
    with pytest.raises(IntegrityError, match="vocabulary of user holds a value twice"):
        build_onnx(make_model(spec), spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": (PRICE, USER, ITEM, AGE)}, "out of order"),
        ({"vocabularies": (USERS[:3], ITEMS)}, "vocabularies do not fit"),
        ({"vocabularies": (USERS,)}, "vocabularies do not fit"),
        ({"normalisation": ()}, "numeric fields do not fit"),
    ],
)
def test_a_spec_of_another_network_is_refused(changes, message):
    with pytest.raises(IntegrityError, match=message):
        build_onnx(make_model(make_spec()), make_spec(**changes))


def test_a_file_that_would_be_too_large_is_refused_by_name(monkeypatch):
    spec = make_spec((USER, ITEM), vocabularies=(USERS, np.arange(1000)))
    model = make_model(spec)
    size = len(build_onnx(model, spec))
    monkeypatch.setattr(graph, "MAX_FILE_BYTES", size // 2)
    with pytest.raises(ConfigError, match=r"largest vocabularies: item 1000, user 7.*Raise vocabulary\.min_count"):
        build_onnx(model, spec)


def test_the_size_is_not_underestimated():
    vocabularies = tuple(f"user {i} é" for i in range(3000)), np.arange(2**62, 2**62 + 3000)
    spec = make_spec((USER, ITEM), vocabularies=vocabularies)
    model = make_model(spec, hidden=())
    keys = sum(graph._key_bytes(vocabulary) for vocabulary in vocabularies)
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    size = len(build_onnx(model, spec))
    assert 0.8 * size < keys + weights
    assert size < keys + weights + 5_000
