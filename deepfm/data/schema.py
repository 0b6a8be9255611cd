"""Which columns a partition must bring, in which Arrow types, and their one canonical form."""

import difflib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deepfm.config import RetrainConfig
from deepfm.errors import DataRejectedError
from deepfm.manifests import Finding

Role = Literal["label", "event_time", "string", "int64", "key", "numeric"]

_CANONICAL: dict[Role, pa.DataType] = {
    "label": pa.int64(),
    "event_time": pa.timestamp("us", tz="UTC"),
    "string": pa.string(),
    "int64": pa.int64(),
    "numeric": pa.float64(),
}
_WORDS: dict[Role, str] = {
    "label": "integer or bool",
    "event_time": "timestamp",
    "string": "string",
    "int64": "integer",
    "key": "string or integer",
    "numeric": "float or integer",
}


class Column(NamedTuple):
    """A column that the configuration names, and what it is used as."""

    name: str
    role: Role


def columns_of(config: RetrainConfig) -> tuple[Column, ...]:
    """Every column that the configuration reads, each once, special columns first."""
    data = config.data
    roles: dict[str, Role] = {data.label: "label"}
    if data.event_time:
        roles[data.event_time] = "event_time"
    for name, field in config.fields.items():
        roles[name] = "numeric" if field.dtype == "float32" else field.dtype
    for key in (data.event_key, data.group):
        if key:
            roles.setdefault(key, "key")
    return tuple(Column(name, role) for name, role in roles.items())


def check_schema(schema: pa.Schema, config: RetrainConfig, *, where: str) -> Iterator[Finding]:
    """A critical finding for every column that is missing, doubled or of a type outside the allowed ones."""
    for column in columns_of(config):
        indices = schema.get_all_field_indices(column.name)
        if len(indices) != 1:
            near = difflib.get_close_matches(column.name, schema.names, n=1)
            absent = (
                f"missing, did you mean {near[0]}?" if near else f"missing, there are {', '.join(schema.names[:12])}"
            )
            observed = f"{len(indices)} columns of this name" if indices else absent
            yield _broken("column_present", column.name, f"{observed} in {where}", "one column of exactly this name")
        elif not _allowed(schema.field(indices[0]).type, column.role):
            observed = f"{schema.field(indices[0]).type} in {where}"
            yield _broken("column_type", column.name, observed, _WORDS[column.role])
        elif column.role == "event_time" and not _zone_known(schema.field(indices[0]).type, config):
            yield _broken(
                "time_zone", column.name, f"no time zone in {where}", "a zone in the type or data.event_time_zone"
            )


def canonical(batch: pa.RecordBatch, config: RetrainConfig) -> pa.RecordBatch:
    """The batch with the configuration's columns alone, in canonical types, in a fixed order.

    Raises:
        DataRejectedError: terminal; an integer does not fit into int64, or text is not UTF-8.
    """
    arrays, names = [], []
    for column in columns_of(config):
        array = batch.column(column.name)
        try:
            arrays.append(_cast(array, column.role, config))
        except pa.ArrowInvalid as cause:
            raise DataRejectedError(
                f"column {column.name} has a value that does not fit", required=str(_target(array.type, column.role))
            ) from cause
        names.append(column.name)
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _cast(array: pa.Array, role: Role, config: RetrainConfig) -> pa.Array:
    if role == "event_time":
        if array.type.tz is None:
            zone = config.data.event_time_zone or config.time_zone
            array = pc.assume_timezone(array, zone, ambiguous="earliest", nonexistent="earliest")
        return array.cast(_CANONICAL[role], safe=False)
    result = array.cast(_target(array.type, role))
    result.validate(full=True)
    return result


def _target(kind: pa.DataType, role: Role) -> pa.DataType:
    if role == "key":
        return pa.int64() if pa.types.is_integer(kind) else pa.string()
    return _CANONICAL[role]


def _allowed(kind: pa.DataType, role: Role) -> bool:
    integer = bool(pa.types.is_integer(kind))
    if role == "label":
        return integer or bool(pa.types.is_boolean(kind))
    if role == "event_time":
        return bool(pa.types.is_timestamp(kind))
    if role == "int64":
        return integer
    if role == "numeric":
        return integer or bool(pa.types.is_floating(kind))
    return _is_text(kind) or (role == "key" and integer)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return bool(pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _zone_known(kind: pa.DataType, config: RetrainConfig) -> bool:
    return bool(kind.tz) or config.data.event_time_zone is not None


def _broken(rule: str, column: str, observed: str, required: str) -> Finding:
    return Finding(rule=rule, column=column, severity="critical", passed=False, observed=observed, required=required)
