"""`python -m deployments.apply --config M.toml`: pools, deployments and automations of a model, each checked to exist.

It can be run again at any time: what is there is brought up to date, nothing is doubled.
"""

import json
import re
import string
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import httpx
import typer
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import get_current_settings
from rich.console import Console

from deepfm.config import RetrainConfig
from deepfm.config_file import load_config
from deepfm.errors import ConfigError, StoreUnavailableError, UsageError
from deployments.automations import NO_PROMOTION_DAYS, apply_automations
from deployments.command import run

HERE = Path(__file__).parent
TEMPLATE = HERE / "prefect.yaml"
POOLS = ("cpu", "gpu")
_FIRST_HOUR = 4
"""Between midnight and four, clocks are changed: an hour may come twice or not at all."""
_CATCH_UP_AFTER_HOURS = 2
_LAST_HOUR = 23
_AT = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def main(  # noqa: PLR0913, PLR0917 - one argument per option
    config: Annotated[Path, typer.Option("--config", help="The model's TOML.", metavar="M.toml")],
    store: Annotated[
        str | None, typer.Option("--store", help="Where models are kept; unset, the TOML's store.", metavar="URL")
    ] = None,
    at: Annotated[str, typer.Option("--at", help="When to retrain, by the model's clock.", metavar="HH:MM")] = "06:15",
    name: Annotated[
        str,
        typer.Option("--as", help="Ends the names, where a server has several models.", metavar="NAME"),
    ] = "",
    directory: Annotated[
        Path, typer.Option("--directory", help="Folder on the workers that paths are relative to.", metavar="DIR")
    ] = Path(),
    notify: Annotated[
        str | None,
        typer.Option("--notify", help="Whom to tell of failures: an Apprise address, as slack://…", metavar="URL"),
    ] = None,
    no_promotion_days: Annotated[
        int, typer.Option("--no-promotion-days", min=1, help="Tell when nothing was promoted for so many days.")
    ] = NO_PROMOTION_DAYS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be deployed, and stop.")] = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Put a model's deployments on the Prefect server that PREFECT_API_URL names, and check each of them.

    Example: python -m deployments.apply --config clicks.toml --at 06:15
    """
    settings = load_config(config)
    text = render(settings, config=config, store=store, at=at, name=name, directory=directory)
    if dry_run:
        typer.echo(text)
        return
    _require_server()
    console = Console(highlight=False)
    with get_client(sync_client=True) as client:
        for pool in POOLS:
            console.print(f"work pool {apply_pool(client, pool)}")
        _refuse_taken(client, text, settings)
        for told in deployed(client, text):
            console.print(f"deployment {told}", soft_wrap=True)
        for told in apply_automations(client, settings.model, notify=notify, days=no_promotion_days):
            console.print(f"automation {told}", soft_wrap=True)


def render(settings: RetrainConfig, *, config: Path, store: str | None, at: str, name: str, directory: Path) -> str:
    """The template with a model's values in it.

    Args:
        settings: The model's configuration.
        config: Path of its TOML.
        store: URL of the store, if not the TOML's.
        at: When to retrain, HH:MM in the model's time zone.
        name: Ends the deployments' names; may be empty.
        directory: Folder on the workers that paths are relative to.

    Raises:
        UsageError: terminal; the time is none, or one at which clocks are changed, or the name cannot be one.
    """
    hour, minute = _time(at)
    if not re.fullmatch(r"[a-z0-9-]*", name):
        raise UsageError("--as is no name", observed=ascii(name[:40]), required="small letters, digits and dashes")
    ZoneInfo(settings.time_zone)
    return string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        model=settings.model,
        # A JSON string is a YAML string, whatever is in it.
        config=json.dumps(str(config.absolute()), ensure_ascii=False),
        store=json.dumps(store or settings.store, ensure_ascii=False),
        directory=json.dumps(str(directory.absolute()), ensure_ascii=False),
        suffix=f"-{name}" if name else "",
        cron=f"{minute} {hour} * * *",
        catch_up_cron=_later(hour, minute),
        time_zone=settings.time_zone,
    )


def _later(hour: int, minute: int) -> str:
    """When to look for missing days: some time after the daily run, and on the same day."""
    if hour + _CATCH_UP_AFTER_HOURS <= _LAST_HOUR:
        return f"{minute} {hour + _CATCH_UP_AFTER_HOURS} * * *"
    return f"59 {_LAST_HOUR} * * *"


def _time(at: str) -> tuple[int, int]:
    found = _AT.fullmatch(at)
    if not found:
        raise UsageError("--at is no time of day", observed=ascii(at[:20]), required="HH:MM, such as 06:15")
    hour, minute = int(found[1]), int(found[2])
    if hour < _FIRST_HOUR:
        raise UsageError(
            "--at lies where clocks are changed",
            observed=at,
            required=f"{_FIRST_HOUR:02}:00 or later",
            next_step="An hour before may come twice a year, or not at all.",
        )
    return hour, minute


def _require_server() -> None:
    url = get_current_settings().api.url
    if url is None:
        raise ConfigError(
            "there is no Prefect server to deploy to: PREFECT_API_URL is not set",
            next_step="Start one with `make up` and source the file that it names, or set the variable.",
        )
    try:
        with get_client(sync_client=True) as client:
            client.hello().raise_for_status()
    except (httpx.HTTPError, RuntimeError) as cause:
        raise StoreUnavailableError(
            "Prefect server does not answer", where=url, next_step="See that it runs, and check PREFECT_API_URL."
        ) from cause


def apply_pool(client: SyncPrefectClient, name: str) -> str:
    """The pool is as its template says; its name and limit."""
    template = json.loads((HERE / "work_pools" / f"{name}.json").read_text(encoding="utf-8"))
    queues = template.pop("queues")
    try:
        client.create_work_pool(WorkPoolCreate(**template))
    except ObjectAlreadyExists:
        # The limit is how many devices there are, which whoever runs the pool knows better by now.
        update = {key: template[key] for key in ("description", "base_job_template")}
        client.update_work_pool(name, WorkPoolUpdate(**update))
    _apply_queues(client, name, queues)
    limit = client.read_work_pool(name).concurrency_limit
    return f"{name}: {'no limit' if limit is None else f'{limit} at a time'}"


def _apply_queues(client: SyncPrefectClient, pool: str, queues: dict[str, int]) -> None:
    path = {"work_pool_name": pool}
    found = client.request("POST", "/work_pools/{work_pool_name}/queues/filter", path_params=path, json={})
    found.raise_for_status()
    known = {queue["name"] for queue in found.json()}
    for queue, priority in queues.items():
        body = {"name": queue, "priority": priority}
        if queue in known:
            one = {**path, "name": queue}
            answer = client.request("PATCH", "/work_pools/{work_pool_name}/queues/{name}", path_params=one, json=body)
        else:
            answer = client.request("POST", "/work_pools/{work_pool_name}/queues", path_params=path, json=body)
        answer.raise_for_status()


def wanted_of(text: str) -> dict[str, dict[str, Any]]:
    """The rendered deployments by their full name, `<flow>/<name>`."""
    found = {}
    for entry in yaml.safe_load(text)["deployments"]:
        flow = Path(entry["entrypoint"].partition(":")[0]).stem  # a file of flows/ is named after its flow
        found[f"{flow}/{entry['name']}"] = entry
    return found


def _refuse_taken(client: SyncPrefectClient, text: str, settings: RetrainConfig) -> None:
    """A second model must not take the first one's names."""
    for name in wanted_of(text):
        there = _found(client, name)
        if there is None:
            continue
        models = {tag.partition(":")[2] for tag in there.tags if tag.startswith("model:")}
        if models and settings.model not in models:
            raise UsageError(
                f"deployment {name} is another model's",
                observed=", ".join(sorted(models)),
                next_step=f"Give this one names of its own: --as {settings.model.lower().replace('_', '-')}",
            )


def deployed(client: SyncPrefectClient, text: str) -> list[str]:
    """The deployments are as the file says, but for schedules that a person has paused; a line for each.

    Raises:
        ConfigError: terminal; one is not there, or is another.
    """
    kept = _with_pauses(client, text)
    _deploy(kept)
    return _verified(client, kept)


def _with_pauses(client: SyncPrefectClient, text: str) -> str:
    """The file, in which what is paused at the server stays paused: `prefect deploy` would resume it."""
    whole = yaml.safe_load(text)
    for name, entry in wanted_of(text).items():
        there = _found(client, name)
        if there is None or not entry.get("schedules"):
            continue
        if there.paused or (there.schedules and not any(schedule.active for schedule in there.schedules)):
            (changed,) = (found for found in whole["deployments"] if found["name"] == entry["name"])
            changed["schedules"] = [{**schedule, "active": False} for schedule in changed["schedules"]]
    return str(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))


def _found(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _deploy(text: str) -> None:
    """`prefect deploy` has taken the file.

    Raises:
        ConfigError: terminal; it has not.
    """
    with tempfile.TemporaryDirectory(prefix="deepfm-") as folder:
        file = Path(folder, "prefect.yaml")
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this Python, our file
    if done.returncode != 0:
        last = " ".join((done.stderr or done.stdout).split())[-400:]
        raise ConfigError("prefect deploy failed", observed=last)


def _verified(client: SyncPrefectClient, text: str) -> list[str]:
    """A line for each deployment, once all are as the file says: one bad entry makes Prefect skip others in silence.

    Raises:
        ConfigError: terminal; one is not there, or is another.
    """
    lines = []
    for name, entry in wanted_of(text).items():
        there = _found(client, name)
        if there is None:
            raise ConfigError(f"deployment {name} is not there after it was applied")
        differs = [what for what, same in _comparison(there, entry) if not same]
        if differs:
            raise ConfigError(f"deployment {name} is not as it was applied", observed=", ".join(differs))
        crons = ", ".join(_told(schedule) for schedule in entry.get("schedules", ()))
        lines.append(f"{name} on {there.work_pool_name}{f', {crons}' if crons else ''}")
    return lines


def _told(schedule: dict[str, Any]) -> str:
    paused = "" if schedule.get("active", True) else " (paused, and left so)"
    return f"{schedule['cron']} {schedule['timezone']}{paused}"


def _comparison(there: DeploymentResponse, entry: dict[str, Any]) -> list[tuple[str, bool]]:
    limit, options, stored = entry.get("concurrency_limit"), there.concurrency_options, there.global_concurrency_limit
    schedules = [
        (getattr(found.schedule, "cron", ""), getattr(found.schedule, "timezone", ""), found.active, found.parameters)
        for found in there.schedules
    ]
    wanted = [
        (found["cron"], found["timezone"], found.get("active", True), found.get("parameters", {}))
        for found in entry.get("schedules", ())
    ]
    strategy = options.collision_strategy.value if options and limit else None
    return [
        ("entry point", there.entrypoint == entry["entrypoint"]),
        ("work pool", there.work_pool_name == entry["work_pool"]["name"]),
        ("work queue", there.work_queue_name == entry["work_pool"]["work_queue_name"]),
        ("description", there.description == entry["description"]),
        ("parameters", there.parameters == entry["parameters"]),
        ("tags", there.tags == entry.get("tags", [])),
        ("schedules", schedules == wanted),
        ("concurrency limit", (stored.limit if stored else None) == (limit["limit"] if limit else None)),
        ("collision strategy", strategy == (limit["collision_strategy"] if limit else None)),
    ]


if __name__ == "__main__":
    run(main)
