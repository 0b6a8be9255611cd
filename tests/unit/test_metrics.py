"""Metrics against slow oracles that are obviously right, and against what must hold for any data."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from deepfm import metrics
from deepfm.errors import UndefinedMetricError


def beats(click: float, negative: float) -> float:
    return 1.0 if click > negative else 0.5 if click == negative else 0.0


def auc_by_pairs(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    pairs = product(scores[labels == 1], scores[labels == 0])
    return float(np.mean([beats(click, negative) for click, negative in pairs]))


def gauc_by_loop(
    scores: NDArray[np.floating], labels: NDArray[np.integer], groups: NDArray[np.integer]
) -> tuple[float, float]:
    total, weight = 0.0, 0
    for group in set(groups.tolist()):
        inside = groups == group
        if len(set(labels[inside].tolist())) == 2:
            total += inside.sum() * auc_by_pairs(scores[inside], labels[inside])
            weight += int(inside.sum())
    return total / weight, weight / len(scores)


def structural_components(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """One component per row: of a click over all negatives, of a negative over all clicks."""
    clicks, negatives = scores[labels == 1], scores[labels == 0]
    return np.array(
        [
            np.mean([beats(score, other) for other in negatives])
            if label == 1
            else np.mean([beats(other, score) for other in clicks])
            for score, label in zip(scores, labels, strict=True)
        ]
    )


def delong_by_definition(components: list[NDArray[np.float64]], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Covariance of the AUCs of several models, as DeLong et al. print it: S10 / m + S01 / n."""
    clicks = np.array([c[labels == 1] for c in components])
    negatives = np.array([c[labels == 0] for c in components])
    return np.atleast_2d(np.cov(clicks)) / clicks.shape[1] + np.atleast_2d(np.cov(negatives)) / negatives.shape[1]


def obuchowski_by_definition(
    component: NDArray[np.float64], labels: NDArray[np.integer], groups: NDArray[np.integer]
) -> float:
    """Variance of a clustered AUC with the loops of Obuchowski (1997), cluster by cluster."""
    auc = component[labels == 1].mean()
    m, n = int((labels == 1).sum()), int((labels == 0).sum())
    s10 = s01 = s11 = 0.0
    with_clicks = with_negatives = clusters = 0
    for group in set(groups.tolist()):
        clicks = component[(groups == group) & (labels == 1)]
        negatives = component[(groups == group) & (labels == 0)]
        first, second = clicks.sum() - clicks.size * auc, negatives.sum() - negatives.size * auc
        s10, s01, s11 = s10 + first**2, s01 + second**2, s11 + first * second
        clusters += 1
        with_clicks += clicks.size > 0
        with_negatives += negatives.size > 0
    s10 *= with_clicks / ((with_clicks - 1) * m)
    s01 *= with_negatives / ((with_negatives - 1) * n)
    s11 *= clusters / (clusters - 1)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


def tied_day(
    seed: int, rows: int = 60, *, levels: int = 6
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.uint64]]:
    """Scores with heavy ties, labels with both classes, and groups whose ids differ only beyond float64."""
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, levels, rows) / levels).astype(np.float32)
    labels = (rng.random(rows) < 0.15 + 0.4 * scores).astype(np.int64)
    labels[:2], labels[2:4] = 1, 0
    groups = np.uint64(2**63) + rng.integers(0, 9, rows).astype(np.uint64)
    groups[:4] = np.uint64(2**63) + np.arange(4, dtype=np.uint64)
    return scores, labels, groups


seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=40, deadline=None)


@given(seed=seeds, levels=st.integers(1, 40))
@quick
def test_auc_counts_pairs_with_ties_as_one_half(seed: int, levels: int) -> None:
    scores, labels, _ = tied_day(seed, levels=levels)
    assert metrics.auc(scores, labels) == pytest.approx(auc_by_pairs(scores, labels), abs=1e-12)


def test_auc_agrees_with_sklearn_at_a_low_click_rate() -> None:
    rng = np.random.default_rng(3)
    labels = rng.random(50_000) < 0.005
    scores = np.round(rng.normal(labels * 0.8), 2)
    assert metrics.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_of_equal_scores_is_one_half_and_of_a_perfect_order_one() -> None:
    labels = np.array([0, 0, 1, 1])
    assert metrics.auc(np.zeros(4), labels) == 0.5
    assert metrics.auc(np.array([0.0, 1.0, 2.0, 3.0]), labels) == 1.0
    assert metrics.auc(np.array([-0.0, 5.0, 0.0, 5.0]), np.array([0, 1, 1, 0])) == 0.5


@given(seed=seeds)
@quick
def test_auc_depends_on_the_order_only(seed: int) -> None:
    scores, labels, _ = tied_day(seed)
    shuffled = np.random.default_rng(seed).permutation(scores.size)
    expected = metrics.auc(scores, labels)
    assert metrics.auc(np.exp(3.0 * scores.astype(np.float64)) - 7.0, labels) == expected
    assert metrics.auc(scores[shuffled], labels[shuffled]) == expected
    assert metrics.auc(np.tile(scores, 3), np.tile(labels, 3)) == pytest.approx(expected, abs=1e-12)


@given(seed=seeds)
@quick
def test_auc_of_flipped_labels_or_scores_is_its_complement(seed: int) -> None:
    scores, labels, _ = tied_day(seed)
    expected = pytest.approx(1.0 - metrics.auc(scores, labels), abs=1e-12)
    assert metrics.auc(scores, 1 - labels) == expected
    assert metrics.auc(-scores, labels) == expected


@given(
    pairs=st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.booleans()), min_size=2, max_size=30)
)
@quick
def test_auc_is_exact_for_any_finite_scores(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    assume(0 < labels.sum() < labels.size)
    assert metrics.auc(scores, labels) == pytest.approx(auc_by_pairs(scores, labels.astype(int)), abs=1e-12)


@given(seed=seeds, levels=st.integers(1, 40))
@quick
def test_gauc_is_the_weighted_loop_over_users(seed: int, levels: int) -> None:
    scores, labels, groups = tied_day(seed, levels=levels)
    labels[[0, 1]], groups[[0, 1]] = [0, 1], groups[0]
    value, coverage = metrics.gauc(scores, labels, groups)
    expected_value, expected_coverage = gauc_by_loop(scores, labels, groups)
    assert value == pytest.approx(expected_value, abs=1e-12)
    assert coverage == pytest.approx(expected_coverage, abs=1e-12)


def test_gauc_of_one_group_is_the_auc() -> None:
    scores, labels, groups = tied_day(5)
    one = np.zeros_like(groups)
    assert metrics.gauc(scores, labels, one) == pytest.approx((metrics.auc(scores, labels), 1.0))


def test_gauc_ignores_how_much_users_differ() -> None:
    scores, labels, groups = tied_day(8)
    offsets = 1000.0 * (groups - groups.min()).astype(np.float64)
    shifted = scores.astype(np.float64) + offsets
    assert metrics.gauc(shifted, labels, groups).value == pytest.approx(metrics.gauc(scores, labels, groups).value)
    assert metrics.auc(shifted, labels) != pytest.approx(metrics.auc(scores, labels), abs=0.01)


def test_gauc_leaves_one_class_users_out_of_value_and_coverage() -> None:
    scores = np.array([0.1, 0.9, 0.9, 0.2, 0.5])
    labels = np.array([0, 1, 1, 1, 0])
    groups = np.array([7, 7, 8, 8, 9])
    assert metrics.gauc(scores, labels, groups) == (1.0, 0.4)


@given(seed=seeds, levels=st.integers(2, 40))
@quick
def test_error_by_row_is_delong_by_definition(seed: int, levels: int) -> None:
    scores, labels, _ = tied_day(seed, levels=levels)
    expected = delong_by_definition([structural_components(scores, labels)], labels)[0, 0]
    estimate = metrics.auc_error(scores, labels)
    assert estimate.auc == metrics.auc(scores, labels)
    assert estimate.error == pytest.approx(math.sqrt(expected), abs=1e-12)


@given(seed=seeds)
@quick
def test_error_by_group_is_obuchowski_by_definition(seed: int) -> None:
    scores, labels, groups = tied_day(seed)
    expected = obuchowski_by_definition(structural_components(scores, labels), labels, groups)
    assert metrics.auc_error(scores, labels, groups=groups).error == pytest.approx(math.sqrt(expected), abs=1e-9)


@given(seed=seeds)
@quick
def test_groups_of_one_row_change_nothing(seed: int) -> None:
    scores, labels, _ = tied_day(seed)
    alone = np.random.default_rng(seed).permutation(scores.size)
    by_group = metrics.auc_error(scores, labels, groups=alone)
    assert by_group == pytest.approx(metrics.auc_error(scores, labels), abs=1e-12)


@given(seed=seeds)
@quick
def test_paired_error_counts_the_covariance(seed: int) -> None:
    first, labels, groups = tied_day(seed)
    second = np.round(first + np.random.default_rng(seed).normal(0.0, 0.2, first.size), 1).astype(np.float32)
    paired = metrics.paired_auc(first, second, labels)
    components = [structural_components(first, labels), structural_components(second, labels)]
    covariance = delong_by_definition(components, labels)
    variance = covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1]
    assert paired.challenger == metrics.auc_error(first, labels)
    assert paired.champion == metrics.auc_error(second, labels)
    assert paired.difference == paired.challenger.auc - paired.champion.auc
    assert paired.error == pytest.approx(math.sqrt(max(0.0, variance)), abs=1e-9)

    by_group = metrics.paired_auc(first, second, labels, groups=groups)
    difference = components[0] - components[1]
    expected = obuchowski_by_definition(difference, labels, groups)
    assert by_group.error == pytest.approx(math.sqrt(max(0.0, expected)), abs=1e-9)
    assert by_group.champion == metrics.auc_error(second, labels, groups=groups)


@given(seed=seeds)
@quick
def test_models_that_rank_alike_differ_by_exactly_nothing(seed: int) -> None:
    scores, labels, groups = tied_day(seed)
    alike = np.exp(scores.astype(np.float64))
    for chosen in (None, groups):
        paired = metrics.paired_auc(alike, scores, labels, groups=chosen)
        assert (paired.difference, paired.error) == (0.0, 0.0)


def test_paired_difference_changes_its_sign_with_the_order() -> None:
    scores, labels, groups = tied_day(2)
    other = scores[::-1].copy()
    there, back = (metrics.paired_auc(*pair, labels, groups=groups) for pair in ((scores, other), (other, scores)))
    assert there.difference == -back.difference != 0.0
    assert there.error == pytest.approx(back.error, abs=1e-15)


def test_only_the_error_by_group_covers_where_users_differ() -> None:
    """300 days of 150 users, each with an appeal that the score sees: plain DeLong claims too much."""
    rng = np.random.default_rng(11)
    users, rows_a_user, z = 150, 12, metrics.normal_quantile(0.975)
    groups = np.repeat(np.arange(users), rows_a_user)
    aucs, by_row, by_group = [], [], []
    for _ in range(300):
        appeal = rng.normal(0.0, 1.5, users)[groups]
        seen = rng.normal(0.0, 1.5, users)[groups] + 0.5 * appeal
        labels = rng.random(groups.size) < 1.0 / (1.0 + np.exp(1.5 - appeal))
        aucs.append(metrics.auc(seen, labels))
        by_row.append(metrics.auc_error(seen, labels).error)
        by_group.append(metrics.auc_error(seen, labels, groups=groups).error)
    misses = np.abs(np.array(aucs) - np.mean(aucs))
    assert 0.92 <= np.mean(misses <= z * np.array(by_group)) <= 0.98
    assert np.mean(misses <= z * np.array(by_row)) < 0.75
    assert np.mean(by_group) == pytest.approx(np.std(aucs), rel=0.1)


@given(seed=seeds)
@quick
def test_log_loss_agrees_with_sklearn(seed: int) -> None:
    scores, labels, _ = tied_day(seed)
    exact = scores.astype(np.float64)
    assert metrics.log_loss(exact, labels) == pytest.approx(sklearn_log_loss(labels, exact), rel=1e-12)
    assert metrics.log_loss(scores, labels) == metrics.log_loss(exact, labels)


def test_a_certain_and_wrong_score_costs_a_finite_amount() -> None:
    assert metrics.log_loss(np.array([0.0]), np.array([1])) == pytest.approx(36.04, abs=0.01)
    assert metrics.log_loss(np.array([1.0], np.float32), np.array([0])) == pytest.approx(36.04, abs=0.01)
    assert metrics.log_loss(np.array([0.0, 1.0]), np.array([0, 1])) == pytest.approx(0.0, abs=1e-15)


def test_normalised_entropy_of_the_mean_rate_is_one() -> None:
    labels = np.array([0, 0, 0, 1])
    assert metrics.normalised_entropy(np.full(4, 0.25), labels) == pytest.approx(1.0)
    assert metrics.normalised_entropy(np.array([0.1, 0.1, 0.1, 0.7]), labels) < 1.0
    assert metrics.normalised_entropy(np.full(4, 0.5), labels) > 1.0


def test_calibration_ratio_is_promised_over_actual_clicks() -> None:
    labels = np.array([0, 0, 1, 1])
    assert metrics.calibration_ratio(np.full(4, 0.75, np.float32), labels) == 1.5
    assert metrics.calibration_ratio(labels.astype(np.float64), labels) == 1.0


def test_a_calibration_sum_of_many_float32_scores_is_not_rounded_away() -> None:
    labels = np.zeros(3_000_000, bool)
    labels[:30_000] = True
    assert metrics.calibration_ratio(np.full(labels.size, 0.01, np.float32), labels) == pytest.approx(1.0, abs=1e-6)


def test_normal_quantile_is_that_of_the_tables() -> None:
    assert metrics.normal_quantile(0.5) == 0.0
    assert metrics.normal_quantile(0.95) == pytest.approx(1.6448536269514722)
    assert metrics.normal_quantile(0.975) == pytest.approx(1.959963984540054)


GROUPS = np.array([1, 1, 2, 2])
RANKING: list[Callable[..., object]] = [
    metrics.auc,
    metrics.auc_error,
    lambda scores, labels: metrics.gauc(scores, labels, np.resize(GROUPS, scores.size)),
    lambda scores, labels: metrics.paired_auc(scores, np.zeros(scores.size), labels),
    lambda scores, labels: metrics.paired_auc(np.zeros(scores.size), scores, labels),
]
LIKELIHOOD: list[Callable[..., object]] = [metrics.log_loss, metrics.normalised_entropy, metrics.calibration_ratio]


@pytest.mark.parametrize("figure", RANKING + LIKELIHOOD)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused(figure: Callable[..., object], bad: float) -> None:
    with pytest.raises(UndefinedMetricError, match="1 scores are not finite"):
        figure(np.array([0.5, 0.2, bad, 0.3]), np.array([0, 1, 0, 1]))


@pytest.mark.parametrize("figure", RANKING)
@pytest.mark.parametrize("labels", [np.zeros(4, int), np.ones(4, bool)])
def test_one_class_defines_no_ranking(figure: Callable[..., object], labels: NDArray[np.integer]) -> None:
    with pytest.raises(UndefinedMetricError, match="undefined"):
        figure(np.array([0.1, 0.2, 0.3, 0.4]), labels)


@pytest.mark.parametrize("figure", RANKING + LIKELIHOOD)
def test_no_rows_define_nothing(figure: Callable[..., object]) -> None:
    with pytest.raises(UndefinedMetricError, match="at least one row"):
        figure(np.zeros(0), np.zeros(0, int))


@pytest.mark.parametrize("figure", RANKING + LIKELIHOOD)
@pytest.mark.parametrize("labels", [np.array([0, 1, 2, 1]), np.array([0.0, 1.0, np.nan, 1.0]), np.array([0, 1, -1, 0])])
def test_a_label_other_than_zero_and_one_is_refused(figure: Callable[..., object], labels: NDArray[np.integer]) -> None:
    with pytest.raises(UndefinedMetricError, match="1 labels are neither 0 nor 1"):
        figure(np.array([0.1, 0.2, 0.3, 0.4]), labels)


@pytest.mark.parametrize("scores", [np.zeros((4, 1)), np.zeros(3)])
def test_scores_of_another_shape_are_refused(scores: NDArray[np.floating]) -> None:
    with pytest.raises(UndefinedMetricError, match=r"scores of shape .* labels of shape \(4,\)"):
        metrics.auc(scores, np.array([0, 1, 0, 1]))


@pytest.mark.parametrize("groups", [np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0, 4.0]), np.array([[1, 2, 3, 4]])])
def test_groups_are_one_integer_a_row(groups: NDArray[np.integer]) -> None:
    with pytest.raises(UndefinedMetricError, match="required 4 integers"):
        metrics.auc_error(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1]), groups=groups)


def test_gauc_needs_a_group_with_both_classes() -> None:
    with pytest.raises(UndefinedMetricError, match="no group with clicks and negatives"):
        metrics.gauc(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 0, 1, 1]), GROUPS)


def test_one_independent_click_has_no_error() -> None:
    with pytest.raises(UndefinedMetricError, match="1 independent unit"):
        metrics.auc_error(np.array([0.1, 0.2, 0.3]), np.array([0, 0, 1]))
    with pytest.raises(UndefinedMetricError, match="1 independent unit"):
        metrics.auc_error(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 1, 0]), groups=np.array([1, 2, 2, 3]))


def test_two_independent_clicks_and_negatives_have_an_error() -> None:
    scores, labels = np.array([0.1, 0.3, 0.2, 0.4]), np.array([0, 0, 1, 1])
    expected = delong_by_definition([structural_components(scores, labels)], labels)[0, 0]
    assert metrics.auc_error(scores, labels).error == pytest.approx(math.sqrt(expected))


@pytest.mark.parametrize("figure", [metrics.log_loss, metrics.normalised_entropy, metrics.calibration_ratio])
@pytest.mark.parametrize("bad", [-0.01, 1.01])
def test_likelihoods_take_probabilities_only(figure: Callable[..., float], bad: float) -> None:
    with pytest.raises(UndefinedMetricError, match=r"probabilities in \[0, 1\]"):
        figure(np.array([0.5, bad]), np.array([0, 1]))


def test_no_clicks_have_neither_calibration_nor_normalised_entropy() -> None:
    scores, labels = np.array([0.1, 0.2]), np.array([0, 0])
    assert metrics.log_loss(scores, labels) == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    with pytest.raises(UndefinedMetricError, match="no clicks"):
        metrics.calibration_ratio(scores, labels)
    with pytest.raises(UndefinedMetricError, match="0 clicks in 2 rows"):
        metrics.normalised_entropy(scores, labels)
