"""What the values of a column are, whatever they are stored as: whole numbers, numbers, text, flags, times."""

from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Kind = Literal["integer", "number", "text", "flag", "time", "nested", "empty"]

INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
"""Text of a whole number; a leading zero means something and makes it text."""
NUMBER = r"^-?((0|[1-9][0-9]{0,14})(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?$"
"""Text of a number; more digits than a float holds are those of an id."""
MISSING = r"^(?i:na|nan|null|none|\\n)$"
"""Text that stands for a missing number."""
_EXACT = 2.0**53
_INT64_MAX = 2**63 - 1


class Values(NamedTuple):
    """One column, typed."""

    name: str
    kind: Kind
    array: pa.Array
    """int64, float64, string or as stored; nulls where nothing is known."""
    codes: NDArray[np.int64]
    """Of every row, which distinct value it holds, in order of first appearance; missing ones share a code."""
    distinct: int
    """Values other than missing."""
    uneven: bool
    """Whether whole numbers are stored as floats, as pandas does where some are missing."""

    @property
    def nulls(self) -> NDArray[np.bool_]:
        """Which rows hold none, bool [N]."""
        return np.asarray(self.array.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)

    def floats(self) -> NDArray[np.float64]:
        """The numbers, float64 [N], NaN where missing."""
        filled = pc.fill_null(self.array.cast(pa.float64(), safe=False), np.nan)
        return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.float64)

    def unique(self) -> pa.Array:
        """The distinct values, in order of first appearance."""
        return self.array.drop_null().unique()


def typed(name: str, column: pa.ChunkedArray, *, from_text: bool) -> Values:
    """A column with the type of its values.

    Args:
        name: Its name.
        column: Its rows.
        from_text: Whether text may be that of numbers, as in a CSV.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    kind, array, uneven = _typed(array, from_text=from_text)
    if kind in {"nested", "empty"}:
        return Values(name, kind, array, np.zeros(len(array), np.int64), 0, uneven)
    encoded = array.dictionary_encode()
    codes = np.asarray(pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy(zero_copy_only=False))
    return Values(name, kind, array, codes.astype(np.int64), len(encoded.dictionary), uneven)


def _typed(array: pa.Array, *, from_text: bool) -> tuple[Kind, pa.Array, bool]:
    kind = array.type
    if array.null_count == len(array):
        return "empty", array, False
    if pa.types.is_boolean(kind):
        return "flag", array.cast(pa.int64()), False
    if pa.types.is_integer(kind):
        beyond = pa.types.is_uint64(kind) and pc.max(array).as_py() > _INT64_MAX
        return "text" if beyond else "integer", array.cast(pa.string() if beyond else pa.int64()), False
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _number(array.cast(pa.float64(), safe=False))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _text(array.cast(pa.string()), from_text=from_text)
    return "time" if pa.types.is_temporal(kind) else "nested", array, False


def _text(array: pa.Array, *, from_text: bool) -> tuple[Kind, pa.Array, bool]:
    """Text, in which an empty cell is a missing one."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:  # not UTF-8: bytes, whatever the file says
        return "nested", array.cast(pa.binary()), False
    array = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
    if array.null_count == len(array):
        return "empty", array, False
    return _parsed(array) if from_text else ("text", array, False)


def _number(array: pa.Array) -> tuple[Kind, pa.Array, bool]:
    """Numbers; whole ones with holes are integers that pandas could not store as such."""
    finite = pc.is_finite(array)
    array = pc.if_else(finite, array, pa.scalar(None, pa.float64()))
    if array.null_count == len(array):
        return "empty", array, False
    there = np.asarray(array.drop_null().to_numpy(zero_copy_only=False))
    whole = bool((there == np.floor(there)).all() and np.abs(there).max() < _EXACT)
    if whole and array.null_count:
        return "integer", array.cast(pa.int64()), True
    return "number", array, False


def _parsed(array: pa.Array) -> tuple[Kind, pa.Array, bool]:
    """Text of a CSV as what all its cells can be read as."""
    values = array.drop_null().unique()
    known = values.filter(pc.invert(pc.match_substring_regex(values, MISSING)))
    for kind, pattern, target in (("integer", INTEGER, pa.int64()), ("number", NUMBER, pa.float64())):
        if len(known) and pc.all(pc.match_substring_regex(known, pattern)).as_py():
            there = pc.is_in(array, value_set=known)
            numbers = pc.if_else(there, array, pa.scalar(None, pa.string())).cast(target)
            return ("integer", numbers, False) if kind == "integer" else _number(numbers)
    return "text", array, False
