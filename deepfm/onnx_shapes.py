"""Which operators a model file may use, and how large each of their results is, worked out before anything is computed.

A small file can ask for much: a tensor that is joined with itself forty times has a trillion numbers. So only the
operators that this project writes are known here, each with the shape of its result, and the sum of all is bounded.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from deepfm.errors import IntegrityError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

BATCH = -1
"""The first dimension of every result: as many rows as the caller has."""
MAX_ROW_NUMBERS = 1 << 22
"""Most numbers that all nodes together make of one row: 16 MiB."""
MAX_RANK = 4
"""Most dimensions of a tensor."""

Shape = tuple[int, ...]
Constants = Mapping[str, Sequence[int]]
"""The whole numbers in small weight tensors, by name: axes and shapes."""


def check_sizes(graph: "GraphProto", weights: Mapping[str, Shape], constants: Constants) -> Shape:
    """Shape of the graph's last result. Every node reads what was made before it, and makes rows of a bounded size.

    Args:
        graph: A graph whose inputs are tensors [N, 1].
        weights: Shape of each weight tensor.
        constants: Contents of the small weight tensors of whole numbers.

    Raises:
        IntegrityError: terminal; an operator is unknown, a name is used before it is made or made twice, shapes do not
            fit, or too much is made of one row.
    """
    shapes: dict[str, Shape] = dict(weights)
    for given in graph.input:
        _add(shapes, given.name, (BATCH, 1))
    total = 0
    shape: Shape = ()
    for node in graph.node:
        shape = _shape_of(node, shapes, constants)
        total += -math.prod(shape)
        require(total <= MAX_ROW_NUMBERS, "numbers made of one row", total, f"at most {MAX_ROW_NUMBERS}")
        _add(shapes, node.output[0], shape)
    return shape


def check_ids(graph: "GraphProto", weights: Mapping[str, Shape], constants: Constants) -> None:
    """Whatever values come in, no id that is looked up lies beyond the table that it is taken from.

    Args:
        graph: A graph that passed `check_sizes`.
        weights: Shape of each weight tensor.
        constants: Contents of the small weight tensors of whole numbers.

    Raises:
        IntegrityError: terminal; an id lies beyond its table, or its size cannot be told.
    """
    largest: dict[str, Sequence[int]] = {}
    for node in graph.node:
        ids = [largest.get(name) for name in node.input]
        if node.op_type == "LabelEncoder":
            given = {found.name: found for found in node.attribute}
            largest[node.output[0]] = [max(given["default_int64"].i, max(given["values_int64s"].ints, default=0))]
        elif node.op_type == "Concat" and None not in ids:
            largest[node.output[0]] = [top for tops in ids if tops is not None for top in tops]
        elif node.op_type == "Add" and ids[0] is not None:
            offsets = constants.get(node.input[1], ())
            fits = len(offsets) == len(ids[0]) and min(offsets) >= 0
            require(fits, "offsets of ids", list(offsets[:8]), f"{len(ids[0])} numbers, at least 0")
            largest[node.output[0]] = [top + offset for top, offset in zip(ids[0], offsets, strict=True)]
        elif node.op_type == "Gather":
            rows = weights.get(node.input[0], (0,))[0]
            top = max(ids[1]) if ids[1] is not None else rows
            require(top < rows, "largest id of a look-up", top, f"below {rows}, the rows of {node.input[0][:80]!a}")


def require(holds: bool, what: str, observed: object, required: str) -> None:  # noqa: FBT001 - a predicate
    """A rule that a model file keeps.

    Raises:
        IntegrityError: terminal; it does not.
    """
    if not holds:
        raise IntegrityError(f"model file is refused, {what}", observed=observed, required=required)


def _add(shapes: dict[str, Shape], name: str, shape: Shape) -> None:
    require(bool(name) and name not in shapes, "tensor", ascii(name[:80]), "a name that is used once")
    shapes[name] = shape


def _shape_of(node: "NodeProto", shapes: Mapping[str, Shape], constants: Constants) -> Shape:
    about = ascii(node.op_type[:80])
    rule = _RULES.get((node.domain, node.op_type))
    if rule is None:
        raise IntegrityError("model file is refused, operator", observed=about, required="one that this project writes")
    require(len(node.output) == 1, f"results of {about}", len(node.output), "1")
    least, most = _INPUTS.get(node.op_type, (1, 1 + len(shapes)))
    require(least <= len(node.input) <= most, f"inputs of {about}", len(node.input), f"{least} to {most}")
    for name in node.input:
        require(name in shapes, f"input of {about}", ascii(name[:80]), "a tensor that was made before")
    shape = rule(node, [shapes[name] for name in node.input], constants)
    fits = shape is not None and shape[:1] == (BATCH,) and len(shape) <= MAX_RANK and min(shape[1:], default=1) > 0
    require(fits, f"shapes at {about}", [shapes[name] for name in node.input][:8], "such that the result is [N, …]")
    return shape or ()


def _attribute(node: "NodeProto", name: str, default: int) -> int:
    return next((found.i for found in node.attribute if found.name == name), default)


def _broadcast(_: "NodeProto", inputs: Sequence[Shape], __: Constants) -> Shape | None:
    rank = max(map(len, inputs))
    padded = [(1,) * (rank - len(shape)) + shape for shape in inputs]
    result = tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))
    fits = all(size in (1, whole) for shape in padded for size, whole in zip(shape, result, strict=True))
    return result if fits else None


def _concat(node: "NodeProto", inputs: Sequence[Shape], _: Constants) -> Shape | None:
    axis, first = _attribute(node, "axis", 0), inputs[0]
    others = {shape[:axis] + shape[axis + 1 :] for shape in inputs if len(shape) == len(first)}
    if not 0 < axis < len(first) or len(others) != 1 or any(len(shape) != len(first) for shape in inputs):
        return None
    return (*first[:axis], sum(shape[axis] for shape in inputs), *first[axis + 1 :])


def _gather(node: "NodeProto", inputs: Sequence[Shape], _: Constants) -> Shape | None:
    if len(inputs) != 2 or _attribute(node, "axis", 0) != 0:
        return None
    table, rows = inputs
    # A table of the caller's rows would mix them.
    return rows + table[1:] if table and table[0] > 0 else None


def _gemm(node: "NodeProto", inputs: Sequence[Shape], _: Constants) -> Shape | None:
    if len(inputs) not in (2, 3) or any(len(shape) != 2 for shape in inputs[:2]) or _attribute(node, "transA", 0):
        return None
    rows, weight = inputs[:2]
    width, out = weight[::-1] if _attribute(node, "transB", 0) else weight
    fits = rows[1] == width and all(shape in ((), (1,), (out,)) for shape in inputs[2:])
    return (rows[0], out) if fits else None


def _look_up(node: "NodeProto", inputs: Sequence[Shape], _: Constants) -> Shape | None:
    given = {found.name: found for found in node.attribute}
    keys = given.get("keys_strings", given.get("keys_int64s"))
    # Left out, the default would be -1, which Gather reads as the last row of a table.
    wanted = {"values_int64s", "default_int64"}
    sound = keys is not None and set(given) == {keys.name, *wanted}
    require(sound, "attributes of a look-up", sorted(map(ascii, given))[:8], "keys, values_int64s and default_int64")
    if keys is None or len(inputs) != 1:
        return None
    values, count = given["values_int64s"].ints, len(keys.strings) or len(keys.ints)
    require(len(values) == count, "values of a look-up", len(values), f"one for each of {count} keys")
    lowest = min(min(values, default=0), given["default_int64"].i)
    require(lowest >= 0, "smallest id of a look-up", lowest, "at least 0")
    return inputs[0]


def _reduced(node: "NodeProto", inputs: Sequence[Shape], constants: Constants) -> Shape | None:
    axes = constants.get(node.input[-1], ())
    shape = inputs[0]
    if len(inputs) != 2 or not axes or not all(0 < axis < len(shape) for axis in axes):
        return None
    kept = (1,) if _attribute(node, "keepdims", 1) else ()
    return tuple(size for axis, given in enumerate(shape) for size in (kept if axis in axes else (given,)))


def _reshaped(node: "NodeProto", inputs: Sequence[Shape], constants: Constants) -> Shape | None:
    target = tuple(constants.get(node.input[-1], ()))
    # 0 copies the batch size.
    if len(inputs) != 2 or target[:1] != (0,) or math.prod(target[1:]) != math.prod(inputs[0][1:]):
        return None
    return (inputs[0][0], *target[1:])


def _unsqueezed(node: "NodeProto", inputs: Sequence[Shape], constants: Constants) -> Shape | None:
    axes = constants.get(node.input[-1], ())
    if len(inputs) != 2 or len(axes) != 1 or not 0 < axes[0] <= len(inputs[0]):
        return None
    return (*inputs[0][: axes[0]], 1, *inputs[0][axes[0] :])


def _product(_: "NodeProto", inputs: Sequence[Shape], __: Constants) -> Shape | None:
    if [len(shape) for shape in inputs] != [2, 2] or inputs[0][1] != inputs[1][0]:
        return None
    return inputs[0][0], inputs[1][1]


_NUMBERS = ["Add", "Clip", "Div", "Exp", "Log", "Mul", "Neg", "Reciprocal", "Relu", "Softplus", "Sub"]
_EACH = [*_NUMBERS, "IsInf", "IsNaN", "Or", "Where"]
_INPUTS = {
    **dict.fromkeys(("Add", "Div", "Mul", "Sub", "Or", "Gather", "MatMul", "Reshape", "Unsqueeze"), (2, 2)),
    **dict.fromkeys(("Exp", "Log", "Neg", "Reciprocal", "Relu", "Softplus", "IsInf", "IsNaN", "LabelEncoder"), (1, 1)),
    "Clip": (1, 3),
    "Where": (3, 3),
    "Gemm": (2, 3),
    "ReduceSum": (1, 2),
}
"""Fewest and most inputs of an operator; of Concat any number."""
_RULES: dict[tuple[str, str], Callable[["NodeProto", Sequence[Shape], Constants], Shape | None]] = {
    **dict.fromkeys((("", name) for name in _EACH), _broadcast),
    ("", "Concat"): _concat,
    ("", "Gather"): _gather,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _product,
    ("", "ReduceSum"): _reduced,
    ("", "Reshape"): _reshaped,
    ("", "Unsqueeze"): _unsqueezed,
    ("ai.onnx.ml", "LabelEncoder"): _look_up,
}
"""By domain and operator."""
