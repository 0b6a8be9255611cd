"""Ways to keep a promotion log wrongly, each planted in the code as it is, with what the checker has to say of it."""

import datetime as dt
import time
from uuid import uuid4

from deepfm import layout
from deepfm.errors import ConflictError, StoreUnavailableError
from deepfm.manifests import LogEntry
from deepfm.registry import Registry
from tests.factories import DAY, MODEL
from tests.fault_store import FakeStore
from tests.histories import anomalies, stored_log
from tests.log_writers import Writer, race

WRITERS, ENTRIES = 8, 60
WEATHER = {"lost": 0.25, "dropped": 0.15, "silent": 0.02, "stale": 0.05}


def put(registry: Registry, wanted: LogEntry) -> LogEntry:
    registry._store.create(layout.log_entry(MODEL, wanted.sequence), wanted.to_bytes())
    return wanted


class TakesSilenceForALoss(Registry):
    def append(self, entry: LogEntry) -> LogEntry:
        try:
            return put(self, entry)
        except StoreUnavailableError as silence:
            raise ConflictError("somebody else was first") from silence


class TakesSilenceForASuccess(Registry):
    def append(self, entry: LogEntry) -> LogEntry:
        try:
            return put(self, entry)
        except StoreUnavailableError:
            return entry


class RetriesWithoutLooking(Registry):
    """As a client library does that repeats a conditional write by itself."""

    def append(self, entry: LogEntry) -> LogEntry:
        for _ in range(5):
            try:
                return put(self, entry)
            except StoreUnavailableError:
                continue
        raise StoreUnavailableError("no answer")


class RetriesUnderANewAttempt(Registry):
    def append(self, entry: LogEntry) -> LogEntry:
        try:
            return put(self, entry)
        except StoreUnavailableError:
            return super().append(entry.model_copy(update={"attempt": uuid4().hex}))


class KnowsItselfByTheVersion(Registry):
    def _own(self, found: tuple[LogEntry, bytes], entry: LogEntry, *, acknowledged: bool) -> LogEntry:
        return found[0] if found[0].version == entry.version else super()._own(found, entry, acknowledged=acknowledged)


class Overwrites(Registry):
    def append(self, entry: LogEntry) -> LogEntry:
        self._store.write(layout.log_entry(MODEL, entry.sequence), entry.to_bytes())
        return entry


class TakesTheNextNumber(Registry):
    """The loser of a race does not decide again."""

    def append(self, entry: LogEntry) -> LogEntry:
        try:
            return super().append(entry)
        except ConflictError:
            return self.append(entry.model_copy(update={"sequence": entry.sequence + 1}))


class TakesItBack(Registry):
    """In doubt it removes its entry, which others have built upon by then."""

    def append(self, entry: LogEntry) -> LogEntry:
        try:
            return put(self, entry)
        except StoreUnavailableError:
            time.sleep(0.005)
            self._store.delete(layout.log_entry(MODEL, entry.sequence))
            raise


class BelievesTheCache(Registry):
    def head(self) -> LogEntry | None:
        data = self._read_if_present(layout.champion_cache(MODEL))
        return LogEntry.from_bytes(data, where="cache") if data else None

    def append(self, entry: LogEntry) -> LogEntry:
        try:
            return super().append(entry)
        finally:
            self._repair_after_commit()


class BelievesTheListing(Registry):
    def head(self) -> LogEntry | None:
        return self.entry(max(self._listed(), default=0))


class IgnoresTheDate(Writer):
    """A backfill that promotes whatever its date is."""

    def decide(self, head: int) -> LogEntry:
        return super().decide(head).model_copy(update={"logical_date": DAY - dt.timedelta(days=head % 3)})


PLANTED: dict[type[Registry] | type[Writer], str] = {
    TakesSilenceForALoss: "was told that it lost entry .*, which is its own",
    TakesSilenceForASuccess: "was told that entry .* is its own, which is",
    RetriesWithoutLooking: "was told that it lost entry .*, which is its own",
    RetriesUnderANewAttempt: "was told that it lost entry .*, which is its own|was appended by nobody",
    KnowsItselfByTheVersion: "was told that entry .* is its own, which is writer",
    Overwrites: "is its own, which is writer",
    TakesTheNextNumber: "was decided against entry",
    TakesItBack: "was told that entry .* is its own, which is",
    BelievesTheCache: "as the head after entry",
    BelievesTheListing: "as the head after entry",
    IgnoresTheDate: "turns the champion back",
}


def raced(planted: type[Registry] | type[Writer] | None = None, *, seed: object = 0) -> list[str]:
    """What the checker says of a race in memory."""
    store = FakeStore()
    kind = planted if planted is not None and issubclass(planted, Writer) else Writer
    registry = planted if planted is not None and issubclass(planted, Registry) else Registry
    history = race(
        lambda: store, writers=WRITERS, entries=ENTRIES, seed=seed, kind=kind, registry=registry, weather=WEATHER
    )
    log = stored_log(store, MODEL)
    assert planted is not None or len(log) >= ENTRIES
    return anomalies(history, log)
