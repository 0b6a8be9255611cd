"""Claims about whole days: the demo, and real clicks through the Prefect flow."""

import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepfm.config_file import load_config
from deepfm.retraining import RunOutcome
from deepfm.workspace import Workspace, open_workspace
from tests.evidence.baseline import logistic_auc
from tests.evidence.lines import Line
from tests.evidence.worlds import EXAMPLES, holdout_of

ML100K_DATES = tuple(dt.date(1998, 4, day) for day in (20, 21, 22))
OBD_DATE = dt.date(2019, 11, 30)
_NO_CLICKS = "REAL_CLICKS is not set to a folder with {} in daily partitions"


def demo(folder: Path) -> Iterator[Line]:
    """The demo, twice."""
    seconds, output = [], ""
    for _ in range(2):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "examples.demo"],
            env={**os.environ, "DEMO_DIR": str(folder / "demo"), "COLUMNS": "160"},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds.append(time.monotonic() - began)
        output = output or done.stdout
        if done.returncode != 0:
            yield Line("make demo exits 0", f"exit {done.returncode}: {done.stderr[-300:]}", "exit 0", holds=False)
            return
    first, second = seconds
    refused = next((line for line in output.splitlines() if "data_rejected" in line), "")
    named = all(name in output for name in ("ctr of", "brand", "price")) and bool(refused)
    yield Line("make demo prints the champion", "exit 0", "exit 0, champion printed", "Champion" in output)
    yield Line("demo, first run", f"{first:.0f} s", "at most 180 s", first <= 180)
    yield Line("demo, second run", f"{second:.0f} s, {second / first:.2f} of the first", "1/3", second <= first / 3)
    yield Line("demo, poisoned day", " ".join(refused.split())[:150], "refused by name", named)
    promoted = output.count("promoted  ")
    yield Line("demo, champions", f"{promoted} promotions", "the champion changes hands", promoted >= 2)


def ml100k(folder: Path) -> Iterator[Line]:
    """Real ratings as clicks: three days by the flow, each beside logistic regression on the same window."""
    source = _real("ml100k")
    if source is None:
        yield Line("real days of ml100k", _NO_CLICKS.format("ml100k"), "three verdicts", holds=None)
        return
    config = EXAMPLES / "ml100k.toml"
    workspace = _workspace(config, source, folder)
    ours, theirs = [], []
    for date in ML100K_DATES:
        outcome = _by_flow(config, source, folder, date)
        version = workspace.registry.manifest(outcome.version or "")[0]
        report = holdout_of(workspace, date)
        ours.append(outcome.challenger_auc or np.nan)
        theirs.append(logistic_auc(workspace, version.window, report))
        yield Line(
            f"real day {date} of ml100k by the flow",
            f"{outcome.verdict}, AUC {ours[-1]:.4f}, logistic regression {theirs[-1]:.4f}, {report.clicks} clicks",
            "a verdict",
            outcome.verdict is not None,
        )
    yield Line(
        "real days of ml100k, mean AUC",
        f"{np.mean(ours):.4f}, logistic regression {np.mean(theirs):.4f}",
        "both stated",
        bool(np.isfinite([*ours, *theirs]).all()),
    )


def obd_zozotown(folder: Path) -> Iterator[Line]:
    """Real impressions with too few clicks to tell: the honest verdict is that."""
    source = _real("obd_zozotown")
    if source is None:
        yield Line("real day of obd_zozotown", _NO_CLICKS.format("obd_zozotown"), "inconclusive", holds=None)
        return
    outcome = _by_flow(EXAMPLES / "obd_zozotown.toml", source, folder, OBD_DATE)
    naming = [reason for reason in outcome.reasons if "would settle it" in reason]
    yield Line(
        "real day of obd_zozotown by the flow",
        f"{outcome.verdict}: {' '.join(naming) or outcome.reasons[:1]}",
        "inconclusive, naming the positives needed",
        outcome.verdict == "inconclusive" and bool(naming),
    )


def _real(name: str) -> Path | None:
    folder = os.environ.get("REAL_CLICKS")
    path = Path(folder, name) if folder else None
    return path.absolute() if path is not None and any(path.glob("dt=*/*.parquet")) else None


def _workspace(config: Path, source: Path, folder: Path) -> Workspace:
    settings = load_config(config, overrides=[f"data.source={source}"])
    return open_workspace(settings, store_url=str(folder / "store"))


def _by_flow(config: Path, source: Path, folder: Path, date: dt.date) -> RunOutcome:
    from flows.retrain import retrain

    return retrain(
        config=str(config), logical_date=date, store=str(folder / "store"), overrides=[f"data.source={source}"]
    )
