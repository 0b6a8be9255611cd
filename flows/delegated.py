"""Asking another work pool for a training, and waiting for it: never for ever, and with its reason if it fails."""

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelling, Crashed

from deepfm import errors
from deepfm.errors import ConfigError, ConflictError, DeepFMError, TrainingError, TrainingLostError
from flows.logs import shown_if_possible

POLL_SECONDS = 1.0
_FAILURE = re.compile(r"(\w+Error): (.*)", re.DOTALL)


_LATE: dict[StateType, tuple[type[DeepFMError], str, str]] = {
    StateType.SCHEDULED: (
        ConfigError,
        "no worker has started {}",
        "Start a worker of its pool, or see whether the pool is paused: deepfm doctor.",
    ),
    StateType.PENDING: (
        TrainingLostError,
        "{} was taken by a worker and never began",
        "Its worker is gone, or cannot start it: see the worker's log.",
    ),
    StateType.RUNNING: (
        TrainingError,
        "{} has not ended",
        "It was cancelled, and goes on from its last stored state when it is run again.",
    ),
}
"""What it means to wait too long, by the phase."""


class Patience(NamedTuple):
    """How long to wait for a training on another pool, in seconds."""

    pickup_seconds: float = 3600.0
    """Without a worker of its pool; while one is online it may wait for the device."""
    start_seconds: float = 300.0
    """From a worker's taking it to its start."""
    run_seconds: float = 6 * 3600.0
    """From its start to its end."""

    def of(self, phase: StateType) -> float:
        """The limit of a phase: `SCHEDULED`, `PENDING` or `RUNNING`."""
        limits = {StateType.SCHEDULED: self.pickup_seconds, StateType.PENDING: self.start_seconds}
        return limits.get(phase, self.run_seconds)


PATIENCE = Patience()


def train_on(
    deployment: str,
    *,
    store: str,
    model: str,
    versions: Sequence[str],
    queue: str = "default",
    patience: Patience = PATIENCE,
) -> None:
    """A run of a training deployment has ended well; the results are in the store.

    Args:
        deployment: Such as `train/gpu`.
        store: URL of the store with the requests.
        model: The model.
        versions: Ids of requested versions.
        queue: Queue of the deployment's pool.
        patience: How long to wait.

    Raises:
        ConfigError: terminal; there is no such deployment, or no Prefect server to ask.
        ConfigError: terminal; no worker picked it up.
        ConflictError: terminal; a person cancelled it.
        TrainingError: terminal; it took too long.
        TrainingLostError: transient; its process was lost, or never began.
        DeepFMError: what the training failed with, of the same class.
    """
    if get_current_settings().api.url is None:
        raise ConfigError(
            f"deployment {deployment} cannot be asked: PREFECT_API_URL is not set",
            next_step="Point it at the server that the deployment is on, or leave train_on empty to train here.",
        )
    try:
        run = cast(
            "FlowRun",  # outside of an event loop
            run_deployment(
                name=deployment,
                parameters={"store": store, "model": model, "versions": list(versions)},
                flow_run_name=name_of_training(model, versions),
                timeout=0,
                work_queue_name=queue,
                tags=[f"model:{model}"],
            ),
        )
    except ObjectNotFound as cause:
        raise ConfigError(
            f"there is no deployment {deployment}", next_step="Apply it: python -m deployments.apply --config M.toml"
        ) from cause
    with get_client(sync_client=True) as client:
        _judge(_ended(client, run, deployment, patience))


def name_of_training(model: str, versions: Sequence[str]) -> str:
    """`train <model> <first date>`, and how many more."""
    more = f" and {len(versions) - 1} more" if len(versions) > 1 else ""
    return f"train {model} {versions[0][:10]}{more}" if versions else f"train {model}"


def _ended(client: SyncPrefectClient, run: FlowRun, deployment: str, patience: Patience) -> FlowRun:
    """The run in its final state; one that takes too long is ended first."""
    since, phase = time.monotonic(), StateType.SCHEDULED
    while True:
        current = _read(client, run.id) or run
        state = current.state
        if state is not None and state.is_final():
            return current
        if state is not None and _phase(state.type) != phase:
            since, phase = time.monotonic(), _phase(state.type)
        limit = patience.of(phase)
        if time.monotonic() - since > limit:
            if phase == StateType.SCHEDULED and _somebody_is_there(client, current):
                since = time.monotonic()  # it waits for the device, not for a worker
                continue
            told = f"nobody waits longer than {limit:.0f} s"
            # What no process has begun has nothing to cancel, and would keep its place in the pool.
            end: State[Any] = Cancelling(message=told) if phase == StateType.RUNNING else Crashed(message=told)
            with shown_if_possible():
                client.set_flow_run_state(run.id, end, force=True)
            raise _late(current.name, deployment, limit, phase)
        time.sleep(POLL_SECONDS)


def _phase(kind: StateType) -> StateType:
    """Whether a run waits for a worker, for its process, or works."""
    return kind if kind in {StateType.SCHEDULED, StateType.PENDING} else StateType.RUNNING


def _somebody_is_there(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a worker of the run's pool is online and takes runs."""
    if run.work_pool_name is None:
        return False
    try:
        paused = client.read_work_pool(run.work_pool_name).is_paused
        workers = client.read_workers_for_work_pool(run.work_pool_name)
    except httpx.HTTPError:
        return False
    return not paused and any(str(worker.status).endswith("ONLINE") for worker in workers)


def _late(name: str, deployment: str, limit: float, phase: StateType) -> DeepFMError:
    kind, problem, step = _LATE[phase]
    return kind(problem.format(name), observed=f"{limit:.0f} s", where=deployment, next_step=step)


def _read(client: SyncPrefectClient, run: UUID) -> FlowRun | None:
    """The run as the server knows it; None while the server does not answer, which changes nothing about the run."""
    try:
        return client.read_flow_run(run)
    except (httpx.TransportError, httpx.HTTPStatusError):
        return None


def _judge(run: FlowRun) -> None:
    """Nothing, if the run has completed.

    Raises:
        DeepFMError: what it failed with.
    """
    state = run.state
    if state is None or state.is_completed():
        return
    if state.is_cancelled():
        raise ConflictError(f"{run.name} was cancelled", next_step="Run it again if that was not meant.")
    if state.is_crashed():
        raise TrainingLostError(
            f"{run.name} was lost: {state.message or 'its worker or its process is gone'}",
            next_step="It goes on from its last stored state when it is run again.",
        )
    told = _FAILURE.search(state.message or "")
    kind = getattr(errors, told[1], None) if told else None
    if told and isinstance(kind, type) and issubclass(kind, DeepFMError):
        raise kind(f"{run.name}: {told[2]}")
    raise TrainingError(f"{run.name} failed: {state.message}")
