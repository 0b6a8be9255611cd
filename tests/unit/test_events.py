"""Whoever listens hears of each act once, with what it was; and whatever a listener does, the act stands."""

import datetime as dt
import logging
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from deepfm import events, layout, retention
from deepfm.errors import ConflictError, StoreUnavailableError
from deepfm.events import Event, current_actor
from deepfm.promotion import Operator
from deepfm.registry import Registry
from deepfm.retention import Retention
from deepfm.storage.local import LocalStore
from tests.factories import MODEL, VERSION, decision, entry
from tests.fault_store import Choice, FakeStore, Faulty
from tests.sinks import Sink, found_by, only
from tests.small_versions import A, B, C, judge, publish

ROOT = Path(__file__).parents[2]
SECRET = "do-not-tell"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Three published versions, all cleared by the gate."""
    store = LocalStore(tmp_path)
    publish(store, A, B, C)
    for version in (A, B, C):
        judge(store, version, "promote")
    return store


@pytest.fixture
def operator(store: LocalStore) -> Operator:
    return Operator(store, MODEL, actor="ann", reason="because")


def at_the_commit(fault: str) -> Choice:
    """The first log entry meets the fault when it is created."""
    commit = ("create", layout.log_entry(MODEL, 1))
    return lambda call: fault if (call.operation, call.key) == commit else None


def facts(event: Event) -> tuple[Any, ...]:
    return event.kind, event.version, event.sequence, event.actor, event.reasons


class TestWhatIsTold:
    def test_each_act_of_a_person_is_told_once(self, operator: Operator, heard: list[Event]) -> None:
        operator.promote(A)
        operator.promote(B)
        operator.rollback()
        operator.hold()
        operator.release()
        assert [facts(event) for event in heard] == [
            ("promote", A, 1, "ann", ("because",)),
            ("promote", B, 2, "ann", ("because",)),
            ("rollback", A, 3, "ann", ("because",)),
            ("hold", A, 4, "ann", ("because",)),
            ("release", A, 5, "ann", ("because",)),
        ]

    def test_an_act_that_changes_nothing_is_not_told(self, operator: Operator, heard: list[Event]) -> None:
        operator.promote(A)
        operator.hold()
        told = list(heard)
        operator.promote(A)
        operator.rollback(A)
        operator.hold()
        assert heard == told

    def test_a_promotion_has_the_figures_of_its_comparison(
        self, store: LocalStore, operator: Operator, heard: list[Event]
    ) -> None:
        operator.promote(A)
        judge(store, B, "inconclusive", against=1, champion=A)
        operator.promote(B)
        last = heard[-1]
        assert (last.model, last.logical_date, last.challenger_auc, last.champion_auc) == (
            MODEL,
            dt.date.fromisoformat(B[:10]),
            0.7,
            0.6,
        )

    def test_a_rejection_is_told_when_it_is_new(self, store: LocalStore, heard: list[Event]) -> None:
        judge(store, B, "reject", against=1, champion=A)
        judge(store, B, "reject", against=1, champion=A)
        (event,) = heard
        assert facts(event) == ("reject", B, None, current_actor(), ("the gate says reject",))
        assert (event.challenger_auc, event.champion_auc, event.retired) == (0.7, 0.6, ())

    def test_other_verdicts_are_no_events(self, store: LocalStore, heard: list[Event]) -> None:
        judge(store, B, "promote", against=1)
        judge(store, B, "inconclusive", against=2)
        assert heard == []

    def test_a_prune_tells_what_it_has_given_up_before_it_removes_it(
        self, store: LocalStore, operator: Operator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operator.promote(A)
        monkeypatch.setattr(retention, "_clock_ns", lambda _: time.time_ns() + 91 * 86_400 * 10**9)
        heard: list[tuple[Event, list[str]]] = []
        registry = Registry(store, MODEL)
        with only(Sink(lambda event: heard.append((event, registry.versions())))):
            for _ in range(2):
                Retention(store, MODEL, keep=1).prune(actor="bob", reason="make room")
        ((event, there),) = heard
        assert facts(event) == ("retire", A, 2, "bob", ("make room",))
        assert event.retired == (B, C)
        assert there == [A, B, C]


class TestOnce:
    def test_an_answer_that_was_lost_is_one_promotion(self, heard: list[Event]) -> None:
        faulty = Faulty(FakeStore(), at_the_commit("lost"))
        Registry(faulty, MODEL).append(entry(1))
        assert faulty.fired
        assert [event.sequence for event in heard] == [1]

    def test_an_append_that_is_repeated_is_one_promotion(self, heard: list[Event]) -> None:
        registry, wanted = Registry(FakeStore(), MODEL), entry(1)
        assert registry.append(wanted) == registry.append(wanted)
        assert len(heard) == 1

    def test_who_loses_a_race_tells_nothing(self, heard: list[Event]) -> None:
        store = FakeStore()
        Registry(store, MODEL).append(entry(1, actor="winner"))
        with pytest.raises(ConflictError):
            Registry(store, MODEL).append(entry(1, actor="loser"))
        assert [event.actor for event in heard] == ["winner"]

    def test_an_append_that_failed_tells_nothing(self, heard: list[Event]) -> None:
        with pytest.raises(StoreUnavailableError):
            Registry(Faulty(FakeStore(), at_the_commit("dropped")), MODEL).append(entry(1))
        assert heard == []


def refuses(_: Event) -> None:
    raise ValueError(SECRET)


def leaves(_: Event) -> None:
    sys.exit(SECRET)


class Absent(Sink):
    """A sink whose module is not there any more."""

    def load(self) -> Any:
        raise ModuleNotFoundError(SECRET)


class TestBrokenSinks:
    @pytest.mark.parametrize(
        ("sink", "error"),
        [
            (Sink(refuses, name="audit"), "ValueError"),
            (Sink(leaves, name="audit"), "SystemExit"),
            (Absent(refuses, name="audit"), "ModuleNotFoundError"),
        ],
    )
    def test_a_sink_that_fails_is_a_warning_and_the_others_hear(
        self, caplog: pytest.LogCaptureFixture, sink: Sink, error: str
    ) -> None:
        heard: list[Event] = []
        registry, wanted = Registry(FakeStore(), MODEL), entry(1)
        with only(sink, Sink(heard.append)), caplog.at_level(logging.WARNING):
            assert registry.append(wanted) == wanted
        (record,) = caplog.records
        assert record.getMessage() == f"event sink audit (tests:sink) may not have heard of promote {VERSION}: {error}"
        assert SECRET not in caplog.text
        assert len(heard) == 1
        assert registry.head() == wanted

    def test_a_rejection_is_recorded_whatever_its_sink_does(self) -> None:
        registry, rejected = Registry(FakeStore(), MODEL), decision().model_copy(update={"verdict": "reject"})
        with only(Sink(refuses)):
            assert registry.record(rejected)[0] == rejected

    def test_a_sink_that_hangs_is_left_behind_and_the_others_hear(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events, "PATIENCE_SECONDS", 0.05)
        heard: list[Event] = []
        end = threading.Event()
        began = time.monotonic()
        with only(Sink(lambda _: end.wait(60), name="slow"), Sink(heard.append)), caplog.at_level(logging.WARNING):
            Registry(FakeStore(), MODEL).append(entry(1))
        assert time.monotonic() - began < 10
        end.set()
        assert "event sink slow (tests:sink) may not have heard" in caplog.text
        assert "longer than 0.05 s" in caplog.text
        assert len(heard) == 1

    def test_where_no_thread_can_be_started_the_promotion_stands(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, heard: list[Event]
    ) -> None:
        def refused(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        registry, wanted = Registry(FakeStore(), MODEL), entry(2)
        registry.append(entry(1))
        monkeypatch.setattr(threading.Thread, "start", refused)
        with caplog.at_level(logging.WARNING):
            assert registry.append(wanted) == wanted
        assert "may not have heard" in caplog.text
        assert [event.sequence for event in heard] == [1]


def test_a_sink_is_called_within_the_context_of_whoever_did_it() -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[str] = []
    who.set("the run")
    with only(Sink(lambda _: seen.append(who.get()))):
        Registry(FakeStore(), MODEL).append(entry(1))
    assert seen == ["the run"]


def installed(folder: Path, name: str, code: str) -> None:
    """A package of that name lies in a folder, with a sink, as an installer would leave it."""
    (folder / f"{name}.py").write_text(code)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[deepfm.events]\n{name} = {name}:hear\n")


def test_a_package_that_is_installed_is_looked_up_once_and_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, "an_audit", "heard = []\nhear = heard.append\n")
    monkeypatch.syspath_prepend(tmp_path)
    asked: list[str] = []

    def looked_up(*, group: str) -> list[metadata.EntryPoint]:
        asked.append(group)
        return [found for found in metadata.entry_points(group=group) if found.name == "an_audit"]

    with found_by(looked_up):
        registry = Registry(FakeStore(), MODEL)
        for sequence in (1, 2):
            registry.append(entry(sequence))
    assert [event.sequence for event in sys.modules["an_audit"].heard] == [1, 2]
    assert asked == ["deepfm.events"]


def run(code: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done


TOLD = """
import sys, threading
from deepfm import events
from tests.factories import entry
from tests.sinks import Sink
"""


def test_a_sink_that_hangs_does_not_hold_up_the_exit() -> None:
    began = time.monotonic()
    run(
        f"{TOLD}\nevents.PATIENCE_SECONDS = 0.0\nevents.entry_points = lambda *, group: [Sink(lambda _: "
        "threading.Event().wait(50))]\nevents.tell(events.of_entry(entry(1)))"
    )
    assert time.monotonic() - began < 40


def test_without_a_server_the_command_line_gets_no_prefect_no_thread_and_no_word() -> None:
    done = run(
        f"{TOLD}\nfrom tests.sinks import declared\nevents.entry_points = lambda *, group: "
        "[found for found in declared() if found.group == group]\nevents.tell(events.of_entry(entry(1)))\n"
        "assert 'flows.events' in sys.modules\nassert 'prefect' not in sys.modules\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    assert (done.stdout, done.stderr) == ("", "")
