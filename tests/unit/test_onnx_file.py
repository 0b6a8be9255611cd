"""Each rule of the structural check, broken once."""

import random
import subprocess
import sys

import pytest
from onnx import AttributeProto, FunctionProto, GraphProto, SparseTensorProto, TensorProto, TrainingInfoProto, helper

from deepfm.errors import IntegrityError
from deepfm.onnx_file import IR_VERSION, MAX_INITIALIZERS, MAX_NODES, NEWEST_IR_VERSION, OPSETS, OUTPUT, check_structure


def sound_file():
    """Text in, a probability of one or a half out."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["user"],
            ["id"],
            domain="ai.onnx.ml",
            keys_strings=["a"],
            values_int64s=[1],
            default_int64=0,
        ),
        helper.make_node("Gather", ["table", "id"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("user", TensorProto.STRING, ["N", 1])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor("table", TensorProto.FLOAT, [2], [0.5, 1.0])],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def set_external(file):
    tensor = file.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def set_external_constant(file):
    node = file.graph.node.add(op_type="Constant", output=["c"])
    attribute = node.attribute.add(name="value", type=AttributeProto.TENSOR)
    attribute.t.external_data.add().key = "location"


def set_branch(file):
    node = file.graph.node.add(op_type="If", input=["id"], output=["x"])
    node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g.CopyFrom(GraphProto(name="inner"))


def set_branches(file):
    node = file.graph.node.add(op_type="Odd", input=["id"], output=["x"])
    node.attribute.add(name="branches", type=AttributeProto.GRAPHS).graphs.append(GraphProto(name="inner"))


def set_sparse_constant(file):
    node = file.graph.node.add(op_type="Constant", output=["c"])
    node.attribute.add(name="sparse_value").sparse_tensor.CopyFrom(SparseTensorProto(dims=[1]))


def set_output_type(file):
    file.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def set_output_shape(file):
    file.graph.output[0].CopyFrom(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N"]))


def set_fixed_batch(file):
    file.graph.output[0].CopyFrom(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [8, 1]))


def rename_output(file):
    file.graph.output[0].name = "score"


BREAKS = {
    "external data: 'table'": set_external,
    "external data: ''": set_external_constant,
    "nested graph: 'If'": set_branch,
    "nested graph: 'Odd'": set_branches,
    "sparse constant: 'Constant'": set_sparse_constant,
    "sparse weights: 1": lambda file: file.graph.sparse_initializer.add(),
    "functions: 1": lambda file: file.functions.append(FunctionProto(name="f", domain="d")),
    "training graphs: 1": lambda file: file.training_info.append(TrainingInfoProto()),
    "operator domain: 'com.microsoft'": lambda file: setattr(file.graph.node[1], "domain", "com.microsoft"),
    "operator domain: 'custom'": lambda file: file.opset_import.add(domain="custom", version=1),
    "operator set of ai.onnx: 22": lambda file: setattr(file.opset_import[0], "version", 22),
    "operator set of ai.onnx.ml: 6": lambda file: setattr(file.opset_import[1], "version", 6),
    "operator sets: ": lambda file: file.ClearField("opset_import"),
    "IR version: 11": lambda file: setattr(file, "ir_version", NEWEST_IR_VERSION + 1),
    "nodes: 0": lambda file: file.graph.ClearField("node"),
    f"nodes: {MAX_NODES + 2}": lambda file: file.graph.node.extend([file.graph.node[1]] * MAX_NODES),
    f"weights: {MAX_INITIALIZERS + 1}": lambda file: file.graph.initializer.extend(
        [TensorProto(name="w")] * MAX_INITIALIZERS
    ),
    "outputs: 'score'": rename_output,
    "outputs: 'probability', 'two'": lambda file: file.graph.output.add(name="two"),
    "outputs: , required probability": lambda file: file.graph.ClearField("output"),
    "element type of probability: 11": set_output_type,
    "shape of probability: ['N']": set_output_shape,
    "shape of probability: [8, 1]": set_fixed_batch,
}


def test_a_sound_file_passes():
    check_structure(sound_file().SerializeToString())


@pytest.mark.parametrize("rule", BREAKS)
def test_a_broken_rule_is_named(rule):
    file = sound_file()
    BREAKS[rule](file)
    with pytest.raises(IntegrityError) as refusal:
        check_structure(file.SerializeToString())
    assert rule in str(refusal.value)
    assert "required" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", [b"not a model", b"\x08\x08\xff", b"PK\x03\x04", b"\x80\x04\x95"])
def test_other_bytes_are_refused(data):
    with pytest.raises(IntegrityError):
        check_structure(data)


def test_length_is_bounded_before_parsing():
    data = sound_file().SerializeToString()
    check_structure(data, max_bytes=len(data))
    with pytest.raises(IntegrityError, match=f"size in bytes: {len(data)}, required 1 to {len(data) - 1}"):
        check_structure(data, max_bytes=len(data) - 1)
    with pytest.raises(IntegrityError, match="size in bytes: 0"):
        check_structure(b"")


def test_damaged_files_pass_or_are_refused_but_never_crash():
    sound = sound_file().SerializeToString()
    rng = random.Random(7)
    refused = 0
    for _ in range(2000):
        data = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            check_structure(bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.3 else data))
        except IntegrityError:
            refused += 1
    assert refused > 500


def test_module_is_imported_without_onnx():
    program = "import sys, deepfm.onnx_file; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
