"""Retraining for a range of past logical dates, oldest first, so that every date meets the champion of its time."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from deepfm.errors import DataNotReadyError, DataRejectedError, UsageError
from deepfm.pipeline import Progress
from deepfm.retraining import Direct, Runner, RunOutcome, failure, retrain
from deepfm.workspace import Workspace

P = ParamSpec("P")
R = TypeVar("R")

MOST_DAYS = 366
"""Longest range of one backfill; a typo in a year should not start ten years of training."""


class Remembering:
    """Runs stages by another runner, and asks about a day once although many windows hold it.

    What was found out about a day is what the whole backfill goes by, even if the day is delivered again meanwhile.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._known: dict[tuple[str, ...], Any] = {}

    def call(
        self, stage: Callable[Concatenate[Workspace, P], R], workspace: Workspace, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of one stage."""
        return self._runner.call(stage, workspace, *args, **kwargs)

    def each(self, stage: Callable[[Workspace, Any], R], workspace: Workspace, items: Sequence[Any]) -> list[R]:
        """The results of a stage for every item, in their order; only items that were not asked about before run."""
        name = getattr(stage, "__name__", repr(stage))
        # Two days that were delivered with the same bytes have the same key: the date tells them apart.
        keys = [(name, str(getattr(item, "logical_date", item)), str(getattr(item, "key", ""))) for item in items]
        new = [(key, item) for key, item in zip(keys, items, strict=True) if key not in self._known]
        found = self._runner.each(stage, workspace, [item for _, item in new]) if new else []
        self._known |= {key: result for (key, _), result in zip(new, found, strict=True)}
        return [self._known[key] for key in keys]


def dates_between(start: dt.date, end: dt.date) -> list[dt.date]:
    """Every date of a range, both ends included.

    Raises:
        UsageError: terminal; the range is reversed or longer than `MOST_DAYS`.
    """
    days = (end - start).days + 1
    if days < 1:
        raise UsageError("--start is after --end", observed=f"{start} and {end}", next_step="Swap them.")
    if days > MOST_DAYS:
        raise UsageError(
            "range is too long",
            observed=f"{days} days from {start} to {end}",
            required=f"at most {MOST_DAYS}",
            next_step="Check the years, or run the range in parts.",
        )
    return [start + dt.timedelta(days=n) for n in range(days)]


def backfill(
    workspace: Workspace,
    dates: Sequence[dt.date],
    *,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Iterator[RunOutcome]:
    """The outcome of every date, as it comes; a date that is done already costs next to nothing.

    A date that was refused or has not been delivered gets a row that says so.

    Args:
        workspace: Where to read and write.
        dates: Logical dates; they run in ascending order.
        runner: What runs the stages; plain calls if unset.
        progress: Called with training steps done and planned.

    Raises:
        DeepFMError: what a stage raises that would meet the next date, too, such as a store that does not answer.
    """
    remembering = Remembering(runner or Direct())
    for date in sorted(dates):
        try:
            yield retrain(workspace, date, runner=remembering, progress=progress)
        except (DataRejectedError, DataNotReadyError) as error:
            yield failure(date, error)
