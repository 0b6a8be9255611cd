"""What earlier runs tell about later ones."""

import re
import statistics

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from flows.events import NO_WORK
from flows.logs import shown_if_possible

_LAST_RUNS = 20
_MINUTE = 60.0


def estimate(model: str, count: int) -> str:
    """How long a number of dates may take, in words, by the model's last completed backfills and retrains.

    A backfill counts with its time for each date; retrains that were part of one say nothing of what it had prepared.
    """
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[f"model:{model}"]),
        state=FlowRunFilterState(
            type=FlowRunFilterStateType(any_=[StateType.COMPLETED]), name=FlowRunFilterStateName(not_any_=[*NO_WORK])
        ),
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
    )
    runs: list[FlowRun] = []
    with shown_if_possible(), get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["backfill", "retrain"])),
            flow_run_filter=wanted,
            sort=FlowRunSort.END_TIME_DESC,
            limit=_LAST_RUNS,
        )
    seconds = [run.total_run_time.total_seconds() / dates for run in runs if (dates := _dates(run))]
    if not seconds:
        return "no earlier run tells how long that takes."
    each = statistics.median(seconds)
    total = each * count
    words = f"{total:.0f} s" if total < _MINUTE else f"{total / _MINUTE:.0f} min"
    return f"about {words} by the last {len(seconds)} {'run' if len(seconds) == 1 else 'runs'} ({each:.0f} s a date)."


def _dates(run: FlowRun) -> int:
    """How many dates a run retrained, by what it says at its end."""
    if not run.name.startswith("backfill"):
        return 1
    told = run.state.message if run.state and run.state.message else ""
    return sum(int(number) for number in re.findall(r"(\d+) (?:not )?promoted", told))
