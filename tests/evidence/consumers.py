"""A claim about consumers: whatever is promoted while they read, no answer is torn, late in order, or missing."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from deepfm.errors import DeepFMError
from deepfm.registry import Registry
from deepfm.serving import ServedChampion
from deepfm.storage import open_store
from tests.evidence.lines import Line
from tests.factories import MODEL
from tests.tiny_models import answer, entry_of, put_champion, put_tiny, version_of

ROOT = Path(__file__).parents[2]
READS, PROMOTIONS = 100_000, 1_000
_CONSUMERS = 3
_THREADS = 2
"""Threads of one consumer: the first refreshes before each read, the others meet its swaps in the middle of theirs."""
_ROW = {"user": [None], "price": [None]}
_WIDTH = 1e-5
"""Half of the smallest distance between the answers of two versions, with room for float32."""


class Reads(NamedTuple):
    """What readers saw while versions were promoted."""

    reads: int
    torn: int
    """Answers of another version than those that were served at their beginning and end, or between."""
    backwards: int
    """Answers of an older version than the one before, in one thread."""
    failed: int
    """Calls of predict or refresh that raised."""
    versions: int
    """Different versions that answered."""
    longest_seconds: float
    """Longest predict."""


def consumers(folder: Path) -> Iterator[Line]:
    """100,000 reads of three consumers in two threads each, during 1,000 promotions by another process."""
    seen = read_during_promotions(folder, reads=READS, promotions=PROMOTIONS)
    yield Line(
        f"{READS:,} reads by consumers during {PROMOTIONS:,} promotions",
        f"{seen.torn} torn, {seen.backwards} backwards, {seen.failed} failed of {seen.reads:,}; "
        f"{seen.versions} versions answered, longest predict {seen.longest_seconds * 1000:.0f} ms",
        "0 torn, 0 backwards, 0 failed",
        (seen.torn, seen.backwards, seen.failed) == (0, 0, 0) and seen.reads >= READS,
    )


def read_during_promotions(folder: Path, *, reads: int, promotions: int) -> Reads:
    """Readers go on until another process has promoted so many versions and they have read so often.

    Args:
        folder: Where the store is made.
        reads: Reads at least, each a predict whose answer is held against the versions served before and after it.
        promotions: Promotions after the first one, each of another version.
    """
    store = open_store((folder / "store").as_uri())
    put_champion(store, 1, _bias(1))
    opened = [ServedChampion.open(store.url, MODEL, threads=1) for _ in range(_CONSUMERS)]
    command = [sys.executable, "-m", "tests.evidence.consumers", store.url, str(promotions)]
    with ThreadPoolExecutor(_CONSUMERS * _THREADS) as pool, subprocess.Popen(command, cwd=ROOT) as promoter:
        done = threading.Event()
        share = -(-reads // (_CONSUMERS * _THREADS))
        readers = [
            pool.submit(_read, served, share, done, refreshing=thread == 0)
            for served in opened
            for thread in range(_THREADS)
        ]
        failed = promoter.wait() != 0
        done.set()
        each = [reader.result() for reader in readers]
    last = promotions + 1
    behind = sum(served.sequence != last for served in opened)
    answered = set().union(*(versions for _, versions in each))
    totals = [seen for seen, _ in each]
    return Reads(
        reads=sum(seen.reads for seen in totals),
        torn=sum(seen.torn for seen in totals),
        backwards=sum(seen.backwards for seen in totals),
        failed=sum(seen.failed for seen in totals) + behind + failed,
        versions=len(answered),
        longest_seconds=max(seen.longest_seconds for seen in totals),
    )


def _read(served: ServedChampion, least: int, done: threading.Event, *, refreshing: bool) -> tuple[Reads, set[int]]:
    """Reads until the promotions are done, the last version was seen, and there were enough of them."""
    reads = torn = backwards = failed = before = 0
    longest = 0.0
    versions: set[int] = set()
    while True:
        last_round = done.is_set() and reads + 1 >= least
        try:
            if refreshing:
                served.refresh()
            first, began = served.sequence, time.monotonic()
            (score,) = served.predict(_ROW).tolist()
            longest = max(longest, time.monotonic() - began)
            possible = range(first, served.sequence + 1)
        except DeepFMError:
            failed += 1
        else:
            matches = [sequence for sequence in possible if abs(score - answer(_bias(sequence))) < _WIDTH]
            torn += len(matches) != 1
            backwards += bool(matches) and matches[0] < before
            before = max(before, *matches) if matches else before
            versions.update(matches)
        reads += 1
        if last_round:
            return Reads(reads, torn, backwards, failed, len(versions), longest), versions


def _bias(sequence: int) -> float:
    """So that no two of 2,000 versions answer alike: their probabilities rise from 0.27 to 0.73."""
    return -1.0 + sequence / 1000


def _promote(url: str, promotions: int) -> None:
    """Versions are promoted one after the other, as a retraining does: create-only, with the cache repaired."""
    store = open_store(url)
    registry = Registry(store, MODEL)
    for sequence in range(2, promotions + 2):
        version = version_of(sequence)
        registry.append(entry_of(sequence, version, put_tiny(store, version, _bias(sequence))))


if __name__ == "__main__":
    _promote(sys.argv[1], int(sys.argv[2]))
