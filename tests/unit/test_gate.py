"""The gate: its truth table, what must hold for any figures, and what its sentences say."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm import metrics
from deepfm.config import GateConfig
from deepfm.errors import UsageError
from deepfm.evaluation.gate import TRUSTED_CLICKS, GateResult, judge
from deepfm.manifests import Comparison, EvaluationReport, Verdict

FIGURES: dict[str, Any] = {
    "version": "2026-11-23-0123456789abcdef",
    "rows": 100_000,
    "clicks": 2_500,
    "auc": 0.7421,
    "auc_error": 0.004,
    "gauc": 0.66,
    "gauc_coverage": 0.4,
    "log_loss": 0.11,
    "normalised_entropy": 0.92,
    "calibration_ratio": 1.0,
    "error_unit": "row",
}
CONFIG = GateConfig(
    confidence=0.95, min_auc=0.55, max_auc=1.0, max_drop=0.005, min_calibration=0.8, max_calibration=1.25
)
Z = metrics.normal_quantile(0.95)


def report(**changes: object) -> EvaluationReport:
    return EvaluationReport.model_validate(FIGURES | changes)


def first_run(challenger: EvaluationReport, config: GateConfig = CONFIG) -> GateResult:
    return judge(challenger=challenger, champion=None, comparison=None, config=config)


def later_run(
    challenger: EvaluationReport, *, champion_auc: float, error: float, config: GateConfig = CONFIG
) -> GateResult:
    champion = challenger.model_copy(update={"auc": champion_auc, "version": "2026-11-22-0123456789abcdef"})
    comparison = Comparison(difference=challenger.auc - champion_auc, error=error)
    return judge(challenger=challenger, champion=champion, comparison=comparison, config=config)


@pytest.mark.parametrize(
    ("auc", "error", "clicks", "verdict"),
    [
        (0.7421, 0.004, 2_500, "promote"),
        (0.5600, 0.004, 2_500, "promote"),
        (0.5600, 0.0060, 2_500, "promote"),  # bound .55013
        (0.5600, 0.0061, 2_500, "inconclusive"),  # bound .54997
        (0.5600, 0.045, 40, "inconclusive"),
        (0.5500, 0.0, 2_500, "promote"),
        (0.5500, 0.001, 2_500, "inconclusive"),
        (0.5499, 0.001, 2_500, "inconclusive"),
        (0.5499, 0.2, 2_500, "inconclusive"),
        (0.5065, 0.045, 43, "inconclusive"),
        (0.5475, 0.001, 2_500, "reject"),
        (0.5000, 0.004, 2_500, "reject"),
        (0.4000, 0.004, 2_500, "reject"),
        (0.0, 0.0, 2_500, "reject"),
        (1.0, 0.0, 2_500, "promote"),
        (1.0, 0.0, TRUSTED_CLICKS, "promote"),
        (1.0, 0.0, TRUSTED_CLICKS - 1, "inconclusive"),
        (0.9, 0.001, 2, "inconclusive"),
        (0.5, 0.001, 2, "inconclusive"),
    ],
)
def test_first_run(auc: float, error: float, clicks: int, verdict: Verdict) -> None:
    result = first_run(report(auc=auc, auc_error=error, clicks=clicks))
    assert result.verdict == verdict
    assert result.minimum_detectable_difference == 2.5 * error


@pytest.mark.parametrize(
    ("auc", "champion_auc", "error", "verdict", "because"),
    [
        (0.7421, 0.7390, 0.0026, "promote", "not significantly worse"),
        (0.7421, 0.7421, 0.0026, "promote", "not significantly worse"),
        (0.7421, 0.7421, 0.0, "promote", "not significantly worse"),
        (0.7421, 0.7000, 0.0001, "promote", "not significantly worse"),
        (0.7400, 0.7430, 0.0026, "promote", "not significantly worse"),
        (0.7400, 0.7430, 0.0019, "promote", "not significantly worse"),  # upper bound +.0001
        (0.7400, 0.7430, 0.0018, "reject", ": significantly worse"),  # upper bound -.00004
        (0.7400, 0.7401, 0.00001, "reject", ": significantly worse"),
        (0.7400, 0.7449, 0.0200, "promote", "not more than max_drop"),
        (0.7400, 0.7451, 0.0200, "reject", "more than max_drop"),
        (0.7400, 0.7900, 0.2000, "reject", "more than max_drop"),
        (0.7400, 0.7900, 0.0010, "reject", ": significantly worse"),
        (0.5499, 0.5400, 0.0026, "reject", "below min_auc"),
        (0.5500, 0.5400, 0.0026, "promote", "at least min_auc"),
        (0.5000, 0.5000, 0.0000, "reject", "below min_auc"),
    ],
)
def test_later_run(auc: float, champion_auc: float, error: float, verdict: Verdict, because: str) -> None:
    result = later_run(report(auc=auc), champion_auc=champion_auc, error=error)
    assert result.verdict == verdict
    assert any(because in reason for reason in result.reasons)
    assert result.minimum_detectable_difference == 2.5 * error
    if verdict == "reject":
        assert because in result.reasons[0] or because in result.reasons[1]


@pytest.mark.parametrize(
    ("ratio", "clicks", "verdict", "because"),
    [
        (1.0, 2_500, "promote", "is within"),
        (0.8, 2_500, "promote", "is within"),
        (1.25, 2_500, "promote", "is within"),
        (1.29, 2_500, "promote", "cannot be told from"),  # lower bound 1.248
        (1.30, 2_500, "reject", "wholly outside"),  # lower bound 1.258
        (0.775, 2_500, "promote", "cannot be told from"),  # upper bound .8009
        (0.77, 2_500, "reject", "wholly outside"),  # upper bound .796
        (1.55, 50, "promote", "cannot be told from"),
        (1.65, 50, "reject", "wholly outside"),
        (3.0, 3, "promote", "cannot be told from"),
        (4.0, 3, "reject", "wholly outside"),
        (0.0, 3, "reject", "wholly outside"),
        (-1.0, 2_500, "reject", "wholly outside"),
    ],
)
def test_calibration_is_judged_as_far_as_the_clicks_can_tell(
    ratio: float, clicks: int, verdict: Verdict, because: str
) -> None:
    result = later_run(report(calibration_ratio=ratio, clicks=clicks), champion_auc=0.74, error=0.002)
    assert result.verdict == verdict
    assert [because in reason for reason in result.reasons if "Calibration ratio" in reason] == [True]


def test_calibration_interval_holds_a_calibrated_model_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    edge = [int(rng.poisson(200)) for _ in range(2_000)]
    rejected = [
        later_run(report(calibration_ratio=250 / clicks, clicks=clicks), champion_auc=0.74, error=0.002).verdict
        for clicks in edge  # 250 promised, 200 expected: exactly at the limit of 1.25
    ].count("reject")
    assert rejected / len(edge) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(
    ("auc", "error", "ratio", "verdict"),
    [
        (0.56, 0.045, 1.0, "inconclusive"),
        (0.56, 0.045, 3.0, "reject"),
        (0.50, 0.045, 3.0, "reject"),
        (0.70, 0.004, 3.0, "reject"),
        (0.70, 0.004, 1.28, "promote"),
        (0.56, 0.045, 1.28, "inconclusive"),
    ],
)
def test_reject_outweighs_inconclusive_outweighs_promote(
    auc: float, error: float, ratio: float, verdict: Verdict
) -> None:
    assert first_run(report(auc=auc, auc_error=error, calibration_ratio=ratio)).verdict == verdict


def test_deciding_reasons_come_first_and_passing_rules_speak_too() -> None:
    reasons = later_run(report(auc=0.73, calibration_ratio=2.0), champion_auc=0.7421, error=0.002).reasons
    order = ["significantly worse", "max_drop", "wholly outside", "min_auc", "smallest difference"]
    assert [phrase in reason for phrase, reason in zip(order, reasons, strict=True)] == [True] * 5
    uncertain = first_run(report(auc=0.56, auc_error=0.045)).reasons
    assert ["positives" in reason for reason in uncertain] == [True, False, False]


def test_a_small_day_names_the_clicks_that_would_settle_it() -> None:
    result = first_run(report(rows=5_000, clicks=40, auc=0.56, auc_error=0.045, calibration_ratio=1.1))
    needed = math.ceil(40 * (Z * 0.045 / (0.56 - 0.55)) ** 2)
    assert result.verdict == "inconclusive"
    assert f"about {needed:,} positives (clicks) would settle it, the day has 40" in result.reasons[0]
    settled = 0.045 * math.sqrt(40 / needed)
    assert first_run(report(rows=900_000, clicks=needed, auc=0.56, auc_error=settled)).verdict == "promote"


def test_an_auc_at_the_floor_needs_more_clicks_than_any_day_has() -> None:
    reason = first_run(report(auc=0.55, auc_error=0.01)).reasons[0]
    assert "AUC 0.5500 equals min_auc 0.5500" in reason
    assert "more than 1,000,000,000 positives" in reason


def test_too_few_clicks_to_trust_an_error_are_named() -> None:
    reason = first_run(report(auc=1.0, auc_error=0.0, clicks=3)).reasons[0]
    assert "rests on too few clicks" in reason
    assert f"about {TRUSTED_CLICKS} positives (clicks) would settle it, the day has 3" in reason


def test_shuffled_labels_are_not_promoted() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random(20_000), rng.permutation(np.arange(20_000) < 600)
    estimate = metrics.auc_error(scores, labels)
    shuffled = report(rows=20_000, clicks=600, auc=estimate.auc, auc_error=estimate.error)
    assert first_run(shuffled).verdict == "reject"
    assert later_run(shuffled, champion_auc=0.7, error=0.01).verdict == "reject"
    assert first_run(shuffled, GateConfig(min_auc=0.5)).verdict != "promote"


def test_a_random_model_seldom_passes_the_first_run_whatever_the_clicks() -> None:
    rng = np.random.default_rng(1)
    config = GateConfig(min_auc=0.5)
    for clicks in (2, 5, 10, 40):
        labels = np.arange(400) < clicks
        passed = 0
        for _ in range(400):
            estimate = metrics.auc_error(rng.random(400), labels)
            passed += (
                first_run(report(rows=400, clicks=clicks, auc=estimate.auc, auc_error=estimate.error), config).verdict
                == "promote"
            )
        assert passed <= 0.09 * 400


@pytest.mark.parametrize("unit", ["row", "group user_id"])
def test_reasons_say_what_the_error_counts_as_independent(unit: str) -> None:
    challenger = report(error_unit=unit)
    assert f"(errors per {unit})" in first_run(challenger).reasons[0]
    assert f"(errors per {unit})" in later_run(challenger, champion_auc=0.739, error=0.0026).reasons[0]


def test_reasons_of_a_later_run_read_well() -> None:
    assert "\n".join(later_run(report(), champion_auc=0.739, error=0.0026).reasons) == (
        "AUC 0.7421 is 0.0031 above the champion's 0.7390; the one-sided 95 % bounds of the difference are -0.0012 and "
        "0.0074 (errors per row): not significantly worse, which takes an upper bound below 0.\n"
        "The AUC does not drop; max_drop 0.0050 would be allowed.\n"
        "AUC 0.7421 is at least min_auc 0.5500.\n"
        "Calibration ratio 1.0000 (scores over clicks; one-sided 95 % bounds 0.9676 and 1.0334 with 2,500 clicks) is "
        "within 0.8000 to 1.2500.\n"
        "The smallest difference in AUC that this day could have shown is 0.0065 (2.5 times the error of the "
        "difference)."
    )


def test_unequal_figures_never_look_equal() -> None:
    below = later_run(report(auc=0.549996), champion_auc=0.549996, error=0.001).reasons[0]
    assert below == "AUC 0.549996 is below min_auc 0.550000."
    tiny = later_run(report(auc=0.742096), champion_auc=0.7421, error=0.0).reasons[0]
    assert tiny.startswith("AUC 0.742096 is 0.000004 below the champion's 0.742100;")


def test_small_figures_keep_their_digits_in_every_sentence() -> None:
    reasons = later_run(report(auc=0.742096), champion_auc=0.7421, error=0.00001).reasons
    assert reasons[1] == "The AUC drops by 0.000004, not more than max_drop 0.005000."
    assert "could have shown is 0.00003 (" in reasons[-1] or "could have shown is 0.00002 (" in reasons[-1]


def test_an_equal_auc_is_called_equal() -> None:
    reasons = later_run(report(), champion_auc=0.7421, error=0.002).reasons
    assert reasons[0].startswith("AUC 0.7421 equals the champion's 0.7421;")
    assert reasons[1] == "The AUC does not drop; max_drop 0.0050 would be allowed."


def test_a_drop_of_exactly_max_drop_passes() -> None:
    wide = CONFIG.model_copy(update={"max_drop": 0.125})
    assert later_run(report(auc=0.625), champion_auc=0.75, error=0.2, config=wide).verdict == "promote"
    assert later_run(report(auc=0.625), champion_auc=0.7501, error=0.2, config=wide).verdict == "reject"


def test_confidence_is_written_and_used() -> None:
    strict = CONFIG.model_copy(update={"confidence": 0.999})
    challenger = report(auc=0.56, auc_error=0.005)
    assert first_run(challenger).verdict == "promote"
    assert first_run(challenger, strict).verdict == "inconclusive"
    assert "99.9 %" in first_run(challenger, strict).reasons[0]
    assert later_run(report(auc=0.740), champion_auc=0.744, error=0.002).verdict == "reject"
    assert later_run(report(auc=0.740), champion_auc=0.744, error=0.002, config=strict).verdict == "promote"


@pytest.mark.parametrize(("auc", "verdict"), [(0.98, "promote"), (0.9801, "inconclusive"), (1.0, "inconclusive")])
def test_what_is_too_good_waits_for_a_person(auc: float, verdict: Verdict) -> None:
    config = GateConfig()
    challenger = report(auc=auc, auc_error=0.0001)
    for result in (
        first_run(challenger, config),
        later_run(challenger, champion_auc=0.7, error=0.001, config=config),
    ):
        assert result.verdict == verdict
        assert ("a column may tell the label" in result.reasons[0]) is (verdict == "inconclusive")
    worse = report(auc=0.99, auc_error=0.0001)
    assert later_run(worse, champion_auc=1.0, error=0.001, config=config).verdict == "reject"


# Steps of 1e-9: two AUCs of one day differ by at least half a pair, never by the last bit.
aucs = st.integers(0, 10**9).map(lambda step: step / 10**9)
errors = st.integers(0, 10**9 // 2).map(lambda step: step / 10**9)
ratios = st.floats(0.0, 5.0)
counts = st.integers(1, 99_999)


@given(auc=aucs, better=aucs, champion_auc=aucs, own=errors, error=errors, ratio=ratios, clicks=counts)
@settings(max_examples=150, deadline=None)
def test_a_higher_auc_never_turns_promote_into_anything_else(
    *, auc: float, better: float, champion_auc: float, own: float, error: float, ratio: float, clicks: int
) -> None:
    low, high = (
        report(auc=value, auc_error=own, calibration_ratio=ratio, clicks=clicks) for value in sorted((auc, better))
    )
    if first_run(low).verdict == "promote":
        assert first_run(high).verdict == "promote"
    if later_run(low, champion_auc=champion_auc, error=error).verdict == "promote":
        assert later_run(high, champion_auc=champion_auc, error=error).verdict == "promote"


@given(auc=aucs, champion_auc=aucs, own=errors, error=errors, ratio=ratios, clicks=counts)
@settings(max_examples=150, deadline=None)
def test_every_rule_leaves_one_whole_sentence_with_numbers(
    *, auc: float, champion_auc: float, own: float, error: float, ratio: float, clicks: int
) -> None:
    challenger = report(auc=auc, auc_error=own, calibration_ratio=ratio, clicks=clicks)
    results = first_run(challenger), later_run(challenger, champion_auc=champion_auc, error=error)
    assert [len(result.reasons) for result in results] == [3, 5]
    for reason in (reason for result in results for reason in result.reasons):
        assert re.fullmatch(r"[A-Z].*\d.*\.", reason)
        assert not re.search(r"nan|inf\b|None|-0\.0+\b|  ", reason)


broken_values = st.sampled_from([math.nan, math.inf, -math.inf, None])
report_figures = st.sampled_from(
    ["auc", "auc_error", "log_loss", "normalised_entropy", "calibration_ratio", "gauc", "gauc_coverage"]
)


@given(name=report_figures, value=broken_values, run=st.sampled_from(["first", "challenger", "champion"]))
@settings(max_examples=150, deadline=None)
def test_a_report_with_a_figure_that_is_no_number_is_rejected(name: str, value: float | None, run: str) -> None:
    broken = EvaluationReport.model_construct(**{**FIGURES, name: value})
    same = Comparison(difference=0.0, error=0.002)
    if run == "first":
        result = first_run(broken)
    elif run == "challenger":
        result = judge(challenger=broken, champion=report(), comparison=same, config=CONFIG)
    else:
        result = judge(challenger=report(), champion=broken, comparison=same, config=CONFIG)
    if value is None and name.startswith("gauc"):
        assert result.verdict == "promote"
    else:
        owner = "champion" if run == "champion" else "challenger"
        reason = f"The {owner}'s {name} is {value}, required a finite number in its range."
        assert result == GateResult("reject", (reason,), None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("name", ["difference", "error"])
def test_a_comparison_that_is_no_number_is_rejected(name: str, value: float | None) -> None:
    figures: dict[str, Any] = {"difference": 0.0, "error": 0.002, name: value}
    comparison = Comparison.model_construct(**figures)
    result = judge(challenger=report(), champion=report(), comparison=comparison, config=CONFIG)
    assert result.verdict == "reject"
    assert result.reasons == (f"The comparison's {name} is {value}, required a finite number in its range.",)


@pytest.mark.parametrize(
    ("name", "value"), [("auc", 1.01), ("auc", -0.1), ("auc_error", -0.1), ("clicks", 0), ("clicks", 100_000)]
)
def test_a_figure_out_of_its_range_is_rejected(name: str, value: float) -> None:
    result = first_run(EvaluationReport.model_construct(**{**FIGURES, name: value}))
    assert result.verdict == "reject"
    assert f"challenger's {name} is {value}" in result.reasons[0]


def test_a_report_without_its_auc_is_rejected() -> None:
    partial = {name: value for name, value in FIGURES.items() if name != "auc"}
    assert first_run(EvaluationReport.model_construct(**partial)).verdict == "reject"


@pytest.mark.parametrize("changes", [{"rows": 99_999}, {"clicks": 2_499}, {"error_unit": "group user_id"}])
def test_a_champion_measured_on_other_rows_is_refused(changes: dict[str, object]) -> None:
    comparison = Comparison(difference=0.0, error=0.002)
    with pytest.raises(UsageError, match="other rows"):
        judge(challenger=report(), champion=report(**changes), comparison=comparison, config=CONFIG)


def test_a_comparison_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(UsageError, match="not challenger minus champion"):
        judge(
            challenger=report(auc=0.70),
            champion=report(auc=0.74),
            comparison=Comparison(difference=0.04, error=0.002),
            config=CONFIG,
        )


def test_champion_and_comparison_come_together() -> None:
    comparison = Comparison(difference=0.0, error=0.002)
    with pytest.raises(UsageError, match="neither"):
        judge(challenger=report(), champion=report(), comparison=None, config=CONFIG)
    with pytest.raises(UsageError, match="neither"):
        judge(challenger=report(), champion=None, comparison=comparison, config=CONFIG)
