"""Asking another work pool for a training, and waiting for it: never for ever, and with its reason if it fails."""

import re
import time
from collections.abc import Sequence
from typing import NamedTuple, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelling

from deepfm import errors
from deepfm.errors import ConfigError, DeepFMError, TrainingError, TrainingLostError
from flows.logs import shown_if_possible

POLL_SECONDS = 1.0
_WAITING = {StateType.SCHEDULED, StateType.PENDING}
_FAILURE = re.compile(r"(\w+Error): (.*)", re.DOTALL)


class Patience(NamedTuple):
    """How long to wait for a training on another pool, in seconds."""

    pickup_seconds: float = 3600.0
    """Without a worker of its pool; while one is online it may wait for the device."""
    run_seconds: float = 6 * 3600.0
    """From its start to its end, for each version."""


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
        TrainingError: terminal; no worker picked it up, or a person cancelled it.
        TrainingLostError: transient; it took too long, or its process was lost.
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
        _judge(_ended(client, run, deployment, patience, count=len(versions)))


def name_of_training(model: str, versions: Sequence[str]) -> str:
    """`train <model> <first date>`, and how many more."""
    more = f" and {len(versions) - 1} more" if len(versions) > 1 else ""
    return f"train {model} {versions[0][:10]}{more}" if versions else f"train {model}"


def _ended(client: SyncPrefectClient, run: FlowRun, deployment: str, patience: Patience, *, count: int) -> FlowRun:
    """The run in its final state; one that takes too long is cancelled first."""
    since, waiting = time.monotonic(), True
    while True:
        current = _read(client, run.id) or run
        state = current.state
        if state is not None and state.is_final():
            return current
        if waiting and state is not None and state.type not in _WAITING:
            since, waiting = time.monotonic(), False
        limit = patience.pickup_seconds if waiting else patience.run_seconds
        if time.monotonic() - since > limit * (1 if waiting else count):
            if waiting and _somebody_is_there(client, current):
                since = time.monotonic()  # it waits for the device, not for a worker
                continue
            with shown_if_possible():
                told = f"nobody waits longer than {limit:.0f} s"
                client.set_flow_run_state(run.id, Cancelling(message=told), force=True)
            raise _late(current.name, deployment, limit, waiting=waiting)
        time.sleep(POLL_SECONDS)


def _somebody_is_there(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a worker of the run's pool is online."""
    if run.work_pool_name is None:
        return False
    try:
        workers = client.read_workers_for_work_pool(run.work_pool_name)
    except httpx.HTTPError:
        return False
    return any(str(worker.status).endswith("ONLINE") for worker in workers)


def _late(name: str, deployment: str, limit: float, *, waiting: bool) -> DeepFMError:
    if waiting:
        return TrainingError(
            f"no worker has started {name}",
            observed=f"{limit:.0f} s",
            where=deployment,
            next_step="See that a worker of its pool is online: deepfm doctor, or the pool's page.",
        )
    return TrainingLostError(
        f"{name} has not ended",
        observed=f"{limit:.0f} s",
        where=deployment,
        next_step="It was cancelled, and goes on from its last stored state when it is run again.",
    )


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
        raise TrainingError(f"{run.name} was cancelled", next_step="Run it again if that was not meant.")
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
