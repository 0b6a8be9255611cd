"""`make demo`: ten synthetic days, a daily retrain through the Prefect flow, a poisoned day, and a consumer.

Everything lies below one folder (`DEMO_DIR`, ./demo by default) and needs no server, no Docker and no account: Prefect
starts a temporary server of its own inside this process. Run it again and it goes on where it was.
"""

import csv
import datetime as dt
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("DEMO_DIR", "demo")).absolute()
os.environ |= {
    "DO_NOT_TRACK": "1",
    "PREFECT_HOME": str(FOLDER / "prefect"),
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
os.environ.pop("PREFECT_API_URL", None)

import pyarrow.compute as pc  # noqa: E402 - Prefect reads its settings when it is imported
import pyarrow.parquet as pq  # noqa: E402
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from deepfm.config_file import load_config  # noqa: E402
from deepfm.errors import DataRejectedError, DeepFMError  # noqa: E402
from deepfm.retraining import RunOutcome  # noqa: E402
from deepfm.synthetic.config import preset_world  # noqa: E402
from deepfm.synthetic.delivery import write_world  # noqa: E402

HERE = Path(__file__).parent
WORLD = preset_world("demo", overrides={"poisoned_day": dt.date(2026, 3, 8)})
FIRST_RETRAIN = WORLD.start + dt.timedelta(days=3)
LAST = WORLD.start + dt.timedelta(days=WORLD.days - 1)
console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Run the demo and end with a table and the champion."""
    began = time.monotonic()
    write_clicks()
    console.print(
        f"Retraining daily from {FIRST_RETRAIN} on through the Prefect flow (its temporary server starts) ..."
    )
    outcomes = [retrain_day(FIRST_RETRAIN + dt.timedelta(days=day)) for day in range((LAST - FIRST_RETRAIN).days + 1)]
    figures = consume()
    console.print(table_of(outcomes))
    console.print(
        f"Champion [bold]{figures['version']}[/], log entry {figures['entry']}, read by a process without torch: "
        f"{figures['rows']} rows of {LAST}, sum of scores / sum of true probabilities "
        f"[bold]{figures['calibration']:.3f}[/], correlation of the logits {figures['correlation']:.3f}."
    )
    console.print(f"Models, decisions and log: {FOLDER / 'store' / 'models' / 'clicks'}")
    console.print(f"Done in {time.monotonic() - began:.0f} s. Run it again: what is done is not done twice.")


def write_clicks() -> None:
    """The world's partitions are there."""
    console.print(
        f"Writing {WORLD.days} synthetic days of {WORLD.rows_per_day} impressions; {WORLD.poisoned_day} is poisoned ..."
    )
    write_world(WORLD, FOLDER / "world")


def arguments() -> dict[str, Any]:
    """What every run of the flow gets."""
    return {
        "config": str(HERE / "synthetic.toml"),
        "store": (FOLDER / "store").as_uri(),
        "overrides": [f"data.source={(FOLDER / 'world' / 'clicks').as_uri()}"],
    }


def retrain_day(date: dt.date) -> RunOutcome:
    """The outcome of the flow for one day; a refused day is an outcome too."""
    from flows.retrain import retrain

    began = time.monotonic()
    try:
        outcome = retrain(logical_date=date, **arguments())
    except DataRejectedError as refusal:
        outcome = RunOutcome(date=date, status="data_rejected", reasons=tuple(str(refusal.observed).split("; ")))
    refused = outcome.status == "data_rejected"
    first, *others = outcome.reasons if refused else [outcome.reasons[0].partition(";")[0]]
    console.print(f"  {date}  {outcome.status:<14} {time.monotonic() - began:5.1f} s  {first}", markup=False)
    for reason in others:
        console.print(" " * 38 + reason, markup=False)
    return outcome


def consume() -> dict[str, float | str]:
    """The champion's probabilities from a process that has only the serving packages, held against the true ones."""
    rows, scores = FOLDER / "rows.csv", FOLDER / "scores.json"
    truth = write_rows(rows)
    command = [sys.executable, str(HERE / "consume.py"), (FOLDER / "store").as_uri(), "clicks", str(rows), str(scores)]
    subprocess.run(command, check=True)  # noqa: S603 - our own script
    answer = json.loads(scores.read_text())
    return {
        "version": answer["version"],
        "entry": answer["entry"],
        "rows": len(truth),
        "calibration": sum(answer["probabilities"]) / sum(truth),
        "correlation": correlation(answer["probabilities"], truth),
    }


def write_rows(path: Path) -> list[float]:
    """The last day's own impressions as CSV, as a downstream service may hold them; their true probabilities."""
    config = load_config(HERE / "synthetic.toml", overrides=arguments()["overrides"])
    start, end = config.day_bounds_utc(LAST)
    day = f"dt={LAST}/part-0.parquet"
    clicks = (
        pq.read_table(FOLDER / "world" / "clicks" / day)
        .group_by("impression_id")
        .aggregate([(name, "min") for name in ("event_time", *config.fields)])
    )
    truth = (
        pq.read_table(FOLDER / "world" / "truth" / day).group_by("impression_id").aggregate([("probability", "min")])
    )
    joined = clicks.join(truth, "impression_id").sort_by("impression_id")
    inside = pc.and_(pc.greater_equal(joined["event_time_min"], start), pc.less(joined["event_time_min"], end))
    joined = joined.filter(inside)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(config.fields)
        writer.writerows(zip(*(joined[f"{name}_min"].to_pylist() for name in config.fields), strict=True))
    return joined["probability_min"].to_pylist()


def correlation(scores: list[float], truth: list[float]) -> float:
    """Pearson's correlation of two lists of probabilities, on the logit."""
    import numpy as np

    logits = [np.log(p) - np.log1p(-p) for p in (np.asarray(scores), np.asarray(truth))]
    return float(np.corrcoef(*logits)[0, 1])


def table_of(outcomes: list[RunOutcome]) -> Table:
    """What happened, a row per day."""
    table = Table(title="Ten days of clicks", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("date", "outcome", "AUC", "champion's", "version"):
        table.add_column(column, no_wrap=True)
    for outcome in outcomes:
        figures = ["" if auc is None else f"{auc:.4f}" for auc in (outcome.challenger_auc, outcome.champion_auc)]
        table.add_row(str(outcome.date), outcome.status, *figures, outcome.version or "")
    return table


if __name__ == "__main__":
    try:
        main()
    except DeepFMError as error:
        sys.exit(f"demo: {error}")
