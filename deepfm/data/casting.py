r"""The one canonical form of raw rows, whatever they are stored as, by the rules of the consumer, `deepfm.serving`.

Role in the configuration, and what a cell may be:

    string, key   text; integers, and float64 and decimals that are whole, as decimal text; empty text is missing
    int64         integers and bools; float64 and decimals that are whole; floats count below 2^53 only
    numeric       any number or bool; beyond float32 it counts as missing, as for the consumer
    label         0 and 1, as integer, float, decimal or bool
    event_time    timestamp; date; ISO 8601 text; a number since 1970 if `data.event_time_unit` says its unit

A CSV holds text alone: it is parsed by role, a label may be `true` or `false`, and NA, NaN, null, None and \N in any
case of letters are missing where the role is not text. NaN is missing everywhere. A cell that does not fit is null in
the rows and true in the mask of its column: one such cell is no reason to lose a day.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepfm.config import RetrainConfig
from deepfm.data.files import is_text
from deepfm.data.schema import Role, columns_of, is_text_type

Mask = NDArray[np.bool_]

_EXACT_FLOAT = 2.0**53
"""Below this every integer has a float64 of its own."""
_UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
_MICROSECONDS = {"s": 1e6, "ms": 1e3, "us": 1.0}
_MISSING_WORDS = pa.array(["", "na", "nan", "null", "none", "\\n"])
_INTEGER = "^-?[0-9]+$"
_NUMBER = r"^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|(?i:inf|infinity))$"
_TIME = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([ T][0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?$"
)
_WITH_ZONE = r"^.{11}.*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"


class Canonical(NamedTuple):
    """A batch in canonical form."""

    rows: pa.RecordBatch
    """The configuration's columns alone, in a fixed order: string, int64, float64, or microseconds in UTC."""
    unreadable: dict[str, Mask]
    """By column, which rows, bool [N], held a cell that does not fit; columns without such a cell are absent."""


def canonical(batch: pa.RecordBatch, config: RetrainConfig) -> Canonical:
    """The batch in canonical form; its columns passed `deepfm.data.schema.check_schema`."""
    arrays, names = [], []
    unreadable: dict[str, Mask] = {}
    from_text = is_text(batch.schema)
    for column in columns_of(config):
        present = _present(batch.column(column.name), column.role, from_text=from_text)
        array = _times(present, config) if column.role == "event_time" else _CONVERTERS[column.role](present)
        if array.null_count > present.null_count:
            unreadable[column.name] = _lost(present, array)
        arrays.append(array)
        names.append(column.name)
    return Canonical(pa.RecordBatch.from_arrays(arrays, names=names), unreadable)


def field_values(cells: pa.Array, dtype: Literal["string", "int64", "float32"]) -> tuple[pa.Array, Mask]:
    """The cells of a CSV as values of a field, and which of them, bool [N], do not fit and are null."""
    role: Role = "numeric" if dtype == "float32" else dtype
    present = _present(cells, role, from_text=True)
    values = _CONVERTERS[role](present)
    return values, _lost(present, values)


def _present(array: pa.Array, role: Role, *, from_text: bool) -> pa.Array:
    """The cells as plain text, numbers, bools or times, with null for those that are missing."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_decimal(array.type):
        return array.cast(pa.string())
    if is_text_type(array.type):
        return _present_text(array.cast(pa.string()), role, from_text=from_text)
    if pa.types.is_floating(array.type):
        array = array.cast(pa.float64())
        return array if role == "numeric" else _unless(array, pc.is_nan(array))
    return array


def _present_text(array: pa.Array, role: Role, *, from_text: bool) -> pa.Array:
    if role not in {"string", "key"}:
        array = pc.ascii_trim_whitespace(array)
        words = _MISSING_WORDS if from_text else _MISSING_WORDS[:1]
        return _unless(array, pc.is_in(pc.ascii_lower(array), value_set=words))
    lengths = pc.binary_length(array)
    return array if pc.min(lengths).as_py() else _unless(array, pc.equal(lengths, 0))


def _text(array: pa.Array) -> pa.Array:
    if pa.types.is_floating(array.type):
        array = _whole(array)
    text = array.cast(pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([_decoded(cell) for cell in text.cast(pa.binary()).to_pylist()], pa.string())
    return text


def _integers(array: pa.Array) -> pa.Array:
    if pa.types.is_floating(array.type):
        return _whole(array)
    if not pa.types.is_string(array.type):
        return _cast_or_null(array, pa.int64())
    digits = pc.match_substring_regex(array, _INTEGER)
    integers = _cast_or_null(_where(array, digits), pa.int64())
    others = _unless(array, digits)
    return integers if others.null_count == len(others) else pc.coalesce(integers, _whole(_floats(others)))


def _numbers(array: pa.Array) -> pa.Array:
    if pa.types.is_string(array.type):
        return _floats(array)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    return array.cast(pa.float64(), safe=False)  # an integer may lose digits, as it does in the consumer's float32


def _label(array: pa.Array) -> pa.Array:
    if pa.types.is_string(array.type):
        lower = pc.ascii_lower(array)
        array = pc.if_else(pc.equal(lower, "true"), "1", pc.if_else(pc.equal(lower, "false"), "0", array))
    return _integers(array)


def _times(array: pa.Array, config: RetrainConfig) -> pa.Array:
    kind, data = array.type, config.data
    if pa.types.is_string(kind):
        return _times_of_text(array, config)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _since_1970(array.cast(pa.float64(), safe=False), config)
    if pa.types.is_date(kind):
        return _in_zone(array.cast(pa.timestamp("us")), data.event_time_zone or config.time_zone)
    if pa.types.is_timestamp(kind) and kind.tz is None:
        array = _in_zone(array, data.event_time_zone or config.time_zone)
    return array.cast(_UTC_MICROSECONDS, safe=False)


def _times_of_text(array: pa.Array, config: RetrainConfig) -> pa.Array:
    text = pc.replace_substring_regex(array, r"\s*(UTC|GMT|z)$", "Z")
    text = _where_matches(pc.replace_substring_regex(text, r"\s([+-][0-9:]+)$", r"\1"), _TIME)
    aware = pc.match_substring_regex(text, _WITH_ZONE)
    date = pc.equal(pc.binary_length(text), 10)
    nanoseconds = pa.timestamp("ns")
    times = [_cast_or_null(_where(text, aware), pa.timestamp("ns", tz="UTC")).cast(_UTC_MICROSECONDS, safe=False)]
    zones = [(date, config.data.event_time_zone or config.time_zone)]
    if config.data.event_time_zone:
        zones.append((pc.invert(pc.or_(aware, date)), config.data.event_time_zone))
    for chosen, zone in zones:
        local = _cast_or_null(_where(text, chosen), nanoseconds).cast(pa.timestamp("us"), safe=False)
        times.append(_in_zone(local, zone))
    if config.data.event_time_unit:
        times.append(_since_1970(_floats(array), config))
    return pc.coalesce(*times)


def _in_zone(local: pa.Array, zone: str) -> pa.Array:
    """Times on the clocks of a zone; one that a change of the clocks made twice is the first, one it skipped too."""
    aware = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="earliest")
    return aware.cast(_UTC_MICROSECONDS, safe=False)


def _since_1970(numbers: pa.Array, config: RetrainConfig) -> pa.Array:
    """Times of numbers in the configured unit; null beyond the years 1684 to 2255, where the unit is another one."""
    factor = _MICROSECONDS[config.data.event_time_unit or "us"]
    return _whole(pc.round(pc.multiply(numbers, factor))).cast(_UTC_MICROSECONDS)


def _whole(floats: pa.Array) -> pa.Array:
    """Float64 as int64; null where it has a fraction or is not below 2^53."""
    values = np.asarray(floats.to_numpy(zero_copy_only=False), dtype=np.float64)
    fits = (np.abs(values) < _EXACT_FLOAT) & (np.floor(values) == values)
    return pa.array(np.where(fits, values, 0.0).astype(np.int64), pa.int64(), mask=~fits)


def _floats(text: pa.Array) -> pa.Array:
    return _where_matches(text, _NUMBER).cast(pa.float64())


def _cast_or_null(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The array in another type; cells that do not fit are null, and found by halving."""
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        if len(array) == 1:
            return pa.nulls(1, kind)
        middle = len(array) // 2
        return pa.concat_arrays([_cast_or_null(half, kind) for half in (array[:middle], array[middle:])])


def _where_matches(text: pa.Array, pattern: str) -> pa.Array:
    return _where(text, pc.match_substring_regex(text, pattern))


def _where(array: pa.Array, condition: pa.Array) -> pa.Array:
    return pc.if_else(condition, array, pa.scalar(None, array.type))


def _unless(array: pa.Array, condition: pa.Array) -> pa.Array:
    return pc.if_else(condition, pa.scalar(None, array.type), array)


def _decoded(cell: bytes | None) -> str | None:
    try:
        return None if cell is None else cell.decode()
    except UnicodeDecodeError:
        return None


def _lost(before: pa.Array, after: pa.Array) -> Mask:
    return np.asarray(pc.and_(after.is_null(), before.is_valid()).to_numpy(zero_copy_only=False), dtype=np.bool_)


_CONVERTERS: dict[Role, Callable[[pa.Array], pa.Array]] = {
    "string": _text,
    "key": _text,
    "int64": _integers,
    "numeric": _numbers,
    "label": _label,
}
