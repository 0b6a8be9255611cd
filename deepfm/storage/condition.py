"""The one promise that a promotion log rests on: an object is created only if there is none. It is tried, not believed.

A server that does not know the condition acknowledges every writer: two promotions under one number would both be told
that they won. So a few objects are created in earnest, twice in a row and by several threads at once.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

from deepfm.errors import (
    AlreadyExistsError,
    ConfigError,
    DeepFMError,
    IntegrityError,
    NotFoundError,
    StoreUnavailableError,
)
from deepfm.storage.protocol import ObjectStore

_log = logging.getLogger(__name__)
_WRITERS = 4
"""Enough for two of them to meet in the gap of a server that looks first and writes then."""
_MEET_SECONDS = 5.0


def require_condition(store: ObjectStore, probe_key: Callable[[str], str]) -> None:
    """The store keeps the promise as far as two objects can show, and they are gone again.

    What a kill leaves of them means nothing to anybody.

    Args:
        store: Where a log is about to begin.
        probe_key: The key of an object that nobody reads, by its name.

    Raises:
        ConfigError: terminal; the store does not keep the promise.
        AccessDeniedError: terminal; nothing may be created there.
        IntegrityError: terminal; the store gives back other bytes than it was given.
        StoreUnavailableError: transient; no clear answer.
    """
    twice, race = (probe_key(f"{uuid4().hex}-{name}") for name in ("twice", "race"))
    try:
        require_refusal(store, twice)
        require_one_winner(store, race, writers=_WRITERS)
    finally:
        _remove(store, [twice, race])


def require_refusal(store: ObjectStore, key: str) -> None:
    """A free key was taken, and once taken it was refused and kept its bytes.

    Args:
        store: Which store.
        key: A key that is free; the object stays there.

    Raises:
        ConfigError: terminal; it was not so.
        IntegrityError: terminal; the store gives back other bytes than it was given.
        StoreUnavailableError: transient; no clear answer.
    """
    first, second = _some_bytes(), _some_bytes()
    if not _created(store, key, first):
        raise _unsafe(store, "a key that is free was refused as taken")
    acknowledged = _created(store, key, second)
    stored = _stored(store, key)
    if stored == second:
        raise _unsafe(store, "a second object under one key replaced the first")
    if acknowledged:
        raise _unsafe(store, "a second object under one key was acknowledged")
    _require_written(store, key, stored, {first})


def require_one_winner(store: ObjectStore, key: str, *, writers: int) -> None:
    """Of writers that began at once exactly one was told that it won, and its bytes are stored.

    Args:
        store: Which store.
        key: A key that is free; the object stays there.
        writers: How many, each in a thread of its own.

    Raises:
        ConfigError: terminal; it was not so.
        IntegrityError: terminal; the store gives back other bytes than it was given.
        StoreUnavailableError: transient; no clear answer.
    """
    start = threading.Barrier(writers, timeout=_MEET_SECONDS)

    def write(data: bytes) -> bool:
        with suppress(threading.BrokenBarrierError):  # a thread that could not be started is not waited for
            start.wait()
        return _created(store, key, data)

    written = [_some_bytes() for _ in range(writers)]
    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(write, written))
    winners = [data for data, first in zip(written, won, strict=True) if first]
    if len(winners) != 1:
        raise _unsafe(store, f"{len(winners)} of {writers} writers of one key were told that they won")
    stored = _stored(store, key)
    _require_written(store, key, stored, set(written))
    if stored != winners[0]:
        raise _unsafe(store, "a writer was told that it won, and another one's bytes are stored")


def _some_bytes() -> bytes:
    return uuid4().hex.encode()


def _created(store: ObjectStore, key: str, data: bytes) -> bool:
    """Whether the store says that the key was free."""
    try:
        store.create(key, data)
    except AlreadyExistsError:
        return False
    return True


def _stored(store: ObjectStore, key: str) -> bytes:
    try:
        return store.read(key)
    except NotFoundError as cause:
        raise StoreUnavailableError(
            "an object is not there after it was written",
            where=f"{store.url}/{key}",
            next_step="Try again later; if it repeats, the store does not keep what it acknowledges.",
        ) from cause


def _require_written(store: ObjectStore, key: str, stored: bytes, written: set[bytes]) -> None:
    if stored not in written:
        raise IntegrityError(
            "an object was read back with other bytes than it was written with",
            where=f"{store.url}/{key}",
            next_step="Look what it is: deepfm doctor.",
        )


def _unsafe(store: ObjectStore, observed: str) -> ConfigError:
    return ConfigError(
        "this store cannot keep a promotion log safely",
        observed=observed,
        where=store.url,
        next_step=(
            "Use a store that honours If-None-Match: *, such as AWS S3, Cloudflare R2 or SeaweedFS; "
            "Ceph does in a bucket whose versioning was never enabled."
        ),
    )


def _remove(store: ObjectStore, keys: list[str]) -> None:
    try:
        for key in keys:
            store.delete(key)
    except DeepFMError as failure:
        # They do no harm, and a writer need not have the right to delete; a prune removes them in time.
        _log.warning("objects by which the store was tried out are left: %s", failure)
