"""`make up`: a Prefect server, an S3 store with clicks, two workers and all deployments, on this machine alone.

Everything lies below one folder (`UP_DIR`, ./up by default). Run it again and it starts what is missing, delivers the
days since and checks everything; `make down` ends all of it and keeps the data.
"""

import datetime as dt
import json
import os
import secrets
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from rich.console import Console

from deepfm.errors import ConfigError, StoreUnavailableError, UsageError
from deployments import seaweed
from deployments.command import run
from deployments.processes import Processes

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("UP_DIR", "up")).absolute()
CONFIG = HERE / "models" / "clicks.toml"
SOURCE, STORE = "s3://deepfm-clicks/raw", "s3://deepfm-models/store"
HOST = "127.0.0.1"
_DAYS = 14
_LIFE = dt.timedelta(minutes=5)
_DEFAULT_PORT, _LAST_PORT = 4200, 65_535
_ROWS_PER_DAY = 20_000
_START_SECONDS = 120.0
_FILE_PORTS = "ports.json"
_OTHERS = ("PREFECT_", "AWS_", "DEEPFM_", "UP_")
"""Variables of whoever calls that would point our processes elsewhere."""
console = Console(highlight=False, soft_wrap=True)


class Ports(NamedTuple):
    """Where everything listens; kept, so that addresses stay the same."""

    prefect: int
    s3: int
    master: int
    volume: int
    filer: int


def main() -> None:
    """Bring everything up and say what to look at."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's & has it ignored, and workers would inherit that
    processes = Processes(FOLDER)
    with processes.alone():
        _bring_up(processes)


def _bring_up(processes: Processes) -> None:
    ports = _ports(processes)
    environment = environment_of(ports)
    _write_environment(environment)
    os.environ |= environment
    _start(processes, "store", seaweed.command(FOLDER / "store", *ports[1:]), lambda: seaweed.ready(environment))
    deliver()
    server = [sys.executable, "-m", "deployments.server", "--host", HOST, "--port", str(ports.prefect)]
    _start(processes, "server", server, lambda: _answers(f"{environment['PREFECT_API_URL']}/health"))
    _apply()
    for pool in ("cpu", "gpu"):
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", f"{pool}-1"]
        # For a while the server takes a worker for online that is gone.
        since = dt.datetime.now(dt.UTC) - (_LIFE if processes.running(f"worker-{pool}") else dt.timedelta())
        _start(processes, f"worker-{pool}", worker, lambda pool=pool, since=since: _online(pool, since))  # type: ignore[misc]
    _say_what_to_do(ports)


def environment_of(ports: Ports) -> dict[str, str]:
    """What the server, the workers and a person's shell need."""
    local = f"http://{HOST}:{ports.prefect}"
    return {
        "PREFECT_API_URL": f"{local}/api",
        "PREFECT_HOME": str(FOLDER / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"{local},http://localhost:{ports.prefect}",
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "2",  # the server is near, and somebody waits for the run to begin
        "PREFECT_LOGGING_EXTRA_LOGGERS": "deepfm",
        "DEEPFM_CACHE": str(FOLDER / "cache"),
        **seaweed.environment(f"http://{HOST}:{ports.s3}", _kept_secret("secret", first=secrets.token_hex)),
    }


def _of_server() -> dict[str, str]:
    """What the server alone needs: where its records are, which may hold a password."""
    database = _kept_secret("database", os.environ.get("UP_DATABASE", ""))
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}


def _inherited() -> dict[str, str]:
    """This process's variables without those that would lead its children elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}


def deliver() -> None:
    """The source holds every day of the last two weeks, and those since the first `make up`, up to yesterday."""
    from deepfm.storage import open_store
    from deepfm.synthetic.config import preset_world
    from deepfm.synthetic.delivery import write_world

    for url in (SOURCE, STORE):
        seaweed.make_bucket(url.split("/")[2])
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    begun = FOLDER / "first-day"
    if not begun.exists():
        begun.write_text(str(yesterday - dt.timedelta(days=_DAYS - 1)), encoding="utf-8")
    first = dt.date.fromisoformat(begun.read_text(encoding="utf-8"))
    days = (yesterday - first).days + 1
    world = preset_world("demo", overrides={"start": first, "days": days, "rows_per_day": _ROWS_PER_DAY})
    write_world(world, FOLDER / "world")
    source = open_store(SOURCE)
    there = {found.key for found in source.list("")}
    for file in sorted((FOLDER / "world" / "clicks").rglob("*.parquet")):
        key = file.relative_to(FOLDER / "world" / "clicks").as_posix()
        if key not in there:
            source.upload(key, file)
    console.print(f"clicks     {days} days up to {yesterday} in {SOURCE}")


def _apply() -> None:
    from prefect.client.orchestration import get_client

    from deepfm.config_file import load_config
    from deployments import apply
    from deployments.automations import NO_PROMOTION_DAYS, apply_automations

    settings = load_config(CONFIG)
    at = os.environ.get("UP_AT", "06:15")
    text = apply.render(settings, config=CONFIG, store=None, at=at, name="", directory=HERE.parent)
    with get_client(sync_client=True) as client:
        for pool in apply.POOLS:
            apply.apply_pool(client, pool)
        told = apply.deployed(client, text)
        notify = os.environ.get("UP_NOTIFY") or None
        told += apply_automations(client, settings.model, notify=notify, days=NO_PROMOTION_DAYS)
    for line in told:
        console.print(f"applied    {line}")


def _start(processes: Processes, name: str, command: list[str], ready: Callable[[], bool]) -> None:
    """The process runs and answers.

    Raises:
        ConfigError: terminal; it ended at once.
        StoreUnavailableError: transient; it does not answer.
    """
    if name == "server" and not processes.running(name) and ready():
        raise ConfigError(
            "another Prefect server answers at the port of this one",
            observed=str(_ports().prefect),
            next_step="End it, or choose another port: UP_PORT=4300 make up.",
        )
    environment = _inherited() | environment_of(_ports()) | (_of_server() if name == "server" else {})
    began = processes.start(name, command, environment)
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if not processes.running(name):
            raise ConfigError(f"{name} has ended", observed=processes.last_words(name), where=f"{FOLDER}/{name}.log")
        if time.monotonic() > deadline:
            raise StoreUnavailableError(
                f"{name} does not answer", observed=f"{_START_SECONDS:.0f} s", where=f"{FOLDER}/{name}.log"
            )
        time.sleep(0.3)
    console.print(f"{name:10} {'started' if began else 'runs already'}")


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server on loopback
            return int(answer.status) == 200
    except OSError:
        return False


def _online(pool: str, since: dt.datetime) -> bool:
    """Whether a worker of the pool has been heard of since then."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(pool)
    heard = [worker.last_heartbeat_time for worker in workers if str(worker.status).endswith("ONLINE")]
    return any(when is not None and when >= since for when in heard)


def _ports(processes: Processes | None = None) -> Ports:
    """Where everything listens; with the processes, what UP_PORT asks for is heard.

    Raises:
        UsageError: terminal; UP_PORT is no port, or not the one that the running server has.
        ConfigError: terminal; UP_PORT is taken.
    """
    record = FOLDER / _FILE_PORTS
    known = Ports(**json.loads(record.read_text(encoding="utf-8"))) if record.exists() else None
    asked = _asked_port()
    if known and (processes is None or asked in {None, known.prefect}):
        return known
    if known and processes and processes.running("server"):
        raise UsageError(
            "server runs at another port",
            observed=str(known.prefect),
            required=f"UP_PORT={asked}",
            next_step="End it first: make down.",
        )
    if asked and not _is_free(asked):
        raise ConfigError(f"UP_PORT={asked} is taken", next_step="Choose another, or leave it away.")
    port = asked or (_DEFAULT_PORT if _is_free(_DEFAULT_PORT) else seaweed.free_ports(1)[0])
    found = known._replace(prefect=port) if known else Ports(port, *seaweed.free_ports(4))
    record.write_text(json.dumps(found._asdict()), encoding="utf-8")
    return found


def _asked_port() -> int | None:
    told = os.environ.get("UP_PORT", "")
    if not told:
        return None
    if not told.isascii() or not told.isdigit() or not 1 <= int(told) <= _LAST_PORT:
        raise UsageError("UP_PORT is no port", observed=ascii(told[:20]), required=f"1 to {_LAST_PORT}")
    return int(told)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def _kept_secret(name: str, given: str = "", *, first: Callable[[], str] = str) -> str:
    """What is given now, or was given before, or comes first; only its owner can read the file."""
    record = FOLDER / name
    if given or not record.exists():
        record.touch(mode=0o600)
        record.write_text(given or first(), encoding="utf-8")
    return record.read_text(encoding="utf-8")


def _write_environment(environment: Mapping[str, str]) -> None:
    path = FOLDER / "env"
    path.touch(mode=0o600)
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    path.write_text("".join(lines), encoding="utf-8")


def _say_what_to_do(ports: Ports) -> None:
    shown = FOLDER.relative_to(Path.cwd()) if FOLDER.is_relative_to(Path.cwd()) else FOLDER
    console.print(f"""
Open http://{HOST}:{ports.prefect}/deployments, then:
  range, Run > Custom run   choose a week, submit, and watch its calendar on the run's Artifacts tab
  daily                     retrains every morning; Run > Quick run retrains for yesterday now
  promote, rollback         what a person does to the champion
In this shell: source {shown}/env; .venv/bin/deepfm status --config {CONFIG.relative_to(HERE.parent)}
Logs are in {shown}/*.log. End it with: make down""")


if __name__ == "__main__":
    run(main)
