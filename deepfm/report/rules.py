"""The gate's rules as rows of a table: observed, required, passed or not. The reasons in words are the gate's own."""

import math
from typing import Literal, NamedTuple

from deepfm.config import GateConfig
from deepfm.evaluation.gate import TRUSTED_CLICKS
from deepfm.manifests import Comparison, Decision, EvaluationReport
from deepfm.metrics import normal_quantile

Outcome = Literal["passed", "failed", "undecided"]


class RuleRow(NamedTuple):
    """One rule of the gate as it was applied to one decision."""

    name: str
    key: str
    """Configuration key that sets it."""
    observed: str
    required: str
    outcome: Outcome


def rule_rows(decision: Decision, limits: GateConfig) -> tuple[RuleRow, ...]:
    """The rules that the gate applied: a failed one rejects, an undecided one makes a verdict inconclusive."""
    challenger = decision.challenger
    rows: tuple[RuleRow, ...]
    if decision.champion is None or decision.comparison is None:
        rows = (
            (_incomparable(decision), _floor(challenger, limits))
            if decision.compared_entry
            else (_first_floor(challenger, limits),)
        )
    else:
        rows = (
            _significance(decision.comparison, limits),
            _drop(decision.comparison, limits),
            _floor(challenger, limits),
        )
    return (*rows, _calibration(challenger, limits), _ceiling(challenger, limits))


def _first_floor(challenger: EvaluationReport, limits: GateConfig) -> RuleRow:
    reach = normal_quantile(limits.confidence) * challenger.auc_error
    low, high = challenger.auc - reach, challenger.auc + reach
    trusted = challenger.clicks >= TRUSTED_CLICKS
    outcome: Outcome = "undecided"
    if trusted and low >= limits.min_auc:
        outcome = "passed"
    elif trusted and high < limits.min_auc:
        outcome = "failed"
    return RuleRow(
        "AUC of a first run",
        "gate.min_auc",
        f"{challenger.auc:.4f}, bounds {low:.4f} and {high:.4f}",
        f"lower bound at least {limits.min_auc:.4f}, from {TRUSTED_CLICKS} clicks on",
        outcome,
    )


def _incomparable(decision: Decision) -> RuleRow:
    return RuleRow(
        "Comparison",
        "",
        f"the champion of log entry {decision.compared_entry} could not be scored on this day",
        "both models on the same rows",
        "undecided",
    )


def _significance(comparison: Comparison, limits: GateConfig) -> RuleRow:
    upper = comparison.difference + normal_quantile(limits.confidence) * comparison.error
    return RuleRow(
        "Not significantly worse",
        "gate.confidence",
        f"upper bound of the difference {upper:+.4f}",
        "at least 0",
        "failed" if upper < 0.0 else "passed",
    )


def _drop(comparison: Comparison, limits: GateConfig) -> RuleRow:
    return RuleRow(
        "Drop of AUC",
        "gate.max_drop",
        f"difference {comparison.difference:+.4f}",
        f"at least {-limits.max_drop:+.4f}",
        "failed" if comparison.difference < -limits.max_drop else "passed",
    )


def _floor(challenger: EvaluationReport, limits: GateConfig) -> RuleRow:
    return RuleRow(
        "AUC",
        "gate.min_auc",
        f"{challenger.auc:.4f}",
        f"at least {limits.min_auc:.4f}",
        "failed" if challenger.auc < limits.min_auc else "passed",
    )


def _ceiling(challenger: EvaluationReport, limits: GateConfig) -> RuleRow:
    return RuleRow(
        "AUC that can be believed",
        "gate.max_auc",
        f"{challenger.auc:.4f}",
        f"at most {limits.max_auc:.4f}",
        "undecided" if challenger.auc > limits.max_auc else "passed",
    )


def _calibration(challenger: EvaluationReport, limits: GateConfig) -> RuleRow:
    ratio = challenger.calibration_ratio
    spread = math.exp(normal_quantile(limits.confidence) / math.sqrt(challenger.clicks))
    outside = ratio * spread < limits.min_calibration or ratio / spread > limits.max_calibration
    return RuleRow(
        "Calibration ratio",
        "gate.min_calibration, gate.max_calibration",
        f"{ratio:.3f}, bounds {ratio / spread:.3f} and {ratio * spread:.3f}",
        f"bounds that reach {limits.min_calibration:g} to {limits.max_calibration:g}",
        "failed" if outside else "passed",
    )
