"""Which columns become fields, and why the others do not."""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepfm.discovery import naming
from deepfm.discovery.dependence import DOUBT_AUC, repeats, tells_label
from deepfm.discovery.found import FoundColumn, Role
from deepfm.discovery.roles import all_distinct, believed_form
from deepfm.discovery.values import Values

_EMAIL_OR_IP = r"^([^@\s]+@[^@\s]+\.[a-z]+|[0-9]{1,3}(\.[0-9]{1,3}){3}|\+[0-9 ()-]{8,18})$"
_SEPARATORS = r"[|;,]"
_FEW_VALUES = 1_000
_REPEATED = 5
_FEW_KINDS = 100
_MOST_ROWS = 0.5
_LOOKED_AT = 2_000
"""Distinct texts that are looked at for what they contain."""

Shape = tuple[Literal["categorical", "numeric"], Literal["string", "int64", "float32"]]


class Facts(NamedTuple):
    """What the decision on a column needs besides its values."""

    clicked: NDArray[np.bool_]
    newest: NDArray[np.bool_]
    """Which rows, bool [N], are of the day to judge on; the others are those to learn from."""
    roles: dict[str, Role]
    """Of the columns that have one."""
    unsteady: Collection[str]
    """Columns that some files do not have."""
    excluded: Collection[str]
    """Columns that the person who asked does not want."""


def decide(columns: Sequence[Values], facts: Facts) -> list[FoundColumn]:
    """Every column with its role; the fields among them tell neither the label nor each other."""
    found = [_decided(values, facts) for values in columns]
    by_name = {values.name: values for values in columns}
    kept: list[str] = []
    for column in sorted((c for c in found if c.is_field and c.kind == "categorical"), key=_first_choice):
        twin = next((name for name in kept if repeats(by_name[column.name], by_name[name])), None)
        if twin is None or column.role == "group":
            kept.append(column.name)
            continue
        place = found.index(column)
        found[place] = _left_out(column, f"repeats {twin}, one value for each of its values")
    return found


def _decided(values: Values, facts: Facts) -> FoundColumn:
    role = facts.roles.get(values.name, "field")
    shape = _shape(values)
    verdict = tells_label(values, facts.clicked) if values.distinct else None
    column = FoundColumn(
        name=values.name,
        role=role,
        kind=shape[0] if shape else None,
        dtype=shape[1] if shape else None,
        distinct=values.distinct,
        null_share=float(values.nulls.mean()) if len(values.codes) else 0.0,
        value_range=_range(values),
    )
    if role not in {"field", "group"}:
        return column.model_copy(update={"kind": None, "dtype": None})
    told = [verdict.reason] if verdict and verdict.reason else []
    reason = next(chain(_obstacles(values, facts), told, _doubts(values, column, facts)), "")
    if reason:
        return _left_out(column, reason)
    remarks = [_remark(values)]
    if verdict and verdict.auc >= DOUBT_AUC:
        remarks.append(f"check that it is known before the click: it alone reaches AUC {verdict.auc:.2f}")
    note = "; ".join(remark for remark in remarks if remark)
    return column.model_copy(update={"is_field": True, "note": note, "examples": _examples(values, role)})


def _obstacles(values: Values, facts: Facts) -> Iterator[str]:
    """Why a column cannot be a field."""
    if values.name in facts.excluded:
        yield "you asked for it"
    if values.kind == "nested":
        yield f"{values.array.type} is neither text nor a number"
    if not naming.is_usable(values.name):
        yield "a field needs a name of letters, digits and _, and not probability: rename the column"
    if values.name in facts.unsteady:
        yield "some files do not have it, or have it twice"
    if values.kind == "empty":
        yield "it is missing in all rows"
    # One value and nothing else; a value that is there or missing says something.
    if values.distinct == 1 and not values.nulls.any():
        yield "it has the same value in all rows"


def _doubts(values: Values, column: FoundColumn, facts: Facts) -> Iterator[str]:
    """Why a column that could be a field should be none."""
    name = values.name
    if naming.is_metadata(name):
        yield "about how rows were logged, not about what was shown"
    if naming.label_rank(name) is not None and values.distinct <= 2:
        yield "an outcome by its name: not known before the click"
    if naming.is_personal(name) or _looks_personal(values):
        yield "tells who somebody is, and the model file would hold it"
    if _is_date(values):
        yield "a time or a date: tomorrow has others"
    if naming.is_visit(name):
        yield "ends with the visit: tomorrow has others"
    if column.kind == "categorical" and all_distinct(values):
        yield "nearly every row has a value of its own: nothing repeats"
    if _is_prose(values):
        yield "text that hardly repeats"
    if column.kind == "categorical" and _is_news(values, facts.newest):
        yield "most of the newest day has a value that no day before it has: nothing to learn from yet"


def _left_out(column: FoundColumn, reason: str) -> FoundColumn:
    role: Role = "group" if column.role == "group" else "left_out"
    return column.model_copy(update={"role": role, "is_field": False, "note": reason, "examples": ()})


def _shape(values: Values) -> Shape | None:
    """Kind and type as a field; None for what cannot be one."""
    if values.kind == "text":
        return "categorical", "string"
    if values.kind == "flag":
        return "categorical", "int64"
    if values.kind == "integer":
        return ("numeric", "float32") if _is_amount(values) else ("categorical", "int64")
    if values.kind == "number":
        whole = naming.is_identifier(values.name) and bool((values.floats() % 1 == 0).all())
        return ("categorical", "int64") if whole else ("numeric", "float32")
    return None


def _is_amount(values: Values) -> bool:
    if naming.is_identifier(values.name) or values.distinct <= 2:
        return False
    if naming.is_amount(values.name):
        return True
    there = len(values.codes) - int(values.nulls.sum())
    return values.distinct > _FEW_VALUES and values.distinct * _REPEATED > there


def _is_date(values: Values) -> bool:
    return values.kind == "time" or believed_form(values) is not None


def _looks_personal(values: Values) -> bool:
    if values.kind != "text" or not values.distinct:
        return False
    texts = values.unique()[:_LOOKED_AT]
    return int(pc.sum(pc.match_substring_regex(texts, _EMAIL_OR_IP)).as_py()) > len(texts) / 2


def _is_prose(values: Values) -> bool:
    if values.kind != "text":
        return False
    texts = values.unique()[:_LOOKED_AT]
    length = float(pc.mean(pc.utf8_length(texts)).as_py())
    words = float(pc.mean(pc.count_substring(texts, " ")).as_py()) + 1
    return length > 200 or (length > 30 and words > 4 and values.distinct > 0.2 * len(values.codes))


def _is_news(values: Values, newest: NDArray[np.bool_]) -> bool:
    """Whether a field of few values, such as a flag of the weekend, has one on the newest day that is not known yet."""
    if values.distinct > _FEW_KINDS or not newest.any() or newest.all():
        return False
    return bool((~np.isin(values.codes[newest], values.codes[~newest])).mean() > _MOST_ROWS)


def _remark(values: Values) -> str:
    """What a person should know of a field."""
    if naming.is_place(values.name):
        return "check: is it known when a click is predicted?"
    if values.kind != "text":
        return ""
    texts = values.unique()[:_LOOKED_AT]
    parts = pc.split_pattern_regex(texts, _SEPARATORS).flatten()
    if len(parts) >= 1.2 * len(texts) and len(parts.unique()) < 0.8 * len(texts):
        return "several values in one text are one category here"
    return ""


def _examples(values: Values, role: Role) -> tuple[str, ...]:
    if role != "field" or naming.is_discreet(values.name) or naming.group_rank(values.name) is not None:
        return ()
    if values.kind == "number":
        return ()
    ordered = pc.value_counts(values.array.drop_null()).to_pylist()
    common = sorted(ordered, key=lambda pair: (-pair["counts"], str(pair["values"])))[:3]
    return tuple(str(pair["values"]) for pair in common)


def _range(values: Values) -> str:
    if values.kind != "number" and not (values.kind == "integer" and _is_amount(values)):
        return ""
    bounds = pc.min_max(values.array).as_py()
    return f"{bounds['min']:.6g} to {bounds['max']:.6g}"


def _first_choice(column: FoundColumn) -> tuple[bool, bool, bool]:
    """Of two columns that say the same, the user stays, then an id, then what is not text."""
    return column.role != "group", not naming.is_identifier(column.name), column.dtype == "string"
