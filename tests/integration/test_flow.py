"""The flow `retrain` on a real, temporary Prefect server."""

import asyncio
import datetime as dt
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pyarrow as pa
import pytest

from deepfm.errors import ConfigError, DataRejectedError, StoreUnavailableError
from deepfm.pipeline import validate_day
from tests.places import WORLD, Place, local_place
from tests.tiny_days import HOLDOUT, click_day, with_column
from tests.tiny_toml import write_toml

if TYPE_CHECKING:
    from deepfm.workspace import Workspace

GOLDEN = Path(__file__).parents[1] / "golden" / "flows" / "retrain.json"


@pytest.fixture
def arguments(here, prefect_server) -> dict[str, Any]:  # noqa: ARG001 - the server has to run
    """What the flow gets for the tiny days."""
    return {"config": str(write_toml(here.folder, source=here.source, store=here.store)), "logical_date": HOLDOUT}


@pytest.fixture
def no_waiting(monkeypatch) -> None:
    """A task that is tried again is tried at once."""
    from flows import tasks

    monkeypatch.setattr(tasks, "RETRY_DELAYS_SECONDS", [0.0, 0.0, 0.0])


def artifact(key: str) -> str:
    from prefect.artifacts import Artifact

    found = asyncio.run(Artifact.aget(key))
    assert found is not None
    return str(found.data)


def one_class(date: dt.date) -> pa.Table:
    """A day on which nobody clicked."""
    table = click_day(date)
    return with_column(table, "click", pa.array([0] * len(table), pa.int64()))


def run_as_scheduled(parameters: dict[str, Any], when: str) -> tuple[Any, Any]:
    """The run's record and its last state, as when a worker picks up what a schedule has created."""
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow
    from prefect.states import Scheduled

    from flows.retrain import retrain

    with get_client(sync_client=True) as client:
        created = client.create_flow_run(
            retrain, parameters=parameters, state=Scheduled(scheduled_time=dt.datetime.fromisoformat(when))
        )
        state = run_flow(retrain, flow_run=created, parameters=parameters, return_type="state")
        return client.read_flow_run(created.id), state


class ScheduledRun(NamedTuple):
    """A run that a schedule started, and what it left behind."""

    record: Any
    state: Any
    place: Place
    results: Path


@pytest.fixture(scope="module")
def scheduled(one_thread, prefect_server, tmp_path_factory) -> Iterator[ScheduledRun]:  # noqa: ARG001 - for their effect
    """A run of the morning after the holdout, where Prefect would keep results and takes in the library's logs."""
    from prefect.logging.configuration import setup_logging
    from prefect.settings import (
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_LOGGING_EXTRA_LOGGERS,
        PREFECT_RESULTS_PERSIST_BY_DEFAULT,
        temporary_settings,
    )

    place = local_place(tmp_path_factory.mktemp("scheduled"))
    for date in WORLD:
        place.deliver(date)
    results, library = place.folder / "results", logging.getLogger("deepfm")
    handlers, level = list(library.handlers), library.level
    settings = {
        PREFECT_LOCAL_STORAGE_PATH: results,
        PREFECT_RESULTS_PERSIST_BY_DEFAULT: True,
        PREFECT_LOGGING_EXTRA_LOGGERS: "deepfm",
    }
    config = write_toml(place.folder, source=place.source, store=place.store)
    with temporary_settings(settings):
        setup_logging(incremental=False)
        record, state = run_as_scheduled({"config": str(config)}, "2026-03-05T03:00:00+00:00")
    yield ScheduledRun(record, state, place, results)
    library.handlers = handlers
    library.setLevel(level)


def test_a_scheduled_run_is_about_the_day_before_its_scheduled_time(scheduled):
    assert scheduled.state.is_completed(), scheduled.state.message
    outcome = scheduled.state.result()
    assert (outcome.status, outcome.date) == ("promoted", HOLDOUT)
    assert scheduled.place.workspace().registry.head().version == outcome.version


def test_a_run_is_named_after_its_model_and_its_date(scheduled):
    assert scheduled.record.name == f"retrain tiny {HOLDOUT}"


def test_prefect_keeps_no_result(scheduled):
    assert not list(scheduled.results.rglob("*"))


def test_the_logs_of_the_library_are_the_logs_of_the_run(scheduled):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[scheduled.record.id]))
    deadline = time.monotonic() + 20
    found: dict[str, list[str]] = {}
    with get_client(sync_client=True) as client:
        while "deepfm.pipeline" not in found and time.monotonic() < deadline:
            for log in client.read_logs(log_filter=wanted):
                found.setdefault(log.name, []).append(log.message)
    assert any("ONNX agrees with torch" in message for message in found.get("deepfm.pipeline", [])), found


def test_a_config_that_cannot_be_read_fails_the_run_in_words(prefect_server):  # noqa: ARG001 - it has to run
    record, state = run_as_scheduled({"config": "nowhere.toml"}, "2026-03-05T03:00:00+00:00")
    assert (state.is_failed(), record.name) == (True, "retrain nowhere.toml")
    with pytest.raises(ConfigError, match=r"nowhere\.toml does not exist"):
        state.result()


def test_a_retrain_leaves_its_verdict_as_an_artifact_and_is_done_once(arguments, here):
    from flows.retrain import retrain

    outcome = retrain(**arguments)
    text = artifact("tiny-verdict")
    for part in (outcome.version, "is the new champion", f"{outcome.challenger_auc:.4f}", str(HOLDOUT)):
        assert part in text
    (link,) = re.findall(r"\((file://\S+/report\.html)\)", text)
    assert Path(link.removeprefix("file://")).exists()
    assert retrain(**arguments) == outcome
    assert len(here.workspace().registry.entries()) == 1


def test_a_refused_day_fails_the_flow_and_names_the_rules(arguments, here):
    from flows.retrain import retrain

    here.deliver(HOLDOUT, one_class(HOLDOUT))
    with pytest.raises(DataRejectedError, match="both_classes"):
        retrain(**arguments)
    text = artifact("tiny-verdict")
    assert "the holdout day was refused" in text
    assert "both\\_classes" in text
    assert here.workspace().registry.head() is None


def test_days_that_are_judged_side_by_side_keep_their_own_judgement(here, prefect_server):  # noqa: ARG001 - it has to run
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    from flows.tasks import StageTasks

    bad = set(WORLD[::2])
    for date in bad:
        here.deliver(date, one_class(date))
    workspace = here.workspace()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=len(WORLD)))  # type: ignore[arg-type]
    def judge() -> list[Any]:
        return StageTasks().each(validate_day, workspace, WORLD)

    reports = judge()
    assert [report.logical_date for report in reports] == WORLD
    assert {report.logical_date for report in reports if not report.accepted} == bad
    assert all({finding.rule for finding in report.broken} == {"both_classes"} for report in reports if report.broken)


@pytest.mark.usefixtures("no_waiting")
def test_an_outage_of_the_store_costs_a_retry(arguments, here, monkeypatch):
    from flows.retrain import retrain

    lost: list[str] = []

    def outage(_: str, key: str) -> None:
        stage = key.split("/", maxsplit=1)[0]
        if stage not in lost:
            lost.append(stage)
            raise StoreUnavailableError("no answer", where=key)

    monkeypatch.setattr("flows.retrain.open_workspace", lambda *_, **__: here.workspace(tell=outage))
    assert retrain(**arguments).status == "promoted"
    assert {"days", "models", "training"} <= set(lost)


@pytest.mark.usefixtures("prefect_server", "no_waiting")
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(
    ("error", "tries"), [(StoreUnavailableError("no answer"), 2), (ConfigError("no such bucket"), 1)]
)
def test_only_errors_that_can_pass_are_tried_again(error, tries, each):
    from prefect import flow

    from flows.tasks import StageTasks

    calls = []

    def stage(workspace: object, item: object = None) -> str:  # noqa: ARG001 - a stage's arguments
        calls.append(1)
        if len(calls) == 1:
            raise error
        return "done"

    @flow
    def once() -> str:
        tasks, nowhere = StageTasks(), cast("Workspace", None)
        return tasks.each(stage, nowhere, [HOLDOUT])[0] if each else tasks.call(stage, nowhere)

    if tries == 1:
        with pytest.raises(ConfigError):
            once()
    else:
        assert once() == "done"
    assert len(calls) == tries


def test_a_parameter_of_the_wrong_type_is_refused_before_any_work(arguments, here):
    from prefect.exceptions import ParameterTypeError

    from flows.retrain import retrain

    with pytest.raises(ParameterTypeError, match="logical_date"):
        retrain(**{**arguments, "logical_date": "yesterday"})
    assert not Path(here.folder / "store").exists()


def test_the_form_of_the_flow_is_pinned():
    from flows.retrain import retrain

    schema = json.dumps(retrain.parameters.model_dump(), indent=2, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(schema)
    assert GOLDEN.read_text() == schema
    assert '"format": "date"' in schema  # a calendar in the form


@pytest.mark.parametrize(("hours", "name"), [(25, "Skipped"), (23, "Completed")])
def test_a_scheduled_run_that_is_a_day_late_leaves_its_day_to_the_catch_up(arguments, monkeypatch, hours, name):
    from flows import retrain as module

    monkeypatch.setattr(module, "lateness", lambda: dt.timedelta(hours=hours))
    state = module.retrain(**arguments, skip_late=True, return_state=True)
    assert (state.name, state.is_completed()) == (name, True)
    assert module.retrain(**arguments, return_state=True).name == "Completed"


def test_a_challenger_that_lost_is_a_green_run_in_a_state_that_says_so(arguments):
    from flows.retrain import retrain

    assert retrain(**{**arguments, "logical_date": HOLDOUT}, return_state=True).name == "Completed"
    lost = retrain(**arguments, overrides=["training.epochs=1", "gate.min_auc=0.97"], return_state=True)
    assert lost.is_completed()
    assert lost.name in {"Rejected by the gate", "Inconclusive"}
    assert lost.message == lost.result().reasons[0]


def test_a_run_that_nobody_scheduled_is_never_late(prefect_server):  # noqa: ARG001 - it has to run
    from prefect import flow

    from flows.retrain import lateness

    @flow
    def ask() -> float:
        return lateness().total_seconds()

    assert ask() == 0.0
