"""The flat file that most people begin with: seven columns, no time, no partitions."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from deepfm.synthetic.config import preset_world
from deepfm.synthetic.delivery import write_world
from tests.evidence.lines import Line
from tests.evidence.shell import deepfm

COLUMNS = {"user_id": "user_id", "item_id": "item_id", "category": "category", "brand": "brand",
           "hour": "hour_of_day", "weekend": "is_weekend", "click": "click"}  # fmt: skip


def flat_table(folder: Path) -> pa.Table:
    """The demo world as one table of seven columns, rows in the order of time."""
    write_world(preset_world("demo"), folder)
    days = sorted((folder / "clicks").glob("dt=*/part-0.parquet"))
    table = pa.concat_tables(pq.read_table(path, columns=list(COLUMNS)) for path in days)
    return table.rename_columns(list(COLUMNS.values()))


def three_commands(folder: Path) -> Iterator[Line]:
    """A flat CSV to a promoted model in three commands."""
    table = flat_table(folder / "world")
    pyarrow.csv.write_csv(table, folder / "flat.csv")
    split = deepfm("split", "flat.csv", "--pseudo-days", 10, "--out", "days", home=folder)
    init = deepfm("init", "days", "--out", "flat.toml", home=folder)
    last = max(path.name for path in (folder / "days").glob("dt=*")).removeprefix("dt=")
    run = deepfm("run", "--config", "flat.toml", "--date", last, "--json", home=folder)
    row = run.json[0] if run.out else {"status": run.last}
    seconds = split.seconds + init.seconds + run.seconds
    yield Line(
        f"a flat CSV of {table.num_rows:,} rows and seven columns, three commands",
        f"exits {split.code} {init.code} {run.code}, {row['status']}, AUC {row.get('challenger_auc') or 0:.4f}, "
        f"{seconds:.0f} s in all",
        "exits 0 0 0, promoted",
        (split.code, init.code, run.code, row["status"]) == (0, 0, 0, "promoted"),
    )
