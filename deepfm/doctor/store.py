"""The store: can it be read and written, does it keep bytes, and does it create an object only if there is none?

The promotion log rests on that last point (`deepfm.storage.condition`).
"""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from deepfm import layout
from deepfm.doctor.bucket import bucket
from deepfm.doctor.checks import Check, attempt, failed, ok, refusal, skipped, warning
from deepfm.errors import AccessDeniedError, AlreadyExistsError, DeepFMError
from deepfm.storage import ObjectStore
from deepfm.storage.condition import require_one_winner, require_refusal
from deepfm.storage.local import disk_errors

_WRITERS = 8
_ROUNDS = 3
_CEPH = "Ceph does what it should in a bucket whose versioning was never enabled."
_CHECKS = (
    "store.readable",
    "store.writable",
    "store.bytes",
    "store.create_if_absent",
    "store.race",
    "store.create_again",
)
_SINGLE_BYTES = (1 << 20) + 1
"""Goes in one request. S3's client frames at most 1 MiB at a time, so a framed body has two frames."""
_PARTS_BYTES = (8 << 20) + 1
"""From 8 MiB on S3's client uploads in parts: these are two, a whole one and a very short one."""
_FRAME = re.compile(rb"[0-9a-fA-F]+(?:;chunk-signature=|\r\n)")
"""How a body begins whose framing was stored with it."""


def store(place: ObjectStore, *, read_only: bool) -> Iterator[Check]:
    """The checks of an open store; what they write below `probes/` is deleted again.

    Args:
        place: The store.
        read_only: Write nothing.
    """
    checks: list[Check] = []
    for check in _bucket(place):
        checks.append(check)
        yield check
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


def _bucket(place: ObjectStore) -> Iterator[Check]:
    """The checks of a bucket's surroundings; a folder has none."""
    if not place.url.startswith("s3://"):
        return
    from deepfm.storage.s3 import S3Store

    if isinstance(place, S3Store):
        yield from bucket(place)


def _written(place: ObjectStore, *, read_only: bool) -> Iterator[Check]:
    if read_only:
        yield from (skipped(name, "--read-only: nothing is written") for name in _CHECKS[1:])
        return
    probe = _Probe(place)
    try:
        checked = attempt("store.writable", probe.writable)
        yield checked
        if checked.status == "failed":
            yield from (skipped(name, "the store cannot be written") for name in _CHECKS[2:])
            return
        checked = attempt("store.bytes", probe.keeps_bytes)
        yield checked
        if checked.status == "failed":
            yield from (skipped(name, "the store does not keep bytes") for name in _CHECKS[3:])
            return
        yield attempt("store.create_if_absent", probe.refuses_a_second)
        yield attempt("store.race", probe.lets_one_win)
        yield attempt("store.create_again", probe.frees_what_is_deleted)
    finally:
        left = probe.clean()
    yield attempt("store.cleanup", lambda: left)


def _reader_only(denial: AccessDeniedError) -> Check:
    """A store that may be read and not written is enough for a consumer."""
    check = refusal("store.writable", denial, otherwise="")
    step = f"{check.next_step} Or, where models are only consumed, use --read-only.".strip()
    observed = f"reader only: can consume, cannot retrain ({check.observed})"
    return check.model_copy(update={"observed": observed, "next_step": step})


def _damaged(given: bytes, stored: bytes, *, how: str) -> Check | None:
    """What became of bytes that were not read back as they were given; None if they were."""
    if stored == given:
        return None
    name, became = "store.bytes", f"{len(given):,} bytes {how} were read back as {len(stored):,}"
    if _FRAME.match(stored) and (b"x-amz-checksum-" in stored or b";chunk-signature=" in stored):
        observed = f"{became}: the framing of the upload was stored inside the object"
        step = "Set AWS_REQUEST_CHECKSUM_CALCULATION=when_required: this server does not know checksum trailers."
        return failed(name, observed, step)
    if len(stored) != len(given):
        return failed(name, became, "Do not use this store, or look for a proxy on the way that cuts bodies.")
    first = next(place for place, (ours, theirs) in enumerate(zip(given, stored, strict=True)) if ours != theirs)
    return failed(name, f"{became}, others from byte {first:,} on", "Do not use this store: it changes what it keeps.")


class _Probe:
    """Objects of this run below `probes/`."""

    def __init__(self, place: ObjectStore) -> None:
        self._place, self._id = place, uuid4().hex
        self._keys: list[str] = []

    def writable(self) -> Check:
        """An object can be written, and is listed."""
        key = self._key("first")
        try:
            self._place.write(key, uuid4().hex.encode())
        except AccessDeniedError as denial:
            return _reader_only(denial)
        if key not in {found.key for found in self._place.list(layout.PROBES)}:
            step = "Use a store whose listings show what was written."
            return failed("store.writable", "an object is not in the listing after it was written", step)
        return ok("store.writable", "written and listed")

    def keeps_bytes(self) -> Check:
        """What is written in one request, and what is uploaded in parts, is read back as it was."""
        began = time.monotonic()
        single, parts = os.urandom(_SINGLE_BYTES), os.urandom(_PARTS_BYTES)
        key = self._key("single")
        self._place.write(key, single)
        if wrong := _damaged(single, self._place.read(key), how="in one request"):
            return wrong
        if wrong := _damaged(parts, self._there_and_back(parts), how="in parts"):
            return wrong
        sizes = f"{len(single):,} bytes in one request and {len(parts):,} in parts"
        return ok("store.bytes", f"{sizes} are read back as they were, in {time.monotonic() - began:.1f} s")

    def refuses_a_second(self) -> Check:
        """A key that is taken is refused and keeps its bytes."""
        require_refusal(self._place, self._key("twice"))
        return ok("store.create_if_absent", "a second object under one key is refused")

    def lets_one_win(self) -> Check:
        """Of writers that begin at once exactly one wins, and its bytes are stored."""
        for number in range(_ROUNDS):
            require_one_winner(self._place, self._key(f"race-{number}"), writers=_WRITERS)
        return ok("store.race", f"of {_WRITERS} writers at once exactly one wins, {_ROUNDS} times")

    def frees_what_is_deleted(self) -> Check:
        """The key of a deleted object is free again: a prune removes versions, and the same inputs make them again."""
        key = self._key("again")
        self._place.create(key, b"first")
        try:
            self._place.delete(key)
        except AccessDeniedError:
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

    def _there_and_back(self, data: bytes) -> bytes:
        key = self._key("parts")
        with disk_errors(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="deepfm-") as folder:
            local = Path(folder) / "local"
            local.write_bytes(data)
            self._place.upload(key, local)
            return self._place.fetch(key, scratch=Path(folder)).read_bytes()

    def _key(self, name: str) -> str:
        key = layout.probe_key(f"{self._id}-{name}")
        self._keys.append(key)
        return key
