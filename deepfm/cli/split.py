"""`deepfm split`: from one flat file to daily partitions."""

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from pydantic_core import to_json
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from deepfm.cli.options import JsonOption, not_an_option, parse_date
from deepfm.config import checked_zone
from deepfm.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from deepfm.discovery.splitting import Cut, SplitOutcome


def split(  # noqa: PLR0913, PLR0917 - one argument per option
    file: Annotated[str, typer.Argument(help="CSV, CSV.gz, TSV or Parquet; local or s3://.", metavar="FILE")],
    out: Annotated[
        Path, typer.Option("--out", callback=not_an_option, help="New folder for the partitions.", metavar="DIR")
    ],
    by: Annotated[str | None, typer.Option("--by", help="Column of times or dates.", metavar="COLUMN")] = None,
    pseudo_days: Annotated[
        int | None, typer.Option("--pseudo-days", help="Without such a column: days to cut the rows into, in order.")
    ] = None,
    last_day: Annotated[
        str | None, typer.Option("--last-day", help="Date of the last pseudo-day.", metavar="YYYY-MM-DD")
    ] = None,
    time_zone: Annotated[str, typer.Option("--time-zone", help="Zone that days begin and end in.")] = "UTC",
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Write DIR/dt=YYYY-MM-DD/part-0.parquet from one flat file, whatever its size.

    With --by, a row goes to the day of its time; rows without one go to DIR/_without_a_day.parquet. With --pseudo-days,
    rows in file order stand for time: drift, freshness and new items are then not seen, and AUC may look better than it
    will be. DIR is there whole or not at all.

    [bold]Example[/]: deepfm split flat.csv --by event_time --out days
    """
    from deepfm.discovery.flat import FlatFile
    from deepfm.discovery.splitting import check_free, split_file

    _check_file(file)
    cut = _cut(by, pseudo_days=pseudo_days, last_day=last_day, time_zone=time_zone)
    if _is_remote(file):
        check_free(out)  # said before the download, not after it
    with tempfile.TemporaryDirectory(prefix="deepfm-") as scratch, _Shown() as shown:
        path = _local(file, scratch=Path(scratch))
        outcome = split_file(FlatFile(path, file.rpartition("/")[2]), out, cut, told=shown.told)
    if as_json:
        typer.echo(to_json(_summary(outcome, out), indent=2).decode())
    else:
        _show(outcome, out, made_up=by is None)


def _summary(outcome: "SplitOutcome", out: Path) -> dict[str, object]:
    from deepfm.discovery.splitting import UNDATED, part_of

    return {
        "path": str(out),
        "rows": outcome.rows - outcome.undated,
        "days": [
            {"date": date, "path": str(part_of(out, date)), "rows": rows} for date, rows in outcome.written.items()
        ],
        "rows_without_a_day": outcome.undated,
        "path_without_a_day": str(out / UNDATED) if outcome.undated else None,
    }


def _show(outcome: "SplitOutcome", out: Path, *, made_up: bool) -> None:
    from deepfm.discovery.splitting import UNDATED

    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"{outcome.rows - outcome.undated:,} rows, {outcome.days} days, {outcome.first} to {outcome.last}, in {out}"
    )
    if outcome.undated:
        console.print(f"{outcome.undated:,} rows have no day; they are in {out / UNDATED}")
    if made_up:
        console.print("the dates are made up: drift, freshness and new items are not seen in them")
    console.print(f"next: deepfm init {shlex.quote(str(out))} --out {shlex.quote(f'{out.name}.toml')}")


class _Shown:
    """What is at work, on stderr, with its rate and the time left."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def told(self, stage: str, done: int, total: int | None) -> None:
        """Show how far a stage is."""
        tasks = {task.description: task for task in self._progress.tasks}
        task = tasks[stage].id if stage in tasks else self._progress.add_task(stage, total=total, rate="")
        speed = tasks[stage].speed if stage in tasks else None
        rate = f"{done:,} rows" + (f", {speed:,.0f} a second" if speed else "")
        self._progress.update(task, completed=done, total=total, rate=rate)


def _cut(by: str | None, *, pseudo_days: int | None, last_day: str | None, time_zone: str) -> "Cut":
    """How rows come to their days, as the options say.

    Raises:
        UsageError: terminal; they contradict each other, or say nothing.
    """
    from deepfm.discovery.splitting import LAST_PSEUDO_DAY, Cut

    if (by is None) == (pseudo_days is None):
        raise UsageError("a split needs --by COLUMN or --pseudo-days N", next_step="Give one of them.")
    if last_day is not None and by is not None:
        raise UsageError("--last-day belongs to --pseudo-days", next_step="Leave it out.")
    last = parse_date(last_day, option="--last-day") if last_day else LAST_PSEUDO_DAY
    if pseudo_days is not None and pseudo_days > last.toordinal():
        raise UsageError(
            "--pseudo-days begin before the calendar", observed=pseudo_days, next_step="Choose a later --last-day."
        )
    return Cut(by=by, zone=_zone(time_zone), pseudo_days=pseudo_days or 0, last_day=last)


def _is_remote(file: str) -> bool:
    return file.startswith("s3://")


def _check_file(file: str) -> None:
    """Nothing, if there may be such a file; one of a bucket is looked for when it is downloaded."""
    from deepfm.layout import DATA_SUFFIXES

    if not file.lower().endswith(DATA_SUFFIXES):
        raise UsageError(
            f"{file} is no file that can be split",
            required=f"one that ends in {', '.join(DATA_SUFFIXES)}",
            next_step="Name another file, or convert this one.",
        )
    if not _is_remote(file) and not Path(file).is_file():
        raise NotFoundError(f"{file} is not there", next_step="Check the path, which is relative to where you are.")


def _local(file: str, *, scratch: Path) -> Path:
    """Where the bytes of the file are; an object of a bucket is downloaded."""
    from deepfm.storage import open_store

    if not _is_remote(file):
        return Path(file)
    parent, _, name = file.rpartition("/")
    return open_store(parent).fetch(name, scratch=scratch)


def _zone(value: str) -> str:
    try:
        return checked_zone(value)
    except ValueError as cause:
        raise UsageError("--time-zone is not known", observed=str(cause)) from cause
