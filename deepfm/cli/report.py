"""`deepfm report`: what was decided on a logical date, as one HTML file."""

import errno
import shlex
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from pydantic_core import to_json

from deepfm import layout
from deepfm.cli.options import ConfigOption, JsonOption, StoreOption, not_an_option, parse_date, place_of
from deepfm.config_file import load_config
from deepfm.errors import NotFoundError, UsageError

_NO_PLACE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}
"""What can be wrong with the path that was given; a full disk is another matter."""

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        callback=not_an_option,
        dir_okay=False,
        help="File to write; unset, report-MODEL-DATE.html here.",
        metavar="FILE",
    ),
]


def report(
    config: ConfigOption,
    date: Annotated[
        str | None, typer.Option("--date", help="Logical date; unset, the newest decision.", metavar="YYYY-MM-DD")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Version, instead of a date.", metavar="VERSION")
    ] = None,
    out: OutOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Write what was decided on a date, with its figures, curves and lineage, as one HTML file that fetches nothing.

    A date whose clicks were refused has a report, too: the rules that it broke.

    [bold]Example[/]: deepfm report --config clicks.toml --date 2026-11-23 --out report.html
    """
    from deepfm.report.facts import gather
    from deepfm.report.page import render

    if date and version:
        raise UsageError("--date and --version exclude each other", next_step="A version names its date.")
    logical_date = parse_date(date, option="--date") if date else None
    settings = load_config(config)
    place = place_of(config, store=store, model=None)
    options = ["--config", str(config), *(["--store", store] if store else [])]
    try:
        facts = gather(
            place.store,
            settings,
            logical_date=logical_date,
            version=layout.checked_version(version) if version else None,
        )
    except NotFoundError as nothing:
        raise NotFoundError(
            nothing.problem,
            observed=nothing.observed,
            where=nothing.where,
            next_step=f"What was run, and what keeps a day from it: {shlex.join(['deepfm', 'status', *options])}",
        ) from nothing
    path = out or Path(f"report-{facts.model}-{facts.logical_date}.html")
    _write(path, render(facts, options=options))
    if as_json:
        row = {
            "path": str(path),
            "version": facts.decision.version if facts.decision else None,
            "verdict": facts.decision.verdict if facts.decision else "refused",
        }
        typer.echo(to_json(row, indent=2).decode())
    else:
        typer.echo(path)


def _write(path: Path, text: str) -> None:
    """The file is there, whole: a reader never sees half of it.

    Raises:
        UsageError: terminal; the place cannot be written.
    """
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report-") as folder:
            staged = Path(folder, "page.html")
            staged.write_text(text, encoding="utf-8")
            staged.replace(path)
    except OSError as cause:
        if cause.errno not in _NO_PLACE:
            raise
        raise UsageError(
            "the report cannot be written", observed=cause.strerror, where=str(path), next_step="Choose another --out."
        ) from cause
