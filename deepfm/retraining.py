"""All stages in order for one logical date. What runs a stage is up to the caller.

`Direct` calls it, a flow turns it into a task: the order is written down once.
"""

import datetime as dt
import logging
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar

from deepfm import layout
from deepfm.documents import Part
from deepfm.errors import ConflictError, DataNotReadyError, DataRejectedError, DeepFMError, UndefinedMetricError
from deepfm.manifests import Decision, Finite, Gap, LogEntry, ValidationReport, Verdict, VersionManifest, Window
from deepfm.pipeline import (
    Progress,
    assemble_window,
    decide,
    evaluate,
    export_version,
    gate_key,
    prepare_day,
    promote,
    train_challenger,
    validate_day,
    version_of,
)
from deepfm.reporting import keep_report
from deepfm.succession import succession
from deepfm.workspace import Workspace

logger = logging.getLogger(__name__)
_GATE_TRIES = 5

P = ParamSpec("P")
R = TypeVar("R")


Status = Literal["promoted", "not_promoted", "data_rejected", "not_delivered", "failed"]


class RunOutcome(Part):
    """What one logical date came to: the row that `deepfm run --json` prints."""

    date: dt.date
    """Logical date."""
    status: Status
    """`promoted`, `not_promoted`, `data_rejected` (the day, or too few days before it), `not_delivered` or `failed`."""
    verdict: Verdict | None = None
    """The gate's, if it was reached."""
    version: str | None = None
    """The challenger."""
    challenger_auc: Finite | None = None
    """On the holdout."""
    champion_auc: Finite | None = None
    """On the same rows."""
    reasons: tuple[str, ...] = ()
    """Why, in words."""


def failure(logical_date: dt.date, error: DeepFMError) -> RunOutcome:
    """The row of a date that ended with an error."""
    status: Status = "failed"
    if isinstance(error, DataRejectedError):
        status = "data_rejected"
    elif isinstance(error, DataNotReadyError):
        status = "not_delivered"
    return RunOutcome(date=logical_date, status=status, reasons=(str(error),))


class Runner(Protocol):
    """What runs a stage: directly, or as a task of an orchestrator."""

    def call(
        self, stage: Callable[Concatenate[Workspace, P], R], workspace: Workspace, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of one stage."""
        ...

    def each(self, stage: Callable[[Workspace, Any], R], workspace: Workspace, items: Sequence[Any]) -> list[R]:
        """The results of a stage for every item, in their order; items may run side by side."""
        ...


class Direct:
    """Runs stages as plain calls, one after the other."""

    def call(
        self, stage: Callable[Concatenate[Workspace, P], R], workspace: Workspace, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of the call."""
        return stage(workspace, *args, **kwargs)

    def each(self, stage: Callable[[Workspace, Any], R], workspace: Workspace, items: Sequence[Any]) -> list[R]:
        """The results of the calls."""
        return [stage(workspace, item) for item in items]


def retrain(
    workspace: Workspace,
    logical_date: dt.date,
    *,
    runner: Runner | None = None,
    progress: Progress | None = None,
    promoting: bool = True,
) -> RunOutcome:
    """What a logical date comes to: all stages in order, up to the promotion if the gate allows it, and its report.

    Args:
        workspace: Where to read and write.
        logical_date: The holdout day; the window ends the day before.
        runner: What runs the stages; plain calls if unset.
        progress: Called with training steps done and planned.
        promoting: Whether to promote what the gate clears; otherwise the outcome says that it would have been.

    Raises:
        DataNotReadyError: transient; the day has not been delivered.
        WindowError: terminal; too few days before it.
        DeepFMError: what a stage raises.
    """
    run = runner or Direct()
    holdout = run.call(validate_day, workspace, logical_date)
    if holdout is None:
        from deepfm.data.partitions import not_delivered

        raise not_delivered(workspace.source, workspace.config, logical_date)
    if not holdout.accepted:
        reasons = tuple(finding.sentence for finding in holdout.broken)
        return RunOutcome(date=logical_date, status="data_rejected", reasons=reasons)
    window = window_of(workspace, logical_date, runner=run)
    challenger = _challenger(workspace, window, holdout, run, progress)
    outcome = _gate(workspace, challenger, holdout, run, promoting=promoting)
    run.call(keep_report, workspace, challenger.version)
    return outcome


def window_of(workspace: Workspace, logical_date: dt.date, *, runner: Runner | None = None) -> Window:
    """The training window of a logical date, its days judged and prepared.

    Args:
        workspace: Where to read and write.
        logical_date: The holdout day.
        runner: What runs the stages; plain calls if unset.

    Raises:
        WindowError: terminal; too few accepted days before it.
        DeepFMError: what a stage raises.
    """
    from deepfm.data.window import calendar_days, check_window

    run = runner or Direct()
    dates = calendar_days(workspace.config, logical_date)
    reports = run.each(validate_day, workspace, dates)
    gaps = [
        Gap(logical_date=date, reason="missing" if report is None else report.refusal)
        for date, report in zip(dates, reports, strict=True)
        if report is None or not report.accepted
    ]
    accepted = [report for report in reports if report is not None and report.accepted]
    check_window(workspace.config, accepted=len(accepted), gaps=gaps, logical_date=logical_date)
    days = run.each(prepare_day, workspace, accepted)
    return run.call(assemble_window, workspace, logical_date, days, gaps)


def _challenger(
    workspace: Workspace, window: Window, holdout: ValidationReport, run: Runner, progress: Progress | None
) -> VersionManifest:
    key = layout.version_manifest(workspace.model, version_of(workspace, window))
    if stored := workspace.document(VersionManifest, key):
        return stored
    result = run.call(train_challenger, workspace, window, progress=progress)
    return run.call(export_version, workspace, window, result, holdout)


def _settled(workspace: Workspace, challenger: VersionManifest, holdout: ValidationReport) -> RunOutcome | None:
    """The outcome of an earlier run of the same inputs, unless it was cut off before its promotion.

    A version that is in the log gets no second entry from a retrain: neither if the gate's configuration is another
    one by now, nor if a rollback took the version away.
    """
    registry = workspace.registry
    decisions = registry.decisions(challenger.logical_date, challenger.version)
    entries = registry.entries()
    standing = succession(entries)
    first = next((entry for entry in entries if entry.version == challenger.version), None)
    if first is not None:
        # A run that was cut off right after its promotion has left the cache as it was.
        registry.repair_cache()
        return _logged(first, decisions, standing.withdrawn.get(challenger.version))
    if (gone := standing.retired.get(challenger.version)) is not None:
        told = f"This version was given up {_act(gone)}: it is not promoted any more."
        return RunOutcome(
            date=challenger.logical_date, status="not_promoted", version=challenger.version, reasons=(told,)
        )
    ours = [decision for decision in decisions if decision.gate_key == gate_key(workspace, holdout)]
    if not ours or ours[-1].verdict == "promote":
        return None
    return _outcome(ours[-1], promoted=False)


def _logged(first: LogEntry, decisions: Sequence[Decision], withdrawal: LogEntry | None) -> RunOutcome:
    """The outcome of a version whose first log entry is given, and the rollback that took it away, if one did."""
    told: tuple[str, ...] = ()
    if withdrawal is not None:
        told = (f"A rollback took this version away {_act(withdrawal)}: only a person promotes it again.",)
    made = [decision for decision in decisions if decision.compared_entry == first.compared_entry]
    cleared = [decision for decision in made if decision.verdict == "promote"]
    if not cleared:
        told = (*told, f"Promoted by name {_act(first)}.")
    status: Status = "promoted" if withdrawal is None else "not_promoted"
    if not made:
        return RunOutcome(date=first.logical_date, status=status, version=first.version, reasons=told)
    outcome = _outcome((cleared or made)[-1], promoted=withdrawal is None)
    return outcome.model_copy(update={"reasons": (*told, *outcome.reasons)})


def _act(entry: LogEntry) -> str:
    return f"on {entry.created_utc:%F} by {entry.actor} ({entry.reason})"


def _gate(
    workspace: Workspace, challenger: VersionManifest, holdout: ValidationReport, run: Runner, *, promoting: bool
) -> RunOutcome:
    for _ in range(_GATE_TRIES):
        head = workspace.registry.head()
        # After the head: whatever is appended once this has been read takes the number that a promotion would need.
        if settled := _settled(workspace, challenger, holdout):
            return settled
        try:
            evaluation = run.call(evaluate, workspace, holdout, challenger, head)
        except UndefinedMetricError as undefined:
            return _undefined(challenger, undefined)
        decision = run.call(decide, workspace, challenger, head, evaluation)
        if decision.verdict != "promote":
            return _outcome(decision, promoted=False)
        if not promoting:
            return _withheld(decision, "No promotion was asked for: would promote.")
        if head is not None and head.held:
            return _held(workspace, decision)
        try:
            run.call(promote, workspace, decision)
        except ConflictError as lost:
            logger.info("%s; gating again against the new champion", lost)
            continue
        return _outcome(decision, promoted=True)
    raise ConflictError(
        f"version {challenger.version} lost {_GATE_TRIES} races for the log",
        next_step="Run the same date again.",
    )


def _held(workspace: Workspace, decision: Decision) -> RunOutcome:
    """The outcome of a challenger that only a hold keeps from promotion; after a release its date is run again."""
    hold = succession(workspace.registry.entries()).hold
    since = f" since {hold.created_utc:%F} by {hold.actor} ({hold.reason})" if hold else ""
    return _withheld(decision, f"Promotions have been on hold{since}: would promote.")


def _withheld(decision: Decision, told: str) -> RunOutcome:
    outcome = _outcome(decision, promoted=False)
    return outcome.model_copy(update={"reasons": (told, *outcome.reasons)})


def _undefined(challenger: VersionManifest, error: UndefinedMetricError) -> RunOutcome:
    """A holdout on which a figure or its error is not defined decides nothing; no number stands in for it."""
    return RunOutcome(
        date=challenger.logical_date,
        status="not_promoted",
        verdict="inconclusive",
        version=challenger.version,
        reasons=(str(error),),
    )


def _outcome(decision: Decision, *, promoted: bool) -> RunOutcome:
    return RunOutcome(
        date=decision.logical_date,
        status="promoted" if promoted else "not_promoted",
        verdict=decision.verdict,
        version=decision.version,
        challenger_auc=decision.challenger.auc,
        champion_auc=decision.champion.auc if decision.champion else None,
        reasons=decision.reasons,
    )
