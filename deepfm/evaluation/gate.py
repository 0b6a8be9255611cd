"""The gate: a pure decision over evaluation reports, with every rule that spoke in words and numbers.

Policy `fresh`: a challenger that is not worse goes live, because a model that misses a day of new items loses more AUC
than two trainings on the same data differ by. On the first run there is nothing to be worse than, so the AUC has to
clear `min_auc`, or miss it, by more than its error.

    rule            run     reject                                   inconclusive            else
    figures         every   a figure is missing or out of range
    floor           first   its upper bound below min_auc            its lower bound below   passes
    significance    later   upper bound of the difference below 0                            passes
    drop            later   AUC lower by more than max_drop                                  passes
    floor           later   AUC below min_auc                                                passes
    calibration     every   the whole interval outside its range                             passes
    ceiling         every                                            AUC above max_auc       passes

Any reject wins, then inconclusive, then promote. Bounds are one-sided at `confidence`, so that two of them enclose an
interval of 2 · confidence - 1 (90 % at the default 95 %).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import ValidationError

from deepfm.config import GateConfig
from deepfm.documents import Part
from deepfm.errors import UsageError
from deepfm.manifests import Comparison, EvaluationReport, Verdict
from deepfm.metrics import normal_quantile

DETECTABLE_ERRORS = 2.5
"""A difference of this many standard errors is found 4 times in 5 by a one-sided test at 95 % (1.645 + 0.842)."""
TRUSTED_CLICKS = 10
"""Below it the estimated error is too often too small: a random model passes a 95 % bound with 2 clicks in 20 % of
days, with 5 in 8 %, with 10 in 6 %."""
MAX_SENSIBLE_CLICKS = 1_000_000_000
"""No day brings more, so a larger requirement is not worth its digits."""


class GateResult(NamedTuple):
    """The verdict, its reasons with those that decided first, and the smallest difference this day could show."""

    verdict: Verdict
    reasons: tuple[str, ...]
    minimum_detectable_difference: float | None


class _Finding(NamedTuple):
    """What one rule says about the challenger, and the sentence that says why."""

    verdict: Verdict
    sentence: str


def judge(
    *,
    challenger: EvaluationReport,
    champion: EvaluationReport | None,
    comparison: Comparison | None,
    config: GateConfig,
    obstacle: str | None = None,
) -> GateResult:
    """The verdict on the challenger; the same figures always get the same one.

    Args:
        challenger: its figures on the whole holdout.
        champion: the champion's on the same rows; None on the first run.
        comparison: challenger minus champion, paired; None on the first run.
        config: the limits.
        obstacle: why a champion that exists could not be compared, as a sentence: then nothing is promoted.

    Returns:
        The verdict with one sentence per rule that was applied, the deciding ones first, and the minimum detectable
        difference: 2.5 errors of the difference, or of the AUC on the first run. It is None, and the verdict is
        `reject`, where a figure is not a finite number in its range.

    Raises:
        UsageError: terminal; champion and comparison do not come together, or do not belong to the challenger's rows.
    """
    if (champion is None) != (comparison is None):
        raise UsageError("the gate needs the champion and the comparison, or neither of them")
    broken = [
        *_broken_figures(challenger, owner="challenger"),
        *_broken_figures(champion, owner="champion"),
        *_broken_figures(comparison, owner="comparison"),
    ]
    if broken:
        return _combined(broken, detectable=None, of="")
    if obstacle is not None:
        findings = [_Finding("inconclusive", obstacle), _floor(challenger, config)]
        error, of = challenger.auc_error, "the AUC"
    elif champion is None or comparison is None:
        findings = [_first_floor(challenger, config)]
        error, of = challenger.auc_error, "the AUC"
    else:
        _require_same_rows(challenger, champion, comparison)
        findings = [
            _significance(challenger, champion, comparison, config),
            _drop(comparison, config),
            _floor(challenger, config),
        ]
        error, of = comparison.error, "the difference"
    findings += [_calibration(challenger, config), *_ceiling(challenger, config)]
    return _combined(findings, detectable=DETECTABLE_ERRORS * error, of=of)


def _combined(findings: list[_Finding], *, detectable: float | None, of: str) -> GateResult:
    by_weight: tuple[Verdict, ...] = ("reject", "inconclusive", "promote")
    ordered = sorted(findings, key=lambda finding: by_weight.index(finding.verdict))
    reasons = [finding.sentence for finding in ordered]
    if detectable is not None:
        text, _ = _written(detectable, 0.0)
        reasons.append(
            f"The smallest difference in AUC that this day could have shown is {text} "
            f"({DETECTABLE_ERRORS} times the error of {of})."
        )
    return GateResult(ordered[0].verdict, tuple(reasons), detectable)


def _broken_figures(part: Part | None, *, owner: str) -> list[_Finding]:
    """One rejection per figure that is missing, not finite or out of its range: such a figure never passes."""
    if part is None:
        return []
    figures = part.model_dump(warnings=False)
    broken = {name for name, value in figures.items() if isinstance(value, float) and not math.isfinite(value)}
    try:
        type(part).model_validate(figures)
    except ValidationError as error:
        broken |= {str(problem["loc"][0]) for problem in error.errors()}
    if not broken and isinstance(part, EvaluationReport) and not 0 < part.clicks < part.rows:
        broken = {"clicks"}
    return [
        _Finding("reject", f"The {owner}'s {name} is {figures.get(name)}, required a finite number in its range.")
        for name in sorted(broken)
    ]


def _require_same_rows(challenger: EvaluationReport, champion: EvaluationReport, comparison: Comparison) -> None:
    ours = (challenger.rows, challenger.clicks, challenger.error_unit)
    theirs = (champion.rows, champion.clicks, champion.error_unit)
    if ours != theirs:
        raise UsageError("the champion was measured on other rows", observed=theirs, required=str(ours))
    # A comparison the wrong way round would promote every worse model.
    expected = challenger.auc - champion.auc
    if not math.isclose(comparison.difference, expected, abs_tol=1e-9):
        raise UsageError(
            "the comparison is not challenger minus champion",
            observed=comparison.difference,
            required=f"{expected}",
        )


def _first_floor(challenger: EvaluationReport, config: GateConfig) -> _Finding:
    """The floor without a champion: both bounds on one side of it decide, else the day has too few clicks to tell."""
    reach = normal_quantile(config.confidence) * challenger.auc_error
    auc, floor, low, high = _written(challenger.auc, config.min_auc, challenger.auc - reach, challenger.auc + reach)
    unit = f"errors per {challenger.error_unit}"
    trusted = challenger.clicks >= TRUSTED_CLICKS
    if challenger.auc + reach < config.min_auc and trusted:
        sentence = (
            f"AUC {auc} and its one-sided {_percent(config)} upper bound {high} ({unit}) are below min_auc {floor}."
        )
        return _Finding("reject", f"There is no champion; {sentence}")
    if challenger.auc - reach >= config.min_auc and trusted:
        sentence = (
            f"AUC {auc} and its one-sided {_percent(config)} lower bound {low} ({unit}) are at least min_auc {floor}."
        )
        return _Finding("promote", f"There is no champion; {sentence}")
    if challenger.auc >= config.min_auc:
        bounded = f"its one-sided {_percent(config)} lower bound {low} ({unit})"
        doubt = (
            f"{bounded} is below it"
            if challenger.auc - reach < config.min_auc
            else f"{bounded} rests on too few clicks"
        )
        place = "equals" if challenger.auc == config.min_auc else "is above"
    else:
        bounded = f"its one-sided {_percent(config)} upper bound {high} ({unit})"
        doubt = (
            f"{bounded} reaches it"
            if challenger.auc + reach >= config.min_auc
            else f"{bounded} rests on too few clicks"
        )
        place = "is below"
    return _Finding(
        "inconclusive",
        f"There is no champion; AUC {auc} {place} min_auc {floor}, but {doubt}: "
        f"{_needed_clicks(challenger, config)} positives (clicks) would settle it, the day has {challenger.clicks:,}.",
    )


def _needed_clicks(challenger: EvaluationReport, config: GateConfig) -> str:
    """The clicks at which the bounds would leave the floor: an error shrinks as one over their square root."""
    distance = abs(challenger.auc - config.min_auc)
    reach = normal_quantile(config.confidence) * challenger.auc_error
    needed = challenger.clicks * (reach / distance) ** 2 if distance > 0.0 else math.inf
    if needed > MAX_SENSIBLE_CLICKS:
        return f"more than {MAX_SENSIBLE_CLICKS:,}"
    return f"about {max(math.ceil(needed), TRUSTED_CLICKS):,}"


def _floor(challenger: EvaluationReport, config: GateConfig) -> _Finding:
    auc, floor = _written(challenger.auc, config.min_auc)
    if challenger.auc < config.min_auc:
        return _Finding("reject", f"AUC {auc} is below min_auc {floor}.")
    return _Finding("promote", f"AUC {auc} is at least min_auc {floor}.")


def _ceiling(challenger: EvaluationReport, config: GateConfig) -> Iterator[_Finding]:
    """What is too good to be true; nothing is said of what is not."""
    if challenger.auc > config.max_auc:
        auc, ceiling = _written(challenger.auc, config.max_auc)
        yield _Finding(
            "inconclusive",
            f"AUC {auc} is above max_auc {ceiling}: a column may tell the label. If none does, promote the version "
            "by name or raise max_auc.",
        )


def _significance(
    challenger: EvaluationReport, champion: EvaluationReport, comparison: Comparison, config: GateConfig
) -> _Finding:
    reach = normal_quantile(config.confidence) * comparison.error
    upper = comparison.difference + reach
    auc, standard = _written(challenger.auc, champion.auc)
    size, lower_text, upper_text, _ = _written(abs(comparison.difference), comparison.difference - reach, upper, 0.0)
    direction = "above" if comparison.difference > 0.0 else "below"
    relation = f"is {size} {direction}" if comparison.difference != 0.0 else "equals"
    measured = (
        f"AUC {auc} {relation} the champion's {standard}; the one-sided {_percent(config)} bounds of the difference "
        f"are {lower_text} and {upper_text} (errors per {challenger.error_unit})"
    )
    if upper < 0.0:
        return _Finding("reject", f"{measured}: significantly worse, as the upper bound is below 0.")
    return _Finding("promote", f"{measured}: not significantly worse, which takes an upper bound below 0.")


def _drop(comparison: Comparison, config: GateConfig) -> _Finding:
    size, allowed, _ = _written(abs(comparison.difference), config.max_drop, 0.0)
    if comparison.difference < -config.max_drop:
        return _Finding("reject", f"The AUC drops by {size}, more than max_drop {allowed}.")
    if comparison.difference < 0.0:
        return _Finding("promote", f"The AUC drops by {size}, not more than max_drop {allowed}.")
    return _Finding("promote", f"The AUC does not drop; max_drop {allowed} would be allowed.")


def _calibration(challenger: EvaluationReport, config: GateConfig) -> _Finding:
    """Whether the scores promise about the clicks that came, as far as so many clicks can tell.

    A count of clicks has a relative error of one over its square root; the bounds are the ratio times and over
    exp(z / √clicks), which stays above 0 with few clicks. A ratio outside the range whose interval reaches into it
    does not block: the day has too few clicks to blame the model, and blocking would leave an older one in place.
    """
    ratio = challenger.calibration_ratio
    spread = math.exp(normal_quantile(config.confidence) / math.sqrt(challenger.clicks))
    lower, upper = ratio / spread, ratio * spread
    point, low, high, minimum, maximum = _written(ratio, lower, upper, config.min_calibration, config.max_calibration)
    measured = (
        f"Calibration ratio {point} (scores over clicks; one-sided {_percent(config)} bounds {low} and {high} with "
        f"{challenger.clicks:,} clicks)"
    )
    allowed = f"{minimum} to {maximum}"
    if upper < config.min_calibration or lower > config.max_calibration:
        return _Finding("reject", f"{measured} is wholly outside {allowed}.")
    if config.min_calibration <= ratio <= config.max_calibration:
        return _Finding("promote", f"{measured} is within {allowed}.")
    return _Finding("promote", f"{measured} cannot be told from one within {allowed}, so it does not block.")


def _percent(config: GateConfig) -> str:
    return f"{100.0 * config.confidence:g} %"


def _written(*values: float) -> tuple[str, ...]:
    """The values with four decimals, or as many more as it takes that unequal ones do not look equal."""
    texts: tuple[str, ...] = ()
    for decimals in range(4, 17):
        texts = tuple(f"{value:.{decimals}f}" for value in values)
        if len({float(text) for text in texts}) == len(set(values)):
            break
    return texts
