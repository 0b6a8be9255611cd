"""`deepfm run`: one logical date from clicks to a verdict, without an orchestrator."""

import shlex
from pathlib import Path

from rich.console import Console

from deepfm.cli.options import (
    ConfigOption,
    DateOption,
    JsonOption,
    SetOption,
    StoreOption,
    VerboseOption,
    parse_date,
    print_json,
)
from deepfm.cli.progress import Shown
from deepfm.config_file import load_config
from deepfm.errors import DataRejectedError, DeepFMError, one_line
from deepfm.retraining import RunOutcome, failure, retrain
from deepfm.workspace import open_workspace

_MARKS = {
    "failed": "[red]failed[/]",
    "promoted": "[green]promoted[/]",
    "not_promoted": "[yellow]not promoted[/]",
    "data_rejected": "[red]data rejected[/]",
    "not_delivered": "[red]not delivered[/]",
}
_REASONS = 6
"""Broken rules that the line of a refused day names; its report has them all."""


def run(
    config: ConfigOption,
    date: DateOption,
    store: StoreOption = None,
    override: SetOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
    _verbose: VerboseOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Validate, prepare, train, export, gate and promote one logical date.

    The window is the days before the date; the date itself is the holdout. Running it again does nothing that is done.

    [bold]Example[/]: deepfm run --config clicks.toml --date 2026-11-23 --json
    """
    logical_date = parse_date(date, option="--date")
    console = Console(stderr=True)
    try:
        workspace = open_workspace(load_config(config, overrides=override or ()), store_url=store)
        with Shown(console) as shown:
            outcome = retrain(workspace, logical_date, runner=shown, progress=shown.training)
    except DeepFMError as error:
        if as_json:
            print_json([failure(logical_date, error)])
        raise
    if as_json:
        print_json([outcome])
    else:
        show(outcome, most=0 if outcome.status == "data_rejected" else None)
    if outcome.status == "data_rejected":
        raise refusal(outcome, config=config)


def refusal(outcome: RunOutcome, *, config: Path) -> DataRejectedError:
    """The error that a refused day ends with, with its reasons."""
    more = f" (and {len(outcome.reasons) - _REASONS} more)" if len(outcome.reasons) > _REASONS else ""
    return DataRejectedError(
        f"clicks of {outcome.date} were refused",
        observed=f"{'; '.join(outcome.reasons[:_REASONS])}{more}",
        next_step=f"Deliver the day again, or change the rule; see: deepfm report --config {shlex.quote(str(config))} "
        f"--date {outcome.date}",
    )


def show(outcome: RunOutcome, *, to: Console | None = None, most: int | None = None) -> None:
    """The outcome for people, on stdout unless said otherwise, with so many of its reasons, or all."""
    console = to or Console(highlight=False, emoji=False)
    # A version that a hold or a rollback keeps from being champion had passed the gate: its reason says so.
    verdict = f"({outcome.verdict})" if outcome.status == "not_promoted" and outcome.verdict != "promote" else ""
    parts = (f"[bold]{outcome.date}[/]", _MARKS[outcome.status], verdict, outcome.version or "", _figures(outcome))
    console.print(" ".join(part for part in parts if part), highlight=False, soft_wrap=not console.is_terminal)
    for reason in outcome.reasons[:most]:  # a line each where another program reads
        console.print(f"  {one_line(reason)}", markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _figures(outcome: RunOutcome) -> str:
    if outcome.challenger_auc is None:
        return ""
    champion = f", champion {outcome.champion_auc:.4f}" if outcome.champion_auc is not None else ""
    return f"AUC {outcome.challenger_auc:.4f}{champion}"
