"""A recorded run, and what becomes of it when any one of its calls goes wrong or is its last.

An undisturbed run in memory leaves a picture of the store at the beginning of each stage. To try the n-th call of a
stage, a run starts from that picture: the stages before are stored already, so it is at the call within moments.
"""

import datetime as dt
import os
import re
import signal
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from deepfm import layout
from deepfm.errors import DeepFMError
from deepfm.registry import Registry
from deepfm.retraining import Direct, RunOutcome, retrain
from deepfm.serving import read_version
from deepfm.storage import LocalCache, ObjectStore, open_store
from deepfm.storage.local import LocalStore
from deepfm.workspace import Workspace
from tests.failing_disk import FailingDisk
from tests.fault_store import CHANGES, FAULTS, Call, Effect, FakeStore, Faulty
from tests.places import ROWS, WORLD, YESTERDAY, local_place
from tests.tiny_days import HOLDOUT, click_day, tiny_config

_RANDOM = re.compile(rb'(?<![0-9a-f])(?:[0-9a-f]{32}|[0-9a-f]{64})(?![0-9a-f])|(?<="created_utc": ")[^"]*')
"""Attempt ids, the digests that depend on them, and the time."""
_ORPHANS = re.compile("models/[^/]+/(versions/[^/]+/attempt|probes)/.*")
"""What a run that was cut off may leave besides."""
_MODEL = "tiny"
_DONE, _UNTYPED, _TYPED, _NOT_MET = 0, 1, 10, 11
"""How a forked run ended."""


class Stages(Direct):
    """Runs stages as plain calls and tells of the beginning of each one, by its name and how often it came before."""

    def __init__(self, begin: Callable[[str], None]) -> None:
        self._begin, self._counts = begin, Counter[str]()

    def call(self, stage: Any, workspace: Workspace, *args: Any, **kwargs: Any) -> Any:
        self._counts[stage.__name__] += 1
        self._begin(f"{stage.__name__} {self._counts[stage.__name__]}")
        return super().call(stage, workspace, *args, **kwargs)

    def each(self, stage: Any, workspace: Workspace, items: Any) -> list[Any]:
        return [self.call(stage, workspace, item) for item in items]


class Point(NamedTuple):
    """One call of a run: the n-th that was made after a stage began, counted from 1."""

    stage: str
    number: int
    operation: str
    key: str


class Recorded(NamedTuple):
    """An undisturbed run of a date."""

    clicks: dict[str, bytes]
    """What was delivered."""
    date: dt.date
    outcome: RunOutcome
    pictures: dict[str, dict[str, bytes]]
    """What the store held when each stage began; before the first one, under no name."""
    seconds: dict[str, float]
    """How long it went on from there."""
    end: dict[str, bytes]
    """What it holds after the run."""
    steady: frozenset[str]
    """Keys (without the names of attempts) whose bytes come out the same in every run."""


class Tried(NamedTuple):
    """What was tried on a run."""

    times: int
    wrong: list[str]
    """In words; empty if all is well."""


class Watch:
    """Follows a run from stage to stage, and lets one of its calls meet something."""

    def __init__(
        self, stage: str = "", number: int = 0, what: Effect | str | None = None, *, disk: FailingDisk | None = None
    ) -> None:
        self._stage, self._number, self._what, self._disk = stage, number, what, disk
        self._now, self._made, self._turn = "", 0, threading.Lock()
        self.points: list[Point] = []
        self.met = False

    def begin(self, stage: str) -> None:
        self._now, self._made = stage, 0
        if self._disk is not None:
            self._disk.active = stage == self._stage

    def choose(self, call: Call) -> Effect | str | None:
        with self._turn:  # a store is tried out by several threads
            self._made += 1
            self.points.append(Point(self._now, self._made, call.operation, call.key))
            if (self._now, self._made) != (self._stage, self._number):
                return None
            self.met = True
            return self._what


def record(folder: Path, *, seed: int = 0) -> list[Recorded]:
    """Two undisturbed runs, of a first date without a champion and of the next one with it."""
    place = local_place(folder)
    for date in WORLD:
        place.deliver(date, click_day(date, rows=ROWS, seed=seed))
    clicks = _objects(open_store(place.source))
    before: dict[str, bytes] = {}
    recorded = []
    for date in (YESTERDAY, HOLDOUT):
        once, again = (_recorded(clicks, date, before) for _ in range(2))
        ours, theirs = _comparable(once.end), _comparable(again.end)
        assert ours.keys() == theirs.keys()
        # A report tells when and where its run was.
        same = {key for key in ours if ours[key] == theirs[key] and not key.endswith(layout.REPORT_FILE)}
        recorded.append(again._replace(steady=frozenset(same)))
        before = again.end
    return recorded


def _recorded(clicks: dict[str, bytes], date: dt.date, before: Mapping[str, bytes]) -> Recorded:
    store = FakeStore(before)
    pictures, began = {"": store.objects()}, {"": time.monotonic()}

    def begin(stage: str) -> None:
        pictures[stage], began[stage] = store.objects(), time.monotonic()

    with tempfile.TemporaryDirectory() as cache:
        outcome = retrain(_workspace(store, FakeStore(clicks), Path(cache)), date, runner=Stages(begin))
    ended = time.monotonic()
    seconds = {stage: ended - moment for stage, moment in began.items()}
    return Recorded(clicks, date, outcome, pictures, seconds, store.objects(), frozenset())


def _workspace(store: ObjectStore, source: ObjectStore, cache: Path) -> Workspace:
    return Workspace(tiny_config(), store=store, source=source, cache=LocalCache(cache, 2**30))


def run(recorded: Recorded, store: ObjectStore, watch: Watch | None = None) -> RunOutcome:
    """What the date comes to in this store; the calls of store and source are watched."""
    watch = watch or Watch()
    source = Faulty(FakeStore(recorded.clicks), watch.choose)
    with tempfile.TemporaryDirectory() as cache:
        workspace = _workspace(Faulty(store, watch.choose), source, Path(cache))
        outcome = retrain(workspace, recorded.date, runner=Stages(watch.begin))
        watch.begin("end")
        return outcome


def points(recorded: Recorded, stage: str) -> list[Point]:
    """Every call of a stage, as a run makes it that starts there with nothing in its cache."""
    watch = Watch()
    run(recorded, FakeStore(recorded.pictures[stage]), watch)
    return [point for point in watch.points if point.stage == stage]


def every_fault(recorded: Recorded, stage: str) -> Tried:
    """Each fault at each call of a stage that it can befall, and one call further, which must not be there."""
    found = points(recorded, stage)
    wrong = [(point, fault, after_fault(recorded, point, fault)) for point in found for fault in befalling(point)]
    beyond = Watch(stage, len(found) + 1, "denied")
    run(recorded, FakeStore(recorded.pictures[stage]), beyond)
    more = [f"{stage} makes more than {len(found)} calls"] if beyond.met else []
    return Tried(len(wrong), [said for *_, several in wrong for said in several] + more)


def every_kill(recorded: Recorded, stage: str) -> Tried:
    """A kill before each call of a stage, and after each one that changes the store."""
    wrong = [
        after_kill(recorded, point, applied=applied)
        for point in points(recorded, stage)
        for applied in ([False, True] if point.operation in CHANGES else [False])
    ]
    return Tried(len(wrong), [said for several in wrong for said in several])


def after_fault(recorded: Recorded, point: Point, fault: str) -> list[str]:
    """What is wrong once one call met a fault and the run was started again: nothing, if all is well."""
    store = FakeStore(recorded.pictures[point.stage])
    watch = Watch(point.stage, point.number, fault)
    try:
        outcome = run(recorded, store, watch)
    except DeepFMError:
        outcome = recorded.outcome
    wrong = [] if watch.met else ["the run did not come to it"]
    if fault != "deleted":
        # What somebody has deleted is gone: a typed error, or an end without it, is all that can be had.
        wrong += [] if outcome == recorded.outcome else [f"came to {outcome}"]
        wrong += _resumed(recorded, store)
    return [f"{fault} at {point}: {said}" for said in wrong]


def after_kill(recorded: Recorded, point: Point, *, applied: bool) -> list[str]:
    """What is wrong once a process was killed at a call, before or after its effect, and the run was started again."""

    def kill(call: Call) -> None:
        try:
            if applied:
                call.apply()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    with tempfile.TemporaryDirectory() as folder:
        store = _laid_out(recorded.pictures[point.stage], Path(folder) / "store")
        child = _forked(recorded, store, Watch(point.stage, point.number, kill))
        _, status = os.waitpid(child, 0)
        wrong = [] if os.WIFSIGNALED(status) else ["the process was not killed"]
        wrong += _resumed(recorded, store)
    when = "after" if applied else "before"
    return [f"killed {when} {point}: {said}" for said in wrong]


def after_kill_in(recorded: Recorded, stage: str, *, seconds: float) -> Tried:
    """What is wrong once a process was killed that long after a stage began, and the run was started again."""
    with tempfile.TemporaryDirectory() as folder:
        store = _laid_out(recorded.pictures[stage], Path(folder) / "store")
        child = _forked(recorded, store, Watch())
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        wrong = _resumed(recorded, store)
    said = [f"killed {seconds:.3f} s after {stage!r} began: {what}" for what in wrong]
    # One that had ended by then was not killed, and counts for nothing.
    return Tried(int(os.WIFSIGNALED(status)), said)


def every_disk_fault(recorded: Recorded, stage: str) -> Tried:
    """Each call of the disk below the store and the temporary folder fails, from when a stage begins to its end."""
    wrong: list[str] = []
    for number in count(1):
        with tempfile.TemporaryDirectory() as folder:
            store = _laid_out(recorded.pictures[stage], Path(folder) / "store")
            disk = FailingDisk(Path(folder), number)
            child = _forked(recorded, store, Watch(stage, disk=disk), disk)
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            if code == _NOT_MET:
                return Tried(number - 1, wrong)
            said = [] if code in {_DONE, _TYPED} else [f"ended with code {code}"]
            said += _resumed(recorded, store)
            wrong += [f"disk call {number} of {stage!r}: {what}" for what in said]
    raise AssertionError


def _forked(recorded: Recorded, store: LocalStore, watch: Watch, disk: FailingDisk | None = None) -> int:
    """The id of a child that runs the date and ends with a code that says how."""
    child = os.fork()
    if child == 0:
        code = _UNTYPED
        try:
            # What a kill leaves in the temporary folder is gone with the store.
            tempfile.tempdir = str(store.folder.parent)
            if disk is not None:
                disk.install()
            code = _ending(recorded, store, watch)
            if disk is not None and not disk.met:
                code = _NOT_MET
        finally:
            if code == _UNTYPED:
                traceback.print_exc()
            os._exit(code)
    return child


def _ending(recorded: Recorded, store: LocalStore, watch: Watch) -> int:
    try:
        run(recorded, store, watch)
    except DeepFMError:
        return _TYPED
    return _DONE


def _laid_out(objects: Mapping[str, bytes], folder: Path) -> LocalStore:
    for key, data in objects.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return LocalStore(folder)


def _objects(store: ObjectStore) -> dict[str, bytes]:
    return {found.key: store.read(found.key) for found in store.list("")}


def _resumed(recorded: Recorded, store: ObjectStore) -> list[str]:
    """What is wrong after the date was run once more, undisturbed."""
    try:
        outcome = run(recorded, store)
    except DeepFMError as error:
        return [f"resumed, it failed: {error}"]
    wrong = [] if outcome == recorded.outcome else [f"resumed, it came to {outcome}"]
    return [*wrong, *_differences(recorded, _objects(store)), *_broken(store)]


def _differences(recorded: Recorded, objects: Mapping[str, bytes]) -> list[str]:
    """In which way the store is not as an undisturbed run leaves it."""
    ours, theirs = _comparable(objects), _comparable(recorded.end)
    wrong = [f"{key} is absent" for key in theirs.keys() - ours.keys()]
    wrong += [f"{key} is left over" for key in ours.keys() - theirs.keys() if not _ORPHANS.fullmatch(key)]
    wrong += [f"{key} is another one" for key in recorded.steady & ours.keys() if not theirs[key] <= ours[key]]
    return wrong


def _comparable(objects: Mapping[str, bytes]) -> dict[str, set[bytes]]:
    """Contents by key, both without what is random in them."""
    found: dict[str, set[bytes]] = defaultdict(set)
    for key, data in objects.items():
        name = "/".join("attempt" if len(part) == 32 else part for part in key.split("/"))
        found[name].add(_RANDOM.sub(b"", data) if key.endswith(".json") else data)
    return found


def _broken(store: ObjectStore) -> list[str]:
    """Promotions that are doubled or half, and a cache that is not the head."""
    registry = Registry(store, _MODEL)
    entries = registry.entries()
    versions = Counter(entry.version for entry in entries)
    wrong = [f"{version} is promoted {times} times" for version, times in versions.items() if times > 1]
    for entry in entries:
        read_version(store, _MODEL, entry.version, manifest_sha256=entry.manifest_sha256)
        decided = registry.decisions(entry.logical_date, entry.version)
        if entry.decision_sha256 not in {registry.record(decision)[1] for decision in decided}:
            wrong.append(f"entry {entry.sequence} has no decision")
    if store.read(layout.champion_cache(_MODEL)) != entries[-1].to_bytes():
        wrong.append("the cache is not the head")
    return wrong


def befalling(point: Point) -> list[str]:
    """The faults that can befall a call and that somebody could notice."""
    # No digest says what was delivered: clicks that arrive short, late or damaged are another delivery.
    unnoticed = {"cut", "flipped", "stale", "deleted"} if point.key.startswith("dt=") else set()
    # In a run of one writer a condition has nothing to refuse.
    passed_over = unnoticed | {"unconditional"}
    return [fault for fault, (_, calls) in FAULTS.items() if point.operation in calls and fault not in passed_over]
