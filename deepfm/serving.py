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
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Self, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from deepfm import layout
from deepfm.documents import sha256_hex
from deepfm.errors import IntegrityError, NotFoundError, UsageError
from deepfm.manifests import MISSING_INT64, InputSpec, LogEntry, VersionManifest
from deepfm.onnx_file import MINIMUM_ONNXRUNTIME, OUTPUT, check_structure
from deepfm.registry import Registry
from deepfm.storage import ObjectStore, open_store

BATCH_ROWS = 16_384
"""Rows that the runtime holds at a time."""
EXACT_FLOAT = 2.0**53
"""Below this every integer has a float64 of its own; from here on ids would merge."""

NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "string": np.dtype(object),
    "int64": np.dtype(np.int64),
    "float32": np.dtype(np.float32),
}
"""Element type of a typed column, by the type of the field."""
_USABLE_KINDS = "OUTbiuf"
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
            raise _refusal(field, f"array of {array.dtype} with {array.ndim} dimensions")
        return array


class ChampionModel:
    """The model that the log's head named when it was opened, verified from the log entry down to the bytes."""

    def __init__(self, *, entry: LogEntry, manifest: VersionManifest, onnx_bytes: bytes, threads: int | None) -> None:
        """A champion whose bytes have been checked against its manifest; `open` does that."""
        self.entry = entry
        self.manifest = manifest
        self._scorer = Scorer(onnx_bytes, manifest.inputs, threads=threads)

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
        registry = Registry(store, model)
        entry = registry.head()
        if entry is None:
            raise NotFoundError(
                f"model {model} has no champion", where=store.url, next_step="Promote a version, or check the name."
            )
        manifest, digest = registry.manifest(entry.version)
        _require_equal("manifest's digest", digest, entry.manifest_sha256, where=entry.version)
        _require_equal("manifest's version", manifest.version, entry.version, where=f"log entry {entry.sequence}")
        onnx_bytes = read_model(store, manifest)
        return cls(entry=entry, manifest=manifest, onnx_bytes=onnx_bytes, threads=threads)

    @property
    def version(self) -> str:
        """Id of the version."""
        return self.manifest.version

    @property
    def logical_date(self) -> dt.date:
        """The version's holdout day; it was trained on the days before."""
        return self.manifest.logical_date

    @property
    def sequence(self) -> int:
        """Number of the log entry that made it the champion."""
        return self.entry.sequence

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


def raw_columns(data: object, inputs: Sequence[InputSpec]) -> dict[str, object]:
    """One column of raw values for each input, from any of the shapes that `ChampionModel.predict` takes.

    Raises:
        UsageError: terminal; a field is absent, or the data has no rows and columns.
    """
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return {field.name: _from_rows(data, field) for field in inputs}
    # An Arrow table has both attributes, and its `columns` holds values; `column_names` must come first.
    names = data.keys() if isinstance(data, Mapping) else getattr(data, "column_names", getattr(data, "columns", None))
    if names is None:
        raise UsageError(
            "data has no columns", observed=type(data).__name__, required="a dict of columns or a list of row dicts"
        )
    present = set(cast("Iterable[object]", names))
    absent = [field.name for field in inputs if field.name not in present]
    if absent:
        raise UsageError(
            f"field {absent[0]} is missing", required="columns " + ", ".join(field.name for field in inputs)
        )
    table = cast("Mapping[str, object]", data)
    return {field.name: table[field.name] for field in inputs}


def typed_column(column: object, field: InputSpec) -> NDArray[Any]:
    """The column as the graph takes it, missing values replaced: object array of text, int64 or float32, [N].

    Args:
        column: A list, tuple or one-dimensional array, or a column of pandas, polars or Arrow.
        field: The input that it is for.

    Raises:
        UsageError: terminal; a value is of another type, or would change by conversion.
    """
    values = _one_dimensional(column, field)
    return _CONVERTERS[field.dtype](values, field)


def _from_rows(rows: Sequence[object], field: InputSpec) -> list[object]:
    values = []
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise UsageError("row is not a mapping", observed=type(row).__name__, where=f"row {i}")
        if field.name not in row:
            raise UsageError(f"field {field.name} is missing", where=f"row {i}")
        values.append(row[field.name])
    return values


def _one_dimensional(column: object, field: InputSpec) -> NDArray[Any]:
    values = _plain(column)
    if isinstance(values, list | tuple):
        return np.fromiter(values, dtype=object, count=len(values))
    if not isinstance(values, np.ndarray):
        raise _refusal(field, f"a single {type(column).__name__}")
    if values.ndim != 1 or values.dtype.kind not in _USABLE_KINDS:
        raise _refusal(field, f"{values.dtype.name} array of {values.ndim} dimensions")
    return values


def _plain(column: object) -> object:
    """A numpy array or a list, from the columns of other libraries too."""
    if isinstance(column, np.ndarray) and not isinstance(column, np.ma.MaskedArray):
        return column
    if isinstance(getattr(column, "dtype", None), np.dtype) and hasattr(column, "to_numpy"):
        return column.to_numpy()
    # Never to_numpy here: pandas makes float64 of nullable integers, and ids above 2^53 would merge.
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(column, method):
            return getattr(column, method)()
    return column


def _is_missing(value: object) -> bool:
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    # NA and NaT of pandas are known by name, for pandas is not imported here.
    return type(value).__name__ in {"NoneType", "NAType", "NaTType"}


def _text(values: NDArray[Any], field: InputSpec) -> NDArray[Any]:
    plain = values.astype(object)
    if set(map(type, plain)) - {str}:
        plain = _each(plain, lambda value: _one_text(value, field), dtype=np.dtype(object))
    try:
        "".join(plain).encode()
    except UnicodeEncodeError as cause:
        raise _refusal(field, "text that is not Unicode (a lone surrogate)") from cause
    return plain


def _one_text(value: object, field: InputSpec) -> str:
    if isinstance(value, str):
        return str(value)
    if _is_missing(value):
        return ""
    if isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool):
        return str(int(value))
    raise _refusal(field, type(value).__name__)


def _integers(values: NDArray[Any], field: InputSpec) -> NDArray[np.int64]:
    if values.dtype.kind in "bi" or (values.dtype.kind == "u" and values.dtype.itemsize < 8):
        return values.astype(np.int64)
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
        raise _refusal(field, f"{values.dtype.name}, which merges ids from 2^24 on")
    plain = values.astype(object)
    if set(map(type, plain)) == {int} and min(plain) >= MISSING_INT64 and max(plain) < -MISSING_INT64:
        return plain.astype(np.int64)
    return _each(plain, lambda value: _one_integer(value, field), dtype=np.dtype(np.int64))


def _one_integer(value: object, field: InputSpec) -> int:
    if isinstance(value, int | np.integer | np.bool):
        whole = int(value)
        if not MISSING_INT64 <= whole < -MISSING_INT64:
            raise _refusal(field, "an integer beyond 64 bits")
        return whole
    if _is_missing(value):
        return MISSING_INT64
    if isinstance(value, float):
        if abs(value) < EXACT_FLOAT and value.is_integer():
            return int(value)
        raise _refusal(field, "a float with a fraction or not below 2^53")
    raise _refusal(field, type(value).__name__)


def _numbers(values: NDArray[Any], field: InputSpec) -> NDArray[np.float32]:
    if values.dtype.kind not in "biuf":
        plain = values.astype(object)
        if set(map(type, plain)) <= {float, NoneType}:
            values = plain.astype(np.float64)
        else:
            values = _each(plain, lambda value: _one_number(value, field), dtype=np.dtype(np.float64))
    # A float64 beyond float32 becomes infinite, which the graph takes as missing.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _one_number(value: object, field: InputSpec) -> float:
    if isinstance(value, int | float | np.integer | np.floating | np.bool):
        try:
            return float(value)
        except OverflowError as cause:
            raise _refusal(field, "an integer beyond float64") from cause
    if _is_missing(value):
        return float("nan")
    raise _refusal(field, type(value).__name__)


_CONVERTERS: dict[str, Callable[[NDArray[Any], InputSpec], NDArray[Any]]] = {
    "string": _text,
    "int64": _integers,
    "float32": _numbers,
}


def _each(values: NDArray[Any], convert: Callable[[object], object], *, dtype: np.dtype[Any]) -> NDArray[Any]:
    result = np.empty(len(values), dtype=dtype)
    for i, value in enumerate(values):
        result[i] = convert(value)
    return result


def _refusal(field: InputSpec, observed: str) -> UsageError:
    return UsageError(f"field {field.name} cannot be used", observed=observed, required=f"a column of {field.dtype}")


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
