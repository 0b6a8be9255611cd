"""Tensors as safetensors bytes, with plain values beside them: no pickle anywhere."""

from typing import Any

from pydantic_core import from_json, to_json
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from deepfm.errors import IntegrityError


def pack(tensors: dict[str, Tensor], plain: dict[str, Any]) -> bytes:
    """One safetensors file: the tensors, and the plain values as JSON in its header."""
    return save(
        {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, {"plain": to_json(plain).decode()}
    )


def unpack(data: bytes, *, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the plain values of a safetensors file.

    Raises:
        IntegrityError: terminal; the bytes are not such a file.
    """
    try:
        tensors = load(data)
        header = from_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        plain = from_json(header["__metadata__"]["plain"])
    except (SafetensorError, ValueError, KeyError) as cause:
        raise IntegrityError("checkpoint is not a safetensors file of this system", where=where) from cause
    return tensors, plain
