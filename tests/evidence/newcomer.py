"""A newcomer on clicks that the tool has not seen: every command at the first attempt, in a folder or a bucket."""

import datetime as dt
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from deepfm.config_file import load_config
from deepfm.pipeline import validate_day
from deepfm.workspace import open_workspace
from tests.evidence.baseline import logistic_auc
from tests.evidence.lines import Line
from tests.evidence.shell import Said, deepfm
from tests.evidence.worlds import holdout_of
from tests.seaweed import client_of, running_seaweed

_ML100K_DAYS = 30


def ml100k(folder: Path) -> Iterator[Line]:
    """Real ratings as clicks, the last 30 days with data, beside logistic regression on the same windows."""
    source = _real("ml100k")
    if source is None:
        yield Line("ml100k from init to rollback", "REAL_CLICKS has no ml100k", "every exit code 0", holds=None)
        return
    dates = _days(source)[-_ML100K_DAYS:]
    yield from _way(folder, str(source), dates, leave_out={"leak_rating": "label"})
    workspace = open_workspace(load_config(folder / "model.toml"), store_url=str(folder / "store"))
    ours, theirs = [], []
    for date in dates:
        report = validate_day(workspace, date)
        versions = [v for v in workspace.registry.versions() if v.startswith(date.isoformat())]
        if report is None or not report.accepted or len(versions) != 1:
            continue
        manifest, _ = workspace.registry.manifest(versions[0])
        decision = workspace.registry.decisions(date, versions[0])[-1]
        ours.append(decision.challenger.auc)
        theirs.append(logistic_auc(workspace, manifest.window, holdout_of(workspace, date)))
    better = sum(a > b for a, b in zip(ours, theirs, strict=True))
    yield Line(
        f"ml100k, mean AUC of the last {_ML100K_DAYS} days with data",
        f"{np.mean(ours):.4f}, one-hot logistic regression {np.mean(theirs):.4f}; ahead on {better} days",
        f"{_ML100K_DAYS} days, above logistic regression",
        len(ours) == _ML100K_DAYS and bool(np.mean(ours) > np.mean(theirs)),
    )


def obd_zozotown(folder: Path) -> Iterator[Line]:
    """Real impressions: what the log says of its own policy is no feature."""
    source = _real("obd_zozotown")
    if source is None:
        yield Line("obd_zozotown from init to rollback", "REAL_CLICKS has no obd_zozotown", "every exit 0", holds=None)
        return
    metadata = dict.fromkeys(("policy", "propensity_score", "source_row"), "")
    yield from _way(folder, str(source), _days(source)[1:], leave_out=metadata)


def bucket(folder: Path) -> Iterator[Line]:
    """The synthetic demo world with source and store in a bucket of a real S3 server."""
    done = deepfm("synth", "--out", "world", "--preset", "demo", "--days", 6, home=folder)
    assert done.code == 0, done.err
    data = folder / "seaweed"
    data.mkdir()
    with running_seaweed(data) as server:
        client = client_of(server)
        client.create_bucket(Bucket="clicks")
        files = sorted((folder / "world" / "clicks").glob("dt=*/*.parquet"))
        for file in files:
            client.upload_file(str(file), "clicks", f"raw/{file.parent.name}/{file.name}")
        dates = [dt.date.fromisoformat(file.parent.name[3:]) for file in files]
        place = {**server.environment, "DEEPFM_STORE": "s3://clicks/store"}
        yield from _way(folder, "s3://clicks/raw", dates[3:], leave_out={}, variables=place)


def _way(
    folder: Path,
    source: str,
    dates: Sequence[dt.date],
    *,
    leave_out: Mapping[str, str],
    variables: Mapping[str, str] | None = None,
) -> Iterator[Line]:
    """Each command once, in the order of the README."""
    place = dict(variables or {"DEEPFM_STORE": str(folder / "store")})
    init = deepfm("init", source, "--out", "model.toml", home=folder, **place)
    yield _clean("init", init)
    text = (folder / "model.toml").read_text(encoding="utf-8")
    fields = tomllib.loads(text)["fields"]
    left = {name: _why(text, name) for name in leave_out}
    excluded = not set(leave_out) & set(fields) and all(word in left[name] for name, word in leave_out.items())
    if leave_out:
        said = "; ".join(f"{name}: {why or 'not said'}" for name, why in left.items())
        yield Line(
            "columns that are no inputs", said[:200], "left out, with the reason", excluded and all(left.values())
        )
    model = ("--config", "model.toml")
    backfill = deepfm("backfill", *model, "--start", dates[0], "--end", dates[-1], "--json", home=folder, **place)
    rows = backfill.json if backfill.out else []
    statuses = [row["status"] for row in rows]
    told = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    yield _clean(f"backfill of {len(rows)} dates", backfill, told)
    yield _clean("status", deepfm("status", *model, home=folder, **place))
    yield _clean("doctor", deepfm("doctor", *model, home=folder, **place))
    yield _clean("report", deepfm("report", *model, "--out", "report.html", home=folder, **place))
    yield _clean("history", deepfm("history", *model, home=folder, **place))
    promoted = [row["version"] for row in rows if row["status"] == "promoted"]
    if not promoted:
        yield Line("pull, predict and rollback", "nothing was promoted", "a champion", holds=None)
        return
    yield _clean("pull", deepfm("pull", *model, "--out", "pulled", home=folder, **place))
    day = folder / "day.parquet"
    pq.write_table(_rows(folder, source, dates[-1]), day)
    predict = deepfm("predict", day.name, *model, "--out", "scores.csv", home=folder, **place)
    yield _clean("predict", predict, f"{sum(1 for _ in (folder / 'scores.csv').open()) - 1:,} rows")
    if len(promoted) < 2:
        yield Line("rollback", "not shown: one promotion, and none before it to go back to", "exit 0", holds=None)
        return
    back = deepfm("rollback", *model, "--reason", "to see it work", home=folder, **place)
    yield _clean("rollback", back, " ".join(back.out.split())[:120])


def _clean(name: str, said: Said, figure: str = "") -> Line:
    """The line of a command that has to leave with 0."""
    problem = said.last if said.code else ""
    return Line(name, f"exit {said.code}, {said.seconds:.1f} s {problem or figure}", "exit 0", said.code == 0)


def _why(text: str, column: str) -> str:
    """What the TOML says of a column that it leaves out."""
    lines = [line for line in text.splitlines() if line.startswith("#") and column in line.split("=")[0]]
    return " ".join(" ".join(lines).split())


def _rows(folder: Path, source: str, date: dt.date):
    base = Path(source) if not source.startswith("s3://") else folder / "world" / "clicks"
    return pq.read_table(next((base / f"dt={date}").glob("*.parquet")), partitioning=None)


def _days(source: Path) -> list[dt.date]:
    return sorted(dt.date.fromisoformat(path.parent.name[3:]) for path in source.glob("dt=*/*.parquet"))


def _real(name: str) -> Path | None:
    folder = os.environ.get("REAL_CLICKS")
    path = Path(folder, name) if folder else None
    return path.absolute() if path is not None and any(path.glob("dt=*/*.parquet")) else None
