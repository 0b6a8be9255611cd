"""Columns of any library as the graph takes them; `deepfm.serving` says which values mean what."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from deepfm.errors import UsageError
from deepfm.manifests import MISSING_INT64, InputSpec

EXACT_FLOAT = 2.0**53
"""Below this every integer has a float64 of its own; from here on ids would merge."""

NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "string": np.dtype(object),
    "int64": np.dtype(np.int64),
    "float32": np.dtype(np.float32),
}
"""Element type of a typed column, by the type of the field."""
_USABLE_KINDS = "OUTbiuf"
_TOO_LARGE = 10**1000
"""No id is as large, and Python does not write one out that is much larger."""


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
    present = Counter(cast("Iterable[object]", names))
    absent = [field.name for field in inputs if not present[field.name]]
    if absent:
        raise UsageError(
            f"field {absent[0]} is missing", required="columns " + ", ".join(field.name for field in inputs)
        )
    if doubled := [field.name for field in inputs if present[field.name] > 1]:
        raise UsageError(f"field {doubled[0]} is there {present[doubled[0]]} times", required="one column of a name")
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
        raise refusal(field, f"a single {type(column).__name__}")
    if values.ndim != 1 or values.dtype.kind not in _USABLE_KINDS:
        raise refusal(field, f"{values.dtype.name} array of {values.ndim} dimensions")
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
        raise refusal(field, "text that is not Unicode (a lone surrogate)") from cause
    return plain


def _one_text(value: object, field: InputSpec) -> str:
    if isinstance(value, str):
        return str(value)
    if _is_missing(value):
        return ""
    if isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool):
        if abs(int(value)) >= _TOO_LARGE:
            raise refusal(field, "an integer of more than a thousand digits")
        return str(int(value))
    raise refusal(field, type(value).__name__)


def _integers(values: NDArray[Any], field: InputSpec) -> NDArray[np.int64]:
    if values.dtype.kind in "bi" or (values.dtype.kind == "u" and values.dtype.itemsize < 8):
        return values.astype(np.int64)
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
        raise refusal(field, f"{values.dtype.name}, which merges ids from 2^24 on")
    plain = values.astype(object)
    if set(map(type, plain)) == {int} and min(plain) >= MISSING_INT64 and max(plain) < -MISSING_INT64:
        return plain.astype(np.int64)
    return _each(plain, lambda value: _one_integer(value, field), dtype=np.dtype(np.int64))


def _one_integer(value: object, field: InputSpec) -> int:
    if isinstance(value, int | np.integer | np.bool):
        whole = int(value)
        if not MISSING_INT64 <= whole < -MISSING_INT64:
            raise refusal(field, "an integer beyond 64 bits")
        return whole
    if _is_missing(value):
        return MISSING_INT64
    if isinstance(value, float):
        if abs(value) < EXACT_FLOAT and value.is_integer():
            return int(value)
        raise refusal(field, "a float with a fraction or not below 2^53")
    raise refusal(field, type(value).__name__)


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
            raise refusal(field, "an integer beyond float64") from cause
    if _is_missing(value):
        return float("nan")
    raise refusal(field, type(value).__name__)


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


def refusal(field: InputSpec, observed: str) -> UsageError:
    """The error that says what a field's column cannot be."""
    return UsageError(f"field {field.name} cannot be used", observed=observed, required=f"a column of {field.dtype}")
