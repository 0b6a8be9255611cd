"""The training loop against the same thing spelled out, and what each of its settings does."""

import json
import os
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from deepfm.config import RetrainConfig, VocabularyConfig
from deepfm.data.partitions import RawBatch
from deepfm.data.sampling import group_hashes
from deepfm.data.shards import ShardRows
from deepfm.data.window import held_back
from deepfm.errors import ConfigError, TrainingError, WindowError
from deepfm.metrics import auc
from deepfm.training import loop
from deepfm.training.loop import Trainer, new_model, resolve_device
from deepfm.training.losses import row_losses
from deepfm.training.memory import memory_errors
from tests.tiny_days import (
    CPU,
    DAYS,
    HOLDOUT,
    TinyWindow,
    click_day,
    fit,
    tiny_config,
    tiny_window,
    weights,
    with_column,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_curve.json"
ROWS = 100
pytestmark = pytest.mark.usefixtures("one_thread")
ALONE: dict[str, Any] = {"training.validation_share": 0.0}
CONSTANT: dict[str, Any] = {"training.schedule": "constant"}


def test_the_same_training_twice_gives_the_same_bytes_and_another_seed_others(windows):
    first, second, other = (fit(windows(changes)) for changes in ({}, {}, {"training.seed": 1}))
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"network.dropout": 0.5},
        {"network.batch_norm": True},
        {"network.hidden": []},
        {"network.embedding_dim": 3},
        {"training.l2_embedding": 10.0},
        {"training.l2_network": 0.1},
        {"training.schedule": "constant"},
        {"training.schedule": "plateau", "training.plateau_patience": 0, "training.eval_every_steps": 1},
        {"training.schedule": "constant", "training.average_last": 0.5},
        {"training.epochs": 1},
        {"training.batch_size": 16},
        {"training.learning_rate": 0.01},
        {"training.embedding_learning_rate": 0.01},
        {"loss.kind": "focal"},
        {"loss.pos_weight": "auto"},
        {"vocabulary.oov_rate": 0.3},
    ],
    ids=str,
)
def test_every_setting_trains_and_makes_a_difference(windows, changes):
    base, changed = fit(windows()), fit(windows(changes))
    assert all(torch.isfinite(tensor).all() for tensor in changed.model.state_dict().values())
    assert weights(base) != weights(changed)
    assert changed.curve[-1].train_loss < 1.2
    assert not changed.model.training


def id_counts(window: TinyWindow) -> torch.Tensor:
    """How many training rows of an epoch are expected to hold each row of the table, counted one by one; at least 1."""
    sizes = list(window.window.vocabulary_sizes.values())
    counts = torch.zeros(sum(sizes))
    whole = window._replace(config=window.config.model_copy(update={"vocabulary": VocabularyConfig(oov_rate=0.0)}))
    for batch in whole.rows().epoch(0, batch_size=1, device=CPU):
        for field, local in enumerate(batch.ids[0].tolist()):
            counts[sum(sizes[:field]) + local] += 1
    moved = window.config.vocabulary.oov_rate
    for first, size in zip(accumulate(sizes, initial=0), sizes, strict=False):
        known = float(counts[first + 1 : first + size].sum())
        counts[first + 1 : first + size] *= 1.0 - moved
        counts[first] += moved * known
    return counts.clamp(min=1)


def plain_loop(window: TinyWindow) -> torch.nn.Module:
    """The training spelled out: torch's reference Adam, parameter by parameter, with a rate that falls to zero."""
    config = window.config
    torch.manual_seed(config.training.seed)
    model = new_model(window.window, config)
    counts = id_counts(window)
    adam = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate, foreach=False, fused=False)
    rows = window.rows()
    planned = rows.training_rows // 32 * config.training.epochs
    step = 0
    for epoch in range(config.training.epochs):
        for batch in rows.epoch(epoch, batch_size=32, device=CPU):
            adam.param_groups[0]["lr"] = config.training.learning_rate * (1 - step / planned)
            losses = row_losses(model(batch.ids, batch.numeric), batch.labels, config=config.loss, pos_weight=1.0)
            loss = (losses * batch.weights).mean()
            loss = loss + 0.5 * config.training.l2_network * sum(
                (weight**2).sum() for name, weight in model.deep.named_parameters() if name.endswith("weight")
            )
            rows_of = batch.ids + model.offsets
            squares = (model.embedding.weight[rows_of] ** 2).sum(2) + model.first_order.weight[rows_of, 0] ** 2
            loss = loss + 0.5 * config.training.l2_embedding * (squares / counts[rows_of]).sum() / len(rows_of)
            adam.zero_grad()
            loss.backward()
            adam.step()
            step += 1
    return model


@pytest.mark.parametrize(
    "changes", [{}, {"training.l2_network": 0.05, "training.l2_embedding": 5.0}], ids=["plain", "l2"]
)
def test_the_fast_optimiser_follows_the_plain_one(windows, changes):
    window = windows(ALONE | changes)
    fitted, plain = fit(window), plain_loop(window)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(fitted.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_ten_steps_follow_the_golden_curve(windows):
    """Proof that a change of the loop, the batches or the model changed no number; UPDATE_GOLDEN=1 rewrites it."""
    changes = {"training.eval_every_steps": 1}
    curve = [point.train_loss for point in fit(windows(changes)).curve[:10]]
    if os.environ.get("UPDATE_GOLDEN") == "1":
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(json.dumps(curve, indent=2) + "\n", encoding="utf-8")
    assert len(curve) == 10
    assert curve == pytest.approx(json.loads(GOLDEN.read_text(encoding="utf-8")), abs=1e-5)


def test_decay_falls_linearly_to_zero(windows):
    fitted = fit(windows({"training.eval_every_steps": 1}))
    rates = [point.learning_rate for point in fitted.curve]
    assert rates == pytest.approx([0.02 * (1 - step / fitted.planned_steps) for step in range(fitted.planned_steps)])


def test_plateau_lowers_the_rates_after_checks_without_gain(windows):
    changes = {"training.schedule": "plateau", "training.plateau_patience": 0, "training.eval_every_steps": 1}
    curve = fit(windows(changes)).curve
    rate, best = 0.02, 0.0
    for point in curve:
        assert point.learning_rate == pytest.approx(rate)
        assert point.validation_auc is not None
        if point.validation_auc > best * (1 + 1e-4):
            best = point.validation_auc
        elif rate * 0.9 > 1e-8:  # torch makes no smaller change
            rate *= 0.1
    assert rate < 0.02


def test_averaging_ships_the_mean_of_the_last_weights(windows):
    window = windows({**ALONE, **CONSTANT, "training.average_last": 0.5})
    trainer = Trainer(window.rows(), window.window, window.config)
    seen: list[dict[str, torch.Tensor]] = []
    fitted = trainer.fit(
        progress=lambda *_: seen.append({name: t.clone() for name, t in trainer._model.state_dict().items()})
    )
    last = seen[len(seen) // 2 :]
    assert len(last) == fitted.planned_steps - fitted.planned_steps // 2
    for name, tensor in fitted.model.state_dict().items():
        torch.testing.assert_close(tensor, torch.stack([state[name] for state in last]).mean(0), rtol=1e-4, atol=1e-6)


def test_averaging_leaves_large_offsets_exact(windows):
    window = windows()
    model = new_model(window.window, window.config)
    model.offsets.copy_(torch.tensor([2**24 + 1, 2**40 + 1]))
    average = loop._averaged(model)
    for _ in range(3):
        average.update_parameters(model)
    assert dict(average.module.named_buffers())["offsets"].tolist() == [2**24 + 1, 2**40 + 1]


def spoiled_late(trainer: Trainer, *, after: int, rate: float = 3.0) -> Callable[[int, int], None]:
    """A rate so large from some step on that the model gets worse."""

    def raise_rate(step: int, _: int) -> None:
        if step == after:
            for group in trainer._optimizer.param_groups:
                group["lr"] = rate

    return raise_rate


def test_early_stopping_restores_the_best_weights(windows):
    changes = {"training.epochs": 8, "training.patience": 2, "training.eval_every_steps": 4, **CONSTANT}
    window = windows({**changes, "training.validation_share": 0.3})
    trainer = Trainer(window.rows(), window.window, window.config)
    fitted = trainer.fit(progress=spoiled_late(trainer, after=16))
    assert fitted.steps < fitted.planned_steps
    assert fitted.best_step <= 16
    best = max(fitted.curve, key=lambda point: point.validation_auc or 0.0)
    assert fitted.best_step == best.step
    held = window.rows().validation_slice(device=CPU)
    with torch.no_grad():
        scores = fitted.model(held.batch.ids, held.batch.numeric).numpy().astype(np.float64)
    assert auc(scores, held.labels) == pytest.approx(best.validation_auc)
    assert auc(scores, held.labels) > (fitted.curve[-1].validation_auc or 1.0)


def test_patience_is_the_number_of_clearly_worse_checks(windows):
    stops = []
    for patience in (1, 3):
        changes = {"training.epochs": 8, "training.eval_every_steps": 2, "training.validation_share": 0.3, **CONSTANT}
        window = windows({**changes, "training.patience": patience})
        trainer = Trainer(window.rows(), window.window, window.config)
        stops.append(trainer.fit(progress=spoiled_late(trainer, after=16)).steps)
    assert stops[0] < stops[1]


def test_noise_between_checks_ships_the_last_weights(windows):
    changes = {"training.eval_every_steps": 1, "training.validation_share": 0.3, "training.patience": 1}
    fitted = fit(windows({**changes, "training.epochs": 6}))
    assert fitted.best_step == fitted.steps == fitted.planned_steps
    scores = [point.validation_auc or 0.0 for point in fitted.curve]
    assert sum(score < best for score, best in zip(scores, np.maximum.accumulate(scores), strict=True)) > 1


def test_training_without_a_held_back_share_has_a_curve_of_losses_only(windows):
    fitted = fit(windows(ALONE))
    assert fitted.curve
    assert all(point.validation_auc is None and point.validation_loss is None for point in fitted.curve)


def test_the_curve_has_the_figures_of_the_held_back_rows(windows):
    window = windows({"training.validation_share": 0.3})
    fitted = fit(window)
    held = window.rows().validation_slice(device=CPU)
    with torch.no_grad():
        logits = fitted.model(held.batch.ids, held.batch.numeric)
    last = fitted.curve[-1]
    assert last.step == fitted.steps
    assert last.validation_auc == pytest.approx(auc(logits.numpy().astype(np.float64), held.labels))
    expected = row_losses(logits, held.batch.labels, config=window.config.loss, pos_weight=1.0) * held.batch.weights
    assert last.validation_loss == pytest.approx(expected.mean().item(), rel=1e-5)
    assert last.validation_gauc is not None


def test_training_learns_what_the_days_tell(tmp_path):
    tables = {date: click_day(date, rows=1500) for date in DAYS}
    fitted = fit(tiny_window(tmp_path, tiny_config({"training.validation_share": 0.2}), tables=tables))
    assert (fitted.curve[-1].validation_auc or 0.0) > 0.75
    assert fitted.curve[-1].train_loss < fitted.curve[0].train_loss


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"training.learning_rate": 1e30}, id="in the middle"),
        pytest.param(
            {"training.learning_rate": 3e38, "training.batch_size": 4096, "training.epochs": 1}, id="last step"
        ),
        pytest.param(
            {"training.embedding_learning_rate": 1e39, "training.batch_size": 4096, "training.epochs": 1, **ALONE},
            id="last step, nothing held back",
        ),
    ],
)
def test_a_training_that_diverges_is_an_error_that_says_where_and_what_to_do(windows, changes):
    with pytest.raises(TrainingError) as caught:
        fit(windows({**CONSTANT, **changes}))
    text = str(caught.value)
    assert text.startswith("training diverged at step ")
    assert f"window of {HOLDOUT}" in text
    assert "Lower training.learning_rate" in text


def test_weights_that_the_last_step_spoiled_are_not_taken_for_noise(windows):
    window = windows({**CONSTANT, "training.eval_every_steps": 2, "training.validation_share": 0.3})
    trainer = Trainer(window.rows(), window.window, window.config)
    with pytest.raises(TrainingError, match="training diverged at step"):
        trainer.fit(progress=spoiled_late(trainer, after=trainer._planned - 1, rate=3e38))


def user_who_is_held_back(config: RetrainConfig) -> str:
    names = [f"solo{n}" for n in range(50)]
    table = with_column(click_day(HOLDOUT, rows=50), "user", pa.array(names))
    nothing = np.zeros(50, dtype=np.uint64)
    groups = group_hashes(RawBatch(0, table.to_batches()[0]), config, rows=nothing)
    rows = ShardRows(
        np.zeros((50, 2), np.int32), np.zeros((50, 1), np.float32), np.zeros(50, np.uint8), groups, nothing
    )
    return names[int(np.flatnonzero(held_back(rows, config, logical_date=HOLDOUT))[0])]


def test_a_window_whose_only_user_is_held_back_is_refused_in_words(tmp_path):
    config = tiny_config({"training.validation_share": 0.49})
    user = user_who_is_held_back(config)
    tables = {date: with_column(click_day(date, rows=40), "user", pa.array([user] * 40)) for date in DAYS}
    with pytest.raises(WindowError, match="has no row to train on"):
        fit(tiny_window(tmp_path, config, tables=tables))


def test_a_held_back_share_of_one_class_stops_nothing(tmp_path):
    config = tiny_config({"training.validation_share": 0.01, "training.validation_by": "row"})
    tables = {date: click_day(date, rows=ROWS) for date in DAYS}
    window = tiny_window(tmp_path, config, tables=tables)
    held = window.rows().validation_slice(device=CPU)
    assert len(set(held.labels.tolist())) < 2
    fitted = fit(window)
    assert fitted.steps == fitted.planned_steps
    assert fitted.curve[-1].validation_auc is None


def test_every_step_is_counted_and_deterministic(windows):
    seen: list[tuple[int, int]] = []
    deterministic: list[bool] = []

    def progress(step: int, planned: int) -> None:
        seen.append((step, planned))
        deterministic.append(torch.are_deterministic_algorithms_enabled())

    fitted = fit(windows(), progress=progress)
    assert seen == [(step, fitted.planned_steps) for step in range(1, fitted.planned_steps + 1)]
    assert all(deterministic)
    assert not torch.are_deterministic_algorithms_enabled()


def test_cuda_is_used_where_it_is_and_refused_where_it_is_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == resolve_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == resolve_device("cuda").type == "cuda"
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    "told", [MemoryError(), RuntimeError("CUDA out of memory. Tried"), RuntimeError("alloc_cpu: can't allocate memory")]
)
def test_a_lack_of_memory_is_told_in_one_line_with_what_to_do(told):
    window = SimpleNamespace(logical_date="2026-03-04")
    words = r"ran out of memory .*2026-03-04.* Lower training\.batch_size"
    with pytest.raises(TrainingError, match=words), memory_errors(window):  # type: ignore[arg-type]
        raise told
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(window):  # type: ignore[arg-type]
        raise RuntimeError("shapes do not match")
