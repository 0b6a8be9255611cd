"""Which versions exist, and which one is the champion: create-only objects, so that no race can rewrite either.

A version is its manifest, a promotion is a log entry, and both are put in place only if their key is free. The entries
are numbered without gaps; the last one is the head, and its version is the champion. `champion.json` is a copy of the
head that saves readers most of the way: they begin at the entry that it names and go up until there is none. Nothing is
believed of it that the log does not say too.
"""

import datetime as dt
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from deepfm import layout, log_errors
from deepfm.documents import sha256_hex
from deepfm.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConflictError,
    DeepFMError,
    IntegrityError,
    NotFoundError,
    StoreUnavailableError,
    UsageError,
    one_line,
)
from deepfm.events import of_entry, of_rejection, tell
from deepfm.manifests import Decision, LogEntry, VersionManifest
from deepfm.storage import ObjectStore
from deepfm.storage.condition import require_condition

_log = logging.getLogger(__name__)
_LONGEST_ENTRY_BYTES = 4 << 20
"""An entry has some kilobytes; one that a prune has written names each version that it gave up."""
_LAST_SEQUENCE = 10**12 - 1
_BLOCK = 64
_READERS = 8
"""Log entries are read in blocks, several at a time, because a store may be far away."""


class Registry:
    """The versions, decisions and promotion log of one model in a store; reading needs no right to write.

    It remembers how far it has seen the log reach. A store that shows less later is not believed: whoever decided upon
    that could promote a version twice.
    """

    def __init__(self, store: ObjectStore, model: str) -> None:
        self._store = store
        self._model = layout.checked_name(model)
        self._reached = 0

    def publish(self, manifest: VersionManifest, *, deterministic: bool) -> VersionManifest:
        """The version exists; its manifest is returned, which is an older one if there was one.

        Args:
            manifest: It names files that are stored already.
            deterministic: Whether the same inputs must give the same bytes, as they do on a CPU. On a GPU a difference
                is only logged.

        Raises:
            ConflictError: terminal; the version exists with another model file and training was deterministic.
        """
        self._check_model(manifest.model)
        key = layout.version_manifest(self._model, manifest.version)
        try:
            self._store.create(key, manifest.to_bytes())
        except AlreadyExistsError:
            stored, _ = self.manifest(manifest.version)
        else:
            return manifest
        ours, theirs = (
            m.files[layout.MODEL_FILE].sha256 if layout.MODEL_FILE in m.files else "none" for m in (manifest, stored)
        )
        if ours != theirs and deterministic:
            raise ConflictError(
                f"version {manifest.version} exists with another {layout.MODEL_FILE}",
                observed=f"sha256 {ours}",
                required=theirs,
                where=self._where(key),
                next_step="The same inputs must give the same bytes: compare the two environments.",
            )
        if ours != theirs:
            _log.warning(
                "version %s exists with another %s; the stored one is used", manifest.version, layout.MODEL_FILE
            )
        return stored

    def manifest(self, version: str) -> tuple[VersionManifest, str]:
        """The manifest of a version, and the sha256 of its stored bytes.

        Raises:
            NotFoundError: terminal; there is no such version.
            IntegrityError: terminal; the manifest is damaged or belongs to something else.
        """
        key = layout.version_manifest(self._model, version)
        data = self._store.read(key)
        manifest = VersionManifest.from_bytes(data, where=self._where(key))
        if (manifest.model, manifest.version) != (self._model, version):
            raise self._foreign(key, f"{manifest.model} {manifest.version}")
        return manifest, sha256_hex(data)

    def versions(self) -> list[str]:
        """The id of every version, oldest logical date first."""
        prefix = layout.versions_prefix(self._model)
        names = [layout.name_below(prefix, found.key).split("/") for found in self._store.list(prefix)]
        return [version for version, *rest in names if rest == [layout.MANIFEST]]

    def record(self, decision: Decision) -> tuple[Decision, str]:
        """The decision is stored; the stored one, which may be older, is returned with the sha256 of its bytes.

        A challenger that was rejected just now is told of; a decision that was there already is not.
        """
        self._check_model(decision.model)
        prefix = layout.decision_prefix(
            self._model,
            decision.logical_date,
            decision.version,
            entry=decision.compared_entry,
            gate_key=decision.gate_key,
        )
        key, data = layout.file_key(prefix, layout.DECISION_FILE), decision.to_bytes()
        try:
            self._store.create(key, data)
        except AlreadyExistsError:
            data = self._store.read(key)
        else:
            if decision.verdict == "reject":
                tell(of_rejection(decision))
        return Decision.from_bytes(data, where=self._where(key)), sha256_hex(data)

    def decisions(self, logical_date: dt.date, version: str) -> list[Decision]:
        """The decisions on a version, by the log entry that it was compared with."""
        prefix = layout.decisions_prefix(self._model, logical_date)
        start = f"{layout.checked_version(version)}-vs-"
        keys = [found.key for found in self._store.list(prefix)]
        found = [
            Decision.from_bytes(self._store.read(key), where=self._where(key))
            for key in keys
            if layout.name_below(prefix, key).startswith(start) and key.endswith(f"/{layout.DECISION_FILE}")
        ]
        return sorted(found, key=lambda decision: (decision.compared_entry, decision.gate_key))

    def head(self) -> LogEntry | None:
        """The last log entry, whose version is the champion; None before the first promotion.

        It was the last one at some moment of this call: later entries may follow at any time.

        Raises:
            IntegrityError: terminal; a log entry is damaged.
            StoreUnavailableError: transient; the store shows less of the log than it did before.
        """
        found = self._head()
        return found[0] if found else None

    def head_after(self, sequence: int) -> LogEntry | None:
        """The last log entry if it is above a number; None, for one read, if the log does not go beyond it.

        Args:
            sequence: Number of an entry that was seen before.

        Raises:
            IntegrityError: terminal; a log entry is damaged.
        """
        found = self._entry(sequence + 1)
        if found is None:
            return None
        hinted = self._hinted()
        start = hinted if hinted and hinted[0].sequence > sequence else found
        return self._climb(start)[0]

    def champion(self) -> LogEntry:
        """The last log entry, as `head`.

        Raises:
            NotFoundError: terminal; nothing has been promoted yet.
            IntegrityError: terminal; a log entry is damaged.
        """
        head = self.head()
        if head is None:
            raise NotFoundError(
                f"model {self._model} has no champion",
                where=self._store.url,
                next_step="Promote a version, or check the name.",
            )
        return head

    def entry(self, sequence: int) -> LogEntry | None:
        """The log entry of that number, or None if the log does not reach it.

        Raises:
            IntegrityError: terminal; the entry is damaged.
        """
        found = self._entry(sequence)
        return found[0] if found else None

    def entries(self) -> list[LogEntry]:
        """The whole log, oldest first.

        Raises:
            IntegrityError: terminal; an entry is damaged, or one is missing below another.
            StoreUnavailableError: transient; the store shows less of the log than it did before, or than it lists.
        """
        reached, listed = self._reached, self._listed()
        entries: list[LogEntry] = []
        with ThreadPoolExecutor(_READERS) as pool:
            while len(entries) < max(listed, default=0):
                last = min(max(listed), len(entries) + _BLOCK)
                for found in pool.map(self._entry, range(len(entries) + 1, last + 1)):
                    if found is None:
                        raise log_errors.missing(
                            len(entries) + 1, listed, where=self._where(layout.log_prefix(self._model))
                        )
                    entries.append(found[0])
        while (found := self._entry(len(entries) + 1)) is not None:
            entries.append(found[0])
        self._require_reach(len(entries), reached)
        return entries

    def append(self, entry: LogEntry) -> LogEntry:
        """The entry is in the log, and so its version is the champion; the stored entry is returned, the sinks know.

        Before the first entry the store shows that it refuses a second object under one key; a log that begins on
        another store could lose promotions later. Whatever the store answered, the log is read back: an answer may be
        lost, a server may ignore the condition, and a call may be repeated. The attempt id tells whose entry it is.

        Args:
            entry: One above the entry that its decision was made against, with a random attempt id.

        Raises:
            ConflictError: terminal; somebody else took the number. Decide again, against the new champion.
            UsageError: terminal; the entry before it does not exist.
            AccessDeniedError: terminal; the log may not be written. What was stored before stays.
            ConfigError: terminal; the store lets two writers win.
            IntegrityError: terminal; the store acknowledged the entry and holds other bytes.
            StoreUnavailableError: transient; the entry is not in the log as far as can be seen.
        """
        self._check_model(entry.model)
        key = layout.log_entry(self._model, entry.sequence)
        if entry.sequence - 1 > self._reached and self._entry(entry.sequence - 1) is None:
            raise UsageError(f"log entry {entry.sequence} would leave a gap", where=self._where(key))
        unclear: StoreUnavailableError | None = None
        acknowledged = False
        try:
            self._create(entry)
            acknowledged = True
        except AlreadyExistsError:
            _log.info("log entry %d is taken", entry.sequence)
        except StoreUnavailableError as failure:
            unclear = failure
        found = self._entry(entry.sequence)
        if found is None:
            raise unclear or log_errors.not_kept(entry.sequence, where=self._where(key))
        stored = self._own(found, entry, acknowledged=acknowledged)
        self._repair_after_commit()
        if acknowledged or unclear is not None:  # otherwise an earlier call stored it
            tell(of_entry(stored))
        return stored

    def cached(self) -> tuple[LogEntry, bytes] | None:
        """The log entry that `champion.json` copies, and its bytes; None if there is no cache.

        Raises:
            IntegrityError: terminal; the cache is damaged, or the log does not confirm it. Readers ignore it then.
        """
        key = layout.champion_cache(self._model)
        data = self._read_if_present(key)
        if data is None:
            return None
        hint = LogEntry.from_bytes(data, where=self._where(key))
        found = self._entry(hint.sequence) if hint.sequence <= _LAST_SEQUENCE else None
        if found is None or found[1] != data:
            raise IntegrityError("the log has no such entry", where=self._where(key))
        return found

    def repair_cache(self) -> LogEntry | None:
        """`champion.json` holds the head of the log, which is returned; for writers only.

        The head is found first, so the cache does not fall behind what this call has seen. Two writers at once may
        leave the older head in it: readers go up from there, and the next writer repairs it.
        """
        key = layout.champion_cache(self._model)
        found = self._head()
        if found is None:
            return None
        entry, data = found
        try:
            current = self._read_if_present(key) == data
        except IntegrityError:  # too long to be an entry
            current = False
        if not current:
            self._store.write(key, data)
        return entry

    def _head(self) -> tuple[LogEntry, bytes] | None:
        reached = self._reached
        start = self._hinted() or self._entry(1)
        head = self._climb(start) if start else None
        self._require_reach(head[0].sequence if head else 0, reached)
        return head

    def _climb(self, start: tuple[LogEntry, bytes]) -> tuple[LogEntry, bytes]:
        head = start
        while (found := self._entry(head[0].sequence + 1)) is not None:
            head = found
        return head

    def _hinted(self) -> tuple[LogEntry, bytes] | None:
        """Where the way up may begin: the entry that the cache copies, if the log confirms it."""
        try:
            return self.cached()
        except IntegrityError as damage:
            _log.warning("the cache of the champion is ignored: %s", damage)
            return None

    def _entry(self, sequence: int) -> tuple[LogEntry, bytes] | None:
        key = layout.log_entry(self._model, sequence)
        data = self._read_if_present(key)
        if data is None:
            return None
        entry = LogEntry.from_bytes(data, where=self._where(key))
        if (entry.model, entry.sequence) != (self._model, sequence):
            raise self._foreign(key, f"{entry.model} {entry.sequence}")
        self._reached = max(self._reached, sequence)
        return entry, data

    def _create(self, entry: LogEntry) -> None:
        """The entry is in place, and its key was free before; a store is tried out before it gets the first one."""
        try:
            if entry.sequence == 1 and not self._reached:
                require_condition(self._store, partial(layout.model_probe_key, self._model))
            self._store.create(layout.log_entry(self._model, entry.sequence), entry.to_bytes())
        except AccessDeniedError as denial:
            raise log_errors.not_permitted(denial, model=self._model, store=self._store.url) from denial

    def _require_reach(self, sequence: int, reached: int) -> None:
        if sequence < reached:
            raise log_errors.shorter(sequence, reached, where=self._where(layout.log_prefix(self._model)))

    def _listed(self) -> set[int]:
        listed = set()
        for found in self._store.list(layout.log_prefix(self._model)):
            try:
                listed.add(layout.log_sequence(found.key))
            except UsageError:
                _log.warning("%s is no log entry and is ignored", one_line(self._where(found.key)))
        return listed

    def _own(self, found: tuple[LogEntry, bytes], entry: LogEntry, *, acknowledged: bool) -> LogEntry:
        """The stored entry, if this append wrote it."""
        stored, data = found
        key = layout.log_entry(self._model, entry.sequence)
        if stored.attempt != entry.attempt:
            raise log_errors.taken(stored, where=self._where(key))
        if acknowledged and data != entry.to_bytes():
            raise IntegrityError(
                f"log entry {entry.sequence} was acknowledged and holds other bytes", where=self._where(key)
            )
        return stored

    def _repair_after_commit(self) -> None:
        try:
            self.repair_cache()
        except DeepFMError as failure:
            # The entry is in the log and counts: failing now would say that it does not.
            _log.warning("the cache of the champion could not be repaired: %s", failure)

    def _read_if_present(self, key: str) -> bytes | None:
        try:
            return self._store.read(key, most_bytes=_LONGEST_ENTRY_BYTES)
        except NotFoundError:
            return None

    def _check_model(self, model: str) -> None:
        if model != self._model:
            raise UsageError("document is of another model", observed=ascii(model[:80]), required=self._model)

    def _foreign(self, key: str, observed: str) -> IntegrityError:
        return IntegrityError("document lies under the key of another one", observed=observed, where=self._where(key))

    def _where(self, key: str) -> str:
        return f"{self._store.url}/{key}"
