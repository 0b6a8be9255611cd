"""Inputs as people have them: each trains the same model as the plain one, or gets its one clear line."""

import gzip
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from deepfm.synthetic.config import WorldConfig, preset_world
from deepfm.synthetic.delivery import write_world
from tests.evidence.lines import Line
from tests.evidence.shell import Said, deepfm

Change = Callable[[pa.Table], pa.Table]
Write = Callable[[pa.Table, Path], None]
_ROWS = 4_000
_FILES = 1_000


def odd_inputs(folder: Path) -> Iterator[Line]:
    """The plain world, then each oddity in every day of it, by the same TOML."""
    world = _world(folder / "plain", days=4, rows=_ROWS)
    plain = _run(folder, world, "plain")
    row = plain.json[0]
    yield Line("plain days", f"exit {plain.code}, {row['verdict']}", "a verdict", row["verdict"] is not None)
    for name, (change, write, expected) in ODDITIES.items():
        source = folder / name.replace(" ", "-")
        for day in sorted((folder / "plain" / "clicks").glob("dt=*")):
            (source / "clicks" / day.name).mkdir(parents=True)
            write(change(pq.read_table(day / "part-0.parquet")), source / "clicks" / day.name)
        said = _run(folder, world, source.name)
        found: dict[str, Any] = (
            said.json[0] if said.out else {"status": said.last, "challenger_auc": None, "reasons": [said.last]}
        )
        if expected is None:
            same = found["challenger_auc"] == row["challenger_auc"]
            figure = f"exit {said.code}, {found['status']}, AUC {'the same' if same else found['challenger_auc']}"
            yield Line(name, figure, "works: AUC equal to the plain one", said.code == 0 and same)
        else:
            told = " ".join(found["reasons"])
            traced = "Traceback" in said.err
            yield Line(
                name, f"exit {said.code}: {told[:160]}", f"one line: {expected}", expected in told and not traced
            )


def many_files(folder: Path) -> Iterator[Line]:
    """The same rows in one file a day, and in a thousand."""
    world = _world(folder / "plain", days=4, rows=40_000)
    for day in (folder / "plain" / "clicks").glob("dt=*"):
        table = pq.read_table(day / "part-0.parquet")
        (folder / "many" / "clicks" / day.name).mkdir(parents=True)
        step = -(-table.num_rows // _FILES)
        for n in range(0, table.num_rows, step):
            file = folder / "many" / "clicks" / day.name / f"part-{n:06d}.parquet"
            pq.write_table(table.slice(n, step), file)
    one, many = _run(folder, world, "plain"), _run(folder, world, "many")
    same = one.json[0]["challenger_auc"] == many.json[0]["challenger_auc"]
    yield Line(
        f"{_FILES} small files a day against one file",
        f"AUC {'the same' if same else 'another'}, {many.seconds:.0f} s against {one.seconds:.0f} s",
        "the same AUC, at most 3 times as long",
        same and many.seconds <= 3 * one.seconds,
    )


def large_file(folder: Path) -> Iterator[Line]:
    """One CSV of ten million rows: split, described, trained on, in the memory of a small one."""
    path = folder / "large.csv"
    rows = _large_csv(path, days=5, rows_per_day=2_000_000)
    split = deepfm("split", path.name, "--by", "event_time", "--out", "days", home=folder)
    yield Line(
        f"split of one CSV, {rows:,} rows, {path.stat().st_size / 2**30:.1f} GiB",
        f"exit {split.code}, {split.seconds:.0f} s ({rows / split.seconds:,.0f} rows/s), peak {split.peak_mib:,} MiB",
        "exit 0 in at most 1,024 MiB",
        split.code == 0 and split.peak_mib <= 1024,
    )
    path.unlink()
    init = deepfm("init", "days", "--out", "large.toml", home=folder)
    last = max(day.name for day in (folder / "days").glob("dt=*")).removeprefix("dt=")
    run = deepfm("run", "--config", "large.toml", "--date", last, "--json", home=folder)
    status = run.json[0]["status"] if run.out else run.last
    yield Line(
        "init and run on them",
        f"exits {init.code} {run.code}, {status}, {init.seconds:.0f} s and {run.seconds:.0f} s, "
        f"peak {init.peak_mib:,} and {run.peak_mib:,} MiB",
        "exits 0 0, a verdict",
        (init.code, run.code) == (0, 0) and run.json[0]["verdict"] is not None,
    )


def _world(folder: Path, *, days: int, rows: int) -> WorldConfig:
    world = preset_world("demo", overrides={"days": days, "rows_per_day": rows, "ctr": 0.2})
    write_world(world, folder)
    return world


def _run(folder: Path, world: WorldConfig, name: str) -> Said:
    """One date on the days of a folder, by the configuration that `init` writes for the plain ones."""
    if not (folder / "plain.toml").exists():
        done = deepfm("init", "plain/clicks", "--out", "plain.toml", "--model", "odd", home=folder)
        assert done.code == 0, done.err
    last = max(day.name for day in (folder / "plain" / "clicks").glob("dt=*")).removeprefix("dt=")
    del world
    return deepfm(
        "run",
        "--config",
        "plain.toml",
        "--date",
        last,
        "--json",
        "--store",
        f"store-{name}",
        "--set",
        f"data.source={name}/clicks",
        home=folder,
    )


def _large_csv(path: Path, *, days: int, rows_per_day: int) -> int:
    """A CSV of clicks in the order of a shuffled log: every day's rows lie all over the file."""
    rng = np.random.default_rng(0)
    schema = None
    chunk, total = 500_000, days * rows_per_day
    with path.open("wb") as sink:
        writer = None
        for start in range(0, total, chunk):
            user, item = rng.integers(0, 200_000, chunk), rng.zipf(1.3, chunk) % 20_000
            odds = -2.5 + 1.5 * ((item % 7) == 0) + 1.0 * ((user % 5) == 0)
            second = rng.integers(0, days * 86_400, chunk).astype("datetime64[s]")
            table = pa.table(
                {
                    "event_time": pa.array(second + (np.datetime64("2026-03-02") - np.datetime64(0, "s"))),
                    "impression_id": pa.array(np.arange(start, start + chunk)),
                    "user_id": pc.binary_join_element_wise("u", pa.array(user).cast(pa.string()), ""),
                    "item_id": pa.array(item),
                    "price": pa.array(np.round(rng.lognormal(3, 1, chunk), 2)),
                    "click": pa.array((rng.random(chunk) < 1 / (1 + np.exp(-odds))).astype(np.int8)),
                }
            )
            schema = schema or table.schema
            writer = writer or pyarrow.csv.CSVWriter(sink, schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
    return total


def _same(table: pa.Table) -> pa.Table:
    return table


def _replaced(name: str, convert: Callable[[pa.ChunkedArray], pa.Array]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index(name), name, convert(table[name]))

    return change


def _parquet(table: pa.Table, folder: Path) -> None:
    pq.write_table(table, folder / "part-0.parquet")


def _csv(table: pa.Table, folder: Path) -> None:
    pyarrow.csv.write_csv(table, folder / "part-0.csv")


def _gzipped(table: pa.Table, folder: Path) -> None:
    _csv(table, folder)
    with (folder / "part-0.csv").open("rb") as source, gzip.open(folder / "part-0.csv.gz", "wb") as target:
        shutil.copyfileobj(source, target)
    (folder / "part-0.csv").unlink()


def _renamed(table: pa.Table, folder: Path) -> None:
    _csv(table, folder)
    (folder / "part-0.csv").rename(folder / "part-0.parquet")


def _cut(table: pa.Table, folder: Path) -> None:
    _parquet(table, folder)
    file = folder / "part-0.parquet"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _empty(table: pa.Table, folder: Path) -> None:
    _parquet(table.slice(0, 0), folder)


def _nullable(labels: pa.ChunkedArray) -> pa.Array:
    """The labels as pandas stores a column that could hold nulls: float64."""
    return labels.cast(pa.float64())


ODDITIES: dict[str, tuple[Change, Write, str | None]] = {
    "columns in another order": (lambda table: table.select(sorted(table.column_names, reverse=True)), _parquet, None),
    "columns that nobody asked for": (
        lambda table: table.append_column("note", pa.array([["a", "list"]] * len(table))),
        _parquet,
        None,
    ),
    "a label that could be null, as float64": (_replaced("click", _nullable), _parquet, None),
    "a label as bool": (_replaced("click", lambda labels: labels.cast(pa.bool_())), _parquet, None),
    "event times as text": (
        _replaced("event_time", lambda times: pc.strftime(times, format="%Y-%m-%dT%H:%M:%S+00:00")),
        _parquet,
        None,
    ),
    "CSV": (_same, _csv, None),
    "gzipped CSV": (_same, _gzipped, None),
    "ids as float64": (_replaced("item_id", lambda ids: ids.cast(pa.float64())), _parquet, None),
    "a CSV that is called Parquet": (_same, _renamed, "not readable as Parquet"),
    "half a file": (_same, _cut, "not readable as Parquet"),
    "files without a row": (_same, _empty, "row"),
    "no label": (lambda table: table.drop_columns(["click"]), _parquet, "click"),
    "a label that is always 0": (
        _replaced("click", lambda labels: pc.multiply(labels, pa.scalar(0, labels.type))),
        _parquet,
        "click",
    ),
    "a label from 0 to 4": (
        _replaced("click", lambda labels: pc.multiply(labels, pa.scalar(4, labels.type))),
        _parquet,
        "label",
    ),
    "a price of text": (
        _replaced("price", lambda prices: pc.if_else(pc.is_valid(prices), "cheap", None)),
        _parquet,
        "price",
    ),
}
"""By name: what is done to a day's table, how it is written, and a word of the line that it gets (None: it works)."""
