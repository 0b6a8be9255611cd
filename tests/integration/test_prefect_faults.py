"""What Prefect, its server or a person does to a run at a bad moment, on a real, temporary Prefect server."""

import datetime as dt
from typing import Any
from uuid import UUID

import httpx
import pytest

from deepfm.errors import IntegrityError, StoreUnavailableError, TrainingError, TrainingLostError
from tests.places import WORLD
from tests.tiny_days import HOLDOUT, tiny_config
from tests.tiny_toml import write_toml

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def arguments(here) -> dict[str, Any]:
    """What `retrain` gets for the tiny days."""
    return {"config": str(write_toml(here.folder, source=here.source, store=here.store)), "logical_date": HOLDOUT}


class Disturbed:
    """Answers some requests in the server's place, by their number, and counts all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, disturbed: set[int]) -> None:
        self.asked = 0
        real = httpx.HTTPTransport.handle_request

        def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
            self.asked += 1
            return self.answer(request) if self.asked in disturbed else real(transport, request)

        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"Retry-After": "0"}, request=request)


class Away(Disturbed):
    """No server at the address."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize("first", [1, 4, 8])
def test_a_server_that_is_busy_fails_no_run(arguments, monkeypatch, first):
    from flows.retrain import retrain

    # Twenty refusals, five in a row at most: a request is tried six times.
    busy = Disturbed(monkeypatch, refused := {first + n + n // 5 for n in range(20)})
    assert retrain(**arguments, return_state=True).name == "Completed"
    assert busy.asked > max(refused)


@pytest.mark.parametrize("number", [3, 6, 10, 12])
def test_a_server_that_is_away_for_two_requests_fails_no_run_that_has_begun(arguments, here, monkeypatch, number):
    from flows.retrain import retrain

    away = Away(monkeypatch, {number, number + 1})
    assert retrain(**arguments, return_state=True).name == "Completed"
    assert away.asked > number + 1
    assert len(here.workspace().registry.entries()) == 1


@pytest.mark.parametrize("state", ["Cancelling", "Cancelled"])
def test_a_run_that_is_cancelled_before_its_promotion_promotes_nothing(arguments, here, monkeypatch, state):
    from prefect import states
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    from flows import tasks
    from flows.retrain import retrain

    real, runs = tasks._stop_if_cancelled, []

    def cancelled_just_before() -> None:
        runs.append(flow_run.id)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(flow_run.id), getattr(states, state)(), force=True)
        real()

    monkeypatch.setattr(tasks, "_stop_if_cancelled", cancelled_just_before)
    ended = retrain(**arguments, return_state=True)
    assert not ended.is_completed()
    assert here.workspace().registry.entries() == []
    assert len(runs) == 1


def test_the_daily_run_is_trained_before_a_backfill_that_asked_earlier():
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolUpdate
    from prefect.deployments import run_deployment

    from deployments.apply import apply_pool
    from flows.train import train

    with get_client(sync_client=True) as client:
        apply_pool(client, "gpu")
        assert apply_pool(client, "gpu") == "gpu: 1 at a time"
        flow = client.create_flow_from_name(train.name)
        client.create_deployment(flow, "gpu", work_pool_name="gpu", enforce_parameter_schema=False)
        for queue in ("default", "default", "urgent"):
            run_deployment("train/gpu", timeout=0, flow_run_name=queue, work_queue_name=queue)
        soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=10)
        found = client.get_scheduled_flow_runs_for_work_pool("gpu", scheduled_before=soon)
        assert found[0].flow_run.name == "urgent"
        client.update_work_pool("gpu", WorkPoolUpdate(concurrency_limit=3))
        assert apply_pool(client, "gpu") == "gpu: 3 at a time"  # what an operator has set stays


def test_after_thirty_days_of_downtime_only_the_newest_run_works_and_the_catch_up_takes_the_week(here):
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow
    from prefect.states import Scheduled

    from flows.backfill import backfill
    from flows.retrain import retrain

    config = str(write_toml(here.folder, source=here.source, store=here.store))
    now = dt.datetime.now(dt.UTC)
    states = []
    with get_client(sync_client=True) as client:
        for days in range(30, -1, -1):
            due: Any = Scheduled(scheduled_time=now - dt.timedelta(days=days))
            given = {"config": config, "skip_late": True}
            run = client.create_flow_run(retrain, parameters=given, state=due)
            states.append(_as_scheduled(run_flow, retrain, run, given))
        assert [state.name for state in states[:-1]] == ["Skipped"] * 30
        assert all("daily search" in state.message for state in states[:-1])
        assert "are not there" in states[-1].message  # the newest did look for its day
    state = backfill(dt.date(2000, 1, 1), dt.date(2000, 1, 1), last_days=7, config=config, return_state=True)
    assert state.name == "Nothing to do"


def _as_scheduled(run_flow: Any, flow: Any, run: Any, given: dict[str, Any]) -> Any:
    """The end of a run that a schedule has created; the server says so only of runs that it made itself."""
    from prefect.client.orchestration import SyncPrefectClient

    real = SyncPrefectClient.read_flow_run
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            SyncPrefectClient,
            "read_flow_run",
            lambda self, known: real(self, known).model_copy(update={"auto_scheduled": True}),
        )
        return run_flow(flow, flow_run=run, parameters=given, return_type="state")


def test_an_old_run_that_somebody_starts_again_is_not_late(here, monkeypatch):
    from prefect.client.orchestration import SyncPrefectClient, get_client
    from prefect.flow_engine import run_flow
    from prefect.states import Scheduled

    from flows.retrain import retrain

    given = {"config": str(write_toml(here.folder, source=here.source, store=here.store)), "logical_date": str(HOLDOUT)}
    real = SyncPrefectClient.read_flow_run
    with get_client(sync_client=True) as client:
        due: Any = Scheduled(scheduled_time=dt.datetime.now(dt.UTC) - dt.timedelta(days=3))
        run = client.create_flow_run(retrain, parameters={**given, "skip_late": True}, state=due)

    def again(self: Any, known: Any) -> Any:
        return real(self, known).model_copy(update={"auto_scheduled": True, "run_count": 2})

    monkeypatch.setattr(SyncPrefectClient, "read_flow_run", again)
    state: Any = run_flow(retrain, flow_run=run, parameters={**given, "skip_late": True}, return_type="state")
    assert state.name == "Completed", state.message


@pytest.mark.parametrize(
    "wrong",
    [{"logical_date": 10**30}, {"promote": "perhaps"}, {"overrides": "epochs=3"}, {"config": 3}, {"epochs": 3}],
)
def test_a_parameter_that_cannot_be_meant_is_refused_before_any_work(arguments, here, wrong):
    from prefect.exceptions import ParameterBindError, ParameterTypeError

    from flows.retrain import retrain

    with pytest.raises((ParameterTypeError, ParameterBindError)):
        retrain(**(arguments | wrong))
    assert not (here.folder / "store").exists()


def test_a_step_that_always_fails_is_tried_three_times_within_an_hour(arguments, monkeypatch):
    from deepfm import retraining
    from flows import tasks
    from flows.retrain import retrain

    assert len(tasks.RETRY_DELAYS_SECONDS) + 1 == 3
    stages, jitter = 10, 1.5
    assert stages * jitter * sum(tasks.RETRY_DELAYS_SECONDS) < 3600
    calls = []

    def away(workspace: object, date: object) -> None:  # noqa: ARG001 - a stage's arguments
        calls.append(1)
        raise StoreUnavailableError("no answer")

    monkeypatch.setattr(tasks, "RETRY_DELAYS_SECONDS", [0.0, 0.0])
    away.__name__ = "validate_day"
    monkeypatch.setattr(retraining, "validate_day", away)
    assert retrain(**arguments, return_state=True).is_failed()
    assert len(calls) == 3


def test_a_training_that_is_lost_twice_is_not_tried_a_third_time(monkeypatch):
    from flows import train as module
    from flows.delegated import _judge

    calls = []

    def lost(*_: object, **__: object) -> None:
        calls.append(1)
        raise TrainingLostError("training of tiny made no step")

    monkeypatch.setattr(module, "train_watched", lost)
    given = {"store": "file:///nowhere", "model": "tiny", "versions": ["2026-03-04-0123456789abcdef"]}
    state = module.train(**given, return_state=True)
    assert len(calls) == 2
    assert state.is_failed()

    class Run:
        name = "train tiny 2026-03-04"

    Run.state = state  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match="twice: training of tiny made no step"):
        _judge(Run())  # type: ignore[arg-type]


def test_a_day_that_breaks_costs_the_dates_that_need_it_and_no_others(arguments, monkeypatch):
    from deepfm.pipeline import prepare_day as real
    from flows import backfill as module

    def breaks(workspace: Any, report: Any) -> Any:
        if report.logical_date == WORLD[0]:
            raise IntegrityError("object does not hold the bytes that its manifest names")
        return real(workspace, report)

    breaks.__name__ = real.__name__
    monkeypatch.setattr(module, "prepare_day", breaks)
    monkeypatch.setattr("deepfm.retraining.prepare_day", breaks)
    state = module.backfill(WORLD[0], HOLDOUT, config=arguments["config"], return_state=True)
    assert state.is_failed()
    told = str(state.message)
    assert "2 of 3 dates could not be retrained" in told, told
    assert "does not hold the bytes" in told


def test_a_store_that_is_away_ends_the_backfill_and_says_where_it_goes_on(arguments, monkeypatch):
    from flows import backfill as module
    from flows import tasks

    def away(workspace: object, date: object) -> None:  # noqa: ARG001 - a stage's arguments
        raise StoreUnavailableError("no answer")

    away.__name__ = "validate_day"
    monkeypatch.setattr(tasks, "RETRY_DELAYS_SECONDS", [0.0, 0.0])
    monkeypatch.setattr(module, "validate_day", away)
    state = module.backfill(WORLD[0], HOLDOUT, config=arguments["config"], return_state=True)
    with pytest.raises(StoreUnavailableError):
        state.result()


def test_the_doctor_says_who_holds_a_slot_and_since_when(arguments):
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    from flows.doctor import checks

    with get_client(sync_client=True) as client:
        _, entry = (
            client.create_deployment(
                client.create_flow_from_name(flow),
                name,
                tags=["model:tiny"],
                concurrency_limit=1,
                parameters={"config": arguments["config"]},
                enforce_parameter_schema=False,
            )
            for flow, name in (("retrain", "daily"), ("backfill", "range"))
        )
        limits = {check.name: check for check in checks(tiny_config())}["prefect.limits"]
        assert (limits.status, limits.observed.count("0 of 1 in use")) == ("ok", 2)
        limit = client.read_deployment(entry).global_concurrency_limit
        assert limit is not None
        path = {"id_or_name": limit.name}
        done = client.request(
            "PATCH", "/v2/concurrency_limits/{id_or_name}", path_params=path, json={"active_slots": 1}
        )
        done.raise_for_status()
        limits = {check.name: check for check in checks(tiny_config())}["prefect.limits"]
        assert limits.status == "warning"
        assert "no run is under way" in limits.observed
        assert f"global-concurrency-limit update {limit.name} --active-slots 0" in limits.next_step
        run = client.create_flow_run_from_deployment(entry, name="the one that works")
        client.set_flow_run_state(run.id, Running(), force=True)
        limits = {check.name: check for check in checks(tiny_config())}["prefect.limits"]
        assert "by the one that works for 0 min" in limits.observed
