"""Versions of the smallest model that loads, without torch, with answers that are known.

Its probability is that of a bias plus a weight of the user plus the price: versions of other biases answer otherwise.
"""

import datetime as dt
import math
from typing import Any

from onnx import ModelProto, TensorProto, helper

from deepfm import layout
from deepfm.documents import sha256_hex
from deepfm.golden import Golden
from deepfm.manifests import FileEntry, InputSpec, LogEntry, Operation
from deepfm.onnx_file import IR_VERSION, OPSETS, OUTPUT
from deepfm.storage import ObjectStore
from tests import factories
from tests.factories import MODEL

INPUTS = (
    InputSpec(name="user", kind="categorical", dtype="string"),
    InputSpec(name="price", kind="numeric", dtype="float32"),
)
FIRST_DAY = dt.date(2026, 3, 1)
_ATTEMPT = "attempt"


def tiny_model(bias: float = 0.0) -> ModelProto:
    """The model file's content."""
    look_up: dict[str, Any] = {"keys_strings": ["u1", "u2"], "values_int64s": [1, 2], "default_int64": 0}
    nodes = [
        helper.make_node("LabelEncoder", ["user"], ["id"], domain="ai.onnx.ml", **look_up),
        helper.make_node("Gather", ["table", "id"], ["weight"]),
        helper.make_node("IsNaN", ["price"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "price"], ["present"]),
        helper.make_node("Add", ["weight", "present"], ["sum"]),
        helper.make_node("Add", ["sum", "bias"], ["z"]),
        helper.make_node("Neg", ["z"], ["minus"]),
        helper.make_node("Exp", ["minus"], ["odds"]),
        helper.make_node("Add", ["odds", "one"], ["total"]),
        helper.make_node("Reciprocal", ["total"], [OUTPUT]),
    ]
    weights = [
        helper.make_tensor("table", TensorProto.FLOAT, [3], [0.0, 0.25, -0.25]),
        *(helper.make_tensor(name, TensorProto.FLOAT, [], [x]) for name, x in (("zero", 0.0), ("one", 1.0))),
        helper.make_tensor("bias", TensorProto.FLOAT, [1], [bias]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("user", TensorProto.STRING, ["N", 1]),
            helper.make_tensor_value_info("price", TensorProto.FLOAT, ["N", 1]),
        ],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", 1])],
        weights,
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def answer(bias: float) -> float:
    """The probability that the model gives to a row of missing values."""
    return 1 / (1 + math.exp(-bias))


def version_of(number: int) -> str:
    """The id of a version, counted from 1; the logical date of each is a day after the one before."""
    return layout.version_id(FIRST_DAY + dt.timedelta(days=number), f"{number:016x}")


def model_key(version: str) -> str:
    """Where a version's model file is."""
    return layout.file_key(layout.attempt_prefix(MODEL, version, _ATTEMPT), layout.MODEL_FILE)


def put_version(store: ObjectStore, version: str, data: bytes, /, **changes: Any) -> str:
    """The version's model file and its manifest are in the store; digest of the manifest.

    Args:
        store: Where to.
        version: Its id.
        data: The model file.
        **changes: Fields of the manifest that are to be otherwise.
    """
    manifest = factories.manifest(attempt=_ATTEMPT).model_copy(
        update={
            "version": version,
            "logical_date": layout.version_date(version),
            "inputs": INPUTS,
            "files": {layout.MODEL_FILE: FileEntry(sha256=sha256_hex(data), size_bytes=len(data))},
            **changes,
        }
    )
    store.write(model_key(version), data)
    store.write(layout.version_manifest(MODEL, version), manifest.to_bytes())
    return sha256_hex(manifest.to_bytes())


def put_tiny(store: ObjectStore, version: str, bias: float = 0.0) -> str:
    """A sound version with golden rows is in the store; digest of its manifest."""
    golden = Golden(rows=({"user": None, "price": None},), probabilities=(answer(bias),))
    return put_version(store, version, tiny_model(bias).SerializeToString(), golden=golden)


def entry_of(sequence: int, version: str, manifest_sha256: str, operation: Operation = "promote") -> LogEntry:
    """A log entry that makes a version the champion."""
    return factories.entry(sequence).model_copy(
        update={
            "version": version,
            "logical_date": layout.version_date(version),
            "manifest_sha256": manifest_sha256,
            "operation": operation,
        }
    )


def put_entry(store: ObjectStore, entry: LogEntry) -> None:
    """The entry is in the log."""
    store.write(layout.log_entry(MODEL, entry.sequence), entry.to_bytes())


def put_champion(store: ObjectStore, sequence: int, bias: float = 0.0, *, version: str = "") -> None:
    """A sound version is the champion from a log entry on."""
    version = version or version_of(sequence)
    put_entry(store, entry_of(sequence, version, put_tiny(store, version, bias)))
