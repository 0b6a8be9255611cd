"""A folder as a store: an object is a file, and it is there whole or not at all.

A file is written under a name that no listing shows, flushed to the disk and then moved (`write`) or linked (`create`)
to its key. A hard link fails if the name is taken, so of any number of writers exactly one wins, and a reader never
meets an empty or partial file, as it would with `O_CREAT | O_EXCL`.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from deepfm.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConfigError,
    DeepFMError,
    NoSpaceError,
    NotFoundError,
    StoreUnavailableError,
    UsageError,
)
from deepfm.storage.protocol import ObjectInfo, require_length

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")
_CHUNK_BYTES = 1 << 20
_CAUSES = {
    errno.EFBIG: ("file is too large for this disk", "Choose a store on another file system."),
    errno.EROFS: ("file system is read-only", "Choose a store that can be written."),
    errno.EACCES: ("access is denied", "Give this user the right to read and write there."),
    errno.EPERM: ("access is denied", "Give this user the right to read and write there."),
    errno.EEXIST: ("a file is where a folder is needed", "Remove it or choose another store."),
    errno.ENOTDIR: ("a file is where a folder is needed", "Remove it or choose another store."),
    errno.EISDIR: ("a folder is where a file is needed", "Remove it or choose another store."),
}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC: "disk is full", errno.EDQUOT: "disk quota is used up"}
_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}


def checked_key(key: str) -> str:
    """The key itself, if it stays below the root of its store.

    `deepfm.layout` makes no other keys; this is the second lock on the same door.

    Raises:
        UsageError: terminal; the key is absolute, climbs with `..`, has an empty part or an unprintable character.
    """
    parts = key.split("/")
    if not key.isprintable() or not {"", ".", ".."}.isdisjoint(parts) or _TEMPORARY.fullmatch(parts[-1]):
        raise UsageError("object key is not allowed", observed=ascii(key[:160]), required="parts below the store")
    return key


@contextmanager
def disk_errors(where: str) -> Iterator[None]:
    """Within it, an error of the operating system is raised as one line of ours; what only looks like one passes.

    Args:
        where: Path or URL that the line names.

    Raises:
        AccessDeniedError: terminal; the disk is read-only, or rights are missing.
        ConfigError: terminal; the disk cannot be used for another reason.
        NoSpaceError: transient; the disk is full.
        StoreUnavailableError: transient; the disk or its server did not answer.
    """
    try:
        yield
    except OSError as cause:
        if cause.errno is None:  # of a library, about what a file holds
            raise
        raise disk_error(cause, where) from cause


def disk_error(cause: OSError, where: str) -> DeepFMError:
    """The error of ours that an error of the operating system stands for."""
    if cause.errno in _PASSING:
        return StoreUnavailableError(f"store cannot be reached now: {cause.strerror}", where=where)
    if cause.errno in _FULL:
        next_step = "Free some space, then run the same command again."
        return NoSpaceError(_FULL[cause.errno], where=where, next_step=next_step)
    problem, next_step = _CAUSES.get(cause.errno or 0, (f"store cannot be used: {cause.strerror}", ""))
    kind = AccessDeniedError if cause.errno in _DENIED else ConfigError
    return kind(problem, where=where, next_step=next_step)


@contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Within it, a free path in the target's folder that no listing shows; afterwards nothing is left there.

    The same folder means the same file system, so that a rename or a link to the target is atomic.
    """
    _ensure_folder(target.parent)
    temporary = target.parent / f".{uuid4().hex}.tmp"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _ensure_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _ensure_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())


class LocalStore:
    """An `ObjectStore` in a folder, which the first write makes."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def url(self) -> str:
        """The folder as a `file://` URL."""
        return self._root.as_uri()

    @property
    def folder(self) -> Path:
        """The folder, which may not be there yet."""
        return self._root

    def exists(self) -> bool:
        """Whether the folder is there.

        Raises:
            ConfigError: terminal; it cannot be looked at, or a file is in its place.
        """
        with disk_errors(self.url):
            try:
                mode = self._root.stat().st_mode
            except FileNotFoundError:
                return False
            if not stat.S_ISDIR(mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return True

    def read(self, key: str, *, most_bytes: int | None = None) -> bytes:
        """The whole object.

        Raises:
            NotFoundError: terminal; there is no such object.
            IntegrityError: terminal; it is longer than that.
        """
        path = self._path(key)
        with self._present(key), path.open("rb") as source:
            require_length(os.fstat(source.fileno()).st_size, most_bytes, where=self._where(key))
            return source.read()

    def write(self, key: str, data: bytes) -> None:
        """The object is in place and on the disk, over an older one if there was one."""
        target = self._path(key)
        with disk_errors(self._where(key)), temporary_beside(target) as temporary:
            _write_synced(temporary, data)
            temporary.replace(target)
            _sync_folder(target.parent)

    def create(self, key: str, data: bytes) -> None:
        """The object is in place and on the disk, and its key was free before.

        Raises:
            AlreadyExistsError: terminal; the key is taken, whatever its bytes.
        """
        target = self._path(key)
        with disk_errors(self._where(key)), temporary_beside(target) as temporary:
            _write_synced(temporary, data)
            self._link(temporary, target, key=key)
            _sync_folder(target.parent)

    def upload(self, key: str, path: Path) -> None:
        """As `write`, streamed from a local file."""
        target = self._path(key)
        with path.open("rb") as source, disk_errors(self._where(key)), temporary_beside(target) as temporary:
            with temporary.open("xb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK_BYTES)
                sink.flush()
                os.fsync(sink.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)

    def fetch(self, key: str, *, scratch: Path) -> Path:  # noqa: ARG002 - the file itself needs no scratch
        """The store's own file, which the caller must not change.

        Raises:
            NotFoundError: terminal; there is no such object.
        """
        path = self._path(key)
        with self._present(key), path.open("rb"):
            return path

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object below `prefix/` (of the whole store if it is empty), sorted by key."""
        folder = self._path(prefix) if prefix else self._root
        with disk_errors(self._where(prefix)):
            return sorted(self._objects(folder))

    def delete(self, key: str) -> None:
        """The object is gone; an absent one is no error."""
        path = self._path(key)
        with disk_errors(self._where(key)):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            _sync_folder(path.parent)

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _where(self, key: str) -> str:
        return f"{self.url}/{key}"

    @contextmanager
    def _present(self, key: str) -> Iterator[None]:
        with disk_errors(self._where(key)):
            try:
                yield
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as cause:
                raise NotFoundError("object is not there", where=self._where(key)) from cause

    def _link(self, temporary: Path, target: Path, *, key: str) -> None:
        try:
            target.hardlink_to(temporary)
        except FileExistsError as cause:
            raise AlreadyExistsError("object exists already", where=self._where(key)) from cause
        except OSError as cause:
            if cause.errno not in _NO_HARD_LINKS:
                raise
            raise ConfigError(
                "file system cannot create a file only if it is absent",
                required="hard links",
                where=self._where(key),
                next_step="Choose a store on another file system.",
            ) from cause

    def _objects(self, folder: Path) -> Iterator[ObjectInfo]:
        for parent, subfolders, names in os.walk(folder, onerror=_unless_absent, followlinks=True):
            here = Path(parent)
            # A link to a folder above would be walked for ever.
            subfolders[:] = [name for name in subfolders if not _climbs(here / name)]
            for name in names:
                if _TEMPORARY.fullmatch(name):
                    continue
                path = here / name
                try:
                    state = path.stat()
                except FileNotFoundError:  # deleted since it was listed
                    continue
                yield _info(path.relative_to(self._root).as_posix(), state)


def _info(key: str, state: os.stat_result) -> ObjectInfo:
    # The time of modification can be set, that of the inode's change cannot.
    tag = f"{state.st_ino}-{state.st_mtime_ns}-{state.st_ctime_ns}"
    return ObjectInfo(key, state.st_size, tag, max(state.st_mtime_ns, state.st_ctime_ns))


def _unless_absent(cause: OSError) -> None:
    if not isinstance(cause, FileNotFoundError | NotADirectoryError):
        raise cause


def _climbs(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
