"""What a model file may contain: one ONNX file that only computes. Importing this module does not import onnx.

A model file is input from outside to whoever loads it. The check runs before a runtime sees the bytes, and refuses
what a click model never needs: other files, custom operators, nested graphs, unbounded sizes.
"""

from typing import TYPE_CHECKING

from deepfm.errors import IntegrityError

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

    _require(0 < len(data) <= max_bytes, "size in bytes", len(data), f"1 to {max_bytes}")
    try:
        model = ModelProto.FromString(data)
        _check_versions(model)
        _check_graph(model.graph)
        _check_output(list(model.graph.output))
    except (DecodeError, UnicodeDecodeError) as cause:
        raise IntegrityError("model file is not ONNX", next_step="Publish the version again.") from cause


def _require(holds: bool, what: str, observed: object, required: str) -> None:  # noqa: FBT001 - a predicate
    if not holds:
        raise IntegrityError(f"model file is refused, {what}", observed=observed, required=required)


def _check_versions(model: "ModelProto") -> None:
    _require(1 <= model.ir_version <= NEWEST_IR_VERSION, "IR version", model.ir_version, f"1 to {NEWEST_IR_VERSION}")
    imported = {entry.domain: entry.version for entry in model.opset_import}
    _require("" in imported, "operator sets", sorted(map(ascii, imported)), "the default domain among them")
    for domain, version in imported.items():
        _check_domain(domain)
        newest = NEWEST_OPSETS[domain]
        _require(1 <= version <= newest, f"operator set of {domain or 'ai.onnx'}", version, f"1 to {newest}")
    _require(not model.functions, "functions", len(model.functions), "none")
    _require(not model.training_info, "training graphs", len(model.training_info), "none")


def _check_domain(domain: str) -> None:
    _require(domain in NEWEST_OPSETS, "operator domain", ascii(domain[:80]), "ai.onnx or ai.onnx.ml")


def _check_graph(graph: "GraphProto") -> None:
    _require(0 < len(graph.node) <= MAX_NODES, "nodes", len(graph.node), f"1 to {MAX_NODES}")
    _require(
        len(graph.initializer) <= MAX_INITIALIZERS, "weights", len(graph.initializer), f"at most {MAX_INITIALIZERS}"
    )
    _require(not graph.sparse_initializer, "sparse weights", len(graph.sparse_initializer), "none")
    _check_tensors(graph.initializer)
    for node in graph.node:
        _check_node(node)


def _check_node(node: "NodeProto") -> None:
    _check_domain(node.domain)
    for attribute in node.attribute:
        nested = attribute.HasField("g") or bool(attribute.graphs)
        _require(not nested, "nested graph", ascii(node.op_type[:80]), "no If, Loop, Scan or other subgraph")
        sparse = attribute.HasField("sparse_tensor") or bool(attribute.sparse_tensors)
        _require(not sparse, "sparse constant", ascii(node.op_type[:80]), "none")
        _check_tensors([attribute.t, *attribute.tensors])


def _check_tensors(tensors: "Iterable[TensorProto]") -> None:
    for tensor in tensors:
        external = tensor.data_location == tensor.EXTERNAL or bool(tensor.external_data)
        _require(not external, "external data", ascii(tensor.name[:80]), "every weight inside the file")


def _check_output(outputs: "list[ValueInfoProto]") -> None:
    names = [ascii(output.name[:80]) for output in outputs]
    _require(names == [ascii(OUTPUT)], "outputs", ", ".join(names), OUTPUT)
    tensor = outputs[0].type.tensor_type
    dims = tensor.shape.dim
    _require(tensor.elem_type == 1, "element type of probability", tensor.elem_type, "1 (float32)")
    fixed = [dim.dim_value if dim.HasField("dim_value") else "N" for dim in dims]
    _require(fixed == ["N", 1], "shape of probability", fixed, "['N', 1]")
