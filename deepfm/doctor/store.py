"""The store: can it be reached, read and written, and does it create an object only if there is none?

The promotion log rests on that last point. A server that ignores the condition answers every writer that it has won, so
it is asked in earnest: twice in a row, and by several threads at once.
"""

import datetime as dt
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from deepfm import layout
from deepfm.doctor.checks import Check, attempt, failed, ok, refusal, skipped, warning
from deepfm.errors import AlreadyExistsError, ConfigError, DeepFMError, StoreUnavailableError
from deepfm.storage import ObjectStore

_WRITERS = 8
_ROUNDS = 3
_SKEW_SECONDS = 60.0
_UNSAFE = "this store cannot keep a promotion log safely"
_CEPH = "Ceph does what it should in a bucket whose versioning was never enabled."
_NO_RIGHT = {"access is denied", "file system is read-only"}
_CHECKS = ("store.readable", "store.writable", "store.create_if_absent", "store.race", "store.create_again")


def store(place: ObjectStore, *, read_only: bool) -> Iterator[Check]:
    """The checks of an open store; what they write below `probes/` is deleted again.

    Args:
        place: The store.
        read_only: Write nothing.
    """
    checks = list(_s3(place)) if place.url.startswith("s3://") else []
    yield from checks
    if not any(check.status == "failed" for check in checks):
        readable = attempt("store.readable", lambda: _readable(place))
        yield readable
        if readable.status != "failed":
            yield from _written(place, read_only=read_only)
        else:
            yield from (skipped(name, "the store cannot be read") for name in _CHECKS[1:])
        return
    yield from (skipped(name, "no request to the store succeeds") for name in _CHECKS)


def models_in(place: ObjectStore) -> list[str]:
    """Every model that the store holds something of."""
    return sorted({layout.model_of(found.key) for found in place.list(layout.MODELS)} - {""})


def _readable(place: ObjectStore) -> Check:
    began = time.monotonic()
    models = models_in(place)
    took = time.monotonic() - began
    named = ", ".join(models[:5]) + (" and more" if len(models) > 5 else "") or "none"
    return ok("store.readable", f"models: {named}; listed in {took:.2f} s")


def _written(place: ObjectStore, *, read_only: bool) -> Iterator[Check]:
    if read_only:
        yield from (skipped(name, "--read-only: nothing is written") for name in _CHECKS[1:])
        return
    probe = _Probe(place)
    try:
        checked = attempt("store.writable", probe.writable)
        yield _reader_only(checked)
        if checked.status == "failed":
            yield from (skipped(name, "the store cannot be written") for name in _CHECKS[2:])
            return
        yield attempt("store.create_if_absent", probe.refuses_a_second)
        yield attempt("store.race", probe.lets_one_win)
        yield attempt("store.create_again", probe.frees_what_is_deleted)
    finally:
        left = probe.clean()
    yield attempt("store.cleanup", lambda: left)


def _reader_only(check: Check) -> Check:
    """A store that may be read and not written is enough for a consumer."""
    if check.status != "failed" or not any(check.observed.startswith(words) for words in _NO_RIGHT):
        return check
    step = f"{check.next_step} Or, where models are only consumed, use --read-only.".strip()
    observed = f"reader only: can consume, cannot retrain ({check.observed})"
    return check.model_copy(update={"observed": observed, "next_step": step})


def _s3(place: ObjectStore) -> Iterator[Check]:
    """Where the bucket is, whose credentials are used, and one request that is asked once."""
    from deepfm.storage.s3 import S3Store

    if not isinstance(place, S3Store):
        return
    facts = place.describe()
    where = f"bucket {facts.bucket} at {facts.endpoint} (by {facts.setting})"
    how = f"addressed by {facts.addressing}, checksums {facts.checksums}"
    how += f", encrypted with {facts.encryption}" if facts.encryption else ""
    yield ok("store.endpoint", f"{where}, region {facts.region}, {how}")
    if facts.credentials:
        yield ok("store.credentials", f"from {facts.credentials}")
    else:
        step = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        yield failed("store.credentials", "none were found", step)
        return
    try:
        server = place.server_time()
    except StoreUnavailableError as error:
        step = f"Check {facts.setting}, the network, and whether the server runs."
        yield refusal("store.answers", error).model_copy(update={"next_step": step})
        return
    except DeepFMError as error:
        yield refusal("store.answers", error)
        return
    yield ok("store.answers", "a listing was answered")
    if server is not None:
        yield _clock(server)


def _clock(server: dt.datetime) -> Check:
    seconds = (dt.datetime.now(dt.UTC) - server).total_seconds()
    if abs(seconds) > _SKEW_SECONDS:
        observed = f"this machine is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the store"
        return warning(
            "store.clock", observed, "Set this machine's clock by the network; from 15 minutes on S3 refuses."
        )
    return ok("store.clock", f"{abs(seconds):.0f} s apart from this machine's")


class _Probe:
    """Objects of this run below `probes/`."""

    def __init__(self, place: ObjectStore) -> None:
        self._place, self._id = place, uuid4().hex
        self._keys: list[str] = []

    def writable(self) -> Check:
        """An object can be created, read back, listed."""
        key, data = self._key("first"), uuid4().hex.encode()
        self._place.create(key, data)
        if self._place.read(key) != data:
            step = "Do not use this store: it gives back other bytes than it was given."
            return failed("store.writable", "an object was read back with other bytes", step)
        if key not in {found.key for found in self._place.list(layout.PROBES)}:
            step = "Use a store whose listings show what was written."
            return failed("store.writable", "an object is not in the listing after it was written", step)
        return ok("store.writable", "created, read back and listed")

    def refuses_a_second(self) -> Check:
        """A key that is taken is refused and keeps its bytes."""
        key = self._key("twice")
        first, second = uuid4().hex.encode(), uuid4().hex.encode()
        self._place.create(key, first)
        try:
            self._place.create(key, second)
        except AlreadyExistsError:
            if self._place.read(key) == first:
                return ok("store.create_if_absent", "a second object under one key is refused")
        return _unsafe("store.create_if_absent", "a second object under one key replaced the first")

    def lets_one_win(self) -> Check:
        """Of writers that begin at once exactly one wins, and its bytes are stored."""
        for number in range(_ROUNDS):
            key = self._key(f"race-{number}")
            winners = self._race(key)
            if len(winners) != 1:
                return _unsafe("store.race", f"{len(winners)} of {_WRITERS} writers of one key were told that they won")
            if self._place.read(key) != winners[0]:
                return _unsafe("store.race", "a writer was told that it won, and another one's bytes are stored")
        return ok("store.race", f"of {_WRITERS} writers at once exactly one wins, {_ROUNDS} times")

    def frees_what_is_deleted(self) -> Check:
        """The key of a deleted object is free again: a prune removes versions, and the same inputs make them again."""
        key = self._key("again")
        self._place.create(key, b"first")
        try:
            self._place.delete(key)
        except ConfigError:
            return skipped("store.create_again", "nothing may be deleted")
        try:
            self._place.create(key, b"second")
        except AlreadyExistsError:
            observed = "the key of a deleted object stays taken: versions that are pruned cannot be made again"
            return warning("store.create_again", observed, f"Use another bucket. {_CEPH}")
        return ok("store.create_again", "the key of a deleted object is free again")

    def clean(self) -> Check:
        """Nothing of this run is left."""
        try:
            for key in self._keys:
                self._place.delete(key)
            left = [found.key for found in self._place.list(layout.PROBES) if self._id in found.key]
        except DeepFMError as error:
            return warning("store.cleanup", str(error), f"Delete what is left below {self._place.url}/{layout.PROBES}.")
        if left:
            step = f"Allow s3:DeleteObject, and delete what is left below {self._place.url}/{layout.PROBES}."
            return warning("store.cleanup", f"{len(left)} probe objects are still there", step)
        return ok("store.cleanup", f"{len(self._keys)} probe objects are gone again")

    def _race(self, key: str) -> list[bytes]:
        """What those writers wrote that were told that they had won."""
        start = threading.Barrier(_WRITERS)

        def write(data: bytes) -> bytes | None:
            start.wait()
            try:
                self._place.create(key, data)
            except AlreadyExistsError:
                return None
            return data

        with ThreadPoolExecutor(_WRITERS) as pool:
            written = pool.map(write, [uuid4().hex.encode() for _ in range(_WRITERS)])
            return [data for data in written if data is not None]

    def _key(self, name: str) -> str:
        key = layout.probe_key(f"{self._id}-{name}")
        self._keys.append(key)
        return key


def _unsafe(name: str, observed: str) -> Check:
    step = f"Use a store that honours If-None-Match: *, such as AWS S3, Cloudflare R2 or SeaweedFS. {_CEPH}"
    return failed(name, f"{observed}: {_UNSAFE}", step)
