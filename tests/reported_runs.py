"""Facts of runs that a report is drawn of, and a store that holds their documents; a test changes one thing."""

import datetime as dt
from typing import Any

import numpy as np

from deepfm import layout, stage_keys
from deepfm.config import RetrainConfig
from deepfm.curves import Curves
from deepfm.documents import sha256_hex
from deepfm.evaluation.curves import curves_of
from deepfm.evaluation.holdout import HoldoutScores
from deepfm.manifests import (
    Comparison,
    CurvePoint,
    Decision,
    FileEntry,
    Finding,
    Gap,
    Partition,
    RawFile,
    TrainingResult,
    ValidationReport,
    VersionManifest,
    WindowDay,
)
from deepfm.registry import Registry
from deepfm.storage import ObjectStore
from tests import factories
from tests.factories import DAY, MODEL, VERSION
from tests.tiny_days import tiny_config

CHAMPION = f"{DAY - dt.timedelta(days=1)}-{'9' * 16}"
ROWS = 1000


def config() -> RetrainConfig:
    """The tiny configuration under the name of the documents' model."""
    return tiny_config({"model": MODEL})


def finding(**changes: Any) -> Finding:
    """A rule that the day keeps."""
    plain: dict[str, Any] = {
        "rule": "null_share",
        "column": "item",
        "severity": "critical",
        "passed": True,
        "observed": "null_share 0",
        "required": "at most 0.2",
    }
    return Finding.model_validate(plain | changes)


def holdout(*findings: Finding, accepted: bool = True) -> ValidationReport:
    """The day as judged under the present rules."""
    file = RawFile(sha256="1" * 64, size_bytes=10, key="dt=2026-03-01/part-0.parquet")
    partition = Partition(logical_date=DAY, files=(file,), fingerprint="f" * 16)
    return ValidationReport(
        model=MODEL,
        logical_date=DAY,
        key=stage_keys.validate_key(config(), partition),
        partition=partition,
        accepted=accepted,
        rows=ROWS + 20,
        quarantined_rows=20,
        valid_rows=ROWS,
        clicks=30,
        findings=findings or (finding(),),
        files={},
    )


def decision(**changes: Any) -> Decision:
    """The gate's verdict on a challenger against the champion of log entry 1."""
    base = factories.decision(compared_entry=1, gate_key=stage_keys.gate_key(config(), holdout().key))
    champion = base.challenger.model_copy(update={"version": CHAMPION, "auc": 0.69})
    update = {"champion": champion, "comparison": Comparison(difference=0.01, error=0.004)}
    return base.model_copy(update=update | changes)


def curves(*, models: int = 2) -> Curves:
    """The curves of a random day of a thousand impressions and thirty clicks."""
    rng = np.random.default_rng(0)
    labels = (np.arange(ROWS) < 30).astype(np.uint8)
    columns = [1 / (1 + np.exp(4 - labels - rng.normal(size=ROWS))) for _ in range(models)]
    scores = HoldoutScores(labels, None, tuple(column.astype(np.float32) for column in columns))
    versions = [VERSION, CHAMPION][:models]
    return curves_of(scores, holdout(), versions=versions, compared_entry=models - 1, gate=config().gate)


def manifest() -> VersionManifest:
    """A version that was trained on one day, with another one missing."""
    base = factories.manifest()
    day = WindowDay(logical_date=DAY - dt.timedelta(days=1), key="e" * 16, sampled_rows=400, clicks=20, keep_rate=0.5)
    gap = Gap(logical_date=DAY - dt.timedelta(days=2), reason="refused: ctr of the day: ctr 0.9, required 0 to 0.2")
    return base.model_copy(update={"window": base.window.model_copy(update={"days": (day,), "gaps": (gap,)})})


def training(*points: CurvePoint) -> TrainingResult:
    """A training of three checks, of which the second was the best."""
    checks = points or tuple(
        CurvePoint(step=10 * n, train_loss=0.7 / n, learning_rate=0.1, validation_auc=0.6 + 0.01 * (n == 2))
        for n in (1, 2, 3)
    )
    return TrainingResult(
        model=MODEL,
        version=VERSION,
        attempt="attempt",
        window_key="b" * 16,
        steps=30,
        planned_steps=40,
        best_step=20,
        batch_size=32,
        pos_weight=1.0,
        device="cpu",
        curve=checks,
        files={"weights.safetensors": FileEntry(sha256="0" * 64, size_bytes=1)},
    )


def keep(
    store: ObjectStore, made: Decision, *, drawn: Curves | None = None, promoted: bool = False, whole: bool = True
) -> None:
    """The decision is stored, with what a run stores beside it."""
    _, digest = Registry(store, MODEL).record(made)
    folder = layout.decision_prefix(
        MODEL, made.logical_date, made.version, entry=made.compared_entry, gate_key=made.gate_key
    )
    if drawn:
        store.create(layout.file_key(folder, layout.CURVES_FILE), drawn.to_bytes())
    if whole:
        keep_day(store, holdout())
        store.write(layout.version_manifest(MODEL, VERSION), manifest().to_bytes())
        result = layout.file_key(layout.training_prefix(MODEL, VERSION), "result.json")
        store.write(result, training().to_bytes())
    if promoted:
        first = factories.entry(1).model_copy(update={"version": CHAMPION})
        second = factories.entry(2).model_copy(update={"version": made.version, "decision_sha256": digest})
        for entry in (first, second):
            Registry(store, MODEL).append(entry)


def keep_day(store: ObjectStore, report: ValidationReport) -> None:
    """The judgement on a day is stored."""
    prefix = layout.validated_prefix(MODEL, report.logical_date, report.key)
    store.write(layout.file_key(prefix, layout.VALIDATION_FILE), report.to_bytes())


def digest(made: Decision) -> str:
    """What a log entry names a decision by."""
    return sha256_hex(made.to_bytes())
