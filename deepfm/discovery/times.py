"""Times however they are stored: timestamps, dates, ISO 8601 text, YYYYMMDD, whole numbers since 1970.

A form is decided once for a column and then read batch by batch. Cells that do not have the form are null.
"""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_INSTANT = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?\s?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?$"
)
_AWARE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_COMPACT = r"^(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])$"
_FIRST, _LAST = 631_152_000, 4_102_444_800
"""1990 and 2100 in seconds since 1970: what lies between can be an event time."""
_UNITS: dict[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MOST = 0.9
"""Share of the cells that have to have a form."""

Kind = Literal["timestamp", "date", "text", "day_text", "compact", "epoch"]


class Form(NamedTuple):
    """How a column stores times."""

    kind: Kind
    unit: str = ""
    """Of `epoch`: s, ms, us or ns."""
    aware: bool = False
    """Whether the values say what zone they are in (for text: most of them)."""

    @property
    def is_instant(self) -> bool:
        """Whether there is a time of day in it."""
        return self.kind in {"timestamp", "text", "epoch"}


def form_of(values: pa.Array) -> Form | None:
    """The form that at least nine in ten of the cells have; None if there is none, or no cell."""
    kind = values.type
    there = values.drop_null()
    if not len(there):
        return None
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Form("date") if pa.types.is_date(kind) else Form("timestamp", aware=kind.tz is not None)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _number_form(there)
    return _text_form(there) if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def instants_of(values: pa.Array, form: Form) -> NDArray[np.int64]:
    """Microseconds since 1970, int64 [N]; the least int64 where there is none.

    They are UTC where the cell says its zone, and as on the wall where it does not.
    """
    if form.kind == "epoch":
        return _microseconds(_epoch(values, form))
    if form.kind == "compact":
        numbers = values if pa.types.is_integer(values.type) else _whole(values)
        return _parsed(numbers.cast(pa.string()), "%Y%m%d")
    if form.kind in {"timestamp", "date"}:
        return _microseconds(values.cast(pa.timestamp("us", tz=getattr(values.type, "tz", None)), safe=False))
    return _parsed(values, "ISO8601")


def days_of(values: pa.Array, form: Form, *, zone: str) -> NDArray[np.int64]:
    """Days since 1970 in a zone, int64 [N]; the least int64 where there is none. Times without a zone are of it."""
    instants = instants_of(values, form)
    none = instants == NONE
    stamps = pa.array(instants, pa.int64(), mask=none).cast(pa.timestamp("us", tz="UTC"))
    local = pc.local_timestamp(stamps.cast(pa.timestamp("us", tz=zone)))
    wall = stamps.cast(pa.timestamp("us"))
    chosen = pc.if_else(pa.array(_is_aware(values, form)), local, wall)
    days = np.floor_divide(_microseconds(chosen), 86_400_000_000)
    days[none] = NONE
    return days


NONE = np.iinfo(np.int64).min
"""What stands for no time."""


def _is_aware(values: pa.Array, form: Form) -> NDArray[np.bool_]:
    if form.kind == "text":
        return np.asarray(pc.fill_null(pc.match_substring_regex(values, _AWARE), False))  # noqa: FBT003 - Arrow's call
    return np.full(len(values), form.kind == "epoch" or form.aware)


def _text_form(there: pa.Array) -> Form | None:
    needed = _MOST * len(there)
    forms = {
        _INSTANT: Form("text", aware=_matches(there, _AWARE) >= needed),
        _DAY: Form("day_text"),
        _COMPACT: Form("compact"),
    }
    found = next((form for pattern, form in forms.items() if _matches(there, pattern) >= needed), None)
    if found is None and _matches(there, r"^[0-9]{9,18}$") >= needed:
        return _number_form(_whole(there))
    return found


def _number_form(values: pa.Array) -> Form | None:
    numbers = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return None
    texts = pa.array(numbers.astype(np.int64)).cast(pa.string())
    if _matches(texts, _COMPACT) >= _MOST * len(texts):
        return Form("compact")
    for unit, per_second in _UNITS.items():
        inside = (numbers >= _FIRST * per_second) & (numbers <= _LAST * per_second)
        if inside.mean() >= _MOST:
            return Form("epoch", unit=unit, aware=True)
    return None


def _epoch(values: pa.Array, form: Form) -> pa.Array:
    numbers = _whole(values) if not pa.types.is_integer(values.type) else values.cast(pa.int64(), safe=False)
    per_second = _UNITS[form.unit]
    plausible = pc.and_(pc.greater_equal(numbers, _FIRST * per_second), pc.less_equal(numbers, _LAST * per_second))
    numbers = pc.if_else(plausible, numbers, pa.scalar(None, pa.int64()))
    return numbers.cast(pa.timestamp(form.unit)).cast(pa.timestamp("us"), safe=False)


def _whole(values: pa.Array) -> pa.Array:
    """Text of digits, or floats, as int64; other cells are null."""
    if pa.types.is_floating(values.type):
        finite = pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
        return finite.cast(pa.int64(), safe=False)
    digits = pc.match_substring_regex(values, r"^[0-9]{1,18}$")
    return pc.if_else(digits, values, pa.scalar(None, values.type)).cast(pa.int64())


def _parsed(texts: pa.Array, form: str) -> NDArray[np.int64]:
    """What pandas reads from text; its own minimum, which is that of int64, stands for what it cannot read."""
    if form == "ISO8601":  # without this, "2026" would be a time
        shaped = pc.or_(pc.match_substring_regex(texts, _INSTANT), pc.match_substring_regex(texts, _DAY))
        texts = pc.if_else(shaped, texts, pa.scalar(None, texts.type))
    series = pd.Series(texts.to_numpy(zero_copy_only=False), dtype=object)
    stamps = pd.to_datetime(series, format=form, utc=True, errors="coerce")
    return np.asarray(stamps.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64))


def _microseconds(stamps: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(stamps.cast(pa.int64()), NONE).to_numpy(zero_copy_only=False), dtype=np.int64)


def _matches(values: pa.Array, pattern: str) -> int:
    return int(pc.sum(pc.match_substring_regex(values, pattern)).as_py() or 0)
