"""The flow `retrain`: one logical date from clicks to a verdict, each stage a task."""

import datetime as dt
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from deepfm.config import RetrainConfig
from deepfm.config_file import load_config
from deepfm.errors import DataRejectedError, DeepFMError, one_line
from deepfm.retraining import Runner, RunOutcome
from deepfm.retraining import retrain as run_stages
from deepfm.workspace import open_workspace
from flows.artifacts import publish_outcome
from flows.logical_date import resolve_logical_date
from flows.logs import let_library_speak, shown_if_possible
from flows.tasks import StageTasks

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture

# A runner of threads makes futures of its own kind, which the invariant type parameter does not let through.
side_by_side = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=2))
SHARED_RUNNER: ContextVar[Runner | None] = ContextVar("SHARED_RUNNER", default=None)
"""What runs the stages of a flow that a backfill calls in its own process: it knows what was asked about a day."""
NEXT_RUN_AFTER = dt.timedelta(days=1)
"""From then on a run that a schedule has created stands in the way of newer ones."""
_STATE_NAMES = {"reject": "Rejected by the gate", "inconclusive": "Inconclusive", "promote": "Not promoted"}
"""What a completed run without a promotion is called, by the gate's verdict; the last where a person withheld it."""


def name_of_run() -> str:
    """`retrain <model> <logical date>`, or `retrain <config>` where the run is about to say what is wrong with it."""
    given = flow_run.parameters
    try:
        settings = load_config(Path(given["config"]), overrides=given["overrides"] or ())
        return f"retrain {settings.model} {resolve_logical_date(given['logical_date'], settings)}"
    except DeepFMError:
        return f"retrain {given['config']}"


@flow(
    name="retrain",
    flow_run_name=name_of_run,
    task_runner=side_by_side,
    persist_result=False,
    validate_parameters=True,
)
def retrain(  # noqa: PLR0913, PLR0917 - one argument per field of the form
    config: str,
    logical_date: dt.date | None = None,
    store: str | None = None,
    overrides: list[str] | None = None,
    train_on: str = "",
    promote: bool = True,  # noqa: FBT001, FBT002 - a switch in the form
    skip_late: bool = False,  # noqa: FBT001, FBT002 - a switch in the form
) -> RunOutcome:
    """Validate, prepare, train, export, gate and promote one logical date.

    A challenger that loses is a completed run in a state of that name; a refused holdout day is a failed one that names
    the broken rules.

    Args:
        config: Path of the model's TOML.
        logical_date: The holdout day; unset, the scheduled day minus the model's lag.
        store: Where models are kept; unset, DEEPFM_STORE or the TOML's store.
        overrides: Keys of the TOML to override, such as training.epochs=2.
        train_on: Deployment that trains, such as train/gpu; empty, this run trains.
        promote: Whether to promote what the gate clears.
        skip_late: Whether a scheduled run that starts after the next one was due leaves its day to the catch-up.
    """
    let_library_speak()
    settings = load_config(Path(config), overrides=overrides or ())
    date = resolve_logical_date(logical_date, settings)
    queue = _find_and_tag(settings, date)
    if skip_late and (late := lateness()) >= NEXT_RUN_AFTER:
        hours = late.total_seconds() / 3600
        told = f"{hours:.0f} h late: the daily search for missing days runs it if it is one of the last week"
        return _handed(Completed(name="Skipped", message=told))
    workspace = open_workspace(settings, store_url=store)
    runner = SHARED_RUNNER.get() or StageTasks(train_on=train_on, queue=queue)
    outcome = run_stages(workspace, date, runner=runner, promoting=promote)
    with shown_if_possible():
        publish_outcome(workspace, outcome)
    if outcome.status == "data_rejected":
        raise DataRejectedError(
            f"clicks of {date} were refused",
            observed="; ".join(outcome.reasons),
            next_step="Deliver the day again; the champion stays.",
        )
    get_run_logger().info("%s %s: %s", outcome.version, outcome.status, one_line("; ".join(outcome.reasons)))
    return _handed(_completed(outcome))


def _handed(state: State[Any]) -> RunOutcome:
    """A state that a flow returns becomes the run's own, and whoever called the flow gets the data in it."""
    return cast("RunOutcome", state)


def _completed(outcome: RunOutcome) -> State[Any]:
    """A green state that says at a glance what came of the challenger."""
    if outcome.status == "promoted":
        return Completed(message=f"{outcome.version} is champion", data=outcome)
    name = _STATE_NAMES[outcome.verdict or "inconclusive"]
    return Completed(name=name, message=outcome.reasons[0] if outcome.reasons else name, data=outcome)


def _find_and_tag(settings: RetrainConfig, date: dt.date) -> str:
    """The queue in which this run's training waits; the run can be found by model and by day, if the server answers."""
    queue = "default"
    with shown_if_possible(), get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
        queue = "urgent" if run.auto_scheduled else "default"
        client.update_flow_run(run.id, tags={*run.tags, f"model:{settings.model}", f"day:{date}"})
    return queue


def lateness() -> dt.timedelta:
    """How long after its time this run, if a schedule has created it, has started; nothing for other runs."""
    late = dt.timedelta()
    with shown_if_possible(), get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
        due = run.expected_start_time
        # Who starts an old run again means it.
        if run.auto_scheduled and due and run.run_count <= 1:
            late = dt.datetime.now(dt.UTC) - due
    return late
