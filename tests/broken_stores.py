"""Folders that do one thing as no store may: what a server can get wrong, and has to be found out before it costs."""

import time
from pathlib import Path
from typing import Any

from deepfm.errors import AlreadyExistsError, NotFoundError
from deepfm.storage import open_store

_GAP_SECONDS = 0.01


class Odd:
    """A folder, some of whose calls are others."""

    def __init__(self, folder: Path) -> None:
        self._store = open_store(str(folder))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _require_free(self, key: str) -> None:
        try:
            self._store.read(key)
        except NotFoundError:
            return
        raise AlreadyExistsError("object exists already")


class Ignoring(Odd):
    """A server that does not know the condition and acknowledges every write."""

    def create(self, key: str, data: bytes) -> None:
        self._store.write(key, data)


class Inverting(Odd):
    """A server that takes the condition for its opposite: a free key is refused, a taken one is not."""

    def create(self, key: str, data: bytes) -> None:
        try:
            self._require_free(key)
        except AlreadyExistsError:
            self._store.write(key, data)
            return
        raise AlreadyExistsError("object exists already")


class Hasty(Odd):
    """A server that looks first and writes then; whoever comes in between is written over."""

    def create(self, key: str, data: bytes) -> None:
        self._require_free(key)
        time.sleep(_GAP_SECONDS)
        self._store.write(key, data)


class Framing(Odd):
    """A server that does not know checksum trailers, and keeps them with the frames of the body around them."""

    signature = b""

    def write(self, key: str, data: bytes) -> None:
        head, tail = (b"%x%s\r\n" % (size, self.signature) for size in (len(data), 0))
        self._store.write(key, head + data + b"\r\n" + tail + b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n")


class FramingSigned(Framing):
    """As above, where each frame is signed."""

    signature = b";chunk-signature=" + b"0" * 64


class CuttingBodies(Odd):
    """A server that keeps the beginning of a large body."""

    def write(self, key: str, data: bytes) -> None:
        self._store.write(key, data[:65_536])


class LosingTheLastPart(Odd):
    """A server that puts an upload together without its last part."""

    def upload(self, key: str, path: Path) -> None:
        self._store.write(key, path.read_bytes()[: 8 << 20])


class Flipping(Odd):
    """A disk that turns a bit round."""

    def write(self, key: str, data: bytes) -> None:
        self._store.write(key, data[:20] + bytes([data[20] ^ 1]) + data[21:])
