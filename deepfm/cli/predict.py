"""`deepfm predict`: a file of raw rows with the probability that each is clicked."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from deepfm.cli.options import ModelOption, OptionalConfigOption, Place, StoreOption, place_of
from deepfm.cli.pull import VersionOption
from deepfm.errors import UsageError
from deepfm.onnx_file import OUTPUT
from deepfm.promotion import find_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepfm.scoring.reading import Rows
    from deepfm.scoring.writing import Sink
    from deepfm.serving import VersionModel


def predict(  # noqa: PLR0913, PLR0917 - one argument per option
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV, TSV, JSON lines (all also with .gz) or Parquet, by its name; - reads JSON lines from stdin.",
            metavar="FILE",
        ),
    ],
    config: OptionalConfigOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    version: VersionOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File to write: .csv, .tsv, .jsonl (all also with .gz) or .parquet.", metavar="FILE"
        ),
    ] = None,
    column: Annotated[str, typer.Option("--column", help="Name of the added column.", metavar="NAME")] = OUTPUT,
) -> None:
    """Score the rows of a file with the champion: the same rows come out with a column more.

    The model's inputs are found by name, whatever else there is and in whatever order; other columns pass through. In
    CSV an empty cell is missing, and so are NA, NaN, null and None where a number is expected. Without --out the rows
    go to stdout, as CSV, or as JSON lines where these came in. A row that cannot be used ends the command, which
    names it; a file is then not written.

    [bold]Example[/]: deepfm predict rows.csv --config clicks.toml --out scored.csv

    [bold]In a pipe[/]: tail -n 100 rows.jsonl | deepfm predict - --store s3://bucket/prefix --model clicks
    """
    from deepfm.scoring.reading import is_json, read_rows
    from deepfm.scoring.writing import file_sink, text_sink

    place = place_of(config, store=store, model=model)
    loaded = _loaded(place, version)
    if out is not None and file.exists() and out.exists() and out.samefile(file):
        raise UsageError("--out is the input itself", observed=str(out), next_step="Name another file.")
    delimiter = place.config.data.csv_delimiter if place.config is not None else None
    batches = read_rows(file, loaded.inputs, delimiter=delimiter)
    if out is not None:
        with file_sink(out, column) as sink:
            rows = _score(loaded, _watched(file, batches), sink)
        Console(highlight=False).print(f"{rows:,} rows in {out}, by {loaded.version}.", markup=False, soft_wrap=True)
        return
    _score(loaded, _watched(file, batches), text_sink(sys.stdout.buffer, column, json_lines=is_json(file)))
    sys.stdout.buffer.flush()


def _loaded(place: Place, version: str | None) -> "VersionModel":
    from deepfm.serving import VersionModel, read_version

    if version is not None:
        return VersionModel(*read_version(place.store, place.model, find_version(place.registry, version)))
    champion = place.registry.champion()
    return VersionModel(
        *read_version(place.store, place.model, champion.version, manifest_sha256=champion.manifest_sha256)
    )


def _score(model: "VersionModel", batches: "Iterator[Rows]", sink: "Sink") -> int:
    """The number of rows that went from the batches to the sink."""
    done = 0
    for rows in batches:
        sink.write(rows, model.predict({field.name: rows.values(field) for field in model.inputs}))
        done += len(rows)
    return done


def _watched(file: Path, batches: "Iterator[Rows]") -> "Iterator[Rows]":
    """The batches; how many rows a second they bring, and the time left, are shown on stderr to who looks there."""
    from deepfm.scoring.reading import estimated_rows

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from batches
        return
    bar = Progress(
        TextColumn("rows"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("rows", total=estimated_rows(file), figures="")
        for rows in batches:
            yield rows
            bar.update(task, advance=len(rows))
            done, speed = bar.tasks[task].completed, bar.tasks[task].speed
            bar.update(task, figures=f"{done:,.0f} done" + (f", {speed:,.0f} a second" if speed else ""))
