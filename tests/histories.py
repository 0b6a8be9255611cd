"""What writers and readers of a promotion log were told, held against the log that is left.

Every append is written down with the moments of its begin and end on one clock, every head with who saw it. The checker
then says in words what cannot be: it knows nothing of how the log is kept.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Literal, NamedTuple

from deepfm import layout
from deepfm.manifests import LogEntry
from deepfm.storage import ObjectStore

Told = Literal["committed", "conflict", "unknown"]


class Append(NamedTuple):
    """One attempt to append, as its writer saw it."""

    entry: LogEntry
    decided_against: int
    """Number of the head that the writer had in mind."""
    began: float
    ended: float
    told: Told
    """`conflict` is an error that says that the entry is not in the log, `unknown` one that leaves it open."""


class Sight(NamedTuple):
    """A head that somebody saw."""

    who: str
    sequence: int
    began: float
    ended: float


class History(NamedTuple):
    """What happened around one log."""

    appends: list[Append]
    sights: list[Sight]

    def __add__(self, other: object) -> "History":
        assert isinstance(other, History)
        return History(self.appends + other.appends, self.sights + other.sights)


def stored_log(store: ObjectStore, model: str) -> dict[int, bytes]:
    """The entries of a log as they lie in the store, by number."""
    keys = [found.key for found in store.list(layout.log_prefix(model))]
    return {layout.log_sequence(key): store.read(key) for key in keys}


def anomalies(history: History, log: Mapping[int, bytes]) -> list[str]:
    """Everything in a history that no log without races could have led to; empty if there is nothing."""
    entries = {number: LogEntry.from_bytes(data, where=f"entry {number}") for number, data in sorted(log.items())}
    appends = {append.entry.attempt: append for append in history.appends}
    return [
        *_shape(entries),
        *(said for append in history.appends for said in _truth(append, log, entries)),
        *_origins(entries, appends),
        *_order(entries, appends),
        *_dates(entries),
        *_sights(history.sights, entries, appends),
    ]


def _shape(entries: Mapping[int, LogEntry]) -> Iterator[str]:
    for number in range(1, max(entries, default=0)):
        if number not in entries:
            yield f"entry {number} is missing below entry {max(entries)}"
    for number, entry in entries.items():
        if entry.sequence != number:
            yield f"entry {number} says that it is entry {entry.sequence}"
    for attempt, count in Counter(entry.attempt for entry in entries.values()).items():
        if count > 1:
            yield f"attempt {attempt} is in the log {count} times"


def _truth(append: Append, log: Mapping[int, bytes], entries: Mapping[int, LogEntry]) -> Iterator[str]:
    """Whether a writer was told what the log says."""
    ours, number = append.entry, append.entry.sequence
    there = any(entry.attempt == ours.attempt for entry in entries.values())
    if append.told == "conflict" and there:
        yield f"{ours.actor} was told that it lost entry {number}, which is its own"
    if append.told == "committed" and not there:
        yield f"{ours.actor} was told that entry {number} is its own, which is {_whose(entries.get(number))}"
    if append.told == "committed" and there and log.get(number) != ours.to_bytes():
        yield f"entry {number} of {ours.actor} was changed after it was acknowledged"


def _whose(entry: LogEntry | None) -> str:
    return "absent" if entry is None else f"{entry.actor}'s"


def _origins(entries: Mapping[int, LogEntry], appends: Mapping[str, Append]) -> Iterator[str]:
    """Whether each entry was made by somebody who says so, against the entry before it."""
    for number, entry in entries.items():
        append = appends.get(entry.attempt)
        if append is None:
            yield f"entry {number} of {entry.actor} was appended by nobody"
        elif append.decided_against != number - 1:
            yield f"entry {number} was decided against entry {append.decided_against}"
        if entry.compared_entry != number - 1:
            yield f"entry {number} says that it was compared with entry {entry.compared_entry}"


def _order(entries: Mapping[int, LogEntry], appends: Mapping[str, Append]) -> Iterator[str]:
    """Whether an entry that was acknowledged before another one was begun has the lower number."""
    latest = -inf
    for number, entry in entries.items():
        append = appends.get(entry.attempt)
        if append is None:
            continue
        # An append whose end nobody was told may have come to pass at any time after its begin.
        if append.told == "committed" and append.ended < latest:
            yield f"entry {number} was acknowledged before an entry below it was begun"
        latest = max(latest, append.began)


def _dates(entries: Mapping[int, LogEntry]) -> Iterator[str]:
    """Whether an automatic promotion, which is one with a decision, took production back to an older day."""
    for before, after in pairwise(entries.values()):
        automatic = after.operation == "promote" and after.decision_sha256 is not None
        if automatic and after.logical_date < before.logical_date:
            yield f"entry {after.sequence} turns the champion back from {before.logical_date} to {after.logical_date}"


def _sights(sights: Sequence[Sight], entries: Mapping[int, LogEntry], appends: Mapping[str, Append]) -> Iterator[str]:
    highest: dict[str, Sight] = {}
    for sight in sorted(sights, key=lambda sight: sight.began):
        before = highest.get(sight.who)
        if before is not None and before.ended <= sight.began and sight.sequence < before.sequence:
            yield f"{sight.who} saw entry {sight.sequence} as the head after entry {before.sequence}"
        if before is None or sight.sequence > before.sequence:
            highest[sight.who] = sight
        entry = entries.get(sight.sequence)
        append = appends.get(entry.attempt) if entry else None
        if sight.sequence and (append is None or append.began > sight.ended):
            yield f"{sight.who} saw entry {sight.sequence} before anybody began to append it"
