"""Values and their ids: day-local codes while a day is read, window-wide ids once its days are known."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepfm.config import FieldConfig
from deepfm.manifests import MISSING_INT64

OOV_ID = 0
"""Id of every value that is not in the vocabulary."""
BANNED_VALUES = ("None", "nan")
"""Texts that numpy makes of nulls: never in a vocabulary, so that a careless consumer's null is OOV."""


def arrow_type(field: FieldConfig) -> pa.DataType:
    """Arrow type of a categorical field's values."""
    return pa.int64() if field.dtype == "int64" else pa.string()


def fill_missing(values: pa.Array) -> pa.Array:
    """The values with the field's own word for missing in place of nulls."""
    return pc.fill_null(values, MISSING_INT64 if pa.types.is_integer(values.type) else "")


class DayDictionary:
    """Gives every distinct value of a field a day-local code in order of first appearance, and counts rows."""

    def __init__(self, field: FieldConfig) -> None:
        self._type = arrow_type(field)
        self._codes: dict[object, int] = {}
        self._rows = np.zeros(0, dtype=np.int64)
        self._sampled = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        """Number of distinct values so far."""
        return len(self._codes)

    def encode(self, values: pa.Array, kept: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Codes of the rows, int32 [N], all of them counted, the kept ones also as sampled."""
        encoded = fill_missing(values).dictionary_encode()
        codes = self._codes
        local = [codes.setdefault(value, len(codes)) for value in encoded.dictionary.to_pylist()]
        indices = np.asarray(encoded.indices.to_numpy(zero_copy_only=False))
        result = np.asarray(local, dtype=np.int32)[indices] if local else np.zeros(0, dtype=np.int32)
        size = len(codes)
        self._rows = _grown(self._rows, size) + np.bincount(result, minlength=size)
        self._sampled = _grown(self._sampled, size) + np.bincount(result[kept], minlength=size)
        return result

    def table(self) -> pa.Table:
        """`value`, `rows` (whole day), `sampled_rows`; row i is code i."""
        return pa.table(
            {
                "value": pa.array(list(self._codes), self._type),
                "rows": pa.array(self._rows, pa.int64()),
                "sampled_rows": pa.array(self._sampled, pa.int64()),
            }
        )


def build_vocabulary(values: Sequence[pa.Array], counts: Sequence[NDArray[np.int64]], *, min_count: int) -> pa.Table:
    """The values that occur at least `min_count` times over the days, sorted; row i has id i + 1.

    Args:
        values: Per day, the distinct values of a field.
        counts: Per day, how many training rows hold each of them.
        min_count: At least 2: what remains gets gradients, and so does the OOV id that the others share.
    """
    column = pa.chunked_array(list(values))
    table = pa.table({"value": column, "rows": pa.array(np.concatenate(list(counts)), pa.int64())})
    summed = table.group_by("value").aggregate([("rows", "sum")])
    frequent = summed.filter(pc.greater_equal(summed.column("rows_sum"), min_count))
    if pa.types.is_string(frequent.column("value").type):
        frequent = frequent.filter(pc.invert(pc.is_in(frequent.column("value"), value_set=pa.array(BANNED_VALUES))))
    ordered = frequent.sort_by("value")
    return pa.table({"value": ordered.column("value").combine_chunks(), "rows": ordered.column("rows_sum")})


def look_up(values: pa.Array, vocabulary: pa.Array) -> NDArray[np.int32]:
    """Ids of values, int32 [N]; `OOV_ID` for those outside the vocabulary."""
    positions = pc.index_in(fill_missing(values), value_set=vocabulary)
    return np.asarray(pc.fill_null(pc.add(positions, 1), OOV_ID).to_numpy(zero_copy_only=False), dtype=np.int32)


def _grown(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.pad(counts, (0, size - len(counts)))
