"""Which bytes an object had when it was last hashed, so that no object is read only to learn that it has not changed.

One small file per object, named by store and key, replaced in one step; any number of processes may share the folder.
An entry is a hint: it counts only if every figure of the listing is still the same, and whoever opens the object
checks the digest. What cannot be read as an entry of this format is none.
"""

import hashlib
import re
from pathlib import Path

from pydantic_core import from_json, to_json

from deepfm.storage.local import disk_errors, temporary_beside
from deepfm.storage.protocol import ObjectInfo

_FORMAT = 1
_SETTLED_NS = 2_000_000_000
"""A younger change may be followed by another one that no clock tells from it."""
_SHA256 = re.compile("[0-9a-f]{64}")


class KnownDigests:
    """A folder of digests, made by the first one that is remembered."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, store_url: str, info: ObjectInfo) -> str | None:
        """The SHA-256 of an object that is still as it was when it was hashed; None if that is not known."""
        try:
            entry = from_json(self._file(store_url, info.key).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        digest = entry.pop("sha256", None) if isinstance(entry, dict) else None
        if entry != _circumstances(store_url, info) or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            return None
        return digest

    def remember(self, store_url: str, info: ObjectInfo, *, sha256: str, began_ns: int) -> None:
        """The digest is remembered, unless the object had changed too shortly before.

        Args:
            store_url: Where the object is.
            info: The object as it was listed before it was read.
            sha256: Digest of its bytes, 64 hex digits.
            began_ns: When the reading began, nanoseconds since 1970.
        """
        if began_ns - info.changed_ns < _SETTLED_NS:
            return
        target = self._file(store_url, info.key)
        with disk_errors(str(self._root)), temporary_beside(target) as temporary:
            temporary.write_bytes(to_json({**_circumstances(store_url, info), "sha256": sha256}))
            temporary.replace(target)

    def forget(self, store_url: str, key: str) -> None:
        """Nothing is known of the object."""
        with disk_errors(str(self._root)):
            self._file(store_url, key).unlink(missing_ok=True)

    def _file(self, store_url: str, key: str) -> Path:
        return self._root / hashlib.sha256(f"{store_url}\n{key}".encode()).hexdigest()


def _circumstances(store_url: str, info: ObjectInfo) -> dict[str, object]:
    return {
        "format": _FORMAT,
        "store": store_url,
        "key": info.key,
        "size_bytes": info.size_bytes,
        "tag": info.tag,
        "changed_ns": info.changed_ns,
    }
