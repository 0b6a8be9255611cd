"""`deepfm prune`: versions that nobody goes back to any more make room."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deepfm.cli.options import JsonOption, ModelOption, OptionalConfigOption, StoreOption, place_of, print_json
from deepfm.events import current_actor
from deepfm.retention import KEEP, OLDER_THAN_DAYS, Removal, Retention

_UNITS = ("B", "kB", "MB", "GB", "TB")


def prune(  # noqa: PLR0913, PLR0917 - one argument per option
    config: OptionalConfigOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    keep: Annotated[
        int, typer.Option("--keep", help="Champions that stay whatever their age, the current one included.", min=1)
    ] = KEEP,
    older_than: Annotated[
        int, typer.Option("--older-than", help="Age from which versions go.", min=1, metavar="DAYS")
    ] = OLDER_THAN_DAYS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,  # noqa: FBT002 - a typer flag
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Remove versions that were replaced long ago or never promoted, and what runs that were cut off have left.

    The champion and those before it, up to --keep, always stay. A version's age counts from the day on which it was
    replaced, by the store's clock. The log says first which versions are given up, so no rollback can meet one that is
    half gone; nobody can go back to them. Decisions and reports stay.

    [bold]Look first[/]: deepfm prune --config clicks.toml --dry-run

    [bold]Example[/]: deepfm prune --config clicks.toml --keep 10 --older-than 180
    """
    place = place_of(config, store=store, model=model)
    retention = Retention(place.store, place.model, keep=keep, older_than_days=older_than)
    reason = f"retention: the newest {keep} champions, and {older_than} days"
    removals = retention.plan() if dry_run else retention.prune(actor=current_actor(), reason=reason)
    if as_json:
        print_json(removals)
        return
    console = Console(highlight=False)
    if removals:
        console.print(_table(removals))
    size = _size(sum(removal.size_bytes for removal in removals))
    said = "would be removed" if dry_run else "removed"
    console.print(f"{sum(removal.files for removal in removals)} objects, {size}, {said}.", markup=False)


def _table(removals: list[Removal]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("version", "why"):
        table.add_column(title, no_wrap=True)
    for title in ("days", "objects", "size"):
        table.add_column(title, justify="right", no_wrap=True)
    for removal in removals:
        size = _size(removal.size_bytes)
        table.add_row(removal.version, removal.why, str(removal.age_days), str(removal.files), size)
    return table


def _size(size_bytes: int) -> str:
    amount = float(size_bytes)
    for unit in _UNITS[:-1]:
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} {_UNITS[-1]}"
