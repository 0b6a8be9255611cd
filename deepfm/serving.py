"""The consumer: raw values in, calibrated click probability out, with onnxruntime and numpy alone.

    champion = ServedChampion.open("s3://bucket/prefix", "homepage")
    with champion.watch():                                             # follows promotions in the background
        champion.predict({"user": ["u1", None], "item": [17, 4]})      # float32 [2]

`ChampionModel.open` gives the champion of that moment instead, for a job that ends.

What counts as what, by the type of the field:

    string    text; None, NaN and NA are missing; an integer becomes its decimal text; floats and bools are refused
    int64     integers and bools; float64 only if whole and below 2^53; None, NaN and NA are missing; text is refused
    float32   any number; None, NaN, NA and infinities are missing and become the window's mean; text is refused

Columns that the model does not know are ignored. Values that it has not seen in training are scored as such.
"""

import datetime as dt
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import SystemRandom
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from deepfm.errors import DeepFMError, StoreUnavailableError, UsageError
from deepfm.loading import ChampionModel, VersionModel, read_model, read_twice, read_version
from deepfm.manifests import LogEntry
from deepfm.registry import Registry
from deepfm.scorer import Scorer
from deepfm.storage import ObjectStore, open_store

__all__ = ["ChampionModel", "Scorer", "ServedChampion", "ServingStatus", "VersionModel", "read_model", "read_version"]

POLL_SECONDS = 30.0
"""How often the log is looked at."""
JITTER = 0.2
"""Share by which a pause is longer or shorter at random, so that a fleet does not ask at once."""
MAX_BACKOFF = 8
"""Longest pause after failures, in polls."""
STOP_SECONDS = 1.0
"""How long `stop` waits for a poll under way, which may hang on the network; its thread ends by itself."""
_log = logging.getLogger(__name__)
_random = SystemRandom()


class ServingStatus(NamedTuple):
    """What a service shows on its health page."""

    model: str
    """Name of the model."""
    version: str
    """Id of the version that is served."""
    logical_date: dt.date
    """Its holdout day."""
    sequence: int
    """Log entry up to which the log was followed."""
    promoted_utc: dt.datetime
    """When that entry was written, by the clock of whoever wrote it."""
    staleness_seconds: float
    """Since a poll last succeeded: so long ago, what is served was certainly the champion."""
    error: str | None
    """Why the last poll failed, in one line; None if it did not."""
    watching: bool
    """Whether a background thread polls."""


class _Poll(NamedTuple):
    """How the last poll went; replaced as a whole, so that its parts belong together."""

    succeeded_at: float
    error: str | None


class ServedChampion:
    """The champion for a service that lives long: it follows the log, and answers whatever happens to the store.

    A new champion is verified and loaded beside the one that is served, then takes its place in one assignment: no call
    waits, and none sees parts of two. What cannot be verified is not served; the one before stays. The number of
    the log entry only ever grows: a rollback is an entry of its own. All methods may be called from any thread.
    """

    def __init__(
        self, store: ObjectStore, champion: ChampionModel, *, threads: int | None = None, poll_seconds: float
    ) -> None:
        """Serves a champion that has been loaded from a store; `open` does that."""
        if not poll_seconds > 0:
            raise UsageError("pause between polls is not allowed", observed=poll_seconds, required="above 0 seconds")
        self._store = store
        self._registry = Registry(store, champion.entry.model)
        self._threads = threads
        self._poll_seconds = poll_seconds
        self._champion = champion
        self._poll = _Poll(time.monotonic(), None)
        self._refreshing = threading.Lock()
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def open(
        cls, store_url: str, model: str, *, threads: int | None = None, poll_seconds: float = POLL_SECONDS
    ) -> Self:
        """Serves the current champion; nothing is polled until `refresh`, `start` or `watch`. Needs read rights only.

        Args:
            store_url: `file://` folder or `s3://bucket/prefix`.
            model: Name of the model.
            threads: Threads of one call; None lets the runtime take every core.
            poll_seconds: Mean pause between two polls of the background thread.

        Raises:
            NotFoundError: terminal; nothing has been promoted yet.
            IntegrityError: terminal; a digest, a size, the file's structure or an answer is not what it should be.
            StoreUnavailableError: transient; the store did not answer in time.
        """
        store = open_store(store_url)
        champion = ChampionModel.load(store, Registry(store, model).champion(), threads=threads)
        return cls(store, champion, threads=threads, poll_seconds=poll_seconds)

    @property
    def model(self) -> ChampionModel:
        """The loaded champion. Keep it for as long as several calls have to come from one version."""
        return self._champion

    @property
    def version(self) -> str:
        """Id of the version that is served."""
        return self._champion.version

    @property
    def sequence(self) -> int:
        """Log entry up to which the log was followed."""
        return self._champion.sequence

    @property
    def status(self) -> ServingStatus:
        """What is served, how long ago that was certain, and what went wrong since."""
        champion, poll, thread = self._champion, self._poll, self._thread
        return ServingStatus(
            model=champion.entry.model,
            version=champion.version,
            logical_date=champion.logical_date,
            sequence=champion.sequence,
            promoted_utc=champion.entry.created_utc,
            staleness_seconds=time.monotonic() - poll.succeeded_at,
            error=poll.error,
            watching=thread is not None and thread.is_alive(),
        )

    @property
    def staleness_seconds(self) -> float:
        """Seconds since a poll last succeeded."""
        return self.status.staleness_seconds

    def predict(self, data: object) -> NDArray[np.float32]:
        """The calibrated click probability of each row, float32 [N], all from one version.

        Args:
            data: As `ChampionModel.predict` takes it.

        Raises:
            UsageError: terminal; one line that names the first field which is absent or of another type or length.
        """
        return self._champion.predict(data)

    def refresh(self) -> bool:
        """Whether a later log entry than the one served was found; if so, its version is served from now on.

        Where there is none, that costs one request without a body. After an error, what was served still is.

        Raises:
            IntegrityError: terminal until somebody repairs it; a document or the model file is not what it should be.
            NotFoundError: terminal until somebody repairs it; a version or its file is gone.
            StoreUnavailableError: transient; the store did not answer in time.
        """
        with self._refreshing:
            # What is certain is what the log said when it was asked, not when its answer had been loaded.
            asked_at = time.monotonic()
            try:
                entry = self._later_entry()
                if entry is not None:
                    self._champion = self._loaded(entry)
            except Exception as error:
                self._poll = self._poll._replace(error=str(error) or type(error).__name__)
                raise
            self._poll = _Poll(asked_at, None)
        if entry is not None:
            _log.info("log entry %d is served: %s of %s", entry.sequence, entry.operation, entry.version)
        return entry is not None

    def start(self) -> None:
        """A background thread polls until `stop`; one that does so already goes on. It ends with the process."""
        with self._starting:
            if self._thread is not None and self._thread.is_alive() and not self._stopping.is_set():
                return
            self._stopping = threading.Event()
            name = f"deepfm-{self._champion.entry.model}"
            self._thread = threading.Thread(target=self._follow, args=(self._stopping,), name=name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """No poll begins any more; the model is served on."""
        with self._starting:
            self._stopping.set()
            if self._thread is not None:
                self._thread.join(STOP_SECONDS)

    @contextmanager
    def watch(self) -> Iterator[Self]:
        """Within it, a background thread follows the log."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def _later_entry(self) -> LogEntry | None:
        sequence = self._champion.sequence
        entry = read_twice(lambda: self._registry.head_after(sequence))
        # A bucket that is gone says so. A folder that is not mounted looks like one without later entries.
        if entry is None and self._store.url.startswith("file:") and self._registry.entry(sequence) is None:
            raise StoreUnavailableError(
                f"log entry {sequence} was served and is gone",
                where=self._store.url,
                next_step="Check that the folder is mounted.",
            )
        return entry

    def _loaded(self, entry: LogEntry) -> ChampionModel:
        current = self._champion
        same = (current.version, current.entry.manifest_sha256) == (entry.version, entry.manifest_sha256)
        if same:
            return current.under(entry)
        return ChampionModel.load(self._store, entry, threads=self._threads)

    def _follow(self, stopping: threading.Event) -> None:
        """Poll until told to stop; every error once as one line, until a poll succeeds."""
        failures, told = 0, set[str]()
        while not stopping.wait(_pause(self._poll_seconds, failures)):
            try:
                self.refresh()
            except Exception as error:  # noqa: BLE001 - a thread that ends on a bug would follow nothing, unnoticed
                failures += 1
                if str(error) not in told:
                    bug = None if isinstance(error, DeepFMError) else error
                    _log.warning("%s is served on: %s", self.version, error, exc_info=bug)
                told.add(str(error))
            else:
                if failures:
                    _log.info("the log can be followed again")
                failures, told = 0, set()


def _pause(poll_seconds: float, failures: int) -> float:
    """Seconds until the next poll: doubled by each failure up to 8 polls, give or take a fifth."""
    polls = min(1 << min(failures, MAX_BACKOFF), MAX_BACKOFF)
    return poll_seconds * polls * _random.uniform(1 - JITTER, 1 + JITTER)
