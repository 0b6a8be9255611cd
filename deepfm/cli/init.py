"""`deepfm init`: from a folder of clicks to a configuration that runs."""

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepfm.cli.options import JsonOption, not_an_option, print_json
from deepfm.config import checked_zone
from deepfm.config_file import load_config
from deepfm.discovery.found import Found, FoundColumn, told
from deepfm.discovery.toml_text import first_commands, model_name, render
from deepfm.errors import UsageError, one_line
from deepfm.layout import checked_name, checked_partition

_ROLES = {"left_out": "[yellow]left out[/]", "field": "field", "label": "[green]label[/]"}


def init(  # noqa: PLR0913, PLR0917 - one argument per option
    clicks: Annotated[str, typer.Argument(help="Local folder or s3://bucket/prefix.", metavar="CLICKS")],
    out: Annotated[Path, typer.Option("--out", callback=not_an_option, help="The TOML to write.", metavar="M.toml")],
    label: Annotated[str | None, typer.Option("--label", help="Column of clicks.", metavar="COLUMN")] = None,
    event_time: Annotated[str | None, typer.Option("--event-time", help="Column of times.", metavar="COLUMN")] = None,
    event_key: Annotated[
        str | None, typer.Option("--event-key", help="Column that identifies an impression.", metavar="COLUMN")
    ] = None,
    group: Annotated[str | None, typer.Option("--group", help="Column of the user.", metavar="COLUMN")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Column that must not be a field; repeatable.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option("--time-zone", help="Zone that days begin and end in.", metavar="ZONE")
    ] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", help="Name of a day's folder or file.", metavar="TEMPLATE")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Name of the model; else that of the TOML.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older TOML.")] = False,  # noqa: FBT002
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Look at daily clicks and write the configuration that fits them, with a reason on every line.

    Columns that tell the label, are about logging, or cannot help are left out and named with the reason. Nothing is
    asked; every guess has an option.

    [bold]Example[/]: deepfm init ./clicks --out clicks.toml
    """
    from deepfm.discovery.roles import Wishes
    from deepfm.discovery.survey import survey

    if out.exists() and not force:
        raise UsageError(f"{out} exists", next_step="Choose another --out, or replace it with --force.")
    name = checked_name(model) if model else model_name(out)
    wishes = Wishes(label, event_time, event_key, group, _zone(time_zone), _template(partition), tuple(exclude or ()))
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="deepfm-") as scratch, console.status("looking at the clicks"):
        found = survey(clicks, wishes, scratch=Path(scratch))
    _write(render(found, model=name, out=out), out)
    if as_json:
        print_json([found])
    else:
        show(found, out)


_LINES_LEFT_OUT = 5
_DAYS_SHOWN = 5
_RIVALS_SHOWN = 3


def show(found: Found, out: Path) -> None:
    """What was found, for people, on stdout."""
    console = Console(highlight=False, emoji=False)
    table = Table("column", "is", "as", "distinct", "missing", "note", box=None, pad_edge=False)
    for column in found.columns:
        table.add_row(*_row(column))
    console.print(table)
    left = [f"not readable: {line}" for line in found.unreadable]
    left += [f"not read, because {found.partition} does not reach it: {name}" for name in found.ignored]
    for line in left[:_LINES_LEFT_OUT]:
        console.print(one_line(line), markup=False, soft_wrap=True)
    if len(left) > _LINES_LEFT_OUT:
        console.print(f"and {len(left) - _LINES_LEFT_OUT} more files that were not read")
    console.print()
    for line in (*_about_days(found, out), *_about_rivals(found, out)):
        console.print(line, markup=False, soft_wrap=True)


def _about_days(found: Found, out: Path) -> Iterator[str]:
    """The days, those that no run takes, and the first command."""
    days = found.days
    if days.unusable:
        yield f"cannot be run: {told(days.unusable, most=_DAYS_SHOWN)}"
    yield f"{days.count} days, {days.first} to {days.last}, {found.ctr:.2%} clicks; {out} is written. Next:"
    yield f"  {first_commands(found, out)[0]}"


def _about_rivals(found: Found, out: Path) -> Iterator[str]:
    """The other data sets that are there, each with the command that takes it."""
    if not found.rivals:
        return
    more = f", {len(found.rivals) - _RIVALS_SHOWN} more are there" if len(found.rivals) > _RIVALS_SHOWN else ""
    yield f"This is {found.partition}, one of several data sets there{more}. To take another one instead:"
    for name in found.rivals[:_RIVALS_SHOWN]:
        words = ["deepfm", "init", found.source, "--partition", name, "--out", str(out), "--force"]
        yield f"  {shlex.join(words)}"


def _row(column: FoundColumn) -> tuple[str | Text, ...]:
    role = _ROLES.get(column.role, column.role.replace("_", " "))
    both = column.role == "group" and column.is_field
    return (
        Text(one_line(column.name)),
        f"{role}, field" if both else role,
        (column.dtype or "") if column.is_field else "",
        f"{column.distinct:,}",
        f"{column.null_share:.1%}" if column.null_share else "",
        Text(one_line(column.note)),
    )


def _write(text: str, out: Path) -> None:
    """The TOML is in place, whole, and was read back as a configuration."""
    from deepfm.storage.local import disk_errors, temporary_beside

    with disk_errors(str(out)), temporary_beside(out.absolute()) as temporary:
        temporary.write_text(text, encoding="utf-8")
        load_config(temporary)
        temporary.replace(out.absolute())


def _zone(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return checked_zone(value)
    except ValueError as cause:
        raise UsageError("--time-zone is not known", observed=str(cause)) from cause


def _template(value: str | None) -> str | None:
    """The template itself, if a configuration can hold it."""
    return value if value is None else checked_partition(value)
