"""`deepfm doctor`: what is right, what is wrong, and what to do about it."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic_core import to_json
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from deepfm.cli.options import JsonOption, StoreOption, VerboseOption
from deepfm.errors import one_line

if TYPE_CHECKING:
    from deepfm.doctor.checks import Check

_MARKS = {
    "ok": "[green]ok[/]",
    "warning": "[yellow]warning[/]",
    "failed": "[red]failed[/]",
    "skipped": "[dim]skipped[/]",
}


def doctor(
    config: Annotated[Path | None, typer.Option("--config", help="The model's TOML.", metavar="M.toml")] = None,
    store: StoreOption = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Look at these clicks instead of data.source.", metavar="URL")
    ] = None,
    read_only: Annotated[  # noqa: FBT002 - a typer flag
        bool, typer.Option("--read-only", help="Write nothing to the store: for machines that only consume.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
    _verbose: VerboseOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Check this machine, the configuration, the clicks, the store and the champion, and say what to do.

    The store is tried in earnest: probe objects of up to 8 MiB below [bold]probes/[/] are written, read back, fought
    over by several threads and deleted again. A store that lets two writers win cannot keep a promotion log safely, and
    fails. Whether one may promote is asked by creating the log's last entry once more, which a store refuses.

    Exit code 0: nothing failed (warnings are no failures); otherwise that of the worst failure: 78 configuration or
    store, 75 the store does not answer or a disk is full, 3 data.

    [bold]Example[/]: deepfm doctor --config clicks.toml --store s3://models/clicks
    """
    from deepfm.doctor.checks import exit_code
    from deepfm.doctor.examination import Patient, examine

    checks: list[Check] = []
    out, errors = Console(highlight=False, emoji=False), Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # Lines and spinner on one terminal have to go through one console, or they end up in each other.
    watched = out if out.is_terminal and not as_json else errors
    with Progress(*columns, console=watched, transient=True, disable=not watched.is_terminal) as progress:
        task = progress.add_task("environment", total=None)
        for check in examine(Patient(config, store, source, read_only=read_only)):
            if not as_json:
                _show(check, out, heading=not checks or checks[-1].group != check.group)
            checks.append(check)
            progress.update(task, description=f"after {check.name}")
    code = exit_code(checks)
    if as_json:
        rows = [check.model_dump(mode="json") for check in checks]
        typer.echo(to_json({"ok": code == 0, "checks": rows}, indent=2).decode())
    else:
        counts = Counter[str](check.status for check in checks)
        figures = ", ".join(f"{counts[status]} {status}" for status in _MARKS if counts[status])
        out.print(f"\n{len(checks)} checks: {figures}")
    if code:
        raise typer.Exit(code)


def _show(check: "Check", out: Console, *, heading: bool) -> None:
    """One line, and the next step below it where there is one."""
    if heading:
        out.print(f"[bold]{check.group}[/]")
    name = check.name.partition(".")[2].replace("_", " ")
    line = Text.from_markup(f"  {_MARKS[check.status]} {name}: ").append(one_line(check.observed))
    out.print(line, soft_wrap=not out.is_terminal)
    if check.next_step:
        out.print(f"      {one_line(check.next_step)}", markup=False, soft_wrap=not out.is_terminal)
