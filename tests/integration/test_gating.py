"""What a decision depends on: the two versions, the gate, and the holdout as it was delivered."""

import numpy as np
import pyarrow as pa
import pytest

from deepfm import layout
from deepfm.retraining import RunOutcome, retrain
from tests.places import ROWS, YESTERDAY, Killed
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
