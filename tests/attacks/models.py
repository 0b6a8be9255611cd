"""Malicious model files: their digests are right, as those of somebody with the right to write would be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, TensorProto, TrainingInfoProto, helper

from deepfm.storage.local import LocalStore
from tests.tiny_models import entry_of, model_key, put_entry, put_version, tiny_model, version_of

OLD, EVIL = version_of(1), version_of(2)
"""The sound version of log entry 1, and the one that entry 2 names."""

Attack = Callable[[LocalStore], None]
ATTACKS: dict[str, Attack] = {}
"""What each puts into a store whose champion is sound."""


def noted(name: str) -> Callable[[Attack], Attack]:
    """The function is an attack of that name."""

    def note(attack: Attack) -> Attack:
        ATTACKS[name] = attack
        return attack

    return note


def promote(store: LocalStore, data: bytes, /, **changes: Any) -> None:
    """Log entry 2 names a version with this model file."""
    put_entry(store, entry_of(2, EVIL, put_version(store, EVIL, data, **changes)))


def _model(name: str, change: Callable[[ModelProto], object]) -> None:
    """An attack by a model file, whose digests are all right."""

    def attack(store: LocalStore) -> None:
        file = tiny_model()
        change(file)
        promote(store, file.SerializeToString())

    ATTACKS[name] = attack


def _bytes(name: str, make: Callable[[bytes], bytes]) -> None:
    """An attack by the bytes of a model file, whose digests are all right."""
    ATTACKS[name] = lambda store: promote(store, make(tiny_model().SerializeToString()))


def _external(file: ModelProto, location: str, *, index: int = 0) -> None:
    tensor = file.graph.initializer[index]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def _after(file: ModelProto, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> None:
    """The logit goes through one more operator before it becomes a probability."""
    made = helper.make_node(operator, list(inputs), ["z2"], domain=domain, **attributes)
    nodes = list(file.graph.node)
    nodes[6].input[0] = "z2"
    del file.graph.node[:]
    file.graph.node.extend([*nodes[:6], made, *nodes[6:]])


def _weight(file: ModelProto, name: str, values: list[int]) -> None:
    file.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))


def _bomb(operator: str, *inputs: str, **attributes: Any) -> Callable[[ModelProto], None]:
    def change(file: ModelProto) -> None:
        _weight(file, "huge", [1 << 40, 1])
        _weight(file, "one_i", [1])
        _after(file, operator, *(inputs or ("huge",)), **attributes)

    return change


def _doubled(file: ModelProto) -> None:
    """Forty joins of a tensor with itself ask for a trillion numbers from a thousand bytes."""
    nodes = [helper.make_node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], axis=1) for i in range(40)]
    first = helper.make_node("Neg", ["z"], ["d0"])
    after = list(file.graph.node[6:])
    _weight(file, "axis", [1])
    last = helper.make_node("ReduceSum", ["d40", "axis"], ["z2"])
    del file.graph.node[6:]
    after[0].input[0] = "z2"
    file.graph.node.extend([first, *nodes, last, *after])


def _crossed(file: ModelProto) -> None:
    """Rows against rows: a batch of 16,384 asks for 268 million numbers."""
    for axis in (1, 2):
        _weight(file, f"axis{axis}", [axis])
    _weight(file, "axis0", [0])
    file.graph.node.insert(6, helper.make_node("Unsqueeze", ["z", "axis0"], ["wide"]))
    file.graph.node.insert(7, helper.make_node("Unsqueeze", ["z", "axis1"], ["tall"]))
    file.graph.node.insert(8, helper.make_node("Add", ["wide", "tall"], ["crossed"]))


def _subgraph(operator: str, attribute: str) -> Callable[[ModelProto], None]:
    body = helper.make_graph([helper.make_node("Neg", ["z"], ["out"])], "body", [], [])
    return lambda file: _after(file, operator, "z", **{attribute: body})


def _look_up(file: ModelProto, **changes: Any) -> None:
    """Attributes of the look-up are replaced; None removes one."""
    attributes = {"keys_strings": ["u1", "u2"], "values_int64s": [1, 2], "default_int64": 0, **changes}
    given = {name: value for name, value in attributes.items() if value is not None}
    node = helper.make_node("LabelEncoder", ["user"], ["id"], domain="ai.onnx.ml", **given)
    file.graph.node[0].CopyFrom(node)


def _weights(file: ModelProto, numbers: list[float]) -> None:
    file.graph.initializer[0].CopyFrom(helper.make_tensor("table", TensorProto.FLOAT, [3], numbers))


def _dims(file: ModelProto, *dims: int) -> None:
    file.graph.initializer[0].ClearField("dims")
    file.graph.initializer[0].dims.extend(dims)


def _repeated(element: bytes, times: int) -> bytes:
    """A model with a graph of so many equal nodes, without an object for each."""
    node = b"\x0a" + _length(len(element)) + element
    return b"\x3a" + _length(len(node) * times) + node * times


def _length(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _nested(depth: int) -> bytes:
    """Types in types, so deep that a reader that calls itself runs out of stack."""
    inner = b""
    for _ in range(depth):
        inner = b"\x22" + _length(len(inner) + 1 + len(_length(len(inner)))) + b"\x0a" + _length(len(inner)) + inner
    value = b"\x0a\x01x\x12" + _length(len(inner)) + inner
    graph = b"\x5a" + _length(len(value)) + value
    return b"\x3a" + _length(len(graph)) + graph


_model("external data that climbs out of the store", lambda file: _external(file, "../../../../outside/secret"))
_model("external data by an absolute path", lambda file: _external(file, "/etc/hostname"))
_model("external data in the current folder", lambda file: _external(file, "secret"))
_model("external data by a URL", lambda file: _external(file, "file:///etc/hostname"))
_model(
    "external data in a constant",
    lambda file: _after(
        file,
        "Constant",
        value=TensorProto(data_type=1, dims=[1], data_location=TensorProto.EXTERNAL),
    ),
)


@noted("external data through a symbolic link beside the model file")
def _linked(store: LocalStore) -> None:
    _beside(store).symlink_to(store.folder.parent / "outside" / "secret")


@noted("external data through a hard link beside the model file")
def _hard_linked(store: LocalStore) -> None:
    _beside(store).hardlink_to(store.folder.parent / "outside" / "secret")


def _beside(store: LocalStore) -> Path:
    file = tiny_model()
    _external(file, "weights.bin")
    promote(store, file.SerializeToString())
    return store.folder / Path(model_key(EVIL)).with_name("weights.bin")


_model("a domain of its own", lambda file: file.opset_import.add(domain="evil", version=1))
_model("an operator of its own", lambda file: _after(file, "Shell", "z", domain="evil"))
_model("an operator of the runtime's maker", lambda file: _after(file, "Gelu", "z", domain="com.microsoft"))
_model("an unknown operator", lambda file: _after(file, "Neural", "z"))
_model("a loop", _subgraph("Loop", "body"))
_model("a branch", _subgraph("If", "then_branch"))
_model("a scan", _subgraph("Scan", "body"))
_model("a function", lambda file: file.functions.append(FunctionProto(name="Neg", domain="")))
_model("training information", lambda file: file.training_info.append(TrainingInfoProto()))
_model("a sum of one", lambda file: _after(file, "Add", "z"))
_model("an empty choice", lambda file: _after(file, "Where", "z"))
_model("sparse weights", lambda file: file.graph.sparse_initializer.add(dims=[1 << 40]))
_model(
    "a sparse constant",
    lambda file: (
        file.graph.node[0].attribute.add(name="s", type=AttributeProto.SPARSE_TENSOR).sparse_tensor.dims.append(9)
    ),
)
_model("a constant of a trillion numbers", _bomb("ConstantOfShape"))
_model("a row repeated a trillion times", _bomb("Expand", "z", "huge"))
_model("tiles without end", _bomb("Tile", "z", "huge"))
_model("a range without end", _bomb("Range", "zero", "huge", "one_i"))
_model("a picture made large", _bomb("Resize", "z", "", "", "huge"))
_model("random numbers without end", _bomb("RandomUniform", shape=[1 << 40]))
_model("a tensor joined with itself forty times", _doubled)
_model("rows crossed with rows", _crossed)
_model("a shape of a trillion numbers and no data", lambda file: _dims(file, 1 << 40))
_model("a negative shape", lambda file: _dims(file, -1, -3))
_model("a shape that overflows", lambda file: _dims(file, 1 << 62, 1 << 62, 4))
_model("a name that is made twice", lambda file: file.graph.node.append(file.graph.node[4]))
_model("a circle", lambda file: file.graph.node[4].input.__setitem__(0, "total"))
_model("a node without a result", lambda file: file.graph.node.add(op_type="Neg", input=["z"]))
_model("an input that is a weight too", lambda file: file.graph.input.add(name="bias"))
_model("a look-up without a default", lambda file: _look_up(file, default_int64=None))
_model("a look-up whose default is below the table", lambda file: _look_up(file, default_int64=-1))
_model("a look-up below the table", lambda file: _look_up(file, values_int64s=[1, -2]))
_model("a look-up beyond the table", lambda file: _look_up(file, values_int64s=[1, 3]))
_model("a look-up with too few values", lambda file: _look_up(file, values_int64s=[1]))
_model("a weight that is not a number", lambda file: _weights(file, [0.0, float("nan"), 0.0]))
_model("an infinite weight", lambda file: _weights(file, [0.0, float("inf"), 0.0]))
_model("another shape of the answer", lambda file: file.graph.output[0].type.tensor_type.shape.dim.add(dim_value=9))
_model("another type of the answer", lambda file: setattr(file.graph.output[0].type.tensor_type, "elem_type", 8))
_model("a second answer", lambda file: file.graph.output.add(name="secret"))
_model("a batch of fixed size", lambda file: setattr(file.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 8))
_model("an operator's name of ten megabytes", lambda file: setattr(file.graph.node[4], "op_type", "A" * 10_000_000))
_model("an input's name with a newline", lambda file: setattr(file.graph.input[0], "name", "user\n2026 promoted"))
_model("a newer file format", lambda file: setattr(file, "ir_version", 99))
_model("newer operators", lambda file: setattr(file.opset_import[0], "version", 99))
_bytes("a million nodes", lambda data: data + _repeated(tiny_model().graph.node[6].SerializeToString(), 1_000_000))
_bytes(
    "a second graph behind the first",
    lambda data: data + ModelProto(graph=GraphProto(output=[])).SerializeToString() + data,
)
_bytes("types ten thousand deep", lambda data: data + _nested(10_000))
_bytes("a file that was cut off", lambda data: data[:-40])
_bytes("an empty file", lambda _: b"")
_bytes("a pickle", lambda _: b"\x80\x04\x95cos\nsystem\n(S'touch outside/secret'\ntR.")
_bytes("a zip archive", lambda _: b"PK\x03\x04" + bytes(100))
_bytes("noise", lambda _: bytes(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8)))
