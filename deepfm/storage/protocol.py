"""What the system asks of a store: create-if-absent is the only hard requirement."""

from pathlib import Path
from typing import NamedTuple, Protocol

from deepfm.errors import IntegrityError


class ObjectInfo(NamedTuple):
    """A stored object as a listing shows it."""

    key: str
    size_bytes: int
    tag: str = ""
    """What changes with every write of the object, whatever its bytes."""
    changed_ns: int = 0
    """When it was last written by the store's clock, nanoseconds since 1970."""


def require_length(size_bytes: int, most_bytes: int | None, *, where: str) -> None:
    """Raise if an object is longer than whoever reads it into memory allows.

    Raises:
        IntegrityError: terminal; it is.
    """
    if most_bytes is not None and size_bytes > most_bytes:
        raise IntegrityError(
            "object is too large to be what it should be",
            observed=f"{size_bytes:,} bytes",
            required=f"at most {most_bytes:,}",
            where=where,
        )


class ObjectStore(Protocol):
    """Keys are relative, joined by slashes, made by `deepfm.layout`.

    Every call may raise `StoreUnavailableError`, `NoSpaceError` (both transient), `AccessDeniedError` (terminal:
    rights, read-only disk) and other `ConfigError`s (terminal: credentials, bucket); a call on an absent key raises
    `NotFoundError`.
    """

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        ...

    def read(self, key: str, *, most_bytes: int | None = None) -> bytes:
        """The whole object.

        Raises:
            IntegrityError: terminal; it is longer than that, and was not read into memory.
        """
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put the object in place at once, over an older one if there is one (caches and resume states only)."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Put the object in place at once if the key is free.

        Raises:
            AlreadyExistsError: terminal; the key is taken, whatever its bytes.
        """
        ...

    def upload(self, key: str, path: Path) -> None:
        """As `write`, streamed from a local file."""
        ...

    def fetch(self, key: str, *, scratch: Path) -> Path:
        """A local file that holds the object: the store's own if it has one, else a download into `scratch`.

        The caller must not change the file, and removes it only if it lies in `scratch`.
        """
        ...

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object below `prefix/`, sorted by key; empty if there is none."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; removing an absent one is no error."""
        ...
