"""`deepfm run`: one logical date from clicks to a verdict, without an orchestrator."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, Self, TypeVar

import typer
from pydantic_core import to_json
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from deepfm.config_file import load_config
from deepfm.errors import DeepFMError, UsageError
from deepfm.retraining import RunOutcome, retrain
from deepfm.workspace import Workspace, open_workspace

P = ParamSpec("P")
R = TypeVar("R")

ConfigOption = Annotated[Path, typer.Option("--config", help="The model's TOML.", metavar="M.toml")]
DateOption = Annotated[str, typer.Option("--date", help="Logical date: the holdout day.", metavar="YYYY-MM-DD")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", help="file:// folder or s3://bucket/prefix; wins over DEEPFM_STORE and the TOML.", metavar="URL"
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the TOML, such as training.epochs=2.", metavar="KEY=VALUE"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON array on stdout, everything else on stderr.")]

_MARKS = {
    "failed": "[red]failed[/]",
    "promoted": "[green]promoted[/]",
    "not_promoted": "[yellow]not promoted[/]",
    "data_rejected": "[red]data rejected[/]",
}
_DATA_REJECTED_EXIT = 3


def run(
    config: ConfigOption,
    date: DateOption,
    store: StoreOption = None,
    override: SetOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
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
            print_json([RunOutcome(date=logical_date, status="failed", reasons=(str(error),))])
        raise
    if as_json:
        print_json([outcome])
    else:
        show(outcome)
    if outcome.status == "data_rejected":
        raise typer.Exit(_DATA_REJECTED_EXIT)


def parse_date(text: str, *, option: str) -> dt.date:
    """The date in YYYY-MM-DD.

    Raises:
        UsageError: terminal; it is not one. The line names the option.
    """
    try:
        return dt.date.fromisoformat(text)
    except ValueError as cause:
        raise UsageError(f"{option} is not a date", observed=text[:40], required="YYYY-MM-DD") from cause


def print_json(outcomes: Sequence[RunOutcome]) -> None:
    """One JSON array on stdout."""
    typer.echo(to_json([outcome.model_dump(mode="json") for outcome in outcomes], indent=2).decode())


def show(outcome: RunOutcome) -> None:
    """The outcome for people, on stdout."""
    console = Console(highlight=False)
    verdict = f"({outcome.verdict})" if outcome.status == "not_promoted" else ""
    parts = (f"[bold]{outcome.date}[/]", _MARKS[outcome.status], verdict, outcome.version or "")
    console.print(" ".join(part for part in parts if part))
    for reason in outcome.reasons:  # a line each where another program reads
        console.print(f"  {reason}", markup=False, soft_wrap=not console.is_terminal)


class Shown:
    """Runs stages as plain calls and shows on stderr which one is at work, with rate and time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._stage = TaskID(0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def call(
        self, stage: Callable[Concatenate[Workspace, P], R], workspace: Workspace, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of the call."""
        with self._shown(stage, total=None):
            return stage(workspace, *args, **kwargs)

    def each(self, stage: Callable[[Workspace, Any], R], workspace: Workspace, items: Sequence[Any]) -> list[R]:
        """The results of the calls."""
        results = []
        with self._shown(stage, total=len(items)):
            for item in items:
                results.append(stage(workspace, item))
                self._progress.update(self._stage, advance=1, figures=f"{len(results)} of {len(items)}")
        return results

    def training(self, step: int, planned: int) -> None:
        """Show how far the stage at work, the training, is."""
        speed = next((task.speed for task in self._progress.tasks if task.id == self._stage), None)
        figures = f"step {step} of {planned}" + (f", {speed:.0f} a second" if speed else "")
        self._progress.update(self._stage, completed=step, total=planned, figures=figures)

    @contextmanager
    def _shown(self, stage: Callable[..., object], *, total: int | None) -> Iterator[None]:
        name = getattr(stage, "__name__", "stage").replace("_", " ")
        self._stage = self._progress.add_task(name, total=total, figures="")
        yield
        self._progress.remove_task(self._stage)
