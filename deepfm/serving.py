"""The consumer: raw values in, calibrated click probability out, with onnxruntime and numpy alone.

    model = ChampionModel.open("s3://bucket/prefix", "homepage")
    model.predict({"user": ["u1", None], "item": [17, 4]})      # float32 [2]

What counts as what, by the type of the field:

    string    text; None, NaN and NA are missing; an integer becomes its decimal text; floats and bools are refused
    int64     integers and bools; float64 only if whole and below 2^53; None, NaN and NA are missing; text is refused
    float32   any number; None, NaN, NA and infinities are missing and become the window's mean; text is refused

Columns that the model does not know are ignored. Values that it has not seen in training are scored as such.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from deepfm import layout
from deepfm.columns import NUMPY_TYPES, raw_columns, refusal, typed_column
from deepfm.documents import sha256_hex
from deepfm.errors import IntegrityError, UsageError
from deepfm.manifests import InputSpec, LogEntry, VersionManifest
from deepfm.onnx_file import MINIMUM_ONNXRUNTIME, OUTPUT, check_structure
from deepfm.registry import Registry
from deepfm.storage import ObjectStore, open_store

BATCH_ROWS = 16_384
"""Rows that the runtime holds at a time."""
_ELEMENT_TYPES = {"string": "tensor(string)", "int64": "tensor(int64)", "float32": "tensor(float)"}
_LOAD_ERRORS = (
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
        except _LOAD_ERRORS as cause:
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
        """
        arrays = {field.name: self._typed(columns, field) for field in self.inputs}
        rows = _common_length(arrays)
        scores = np.empty(rows, dtype=np.float32)
        for start in range(0, rows, BATCH_ROWS):
            chunk = slice(start, start + BATCH_ROWS)
            feed = {name: array[chunk].reshape(-1, 1) for name, array in arrays.items()}
            scores[chunk] = self._session.run([OUTPUT], feed)[0][:, 0]
        return scores

    @staticmethod
    def _typed(columns: Mapping[str, NDArray[Any]], field: InputSpec) -> NDArray[Any]:
        array = columns.get(field.name)
        if array is None:
            raise UsageError(f"field {field.name} is missing", required=f"a column of {field.dtype}")
        if array.dtype != NUMPY_TYPES[field.dtype] or array.ndim != 1:
            raise refusal(field, f"array of {array.dtype} with {array.ndim} dimensions")
        return array


class VersionModel:
    """A loaded version, whose bytes were checked by `read_version`."""

    def __init__(self, manifest: VersionManifest, onnx_bytes: bytes, *, threads: int | None = None) -> None:
        """The model, ready to predict.

        Args:
            manifest: The version.
            onnx_bytes: Its model file.
            threads: Threads of one call; None lets the runtime take every core.

        Raises:
            IntegrityError: terminal; the file is not a model of this project, or has other inputs.
        """
        self.manifest = manifest
        self._scorer = Scorer(onnx_bytes, manifest.inputs, threads=threads)

    @property
    def version(self) -> str:
        """Id of the version."""
        return self.manifest.version

    @property
    def logical_date(self) -> dt.date:
        """The version's holdout day; it was trained on the days before."""
        return self.manifest.logical_date

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The fields that `predict` needs, with their types."""
        return self.manifest.inputs

    def predict(self, data: object) -> NDArray[np.float32]:
        """The calibrated click probability of each row, float32 [N]; empty for no rows.

        Args:
            data: A mapping of columns (lists, numpy arrays, columns of pandas, polars or Arrow), a table of these
                libraries, or a list of rows, each a mapping. The module says what a field's values may be.

        Raises:
            UsageError: terminal; one line that names the first field which is absent or of another type or length.
        """
        if isinstance(data, Sequence) and len(data) == 0 and not isinstance(data, str | bytes):
            return np.empty(0, dtype=np.float32)
        columns = raw_columns(data, self.inputs)
        return self._scorer.probabilities(
            {field.name: typed_column(columns[field.name], field) for field in self.inputs}
        )


class ChampionModel(VersionModel):
    """The model that the log's head named when it was opened, verified from the log entry down to the bytes."""

    def __init__(
        self, *, entry: LogEntry, manifest: VersionManifest, onnx_bytes: bytes, threads: int | None = None
    ) -> None:
        """A champion whose bytes have been checked against its manifest; `open` does that."""
        super().__init__(manifest, onnx_bytes, threads=threads)
        self.entry = entry

    @classmethod
    def open(cls, store_url: str, model: str, *, threads: int | None = None) -> Self:
        """The current champion, loaded from bytes that match every digest above them. Needs read rights only.

        Args:
            store_url: `file://` folder or `s3://bucket/prefix`.
            model: Name of the model.
            threads: Threads of one call; None lets the runtime take every core.

        Raises:
            NotFoundError: terminal; nothing has been promoted yet.
            IntegrityError: terminal; a digest, a size or the file's structure is not what it should be.
            StoreUnavailableError: transient; the store did not answer in time.
        """
        store = open_store(store_url)
        entry = Registry(store, model).champion()
        manifest, onnx_bytes = read_version(store, model, entry.version, manifest_sha256=entry.manifest_sha256)
        return cls(entry=entry, manifest=manifest, onnx_bytes=onnx_bytes, threads=threads)

    @property
    def sequence(self) -> int:
        """Number of the log entry that made it the champion."""
        return self.entry.sequence


def read_version(
    store: ObjectStore, model: str, version: str, *, manifest_sha256: str | None = None
) -> tuple[VersionManifest, bytes]:
    """The manifest of a version and the bytes of its model file, which match every digest above them.

    Args:
        store: Where the version is.
        model: Name of the model.
        version: Id of the version.
        manifest_sha256: Digest of the manifest, where a log entry or a decision names it.

    Raises:
        NotFoundError: terminal; the version or its model file is not there.
        IntegrityError: terminal; a digest or a size is not what it should be.
        StoreUnavailableError: transient; the store did not answer in time.
    """
    manifest, digest = Registry(store, model).manifest(version)
    _require_equal("manifest's digest", digest, manifest_sha256 or digest, where=version)
    return manifest, read_model(store, manifest)


def read_model(store: ObjectStore, manifest: VersionManifest) -> bytes:
    """The bytes of a version's model file, equal in size and digest to what the manifest says.

    Args:
        store: Where the version is.
        manifest: The version.

    Raises:
        IntegrityError: terminal; the manifest names no model file, or the stored bytes are others.
        NotFoundError: terminal; the file is gone.
    """
    entry = manifest.files.get(layout.MODEL_FILE)
    if entry is None:
        raise IntegrityError(f"version {manifest.version} has no {layout.MODEL_FILE}")
    key = layout.file_key(layout.attempt_prefix(manifest.model, manifest.version, manifest.attempt), layout.MODEL_FILE)
    data = store.read(key)
    _require_equal("size in bytes", len(data), entry.size_bytes, where=key)
    _require_equal("digest", sha256_hex(data), entry.sha256, where=key)
    return data


def _common_length(arrays: Mapping[str, NDArray[Any]]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    (first, rows), *others = lengths.items()
    for name, length in others:
        if length != rows:
            raise UsageError(f"field {name} has another length", observed=length, required=f"{rows}, as {first} has")
    return rows


def _require_equal(what: str, observed: object, expected: object, *, where: str) -> None:
    if observed != expected:
        raise IntegrityError(f"{what} does not match", observed=observed, required=str(expected), where=where)
