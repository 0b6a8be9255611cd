"""`deepfm synth`: a click world whose true probabilities are known."""

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deepfm.cli.options import not_an_option, parse_date
from deepfm.errors import UsageError
from deepfm.synthetic.config import preset_world


def synth(  # noqa: PLR0913, PLR0917 - one argument per option
    out: Annotated[
        Path, typer.Option("--out", callback=not_an_option, help="Folder for clicks/ and truth/.", metavar="FOLDER")
    ],
    preset: Annotated[
        str, typer.Option("--preset", help="full (CTR 1 %, 20,000 users) or demo (CTR 5 %, 5,000 users).")
    ] = "full",
    days: Annotated[int | None, typer.Option("--days", help="Days to write.", min=1)] = None,
    rows_per_day: Annotated[int | None, typer.Option("--rows-per-day", help="Impressions of a day.", min=100)] = None,
    ctr: Annotated[float | None, typer.Option("--ctr", help="Click-through rate of every day.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Changes everything that is drawn.", min=0)] = None,
    start: Annotated[str | None, typer.Option("--start", help="First day.", metavar="YYYY-MM-DD")] = None,
    poison: Annotated[
        str | None, typer.Option("--poison", help="A day to deliver broken.", metavar="YYYY-MM-DD")
    ] = None,
) -> None:
    """Write daily partitions of synthetic clicks, and beside them the true probability of every row.

    [bold]Example[/]: deepfm synth --out ./world --days 14 --ctr 0.01 --poison 2026-03-09
    """
    from deepfm.synthetic.delivery import write_world

    given = {
        "days": days,
        "rows_per_day": rows_per_day,
        "ctr": ctr,
        "seed": seed,
        "start": parse_date(start, option="--start") if start else None,
        "poisoned_day": parse_date(poison, option="--poison") if poison else None,
    }
    config = preset_world(preset, overrides={name: value for name, value in given.items() if value is not None})
    last = config.start + dt.timedelta(days=config.days - 1)
    if config.poisoned_day and config.poisoned_day > last:
        days_written = f"a day from {config.start} to {last}"
        raise UsageError("--poison names a day that is not written", observed=poison, required=days_written)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("days", total=config.days)

        def on_day(_: dt.date) -> None:
            progress.advance(task)

        write_world(config, out, on_day=on_day)
    typer.echo(
        f"{config.days} days, {config.start} to {last}, in {out / 'clicks'}; true probabilities in {out / 'truth'}"
    )
