"""One function per stage: the public face for flows and the command line; `deepfm.retraining` puts them in order.

Every stage is a plain function of a `Workspace` and typed documents. It does nothing if its result is stored already,
so a run that was cut off goes on where it was.
"""

import datetime as dt
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from deepfm import layout, stage_keys
from deepfm.curves import Curves
from deepfm.documents import sha256_hex
from deepfm.errors import ConflictError, DataRejectedError
from deepfm.manifests import (
    Comparison,
    Decision,
    EvaluationReport,
    FileEntry,
    Gap,
    LogEntry,
    PreparedDay,
    TrainingResult,
    ValidationReport,
    VersionManifest,
    Window,
    WindowDay,
)
from deepfm.onnx_file import MINIMUM_ONNXRUNTIME
from deepfm.storage.local import disk_errors
from deepfm.workspace import Workspace

logger = logging.getLogger(__name__)
_PARITY_ROWS = 20_000
_WEIGHTS = "weights.safetensors"
_local_files = disk_errors("local copies of the stage's files")  # a private folder has this already
Progress = Callable[[int, int], None]


class Evaluation(NamedTuple):
    """Challenger and champion on one holdout day."""

    challenger: EvaluationReport
    champion: EvaluationReport | None
    comparison: Comparison | None
    obstacle: str | None
    """Why a champion that exists could not be compared, in words."""
    gate_key: str
    """What a decision on it depends on besides the two versions."""
    curves: Curves
    """What the report draws."""


def validate_day(workspace: Workspace, logical_date: dt.date) -> ValidationReport | None:
    """The judgement on a day's partition; None if the day has not been delivered.

    A day that cannot be read or breaks a critical rule gets a report that says so: refusing a day is a result.

    Raises:
        StoreUnavailableError: transient.
    """
    from deepfm.data.judging import judge_partition
    from deepfm.data.partitions import find_partition

    config = workspace.config
    with workspace.scratch() as scratch:
        partition = find_partition(workspace.source, config, logical_date, cache=workspace.cache)
        if partition is None:
            return None
        key = stage_keys.validate_key(config, partition)
        prefix = layout.validated_prefix(workspace.model, logical_date, key)
        if stored := workspace.document(ValidationReport, layout.file_key(prefix, layout.VALIDATION_FILE)):
            return stored
        judged = judge_partition(workspace.source, partition, config, cache=workspace.cache, scratch=scratch)
        report = ValidationReport(
            model=workspace.model,
            logical_date=logical_date,
            key=key,
            partition=partition,
            accepted=judged.accepted,
            rows=judged.day.rows,
            quarantined_rows=judged.day.rows - judged.day.valid_rows,
            valid_rows=judged.day.valid_rows,
            clicks=judged.day.clicks,
            findings=judged.findings,
            skipped=judged.skipped,
            files=workspace.put(prefix, judged.files),
        )
        return workspace.settle(report, layout.file_key(prefix, layout.VALIDATION_FILE))


def prepare_day(workspace: Workspace, report: ValidationReport) -> PreparedDay:
    """The accepted day, sampled and encoded; done once, whatever windows come to use it.

    Raises:
        DataRejectedError: terminal; the day was refused.
        StoreUnavailableError: transient.
    """
    from deepfm.data.preparing import prepare_rows

    config = workspace.config
    if not report.accepted:
        raise DataRejectedError(f"clicks of {report.logical_date} were refused", observed=report.refusal)
    key = stage_keys.prepare_key(config, report.key)
    prefix = layout.prepared_prefix(workspace.model, report.logical_date, key)
    if stored := workspace.document(PreparedDay, layout.file_key(prefix, layout.MANIFEST)):
        return stored
    with workspace.scratch() as scratch:
        prepared = prepare_rows(
            workspace.source,
            report,
            config,
            quarantine=workspace.quarantine(report),
            cache=workspace.cache,
            scratch=scratch,
        )
        files = workspace.put(prefix, prepared.files)
    document = PreparedDay(
        model=workspace.model,
        logical_date=report.logical_date,
        key=key,
        rows=report.valid_rows,
        clicks=report.clicks,
        files=files,
        **{name: value for name, value in prepared._asdict().items() if name != "files"},
    )
    return workspace.settle(document, layout.file_key(prefix, layout.MANIFEST))


def assemble_window(
    workspace: Workspace, logical_date: dt.date, days: Sequence[PreparedDay], gaps: Sequence[Gap]
) -> Window:
    """The training window: prepared days, oldest first, under one vocabulary.

    Raises:
        WindowError: terminal; too few days.
        StoreUnavailableError: transient.
    """
    from deepfm.data.window import assemble, check_window

    config = workspace.config
    check_window(config, accepted=len(days), gaps=gaps, logical_date=logical_date)
    key = stage_keys.window_key(config, logical_date, [day.key for day in days], gaps)
    prefix = layout.window_prefix(workspace.model, logical_date, key)
    if stored := workspace.document(Window, layout.file_key(prefix, layout.MANIFEST)):
        return stored
    with workspace.scratch() as scratch:
        local = {day.logical_date: workspace.day_files(day) for day in days}
        assembled = assemble(days, local, config, logical_date=logical_date, scratch=scratch)
        files = workspace.put(prefix, assembled.files)
    window = Window(
        model=workspace.model,
        logical_date=logical_date,
        key=key,
        days=tuple(_window_day(day) for day in days),
        gaps=tuple(gaps),
        keep_rate=min(day.keep_rate for day in days),
        categorical=config.categorical,
        numeric=config.numeric,
        vocabulary_sizes=assembled.vocabulary_sizes,
        normalisation=assembled.normalisation,
        files=files,
    )
    return workspace.settle(window, layout.file_key(prefix, layout.MANIFEST))


def gate_key(workspace: Workspace, holdout: ValidationReport) -> str:
    """Fingerprint of the gate's configuration and of the holdout as delivered."""
    return stage_keys.gate_key(workspace.config, holdout.key)


def version_of(workspace: Workspace, window: Window) -> str:
    """The id of the version that this window and configuration make: equal inputs, equal id."""
    return stage_keys.version_id(workspace.config, window.logical_date, window.key)


@_local_files
def train_challenger(workspace: Workspace, window: Window, *, progress: Progress | None = None) -> TrainingResult:
    """The trained weights of a window's version; a training that was cut off resumes from its last state.

    Raises:
        TrainingError: terminal; the loss is not finite, or memory ran out.
        StoreUnavailableError: transient.
    """
    from deepfm.training.batches import WindowRows
    from deepfm.training.checkpoint import ResumeStates
    from deepfm.training.loop import Trainer
    from deepfm.training.memory import memory_errors
    from deepfm.training.tensorboard import write_events
    from deepfm.weights import pack

    version = version_of(workspace, window)
    prefix = layout.training_prefix(workspace.model, version)
    if stored := workspace.document(TrainingResult, layout.training_result(workspace.model, version)):
        return stored
    days = {day.logical_date: workspace.prepared(day) for day in window.days}
    remaps = workspace.window_files(window)
    files = {date: workspace.day_files(day) | remaps for date, day in days.items()}
    states = ResumeStates(workspace.store, prefix)
    with memory_errors(window):
        trainer = Trainer(WindowRows(window, days, files, workspace.config), window, workspace.config)
        fitted = trainer.fit(states=states, progress=progress)
    attempt = uuid.uuid4().hex
    with workspace.scratch() as scratch:
        weights = scratch / _WEIGHTS
        weights.write_bytes(pack(fitted.model.state_dict(), {"version": version}))
        events = write_events(scratch / "tensorboard", fitted.curve)
        stored_files = workspace.put(
            layout.attempt_prefix(workspace.model, version, attempt), {_WEIGHTS: weights, events.name: events}
        )
    result = TrainingResult(
        model=workspace.model,
        version=version,
        attempt=attempt,
        window_key=window.key,
        files=stored_files,
        **{name: value for name, value in fitted._asdict().items() if name != "model"},
    )
    result = workspace.settle(result, layout.training_result(workspace.model, version))
    states.clear()
    return result


@_local_files
def export_version(
    workspace: Workspace, window: Window, result: TrainingResult, holdout: ValidationReport
) -> VersionManifest:
    """The published version: one ONNX file that agrees with torch on raw rows of the holdout.

    Raises:
        ParityError: terminal; the file does not compute what torch computes. Nothing is published.
        ConflictError: terminal; the version exists with other bytes.
        StoreUnavailableError: transient.
    """
    from deepfm.export.golden import golden_of
    from deepfm.export.graph import build_onnx
    from deepfm.export.parity import check_parity
    from deepfm.export.version import graph_spec, load_model, sample_columns

    config = workspace.config
    prefix = layout.attempt_prefix(workspace.model, result.version, result.attempt)
    model = load_model(workspace.local(prefix, result.files)[_WEIGHTS], window, config)
    spec = graph_spec(window, result, config, files=workspace.window_files(window))
    data = build_onnx(model, spec)
    columns = sample_columns(
        workspace.source,
        holdout,
        config,
        spec.inputs,
        quarantine=workspace.quarantine(holdout),
        cache=workspace.cache,
        rows=_PARITY_ROWS,
    )
    figures = check_parity(data, model, spec, columns=columns)
    logger.info("ONNX agrees with torch to %.1e on %d rows", figures.max_logit_difference, figures.rows)
    workspace.store.write(layout.file_key(prefix, layout.MODEL_FILE), data)
    manifest = VersionManifest(
        model=workspace.model,
        version=result.version,
        logical_date=window.logical_date,
        attempt=result.attempt,
        window=window,
        inputs=spec.inputs,
        keep_rate=spec.keep_rate,
        pos_weight=spec.pos_weight,
        focal=spec.focal,
        minimum_onnxruntime=MINIMUM_ONNXRUNTIME,
        files=result.files | {layout.MODEL_FILE: FileEntry(sha256=sha256_hex(data), size_bytes=len(data))},
        golden=golden_of(data, spec, version=result.version, private={config.data.group}),
    )
    return workspace.registry.publish(manifest, deterministic=result.device == "cpu")


@_local_files
def evaluate(
    workspace: Workspace, holdout: ValidationReport, challenger: VersionManifest, head: LogEntry | None
) -> Evaluation:
    """Challenger and champion through their ONNX files on the same, whole, unsampled day, in one pass.

    Raises:
        UndefinedMetricError: terminal; the day has one class only.
        IntegrityError: terminal; a model file does not match its manifest.
        StoreUnavailableError: transient.
    """
    from deepfm.evaluation.comparable import comparable
    from deepfm.evaluation.curves import curves_of
    from deepfm.evaluation.holdout import compare, report_on, score_holdout
    from deepfm.serving import Scorer, read_model

    key = gate_key(workspace, holdout)
    champion = workspace.registry.manifest(head.version)[0] if head is not None else None
    config, obstacle = comparable(
        workspace.source, holdout, challenger, champion, config=workspace.config, cache=workspace.cache
    )
    manifests = [challenger] if champion is None or obstacle else [challenger, champion]
    models = [(Scorer(read_model(workspace.store, m), m.inputs), m.inputs) for m in manifests]
    scores = score_holdout(
        workspace.source,
        holdout,
        config,
        quarantine=workspace.quarantine(holdout),
        cache=workspace.cache,
        models=models,
    )
    reports = [report_on(scores, i, version=m.version, config=config) for i, m in enumerate(manifests)]
    curves = curves_of(
        scores,
        holdout,
        versions=[m.version for m in manifests],
        compared_entry=head.sequence if head is not None else 0,
        gate=workspace.config.gate,
    )
    if len(reports) == 1:
        return Evaluation(reports[0], None, None, obstacle, key, curves)
    return Evaluation(reports[0], reports[1], compare(scores), None, key, curves)


def decide(
    workspace: Workspace, challenger: VersionManifest, head: LogEntry | None, evaluation: Evaluation
) -> Decision:
    """The recorded verdict on a challenger against the champion of log entry `head`."""
    from deepfm.evaluation.gate import judge

    result = judge(
        challenger=evaluation.challenger,
        champion=evaluation.champion,
        comparison=evaluation.comparison,
        config=workspace.config.gate,
        obstacle=evaluation.obstacle,
    )
    decision = Decision(
        model=workspace.model,
        version=challenger.version,
        logical_date=challenger.logical_date,
        manifest_sha256=workspace.registry.manifest(challenger.version)[1],
        compared_entry=head.sequence if head is not None else 0,
        gate_key=evaluation.gate_key,
        verdict=result.verdict,
        reasons=result.reasons,
        minimum_detectable_difference=result.minimum_detectable_difference,
        challenger=evaluation.challenger,
        champion=evaluation.champion,
        comparison=evaluation.comparison,
    )
    prefix = layout.decision_prefix(
        decision.model,
        decision.logical_date,
        decision.version,
        entry=decision.compared_entry,
        gate_key=decision.gate_key,
    )
    workspace.settle(evaluation.curves, layout.file_key(prefix, layout.CURVES_FILE))
    return workspace.registry.record(decision)[0]


def promote(workspace: Workspace, decision: Decision) -> LogEntry:
    """The log entry that makes the challenger of a decision the champion.

    Raises:
        ConflictError: terminal; somebody appended since the decision was made: decide again against the new champion.
            Or promotions are on hold.
        StoreUnavailableError: transient.
    """
    if decision.verdict != "promote":
        raise ConflictError(
            f"version {decision.version} was not cleared for promotion: the verdict is {decision.verdict}"
        )
    stored, digest = workspace.registry.record(decision)
    head = workspace.registry.entry(stored.compared_entry) if stored.compared_entry else None
    if head is not None and head.held:
        raise ConflictError("promotions are on hold", where=f"log entry {head.sequence}")
    entry = LogEntry(
        model=workspace.model,
        sequence=stored.compared_entry + 1,
        operation="promote",
        version=stored.version,
        logical_date=stored.logical_date,
        manifest_sha256=stored.manifest_sha256,
        decision_sha256=digest,
        compared_entry=stored.compared_entry,
        attempt=uuid.uuid4().hex,
        challenger_auc=stored.challenger.auc,
        champion_auc=stored.champion.auc if stored.champion else None,
        actor=workspace.actor,
        reason=stored.reasons[0],
        created_utc=dt.datetime.now(dt.UTC),
    )
    return workspace.registry.append(entry)


def _window_day(day: PreparedDay) -> WindowDay:
    return WindowDay(
        logical_date=day.logical_date,
        key=day.key,
        sampled_rows=day.sampled_rows,
        clicks=day.clicks,
        keep_rate=day.keep_rate,
    )
