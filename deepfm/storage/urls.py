"""From a store's URL to the store."""

import re
from pathlib import Path
from urllib.parse import unquote

from deepfm.errors import ConfigError, UsageError
from deepfm.storage.local import LocalStore, checked_key
from deepfm.storage.protocol import ObjectStore

_ACCEPTED = "file://./folder, file:///folder, a plain path or s3://bucket/prefix"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BUCKET_RULE = "3 to 63 lower-case letters, digits, dots and hyphens, with a letter or a digit first and last"


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


def absent_folder(store: ObjectStore) -> Path | None:
    """The folder of a local store if it is not there: nobody has made it yet, or its name was mistyped.

    To a reader such a store is one that holds nothing; only a caller that does not write knows that it was meant to.

    Raises:
        ConfigError: terminal; the folder cannot be looked at, or a file is in its place.
    """
    return store.folder if isinstance(store, LocalStore) and not store.exists() else None


def _open_s3(url: str) -> ObjectStore:
    bucket, prefix = _parts(url)
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            "bucket name is not allowed",
            observed=ascii(_parts(_shown(url))[0]),
            required=_BUCKET_RULE,
            where=ascii(_shown(url))[1:-1],
            next_step="Correct the store URL: s3://bucket/prefix.",
        )
    prefix = prefix.strip("/")
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
    return S3Store(bucket, prefix=prefix)


def _parts(url: str) -> tuple[str, str]:
    """Bucket and prefix."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix


def _refused(url: str) -> ConfigError:
    return ConfigError("store URL is not understood", observed=ascii(_shown(url)), required=_ACCEPTED)


def _shown(url: str) -> str:
    """The beginning of a URL, without what somebody may have put in front of an "@"; a secret may hold a slash."""
    return re.sub(r"(?<=://).*@|[^/]*@", "***@", url)[:160]
