"""Retention: what nobody goes back to any more makes room, and nobody can go back to what has made room.

The log decides here, too. An appended entry names the versions that are given up, and only then are their files
removed: a rollback to one of them competes with that entry for the same number, so either it comes first and the
version stays, or it comes later and is refused. A prune that was cut off is finished by the next one.

Ages are told by the store's clock alone: a machine whose clock is wrong gives up nothing too early.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple
from uuid import uuid4

from deepfm import layout
from deepfm.documents import Part
from deepfm.errors import ConflictError, StoreUnavailableError, UsageError
from deepfm.manifests import LogEntry
from deepfm.registry import Registry
from deepfm.storage import ObjectInfo, ObjectStore
from deepfm.succession import OF_THE_VERSION, succession

KEEP = 5
"""Champions that stay, whatever their age."""
OLDER_THAN_DAYS = 90
"""How long ago a version must have been replaced, or written if it never was champion."""
ORPHANED_AFTER_DAYS = 7
"""Age from which files that became no version, and objects by which a store was tried out, are of no use."""
_TRIES = 5
_DAY_NS = 86_400 * 10**9

Why = Literal["superseded", "never champion", "no version", "given up before", "probes"]


class Removal(Part):
    """What makes room: a version, files below its name that belong to none, or what trying out the store has left."""

    version: str
    """Its id; empty for probes, which belong to none."""
    why: Why
    """Replaced long ago; never promoted; left by a run that was cut off; by a removal that was; or by a probe."""
    age_days: int
    """Whole days since it was replaced, or since the newest of the files was written."""
    files: int
    """Number of objects."""
    size_bytes: int
    """Their sizes together."""


class _Found(NamedTuple):
    removal: Removal
    keys: list[str]


class Retention:
    """Which versions of a model are still of use, and the removal of the others."""

    def __init__(
        self, store: ObjectStore, model: str, *, keep: int = KEEP, older_than_days: int = OLDER_THAN_DAYS
    ) -> None:
        """The rule for one model.

        Args:
            store: Where the model is.
            model: Its name.
            keep: Newest champions that stay whatever their age; at least 1, the current one.
            older_than_days: Age from which the others go; at least 1.

        Raises:
            UsageError: terminal; a number is too small.
        """
        if keep < 1 or older_than_days < 1:
            observed = f"{keep} champions, {older_than_days} days"
            raise UsageError("retention would keep too little", observed=observed, required="at least 1 of each")
        self._store, self._model = store, model
        self._registry = Registry(store, model)
        self._keep, self._older_than_days = keep, older_than_days

    def plan(self) -> list[Removal]:
        """What a prune would remove now, by version; a probe object is written, and deleted again."""
        return [found.removal for found in self._found(self._registry.entries())]

    def prune(self, *, actor: str, reason: str) -> list[Removal]:
        """The versions are given up in the log and their files are gone; what was removed, by version.

        Args:
            actor: Who does it.
            reason: Why; it is kept in the log.

        Raises:
            ConflictError: terminal; others appended again and again in the meantime.
            StoreUnavailableError: transient; what is left is removed by the next call.
        """
        for _ in range(_TRIES):
            entries = self._registry.entries()
            found = self._found(entries)
            given_up = [removal.version for removal, _ in found if removal.why in {"superseded", "never champion"}]
            try:
                if given_up:
                    self._registry.append(_retirement(entries[-1], given_up, actor=actor, reason=reason))
            except ConflictError:
                continue  # somebody may have gone back to one of them
            for _, keys in found:
                self._remove(keys)
            return [removal for removal, _ in found]
        raise ConflictError("the log changed again and again", next_step="Run the same command again.")

    def _found(self, entries: Sequence[LogEntry]) -> list[_Found]:
        below, probes = self._below(), self._probes()
        now = _clock_ns(self._store) if below or probes else 0
        replaced = self._replaced_ns(entries)
        kept, retired = _newest_champions(entries, self._keep), succession(entries).retired
        found = _old_probes(probes, now)
        for version, objects in sorted(below.items()):
            age = now - max(info.changed_ns for info in objects)
            if version in retired:
                found += _aged(version, "given up before", objects, age, days=0)
            elif not any(layout.version_result(info.key) for info in objects):
                found += _aged(version, "no version", objects, age, days=ORPHANED_AFTER_DAYS)
            else:
                gone: list[_Found] = []
                if version in replaced and version not in kept:
                    age = now - replaced[version]
                    gone = _aged(version, "superseded", objects, age, days=self._older_than_days)
                elif entries and version not in kept:
                    gone = _aged(version, "never champion", objects, age, days=self._older_than_days)
                found += gone or self._orphans(version, objects, now)
        return found

    def _below(self) -> dict[str, list[ObjectInfo]]:
        """What is stored of each version: its manifest, its attempts and the state of its training."""
        below: defaultdict[str, list[ObjectInfo]] = defaultdict(list)
        for prefix in (layout.versions_prefix(self._model), layout.trainings_prefix(self._model)):
            for info in self._store.list(prefix):
                below[layout.name_below(prefix, info.key).partition("/")[0]].append(info)
        return {version: objects for version, objects in below.items() if layout.is_version(version)}

    def _probes(self) -> list[ObjectInfo]:
        """Objects by which the store was tried out: a kill leaves them, or a writer without the right to delete."""
        return self._store.list(layout.PROBES) + self._store.list(layout.model_probes_prefix(self._model))

    def _orphans(self, version: str, objects: Sequence[ObjectInfo], now: int) -> Iterator[_Found]:
        """The files of each attempt that did not become the version."""
        attempts: defaultdict[str, list[ObjectInfo]] = defaultdict(list)
        prefix = layout.version_prefix(self._model, version)
        for info in objects:
            attempt, slash, _ = layout.name_below(prefix, info.key).partition("/")
            if slash and info.key.startswith(f"{prefix}/"):
                attempts[attempt].append(info)
        if len(attempts) > 1:
            attempts.pop(self._registry.manifest(version)[0].attempt, None)
            for left in attempts.values():
                age = now - max(info.changed_ns for info in left)
                yield from _aged(version, "no version", left, age, days=ORPHANED_AFTER_DAYS)

    def _replaced_ns(self, entries: Sequence[LogEntry]) -> dict[str, int]:
        """When each earlier champion was last replaced, by the store's clock."""
        written = {info.key: info.changed_ns for info in self._store.list(layout.log_prefix(self._model))}
        replaced: dict[str, int] = {}
        for before, entry in pairwise(entries):
            if entry.version != before.version:
                key = layout.log_entry(self._model, entry.sequence)
                if key not in written:
                    raise _unlisted(f"{self._store.url}/{key}")
                replaced[before.version] = written[key]
                replaced.pop(entry.version, None)
        return replaced

    def _remove(self, keys: Sequence[str]) -> None:
        """The manifest first: without it the rest belongs to nothing."""
        for key in sorted(keys, key=lambda key: layout.version_result(key) is None):
            self._store.delete(key)


def _old_probes(probes: Sequence[ObjectInfo], now_ns: int) -> list[_Found]:
    """The probes that nobody can be waiting for any more."""
    old = [info for info in probes if now_ns - info.changed_ns >= ORPHANED_AFTER_DAYS * _DAY_NS]
    return _aged("", "probes", old, now_ns - max(info.changed_ns for info in old), days=0) if old else []


def _aged(version: str, why: Why, objects: Sequence[ObjectInfo], age_ns: int, *, days: int) -> list[_Found]:
    """The objects as what can go; none if they are too young."""
    if age_ns < days * _DAY_NS:
        return []
    removal = Removal(
        version=version,
        why=why,
        age_days=max(0, age_ns // _DAY_NS),
        files=len(objects),
        size_bytes=sum(info.size_bytes for info in objects),
    )
    return [_Found(removal, [info.key for info in objects])]


def _newest_champions(entries: Sequence[LogEntry], count: int) -> list[str]:
    """The versions that were champion last, the current one first."""
    newest: list[str] = []
    for entry in reversed(entries):
        if entry.version not in newest:
            newest.append(entry.version)
    return newest[:count]


def _retirement(head: LogEntry, versions: Sequence[str], *, actor: str, reason: str) -> LogEntry:
    """The entry by which versions are given up; the champion and a hold stay as they are."""
    about = head.model_dump(include=OF_THE_VERSION)
    return LogEntry(
        **about,
        model=head.model,
        sequence=head.sequence + 1,
        operation="retire",
        retired=tuple(versions),
        attempt=uuid4().hex,
        actor=actor,
        reason=reason,
        held=head.held,
        created_utc=dt.datetime.now(dt.UTC),
    )


def _clock_ns(store: ObjectStore) -> int:
    """What time it is by the store's clock, nanoseconds since 1970."""
    key = layout.probe_key(f"clock-{uuid4().hex}")
    store.write(key, b"")
    try:
        written = [info.changed_ns for info in store.list(layout.PROBES) if info.key == key]
    finally:
        store.delete(key)
    if not written:
        raise _unlisted(f"{store.url}/{key}")
    return written[0]


def _unlisted(where: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        "an object is stored and not listed yet", where=where, next_step="Run the same command again."
    )
