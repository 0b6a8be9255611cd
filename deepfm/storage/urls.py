"""From a store's URL to the store."""

import re
from pathlib import Path
from urllib.parse import unquote

from deepfm.errors import ConfigError, UsageError
from deepfm.storage.local import LocalStore, checked_key
from deepfm.storage.protocol import ObjectStore

_ACCEPTED = "file://./folder, file:///folder, a plain path or s3://bucket/prefix"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_S3 = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")


def open_store(url: str) -> ObjectStore:
    """The store behind a URL; nothing was read or written yet.

    A `file://` URL may be percent-encoded; a plain path is taken as it is. An `s3://` URL needs boto3, which is loaded
    only then, and the usual AWS variables.

    Args:
        url: Such as `file://./store`, `file:///srv/store`, `store` or `s3://bucket/prefix`.

    Raises:
        ConfigError: terminal; no store has such a URL, or boto3 is not installed.
    """
    if url.startswith("s3://"):
        return _open_s3(url)
    if url.startswith("file://"):
        path = unquote(url.removeprefix("file://"))
        if not path.startswith(("/", ".")):
            raise _refused(url)
    else:
        path = url
    # The shell expands "~", a configuration does not: a folder of that name is a trap.
    if not path or not path.isprintable() or path.startswith("~") or _SCHEME.match(path):
        raise _refused(url)
    return LocalStore(Path(path))


def _open_s3(url: str) -> ObjectStore:
    match = _S3.fullmatch(url)
    if match is None:
        raise _refused(url)
    prefix = (match["prefix"] or "").strip("/")
    try:
        prefix = checked_key(prefix) if prefix else ""
    except UsageError as cause:
        raise _refused(url) from cause
    try:
        from deepfm.storage.s3 import S3Store
    except ModuleNotFoundError as cause:
        raise ConfigError(
            f"store {url} needs {cause.name}, which is not installed",
            next_step='Run: pip install "deepfm-retrain[serving]".',
        ) from cause
    return S3Store(match["bucket"], prefix=prefix)


def _refused(url: str) -> ConfigError:
    # Somebody may have put credentials in front of an "@".
    shown = re.sub(r"[^/]*@", "***@", url[:160])
    return ConfigError("store URL is not understood", observed=ascii(shown), required=_ACCEPTED)
