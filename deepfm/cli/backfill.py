"""`deepfm backfill`: a range of logical dates, oldest first, without an orchestrator."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepfm.backfilling import backfill as retrain_each
from deepfm.backfilling import dates_between
from deepfm.cli.options import ConfigOption, JsonOption, SetOption, StoreOption, VerboseOption, parse_date, print_json
from deepfm.cli.progress import Shown
from deepfm.cli.run import refusal, show
from deepfm.config_file import load_config
from deepfm.errors import DataNotReadyError, DeepFMError
from deepfm.retraining import RunOutcome, Status, failure
from deepfm.workspace import open_workspace

_WORDS: dict[Status, str] = {
    "promoted": "promoted",
    "not_promoted": "not promoted",
    "data_rejected": "refused",
    "not_delivered": "not delivered",
}


def backfill(
    config: ConfigOption,
    start: Annotated[str, typer.Option("--start", help="First logical date.", metavar="YYYY-MM-DD")],
    end: Annotated[str, typer.Option("--end", help="Last logical date.", metavar="YYYY-MM-DD")],
    store: StoreOption = None,
    override: SetOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
    _verbose: VerboseOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Retrain for every logical date of a range, oldest first; a day is prepared once for all windows that hold it.

    A date that is done already is not done again, so that a range which was cut off goes on with the same command. A
    date that is refused or was not delivered does not stop the others. Exit code 0: every date has its row, and one
    at least could be trained; 3 or 75: none could, because the days were refused or not delivered.

    [bold]Example[/]: deepfm backfill --config clicks.toml --start 2026-11-01 --end 2026-11-23
    """
    dates = dates_between(parse_date(start, option="--start"), parse_date(end, option="--end"))
    console = Console(stderr=True, emoji=False)
    rows: list[RunOutcome] = []
    try:
        workspace = open_workspace(load_config(config, overrides=override or ()), store_url=store)
        with Shown(console, dates=len(dates)) as shown:
            for outcome in retrain_each(workspace, dates, runner=shown, progress=shown.training):
                rows.append(outcome)
                shown.date_done()
                show(outcome, to=console if as_json else None, most=1)
    except DeepFMError as error:
        if as_json:
            print_json([*rows, failure(dates[len(rows)], error)])
        raise
    if as_json:
        print_json(rows)
    console.print(_summary(rows), highlight=False)
    _leave(rows, config=config)


def _summary(rows: Sequence[RunOutcome]) -> str:
    counts = Counter(row.status for row in rows)
    told = ", ".join(f"{counts[status]} {words}" for status, words in _WORDS.items() if counts[status])
    return f"{len(rows)} date{'s' if len(rows) > 1 else ''}: {told}."


def _leave(rows: Sequence[RunOutcome], *, config: Path) -> None:
    statuses = {row.status for row in rows}
    if statuses & {"promoted", "not_promoted"}:
        return
    refused = [row for row in rows if row.status == "data_rejected"]
    if refused:
        raise refusal(refused[-1], config=config)
    raise DataNotReadyError(
        f"no day from {rows[0].date} to {rows[-1].date} was delivered", observed=rows[-1].reasons[0]
    )
