"""A claim about Prefect's server on SQLite: it goes on answering while runs come and go and automations watch them."""

import datetime as dt
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from deployments.seaweed import free_ports
from tests.e2e.server import ROOT, wait
from tests.evidence.lines import Line

_SECONDS = 90
_CLIENTS = 3
_PATIENCE = 150.0
_LONGEST_SECONDS = 15.0
_SERVERS = {"prefect server start": ["prefect", "server", "start"], "deployments.server": ["deployments.server"]}


class _Answers(NamedTuple):
    runs: int
    longest: float


def answers_on_sqlite(folder: Path) -> Iterator[Line]:
    """The same load on Prefect's own server process and on the one that `make up` starts."""
    found = {}
    for number, (name, module) in enumerate(_SERVERS.items()):
        with _server(folder / f"home-{number}", module) as url, ThreadPoolExecutor(_CLIENTS) as clients:
            until = time.monotonic() + _SECONDS
            each = list(clients.map(lambda client: _runs(url, client, until), range(_CLIENTS)))  # noqa: B023
            found[name] = _Answers(sum(answers.runs for answers in each), max(answers.longest for answers in each))
    yield Line(
        f"longest answer of a server on SQLite, {_CLIENTS} clients for {_SECONDS} s",
        "; ".join(f"{name} {answers.longest:.1f} s, {answers.runs} runs" for name, answers in found.items()),
        f"deployments.server at most {_LONGEST_SECONDS:.0f} s",
        found["deployments.server"].longest <= _LONGEST_SECONDS,
    )


@contextmanager
def _server(home: Path, module: list[str]) -> Iterator[str]:
    """API of a server with the automations of a model."""
    home.mkdir()
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "PREFECT_API_URL": url, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", *module, "--host", "127.0.0.1", "--port", str(port)]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        wait(lambda: _healthy(url), seconds=120)
        program = (
            "from prefect.client.orchestration import get_client\n"
            "from deployments.automations import apply_automations\n"
            "with get_client(sync_client=True) as client:\n"
            "    list(apply_automations(client, 'clicks', notify=None, days=3))\n"
        )
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, timeout=120)
        yield url
    finally:
        server.kill()
        server.wait()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _runs(url: str, client: int, until: float) -> _Answers:
    """One run after the other from its start to its end, with what a run sends meanwhile."""
    runs, longest = 0, 0.0
    with httpx.Client(base_url=url, timeout=_PATIENCE) as http:

        def post(path: str, body: object) -> httpx.Response:
            nonlocal longest
            began = time.monotonic()
            answer = http.post(path, json=body)
            longest = max(longest, time.monotonic() - began)
            return answer

        flow = post("/flows/", {"name": f"load-{client}"}).json()["id"]
        while time.monotonic() < until:
            made = post("/flow_runs/", {"flow_id": flow, "state": {"type": "SCHEDULED"}})
            if made.is_error:  # busy: asked again, as Prefect's client does
                time.sleep(0.2)
                continue
            run = made.json()["id"]
            for state in ("PENDING", "RUNNING"):
                post(f"/flow_runs/{run}/set_state", {"state": {"type": state}})
            for _ in range(3):
                now = dt.datetime.now(dt.UTC).isoformat()
                resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
                heartbeat = {"id": str(uuid.uuid4()), "occurred": now, "resource": resource}
                post("/events", [heartbeat | {"event": "prefect.flow-run.heartbeat"}])
                line = {"name": "load", "level": 20, "message": "step", "timestamp": now, "flow_run_id": run}
                post("/logs/", [line] * 5)
                post("/artifacts/", {"key": "page", "type": "markdown", "data": "row\n" * 800, "flow_run_id": run})
            post(f"/flow_runs/{run}/set_state", {"state": {"type": "COMPLETED"}})
            runs += 1
            time.sleep(0.3)
    return _Answers(runs, longest)
