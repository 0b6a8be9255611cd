"""Resume states: safetensors in the store, named by a small document that is written last.

A kill between the two leaves the older state in force. A state that is damaged, or that belongs to other inputs, is not
used: training starts again from the beginning.
"""

import logging
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from deepfm.documents import Document, sha256_hex
from deepfm.errors import IntegrityError, NotFoundError
from deepfm.layout import file_key
from deepfm.manifests import FileEntry
from deepfm.storage import ObjectStore
from deepfm.weights import pack, unpack

logger = logging.getLogger(__name__)
_POINTER = "resume.json"


class ResumePointer(Document):
    """Which resume state is in force."""

    step: int
    """Steps that it holds."""
    name: Annotated[str, Field(pattern=r"^resume-[0-9]+\.safetensors$")]
    """Its file."""
    file: FileEntry
    """Digest and size."""


class ResumeStates:
    """The resume states of one training, below one prefix."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def save(self, step: int, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Put a state in force and remove the one before it.

        Args:
            step: Steps taken.
            tensors: Contiguous tensors by name.
            plain: JSON values that go beside them.
        """
        before = self._pointer()
        data = pack(tensors, plain)
        name = f"resume-{step}.safetensors"
        self._store.write(file_key(self._prefix, name), data)
        pointer = ResumePointer(step=step, name=name, file=FileEntry(sha256=sha256_hex(data), size_bytes=len(data)))
        self._store.write(file_key(self._prefix, _POINTER), pointer.to_bytes())
        if before is not None and before.name != name:
            self._store.delete(file_key(self._prefix, before.name))

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state in force, or None if there is none that can be used."""
        pointer = self._pointer()
        if pointer is None:
            return None
        try:
            data = self._store.read(file_key(self._prefix, pointer.name))
        except NotFoundError:
            logger.warning("resume state of step %d is gone; training starts again", pointer.step)
            return None
        if sha256_hex(data) != pointer.file.sha256:
            logger.warning("resume state of step %d is damaged; training starts again", pointer.step)
            return None
        try:
            return unpack(data, where=pointer.name)
        except IntegrityError as error:
            logger.warning("%s; training starts again", error)
            return None

    def clear(self) -> None:
        """Remove what is there; called once the training's result is stored."""
        for info in self._store.list(self._prefix):
            if info.key.rpartition("/")[2].startswith("resume"):
                self._store.delete(info.key)

    def _pointer(self) -> ResumePointer | None:
        key = file_key(self._prefix, _POINTER)
        try:
            return ResumePointer.from_bytes(self._store.read(key), where=key)
        except NotFoundError:
            return None
        except IntegrityError as error:
            logger.warning("%s; training starts again", error)
            return None
