"""Columns that tell the label are found, and noise is not."""

import numpy as np
import pyarrow as pa
import pytest

from deepfm.discovery.dependence import tells_label
from deepfm.discovery.values import typed


def labels(rows: int, ctr: float) -> np.ndarray:
    clicked = np.zeros(rows, dtype=bool)
    clicked[np.random.default_rng(3).choice(rows, int(rows * ctr), replace=False)] = True
    return clicked


def verdict(values: pa.Array, clicked: np.ndarray):
    return tells_label(typed("a", pa.chunked_array([values]), from_text=False), clicked)


@pytest.mark.parametrize("ctr", [0.005, 0.05, 0.5])
def test_columns_that_tell_the_label_are_found(ctr):
    rng, clicked = np.random.default_rng(0), labels(20_000, ctr)
    leaks = {
        "text for each label": pa.array(np.where(clicked, "yes", "no")),
        "several values for each label": pa.array(np.where(clicked, 10, 0) + rng.integers(0, 5, len(clicked))),
        "a number that is larger": pa.array(rng.normal(size=len(clicked)) + 8.0 * clicked),
        "a number from the middle": pa.array(np.where(clicked, 0.0, rng.choice([-5.0, 5.0], len(clicked)))),
        "text that is right for all but one row in a hundred": pa.array(
            np.where(clicked ^ (rng.random(len(clicked)) < 0.01), "yes", "no")
        ),
        "there only if clicked": pa.array(rng.random(len(clicked)), mask=~clicked),
        "an id only if clicked": pa.array([f"c{n}" for n in range(len(clicked))], mask=~clicked),
    }
    assert {name: bool(verdict(values, clicked).reason) for name, values in leaks.items()} == dict.fromkeys(leaks, True)


@pytest.mark.parametrize(("rows", "ctr"), [(20_000, 0.005), (2_000, 0.005), (2_400, 0.005), (5_000, 0.5)])
def test_noise_is_never_taken_for_a_leak(rows, ctr):
    rng, clicked = np.random.default_rng(1), labels(rows, ctr)
    noise = [
        *(pa.array(rng.integers(0, size, rows)) for size in (2, 5, 30, 300, 3_000, 10**9) for _ in range(8)),
        *(pa.array(rng.normal(size=rows)) for _ in range(20)),
        *(pa.array(rng.random(rows), mask=rng.random(rows) < 0.99) for _ in range(10)),
        *(pa.array(np.minimum(rng.zipf(1.5, rows), 10**6)) for _ in range(10)),
    ]
    found = [verdict(values, clicked) for values in noise]
    assert [verdict.reason for verdict in found if verdict.reason] == []
    assert max(verdict.auc for verdict in found) < 0.9


def test_an_outcome_that_only_clicks_have_is_found_although_its_auc_is_low():
    clicked = labels(20_000, 0.05)
    bought = clicked & (np.random.default_rng(5).random(len(clicked)) < 0.2)
    amount = np.where(bought, np.random.default_rng(6).random(len(clicked)), 0.0)
    for values in (pa.array(bought.astype(np.int64)), pa.array(amount), pa.array(amount, mask=~bought)):
        found = verdict(values, clicked)
        assert found.auc < 0.7
        assert "clicked in all of" in found.reason


def test_a_good_field_is_no_leak():
    rng = np.random.default_rng(7)
    taste = rng.normal(size=200)
    item = rng.integers(0, 200, 20_000)
    clicked = rng.random(20_000) < 1 / (1 + np.exp(3 - 2 * taste[item]))
    assert verdict(pa.array(item), clicked).reason == ""
