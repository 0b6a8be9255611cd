"""Processes that outlive the command that starts them, in a folder that knows them: started once, ended for sure."""

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from deepfm.errors import ConfigError, ConflictError

MARK = "DEEPFM_UP"
"""Variable that every process of a folder carries, so that whatever they start is found, too."""
_GRACE_SECONDS = 20.0
_POLL_SECONDS = 0.1


class Started(NamedTuple):
    """A process; its number alone may come back as somebody else's."""

    pid: int
    ticks: str
    """When the kernel started it."""


class Processes:
    """The processes of one folder."""

    def __init__(self, folder: Path) -> None:
        """The processes that were started for a folder.

        Raises:
            ConfigError: terminal; this system does not tell of processes in /proc.
        """
        if not Path("/proc/self/stat").exists():
            raise ConfigError("processes cannot be looked after", required="Linux, or another system with /proc")
        self._folder = folder
        self._record = folder / "processes.json"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it, nobody else starts or ends processes of this folder.

        Raises:
            ConflictError: terminal; somebody does so now.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                raise ConflictError(
                    "another make up or make down is at work", where=str(self._folder), next_step="Wait for its end."
                ) from cause
            yield

    def running(self, name: str) -> bool:
        """Whether the process of this name is there."""
        known = self._known().get(name)
        return known is not None and _ticks(known.pid) == known.ticks

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """The process runs; whether it had to be started. It writes to `<name>.log`.

        Args:
            name: One process has one name.
            command: What to run.
            environment: All its variables.
        """
        if self.running(name):
            return False
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - the command is ours
                command,
                env={**environment, MARK: str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        known = {**self._known(), name: Started(process.pid, _ticks(process.pid) or "")}
        whole = self._record.with_suffix(".new")
        whole.write_text(json.dumps(known, indent=2), encoding="utf-8")
        whole.replace(self._record)
        return True

    def last_words(self, name: str) -> str:
        """The end of a process's log, in one line."""
        text = (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return " ".join(text.split())[-400:]

    def stop(self) -> list[str]:
        """Names of what ran and does no more; nothing that any of it started is left either."""
        known = {name: started for name, started in self._known().items() if self.running(name)}
        for started in reversed(known.values()):
            _signal(started.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while any(map(self.running, known)) and time.monotonic() < deadline:
            _reap()
            time.sleep(_POLL_SECONDS)
        while left := self._marked():
            for pid in left:
                _signal(pid, signal.SIGKILL)
            _reap()
            time.sleep(_POLL_SECONDS)
        self._record.unlink(missing_ok=True)
        return list(known)

    def _known(self) -> dict[str, Started]:
        if not self._record.exists():
            return {}
        found = json.loads(self._record.read_text(encoding="utf-8"))
        return {name: Started(*values) for name, values in found.items()}

    def _marked(self) -> list[int]:
        """Processes that carry the folder's mark."""
        mark = f"{MARK}={self._folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:  # it has ended, or is somebody else's
                continue
        return [pid for pid in found if pid != os.getpid() and _ticks(pid) is not None]


def _ticks(pid: int) -> str | None:
    """When a process was started; None if it is not there, or has ended and only waits to be noticed."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else words[19]


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reap() -> None:
    """Children of this very process that have ended are no longer in the list."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return
