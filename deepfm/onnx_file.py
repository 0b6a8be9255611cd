"""What a model file may contain: one ONNX file that only computes. Importing this module does not import onnx.

A model file is input from outside to whoever loads it. The check runs before a runtime sees the bytes, and refuses
what a click model never needs: other files, operators that this project does not write, nested graphs, unbounded sizes.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from deepfm.errors import IntegrityError
from deepfm.onnx_shapes import MAX_RANK, Shape, check_ids, check_sizes, require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

MINIMUM_ONNXRUNTIME = "1.20"
"""Oldest onnxruntime that is known to load what this project writes."""
IR_VERSION = 8
"""ONNX file format that this project writes."""
OPSETS = {"": 17, "ai.onnx.ml": 2}
"""Operator sets that this project writes, by domain."""
NEWEST_IR_VERSION = 10
"""Newest ONNX file format that the oldest onnxruntime reads."""
NEWEST_OPSETS = {"": 21, "ai.onnx.ml": 5}
"""The only domains, with the newest operator set that the oldest onnxruntime runs."""
OUTPUT = "probability"
"""The graph's only output, float32 [N, 1]."""
MAX_FILE_BYTES = int(1.8 * 1024**3)
"""Largest model file: a protobuf message ends at 2 GiB."""
MAX_NODES = 10_000
"""Most nodes of a graph."""
MAX_INITIALIZERS = 10_000
"""Most weight tensors of a graph."""
MAX_INPUTS = 1_000
"""Most fields of a graph."""
_FLOAT, _INT64 = 1, 7
_BYTES = {_FLOAT: 4, _INT64: 8}
"""Element types that weights may have, with the length of a number."""


def check_structure(data: bytes, *, max_bytes: int = MAX_FILE_BYTES) -> None:
    """The bytes are one self-contained ONNX model that maps raw values to `probability`.

    Args:
        data: The whole file.
        max_bytes: Largest length that is accepted, in bytes.

    Raises:
        IntegrityError: terminal; the first rule that the file breaks, with what was observed.
    """
    # Imported here: a consumer that only asks for a constant needs neither.
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    require(0 < len(data) <= max_bytes, "size in bytes", len(data), f"1 to {max_bytes}")
    try:
        model = ModelProto.FromString(data)
        _check_versions(model)
        _check_graph(model.graph)
    except (DecodeError, UnicodeDecodeError) as cause:
        raise IntegrityError("model file is not ONNX", next_step="Publish the version again.") from cause


def _check_versions(model: "ModelProto") -> None:
    require(1 <= model.ir_version <= NEWEST_IR_VERSION, "IR version", model.ir_version, f"1 to {NEWEST_IR_VERSION}")
    imported = {entry.domain: entry.version for entry in model.opset_import}
    require("" in imported, "operator sets", sorted(map(ascii, imported)), "the default domain among them")
    for domain, version in imported.items():
        _check_domain(domain)
        newest = NEWEST_OPSETS[domain]
        require(1 <= version <= newest, f"operator set of {domain or 'ai.onnx'}", version, f"1 to {newest}")
    require(not model.functions, "functions", len(model.functions), "none")
    require(not model.training_info, "training graphs", len(model.training_info), "none")


def _check_domain(domain: str) -> None:
    require(domain in NEWEST_OPSETS, "operator domain", ascii(domain[:80]), "ai.onnx or ai.onnx.ml")


def _check_graph(graph: "GraphProto") -> None:
    require(0 < len(graph.node) <= MAX_NODES, "nodes", len(graph.node), f"1 to {MAX_NODES}")
    require(
        len(graph.initializer) <= MAX_INITIALIZERS, "weights", len(graph.initializer), f"at most {MAX_INITIALIZERS}"
    )
    require(not graph.sparse_initializer, "sparse weights", len(graph.sparse_initializer), "none")
    _check_tensors(graph.initializer)
    for node in graph.node:
        _check_node(node)
    require(len(graph.input) <= MAX_INPUTS, "inputs", len(graph.input), f"at most {MAX_INPUTS}")
    for given in graph.input:
        shape = _declared(given)
        require(shape == ["N", 1], f"shape of input {given.name[:80]!a}", shape[:8], "['N', 1]")
    _check_output(list(graph.output))
    weights = {tensor.name: _weight_shape(tensor) for tensor in graph.initializer}
    require(len(weights) == len(graph.initializer), "weights", "a name that is used twice", "every name once")
    constants = {
        tensor.name: _whole_numbers(tensor)
        for tensor in graph.initializer
        if tensor.data_type == _INT64 and math.prod(weights[tensor.name]) <= MAX_INPUTS
    }
    last = check_sizes(graph, weights, constants)
    check_ids(graph, weights, constants)
    made = graph.node[-1].output[0]
    require((made, len(last), last[-1]) == (OUTPUT, 2, 1), "last result", ascii(made[:80]), f"{OUTPUT}, [N, 1]")


def _check_node(node: "NodeProto") -> None:
    _check_domain(node.domain)
    for attribute in node.attribute:
        nested = attribute.HasField("g") or bool(attribute.graphs)
        require(not nested, "nested graph", ascii(node.op_type[:80]), "no If, Loop, Scan or other subgraph")
        sparse = attribute.HasField("sparse_tensor") or bool(attribute.sparse_tensors)
        require(not sparse, "sparse constant", ascii(node.op_type[:80]), "none")
        _check_tensors([attribute.t, *attribute.tensors])


def _check_tensors(tensors: "Iterable[TensorProto]") -> None:
    for tensor in tensors:
        external = tensor.data_location == tensor.EXTERNAL or bool(tensor.external_data)
        require(not external, "external data", ascii(tensor.name[:80]), "every weight inside the file")


def _check_output(outputs: "list[ValueInfoProto]") -> None:
    names = [ascii(output.name[:80]) for output in outputs]
    require(names == [ascii(OUTPUT)], "outputs", ", ".join(names), OUTPUT)
    element = outputs[0].type.tensor_type.elem_type
    require(element == _FLOAT, "element type of probability", element, f"{_FLOAT} (float32)")
    shape = _declared(outputs[0])
    require(shape == ["N", 1], "shape of probability", shape[:8], "['N', 1]")


def _declared(tensor: "ValueInfoProto") -> list[int | str]:
    dims = tensor.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else "N" for dim in dims]


def _weight_shape(tensor: "TensorProto") -> Shape:
    """The shape of a weight tensor that holds as many finite numbers as its shape says."""
    about, shape = ascii(tensor.name[:80]), tuple(tensor.dims)
    require(tensor.data_type in _BYTES, f"element type of {about}", tensor.data_type, "1 (float32) or 7 (int64)")
    require(
        len(shape) <= MAX_RANK and min(shape, default=1) > 0, f"shape of {about}", shape[:8], "up to 4 sizes above 0"
    )
    raw = tensor.raw_data
    typed = tensor.float_data if tensor.data_type == _FLOAT else tensor.int64_data
    held = len(raw) / _BYTES[tensor.data_type] if raw else len(typed)
    require(held == math.prod(shape), f"numbers in {about}", held, f"{math.prod(shape)}, as its shape says")
    if tensor.data_type == _FLOAT:
        numbers = np.frombuffer(raw, "<f4") if raw else np.array(typed, np.float32)
        # Without an array of answers as long as the weights.
        finite = bool(np.isfinite(numbers.min()) and np.isfinite(numbers.max()))
        require(finite, f"weights of {about}", "NaN or an infinity", "finite numbers")
    return shape


def _whole_numbers(tensor: "TensorProto") -> tuple[int, ...]:
    """What a tensor holds that may be axes, a shape, or where each field's rows begin in the shared table."""
    return tuple(np.frombuffer(tensor.raw_data, "<i8").tolist()) if tensor.raw_data else tuple(tensor.int64_data)
