"""What every document on disk is: canonical JSON, a schema version that readers check, keys from its inputs.

A reader refuses a schema version above the one it knows and ignores fields it does not know.
"""

import hashlib
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json

from deepfm.errors import IntegrityError


def sha256_hex(data: bytes | memoryview) -> str:
    """The SHA-256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def stage_key(*parts: object) -> str:
    """16 hex digits that stand for a stage's inputs; equal parts give equal keys in every process."""
    return sha256_hex(_canonical(list(parts)))[:16]


def _canonical(value: object) -> bytes:
    plain = from_json(to_json(value, inf_nan_mode="strings"))
    return to_json(_sorted(plain))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


class Part(BaseModel):
    """A frozen piece of a document."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class _Versioned(Part):
    """What every release can read of a document: a newer one may have lost or changed any other field."""

    schema_version: int = 1


class Document(Part):
    """A document that is stored on its own."""

    SCHEMA: ClassVar[int] = 1
    schema_version: int = 1
    """Version of this document's schema."""

    def to_bytes(self) -> bytes:
        """The canonical JSON: sorted keys, two spaces, a newline at the end."""
        plain = _sorted(self.model_dump(mode="json"))
        return to_json(plain, indent=2) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """The document in these bytes.

        Raises:
            IntegrityError: terminal; not this document, or written by a newer major version.
        """
        try:
            version = _Versioned.model_validate_json(data).schema_version
            if version <= cls.SCHEMA:
                return cls.model_validate_json(data)
        except ValidationError as cause:
            first = cause.errors()[0]
            path = ".".join(str(part) for part in first["loc"]) or "document"
            raise IntegrityError(f"{cls.__name__} is damaged: {path}: {first['msg']}", where=where) from cause
        raise IntegrityError(
            f"{cls.__name__} was written by a newer release",
            observed=f"schema version {version}",
            required=f"at most {cls.SCHEMA}",
            where=where,
            next_step="Upgrade this installation.",
        )
