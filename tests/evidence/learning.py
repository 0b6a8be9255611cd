"""Claims about what the models learn: synthetic worlds, whose truth is known."""

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepfm import layout
from deepfm.export.parity import local_ids, reference_logit
from deepfm.export.version import graph_spec, load_model, sample_columns
from deepfm.manifests import TrainingResult, VersionManifest
from deepfm.metrics import auc
from deepfm.retraining import RunOutcome, retrain
from deepfm.serving import Scorer, read_model
from deepfm.synthetic.config import preset_world
from deepfm.synthetic.delivery import write_world
from deepfm.synthetic.oracle import best_reachable
from deepfm.synthetic.world import World
from deepfm.workspace import Workspace
from tests.evidence.baseline import logistic_auc
from tests.evidence.lines import Line
from tests.evidence.worlds import (
    POISONED,
    calibration_to_truth,
    demo_world,
    holdout_of,
    shuffle_labels,
    synthetic_workspace,
)

SIZES = (100_000, 400_000, 1_500_000)
BEST_SHARE = 0.90
CALIBRATION = (0.97, 1.03)
SETTINGS = {
    "none": ["sampling={}"],
    "1:4": ["sampling={negatives_per_positive=4}"],
    "1:1": ["sampling={negatives_per_positive=1}"],
    "pos_weight=auto": ["sampling={}", "loss.pos_weight=auto"],
    "focal": ["sampling={}", "loss.kind=focal"],
}


def reachable(folder: Path) -> Iterator[Line]:
    """Share of the distance from AUC .5 to the best reachable one, beside one-hot logistic regression."""
    for size in SIZES:
        config = preset_world("full", overrides={"rows_per_day": size, "days": 8})
        place = folder / str(size)
        write_world(config, place)
        date = config.start + dt.timedelta(days=7)
        workspace = synthetic_workspace(place, place / "store")
        began = time.monotonic()
        outcome = retrain(workspace, date)
        seconds = time.monotonic() - began
        window = manifest_of(workspace, outcome).window
        best = best_reachable(World(config), window=[day.logical_date for day in window.days], holdout=date).best_auc
        peers = [logistic_auc(workspace, window, holdout_of(workspace, date), strength=c) for c in (1.0, 0.1)]
        ours, theirs = (share(value, best) for value in (outcome.challenger_auc or 0.0, max(peers)))
        bar = f"at least {BEST_SHARE:.2f} and above" if size == SIZES[-1] else "above"
        yield Line(
            f"share of reachable AUC, synthetic, window of {7 * size:,} rows",
            f"{ours:.3f} (AUC {outcome.challenger_auc:.4f} of {best:.4f}), logistic regression {theirs:.3f}; "
            f"{seconds:.0f} s from raw files, {window.sampled_rows:,} sampled rows",
            f"{bar} logistic regression",
            ours > theirs and (size != SIZES[-1] or ours >= BEST_SHARE),
        )


def calibration(folder: Path) -> Iterator[Line]:
    """Scores against true probabilities on unsampled holdouts, for every way to treat imbalance."""
    world = demo_world(folder / "world")
    dates = [world.start + dt.timedelta(days=day) for day in range(3, world.days)]
    for setting, overrides in SETTINGS.items():
        workspace = synthetic_workspace(folder / "world", folder / "store", overrides=overrides)
        ratios = []
        for date in dates:
            if date != POISONED:
                manifest = manifest_of(workspace, retrain(workspace, date))
                ratios.append(calibration_to_truth(workspace, manifest, folder / "world"))
        mean = float(np.mean(ratios))
        days = " ".join(f"{ratio:.3f}" for ratio in ratios)
        yield Line(
            f"scores / true probabilities, synthetic, {setting}",
            f"{mean:.3f}, mean of {len(ratios)} days ({days})",
            f"{CALIBRATION[0]} to {CALIBRATION[1]}",
            CALIBRATION[0] <= mean <= CALIBRATION[1],
        )


def shuffled(folder: Path) -> Iterator[Line]:
    """Nothing to learn, nothing promoted."""
    world = demo_world(folder / "world")
    shuffle_labels(folder / "world" / "clicks", folder / "shuffled" / "clicks")
    workspace = synthetic_workspace(folder / "shuffled", folder / "store")
    outcome = retrain(workspace, world.start + dt.timedelta(days=4))
    figure = f"{outcome.status}, {outcome.verdict}, AUC {outcome.challenger_auc:.4f}"
    yield Line("labels shuffled within each day", figure, "not promoted", outcome.status == "not_promoted")


def parity(folder: Path) -> Iterator[Line]:
    """The exported file against torch on all raw rows of a holdout."""
    world = demo_world(folder / "world")
    workspace = synthetic_workspace(folder / "world", folder / "store")
    outcome = retrain(workspace, world.start + dt.timedelta(days=4))
    manifest = manifest_of(workspace, outcome)
    theirs, ours, labels = both_logits(workspace, manifest)
    gap = float(np.abs(ours - theirs).max())
    difference = abs(auc(ours, labels) - auc(theirs, labels))
    yield Line(f"ONNX against torch, logits of {len(labels):,} raw rows", f"{gap:.1e}", "at most 1e-4", gap <= 1e-4)
    yield Line("ONNX against torch, AUC", f"{difference:.1e}", "equal to 1e-6", difference <= 1e-6)


def both_logits(workspace: Workspace, manifest: VersionManifest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of torch and of the file, and the labels, for the whole holdout of a version."""
    import torch

    prefix = layout.training_prefix(workspace.model, manifest.version)
    result = TrainingResult.from_bytes(workspace.store.read(layout.file_key(prefix, "result.json")), where=prefix)
    files = workspace.local(
        layout.attempt_prefix(workspace.model, manifest.version, manifest.attempt),
        {name: entry for name, entry in manifest.files.items() if name.endswith(".safetensors")},
    )
    model = load_model(next(iter(files.values())), manifest.window, workspace.config)
    spec = graph_spec(manifest.window, result, workspace.config, files=workspace.window_files(manifest.window))
    report = holdout_of(workspace, manifest.logical_date)
    quarantine = workspace.quarantine(report)
    columns = sample_columns(
        workspace.source,
        report,
        workspace.config,
        spec.inputs,
        quarantine=quarantine,
        cache=workspace.cache,
        rows=report.valid_rows,
    )
    named = zip(spec.categorical, spec.vocabularies, strict=True)
    ids = torch.from_numpy(np.stack([local_ids(columns[field.name], values) for field, values in named], axis=1))
    numbers = torch.from_numpy(np.stack([columns[field.name] for field in spec.numeric], axis=1))
    theirs = reference_logit(model, ids, numbers, spec).numpy().astype(np.float64)
    scores = Scorer(read_model(workspace.store, manifest), manifest.inputs).probabilities(columns).astype(np.float64)
    return theirs, np.log(scores) - np.log1p(-scores), labels_of_day(workspace, manifest)


def labels_of_day(workspace: Workspace, manifest: VersionManifest) -> np.ndarray:
    """The labels of a version's holdout, in the order of its valid rows."""
    from tests.evidence.baseline import holdout_frame

    return holdout_frame(workspace, holdout_of(workspace, manifest.logical_date))[1]


def manifest_of(workspace: Workspace, outcome: RunOutcome) -> VersionManifest:
    """The version that a run made."""
    assert outcome.version is not None, outcome
    return workspace.registry.manifest(outcome.version)[0]


def share(value: float, best: float) -> float:
    """How much of the way from .5 to the best AUC is gone."""
    return (value - 0.5) / (best - 0.5)
