"""`deepfm status`: the calendar of a model's days, and what to run next."""

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from deepfm.cli.options import ConfigOption, JsonOption, StoreOption, VerboseOption, parse_date, print_json, tell_absent
from deepfm.config_file import load_config
from deepfm.errors import one_line
from deepfm.workspace import open_workspace

if TYPE_CHECKING:
    from deepfm.calendar.rows import Calendar, CalendarDay

_WIDE, _REMARK_WIDTH = 110, 16
_LEFT_OUT_WHERE_NARROW = {"delivered", "prepared", "champion's"}
_PIPED_WIDTH = 160
_VERDICTS = {"promote": "[green]promote[/]", "reject": "[yellow]reject[/]", "inconclusive": "[yellow]inconclusive[/]"}
_MONDAY = 0


def status(
    config: ConfigOption,
    start: Annotated[
        str | None, typer.Option("--start", help="First day; unset, 30 days up to the last.", metavar="YYYY-MM-DD")
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--end", help="Last day; unset, the newest with data or a result.", metavar="YYYY-MM-DD"),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
    _verbose: VerboseOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Show for every day what was delivered, judged, prepared, trained and decided, and what to run next.

    A day is [bold]stale[/] if a run today would come to something else: it or a day of its window was delivered
    again, a missing day has arrived, or the configuration (or what a release makes of it) has changed.

    Nothing is downloaded: names and sizes of files are compared with what was judged, and contents where this machine
    has read them. Other content of the same name and size that it never read goes unnoticed here; a run reads it.

    [bold]Example[/]: deepfm status --config clicks.toml --start 2026-11-01 --end 2026-11-30
    """
    from deepfm.calendar.rows import calendar_of

    first = parse_date(start, option="--start") if start else None
    last = parse_date(end, option="--end") if end else None
    workspace = open_workspace(load_config(config), store_url=store)
    errors = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TextColumn("reading the store"), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("documents", total=None)
        calendar = calendar_of(
            workspace,
            start=first,
            end=last,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(calendar.days)
        if calendar.source_problem:
            errors.print(f"deepfm: {calendar.source_problem}", markup=False, soft_wrap=True)
    else:
        tell_absent(workspace.store)
        _show(calendar, config=config, store=store)


def _show(calendar: "Calendar", *, config: Path, store: str | None) -> None:
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    mark = "★" if console.encoding.lower().startswith("utf") else "*"
    if calendar.days:
        console.print(_table(calendar.days, mark=mark, width=console.width))
        console.print(_summary(calendar.days, mark=mark), soft_wrap=True)
    if calendar.held:
        console.print("Automatic promotions are on hold.", soft_wrap=True)
    if calendar.source_problem:
        console.print(f"Delivered is not known: {calendar.source_problem}", markup=False, soft_wrap=True)
    console.print(_next(calendar, config=config, store=store), markup=False, soft_wrap=True)


def _table(days: "tuple[CalendarDay, ...]", *, mark: str, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = ("day", "delivered", "valid", "prepared", "version", "verdict", "AUC", "champion's", "")
    shown = [n for n, title in enumerate(titles) if width >= _WIDE or title not in _LEFT_OUT_WHERE_NARROW]
    for title in (titles[n] for n in shown):
        if title:
            table.add_column(title, justify="right" if title in {"AUC", "champion's"} else "left", no_wrap=True)
        else:
            table.add_column(title, overflow="fold", min_width=_REMARK_WIDTH)
    for row in days:
        if row.date.weekday() == _MONDAY and table.row_count:
            table.add_row()
        cells = _cells(row, mark=mark)
        table.add_row(*(cells[n] for n in shown))
    return table


def _cells(row: "CalendarDay", *, mark: str) -> tuple[str | Text, ...]:
    valid = {True: "yes", False: "[red]refused[/]", None: ""}[row.valid]
    name = row.version[11:] if row.version else ""
    told = row.reasons[:1] if row.verdict else row.reasons  # the report has all that the gate said
    stale = Text.from_markup("[yellow]stale[/]: " if row.stale else "")
    return (
        f"{row.date:%a} {row.date}",
        _word(row.delivered),
        valid,
        "yes" if row.prepared else "",
        f"[bold]{name} {mark}[/]" if row.champion else name,
        _VERDICTS.get(row.verdict or "", ""),
        _figure(row.challenger_auc),
        _figure(row.champion_auc),
        stale.append("; ".join(map(one_line, told))),
    )


def _word(known: bool | None) -> str:  # noqa: FBT001 - a cell, not a switch
    return "?" if known is None else ("yes" if known else "no")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _summary(days: "tuple[CalendarDay, ...]", *, mark: str) -> str:
    counts = Counter(
        name
        for row in days
        for name, holds in (
            ("delivered", row.delivered),
            ("refused", row.valid is False),
            ("trained", row.trained),
            ("promoted", bool(row.standing)),
            ("stale", row.stale),
        )
        if holds
    )
    figures = ", ".join(f"{counts[name]} {name}" for name in ("delivered", "refused", "trained", "promoted", "stale"))
    champion = next((f"; {mark} {row.version}" for row in days if row.champion), "")
    return f"{len(days)} {'day' if len(days) == 1 else 'days'}: {figures}{champion}"


def _next(calendar: "Calendar", *, config: Path, store: str | None) -> str:
    wanted = [row.date for row in calendar.days if row.trainable]
    where = f"--config {shlex.quote(str(config))}" + (f" --store {shlex.quote(store)}" if store else "")
    if not calendar.days:
        return (
            f"Nothing is delivered and nothing was run yet. Deliver a day, then: deepfm run {where} --date YYYY-MM-DD"
        )
    if not wanted and not any(row.trained for row in calendar.days):
        return "No day can be trained yet, for the reasons beside the days."
    if not wanted:
        return "Nothing to run: every day that could be trained has its version."
    if len(wanted) == 1:
        return f"1 day could be trained: deepfm run {where} --date {wanted[0]}"
    return f"{len(wanted)} days could be trained: deepfm backfill {where} --start {wanted[0]} --end {wanted[-1]}"
