"""What one row of a model's raw values looks like, as JSON Schema for services in any language."""

from typing import Any

from deepfm.manifests import MISSING_INT64, InputSpec, VersionManifest

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": ["string", "null"]},
    "int64": {"type": ["integer", "null"], "minimum": MISSING_INT64, "maximum": -MISSING_INT64 - 1},
    "float32": {"type": ["number", "null"]},
}
_MISSING = {
    "string": 'null or "" is missing; in the file\'s tensor of strings it is ""',
    "int64": "null is missing; in the file's tensor of int64 it is -9223372036854775808",
    "float32": "null is missing and becomes the mean of training; in the file's tensor of float32 it is NaN",
}
_UNSEEN = "A value that training did not see often enough is scored as unseen."


def row_schema(manifest: VersionManifest) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one row: its fields in the order of the graph's inputs, what null and unseen mean.

    Every field has to be there, if only as null; fields that the model does not know are ignored.

    Args:
        manifest: The version.
    """
    return {
        "$schema": _DIALECT,
        "title": f"One row for {manifest.model}, version {manifest.version}",
        "description": "Raw values in; the model file answers with the calibrated probability of a click.",
        "type": "object",
        "properties": {field.name: _field(field) for field in manifest.inputs},
        "required": [field.name for field in manifest.inputs],
        "additionalProperties": True,
    }


def _field(field: InputSpec) -> dict[str, Any]:
    sentence = f"{field.kind.capitalize()}: {_MISSING[field.dtype]}."
    return {**_TYPES[field.dtype], "description": f"{sentence} {_UNSEEN}" if field.kind == "categorical" else sentence}
