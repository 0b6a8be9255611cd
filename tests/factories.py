"""Valid registry documents, of which a test changes one thing."""

import datetime as dt
from uuid import uuid4

from deepfm.documents import sha256_hex
from deepfm.manifests import Decision, EvaluationReport, FileEntry, InputSpec, LogEntry, VersionManifest, Window

DAY = dt.date(2026, 3, 1)
VERSION = f"{DAY}-{'a' * 16}"
MODEL = "clicks"


def manifest(*, onnx: bytes = b"onnx", attempt: str = "attempt", model: str = MODEL) -> VersionManifest:
    window = Window(
        model=model,
        logical_date=DAY,
        key="b" * 16,
        days=(),
        gaps=(),
        keep_rate=0.5,
        categorical=("item",),
        numeric=(),
        vocabulary_sizes={"item": 3},
        normalisation={},
        files={},
    )
    return VersionManifest(
        model=model,
        version=VERSION,
        logical_date=DAY,
        attempt=attempt,
        window=window,
        inputs=(InputSpec(name="item", kind="categorical", dtype="int64"),),
        keep_rate=0.5,
        pos_weight=1.0,
        focal=None,
        minimum_onnxruntime="1.20.0",
        files={"model.onnx": FileEntry(sha256=sha256_hex(onnx), size_bytes=len(onnx))},
    )


def decision(*, compared_entry: int = 0, gate_key: str = "c" * 16, reason: str = "first run") -> Decision:
    report = EvaluationReport(
        version=VERSION,
        rows=1000,
        clicks=30,
        auc=0.7,
        auc_error=0.01,
        gauc=None,
        gauc_coverage=None,
        log_loss=0.1,
        normalised_entropy=0.9,
        calibration_ratio=1.0,
        error_unit="row",
    )
    return Decision(
        model=MODEL,
        version=VERSION,
        logical_date=DAY,
        manifest_sha256="d" * 64,
        compared_entry=compared_entry,
        gate_key=gate_key,
        verdict="promote",
        reasons=(reason,),
        minimum_detectable_difference=None,
        challenger=report,
        champion=None,
        comparison=None,
    )


def entry(sequence: int, *, actor: str = "test", attempt: str | None = None, model: str = MODEL) -> LogEntry:
    return LogEntry(
        model=model,
        sequence=sequence,
        operation="promote",
        version=VERSION,
        logical_date=DAY,
        manifest_sha256="d" * 64,
        decision_sha256=None,
        compared_entry=sequence - 1,
        attempt=attempt or uuid4().hex,
        challenger_auc=0.7,
        champion_auc=None,
        actor=actor,
        reason="better",
        created_utc=dt.datetime(2026, 3, 2, 4, 5, 6, tzinfo=dt.UTC),
    )
