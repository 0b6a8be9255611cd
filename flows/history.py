"""What earlier runs tell about later ones."""

import statistics

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort

_LAST_RUNS = 20
_MINUTE = 60.0


def estimate(model: str, count: int) -> str:
    """How long a number of dates may take, in words, by the model's last completed retrains."""
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[f"model:{model}"]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])),
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["retrain"])),
            flow_run_filter=wanted,
            sort=FlowRunSort.END_TIME_DESC,
            limit=_LAST_RUNS,
        )
    if not runs:
        return "no earlier run tells how long that takes."
    seconds = statistics.median(run.total_run_time.total_seconds() for run in runs)
    total = seconds * count
    words = f"{total:.0f} s" if total < _MINUTE else f"{total / _MINUTE:.0f} min"
    return f"about {words} by the last {len(runs)} {'run' if len(runs) == 1 else 'runs'} ({seconds:.0f} s a date)."
