"""A model file in onnxruntime: typed columns in, click probabilities out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from deepfm.columns import NUMPY_TYPES, refusal
from deepfm.errors import IntegrityError, UsageError
from deepfm.manifests import InputSpec
from deepfm.onnx_file import MINIMUM_ONNXRUNTIME, OUTPUT, check_structure

BATCH_ROWS = 16_384
"""Rows that the runtime holds at a time."""
_ELEMENT_TYPES = {"string": "tensor(string)", "int64": "tensor(int64)", "float32": "tensor(float)"}
_RUNTIME_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class Scorer:
    """A loaded model file; safe to use from several threads."""

    def __init__(self, onnx_bytes: bytes, inputs: Sequence[InputSpec], *, threads: int | None = None) -> None:
        """A session over bytes that passed the structural check and whose inputs are the ones expected.

        Args:
            onnx_bytes: The whole model file.
            inputs: What the manifest says that the graph's inputs are.
            threads: Threads of one call; None lets the runtime take every core.

        Raises:
            IntegrityError: terminal; the file is not a model of this project, or has other inputs.
        """
        check_structure(onnx_bytes)
        self.inputs = tuple(inputs)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
        except _RUNTIME_ERRORS as cause:
            raise IntegrityError(
                "onnxruntime cannot load the model file",
                observed=f"onnxruntime {ort.__version__}",
                required=f"onnxruntime {MINIMUM_ONNXRUNTIME} or newer and a sound file",
            ) from cause
        found = [(entry.name, entry.type, entry.shape[1:]) for entry in self._session.get_inputs()]
        expected = [(field.name, _ELEMENT_TYPES[field.dtype], [1]) for field in self.inputs]
        if found != expected:
            raise IntegrityError("model file has other inputs", observed=found, required=str(expected))

    def probabilities(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The click probability of each row, float32 [N], computed in batches of bounded size.

        Args:
            columns: One-dimensional arrays by input name, of equal length: object arrays that hold text, int64, or
                float32. Others are ignored.

        Raises:
            UsageError: terminal; a column is absent or of another type or length.
            IntegrityError: terminal; the graph cannot be computed, such as one that looks beyond a table's end.
        """
        arrays = {field.name: self._typed(columns, field) for field in self.inputs}
        rows = _common_length(arrays)
        scores = np.empty(rows, dtype=np.float32)
        for start in range(0, rows, BATCH_ROWS):
            chunk = slice(start, start + BATCH_ROWS)
            feed = {name: array[chunk].reshape(-1, 1) for name, array in arrays.items()}
            scores[chunk] = self._run(feed)
        return scores

    def _run(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        try:
            (answer,) = self._session.run([OUTPUT], feed)
        except _RUNTIME_ERRORS as cause:
            raise IntegrityError("model file cannot be computed", observed=str(cause)[:200]) from cause
        return np.asarray(answer, dtype=np.float32)[:, 0]

    @staticmethod
    def _typed(columns: Mapping[str, NDArray[Any]], field: InputSpec) -> NDArray[Any]:
        array = columns.get(field.name)
        if array is None:
            raise UsageError(f"field {field.name} is missing", required=f"a column of {field.dtype}")
        if array.dtype != NUMPY_TYPES[field.dtype] or array.ndim != 1:
            raise refusal(field, f"array of {array.dtype} with {array.ndim} dimensions")
        return array


def _common_length(arrays: Mapping[str, NDArray[Any]]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    (first, rows), *others = lengths.items()
    for name, length in others:
        if length != rows:
            raise UsageError(f"field {name} has another length", observed=length, required=f"{rows}, as {first} has")
    return rows
