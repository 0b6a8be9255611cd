"""Any sequence of what people and retrains do to the log, against a model of the rules in a few lines."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm import layout, retraining
from deepfm.cli.options import Place
from deepfm.cli.pull import _verified
from deepfm.documents import sha256_hex
from deepfm.errors import ConflictError, DeepFMError, IntegrityError, NotFoundError, UsageError
from deepfm.manifests import Partition, ValidationReport, VersionManifest
from deepfm.pipeline import decide, evaluate, gate_key, promote
from deepfm.promotion import Operator
from deepfm.registry import Registry
from deepfm.storage import LocalCache
from deepfm.storage.local import LocalStore
from deepfm.workspace import Workspace
from tests.factories import DAY, MODEL, decision, entry
from tests.fault_store import Call, FakeStore, Faulty
from tests.small_versions import A, B, C, D, judge, publish
from tests.tiny_days import tiny_config
from tests.tiny_models import put_champion

VERSIONS = (A, B, C, D)
HOLDOUT = ValidationReport(
    model=MODEL,
    logical_date=DAY,
    key="k" * 16,
    partition=Partition(logical_date=DAY, files=(), fingerprint="f" * 16),
    accepted=True,
    rows=1000,
    quarantined_rows=0,
    valid_rows=1000,
    clicks=30,
    findings=(),
    files={},
)


class Gated(retraining.Direct):
    """Runs the real promotion; the gate, which would need clicks, says promote."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def call(self, stage: Any, workspace: Workspace, *args: Any, **kwargs: Any) -> Any:
        if stage is evaluate:
            return None
        if stage is decide:
            challenger, head, _ = cast("tuple[VersionManifest, Any, Any]", args)
            sequence = head.sequence if head else 0
            judge(
                self._workspace.store,
                challenger.version,
                "promote",
                against=sequence,
                gate_key=gate_key(workspace, HOLDOUT),
            )
            return workspace.registry.decisions(challenger.logical_date, challenger.version)[-1]
        return super().call(stage, workspace, *args, **kwargs)


def workspace_of(store: LocalStore, folder: Path) -> Workspace:
    config = tiny_config().model_copy(update={"model": MODEL})
    return Workspace(config, store=store, source=store, cache=LocalCache(folder / "cache", 2**20))


def retrain(workspace: Workspace, version: str) -> retraining.RunOutcome:
    """What a run of the version's date comes to, from the gate on."""
    manifest, _ = workspace.registry.manifest(version)
    return retraining._gate(workspace, manifest, HOLDOUT, Gated(workspace), promoting=True)


class Rules:
    """What the log has to say, kept as simply as it can be."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.seen: set[str] = set()
        self.judged: set[str] = set()
        self.held = False

    def retrain(self, version: str) -> str:
        """The status of the outcome."""
        if version not in self.seen:
            self.judged.add(version)
            if self.held:
                return "not_promoted"
            self._push(version)
        return "promoted" if version in self.stack else "not_promoted"

    def promote(self, version: str) -> str:
        if self.stack and self.stack[-1] == version:
            return "same"
        if version not in self.judged:
            return "UsageError"
        self._push(version)
        return "changed"

    def rollback(self, version: str | None) -> str:
        if not self.stack:
            return "NotFoundError"
        if version is None:
            if len(self.stack) < 2:
                return "NotFoundError"
            self.stack.pop()
            return "changed"
        if version == self.stack[-1]:
            return "same"
        if version not in self.seen:
            return "UsageError"
        if version in self.stack:
            while self.stack[-1] != version:
                self.stack.pop()
        else:
            self.stack[-1] = version
        return "changed"

    def set_held(self, *, held: bool) -> str:
        if not self.stack:
            return "NotFoundError"
        changed, self.held = held != self.held, held
        return "changed" if changed else "same"

    def _push(self, version: str) -> None:
        self.stack.append(version)
        self.seen.add(version)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("retrain"), st.sampled_from(VERSIONS)),
        st.tuples(st.just("promote"), st.sampled_from(VERSIONS)),
        st.tuples(st.just("rollback"), st.sampled_from((None, None, *VERSIONS))),
        st.tuples(st.sampled_from(("hold", "release")), st.none()),
    ),
    max_size=14,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("rules")
    store = LocalStore(folder / "store")
    publish(store, *VERSIONS)
    return workspace_of(store, folder)


def emptied(place: Workspace) -> Workspace:
    """The place with its versions, and with nothing decided or promoted."""
    for found in place.store.list(f"models/{MODEL}"):
        if not found.key.startswith(layout.versions_prefix(MODEL)):
            place.store.delete(found.key)
    # A registry does not forget how long its log was.
    return Workspace(place.config, store=place.store, source=place.source, cache=place.cache)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_every_sequence_follows_the_rules(place: Workspace, steps: Sequence[tuple[str, str | None]]) -> None:
    workspace, rules = emptied(place), Rules()
    for name, version in steps:
        before = len(workspace.registry.entries())
        expected = expectation(rules, name, version)
        assert happened(workspace, name, version) == expected, (steps, name, version)
        log = workspace.registry.entries()
        assert before <= len(log) <= before + 1
        assert (log[-1].version if log else None) == (rules.stack[-1] if rules.stack else None)
        assert (log[-1].held if log else False) == rules.held
        if expected == "changed":
            assert len(log) == before + 1
        elif name != "retrain":
            assert len(log) == before


def expectation(rules: Rules, name: str, version: str | None) -> str:
    if name == "retrain":
        return rules.retrain(str(version))
    if name == "promote":
        return rules.promote(str(version))
    return rules.rollback(version) if name == "rollback" else rules.set_held(held=name == "hold")


def happened(workspace: Workspace, name: str, version: str | None) -> str:
    if name == "retrain":
        return retrain(workspace, str(version)).status
    operator = Operator(workspace.store, MODEL, actor="ann", reason="because")
    calls = {
        "promote": lambda: operator.promote(str(version)),
        "rollback": lambda: operator.rollback(version),
        "hold": operator.hold,
        "release": operator.release,
    }
    try:
        return "changed" if calls[name]().changed else "same"
    except (UsageError, NotFoundError) as refusal:
        return type(refusal).__name__


class TestRetrain:
    def test_under_a_hold_it_records_and_says_since_when_and_why(self, place: Workspace) -> None:
        workspace = emptied(place)
        retrain(workspace, A)
        operator = Operator(workspace.store, MODEL, actor="ann", reason="sale this week")
        held = operator.hold().entry
        outcome = retrain(workspace, B)
        since = f"Promotions have been on hold since {held.created_utc:%F} by ann (sale this week): would promote."
        assert (outcome.status, outcome.verdict, outcome.reasons[0]) == ("not_promoted", "promote", since)
        assert len(workspace.registry.decisions(layout.version_date(B), B)) == 1
        assert retrain(workspace, B) == outcome
        operator.release()
        assert retrain(workspace, B).status == "promoted"

    def test_what_a_rollback_took_away_is_not_promoted_again(self, place: Workspace) -> None:
        workspace = emptied(place)
        retrain(workspace, A)
        retrain(workspace, B)
        Operator(workspace.store, MODEL, actor="ann", reason="clicks fell").rollback()
        outcome = retrain(workspace, B)
        assert (outcome.status, outcome.verdict, len(workspace.registry.entries())) == ("not_promoted", "promote", 3)
        assert "by ann (clicks fell): only a person promotes it again." in outcome.reasons[0]

    def test_what_a_person_promoted_is_not_promoted_twice(self, place: Workspace) -> None:
        workspace = emptied(place)
        Operator(workspace.store, MODEL, actor="ann", reason="a trial").promote(A, force=True)
        outcome = retrain(workspace, A)
        assert (outcome.status, outcome.verdict, len(workspace.registry.entries())) == ("promoted", None, 1)
        assert "Promoted by name on " in outcome.reasons[0]

    def test_a_hold_that_came_in_between_is_kept(self, place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        workspace = emptied(place)
        retrain(workspace, A)
        operator = Operator(workspace.store, MODEL, actor="ann", reason="stop")
        append = workspace.registry.append

        def overtaken(wanted: Any) -> Any:
            monkeypatch.setattr(workspace.registry, "append", append)
            operator.hold()
            return append(wanted)

        monkeypatch.setattr(workspace.registry, "append", overtaken)
        outcome = retrain(workspace, B)
        assert (outcome.status, outcome.verdict) == ("not_promoted", "promote")
        assert [found.operation for found in workspace.registry.entries()] == ["promote", "hold"]

    def test_the_promotion_itself_refuses_under_a_hold(self, place: Workspace) -> None:
        workspace = emptied(place)
        workspace.registry.append(entry(1).model_copy(update={"held": True}))
        with pytest.raises(DeepFMError, match="promotions are on hold"):
            promote(workspace, decision(compared_entry=1))
        assert len(Registry(workspace.store, MODEL).entries()) == 1

    def test_of_a_promotion_and_a_rollback_at_once_the_later_one_decides_again(
        self, place: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workspace = emptied(place)
        for version in (A, B):
            retrain(workspace, version)
        registry, operator = workspace.registry, Operator(workspace.store, MODEL, actor="ann", reason="clicks fell")
        append = registry.append

        def overtaken(wanted: Any) -> Any:
            monkeypatch.setattr(registry, "append", append)
            operator.rollback()
            return append(wanted)

        monkeypatch.setattr(registry, "append", overtaken)
        assert retrain(workspace, C).status == "promoted"
        log = registry.entries()
        assert [(found.operation, found.version) for found in log[2:]] == [("rollback", A), ("promote", C)]
        assert log[-1].compared_entry == 3

        def overtaken_by_a_retrain(wanted: Any) -> Any:
            monkeypatch.undo()
            retrain(workspace, D)
            return operator._registry.append(wanted)

        monkeypatch.setattr(operator._registry, "append", overtaken_by_a_retrain)
        with pytest.raises(ConflictError, match="Decide again"):
            operator.rollback()
        assert operator.rollback().entry.version == C
        assert [found.version for found in registry.entries()[4:]] == [D, C]


def test_nothing_is_read_that_is_too_long_for_the_log(tmp_path: Path) -> None:
    store, padding = LocalStore(tmp_path), b" " * (4 << 20)
    registry = Registry(store, MODEL)
    first = registry.append(entry(1))
    store.write(layout.champion_cache(MODEL), first.to_bytes() + padding)
    assert registry.head() == registry.repair_cache() == first
    assert store.read(layout.champion_cache(MODEL)) == first.to_bytes()
    store.write(layout.log_entry(MODEL, 2), entry(2).to_bytes() + padding)
    with pytest.raises(IntegrityError, match=r"too large to be what it should be: 4,19\d,\d+ bytes"):
        registry.head()


def test_what_pull_writes_is_what_was_verified() -> None:
    inner, reads = FakeStore(), itertools.count(1)
    put_champion(inner, 1)

    def cut_last(call: Call) -> str | None:
        manifest = call.operation == "read" and call.key.endswith(layout.MANIFEST)
        return "cut" if manifest and next(reads) == 2 else None

    store = Faulty(inner, cut_last)
    _, _, written = _verified(Place(store, MODEL, None), None)
    assert sha256_hex(written) == Registry(inner, MODEL).champion().manifest_sha256
    assert store.fired
