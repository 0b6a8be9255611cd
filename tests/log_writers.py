"""Writers that race for one promotion log, each with a store that fails in its own way, and what they were told."""

import datetime as dt
import multiprocessing
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

from deepfm.errors import ConflictError, StoreUnavailableError, UsageError
from deepfm.manifests import LogEntry
from deepfm.registry import Registry
from deepfm.storage import ObjectStore, open_store
from tests.factories import DAY, MODEL, entry
from tests.fault_store import Faulty, by_chance
from tests.histories import Append, History, Sight, Told

WEATHER: Mapping[str, float] = {"lost": 0.2, "dropped": 0.05, "silent": 0.02, "stale": 0.03}
"""A fifth of the changes is applied without an answer; a read is answered with what was true before, or not at all."""
_PATIENCE = 20
"""Appends for each entry after which a writer gives up: with a bug in it, a log may never grow."""
_DATES_EVERY = 50
"""Entries after which retrains are about the next day."""


class Writer:
    """A retrain without its training: it looks at the head, thinks, appends above it, and decides again if it lost."""

    def __init__(self, registry: Registry, name: str, *, seed: object = 0, thinks_seconds: float = 0.0) -> None:
        self._registry, self._name, self._thinks_seconds = registry, name, thinks_seconds
        self._chances = random.Random(f"{name} {seed}")
        self.history = History([], [])

    def write(self, entries: int) -> History:
        """What happened until the log had that many entries, or until this writer has tried too often."""
        for _ in range(_PATIENCE * entries):
            head = self.look()
            if head is not None and head >= entries:
                break
            if head is not None:
                # Mostly a moment, now and then long: short thoughts win, long ones have been overtaken.
                time.sleep(self._chances.random() ** 6 * self._thinks_seconds)
                self.append(self.decide(head), head)
        return self.history

    def look(self) -> int | None:
        """Number of the head, or None if the store does not answer."""
        began = time.monotonic()
        try:
            sequence = self.head()
        except StoreUnavailableError:
            return None
        self.history.sights.append(Sight(self._name, sequence, began, time.monotonic()))
        return sequence

    def head(self) -> int:
        head = self._registry.head()
        return head.sequence if head else 0

    def decide(self, head: int) -> LogEntry:
        """The entry above the head; its date is the newest there is at that time."""
        date = DAY + dt.timedelta(days=head // _DATES_EVERY)
        return entry(head + 1, actor=self._name).model_copy(update={"decision_sha256": "e" * 64, "logical_date": date})

    def append(self, wanted: LogEntry, decided_against: int) -> Told:
        """What the writer was told."""
        began = time.monotonic()
        told: Told = "committed"
        try:
            self._registry.append(wanted)
        except (ConflictError, UsageError):
            told = "conflict"
        except StoreUnavailableError:
            told = "unknown"
        self.history.appends.append(Append(wanted, decided_against, began, time.monotonic(), told))
        return told


class Historian(Writer):
    """One that lists the log and reads the whole of it each time, as a person does who promotes by name."""

    def head(self) -> int:
        return len(self._registry.entries())


def race(
    store: Callable[[], ObjectStore],
    *,
    writers: int,
    entries: int,
    seed: object = 0,
    thinks_seconds: float = 0.0,
    kind: type[Writer] = Writer,
    registry: type[Registry] = Registry,
    weather: Mapping[str, float] = WEATHER,
) -> History:
    """What happened while that many threads brought one log to that many entries."""

    def write(number: int) -> History:
        name = f"writer {seed}-{number}"
        faulty = Faulty(store(), by_chance(name, weather))
        return kind(registry(faulty, MODEL), name, seed=seed, thinks_seconds=thinks_seconds).write(entries)

    with ThreadPoolExecutor(writers) as pool:
        return sum(pool.map(write, range(writers)), History([], []))


def race_of_processes(url: str, *, processes: int, writers: int, entries: int, thinks_seconds: float = 0.0) -> History:
    """As `race`, in several processes at once with that many writers each; the monotonic clock is one for all."""
    one = partial(_in_process, url, writers=writers, entries=entries, thinks_seconds=thinks_seconds)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        return sum(pool.map(one, range(processes)), History([], []))


def _in_process(url: str, seed: int, *, writers: int, entries: int, thinks_seconds: float) -> History:
    return race(lambda: open_store(url), writers=writers, entries=entries, seed=seed, thinks_seconds=thinks_seconds)
