"""The flow `retrain`: one logical date from clicks to a verdict, each stage a task."""

import datetime as dt
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from deepfm.config_file import load_config
from deepfm.errors import DataRejectedError, DeepFMError
from deepfm.retraining import RunOutcome
from deepfm.retraining import retrain as run_stages
from deepfm.workspace import open_workspace
from flows.artifacts import publish_outcome
from flows.logical_date import resolve_logical_date
from flows.tasks import StageTasks

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture

# A runner of threads makes futures of its own kind, which the invariant type parameter does not let through.
_side_by_side = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=2))


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
    task_runner=_side_by_side,
    persist_result=False,
    validate_parameters=True,
)
def retrain(
    config: str,
    logical_date: dt.date | None = None,
    store: str | None = None,
    overrides: list[str] | None = None,
) -> RunOutcome:
    """Validate, prepare, train, export, gate and promote one logical date.

    A challenger that loses is a completed run; a refused holdout day is a failed one that names the broken rules.

    Args:
        config: Path of the model's TOML.
        logical_date: The holdout day; unset, the scheduled day minus the model's lag.
        store: Where models are kept; unset, DEEPFM_STORE or the TOML's store.
        overrides: Keys of the TOML to override, such as training.epochs=2.
    """
    _let_stages_speak()
    settings = load_config(Path(config), overrides=overrides or ())
    date = resolve_logical_date(logical_date, settings)
    outcome = run_stages(open_workspace(settings, store_url=store), date, runner=StageTasks())
    publish_outcome(settings.model, outcome)
    if outcome.status == "data_rejected":
        raise DataRejectedError(
            f"clicks of {date} were refused",
            observed="; ".join(outcome.reasons),
            next_step="Deliver the day again; the champion stays.",
        )
    get_run_logger().info("%s %s: %s", outcome.version, outcome.status, "; ".join(outcome.reasons))
    return outcome


def _let_stages_speak() -> None:
    """The library logs at PREFECT_LOGGING_LEVEL: Prefect gives an extra logger its handlers, but not its level."""
    library = logging.getLogger("deepfm")
    if library.level == logging.NOTSET:
        library.setLevel(logging.getLogger("prefect.extra").level)
