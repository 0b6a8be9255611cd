"""Which columns a partition must bring, and the stored types that `deepfm.data.casting` knows to read."""

import difflib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import pyarrow as pa

from deepfm.config import RetrainConfig
from deepfm.data.files import is_text
from deepfm.manifests import Finding

Role = Literal["label", "event_time", "string", "int64", "key", "numeric"]

_TYPES: dict[Role, str] = {
    "label": "integer, bool or float",
    "event_time": "timestamp, date or ISO 8601 text",
    "string": "string or integer",
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
    """A critical finding for every column that is missing, doubled or of a type that its role cannot be read from."""
    columns = columns_of(config)
    for column in columns:
        indices = schema.get_all_field_indices(column.name)
        if len(indices) != 1:
            observed = f"{len(indices)} columns of this name" if indices else _absent(column, schema, columns)
            yield _broken("column_present", column.name, f"{observed} in {where}", _required_name(column, config))
            continue
        kind = stored_type(schema.field(indices[0]).type)
        if is_text(schema) or pa.types.is_null(kind):
            continue  # cell by cell: text is parsed by role, nulls are missing
        if not _allowed(kind, column.role, config):
            observed = f"{schema.field(indices[0]).type} in {where}"
            yield _broken("column_type", column.name, observed, _required_type(column, kind))
        elif pa.types.is_timestamp(kind) and not kind.tz and config.data.event_time_zone is None:
            yield _broken(
                "time_zone", column.name, f"no time zone in {where}", "a zone in the type or data.event_time_zone"
            )


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, where a dictionary holds them or not."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text_type(kind: pa.DataType) -> bool:
    """Whether values of a type are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _allowed(kind: pa.DataType, role: Role, config: RetrainConfig) -> bool:
    integer, float64 = bool(pa.types.is_integer(kind)), bool(pa.types.is_float64(kind))
    number = integer or bool(pa.types.is_boolean(kind) or pa.types.is_decimal(kind))
    match role:
        case "label" | "numeric":
            return number or bool(pa.types.is_floating(kind))
        case "int64":
            return number or float64
        case "event_time":
            since_1970 = config.data.event_time_unit is not None and (integer or float64)
            return since_1970 or is_text_type(kind) or bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))
        case "string" | "key":
            whole_decimal = bool(pa.types.is_decimal(kind)) and kind.scale == 0
            return integer or float64 or whole_decimal or is_text_type(kind)


def _absent(column: Column, schema: pa.Schema, columns: tuple[Column, ...]) -> str:
    near = difflib.get_close_matches(column.name, schema.names, n=1)
    if near:
        return f"missing, did you mean {near[0]}?"
    if is_text(schema) and not {known.name for known in columns} & set(schema.names):
        # Where there is no header line, the first line is a row, which no message may show.
        return f"missing, and so is every other; the first line has {len(schema.names)} cells, is it a header line?"
    return f"missing, there are {', '.join(schema.names[:12])}"


def _required_name(column: Column, config: RetrainConfig) -> str:
    required = "one column of exactly this name"
    if column.role == "label" and "label" not in config.data.model_fields_set:
        return f'{required}; data.label is "{column.name}" unless it is set'
    return required


def _required_type(column: Column, kind: pa.DataType) -> str:
    required = _TYPES[column.role]
    if column.role == "event_time" and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return f'{required}; for integers since 1970 set data.event_time_unit to "s", "ms" or "us"'
    if column.role == "numeric" and is_text_type(kind):
        return f'{required}; for text set fields.{column.name}.kind to "categorical"'
    if column.role == "int64" and is_text_type(kind):
        return f'{required}; for text set fields.{column.name}.dtype to "string"'
    return required


def _broken(rule: str, column: str, observed: str, required: str) -> Finding:
    return Finding(rule=rule, column=column, severity="critical", passed=False, observed=observed, required=required)
