"""Claims about the promotion log under writers that race: the checker bites, and it finds nothing."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from deepfm.storage import ObjectStore, open_store
from deepfm.storage.s3 import S3Store
from tests.evidence.lines import Line
from tests.factories import MODEL
from tests.fault_store import FakeStore
from tests.fault_wire import REFUSALS, spoil
from tests.histories import History, anomalies, stored_log
from tests.log_writers import race, race_of_processes
from tests.planted_bugs import PLANTED, raced
from tests.seaweed import client_of, running_seaweed

_WRITERS = 64
_ENTRIES = {"memory": 5_200, "folder": 4_000, "bucket": 1_000}
_RACES = 5


def planted(_: Path) -> Iterator[Line]:
    """Each bug in a race of its own, tried again with other seeds until it shows; the code as it is in as many."""
    found = [bug.__name__ for bug in PLANTED if any(raced(bug, seed=seed) for seed in range(_RACES))]
    missed = sorted({bug.__name__ for bug in PLANTED} - {*found})
    yield Line(
        "the checker finds planted bugs of the protocol",
        f"{len(found)} of {len(PLANTED)}{': not ' + ', '.join(missed) if missed else ''}",
        "at least 5, and all",
        len(found) >= 5 and not missed,
    )
    said = [said for seed in range(_RACES) for said in raced(seed=seed)]
    yield Line(f"and nothing in the code as it is, {_RACES} races", f"{len(said)} anomalies", "0", not said)


def writers(folder: Path) -> Iterator[Line]:
    """One log in memory by threads, one in a folder by processes, one in a bucket of a real server."""
    logging.disable(logging.CRITICAL)  # a cache that could not be repaired is no news here
    whole = 0
    for log_in in (_in_memory, _in_folder, _in_bucket):
        line, entries = log_in(folder)
        whole += entries
        yield line
    yield Line("entries in these logs", str(whole), "at least 10000", whole >= 10_000)


def _in_memory(_: Path) -> tuple[Line, int]:
    store = FakeStore()
    history = race(lambda: store, writers=_WRITERS, entries=_ENTRIES["memory"], thinks_seconds=0.5)
    return _told("memory", history, store)


def _in_folder(folder: Path) -> tuple[Line, int]:
    url = (folder / "store").as_uri()
    history = race_of_processes(url, processes=8, writers=_WRITERS // 8, entries=_ENTRIES["folder"], thinks_seconds=0.5)
    return _told("folder", history, open_store(url))


def _in_bucket(folder: Path) -> tuple[Line, int]:
    """The faults befall the requests, below the client's own retries."""
    data = folder / "seaweed"
    data.mkdir()
    with running_seaweed(data) as server:
        os.environ |= server.environment
        client_of(server).create_bucket(Bucket="races")
        store = spoil(S3Store("races"), seed=1, shares=REFUSALS)
        history = race(lambda: store, writers=_WRITERS, entries=_ENTRIES["bucket"], thinks_seconds=15.0, weather={})
        return _told("bucket", history, S3Store("races"))


def _told(place: str, history: History, store: ObjectStore) -> tuple[Line, int]:
    log = stored_log(store, MODEL)
    found = anomalies(history, log)
    told = Counter(append.told for append in history.appends)
    line = Line(
        f"{_WRITERS} writers to one log in a {place}, a fifth of the answers lost",
        f"{len(log)} entries; {told['committed']} told committed, {told['conflict']} lost, {told['unknown']} in doubt; "
        f"{len(found)} anomalies{': ' + found[0] if found else ''}",
        f"{_ENTRIES[place]} entries, losers, 0 anomalies",
        len(log) >= _ENTRIES[place] and told["conflict"] > 0 and not found,
    )
    return line, len(log)
