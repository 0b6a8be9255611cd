"""Malicious manifests and log entries, over model files that are sound or are not there."""

import os
from typing import Any

from deepfm import layout
from deepfm.documents import sha256_hex
from deepfm.golden import Golden
from deepfm.manifests import FileEntry, InputSpec
from deepfm.storage.local import LocalStore
from tests.attacks.models import ATTACKS, EVIL, OLD, noted, promote
from tests.factories import MODEL
from tests.tiny_models import (
    INPUTS,
    entry_of,
    model_key,
    put_champion,
    put_entry,
    put_tiny,
    put_version,
    tiny_model,
    version_of,
)


def _manifest(name: str, **changes: Any) -> None:
    """An attack by a manifest over a sound model file."""
    ATTACKS[name] = lambda store: promote(store, tiny_model().SerializeToString(), **changes)


def _entry(name: str, **changes: Any) -> None:
    """An attack by a log entry over a sound version."""
    ATTACKS[name] = lambda store: _put_entry_as(store, **changes)


def _put_entry_as(store: LocalStore, /, **changes: Any) -> None:
    """Log entry 2 names a sound version, but for the changes."""
    entry = entry_of(2, EVIL, put_tiny(store, EVIL)).model_copy(update=changes)
    store.write(layout.log_entry(MODEL, 2), entry.to_bytes())


def _file(**changes: Any) -> dict[str, FileEntry]:
    data = tiny_model().SerializeToString()
    entry = FileEntry(sha256=sha256_hex(data), size_bytes=len(data))
    return {layout.MODEL_FILE: entry.model_copy(update=changes)}


_manifest("a wrong digest", files=_file(sha256="0" * 64))
_manifest("a digest that is none", files=_file(sha256="../../etc/passwd"))
_manifest("a wrong size", files=_file(size_bytes=7))
_manifest("a negative size", files=_file(size_bytes=-1))
_manifest("a size of a petabyte", files=_file(size_bytes=10**15))
_manifest("no model file", files={})
_manifest("a model file above the attempt", files={f"../{layout.MODEL_FILE}": _file()[layout.MODEL_FILE]})
_manifest("an attempt that climbs", attempt="../../../../outside")
_manifest("an attempt that climbs in disguise", attempt="%2e%2e%2foutside")
_manifest("an attempt that climbs the other way", attempt="..\\outside")
_manifest("an absolute attempt", attempt="/etc")
_manifest("an attempt with a null character", attempt="attempt\0")
_manifest("an attempt written backwards", attempt="\u202eattempt")
_manifest("an attempt of 300 characters", attempt="a" * 300)
_manifest("another logical date", logical_date=layout.version_date(version_of(9)))
_manifest("another model's manifest", model="other")
_manifest("another version's manifest", version=version_of(9))
_manifest("a newer schema", schema_version=2)
_manifest("other inputs", inputs=(INPUTS[0], InputSpec(name="age", kind="numeric", dtype="float32")))
_manifest("no inputs", inputs=())
_manifest(
    "golden rows that are not answered so", golden=Golden(rows=({"user": "u1", "price": 0.0},), probabilities=(0.9,))
)
_manifest("golden rows of other fields", golden=Golden(rows=({"age": 3},), probabilities=(0.5,)))
_entry("an entry with another manifest's digest", manifest_sha256="a" * 64)
_entry("an entry of another model", model="other")
_entry("an entry of another number", sequence=7)
_entry("an entry whose version climbs", version="../../../outside")
_entry("an entry of a newer schema", schema_version=2)


@noted("an old manifest under the new version's key")
def _replayed(store: LocalStore) -> None:
    old = store.read(layout.version_manifest(MODEL, OLD))
    put_tiny(store, EVIL)
    store.write(layout.version_manifest(MODEL, EVIL), old)
    put_entry(store, entry_of(2, EVIL, sha256_hex(old)))


@noted("an old entry under the next number")
def _replayed_entry(store: LocalStore) -> None:
    store.write(layout.log_entry(MODEL, 2), store.read(layout.log_entry(MODEL, 1)))


@noted("a model file that was swapped after it was published")
def _swapped(store: LocalStore) -> None:
    put_champion(store, 2)
    store.write(model_key(EVIL), tiny_model(9.0).SerializeToString())


@noted("a manifest that was swapped after it was promoted")
def _swapped_manifest(store: LocalStore) -> None:
    put_champion(store, 2)
    put_version(store, EVIL, tiny_model(9.0).SerializeToString())


@noted("a model file of three gigabytes")
def _large(store: LocalStore) -> None:
    put_champion(store, 2)
    os.truncate(store.folder / model_key(EVIL), 3 * 1024**3)


@noted("a model file that never ends")
def _endless(store: LocalStore) -> None:
    put_champion(store, 2)
    path = store.folder / model_key(EVIL)
    path.unlink()
    path.symlink_to("/dev/zero")


@noted("a manifest of three gigabytes")
def _large_manifest(store: LocalStore) -> None:
    put_champion(store, 2)
    os.truncate(store.folder / layout.version_manifest(MODEL, EVIL), 3 * 1024**3)


def _document(name: str, data: bytes) -> None:
    """An attack by the bytes of a log entry, and one by the same bytes as a manifest."""

    def as_manifest(store: LocalStore) -> None:
        put_champion(store, 2)
        store.write(layout.version_manifest(MODEL, EVIL), data)
        put_entry(store, entry_of(2, EVIL, sha256_hex(data)))

    ATTACKS[f"an entry of {name}"] = lambda store: store.write(layout.log_entry(MODEL, 2), data)
    ATTACKS[f"a manifest of {name}"] = as_manifest


_document("brackets a million deep", b"[" * 1_000_000)
_document("objects a million deep", b'{"model":' * 1_000_000)
_document("a number of a million digits", b'{"sequence": ' + b"9" * 1_000_000 + b"}")
_document("a number beyond every float", b'{"schema_version": 1e999, "pos_weight": 1e999}')
_document("nothing", b"")
_document("other text", b"\xff\xfe<html>")

EVERY_ATTACK = ATTACKS
"""Those by model files, and these."""
