"""What `deepfm doctor` looks at where a Prefect server is in use; the library finds it by its entry point."""

import datetime as dt
import importlib.util
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from packaging.version import Version

from deepfm.config import RetrainConfig
from deepfm.doctor.checks import Check, failed, ok, skipped, warning

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

POOLS = ("cpu", "gpu")
DEPLOYMENTS = ("retrain/daily", "retrain/backfill-day", "backfill/range", "champion/promote", "champion/rollback")
"""Of each model; a suffix may follow."""
TRAINING = "train/gpu"
AUTOMATIONS = (
    "deepfm: dead runs are crashed",
    "deepfm: runs that never begin are crashed",
    "deepfm: tell of failed and crashed runs",
)
_TRIO = {"prefect": (3, 9), "fastapi": (0, 151), "sqlalchemy": (2, 1)}
"""Prefect's release, and the first releases of the other two that its server does not start with."""
_APPLY = "Apply it: python -m deployments.apply --config M.toml"
_SERVER_ERROR = 500
_HOLDING = ["PENDING", "RUNNING", "CANCELLING"]
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_ONE_AT_A_TIME = ("retrain/daily", "backfill/range")


def checks(config: RetrainConfig | None) -> Iterator[Check]:
    """Every check of the server and of what should be on it.

    Args:
        config: The model's configuration, if it could be read; its deployments and schedules are looked at.
    """
    if importlib.util.find_spec("prefect") is None:
        yield skipped("prefect.server", "Prefect is not installed: the command line works without it")
        return
    yield _versions()
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        yield skipped("prefect.server", "PREFECT_API_URL is not set: nothing is scheduled from here")
        return
    yield from _server(url, config)


def _versions() -> Check:
    found = {name: version(name) for name in _TRIO}
    told = ", ".join(f"{name} {number}" for name, number in found.items())
    parts = {name: Version(number).release[:2] for name, number in found.items()}
    if parts["prefect"] == _TRIO["prefect"] and all(parts[name] < _TRIO[name] for name in ("fastapi", "sqlalchemy")):
        return ok("prefect.versions", told)
    return warning(
        "prefect.versions", told, "Install what constraints.txt names: with others the server may not start."
    )


def _server(url: str, config: RetrainConfig | None) -> Iterator[Check]:
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True, httpx_settings={"timeout": 10.0}) as client:
            client.request("GET", "/health").raise_for_status()
            yield _answering(client, url)
            yield _guarded(url)
            yield from _pools(client)
            yield from _deployments(client, config)
            yield from _automations(client, config)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        told = f"{_shown(url)} answers {code}"
        if code >= _SERVER_ERROR:
            yield failed("prefect.server", told, "Look at the server's log, and try again later.", exit_code=75)
        else:
            yield failed("prefect.server", told, "Set PREFECT_API_AUTH_STRING, or check PREFECT_API_URL.")
    except (httpx.HTTPError, RuntimeError):
        step = "Start it (make up), or check PREFECT_API_URL."
        yield failed("prefect.server", f"{_shown(url)} does not answer", step, exit_code=75)


def _shown(url: str) -> str:
    """The address without the user and the password that may be in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _answering(client: "SyncPrefectClient", url: str) -> Check:
    theirs, ours = str(client.request("GET", "/admin/version").json()), version("prefect")
    if theirs.split(".")[:2] == ours.split(".")[:2]:
        return ok("prefect.server", f"{_shown(url)}, Prefect {theirs}")
    return warning(
        "prefect.server", f"{_shown(url)} is Prefect {theirs}, here is {ours}", "Use one release on server and workers."
    )


def _guarded(url: str) -> Check:
    host = urlsplit(url).hostname or ""
    if host in _LOOPBACK:
        return ok("prefect.access", "reached over loopback; who else reaches it is not looked at")
    import httpx

    stranger = httpx.get(f"{_shown(url)}/admin/version", timeout=10.0)
    if stranger.status_code in {401, 403}:
        return ok("prefect.access", "it asks for an auth string")
    step = "Set PREFECT_SERVER_API_AUTH_STRING at the server and PREFECT_API_AUTH_STRING at its users."
    return warning("prefect.access", f"{host} lets anybody in who can reach it", step)


def _pools(client: "SyncPrefectClient") -> Iterator[Check]:
    found = {pool.name: pool for pool in client.read_work_pools()}
    for name in POOLS:
        pool = found.get(name)
        if pool is None:
            yield failed(f"prefect.pool_{name}", "there is no such work pool", _APPLY)
            continue
        workers = client.read_workers_for_work_pool(name)
        online = [worker.name for worker in workers if str(worker.status).endswith("ONLINE")]
        limit = "no limit" if pool.concurrency_limit is None else f"{pool.concurrency_limit} at a time"
        if pool.is_paused:
            yield warning(f"prefect.pool_{name}", f"paused, {limit}", f"prefect work-pool resume {name}")
        elif not online:
            step = f"Start one where the work is to be done: prefect worker start --pool {name}"
            yield failed(f"prefect.pool_{name}", f"no worker is online, {limit}", step, exit_code=75)
        else:
            yield ok(f"prefect.pool_{name}", f"{', '.join(online)} online, {limit}")


def _deployments(client: "SyncPrefectClient", config: RetrainConfig | None) -> Iterator[Check]:
    flows = {flow.id: flow.name for flow in client.read_flows()}
    found = {f"{flows.get(entry.flow_id)}/{entry.name}": entry for entry in client.read_deployments()}
    missing = [] if TRAINING in found else [TRAINING]
    ours: dict[str, DeploymentResponse] = {}
    if config is not None:
        tagged = {name: entry for name, entry in found.items() if f"model:{config.model}" in entry.tags}
        for wanted in DEPLOYMENTS:
            name = next((name for name in tagged if name == wanted or name.startswith(f"{wanted}-")), None)
            if name is None:
                missing.append(wanted)
            else:
                ours[wanted] = tagged[name]
    if missing:
        yield failed("prefect.deployments", f"missing: {', '.join(missing)}", _APPLY)
    else:
        yield ok("prefect.deployments", f"all {len(ours) + 1} are there")
    if "retrain/daily" in ours:
        yield _schedule(client, ours["retrain/daily"])
    unlimited = [name for name in _ONE_AT_A_TIME if name in ours and not ours[name].global_concurrency_limit]
    if unlimited:
        yield warning("prefect.limits", f"no limit on {', '.join(unlimited)}", _APPLY)
    elif ours:
        yield _slots(client, ours)


def _slots(client: "SyncPrefectClient", ours: "dict[str, DeploymentResponse]") -> Check:
    """Who holds the slot of what runs one at a time, and since when; one that nobody holds is lost."""
    told: list[str] = []
    lost: list[str] = []
    old: list[str] = []
    for name in _ONE_AT_A_TIME:
        limit = ours[name].global_concurrency_limit if name in ours else None
        if limit is None:
            continue
        held = _holders(client, ours[name])
        used = f"{name} {limit.active_slots:g} of {limit.limit} in use"
        told.append(f"{used} by {'; '.join(name for name, _ in held)}" if held else used)
        old += [name for name, age in held if age > dt.timedelta(days=1)]
        if limit.active_slots and not held:
            lost.append(limit.name)
    if lost:
        step = f"If it stays so for five minutes: prefect global-concurrency-limit update {lost[0]} --active-slots 0"
        return warning("prefect.limits", f"{', '.join(told)}, and no run is under way", step)
    if old:
        return warning("prefect.limits", ", ".join(told), f"See whether it still works, or cancel it: {old[0]}")
    return ok("prefect.limits", ", ".join(told))


def _holders(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> list[tuple[str, dt.timedelta]]:
    from prefect.client.schemas.filters import FlowRunFilter

    wanted = {"deployment_id": {"any_": [deployment.id]}, "state": {"type": {"any_": _HOLDING}}}
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted))
    now = dt.datetime.now(dt.UTC)
    ages = [(run.name, now - (run.start_time or run.expected_start_time or now)) for run in runs]
    return [(f"{name} for {max(age.total_seconds(), 0) / 60:.0f} min", age) for name, age in ages]


def _schedule(client: "SyncPrefectClient", daily: "DeploymentResponse") -> Check:
    active = [found for found in daily.schedules if found.active]
    if daily.paused or not active:
        step = f"prefect deployment schedule resume retrain/{daily.name}, or the switch on its page."
        return warning("prefect.schedule", f"retrain/{daily.name} is paused or has no schedule", step)
    runs = client.get_scheduled_flow_runs_for_deployments([daily.id])
    coming = [run.expected_start_time for run in runs if run.expected_start_time]
    told = ", ".join(str(getattr(found.schedule, "cron", found.schedule)) for found in active)
    if not coming:
        return ok("prefect.schedule", told)
    late = dt.datetime.now(dt.UTC) - min(coming)
    if late > dt.timedelta(hours=1):
        step = "See that a worker of the cpu pool is online."
        return warning("prefect.schedule", f"a run waits since {min(coming):%F %H:%M} UTC", step)
    return ok("prefect.schedule", f"{told}; next {min(coming):%F %H:%M} UTC")


def _automations(client: "SyncPrefectClient", config: RetrainConfig | None) -> Iterator[Check]:
    wanted = [*AUTOMATIONS, *([f"deepfm: tell when {config.model} has had no promotion"] if config else [])]
    there = {found.name: found.enabled for found in client.read_automations()}
    missing = [name for name in wanted if not there.get(name)]
    if missing:
        yield failed("prefect.automations", f"missing or off: {', '.join(missing)}", _APPLY)
    else:
        yield ok("prefect.automations", f"{len(wanted)} are on")
