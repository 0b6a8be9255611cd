"""The flow `backfill`: a range of dates, planned first, each day prepared once, with a calendar that stays current."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from prefect import flow, get_run_logger, tags
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from deepfm.backfilling import Remembering
from deepfm.config import RetrainConfig
from deepfm.config_file import load_config
from deepfm.delegation import is_trained, request_training
from deepfm.errors import ConfigError, ConflictError, DeepFMError, NoSpaceError, StoreUnavailableError, UsageError
from deepfm.pipeline import prepare_day, validate_day
from deepfm.planning import Order, Plan, Which, check_range, days_needed, plan_of
from deepfm.retraining import RunOutcome, failure, window_of
from deepfm.workspace import Workspace, open_workspace
from flows.calendar import BackfillPage
from flows.history import estimate
from flows.logical_date import resolve_logical_date
from flows.logs import let_library_speak
from flows.retrain import NEXT_RUN_AFTER, SHARED_RUNNER, lateness, retrain
from flows.tasks import StageTasks, training_task

MOST_PARALLEL = 8
_MEETS_EVERY_DATE = (ConfigError, ConflictError, NoSpaceError, StoreUnavailableError, UsageError)
"""What would end the next date, too: the backfill ends with it, and goes on from there when it is asked for again."""
Promote = Literal["never", "if newer than the champion"]
_REFRESH_SECONDS = 3.0


class _Range(NamedTuple):
    start: dt.date
    end: dt.date


def _name_of_run() -> str:
    given = flow_run.parameters
    try:
        settings = load_config(Path(given["config"]), overrides=given["overrides"] or ())
        start, end = _range(settings, given["start"], given["end"], given["last_days"])
    except DeepFMError:
        return f"backfill {given['config']}"
    return f"backfill {settings.model} {start} to {end}"


@flow(
    name="backfill",
    flow_run_name=_name_of_run,
    task_runner=ThreadPoolTaskRunner(max_workers=MOST_PARALLEL),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=True,
)
def backfill(  # noqa: PLR0913 - one argument per field of the form
    start: dt.date,
    end: dt.date,
    *,
    which: Which = "missing",
    promote: Promote = "never",
    order: Order = "oldest first",
    max_parallel: Annotated[int, Field(ge=1, le=MOST_PARALLEL)] = 2,
    dry_run: bool = False,
    large: bool = False,
    note: str = "",
    last_days: Annotated[int, Field(ge=0, le=31)] = 0,
    config: str,
    store: str | None = None,
    overrides: list[str] | None = None,
    train_on: str = "",
) -> State[Any]:
    """Retrain for a range of logical dates: plan first, prepare each day once, and show a calendar while it works.

    The same request after a kill goes on where it was: what is done is found in the store and not done again.

    Args:
        start: First logical date.
        end: Last logical date, itself included.
        which: Dates that no run has brought to an end; also those that were refused or are stale; or all with data.
        promote: Whether a date may become champion. An older one than the champion never does.
        order: In which order the dates are gated. Oldest first, each meets the champion of its time.
        max_parallel: Days prepared, and training runs at work, at a time.
        dry_run: Only plan, and show the plan as a calendar.
        large: Tick to run more than 31 days.
        note: Why; it is shown on the calendar.
        last_days: For schedules. Above 0, the last so many days up to the one that is due, whatever start and end say.
        config: Path of the model's TOML.
        store: Where models are kept; unset, DEEPFM_STORE or the TOML's store.
        overrides: Keys of the TOML to override, such as training.epochs=2.
        train_on: Deployment that trains, such as train/gpu; empty, this run trains.
    """
    let_library_speak()
    settings = load_config(Path(config), overrides=overrides or ())
    if last_days and (late := lateness()) >= NEXT_RUN_AFTER:
        return Completed(name="Skipped", message=f"{late.total_seconds() / 3600:.0f} h late: a newer one looks further")
    first, last = _range(settings, start, end, last_days)
    check_range(first, last, last_whole=_last_whole_day(settings), large=large)
    workspace = open_workspace(settings, store_url=store)
    # What a person has kept from promotion, by a backfill without it, the daily search does not promote.
    plan = plan_of(workspace, first, last, which, promoting=promote != "never" and not last_days)
    dates = plan.chosen if order == "oldest first" else tuple(reversed(plan.chosen))
    asked = f"{which}, promote {promote}, {order}, {max_parallel} at a time"
    page = BackfillPage(
        settings.model,
        plan,
        heading=f"Backfill of {settings.model}, {first} to {last}",
        notes=tuple(filter(None, (asked, note, _promise(settings.model, plan, dry_run=dry_run)))),
    )
    if dry_run or not dates:
        return Completed(name="Planned" if dates else "Nothing to do", message=f"{len(dates)} dates would be retrained")
    given: dict[str, Any] = {"config": config, "store": store, "overrides": overrides, "train_on": train_on}
    given["promote"] = promote != "never"
    return _carry_out(workspace, dates, page, given, width=max_parallel)


def _carry_out(
    workspace: Workspace, dates: Sequence[dt.date], page: BackfillPage, given: Mapping[str, Any], *, width: int
) -> State[Any]:
    """What a plan comes to; `given` is what the run of each date gets."""
    train_on = str(given["train_on"])
    with page.until_the_end():
        runner = Remembering(StageTasks(train_on=train_on, width=width))
        _prepare(workspace, dates, runner, page)
        if train_on:
            _train(workspace, dates, runner, page, train_on=train_on, groups=width)
        return _end(_gate(workspace.config, dates, runner, page, given), page)


def _range(settings: RetrainConfig, start: dt.date, end: dt.date, last_days: int) -> _Range:
    if not last_days:
        return _Range(start, end)
    due = resolve_logical_date(None, settings)
    return _Range(due - dt.timedelta(days=last_days - 1), due)


def _last_whole_day(settings: RetrainConfig) -> dt.date:
    """Today where the model is judged on the day it runs, yesterday otherwise."""
    today = dt.datetime.now(ZoneInfo(settings.time_zone)).date()
    return today - dt.timedelta(days=min(settings.lag_days, 1))


def _promise(model: str, plan: Plan, *, dry_run: bool) -> str:
    count = len(plan.chosen)
    if not count:
        return "No date is to be retrained."
    will = "would be" if dry_run else "will be"
    return f"{count} {'date' if count == 1 else 'dates'} {will} retrained, {estimate(model, count)}"


def _prepare(workspace: Workspace, dates: Sequence[dt.date], runner: Remembering, page: BackfillPage) -> None:
    """Every day that the dates need is judged, and prepared if it trains, once."""
    needed = days_needed(workspace.config, dates)
    page.show(f"Judging {len(needed.judged)} days ...")
    with _of_single_dates("judging"):
        reports = runner.each(validate_day, workspace, needed.judged)
        days = [r for r in reports if r is not None and r.accepted and r.logical_date in needed.windows]
        page.show(f"Preparing {len(days)} days ...")
        runner.each(prepare_day, workspace, days)


@contextmanager
def _of_single_dates(what: str) -> Iterator[None]:
    """Within it, work for many dates; an error of one day is told by the dates that need the day, one by one."""
    try:
        yield
    except _MEETS_EVERY_DATE:
        raise
    except DeepFMError as error:
        get_run_logger().warning("%s: %s", what, error)


def _train(
    workspace: Workspace,
    dates: Sequence[dt.date],
    runner: Remembering,
    page: BackfillPage,
    *,
    train_on: str,
    groups: int,
) -> None:
    """Every date's version is trained that can be; what fails is told when its date is gated."""
    versions = []
    for number, date in enumerate(dates, start=1):
        page.show(f"Assembling window {number} of {len(dates)} ...")
        with _of_single_dates(f"window of {date}"):
            versions.append(request_training(workspace, window_of(workspace, date, runner=runner)))
    left = [version for version in versions if not is_trained(workspace, version)]
    parts = [part for n in range(groups) if (part := left[n::groups])]
    while parts:
        futures = [training_task().submit(workspace, part, train_on) for part in parts]
        while wait(futures, timeout=_REFRESH_SECONDS).not_done:
            done = [version for version in left if is_trained(workspace, version)]
            page.trained = {dt.date.fromisoformat(version[:10]) for version in done}
            page.show(f"Trained {len(done)} of {len(left)} versions on {train_on} ...")
        _log_failures(futures)
        parts = [rest for part in parts if (rest := _rest(workspace, part))]


def _rest(workspace: Workspace, versions: list[str]) -> list[str]:
    """What a training run has not begun when it gave the device back; nothing, if it got nowhere.

    What it left out before the last version that it trained has failed.
    """
    trained = [number for number, version in enumerate(versions) if is_trained(workspace, version)]
    return versions[trained[-1] + 1 :] if trained else []


def _log_failures(futures: Sequence[PrefectFuture[None]]) -> None:
    """What failed is in the log; what would fail for every date is raised."""
    for future in futures:
        with _of_single_dates("a training run"):
            future.result()


def _gate(
    settings: RetrainConfig,
    dates: Sequence[dt.date],
    runner: Remembering,
    page: BackfillPage,
    given: Mapping[str, Any],
) -> dict[dt.date, RunOutcome]:
    """Every date's outcome, by a run of its own within this one."""
    outcomes: dict[dt.date, RunOutcome] = {}
    token = SHARED_RUNNER.set(runner)
    try:
        for number, date in enumerate(dates, start=1):
            page.show(f"Gating {date}, {number} of {len(dates)} ...", outcomes)
            with tags(f"model:{settings.model}", f"day:{date}"):
                state = retrain(logical_date=date, **given, return_state=True)
            outcomes[date] = _outcome(date, state)
    finally:
        SHARED_RUNNER.reset(token)
    return outcomes


def _outcome(date: dt.date, state: State[Any]) -> RunOutcome:
    result = state.result(raise_on_failure=False)
    if isinstance(result, RunOutcome):
        return result
    if isinstance(result, DeepFMError) and not isinstance(result, _MEETS_EVERY_DATE):
        return failure(date, result)
    if isinstance(result, BaseException):
        raise result
    return RunOutcome(date=date, status="failed", reasons=(state.message or "its run did not end well",))


def _end(outcomes: Mapping[dt.date, RunOutcome], page: BackfillPage) -> State[Any]:
    counts = Counter(outcome.status for outcome in outcomes.values())
    told = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
    page.show(f"Done: {told}.", outcomes)
    bad = [outcome for outcome in outcomes.values() if outcome.status not in {"promoted", "not_promoted"}]
    if bad:
        reasons = bad[0].reasons[0] if bad[0].reasons else bad[0].status
        return Failed(message=f"{len(bad)} of {len(outcomes)} dates could not be retrained; {bad[0].date}: {reasons}")
    return Completed(message=told, data=list(outcomes.values()))
