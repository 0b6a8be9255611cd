"""`deepfm promote`, `rollback`, `hold` and `release`: what a person does to the promotion log."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepfm.cli.options import (
    JsonOption,
    ModelOption,
    OptionalConfigOption,
    Place,
    ReasonOption,
    StoreOption,
    place_of,
)
from deepfm.events import current_actor
from deepfm.promotion import Change, Operator, find_version


def promote(  # noqa: PLR0913, PLR0917 - one argument per option
    version: Annotated[str, typer.Argument(help="Id of the version, or its logical date.", metavar="VERSION")],
    reason: ReasonOption,
    config: OptionalConfigOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    force: Annotated[  # noqa: FBT002 - a typer flag
        bool, typer.Option("--force", help="Promote a version that the gate rejected, or that it never judged.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Make a version champion by name: one that was inconclusive, was held back, or is of an older date.

    Its files are verified and loaded first. A hold stays. A version that the gate rejected needs --force.

    [bold]Example[/]: deepfm promote 2026-11-23 --config clicks.toml --reason "quiet day, checked by hand"
    """
    place = place_of(config, store=store, model=model)
    operator = _operator(place, reason)
    change = operator.promote(find_version(place.registry, version), force=force)
    undo = ("rollback", "--reason", "TEXT") if change.before else ()
    _tell(change, undo=_command(*undo, config=config, store=store, model=model), as_json=as_json)


def rollback(  # noqa: PLR0913, PLR0917 - one argument per option
    reason: ReasonOption,
    config: OptionalConfigOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    to: Annotated[
        str | None, typer.Option("--to", help="An earlier champion, or its logical date.", metavar="VERSION")
    ] = None,
    force: Annotated[  # noqa: FBT002 - a typer flag
        bool, typer.Option("--force", help="Accept a version that never was champion.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Make an earlier champion champion again: without --to, the one before the current.

    Two rollbacks go two champions back. The earlier version's files are verified and loaded first. A version that a
    rollback has left is not promoted again by a retrain, only by name; newer dates are promoted as before, unless
    promotions are put on hold.

    [bold]Example[/]: deepfm rollback --config clicks.toml --reason "clicks of the app fell"

    [bold]To a named one[/]: deepfm rollback --to 2026-11-20 --config clicks.toml --reason "last good one"
    """
    place = place_of(config, store=store, model=model)
    operator = _operator(place, reason)
    change = operator.rollback(find_version(place.registry, to) if to is not None else None, force=force)
    force_again = ("--force",) if change.changed and operator.needs_force(str(change.before)) else ()
    undo = ("promote", str(change.before), *force_again, "--reason", "TEXT")
    _tell(change, undo=_command(*undo, config=config, store=store, model=model), as_json=as_json)


def hold(
    reason: ReasonOption,
    config: OptionalConfigOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Put automatic promotions on hold: retrains gate and record, and say what they would promote.

    People can still promote and roll back by name.

    [bold]Example[/]: deepfm hold --config clicks.toml --reason "sale this week"
    """
    change = _operator(place_of(config, store=store, model=model), reason).hold()
    undo = _command("release", "--reason", "TEXT", config=config, store=store, model=model)
    _tell(change, undo=undo, as_json=as_json)


def release(
    reason: ReasonOption,
    config: OptionalConfigOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Let retrains promote again. What was held back is gated again, and promoted, when its date is run again.

    [bold]Example[/]: deepfm release --config clicks.toml --reason "sale is over"
    """
    change = _operator(place_of(config, store=store, model=model), reason).release()
    undo = _command("hold", "--reason", "TEXT", config=config, store=store, model=model)
    _tell(change, undo=undo, as_json=as_json)


def _operator(place: Place, reason: str) -> Operator:
    return Operator(place.store, place.model, actor=current_actor(), reason=reason)


def _command(*words: str, config: Path | None, store: str | None, model: str | None) -> str:
    """The command for the same place, to be pasted; empty without words."""
    given = {"--config": config, "--store": store, "--model": model}
    place = [str(part) for option, value in given.items() if value is not None for part in (option, value)]
    return shlex.join(["deepfm", *words[:1], *place, *words[1:]]) if words else ""


def _tell(change: Change, *, undo: str, as_json: bool) -> None:
    if as_json:
        typer.echo(change.model_dump_json(indent=2))
        return
    line = _line(change)
    if change.changed and undo:
        line += f" Undo: {undo}"
    console = Console(highlight=False)
    console.print(line, markup=False, soft_wrap=True)


def _line(change: Change) -> str:
    """What changed, in one line."""
    entry = change.entry
    on_hold = change.operation in {"hold", "release"}
    state = f"Promotions are {'' if entry.held else 'not '}on hold" if on_hold else f"{entry.version} is champion"
    if not change.changed:
        return f"{state}{'' if change.operation == 'release' else ' already'}: nothing changed."
    if on_hold:
        return f"{state} (log entry {entry.sequence})."
    before = f"instead of {change.before}" if change.before else "the first one"
    return f"{state}, {before} (log entry {entry.sequence}{', promotions stay on hold' if entry.held else ''})."
