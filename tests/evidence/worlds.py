"""Synthetic worlds and workspaces that the measurements share."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepfm import layout
from deepfm.config_file import load_config
from deepfm.data.preparing import valid_batches
from deepfm.data.raw import raw_columns
from deepfm.manifests import ValidationReport, VersionManifest
from deepfm.pipeline import validate_day
from deepfm.serving import Scorer, read_model
from deepfm.synthetic.config import WorldConfig, preset_world
from deepfm.synthetic.delivery import write_world
from deepfm.workspace import Workspace, open_workspace

EXAMPLES = Path(__file__).parents[2] / "examples"
POISONED = dt.date(2026, 3, 8)


def demo_world(folder: Path) -> WorldConfig:
    """The world of the demo, written below a folder unless it is there."""
    config = preset_world("demo", overrides={"poisoned_day": POISONED})
    write_world(config, folder)
    return config


def synthetic_workspace(world: Path, store: Path | str, *, overrides: Sequence[str] = ()) -> Workspace:
    """The example configuration on a world and a store."""
    config = load_config(EXAMPLES / "synthetic.toml", overrides=[f"data.source={world / 'clicks'}", *overrides])
    return open_workspace(config, store_url=str(store))


def holdout_of(workspace: Workspace, date: dt.date) -> ValidationReport:
    """The accepted holdout day."""
    report = validate_day(workspace, date)
    assert report is not None
    assert report.accepted, report.refusal
    return report


def calibration_to_truth(workspace: Workspace, manifest: VersionManifest, world: Path) -> float:
    """Sum of scores over sum of true probabilities on the whole, unsampled holdout of a version."""
    report = holdout_of(workspace, manifest.logical_date)
    file = world / "truth" / layout.partition_prefix(workspace.config.data.partition, manifest.logical_date)
    truth = pq.read_table(file / "part-0.parquet")
    scorer = Scorer(read_model(workspace.store, manifest), manifest.inputs)
    scores = probabilities = 0.0
    batches = valid_batches(
        workspace.source,
        report.partition,
        workspace.config,
        quarantine=workspace.quarantine(report),
        cache=workspace.cache,
    )
    for batch in batches:
        scores += float(scorer.probabilities(raw_columns(batch.rows, manifest.inputs)).sum(dtype=np.float64))
        where = pc.index_in(batch.rows.column("impression_id"), value_set=truth["impression_id"])
        probabilities += pc.sum(truth["probability"].take(where)).as_py()
    return scores / probabilities


def shuffle_labels(clicks: Path, out: Path) -> None:
    """A copy of daily partitions in which the labels of every day are permuted."""
    for day in sorted(clicks.glob("dt=*")):
        table = pq.read_table(day / "part-0.parquet")
        labels = np.random.default_rng(0).permutation(table["click"].to_numpy())
        index = table.schema.get_field_index("click")
        (out / day.name).mkdir(parents=True)
        shuffled = table.set_column(index, "click", pa.array(labels, table.schema.field(index).type))
        pq.write_table(shuffled, out / day.name / "part-0.parquet")
