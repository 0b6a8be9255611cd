"""What a person may do to a promotion log: promote by name, go back, hold automatic promotions and release them.

The gate compares, a person decides. Every act is one appended entry with a name and a reason, made against the head
that the person saw: whoever is second gets a conflict and decides again.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from deepfm import layout
from deepfm.documents import Part
from deepfm.errors import NotFoundError, UsageError
from deepfm.manifests import Decision, LogEntry, Operation
from deepfm.registry import Registry
from deepfm.storage import ObjectStore
from deepfm.succession import OF_THE_VERSION, succession

_LONGEST_REASON = 500


class Change(Part):
    """What an act came to."""

    operation: Operation
    """The act."""
    changed: bool
    """Whether it appended an entry; false where everything was so already."""
    before: str | None
    """The champion's version before it."""
    entry: LogEntry
    """The last entry of the log after it."""


class Operator:
    """A person with a reason, at the promotion log of one model."""

    def __init__(self, store: ObjectStore, model: str, *, actor: str, reason: str) -> None:
        """The operator of a model's log.

        Args:
            store: Where the model is.
            model: Its name.
            actor: Who acts.
            reason: Why, 1 to 500 characters; runs of white space become one space.

        Raises:
            UsageError: terminal; there is no reason, it is too long, or it holds control characters.
        """
        self._store, self._model, self._actor = store, model, actor
        self._reason = _checked_reason(reason)
        self._registry = Registry(store, model)

    def promote(self, version: str, *, force: bool = False) -> Change:
        """The version is champion, whatever its logical date; a hold stays.

        Args:
            version: Id of the version.
            force: Whether to promote one that the gate rejected or never saw.

        Raises:
            NotFoundError: terminal; there is no such version, or a prune gave it up.
            UsageError: terminal; the version needs `force`.
            IntegrityError: terminal; the version's files are not what its manifest says.
            ConflictError: terminal; somebody else appended in the meantime.
            StoreUnavailableError: transient.
        """
        entries = self._registry.entries()
        head = entries[-1] if entries else None
        if head is not None and head.version == version:
            return _unchanged("promote", head)
        _require_kept(version, entries)
        decision = self._decision(version)
        if not force:
            _require_cleared(version, decision)
        return self._append("promote", head, self._facts(version, decision, head))

    def rollback(self, version: str | None = None, *, force: bool = False) -> Change:
        """An earlier champion is champion again; a hold stays.

        Args:
            version: Which one; unset, the one before the current champion, where champions that a rollback has left
                do not count.
            force: Whether to accept a version that never was champion.

        Raises:
            NotFoundError: terminal; there is no champion, none before it, no such version, or a prune gave it up.
            UsageError: terminal; the version never was champion.
            IntegrityError: terminal; the version's files are not what the log and its manifest say.
            ConflictError: terminal; somebody else appended in the meantime.
            StoreUnavailableError: transient.
        """
        entries = self._registry.entries()
        head = entries[-1] if entries else self._registry.champion()
        if version == head.version:
            return _unchanged("rollback", head)
        if version is None:
            target = succession(entries).previous
            if target is None:
                raise NotFoundError(
                    f"there is no champion before {head.version}",
                    where=f"log entry {head.sequence}",
                    next_step="Promote another version by name.",
                )
        else:
            target = next((entry for entry in reversed(entries) if entry.version == version), None)
            _require_kept(version, entries)
            if target is None:
                return self._append("rollback", head, self._stranger(version, head, force=force))
        self._verify(target.version, target.manifest_sha256)
        about = target.model_dump(include=OF_THE_VERSION) | {"champion_auc": None}
        return self._append("rollback", head, about)

    def hold(self) -> Change:
        """Retrains gate and record their decisions, and promote nothing until a release.

        Raises:
            NotFoundError: terminal; there is no champion to hold on to.
            ConflictError: terminal; somebody else appended in the meantime.
            StoreUnavailableError: transient.
        """
        return self._set_held("hold", held=True)

    def release(self) -> Change:
        """Retrains promote again; what was held back is promoted when its date is run again and passes the gate.

        Raises:
            NotFoundError: terminal; there is no champion.
            ConflictError: terminal; somebody else appended in the meantime.
            StoreUnavailableError: transient.
        """
        return self._set_held("release", held=False)

    def needs_force(self, version: str) -> bool:
        """Whether the gate rejected the version or never saw it, so that a promotion by name takes `force`."""
        return _obstacle(self._decision(version)) is not None

    def _set_held(self, operation: Operation, *, held: bool) -> Change:
        head = self._registry.head()
        if head is None:
            raise NotFoundError(
                f"model {self._model} has no champion to hold on to",
                next_step="Promote a version first; a retrain promotes the first one only if it clears gate.min_auc.",
            )
        if head.held == held:
            return _unchanged(operation, head)
        return self._append(operation, head, head.model_dump(include=OF_THE_VERSION), held=held)

    def _stranger(self, version: str, head: LogEntry, *, force: bool) -> dict[str, Any]:
        """What is known of a version that the log does not name."""
        about = self._facts(version, self._decision(version), head)
        if not force:
            raise UsageError(
                f"version {version} never was champion",
                next_step="Promote it by name, or add --force to call it a rollback all the same.",
            )
        return about

    def _decision(self, version: str) -> Decision | None:
        """The newest decision on a version; where two configurations of the gate differ, the one that rejects."""
        decisions = self._registry.decisions(layout.version_date(version), version)
        newest = [decision for decision in decisions if decision.compared_entry == decisions[-1].compared_entry]
        rejecting = [decision for decision in newest if decision.verdict == "reject"]
        return next(iter(rejecting or reversed(newest)), None)

    def _facts(self, version: str, decision: Decision | None, head: LogEntry | None) -> dict[str, Any]:
        """What the version's files, which are verified, and the gate's decision say of it."""
        about: dict[str, Any] = {
            "version": version,
            "logical_date": layout.version_date(version),
            "manifest_sha256": self._verify(version, decision.manifest_sha256 if decision else None),
        }
        if decision is None:
            nothing = dict.fromkeys(("decision_sha256", "challenger_auc", "champion_auc"))
            return about | nothing | {"compared_entry": head.sequence if head else 0}
        rival = decision.champion if head and decision.champion and decision.champion.version == head.version else None
        return about | {
            "decision_sha256": self._registry.record(decision)[1],
            "compared_entry": decision.compared_entry,
            "challenger_auc": decision.challenger.auc,
            "champion_auc": rival.auc if rival else None,
        }

    def _verify(self, version: str, manifest_sha256: str | None) -> str:
        """The digest of the version's manifest, once its model file has been read, checked and loaded."""
        from deepfm.serving import VersionModel, read_version

        digest = manifest_sha256 or self._registry.manifest(version)[1]
        VersionModel(*read_version(self._store, self._model, version, manifest_sha256=digest))
        return digest

    def _append(
        self, operation: Operation, head: LogEntry | None, about: dict[str, Any], *, held: bool | None = None
    ) -> Change:
        entry = LogEntry(
            model=self._model,
            sequence=head.sequence + 1 if head else 1,
            operation=operation,
            attempt=uuid4().hex,
            actor=self._actor,
            reason=self._reason,
            held=bool(head and head.held) if held is None else held,
            created_utc=dt.datetime.now(dt.UTC),
            **about,
        )
        before = head.version if head else None
        return Change(operation=operation, changed=True, before=before, entry=self._registry.append(entry))


def find_version(registry: Registry, text: str) -> str:
    """The id of the version that a text names: an id, or a logical date that has exactly one version.

    Raises:
        NotFoundError: terminal; there is none.
        UsageError: terminal; the text is neither, or the date has several versions.
    """
    versions = registry.versions()
    found = [version for version in versions if text in {version, version[:10]}]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{text} has {len(found)} versions", observed=", ".join(found), next_step="Name one of them.")
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        layout.checked_version(text)
    raise NotFoundError(
        f"version {text} is not there",
        observed=f"the newest are {', '.join(versions[-3:])}" if versions else "the model has no version yet",
        next_step=layout.VERSIONS_SHOWN if versions else "Make one: deepfm run --config M.toml --date YYYY-MM-DD",
    )


def _unchanged(operation: Operation, head: LogEntry) -> Change:
    return Change(operation=operation, changed=False, before=head.version, entry=head)


def _require_kept(version: str, entries: Sequence[LogEntry]) -> None:
    gone = succession(entries).retired.get(version)
    if gone is not None:
        raise NotFoundError(
            f"version {version} was given up",
            observed=f"{gone.created_utc:%F} by {gone.actor} ({gone.reason})",
            where=f"log entry {gone.sequence}",
            next_step=layout.VERSIONS_SHOWN,
        )


def _obstacle(decision: Decision | None) -> str | None:
    """Why a version may not be promoted without force, in words."""
    if decision is None:
        return "the gate has not judged it"
    return f"the gate rejected it: {decision.reasons[0]}" if decision.verdict == "reject" else None


def _require_cleared(version: str, decision: Decision | None) -> None:
    obstacle = _obstacle(decision)
    if obstacle is not None:
        raise UsageError(
            f"version {version} may not be promoted",
            observed=obstacle.rstrip("."),
            next_step="Add --force to promote it all the same.",
        )


def _checked_reason(reason: str) -> str:
    text = " ".join(reason.split())
    if not 0 < len(text) <= _LONGEST_REASON or not text.isprintable():
        raise UsageError(
            "--reason cannot be kept in the log",
            observed=f"{len(text)} characters" if text.isprintable() else "a control character",
            required=f"1 to {_LONGEST_REASON} printable characters",
        )
    return text
