"""Verified local files for objects of any store, kept up to a number of bytes."""

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

from deepfm.errors import IntegrityError
from deepfm.storage.digests import KnownDigests
from deepfm.storage.local import disk_errors
from deepfm.storage.protocol import ObjectInfo, ObjectStore

logger = logging.getLogger(__name__)

_INCOMING = "incoming"
_DIGESTS = "digests"
_ABANDONED_SECONDS = 86_400.0
_READS = 2
_COUNTED_EVERY = 100
"""Downloads after which the folder is looked through in any case: other processes fill it, too."""
Identity = tuple[str, int, int, int, int, str]
# Verified files, by path, inode, times of change, size and digest: one is hashed once a process, not once a use.
_verified: set[Identity] = set()


class Bytes(NamedTuple):
    """What an object holds."""

    sha256: str
    size_bytes: int


class LocalCache:
    """A folder of downloads named by digest, shared by any number of processes.

    A file is renamed into place only after its bytes were verified. Another call, of this process or another one, may
    evict it as soon as the cap asks for it: ask again whenever the file is opened; a hit reads nothing. A file
    that is open or mapped stays readable.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root.absolute()
        self._max_bytes = max_bytes
        self._digests = KnownDigests(self._root / _DIGESTS)
        self._room_bytes = self._uncounted = 0

    def known(self, store: ObjectStore, info: ObjectInfo) -> str | None:
        """The SHA-256 of a listed object that is as it was when it was last hashed here; nothing of it is read."""
        with disk_errors(str(self._root)):
            return self._digests.find(store.url, info)

    def digest(self, store: ObjectStore, info: ObjectInfo) -> Bytes:
        """What a listed object holds; it is read only if it is not known to be as it was when it was last hashed.

        What was read stays here, so that `path` finds it.

        Raises:
            NotFoundError: terminal; the object is gone.
            ConfigError: terminal; the store or the cache's disk cannot be used.
            StoreUnavailableError: transient; the store did not answer.
        """
        if (known := self.known(store, info)) is not None:
            return Bytes(known, info.size_bytes)
        began_ns = time.time_ns()
        incoming = self._root / _INCOMING
        found = store.fetch(info.key, scratch=incoming)
        with disk_errors(str(found)), found.open("rb") as source:
            before = os.fstat(source.fileno())
            held = Bytes(hashlib.file_digest(source, "sha256").hexdigest(), before.st_size)
            if found.parent == incoming:
                self._kept(found, self._root / held.sha256, held.size_bytes)
            else:
                _remember(_identity(found, held.sha256, before), found)
        self._digests.remember(store.url, info, sha256=held.sha256, began_ns=began_ns)
        return held

    def path(self, store: ObjectStore, key: str, *, sha256: str, size_bytes: int) -> Path:
        """A local file that holds exactly the bytes that the digest names.

        A store that has files of its own is not copied. Bytes that do not match are read once more, because the
        transfer may be to blame.

        Args:
            store: Where the object is.
            key: Its key.
            sha256: Digest of its bytes, 64 hex digits.
            size_bytes: Its length.

        Returns:
            A file that the caller must neither change nor remove.

        Raises:
            IntegrityError: terminal; the object has other bytes.
            NotFoundError: terminal; there is no such object.
            ConfigError: terminal; the store or the cache's disk cannot be used.
            StoreUnavailableError: transient; the store did not answer.
        """
        cached = self._root / sha256
        with disk_errors(str(self._root)):
            if _touch(cached) and _matches(cached, sha256, size_bytes, touched=True):
                return cached
        incoming = self._root / _INCOMING
        for _ in range(_READS):
            found = store.fetch(key, scratch=incoming)
            with disk_errors(str(found)):
                if _matches(found, sha256, size_bytes):
                    if found.parent != incoming:
                        return found
                    logger.info("fetched %s/%s: %d bytes", store.url, key, size_bytes)
                    return self._kept(found, cached, size_bytes)
                if found.parent == incoming:
                    found.unlink(missing_ok=True)
        self._digests.forget(store.url, key)
        raise IntegrityError(
            "object does not hold the bytes that its manifest names",
            required=f"{size_bytes} bytes with sha256 {sha256}",
            where=f"{store.url}/{key}",
            next_step="Restore the object from a backup, or make it again.",
        )

    def _kept(self, download: Path, cached: Path, size_bytes: int) -> Path:
        download.replace(cached)
        _verified.add(_identity(cached, cached.name, cached.stat(), touched=True))
        self._room_bytes -= size_bytes
        self._uncounted += 1
        if self._room_bytes < 0 or self._uncounted >= _COUNTED_EVERY:
            self._evict(keep=cached, keep_bytes=size_bytes)
        return cached

    def _evict(self, *, keep: Path, keep_bytes: int) -> None:
        """The least recently used files are gone until what remains fits, and so are downloads that a kill left."""
        files = [(state.st_atime_ns, state.st_size, path) for path, state in _files(self._root) if path != keep]
        excess = sum(size for _, size, _ in files) + keep_bytes - self._max_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
        self._room_bytes, self._uncounted = -excess, 0
        for path, state in _files(self._root / _INCOMING):
            if time.time() - state.st_mtime > _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    with os.scandir(folder) as entries:
        found = []
        for entry in entries:
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # evicted by another process
                continue
            if entry.is_file(follow_symlinks=False):
                found.append((Path(entry.path), state))
        return found


def _touch(path: Path) -> bool:
    """Whether the file is there; if so, it was used just now.

    The time of change stays as it was: it is part of what was verified.
    """
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def _identity(path: Path, sha256: str, state: os.stat_result, *, touched: bool = False) -> Identity:
    """What a file was when it was verified; without its change time where a use of the cache moves that."""
    changed_ns = 0 if touched else state.st_ctime_ns
    return str(path), state.st_ino, state.st_mtime_ns, changed_ns, state.st_size, sha256


def _matches(path: Path, sha256: str, size_bytes: int, *, touched: bool = False) -> bool:
    try:
        state = path.stat()
        identity = _identity(path, sha256, state, touched=touched)
        if state.st_size != size_bytes or identity in _verified:
            return state.st_size == size_bytes
        with path.open("rb") as source:
            matches = hashlib.file_digest(source, "sha256").hexdigest() == sha256
        if matches:
            _remember(identity, path, touched=touched)
    except FileNotFoundError:  # evicted by another process
        return False
    return matches


def _remember(identity: Identity, path: Path, *, touched: bool = False) -> None:
    """The file need not be hashed again, unless it changed while it was."""
    if _identity(path, identity[-1], path.stat(), touched=touched) == identity:
        _verified.add(identity)
