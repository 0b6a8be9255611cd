"""What a decision depends on: the two versions, the gate, and the holdout as it was delivered."""

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch

from deepfm import layout
from deepfm.errors import IntegrityError, NotFoundError, ParityError
from deepfm.export import graph
from deepfm.export.graph import build_onnx
from deepfm.promotion import Operator
from deepfm.retraining import RunOutcome, retrain
from tests.places import ROWS, WORLD, YESTERDAY, Killed
from tests.tiny_days import HOLDOUT, click_day, with_column


def shuffled() -> pa.Table:
    table = click_day(HOLDOUT, rows=ROWS)
    return with_column(table, "click", pa.array(np.random.default_rng(3).permutation(table["click"].to_numpy())))


def test_a_cleared_decision_on_another_delivery_of_the_holdout_promotes_nothing(here):
    changes = {"gate.min_auc": 0.6}

    def kill_before_the_log(_: str, key: str) -> None:
        if key == layout.log_entry("tiny", 1):
            raise Killed

    with pytest.raises(Killed):
        retrain(here.workspace(changes, tell=kill_before_the_log), HOLDOUT)
    here.deliver(HOLDOUT, shuffled())
    assert retrain(here.workspace(changes), HOLDOUT).status == "not_promoted"
    assert here.workspace().registry.head() is None


def test_a_holdout_that_is_delivered_again_is_decided_again(here):
    changes = {"gate.min_auc": 0.6}
    right = click_day(HOLDOUT, rows=ROWS)
    here.deliver(HOLDOUT, shuffled())
    first = retrain(here.workspace(changes), HOLDOUT)
    assert first.status == "not_promoted"
    here.deliver(HOLDOUT, right)
    again = retrain(here.workspace(changes), HOLDOUT)
    assert (again.status, again.version) == ("promoted", first.version)


def test_a_champion_with_a_field_more_is_still_compared(here):
    retrain(here.workspace(), YESTERDAY)
    outcome = retrain(here.workspace({"fields.price": None}), HOLDOUT)
    assert outcome.champion_auc is not None
    assert outcome.verdict in {"promote", "reject"}


def test_a_champion_whose_field_is_no_longer_delivered_is_an_obstacle_by_name(here):
    retrain(here.workspace(), YESTERDAY)
    table = click_day(HOLDOUT, rows=ROWS)
    here.deliver(HOLDOUT, table.drop_columns(["price"]))
    outcome = retrain(here.workspace({"fields.price": None}), HOLDOUT)
    assert (outcome.verdict, outcome.champion_auc) == ("inconclusive", None)
    assert "(price)" in outcome.reasons[0]


def test_two_runs_of_the_same_date_make_one_entry(here):
    won: list[RunOutcome] = []

    def let_the_twin_win(operation: str, key: str) -> None:
        if operation == "create" and key == layout.log_entry("tiny", 1) and not won:
            won.append(retrain(here.workspace(), HOLDOUT))

    outcome = retrain(here.workspace(tell=let_the_twin_win), HOLDOUT)
    assert outcome == won[0]
    assert len(here.workspace().registry.entries()) == 1


def test_a_holdout_on_which_nothing_can_be_said_is_inconclusive(here):
    table = click_day(HOLDOUT, rows=ROWS)
    clicks = np.zeros(ROWS, dtype=np.int64)
    clicks[0] = 1
    here.deliver(HOLDOUT, with_column(table, "click", pa.array(clicks)))
    outcome = retrain(here.workspace(), HOLDOUT)
    assert (outcome.status, outcome.verdict, outcome.challenger_auc) == ("not_promoted", "inconclusive", None)
    assert outcome.reasons


def test_a_column_that_tells_the_label_makes_no_champion(here):
    first = retrain(here.workspace(), YESTERDAY)
    for date in WORLD:
        table = click_day(date, rows=ROWS)
        here.deliver(date, with_column(table, "price", pa.array(table["click"].to_numpy() * 9.0 + 1.0)))
    outcome = retrain(here.workspace({"training.epochs": 20}), HOLDOUT)
    assert outcome.challenger_auc is not None
    assert outcome.challenger_auc > 0.98
    assert (outcome.status, outcome.verdict) == ("not_promoted", "inconclusive")
    assert "a column may tell the label" in outcome.reasons[0]
    registry = here.workspace().registry
    assert registry.champion().version == first.version
    change = Operator(here.workspace().store, "tiny", actor="ann", reason="looked at it").promote(outcome.version or "")
    assert change.changed


def test_a_first_champion_is_told_in_its_entry_to_have_had_nobody_to_beat(here):
    outcome = retrain(here.workspace(), HOLDOUT)
    (entry,) = here.workspace().registry.entries()
    assert (entry.version, entry.champion_auc, entry.compared_entry) == (outcome.version, None, 0)
    assert entry.reason.startswith("There is no champion; AUC ")


@pytest.mark.parametrize("damage", ["gone", "cut", "no model"])
def test_a_champion_that_cannot_be_scored_is_not_beaten_by_that(here, damage):
    first = retrain(here.workspace(), YESTERDAY)
    store, prefix = here.workspace().store, layout.version_prefix("tiny", first.version or "")
    (key,) = (found.key for found in store.list(prefix) if found.key.endswith(layout.MODEL_FILE))
    data = store.read(key)
    if damage == "gone":
        store.delete(key)
    else:
        store.write(key, data[:-1] if damage == "cut" else b"no model".ljust(len(data)))
    with pytest.raises((NotFoundError, IntegrityError)):
        retrain(here.workspace(), HOLDOUT)
    assert [entry.version for entry in here.workspace().registry.entries()] == [first.version]
    store.write(key, data)
    assert retrain(here.workspace(), HOLDOUT).champion_auc is not None


def other_weights(model, spec):
    """The file of another network than the one that was trained."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
        data = build_onnx(model, spec)
        for parameter in model.parameters():
            parameter.sub_(0.5)
    return data


def of_a_later_runtime(model, spec):
    """A file that says that it needs a runtime which there is not yet."""
    file = onnx.load_from_string(build_onnx(model, spec))
    file.ir_version = 99
    return file.SerializeToString()


@pytest.mark.parametrize(
    ("made", "error"), [(other_weights, ParityError), (of_a_later_runtime, IntegrityError)], ids=lambda p: p.__name__
)
def test_a_file_that_is_not_the_trained_model_or_does_not_load_is_not_published(here, monkeypatch, made, error):
    monkeypatch.setattr(graph, "build_onnx", made)
    with pytest.raises(error):
        retrain(here.workspace(), HOLDOUT)
    registry = here.workspace().registry
    assert (registry.versions(), registry.head()) == ([], None)
    assert not [key for key in here.objects() if key.endswith(layout.MODEL_FILE)]
    monkeypatch.undo()
    assert retrain(here.workspace(), HOLDOUT).status == "promoted"
