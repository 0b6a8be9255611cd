"""A real Prefect server with workers and a real S3 server, as `make up` brings them up, for tests to live with."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from deployments.processes import MARK
from deployments.seaweed import free_ports

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deployments" / "models" / "clicks.toml"
STORE = "s3://deepfm-models/store"
LONG = ["training.epochs=1000", "training.patience=999", "training.checkpoint_every_seconds=0.5"]
"""A training that nobody waits for."""
ANSWER_SECONDS = 60.0
"""As long as Prefect's own client waits: a server that has just come back on a busy machine takes its time."""


class Up(NamedTuple):
    """What `make up` has brought up."""

    folder: Path
    environment: dict[str, str]

    @property
    def url(self) -> str:
        """Where the server's pages are."""
        return self.environment["PREFECT_API_URL"].removesuffix("/api")

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of this repository in the environment that `make up` wrote."""
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def again(self) -> None:
        """Whatever has ended runs again."""
        self.command("deployments.up")

    def call(self, program: str) -> Any:
        """What a program says in JSON; it finds a client of the server as `client`."""
        head = (
            "import json, datetime as dt\nfrom prefect.client.orchestration import get_client\n"
            "with get_client(sync_client=True) as client:\n"
        )
        body = "".join(f"    {line}\n" for line in program.strip().splitlines())
        done = subprocess.run(
            [sys.executable, "-c", head + body],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    def start(self, deployment: str, **parameters: Any) -> str:
        """The id of a run that was asked for."""
        given = json.dumps(parameters, default=str)
        return str(
            self.call(
                f"found = client.read_deployment_by_name({deployment!r})\n"
                f"run = client.create_flow_run_from_deployment(found.id, parameters=json.loads({given!r}))\n"
                "print(json.dumps(str(run.id)))"
            )
        )

    def get(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The server's answer, without Prefect in between."""
        import httpx

        url = f"{self.environment['PREFECT_API_URL']}{path}"
        answer = httpx.get(url, timeout=ANSWER_SECONDS) if body is None else _post(url, body)
        answer.raise_for_status()
        return answer.json()

    def state(self, run: str) -> dict[str, Any]:
        """Name, type and message of a run's state."""
        found: dict[str, Any] = self.get(f"/flow_runs/{run}")["state"]
        return found

    def ended(self, run: str, *, seconds: float = 120.0) -> dict[str, Any]:
        """The state that a run has ended in."""
        final = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
        return wait(lambda: state if (state := self.state(run))["type"] in final else None, seconds=seconds)

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow, the newest first."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC"}
        found: list[dict[str, Any]] = self.get("/flow_runs/filter", body)
        return found

    @property
    def last(self) -> dt.date:
        """The last day that was delivered, also where midnight has passed since."""
        days = [path.name.removeprefix("dt=") for path in (self.folder / "world" / "clicks").glob("dt=*")]
        return dt.date.fromisoformat(max(days))

    def pid(self, name: str) -> int:
        """The process of a name."""
        return int(json.loads((self.folder / "processes.json").read_text())[name][0])

    def processes(self, *words: str) -> list[int]:
        """Processes of this place whose command line holds all the words."""
        mark = f"{MARK}={self.folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line, variables = path.read_bytes(), path.with_name("environ").read_bytes()
                ended = path.with_name("stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if not ended and mark in variables.split(b"\0") and all(word.encode() in line for word in words):
                found.append(int(path.parent.name))
        return found

    def log(self, store: str = STORE) -> list[dict[str, Any]]:
        """The promotion log of a store."""
        done = self.command("deepfm", "history", "--config", str(CONFIG), "--store", store, "--json")
        entries: list[dict[str, Any]] = json.loads(done.stdout)
        return entries


def _post(url: str, body: dict[str, Any]) -> Any:
    import httpx

    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        token = client.get(f"{url.partition('/api/')[0]}/api/csrf-token", params={"client": "test"}).json()
        headers = {"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": "test"}
        return client.post(url, json=body, headers=headers)


def wait(question: Callable[[], Any], *, seconds: float) -> Any:
    """The answer, once there is one."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds:.0f} s"
        time.sleep(0.3)
    return answer


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _quiet_hour() -> str:
    """A time for the daily run, and for the search two hours later, that does not come while a test lasts."""
    now = dt.datetime.now(dt.UTC).hour
    hour = next(hour for hour in (5, 13, 20) if all((at - now) % 24 >= 2 for at in (hour, hour + 2)))
    return f"{hour:02}:15"


@contextmanager
def everything_up(folder: Path, **variables: str) -> Iterator[Up]:
    """All of it, with variables for `make up`, gone afterwards without a process left behind."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AWS_", "DEEPFM_"))}
    plain |= {"UP_DIR": str(folder), "UP_PORT": str(free_ports(1)[0]), "UP_AT": _quiet_hour(), "OMP_NUM_THREADS": "1"}
    plain |= variables
    up = Up(folder, plain)
    try:
        up.again()
        text = (folder / "env").read_text()
        up.environment.update(
            line.removeprefix("export ").partition("=")[::2] for line in text.replace("'", "").splitlines()
        )
        yield up
    finally:
        up.command("deployments.down")
        assert up.processes() == []
