"""Waiting for a training on another pool, on a real, temporary Prefect server without a worker."""

import contextvars
import datetime as dt
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from deepfm.errors import ConfigError, ConflictError, StoreUnavailableError, TrainingError, TrainingLostError

VERSION = "2026-03-04-0123456789abcdef"
pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def deployment() -> str:
    """A training deployment that no worker looks at."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    from flows.train import train

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="nobody", type="process"))
        flow = client.create_flow_from_name(train.name)
        client.create_deployment(flow, "gpu", work_pool_name="nobody", enforce_parameter_schema=False)
    return "train/gpu"


def ask(deployment: str, **patience: float) -> None:
    from flows.delegated import Patience, train_on

    limits = Patience(**{"pickup_seconds": 30.0, "run_seconds": 30.0, **patience})
    train_on(deployment, store="file:///s", model="clicks", versions=[VERSION], patience=limits)


def meanwhile(act: Callable[[Any, Any], None]) -> threading.Thread:
    """Something happens to the newest run, as soon as it is there."""
    from prefect.client.orchestration import get_client

    def work() -> None:
        began = dt.datetime.now(dt.UTC)
        with get_client(sync_client=True) as client:
            while True:
                runs = [run for run in client.read_flow_runs() if run.created and run.created >= began]
                if runs:
                    act(client, runs[0].id)
                    return
                time.sleep(0.1)

    # In a copy of this context, which knows the temporary server.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    thread.start()
    return thread


def ends_in(state: Any) -> Callable[[Any, Any], None]:
    return lambda client, run: client.set_flow_run_state(run, state, force=True)


def test_a_deployment_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"no deployment train/nowhere.*deployments\.apply"):
        ask("train/nowhere")


def test_a_training_that_no_worker_starts_is_given_up_and_cancelled(deployment):
    from prefect.client.orchestration import get_client

    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"no worker has started train clicks 2026-03-04: 2 s.*worker"):
        ask(deployment, pickup_seconds=2.0)
    assert time.monotonic() - began < 15
    with get_client(sync_client=True) as client:
        states = {str(run.state_type) for run in client.read_flow_runs()}
    assert states == {"StateType.CRASHED"}


def test_a_training_that_was_taken_and_never_begins_is_given_up_and_frees_its_place(deployment):
    from prefect.client.orchestration import get_client
    from prefect.states import Pending

    thread = meanwhile(ends_in(Pending()))
    with pytest.raises(TrainingLostError, match=r"taken by a worker and never began: 2 s"):
        ask(deployment, start_seconds=2.0)
    thread.join()
    with get_client(sync_client=True) as client:
        assert all(run.state is not None and run.state.is_final() for run in client.read_flow_runs())


def test_a_worker_of_a_paused_pool_is_nobody_to_wait_for(deployment):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolUpdate

    from flows.delegated import _somebody_is_there

    with get_client(sync_client=True) as client:
        client.send_worker_heartbeat("nobody", "a-worker", heartbeat_interval_seconds=30)
        run = client.create_flow_run_from_deployment(client.read_deployment_by_name(deployment).id)
        assert _somebody_is_there(client, run)
        client.update_work_pool("nobody", WorkPoolUpdate(is_paused=True))
        assert not _somebody_is_there(client, run)
        client.update_work_pool("nobody", WorkPoolUpdate(is_paused=False))
        client.delete_flow_run(run.id)


def test_a_training_that_takes_too_long_is_cancelled(deployment):
    from prefect.states import Running

    thread = meanwhile(ends_in(Running()))
    with pytest.raises(TrainingError, match=r"has not ended: 2 s"):
        ask(deployment, run_seconds=2.0)
    thread.join()


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("Failed TrainingError: training diverged at step 3", TrainingError, "diverged at step 3"),
        ("Failed StoreUnavailableError: no answer", StoreUnavailableError, "no answer"),
        ("Failed Flow run encountered an exception: ValueError: odd", TrainingError, "odd"),
        ("Crashed no heartbeat for 90 s", TrainingLostError, "no heartbeat for 90 s"),
        ("Cancelled by hand", ConflictError, "was cancelled"),
    ],
)
def test_what_ended_the_training_is_what_whoever_asked_gets(deployment, state, error, words):
    from prefect import states

    kind, _, message = state.partition(" ")
    thread = meanwhile(ends_in(getattr(states, kind)(message=message)))
    with pytest.raises(error, match=words):
        ask(deployment)
    thread.join()


def test_a_training_that_ends_well_says_nothing(deployment):
    from prefect.states import Completed

    thread = meanwhile(ends_in(Completed()))
    ask(deployment)
    thread.join()


def test_a_server_that_is_away_for_a_moment_changes_nothing(deployment, monkeypatch):
    import httpx
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.states import Completed

    real = SyncPrefectClient.read_flow_run
    lost: list[Any] = []

    def away(self: Any, run: Any) -> Any:
        if len(lost) < 3:
            lost.append(run)
            raise httpx.ConnectError("gone")
        return real(self, run)

    thread = meanwhile(ends_in(Completed()))
    monkeypatch.setattr(SyncPrefectClient, "read_flow_run", away)
    ask(deployment)
    thread.join()
    assert len(lost) == 3


def test_without_a_server_nobody_can_be_asked(monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(ConfigError, match="PREFECT_API_URL"):
        ask("train/gpu")
