"""The curves of a scored day: exact at their points, few whatever the rows, and the same for the same scores."""

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepfm.config import GateConfig
from deepfm.curves import CALIBRATION_BINS, MAX_ROC_POINTS, MAX_SCORE_BINS, Curves, ModelCurves
from deepfm.evaluation.curves import curves_of
from deepfm.evaluation.holdout import HoldoutScores
from deepfm.manifests import Partition, ValidationReport
from deepfm.metrics import auc

DAY = dt.date(2026, 3, 4)


def curves(*columns, labels) -> Curves:
    clicks = int(labels.sum())
    report = ValidationReport(
        model="m",
        logical_date=DAY,
        key="k",
        partition=Partition(logical_date=DAY, files=(), fingerprint="f"),
        accepted=True,
        rows=labels.size,
        quarantined_rows=0,
        valid_rows=labels.size,
        clicks=clicks,
        findings=(),
        files={},
    )
    scores = HoldoutScores(labels, None, tuple(column.astype(np.float32) for column in columns))
    versions = [f"v{index}" for index in range(len(columns))]
    return curves_of(scores, report, versions=versions, compared_entry=len(columns) - 1, gate=GateConfig())


def area(model: ModelCurves) -> float:
    """Under the straight lines between the points."""
    negatives, clicks = np.array(model.roc_negatives), np.array(model.roc_clicks)
    return float(np.trapezoid(clicks / clicks[-1], negatives / negatives[-1]))


def world(rows: int, *, seed: int = 0, rate: float = -4.6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = 1.0 / (1.0 + np.exp(-rng.normal(rate, 1.0, rows)))
    return scores, (rng.random(rows) < scores).astype(np.uint8)


@st.composite
def days(draw):
    rows = draw(st.integers(2, 60))
    labels = draw(arrays(np.uint8, rows, elements=st.integers(0, 1)))
    labels[:2] = 0, 1
    return draw(arrays(np.float32, rows, elements=st.floats(0, 1, width=32))), labels


@given(days())
def test_every_point_counts_the_rows_at_or_above_a_score(day):
    scores, labels = day
    model = curves(scores, labels=labels).challenger
    possible = {(0, 0)} | {
        (int((labels[scores >= t] == 0).sum()), int((labels[scores >= t] == 1).sum())) for t in scores
    }
    points = list(zip(model.roc_negatives, model.roc_clicks, strict=True))
    assert set(points) <= possible
    assert points == sorted(set(points))
    assert points[-1] == (int((labels == 0).sum()), int((labels == 1).sum()))
    if labels.size < 60:  # so few rows are all thresholds: the whole curve is there
        assert set(points) == possible
        assert area(model) == pytest.approx(auc(scores, labels), abs=1e-6)


@given(days())
def test_bins_hold_every_row_once_and_enclose_their_rates(day):
    scores, labels = day
    made = curves(scores, labels=labels)
    bins = made.challenger.calibration
    assert (sum(b.rows for b in bins), sum(b.clicks for b in bins)) == (labels.size, labels.sum())
    assert [b.mean_score for b in bins] == sorted(b.mean_score for b in bins)
    assert all(0.0 <= b.low <= b.click_rate <= b.high <= 1.0 and b.low < b.high for b in bins)
    assert sum(made.challenger.negatives_by_score) == (labels == 0).sum()
    assert sum(made.challenger.clicks_by_score) == labels.sum()
    assert len(made.challenger.clicks_by_score) <= MAX_SCORE_BINS


@given(days(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_but_the_rounding_of_means(day, random):
    scores, labels = day
    order = list(range(labels.size))
    random.shuffle(order)
    one, other = curves(scores, labels=labels), curves(scores[order], labels=labels[order])
    assert one.challenger.roc_clicks == other.challenger.roc_clicks
    assert [b.rows for b in one.challenger.calibration] == [b.rows for b in other.challenger.calibration]
    assert one.challenger.negatives_by_score == other.challenger.negatives_by_score


def test_a_large_day_is_thinned_evenly_and_to_a_small_document():
    scores, labels = world(300_000)
    made = curves(scores, labels=labels)
    model = made.challenger
    assert len(model.roc_clicks) <= MAX_ROC_POINTS
    assert np.diff(np.array(model.roc_clicks) / labels.sum()).max() < 0.011
    assert np.diff(np.array(model.roc_negatives) / (labels == 0).sum()).max() < 0.011
    assert area(model) == pytest.approx(auc(scores, labels), abs=0.0005)
    assert len(model.calibration) == CALIBRATION_BINS
    assert {b.rows for b in model.calibration} == {15_000}
    assert len(made.to_bytes()) < 40_000
    assert curves(scores, labels=labels).to_bytes() == made.to_bytes()


def test_calibrated_scores_lie_in_their_intervals_and_inflated_ones_above_them():
    scores, labels = world(300_000)
    right, inflated = (curves(s, labels=labels).challenger.calibration for s in (scores, np.minimum(1, 2 * scores)))
    assert sum(b.low <= b.mean_score <= b.high for b in right) >= 17
    assert all(b.high < b.mean_score for b in inflated)


def test_two_models_share_one_grid_that_both_fit_on():
    scores, labels = world(5_000)
    made = curves(scores, np.clip(scores**2, 0, 1), labels=labels)
    assert made.champion is not None
    assert len(made.champion.clicks_by_score) == len(made.challenger.clicks_by_score)
    edges = made.logit_start + made.logit_width * np.arange(len(made.challenger.clicks_by_score) + 1)
    logits = np.log(scores) - np.log1p(-scores)
    expected, _ = np.histogram(logits[labels == 1], edges)
    assert np.abs(expected - np.array(made.challenger.clicks_by_score)).sum() <= 2  # float32 moves a row at an edge
    assert (made.compared_entry, made.holdout_key, made.gate["min_auc"]) == (1, "k", 0.55)


@pytest.mark.parametrize("score", [0.0, 1.0, 0.5])
def test_one_score_for_every_row_is_one_bin_of_each_kind(score):
    labels = np.array([0, 1, 0, 0], np.uint8)
    model = curves(np.full(4, score), labels=labels).challenger
    assert (model.roc_negatives, model.roc_clicks) == ((0, 3), (0, 1))
    assert (len(model.calibration), model.clicks_by_score) == (1, (1,))
