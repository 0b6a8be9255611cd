"""A training in a process of its own: what it takes lies in the store, and nothing is left of it that nobody wants."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deepfm import layout
from deepfm.delegation import _said_in, is_trained, request_training, train_requested, train_watched
from deepfm.errors import DeepFMError, NotFoundError, TrainingError, TrainingLostError
from deepfm.retraining import retrain, window_of
from tests.places import Place
from tests.tiny_days import HOLDOUT

SLOW: dict[str, Any] = {"training.epochs": 1000, "training.patience": 999, "training.checkpoint_every_seconds": 0.01}


@pytest.fixture(autouse=True)
def child_like_the_tests(monkeypatch, here) -> None:
    """One thread, as in this process, and the test's own cache."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DEEPFM_CACHE", str(here.folder / "cache"))


def asked_for(place: Place, changes: dict[str, Any] | None = None) -> tuple[str, str, str]:
    """Store, model and version of a request for the holdout's window."""
    workspace = place.workspace(changes)
    return workspace.store.url, workspace.model, request_training(workspace, window_of(workspace, HOLDOUT))


def children() -> list[int]:
    """Processes that train for this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
            line = stat.with_name("cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(words[1]) == os.getpid() and b"deepfm.delegation" in line and words[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture
def no_child_left() -> Iterator[None]:
    yield
    assert children() == []


@pytest.mark.usefixtures("no_child_left")
def test_a_version_trained_elsewhere_is_the_one_that_would_be_trained_here(here, reference):
    store, model, version = asked_for(here)
    told: list[tuple[str, int, int]] = []
    assert train_watched(store, model, [version], told=lambda *step: told.append(step)) == {}
    assert told[-1][0] == version
    assert told[-1][1] <= told[-1][2]
    assert is_trained(here.workspace(), version)
    again: list[tuple[str, int, int]] = []
    train_watched(store, model, [version], told=lambda *step: again.append(step))
    assert again == told[-1:]  # nothing is left to do, and that is told
    outcome = retrain(here.workspace(), HOLDOUT)
    assert outcome.version == version == reference.outcome.version
    assert outcome.challenger_auc == reference.outcome.challenger_auc


@pytest.mark.usefixtures("no_child_left")
def test_the_log_of_the_child_is_the_log_of_the_watcher(here, caplog):
    store, model, version = asked_for(here)
    with caplog.at_level("INFO", logger="deepfm"):
        train_watched(store, model, [version])
    assert any(record.name == "deepfm.training.loop" and "step" in record.message for record in caplog.records)


@pytest.mark.usefixtures("no_child_left")
def test_a_child_that_breaks_says_why_in_the_log(here, caplog, monkeypatch):
    store, model, version = asked_for(here)
    monkeypatch.setenv("PYTHONMALLOC", "nonsense")
    with pytest.raises(TrainingLostError, match=r"exit code 1; its log says more"):
        train_watched(store, model, [version])
    assert "PYTHONMALLOC" in caplog.text


@pytest.mark.usefixtures("no_child_left")
def test_each_version_has_its_own_error_and_does_not_stop_the_others(here):
    store, model, bad = asked_for(here, {"training.learning_rate": 1e30})
    _, _, good = asked_for(here)
    failed = train_watched(store, model, [bad, "2026-03-04-0123456789abcdef", good])
    assert {version: type(error) for version, error in failed.items()} == {
        bad: TrainingError,
        "2026-03-04-0123456789abcdef": NotFoundError,
    }
    assert "diverged" in str(failed[bad])
    assert is_trained(here.workspace(), good)


@pytest.mark.usefixtures("no_child_left")
def test_the_device_is_given_back_between_two_versions(here):
    store, model, first = asked_for(here)
    _, _, second = asked_for(here, {"training.seed": 2})
    assert first != second
    assert train_watched(store, model, [first, second], keep_seconds=0.0) == {}
    assert [is_trained(here.workspace(), version) for version in (first, second)] == [True, False]


def test_a_request_that_nobody_made_is_not_there(here):
    with pytest.raises(NotFoundError, match=r"request\.json"):
        train_requested(here.store, "tiny", "2026-03-04-0123456789abcdef")


@pytest.mark.usefixtures("no_child_left")
def test_a_killed_child_is_reported_as_such_and_goes_on_when_asked_again(here):
    store, model, version = asked_for(here, SLOW)

    def kill_at_first_step(*_: object) -> None:
        for pid in children():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainingLostError, match=r"signal 9: .*memory.*run again"):
        train_watched(store, model, [version], told=kill_at_first_step)


@pytest.mark.usefixtures("no_child_left")
def test_a_child_that_may_have_no_more_memory_says_so_and_what_to_do(here):
    store, model, version = asked_for(here, SLOW | {"training.batch_size": 256})

    def take_memory(*_: object) -> None:
        for pid in children():
            resource.prlimit(pid, resource.RLIMIT_AS, (2**20, 2**20))

    try:
        error: DeepFMError = train_watched(store, model, [version], told=take_memory)[version]
    except TrainingLostError as lost:  # whether Python meets the limit or a library that ends the process
        error = lost
    assert "memory" in str(error)
    assert "ower training.batch_size" in str(error)


def test_a_line_that_was_cut_off_belongs_to_the_log():
    assert _said_in('{"version": "2026-03-04-01", "done": 3, "planned": 4}\n')["done"] == 3
    for line in ('{"version": "2026-03\n', '{"log" 3}', "Traceback (most recent call last):\n", ""):
        assert _said_in(line)["text"] == line.rstrip()


@pytest.mark.usefixtures("no_child_left")
def test_a_child_that_makes_no_step_is_ended_in_the_stated_time(here):
    store, model, version = asked_for(here, SLOW)

    def freeze(*_: object) -> None:
        for pid in children():
            os.kill(pid, signal.SIGSTOP)

    began = time.monotonic()
    with pytest.raises(TrainingLostError, match="made no step: 15 s"):
        train_watched(store, model, [version], told=freeze, stall_seconds=15)
    assert time.monotonic() - began < 60


@pytest.mark.usefixtures("no_child_left")
def test_what_interrupts_the_watcher_ends_the_child(here):
    store, model, version = asked_for(here, SLOW)

    class Cancelled(BaseException):
        pass

    def cancel(*_: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        train_watched(store, model, [version], told=cancel)


def test_a_child_does_not_outlive_a_watcher_that_was_killed(here):
    store, model, version = asked_for(here, SLOW)
    program = "import sys; from deepfm.delegation import train_watched; train_watched(*sys.argv[1:3], sys.argv[3:])"
    with subprocess.Popen([sys.executable, "-c", program, store, model, version]) as watcher:
        states = here.folder / "store" / layout.training_prefix(model, version)
        deadline = time.monotonic() + 60
        while not (states / "resume.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        group = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if trains(p, version)]
        watcher.kill()
    assert len(group) == 1
    deadline = time.monotonic() + 10
    while Path(f"/proc/{group[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{group[0]}").exists()
    assert threading.active_count() < 50


def trains(cmdline: Path, version: str) -> bool:
    try:
        line = cmdline.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"-m\0deepfm.delegation" in line and version.encode() in line
