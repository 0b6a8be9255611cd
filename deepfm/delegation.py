"""Training in a process of its own, here or on another machine: what it takes lies in the store.

A run asks by leaving a `TrainingRequest`; whoever has the device answers with the result that `train_challenger`
stores. The process that trains is watched: it is ended when it makes no step for too long, and it ends itself when
whoever watches it is gone, so that a device is never held by a training that nobody waits for.
"""

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import IO, Any

from deepfm import errors, layout
from deepfm.config import RetrainConfig
from deepfm.documents import Document
from deepfm.errors import DeepFMError, TrainingLostError
from deepfm.manifests import TrainingResult, Window
from deepfm.pipeline import train_challenger, version_of
from deepfm.storage import open_store
from deepfm.training.memory import OUT_OF_MEMORY
from deepfm.workspace import Workspace, open_workspace

STALL_SECONDS = 600.0
"""How long a training may tell of nothing, neither a step nor a fetched file, before it is taken for hung."""
KEEP_SECONDS = 600.0
"""How long the device is kept before it is given back between two versions: an urgent training gets its turn."""
_POLL_SECONDS = 0.2
_OUT_OF_MEMORY = "so ends a process whose memory runs out; if so again, lower training.batch_size or give it more"

Told = Callable[[str, int, int], None]
"""Called with a version, its training steps done and planned."""


class TrainingRequest(Document):
    """What is to be trained, for a process that may run on another machine."""

    config: RetrainConfig
    """The model's configuration."""
    window: Window
    """The window to train on; its files, and those of its days, are in the store."""


def request_training(workspace: Workspace, window: Window) -> str:
    """The id of the version to train; what that takes is in the store.

    Raises:
        StoreUnavailableError: transient.
    """
    version = version_of(workspace, window)
    # Written over: an older request may name a device that is no longer meant.
    request = TrainingRequest(config=workspace.config, window=window)
    workspace.store.write(layout.training_request(workspace.model, version), request.to_bytes())
    return version


def is_trained(workspace: Workspace, version: str) -> bool:
    """Whether the training of a version is finished and its result stored."""
    return workspace.document(TrainingResult, layout.training_result(workspace.model, version)) is not None


def train_requested(store_url: str, model: str, version: str, *, told: Told | None = None) -> TrainingResult:
    """The result of a training that was asked for.

    Raises:
        NotFoundError: terminal; nobody asked for this version.
        DeepFMError: what `train_challenger` raises.
    """
    store = open_store(store_url)
    key = layout.training_request(model, version)
    request = TrainingRequest.from_bytes(store.read(key), where=f"{store.url}/{key}")
    workspace = open_workspace(request.config, store_url=store_url)
    progress = None if told is None else lambda done, planned: told(version, done, planned)
    return train_challenger(workspace, request.window, progress=progress)


def train_watched(
    store_url: str,
    model: str,
    versions: Sequence[str],
    *,
    stall_seconds: float = STALL_SECONDS,
    keep_seconds: float = KEEP_SECONDS,
    told: Told | None = None,
) -> dict[str, DeepFMError]:
    """Versions are trained, one after the other in one child process, or have their error in the answer.

    Those that are not begun within `keep_seconds` are left; the first always is.
    An exception in the caller, such as a cancellation, ends the child and everything that it started.

    Args:
        store_url: Where the requests are and the results go.
        model: The model.
        versions: Ids of requested versions.
        stall_seconds: How long the child may make no step.
        keep_seconds: How long versions are begun.
        told: Called with every step that the child tells of.

    Raises:
        TrainingLostError: transient; the child was killed, or hung and was ended. A training goes on from its last
            stored state when it is asked for again.
    """
    failed: dict[str, DeepFMError] = {}
    lacks_memory = False
    with _child(store_url, model, versions, keep_seconds) as (process, lines):
        heard = time.monotonic()
        while True:
            try:
                line = lines.get(timeout=_POLL_SECONDS)
            except Empty:
                if time.monotonic() - heard > stall_seconds:
                    raise TrainingLostError(
                        f"training of {model} made no step",
                        observed=f"{stall_seconds:.0f} s",
                        where=", ".join(versions),
                        next_step="It was ended, and goes on from its last stored state when it is run again.",
                    ) from None
                continue
            heard = time.monotonic()
            if line is None:
                break
            if "log" in line:
                lacks_memory |= _logged(line)
            elif "error" in line:
                failed[line["version"]] = _error_of(line)
            elif told is not None:
                told(line["version"], line["done"], line["planned"])
        code = process.wait()
    if code != 0:
        raise TrainingLostError(
            f"process that trains {model} ended",
            observed=_ending(code, lacks_memory=lacks_memory),
            where=", ".join(versions),
            next_step="It goes on from its last stored state when it is run again.",
        )
    return failed


@contextmanager
def _child(
    store_url: str, model: str, versions: Sequence[str], keep_seconds: float
) -> Iterator[tuple[subprocess.Popen[str], "SimpleQueue[dict[str, Any] | None]"]]:
    """The child and what it tells, None last; nothing of it is left afterwards."""
    process = subprocess.Popen(  # noqa: S603 - this Python and a module of ours; no shell reads the arguments
        [sys.executable, "-m", "deepfm.delegation", str(keep_seconds), store_url, model, *versions],
        stdin=subprocess.PIPE,  # never written to: it closes when this process is gone, however that comes
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    threading.Thread(target=_hear, args=(process.stdout, lines), daemon=True).start()
    try:
        yield process, lines
    finally:
        _end_group(process)


def _hear(stream: IO[str] | None, lines: "SimpleQueue[dict[str, Any] | None]") -> None:
    with contextlib.closing(stream or io.StringIO()) as heard:
        for line in heard:
            lines.put(_said_in(line))
    lines.put(None)


def _said_in(line: str) -> dict[str, Any]:
    """What the child says in a line; any other line, such as a library's or a traceback's, belongs to its log."""
    with contextlib.suppress(json.JSONDecodeError):  # as where the child was killed in the middle of a line
        if line.startswith(('{"version"', '{"log"')):
            return dict(json.loads(line))
    return {"log": logging.WARNING, "name": __name__, "text": line.rstrip()}


def _end_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended, and with it whatever it started
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _ending(code: int, *, lacks_memory: bool) -> str:
    """How a process ended, by its code and by whether it spoke of a lack of memory."""
    told = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL or lacks_memory:
        return f"{told}: {_OUT_OF_MEMORY}"
    if code < 0:
        return f"{told} ({signal.strsignal(-code)})"
    return f"{told}; its log says more"


def _logged(line: dict[str, Any]) -> bool:
    """Whether a line of the child's log, which is ours now, speaks of a lack of memory."""
    logging.getLogger(line["name"]).log(line["log"], "%s", line["text"])
    return OUT_OF_MEMORY.search(line["text"]) is not None


def _error_of(line: dict[str, Any]) -> DeepFMError:
    """The error that a child told of, of its own class, so that whoever asked knows whether trying again can help."""
    kind: type[DeepFMError] = getattr(errors, str(line["error"]), DeepFMError)
    return kind(line["problem"])


def _serve(keep_seconds: float, store_url: str, model: str, versions: Sequence[str]) -> None:
    """The child: trains the versions and tells of it on stdout, until it is done or its parent is gone."""
    began = time.monotonic()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    said = _Said()
    logging.basicConfig(level=logging.INFO, handlers=[_Told(said)])
    for number, version in enumerate(versions):
        if number and time.monotonic() - began > keep_seconds:
            logging.getLogger(__name__).info("gives the device back with %d versions left", len(versions) - number)
            break
        try:
            result = train_requested(store_url, model, version, told=said.step)
            said.step(version, result.steps, result.steps)  # also of one that was trained before
        except DeepFMError as error:
            said.line(version=version, error=type(error).__name__, problem=str(error))


class _Said:
    """What the child says, at most a few lines a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def step(self, version: str, done: int, planned: int) -> None:
        now = time.monotonic()
        if done == planned or now - self._last >= _POLL_SECONDS:
            self._last = now
            self.line(version=version, done=done, planned=planned)

    @staticmethod
    def line(**fields: object) -> None:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()


class _Told(logging.Handler):
    """Hands the child's log to whoever watches it."""

    def __init__(self, said: _Said) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.line(log=record.levelno, name=record.name, text=self.format(record))


def _leave_with_parent() -> None:
    # Not through sys.stdin, whose lock a thread that still reads would hold as Python ends.
    while os.read(0, 1):
        continue
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    _serve(float(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
