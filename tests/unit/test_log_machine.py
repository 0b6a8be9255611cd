"""Everybody at one promotion log at once, in any order: people, retrains, late writers, prunes and a consumer.

What must hold whatever they do is said in a few lines that know nothing of how the log is kept. The machine that checks
it is let loose on the code as it is, and on code with a bug planted in it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from deepfm import retention, retraining
from deepfm.errors import ConflictError, DeepFMError, NotFoundError, StoreUnavailableError, UsageError
from deepfm.manifests import LogEntry, Verdict, VersionManifest
from deepfm.pipeline import decide, evaluate, gate_key
from deepfm.promotion import Change, Operator
from deepfm.registry import Registry
from deepfm.retention import Retention
from deepfm.serving import ChampionModel, ServedChampion
from deepfm.storage import LocalCache
from deepfm.workspace import Workspace
from tests.factories import MODEL, entry
from tests.fault_store import Call, Effect, FakeStore, Faulty
from tests.histories import stored_log
from tests.planted_bugs import (
    KnowsItselfByTheVersion,
    Overwrites,
    RetriesUnderANewAttempt,
    TakesSilenceForALoss,
    TakesSilenceForASuccess,
    TakesTheNextNumber,
)
from tests.reported_runs import holdout
from tests.small_versions import judge, model_key, publish, version_of_day
from tests.tiny_days import tiny_config

VERSIONS = [version_of_day(day) for day in range(5)]
REJECTED = VERSIONS[3]
"""What the gate turns down."""
HOLDOUT = holdout()
KEEP = 2
"""Champions that a prune leaves, whatever their age."""
PEOPLE = st.sampled_from(["ann", "bob"])
NAMES = st.sampled_from(VERSIONS)
WEATHER = st.sampled_from(["fair", "lost", "dropped", "somebody is first"])
"""What becomes of the next append."""


class Gated(retraining.Direct):
    """Runs the real promotion; the gate, which would need clicks, turns one version down."""

    def call(self, stage: Any, workspace: Workspace, *args: Any, **kwargs: Any) -> Any:
        if stage is evaluate:
            return None
        if stage is not decide:
            return super().call(stage, workspace, *args, **kwargs)
        challenger, head, _ = cast("tuple[VersionManifest, LogEntry | None, Any]", args)
        verdict: Verdict = "reject" if challenger.version == REJECTED else "promote"
        against = head.sequence if head else 0
        key = gate_key(workspace, HOLDOUT)
        judge(workspace.store, challenger.version, verdict, against=against, gate_key=key)
        decisions = workspace.registry.decisions(challenger.logical_date, challenger.version)
        return next(made for made in decisions if made.compared_entry == against)


class LogMachine(RuleBasedStateMachine):
    """One store, two people with connections of their own, a consumer, and what was seen of the log so far."""

    kind: type[Registry] = Registry

    @initialize()
    def everything_is_published(self) -> None:
        self.store = FakeStore()
        publish(self.store, *VERSIONS)
        self.weather = "fair"
        self.theirs: set[str] = set()
        self.faulty = {who: Faulty(self.store, self._next) for who in ("ann", "bob")}
        self.registries = {who: self.kind(store, MODEL) for who, store in self.faulty.items()}
        Registry(self.store, MODEL).append(entry(1).model_copy(update=self._first()))
        self.thought = {"ann": 1, "bob": 1}
        self.log: dict[int, bytes] = {}
        self.served: ServedChampion | None = None
        # Years lie between any two things that happen here.
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(retention, "_clock_ns", lambda _: 10**18)

    def teardown(self) -> None:
        self.patched.undo()

    def _next(self, call: Call) -> Effect | str | None:
        if call.operation != "create" or "/log/" not in call.key:
            return None
        weather, self.weather = self.weather, "fair"
        return self._overtaken if weather == "somebody is first" else None if weather == "fair" else weather

    def _overtaken(self, call: Call) -> Any:
        newest = self._newest()
        changes = {"sequence": newest.sequence + 1, "attempt": uuid4().hex, "operation": "promote"}
        theirs = newest.model_copy(update=changes)
        self.theirs.add(Registry(self.store, MODEL).append(theirs).attempt)
        return call.apply()

    @rule(who=PEOPLE, version=NAMES, weather=WEATHER)
    def promote(self, who: str, version: str, weather: str) -> None:
        self._act(weather, lambda: self._operator(who).promote(version, force=True))

    @rule(who=PEOPLE, version=st.none() | NAMES, weather=WEATHER)
    def roll_back(self, who: str, version: str | None, weather: str) -> None:
        self._act(weather, lambda: self._operator(who).rollback(version))

    @rule(who=PEOPLE, held=st.booleans(), weather=WEATHER)
    def hold_or_release(self, who: str, held: bool, weather: str) -> None:  # noqa: FBT001
        self._act(weather, self._operator(who).hold if held else self._operator(who).release)

    @rule(who=PEOPLE, weather=WEATHER)
    def prune(self, who: str, weather: str) -> None:
        cleaner = Retention(self.faulty[who], MODEL, keep=KEEP)
        cleaner._registry = self.registries[who]
        self._act(weather, lambda: cleaner.prune(actor=who, reason="make room"))

    @rule(who=PEOPLE, version=NAMES, weather=WEATHER)
    def retrain(self, who: str, version: str, weather: str) -> None:
        if version not in Registry(self.store, MODEL).versions():
            return
        before, ever = self._newest(), {found.version for found in self._entries()}
        store = self.faulty[who]
        cache = LocalCache(Path("unused"), 2**20)
        workspace = Workspace(tiny_config({"model": MODEL}), store=store, source=store, cache=cache)
        workspace.registry = self.registries[who]
        manifest, _ = workspace.registry.manifest(version)
        for then in (weather, "fair"):  # a run that is done again changes nothing
            self._act(then, lambda: retraining._gate(workspace, manifest, HOLDOUT, Gated(), promoting=True))
        since = self._entries()[before.sequence :]
        added = [found for found in since if found.attempt not in self.theirs]
        assert len(added) <= 1, "a retrain was promoted twice"
        assert not (added and version in {REJECTED} | ever), "a retrain promoted what was rejected or rolled back"
        assert not (added and before.held), "a retrain promoted under a hold"

    @rule(who=PEOPLE)
    def think(self, who: str) -> None:
        head = self.registries[who].head()
        assert head is not None
        self.thought[who] = head.sequence

    @rule(who=PEOPLE, weather=WEATHER)
    def wake_up_and_append(self, who: str, weather: str) -> None:
        """As a process that slept between its decision and its promotion."""
        decided, last = self.thought[who], self._newest()
        wanted = last.model_copy(update={"sequence": decided + 1, "attempt": uuid4().hex, "operation": "promote"})
        self._act(weather, lambda: self.registries[who].append(wanted))
        ours = [found for found in self._entries() if found.attempt == wanted.attempt]
        assert not (ours and decided < last.sequence), "an entry was appended against a head that was no longer one"
        assert {found.sequence for found in ours} <= {decided + 1}, "an entry took another number than its own"

    @rule()
    def refresh(self) -> None:
        newest = self._newest()
        if self.served is None:
            champion = ChampionModel.load(self.store, Registry(self.store, MODEL).champion(), threads=1)
            self.served = ServedChampion(self.store, champion, threads=1, poll_seconds=1.0)
        before = self.served.sequence
        self.served.refresh()
        assert before <= self.served.sequence == newest.sequence
        assert self.served.version == newest.version

    @invariant()
    def the_log_only_grows(self) -> None:
        log = stored_log(self.store, MODEL)
        assert sorted(log) == list(range(1, len(log) + 1)), "the log has a gap"
        assert {number: log.get(number) for number in self.log} == self.log, "an entry was changed or is gone"
        attempts = [found.attempt for found in self._entries()]
        assert len(attempts) == len(set(attempts)), "an append is in the log twice"
        self.log = log

    @invariant()
    def the_head_and_the_last_champions_can_be_loaded(self) -> None:
        newest = self._newest()
        head = Registry(self.store, MODEL).head()
        assert head == newest, "the head is not the last entry"
        champions = list(dict.fromkeys(found.version for found in reversed(self._entries())))
        objects = self.store.objects()
        assert all(model_key(version) in objects for version in champions[:KEEP]), "a prune took what has to stay"

    def _act(self, weather: str, act: Callable[[], Any]) -> None:
        """Do it, and hold what it said against the log."""
        self.weather = weather
        before = {found.attempt for found in self._entries()}
        try:
            told = act()
        except (ConflictError, UsageError, NotFoundError):
            after = {found.attempt for found in self._entries()}
            assert after - before <= self.theirs, "a refusal has changed the log"
        except StoreUnavailableError:
            return
        except DeepFMError as other:
            pytest.fail(f"unexpected: {other}")
        else:
            ours = {found.attempt for found in self._entries()} - self.theirs
            mine = told.entry if isinstance(told, Change) and told.changed else told
            assert not isinstance(mine, LogEntry) or mine.attempt in ours, "what was acknowledged is not in the log"

    def _first(self) -> dict[str, str]:
        return {"version": VERSIONS[0], "manifest_sha256": Registry(self.store, MODEL).manifest(VERSIONS[0])[1]}

    def _operator(self, who: str) -> Operator:
        operator = Operator(self.faulty[who], MODEL, actor=who, reason=f"because {uuid4().hex[:4]}")
        operator._registry = self.registries[who]
        return operator

    def _entries(self) -> list[LogEntry]:
        return [LogEntry.from_bytes(data, where="log") for _, data in sorted(stored_log(self.store, MODEL).items())]

    def _newest(self) -> LogEntry:
        return self._entries()[-1]


QUICK = settings(
    max_examples=100,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)
"""The same steps each time, and none to find a shorter way to what was found."""


def let_loose(machine: type[LogMachine]) -> None:
    run_state_machine_as_test(machine, settings=QUICK)


def test_whatever_everybody_does_the_log_stays_a_log() -> None:
    let_loose(LogMachine)


PLANTED = {
    TakesSilenceForALoss: "a refusal has changed the log",
    TakesSilenceForASuccess: "what was acknowledged is not in the log",
    RetriesUnderANewAttempt: "a refusal has changed the log|another number",
    KnowsItselfByTheVersion: "what was acknowledged is not in the log",
    Overwrites: "an entry was changed or is gone|no longer one",
    TakesTheNextNumber: "another number|no longer one",
}


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.__name__)
def test_a_bug_planted_in_the_registry_is_found(planted: type[Registry]) -> None:
    machine = type("Planted", (LogMachine,), {"kind": planted})
    with pytest.raises(AssertionError, match=PLANTED[planted]):
        let_loose(machine)


def test_a_prune_that_keeps_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(entries: Sequence[LogEntry], _: int) -> list[str]:
        return [entry.version for entry in entries[-1:]]

    monkeypatch.setattr(retention, "_newest_champions", none)
    with pytest.raises(AssertionError, match="a prune took what has to stay"):
        let_loose(LogMachine)


def test_a_retrain_that_forgets_the_log_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retraining, "_settled", lambda *_: None)
    with pytest.raises(AssertionError, match="a retrain"):
        let_loose(LogMachine)
