"""`deepfm history`: who promoted what, when and why."""

import textwrap
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepfm.cli.options import JsonOption, ModelOption, OptionalConfigOption, StoreOption, place_of, print_json
from deepfm.errors import one_line
from deepfm.manifests import LogEntry
from deepfm.succession import succession

_ACTS = {"promote": "green", "rollback": "red", "hold": "yellow", "release": "yellow", "retire": "dim"}
_WIDEST = 1000
"""Columns of a table that no terminal shows: it is as wide as it needs to be."""
_NARROW = 100
"""Columns of a terminal below which the figures make room for the reasons."""
_SHORT = 100
"""Letters of a reason in a terminal; elsewhere, and with --json, it is whole."""


def history(
    config: OptionalConfigOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Show the newest N entries alone.", min=1)] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Show the promotion log, newest entry last: every promotion, rollback, hold and release.

    A version begins with its logical date. The champion is marked with a star; the last line says whether promotions
    are on hold. With --json: the entries as they are stored.

    [bold]Example[/]: deepfm history --config clicks.toml --limit 10

    [bold]Without a TOML[/]: deepfm history --store s3://bucket/prefix --model clicks
    """
    entries = place_of(config, store=store, model=model).registry.entries()
    shown = entries[-limit:] if limit else entries
    if as_json:
        print_json(shown)
        return
    console = Console(highlight=False, emoji=False)
    if not entries:
        console.print("Nothing has been promoted yet.")
        return
    if not console.is_terminal:
        console.width = _WIDEST
    console.print(_table(shown, entries[-1], console))
    console.print(_standing(entries), markup=False, soft_wrap=not console.is_terminal)


def _table(entries: list[LogEntry], head: LogEntry, console: Console) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("when (UTC)", min_width=10)
    table.add_column("what", no_wrap=True)
    table.add_column("version", no_wrap=True)
    figures = console.width >= _NARROW
    for title in ("AUC", "against") if figures else ():
        table.add_column(title, no_wrap=True)
    table.add_column("who: why", overflow="fold")
    for entry in entries:
        champion = entry.sequence == head.sequence
        table.add_row(
            str(entry.sequence),
            f"{entry.created_utc:%F %R}",
            Text(entry.operation, style=_ACTS[entry.operation]),
            Text(f"{entry.version}{' ★' if champion else ''}", style="bold" if champion else ""),
            *(_figures(entry) if figures else ()),
            Text(_why(entry, shortened=console.is_terminal)),
        )
    return table


def _figures(entry: LogEntry) -> tuple[str, str]:
    """The champion's AUC and that of the one before, on the entry's day; a hold changes neither."""
    if entry.operation not in {"promote", "rollback"}:
        return "", ""
    mine, rival = ("" if auc is None else f"{auc:.4f}" for auc in (entry.challenger_auc, entry.champion_auc))
    return mine, rival


def _why(entry: LogEntry, *, shortened: bool) -> str:
    given_up = f" [gave up {', '.join(entry.retired)}]" if entry.retired else ""
    text = one_line(f"{entry.actor}: {entry.reason}{given_up}")
    return textwrap.shorten(text, _SHORT, placeholder=" …") if shortened else text


def _standing(entries: list[LogEntry]) -> str:
    head, hold = entries[-1], succession(entries).hold
    if hold is None:
        return f"Champion: {head.version}. Promotions are not on hold."
    since = f"since {hold.created_utc:%F %R} by {hold.actor} ({hold.reason})"
    return one_line(f"Champion: {head.version}. Promotions are on hold {since}.")
