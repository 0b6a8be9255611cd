"""The typed documents of every stage. Every figure in them is finite: NaN and infinities cannot be written."""

import datetime as dt
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from deepfm.documents import Document, Part
from deepfm.errors import one_line
from deepfm.golden import Golden
from deepfm.moments import Moments

Finite = Annotated[float, Field(allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Verdict = Literal["promote", "reject", "inconclusive"]
Operation = Literal["promote", "rollback", "hold", "release", "retire"]
MISSING_INT64 = int(np.iinfo(np.int64).min)
"""The int64 that stands for a missing categorical value; the text that does is the empty string."""


class FileEntry(Part):
    """A stored file as its manifest knows it."""

    sha256: Sha256
    """Digest of its bytes."""
    size_bytes: Annotated[int, Field(ge=0)]
    """Its length."""


class RawFile(FileEntry):
    """One file of a partition."""

    key: str
    """Its key below the source."""


class Partition(Part):
    """All raw impressions of one logical date, as delivered."""

    logical_date: dt.date
    """The day."""
    files: tuple[RawFile, ...]
    """Its files, sorted by key."""
    fingerprint: str
    """16 hex digits over names, sizes and digests: re-delivered data has another one."""


class Finding(Part):
    """One rule that was applied to a day."""

    rule: str
    """Name of the rule, such as `null_share`."""
    column: str
    """Column it looked at, or `*` for the whole day."""
    severity: Literal["critical", "warning", "info"]
    """What breaking it means: critical refuses the day."""
    passed: bool
    """Whether the day keeps it."""
    observed: str
    """What was seen."""
    required: str
    """What the rule asks for."""

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        about = "the day" if self.column == "*" else self.column
        return one_line(f"{self.rule} of {about}: {self.observed}, required {self.required}")


class ValidationReport(Document):
    """The judgement on one partition."""

    model: str
    """Model whose configuration judged."""
    logical_date: dt.date
    """The day."""
    key: str
    """Stage key: fingerprint of the partition and of the rules."""
    partition: Partition
    """What was judged."""
    accepted: bool
    """Whether the day may train and judge models."""
    rows: int
    """Delivered rows."""
    quarantined_rows: int
    """Rows set aside, each with its reasons, in `quarantine.parquet`."""
    valid_rows: int
    """Rows that remain."""
    clicks: int
    """Clicks among the valid rows."""
    findings: tuple[Finding, ...]
    """Every rule, kept or broken."""
    files: dict[str, FileEntry]
    """`quarantine.parquet`, `profile.parquet` and Great Expectations' results; none for a day that cannot be read."""
    skipped: tuple[str, ...] = ()
    """Checks that were not possible, with the reason."""

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The critical rules that the day breaks."""
        return tuple(f for f in self.findings if not f.passed and f.severity == "critical")

    @property
    def refusal(self) -> str:
        """Why the day was refused, in one line."""
        return "refused: " + "; ".join(finding.sentence for finding in self.broken)


class PreparedDay(Document):
    """One sampled and encoded partition."""

    model: str
    """The model."""
    logical_date: dt.date
    """The day."""
    key: str
    """Stage key: validation and sampling."""
    rows: int
    """Valid rows of the day before sampling."""
    clicks: int
    """Clicks among them (all of them are sampled)."""
    sampled_rows: int
    """Rows in `rows.arrow`."""
    keep_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    """Probability with which a negative was kept."""
    dictionary_sizes: dict[str, int]
    """Distinct values of each categorical field on the whole day; codes in `rows.arrow` are below it."""
    moments: dict[str, Moments]
    """Of each numeric field over the sampled rows."""
    files: dict[str, FileEntry]
    """`rows.arrow` and one `values-<n>.parquet` per categorical field."""


class WindowDay(Part):
    """A prepared day as a window uses it."""

    logical_date: dt.date
    """The day."""
    key: str
    """Its prepared day's key."""
    sampled_rows: int
    """Rows it brings."""
    clicks: int
    """Clicks among them."""
    keep_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    """Its keep rate."""


class Gap(Part):
    """A calendar day of a window that does not train."""

    logical_date: dt.date
    """The day."""
    reason: str
    """Why: `missing`, or the rules it broke."""


class Normalisation(Part):
    """How a numeric field is standardised, inside the graph."""

    mean: Finite
    """Window mean; it also replaces missing values."""
    deviation: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    """Window standard deviation; 1 for a constant column."""


class Window(Document):
    """The training window of a logical date: which days, and what their values are called."""

    model: str
    """The model."""
    logical_date: dt.date
    """The holdout day; it is not part of the window."""
    key: str
    """Stage key: the days, their keys, the gaps and the vocabulary rule."""
    days: tuple[WindowDay, ...]
    """Accepted days, oldest first."""
    gaps: tuple[Gap, ...]
    """Days that are missing or were refused."""
    keep_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    """w_ref: the smallest keep rate; negatives of day d weigh w_ref / w_d."""
    categorical: tuple[str, ...]
    """Categorical fields, in graph order."""
    numeric: tuple[str, ...]
    """Numeric fields, in graph order."""
    vocabulary_sizes: dict[str, int]
    """Ids of each categorical field, the OOV id 0 included."""
    normalisation: dict[str, Normalisation]
    """Of each numeric field."""
    files: dict[str, FileEntry]
    """One `vocabulary-<n>.parquet` per categorical field, one `remap-<date>.npy` per day."""

    @property
    def sampled_rows(self) -> int:
        """Rows of the window."""
        return sum(day.sampled_rows for day in self.days)

    @property
    def clicks(self) -> int:
        """Clicks of the window."""
        return sum(day.clicks for day in self.days)

    @property
    def weighted_negatives(self) -> float:
        """Negatives as the loss sees them: each of day d counts w_ref / w_d."""
        return sum((day.sampled_rows - day.clicks) * self.keep_rate / day.keep_rate for day in self.days)


class CurvePoint(Part):
    """One early-stopping check."""

    step: int
    """Optimiser steps so far."""
    train_loss: Finite
    """Mean loss of the steps since the last point."""
    learning_rate: Finite
    """Rate of the dense layers at this step."""
    validation_loss: Finite | None = None
    """Loss on the held-back groups."""
    validation_auc: Finite | None = None
    """AUC on the held-back groups."""
    validation_gauc: Finite | None = None
    """GAUC on the held-back groups."""


class TrainingResult(Document):
    """A finished training."""

    model: str
    """The model."""
    version: str
    """The version that it is for."""
    attempt: str
    """Folder of its files."""
    window_key: str
    """The window that it was trained on."""
    steps: int
    """Steps taken."""
    planned_steps: int
    """Steps that the epochs would have taken."""
    best_step: int
    """Step whose weights were kept."""
    batch_size: int
    """Rows of a step."""
    pos_weight: Finite
    """Weight of a click that the loss used."""
    device: str
    """`cpu` or `cuda`."""
    curve: tuple[CurvePoint, ...]
    """The learning curve."""
    files: dict[str, FileEntry]
    """`weights.safetensors`, `learning_curve.json`, TensorBoard events."""


class InputSpec(Part):
    """One input of the ONNX graph."""

    name: str
    """Name of the input and of the raw column."""
    kind: Literal["categorical", "numeric"]
    """What the graph does with it."""
    dtype: Literal["string", "int64", "float32"]
    """Element type of the [N, 1] tensor."""


class VersionManifest(Document):
    """The create-only object that makes a version exist."""

    model: str
    """The model."""
    version: str
    """Its id: logical date and inputs."""
    logical_date: dt.date
    """Holdout day; the training window ends the day before."""
    attempt: str
    """Folder of the files below the version."""
    window: Window
    """What it was trained on."""
    inputs: tuple[InputSpec, ...]
    """The graph's inputs, in order."""
    keep_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    """w_ref of the prior correction inside the graph."""
    pos_weight: Finite
    """c of the prior correction inside the graph."""
    focal: tuple[Finite, Finite] | None
    """(alpha, gamma) of the focal inverse inside the graph, if the loss was focal."""
    minimum_onnxruntime: str
    """Oldest onnxruntime that loads the file."""
    files: dict[str, FileEntry]
    """Every file of the attempt, by name."""
    golden: Golden | None = None
    """Rows with known answers; versions that were exported before there were any have none."""


class EvaluationReport(Part):
    """One version on one holdout day, scored through its ONNX."""

    version: str
    """The version."""
    rows: int
    """Impressions of the whole, unsampled day."""
    clicks: int
    """Clicks among them."""
    auc: Annotated[float, Field(ge=0.0, le=1.0)]
    """Exact AUC with mid-ranks for ties."""
    auc_error: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    """Its standard error (DeLong)."""
    gauc: Annotated[float, Field(ge=0.0, le=1.0)] | None
    """Impression-weighted mean AUC of the groups with both classes."""
    gauc_coverage: Annotated[float, Field(ge=0.0, le=1.0)] | None
    """Share of impressions in such groups."""
    log_loss: Finite
    """Mean negative log likelihood."""
    normalised_entropy: Finite
    """Log loss over that of always predicting the day's rate (He et al., 2014)."""
    calibration_ratio: Finite
    """Sum of scores over clicks."""
    error_unit: str
    """What the errors treat as independent: `row` or `group <column>`."""


class Comparison(Part):
    """Challenger minus champion, paired on the same rows."""

    difference: Finite
    """Difference of the AUCs."""
    error: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    """Its standard error (paired DeLong)."""


class Decision(Document):
    """The verdict on a challenger, with every reason; create-only."""

    model: str
    """The model."""
    version: str
    """The challenger."""
    logical_date: dt.date
    """The holdout day."""
    manifest_sha256: Sha256
    """Digest of the challenger's manifest."""
    compared_entry: int
    """Sequence of the log entry whose champion it was compared with; 0 if there was none."""
    gate_key: str
    """Fingerprint of the gate's configuration and of the holdout as delivered: another of them is decided anew."""
    verdict: Verdict
    """What the gate says."""
    reasons: tuple[str, ...]
    """Every rule that spoke, in words."""
    minimum_detectable_difference: Finite | None
    """Smallest difference of AUC that this day could have shown."""
    challenger: EvaluationReport
    """The challenger on the holdout."""
    champion: EvaluationReport | None
    """The champion on the holdout."""
    comparison: Comparison | None
    """Their paired difference."""


class LogEntry(Document):
    """The create-only commit: from this entry on, its version is the champion."""

    model: str
    """The model."""
    sequence: Annotated[int, Field(ge=1)]
    """Position in the log; no gaps."""
    operation: Operation
    """What happened."""
    version: str
    """The champion from here on."""
    logical_date: dt.date
    """Its holdout day."""
    manifest_sha256: Sha256
    """Digest of its manifest."""
    decision_sha256: Sha256 | None
    """Digest of the decision that allowed it."""
    compared_entry: int
    """Entry that the decision was made against."""
    attempt: str
    """Random id of this append: its writer recognises a lost answer by it."""
    challenger_auc: Finite | None
    """AUC at the time."""
    champion_auc: Finite | None
    """AUC of the champion before."""
    actor: str
    """Who or what appended."""
    reason: str
    """Why, in words."""
    held: bool = False
    """Whether automatic promotions are on hold from here on; every entry says so, so that the head knows."""
    retired: tuple[str, ...] = ()
    """Versions that nobody may go back to from here on: their files are removed."""
    created_utc: dt.datetime
    """When its writer thought that it was; never used for order."""
