"""What the store knows of one logical date's run, read for the report; nothing is computed again from raw rows."""

import datetime as dt
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from deepfm import layout, stage_keys
from deepfm.config import GateConfig, RetrainConfig
from deepfm.curves import Curves
from deepfm.documents import Document, sha256_hex
from deepfm.errors import NotFoundError
from deepfm.manifests import Decision, LogEntry, PreparedDay, TrainingResult, ValidationReport, VersionManifest
from deepfm.registry import Registry
from deepfm.storage import ObjectStore
from deepfm.succession import succession

D = TypeVar("D", bound=Document)


class DayFigures(NamedTuple):
    """A day of the window, or the holdout after it."""

    logical_date: dt.date
    rows: int
    """Valid impressions; 0 for a gap."""
    clicks: int
    """Clicks among them."""
    gap: str | None = None
    """Why the day did not train: `missing`, or the rules that it broke."""
    holdout: bool = False
    """Whether it judged instead of trained."""


class RunFacts(NamedTuple):
    """Everything that a report shows; what is no longer kept, or never was, is None."""

    model: str
    store: str
    """URL of the store, without credentials."""
    logical_date: dt.date
    head: LogEntry | None
    """The log's last entry as the report is written."""
    holdout: ValidationReport | None
    decision: Decision | None = None
    """None for a day that was refused."""
    folder: str = ""
    """Where the decision lies in the store."""
    curves: Curves | None = None
    entry: LogEntry | None = None
    """The log entry that this decision led to."""
    withdrawal: LogEntry | None = None
    """The rollback that took the version away, if it has not come back since."""
    hold: LogEntry | None = None
    """The entry that has put automatic promotions on hold, if they are."""
    manifest: VersionManifest | None = None
    training: TrainingResult | None = None
    days: tuple[DayFigures, ...] = ()
    """Window and holdout, oldest first."""
    limits: GateConfig | None = None
    """The gate's configuration when it decided."""


def gather(
    store: ObjectStore, config: RetrainConfig, *, logical_date: dt.date | None = None, version: str | None = None
) -> RunFacts:
    """The facts of a run: of the version, else of the date, else of the newest decision.

    Where a date has several decisions, the one that led to a promotion counts, then the one under the gate's present
    configuration, then the one against the latest champion.

    Raises:
        NotFoundError: terminal; nothing was decided or refused there. The line says what there is.
        IntegrityError: terminal; a document is damaged.
        StoreUnavailableError: transient.
    """
    return _Gathering(store, config).of(logical_date, version)


class _Gathering:
    def __init__(self, store: ObjectStore, config: RetrainConfig) -> None:
        self._store, self._config, self._model = store, config, config.model
        self._registry = Registry(store, config.model)

    def of(self, logical_date: dt.date | None, version: str | None) -> RunFacts:
        date = layout.version_date(version) if version else logical_date
        prefix = layout.decisions_prefix(self._model, date) if date else layout.model_prefix(self._model)
        keys = [found.key for found in self._store.list(prefix)]
        decided = [(key, result) for key in keys if (result := layout.decision_result(key))]
        if version:
            decided = [(key, result) for key, result in decided if result.version == version]
        if decided:
            newest = max(layout.version_date(result.version) for _, result in decided)
            return self._decided(newest, [key for key, r in decided if layout.version_date(r.version) == newest])
        if date and not version and (refused := self._refused(date)):
            return RunFacts(self._model, self._store.url, date, self._registry.head(), refused)
        raise self._nothing(date, version)

    def _promotion(self, decision: Decision, digest: str) -> LogEntry | None:
        """The entry that promoted on a decision: the next one, or a later one by a person."""
        follower = self._registry.entry(decision.compared_entry + 1)
        if follower is None or follower.decision_sha256 == digest:
            return follower
        promotions = (entry for entry in self._registry.entries() if entry.operation == "promote")
        return next((entry for entry in promotions if entry.decision_sha256 == digest), None)

    def _decided(self, date: dt.date, keys: list[str]) -> RunFacts:
        judged = [result.validated for key in self._day(date) if (result := layout.day_result(key))]
        current = {stage_keys.gate_key(self._config, key): key for key in judged if key}
        ranked = []
        for key in keys:
            data = self._store.read(key)
            decision = Decision.from_bytes(data, where=f"{self._store.url}/{key}")
            entry = self._promotion(decision, sha256_hex(data))
            rank = (entry is not None, decision.gate_key in current, decision.compared_entry, key)
            ranked.append((rank, key, decision, entry))
        _, key, decision, entry = max(ranked, key=lambda found: found[0])
        folder = key.rpartition("/")[0]
        curves = self._document(Curves, layout.file_key(folder, layout.CURVES_FILE))
        under_present_gate = current.get(decision.gate_key)
        of_holdout = curves.holdout_key if curves else under_present_gate
        manifest = self._document(VersionManifest, layout.version_manifest(self._model, decision.version))
        training = layout.training_result(self._model, decision.version)
        head = self._registry.head()
        # The champion of a log without a hold has nothing to be told of it, and a log may be long.
        log = self._registry.entries() if head and (head.held or head.version != decision.version) else []
        standing = succession(log)
        return RunFacts(
            model=self._model,
            store=self._store.url,
            logical_date=date,
            head=head,
            holdout=self._validation(date, of_holdout) if of_holdout else None,
            decision=decision,
            folder=folder,
            curves=curves,
            entry=entry,
            withdrawal=standing.withdrawn.get(decision.version),
            hold=standing.hold,
            manifest=manifest,
            training=self._document(TrainingResult, training),
            days=self._window(manifest, decision) if manifest else (),
            limits=_limits(curves) if curves else (self._config.gate if under_present_gate else None),
        )

    def _window(self, manifest: VersionManifest, decision: Decision) -> tuple[DayFigures, ...]:
        days = [DayFigures(gap.logical_date, 0, 0, gap=gap.reason) for gap in manifest.window.gaps]
        for day in manifest.window.days:
            prefix = layout.prepared_prefix(self._model, day.logical_date, day.key)
            prepared = self._document(PreparedDay, layout.file_key(prefix, layout.MANIFEST))
            # A prepared day may be cleared away; the rows before sampling then follow from those that were kept.
            rows = prepared.rows if prepared else day.clicks + round((day.sampled_rows - day.clicks) / day.keep_rate)
            days.append(DayFigures(day.logical_date, rows, day.clicks))
        report = decision.challenger
        days.append(DayFigures(decision.logical_date, report.rows, report.clicks, holdout=True))
        return tuple(sorted(days))

    def _refused(self, date: dt.date) -> ValidationReport | None:
        """The refusal of a date that was never accepted; under the present rules if it was judged by them."""
        judged = [result.validated for key in self._day(date) if (result := layout.day_result(key))]
        reports = [report for key in judged if key and (report := self._validation(date, key))]
        if any(report.accepted for report in reports):
            return None
        reports.sort(key=lambda r: (stage_keys.validate_key(self._config, r.partition) == r.key, r.key))
        return reports[-1] if reports else None

    def _nothing(self, date: dt.date | None, version: str | None) -> NotFoundError:
        results = (layout.decision_result(found.key) for found in self._store.list(layout.model_prefix(self._model)))
        versions = sorted({result.version for result in results if result})
        same_date = [other for other in versions if date and layout.version_date(other) == date]
        dates = sorted({str(layout.version_date(other)) for other in versions})
        if version and same_date:
            observed = f"of that date there is {', '.join(same_date[:5])}"
        elif len(dates) > 1:
            observed = f"there are decisions on {len(dates)} dates from {dates[0]} to {dates[-1]}"
        elif dates:
            observed = f"there is one on {dates[0]}"
        else:
            observed = "there is no decision yet"
        about = version or (str(date) if date else self._model)
        return NotFoundError(f"nothing was decided on {about}", observed=observed, where=self._store.url)

    def _day(self, date: dt.date) -> list[str]:
        return [found.key for found in self._store.list(layout.day_prefix(self._model, date))]

    def _validation(self, date: dt.date, key: str) -> ValidationReport | None:
        prefix = layout.validated_prefix(self._model, date, key)
        return self._document(ValidationReport, layout.file_key(prefix, layout.VALIDATION_FILE))

    def _document(self, kind: type[D], key: str) -> D | None:
        try:
            return kind.from_bytes(self._store.read(key), where=f"{self._store.url}/{key}")
        except NotFoundError:
            return None


def _limits(curves: Curves) -> GateConfig | None:
    """The limits that were stored, unless another release stored them and they mean nothing here."""
    known = {key: value for key, value in curves.gate.items() if key in GateConfig.model_fields}
    try:
        return GateConfig.model_validate(known)
    except ValidationError:
        return None
