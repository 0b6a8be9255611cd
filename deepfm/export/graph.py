"""One ONNX graph from raw values to the calibrated probability of a click.

    raw columns [N, 1] -> ids, standardised numbers -> DeepFM -> inverse of focal loss, then of sampling and weighting

The graph is written operator by operator: twenty kinds of them, in a fixed order, under fixed names, so that equal
weights give equal bytes in every process and no exporter stands between the network and what is shipped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from deepfm.errors import ConfigError, IntegrityError
from deepfm.manifests import MISSING_INT64, InputSpec, Normalisation
from deepfm.model import NUMERIC_LIMIT, DeepFM
from deepfm.onnx_file import IR_VERSION, MAX_FILE_BYTES, OPSETS, OUTPUT

NULL_TEXTS = frozenset({"None", "nan"})
"""Texts that numpy and onnxruntime make of a null: never keys, so that a null that slipped through is OOV."""
FOCAL_LIMIT = 40.0
"""Clip of the logit before the focal inverse: exp(40) and its products stay finite in float32."""
LOGIT_RANGE = (-40.0, 16.0)
"""Clip of the final logit: float32 holds the probability strictly between 0 and 1, so that a log loss is finite."""

Vocabulary = tuple[str, ...] | NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphSpec:
    """Everything in the graph that is not a weight of the network."""

    inputs: tuple[InputSpec, ...]
    """The graph's inputs: categorical fields first, then numeric ones."""
    vocabularies: tuple[Vocabulary, ...]
    """Values of each categorical field, text or int64; value i has id i + 1, every other value id 0 (OOV)."""
    normalisation: tuple[Normalisation, ...]
    """Mean and deviation of each numeric field."""
    keep_rate: float = 1.0
    """Share of negatives that training saw, in (0, 1]."""
    pos_weight: float = 1.0
    """Weight of a click in the loss, above 0."""
    focal: tuple[float, float] | None = None
    """(alpha, gamma) if the loss was focal."""
    metadata: Mapping[str, str]
    """Written into the file's metadata."""

    @property
    def categorical(self) -> tuple[InputSpec, ...]:
        """The categorical inputs, in order."""
        return tuple(field for field in self.inputs if field.kind == "categorical")

    @property
    def numeric(self) -> tuple[InputSpec, ...]:
        """The numeric inputs, in order."""
        return tuple(field for field in self.inputs if field.kind == "numeric")


def build_onnx(model: DeepFM, spec: GraphSpec) -> bytes:
    """The bytes of one ONNX file that computes the model's calibrated probability from raw values.

    Equal weights and an equal spec give equal bytes. Batch norm is folded into the layer before it; dropout is gone.

    Args:
        model: The trained network; its mode and weights are not touched.
        spec: Inputs, vocabularies, normalisation and what the loss distorted.

    Raises:
        ConfigError: terminal; the file would pass 1.8 GiB, with the largest vocabularies by name.
        IntegrityError: terminal; the spec does not fit the network, or a vocabulary holds a value twice.
    """
    _require_fit(model, spec)
    _require_room(model, spec)
    graph = _Graph()
    for field in spec.inputs:
        graph.add_input(field)
    rows = _table_rows(graph, model, spec)
    numbers = _standardised(graph, spec)
    logit = _network(graph, model, rows=rows, numbers=numbers)
    _probability(graph, _undistorted(graph, logit, spec))
    return graph.serialise(spec.metadata)


class _Graph:
    """Nodes and weights in the order in which they are added.

    Tensors are called `t.…` and weights `w.…`: a field's name holds no dot, so that it cannot meet one of them.
    """

    def __init__(self) -> None:
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        self._file = onnx.ModelProto(ir_version=IR_VERSION, opset_import=opsets)
        self._file.graph.name = "deepfm"

    def add_input(self, field: InputSpec) -> None:
        """The graph has an input [N, 1] under the field's own name."""
        types = {
            "string": onnx.TensorProto.STRING,
            "int64": onnx.TensorProto.INT64,
            "float32": onnx.TensorProto.FLOAT,
        }
        self._file.graph.input.append(helper.make_tensor_value_info(field.name, types[field.dtype], ["N", 1]))

    def weight(self, name: str, value: ArrayLike, *, dtype: type[np.generic] = np.float32) -> str:
        """The name of a constant tensor."""
        self._file.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name=f"w.{name}"))
        return f"w.{name}"

    def node(self, operator: str, *inputs: str, out: str, **attributes: Any) -> str:
        """The name of the output of a new node."""
        domain = "ai.onnx.ml" if operator == "LabelEncoder" else ""
        name = OUTPUT if out == OUTPUT else f"t.{out}"
        self._file.graph.node.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def serialise(self, metadata: Mapping[str, str]) -> bytes:
        """The bytes of the model file, equal for equal content."""
        self._file.graph.output.append(helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["N", 1]))
        helper.set_model_props(self._file, dict(sorted(metadata.items())))
        data: bytes = self._file.SerializeToString(deterministic=True)
        return data


def _table_rows(graph: _Graph, model: DeepFM, spec: GraphSpec) -> str:
    """int64 [N, F]: where each raw value's weights lie in the shared table."""
    ids = []
    for field, vocabulary in zip(spec.categorical, spec.vocabularies, strict=True):
        keys, values = _look_up(vocabulary, dtype=field.dtype)
        kind = "keys_strings" if field.dtype == "string" else "keys_int64s"
        # Left out, the default would be -1, which Gather reads as the last row of the table.
        attributes = {kind: keys, "values_int64s": values, "default_int64": 0}
        ids.append(graph.node("LabelEncoder", field.name, out=f"id.{field.name}", **attributes))
    local = graph.node("Concat", *ids, out="id", axis=1)
    return graph.node("Add", local, graph.weight("offsets", _array(model.offsets), dtype=np.int64), out="row")


def _look_up(vocabulary: Vocabulary, *, dtype: str) -> tuple[list[Any], list[int]]:
    """Keys and ids of a vocabulary. One that is empty becomes "missing is OOV", for a look-up needs a key."""
    values = values_of(vocabulary)
    ids = [i for i, value in enumerate(values, start=1) if value not in NULL_TEXTS]
    if not ids:
        return ["" if dtype == "string" else MISSING_INT64], [0]
    return [values[i - 1] for i in ids], ids


def values_of(vocabulary: Vocabulary) -> Sequence[str] | Sequence[int]:
    """The values of a vocabulary as plain Python objects, in the order of their ids."""
    return vocabulary.tolist() if isinstance(vocabulary, np.ndarray) else vocabulary


def _standardised(graph: _Graph, spec: GraphSpec) -> str | None:
    """float32 [N, D]: (x - mean) / deviation, the mean where x is missing; None without numeric fields."""
    if not spec.numeric:
        return None
    mean = graph.weight("mean", [norm.mean for norm in spec.normalisation])
    deviation = graph.weight("deviation", [norm.deviation for norm in spec.normalisation])
    raw = graph.node("Concat", *(field.name for field in spec.numeric), out="number", axis=1)
    nan, infinite = graph.node("IsNaN", raw, out="number.nan"), graph.node("IsInf", raw, out="number.infinite")
    missing = graph.node("Or", nan, infinite, out="number.missing")
    present = graph.node("Where", missing, mean, raw, out="number.present")
    centred = graph.node("Sub", present, mean, out="number.centred")
    scaled = graph.node("Div", centred, deviation, out="number.scaled")
    return _clip(graph, scaled, low=-NUMERIC_LIMIT, high=NUMERIC_LIMIT, out="number.standardised")


def _network(graph: _Graph, model: DeepFM, *, rows: str, numbers: str | None) -> str:
    """float32 [N, 1]: the network's own logit; mirrors `DeepFM.forward` line by line."""
    last = graph.weight("last_axis", [1], dtype=np.int64)
    vectors = graph.node("Gather", graph.weight("embedding", _array(model.embedding.weight)), rows, out="vectors.id")
    weights = graph.weight("first_order", _array(model.first_order.weight)[:, 0])
    first = graph.node("ReduceSum", graph.node("Gather", weights, rows, out="first.id"), last, out="first.ids")
    if numbers is not None:
        scale = graph.node("Unsqueeze", numbers, graph.weight("dimension_axis", [2], dtype=np.int64), out="scale")
        numeric = graph.node(
            "Mul", scale, graph.weight("numeric_embedding", _array(model.numeric_embedding)), out="vectors.number"
        )
        vectors = graph.node("Concat", vectors, numeric, out="vectors", axis=1)
        slopes = graph.weight("numeric_first_order", _array(model.numeric_first_order)[:, None])
        first = graph.node("Add", first, graph.node("MatMul", numbers, slopes, out="first.numbers"), out="first")
    pairs = _second_order(graph, vectors, axis=last)
    deep = _deep_part(graph, model, vectors)
    biased = graph.node("Add", first, graph.weight("bias", _array(model.bias)), out="first.biased")
    return graph.node("Add", graph.node("Add", biased, pairs, out="wide"), deep, out="network.logit")


def _second_order(graph: _Graph, vectors: str, *, axis: str) -> str:
    total = graph.node("ReduceSum", vectors, axis, out="fm.sum", keepdims=0)
    square_of_sum = graph.node("Mul", total, total, out="fm.square_of_sum")
    squares = graph.node("Mul", vectors, vectors, out="fm.squares")
    sum_of_squares = graph.node("ReduceSum", squares, axis, out="fm.sum_of_squares", keepdims=0)
    difference = graph.node("Sub", square_of_sum, sum_of_squares, out="fm.difference")
    doubled = graph.node("ReduceSum", difference, axis, out="fm.doubled")
    return graph.node("Mul", doubled, graph.weight("half", 0.5), out="fm")


def _deep_part(graph: _Graph, model: DeepFM, vectors: str) -> str:
    fields = len(model.vocabulary_sizes) + model.numeric_fields
    width = fields * model.embedding.embedding_dim
    # 0 copies the batch size.
    flat = graph.weight("flat", [0, width], dtype=np.int64)
    hidden = graph.node("Reshape", vectors, flat, out="deep.input")
    layers = _folded_layers(model.deep)
    for i, (weight, bias) in enumerate(layers[:-1]):
        names = graph.weight(f"deep.{i}.weight", weight), graph.weight(f"deep.{i}.bias", bias)
        hidden = graph.node("Gemm", hidden, *names, out=f"deep.{i}.linear", transB=1)
        hidden = graph.node("Relu", hidden, out=f"deep.{i}")
    return graph.node("Gemm", hidden, graph.weight("deep.last.weight", layers[-1][0]), out="deep", transB=1)


def _folded_layers(deep: nn.Sequential) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Weight and bias of each linear layer, with the batch norm that follows it multiplied in."""
    layers: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for module in deep:
        if isinstance(module, nn.Linear):
            weight = _array(module.weight).astype(np.float64)
            layers.append((weight, np.zeros(len(weight)) if module.bias is None else _array(module.bias)))
        elif isinstance(module, nn.BatchNorm1d) and module.running_mean is not None and module.running_var is not None:
            weight, bias = layers[-1]
            scale = _array(module.weight) / np.sqrt(_array(module.running_var).astype(np.float64) + module.eps)
            shifted = (bias - _array(module.running_mean)) * scale + _array(module.bias)
            layers[-1] = weight * scale[:, None], shifted
    return layers


def _undistorted(graph: _Graph, logit: str, spec: GraphSpec) -> str:
    """float32 [N, 1]: the logit that training on every row with plain cross-entropy would have aimed at.

    First the focal inverse, then the prior correction: keeping a share w of the negatives and weighing clicks by c
    multiply the odds by c / w, so that ln(w / c) is added.
    """
    if spec.focal is not None:
        logit = _focal_inverse(graph, logit, alpha=spec.focal[0], gamma=spec.focal[1])
    correction = graph.weight("prior_correction", math.log(spec.keep_rate / spec.pos_weight))
    return graph.node("Add", logit, correction, out="prior.logit")


def _focal_inverse(graph: _Graph, logit: str, *, alpha: float, gamma: float) -> str:
    """The logit of the click rate at which this logit z minimises the expected focal loss.

    Setting the derivative of q a (1-p)^g (-ln p) + (1-q) (1-a) p^g (-ln(1-p)) to zero gives, with z = ln p - ln(1-p),

        ln odds(q) = ln((1-a)/a) + g z + ln[1 + e^z + g h(z)] - ln[1 + e^-z + g h(-z)],  h(z) = softplus(z) (1 + e^-z)

    where h(z) is -ln(1-p) / p. In this form nothing cancels and nothing overflows for |z| <= 40.
    """
    z = _clip(graph, logit, low=-FOCAL_LIMIT, high=FOCAL_LIMIT, out="focal.z")
    minus_z = graph.node("Neg", z, out="focal.minus_z")
    one, g = graph.weight("one", 1.0), graph.weight("focal.gamma", gamma)
    grown = graph.node("Add", graph.node("Exp", z, out="focal.exp.z"), one, out="focal.grown")
    shrunk = graph.node("Add", graph.node("Exp", minus_z, out="focal.exp.minus_z"), one, out="focal.shrunk")
    up = _focal_term(graph, z, own=grown, other=shrunk, gamma=g, out="focal.up")
    down = _focal_term(graph, minus_z, own=shrunk, other=grown, gamma=g, out="focal.down")
    slope = graph.node("Mul", z, g, out="focal.slope")
    odds = graph.node("Add", slope, graph.node("Sub", up, down, out="focal.difference"), out="focal.odds")
    return graph.node("Add", odds, graph.weight("focal.prior", math.log((1 - alpha) / alpha)), out="focal.logit")


def _focal_term(graph: _Graph, z: str, *, own: str, other: str, gamma: str, out: str) -> str:
    """ln[1 + e^z + g h(z)], given own = 1 + e^z and other = 1 + e^-z."""
    h = graph.node("Mul", graph.node("Softplus", z, out=f"{out}.softplus"), other, out=f"{out}.h")
    inside = graph.node("Add", own, graph.node("Mul", gamma, h, out=f"{out}.scaled"), out=f"{out}.inside")
    return graph.node("Log", inside, out=out)


def _probability(graph: _Graph, logit: str) -> None:
    """The graph's output, 1 / (1 + e^-z): onnxruntime's Sigmoid is 7 % off at z = -14 and 0 from -18 on."""
    z = _clip(graph, logit, low=LOGIT_RANGE[0], high=LOGIT_RANGE[1], out="logit")
    decayed = graph.node("Exp", graph.node("Neg", z, out="logit.minus"), out="odds.inverse")
    graph.node("Reciprocal", graph.node("Add", decayed, graph.weight("unit", 1.0), out="odds.total"), out=OUTPUT)


def _clip(graph: _Graph, value: str, *, low: float, high: float, out: str) -> str:
    return graph.node("Clip", value, graph.weight(f"{out}.low", low), graph.weight(f"{out}.high", high), out=out)


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()


def _require_fit(model: DeepFM, spec: GraphSpec) -> None:
    order = (*spec.categorical, *spec.numeric)
    if spec.inputs != order:
        raise IntegrityError("graph inputs are out of order", required="categorical fields first, then numeric ones")
    sizes = tuple(len(vocabulary) + 1 for vocabulary in spec.vocabularies)
    if sizes != model.vocabulary_sizes or len(sizes) != len(spec.categorical):
        raise IntegrityError(
            "vocabularies do not fit the network", observed=sizes, required=f"sizes {model.vocabulary_sizes}"
        )
    numbers, expected = (len(spec.numeric), len(spec.normalisation)), model.numeric_fields
    if numbers != (expected, expected):
        raise IntegrityError("numeric fields do not fit the network", observed=numbers, required=f"{expected} of each")
    for field, vocabulary in zip(spec.categorical, spec.vocabularies, strict=True):
        if len(set(values_of(vocabulary))) != len(vocabulary):
            raise IntegrityError(f"vocabulary of {field.name} holds a value twice", required="every value once")


def _require_room(model: DeepFM, spec: GraphSpec) -> None:
    keys = [_key_bytes(vocabulary) for vocabulary in spec.vocabularies]
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    if weights + sum(keys) <= MAX_FILE_BYTES:
        return
    largest = sorted(zip(spec.categorical, spec.vocabularies, strict=True), key=lambda pair: -len(pair[1]))[:3]
    raise ConfigError(
        "model file would be too large",
        observed=f"{(weights + sum(keys)) / 1024**3:.2f} GiB",
        required=f"at most {MAX_FILE_BYTES / 1024**3:.1f} GiB",
        where="largest vocabularies: " + ", ".join(f"{field.name} {len(values)}" for field, values in largest),
        next_step="Raise vocabulary.min_count, or lower network.embedding_dim.",
    )


def _key_bytes(vocabulary: Vocabulary) -> int:
    """Length of a look-up in the file, at most: an integer takes up to 11 bytes, a string 6 and its text, an id 6."""
    ids = 6 * len(vocabulary)
    if isinstance(vocabulary, np.ndarray):
        return ids + 11 * len(vocabulary)
    return ids + sum(6 + len(value.encode()) for value in vocabulary)
