"""Losses against their formulas in float64, and far out where a formula overflows."""

import datetime as dt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepfm.config import LossConfig
from deepfm.manifests import WindowDay
from deepfm.training.losses import prior_scale, resolve_pos_weight, row_losses
from tests.factories import manifest

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=20)
BCE = LossConfig()


def losses(logits, labels, *, config=BCE, pos_weight=1.0):
    return row_losses(torch.tensor(logits), torch.tensor(labels), config=config, pos_weight=pos_weight)


def formula(logit: float, label: float, *, config: LossConfig, pos_weight: float) -> float:
    p, q = (1.0 / (1.0 + np.exp(-np.float64(sign * logit))) for sign in (1, -1))
    if config.kind == "bce":
        return -pos_weight * np.log(p) if label else -np.log(q)
    alpha, gamma = config.focal_alpha, config.focal_gamma
    return -alpha * q**gamma * np.log(p) if label else -(1 - alpha) * p**gamma * np.log(q)


@given(LOGITS, st.booleans(), st.floats(0.01, 100))
def test_weighted_cross_entropy_is_its_formula(logits, label, weight):
    found = losses(logits, [float(label)] * len(logits), pos_weight=weight)
    expected = [formula(z, label, config=BCE, pos_weight=weight) for z in logits]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-7)


@given(LOGITS, st.booleans(), st.floats(0.01, 0.99), st.floats(0, 5))
def test_focal_loss_is_its_formula(logits, label, alpha, gamma):
    config = LossConfig(kind="focal", focal_alpha=alpha, focal_gamma=gamma)
    found = losses(logits, [float(label)] * len(logits), config=config)
    expected = [formula(z, label, config=config, pos_weight=1.0) for z in logits]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-7)


def test_focal_loss_without_focus_is_weighted_cross_entropy():
    logits, labels = torch.linspace(-5, 5, 11).tolist(), [1.0, 0.0] * 5 + [1.0]
    focal = losses(logits, labels, config=LossConfig(kind="focal", focal_alpha=0.25, focal_gamma=0.0))
    weighted = losses(logits, labels, pos_weight=0.25 / 0.75) * 0.75
    torch.testing.assert_close(focal, weighted)


@pytest.mark.parametrize("config", [BCE, LossConfig(kind="focal"), LossConfig(kind="focal", focal_gamma=8.0)], ids=str)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_extreme_logits_have_finite_losses_and_gradients(config, label):
    logits = torch.tensor([-1e30, -1e4, -100.0, -17.0, 0.0, 17.0, 100.0, 1e4, 1e30], requires_grad=True)
    found = row_losses(logits, torch.full((9,), label), config=config, pos_weight=3.0)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (found >= 0).all()


def test_being_wrong_costs_more_the_surer_the_score():
    wrong = losses(torch.linspace(-9, 9, 50).tolist(), [0.0] * 50)
    assert (wrong[1:] > wrong[:-1]).all()


def window_of(*days: tuple[int, int, float]):
    return manifest().window.model_copy(
        update={
            "keep_rate": min((rate for *_, rate in days), default=1.0),
            "days": tuple(
                WindowDay(
                    logical_date=dt.date(2026, 3, n + 1), key="k", sampled_rows=rows, clicks=clicks, keep_rate=rate
                )
                for n, (rows, clicks, rate) in enumerate(days)
            ),
        }
    )


def test_auto_balances_what_clicks_and_negatives_weigh():
    window = window_of((100, 20, 0.5), (300, 10, 0.25))
    weight = resolve_pos_weight(LossConfig(pos_weight="auto"), window)
    assert weight * window.clicks == pytest.approx(80 * 0.5 + 290)


@pytest.mark.parametrize(
    ("config", "expected"),
    [(BCE, 1.0), (LossConfig(pos_weight=2.5), 2.5), (LossConfig(kind="focal"), 1.0)],
    ids=["default", "number", "focal"],
)
def test_other_weights_do_not_depend_on_the_window(config, expected):
    assert resolve_pos_weight(config, window_of((100, 20, 0.5))) == expected


@pytest.mark.parametrize("days", [[], [(5, 0, 1.0)], [(5, 5, 1.0)]])
def test_auto_is_a_positive_number_even_without_a_class(days):
    weight = resolve_pos_weight(LossConfig(pos_weight="auto"), window_of(*days))
    assert np.isfinite(weight)
    assert weight > 0


@pytest.mark.parametrize("rate", [0.003, 0.05, 0.4])
def test_the_prior_of_a_balanced_weight_grows_by_half_of_one_plus_it(rate):
    weight = (1.0 - rate) / rate
    scale = prior_scale(LossConfig(pos_weight=weight), pos_weight=weight, rate=rate)
    assert scale == pytest.approx((1.0 + weight) / 2.0, rel=1e-9)


def test_plain_cross_entropy_is_a_likelihood():
    assert prior_scale(LossConfig(), pos_weight=1.0, rate=0.05) == 1.0
    assert prior_scale(LossConfig(), pos_weight=1.0 + 1e-9, rate=0.05) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(("alpha", "gamma", "rate"), [(0.25, 2.0, 0.05), (0.5, 1.0, 0.2), (0.25, 0.0, 0.05)])
def test_the_prior_of_the_focal_loss_is_scaled_by_the_sandwich_at_the_base_rate(alpha, gamma, rate):
    def risk(z):
        return rate * click(z) + (1.0 - rate) * no_click(z)

    def click(z):
        return -alpha * sigmoid(-z) ** gamma * np.log(sigmoid(z))

    def no_click(z):
        return -(1.0 - alpha) * sigmoid(z) ** gamma * np.log(sigmoid(-z))

    def slope(loss, z):
        return (loss(z + 1e-5) - loss(z - 1e-5)) / 2e-5

    grid = np.linspace(-12.0, 4.0, 160_001)
    best = float(grid[np.argmin(risk(grid))])
    variance = rate * slope(click, best) ** 2 + (1.0 - rate) * slope(no_click, best) ** 2
    curvature = (risk(best + 1e-3) - 2.0 * risk(best) + risk(best - 1e-3)) / 1e-6
    config = LossConfig(kind="focal", focal_alpha=alpha, focal_gamma=gamma)
    assert prior_scale(config, pos_weight=1.0, rate=rate) == pytest.approx(variance / curvature, rel=1e-3)


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))
