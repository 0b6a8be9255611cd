"""A training that was cut off at any step, however it was configured, ends in the same bytes."""

from typing import Any

import pytest

from deepfm.storage.local import LocalStore
from deepfm.training.checkpoint import ResumeStates
from tests.tiny_days import fit, weights

pytestmark = pytest.mark.usefixtures("one_thread")
CONSTANT: dict[str, Any] = {"training.schedule": "constant"}
SETTINGS: dict[str, dict[str, Any]] = {
    "decay": {},
    "dropout": {"network.dropout": 0.3},
    "plateau": {"training.schedule": "plateau", "training.plateau_patience": 1, "training.eval_every_steps": 1},
    "average of batch norm": {**CONSTANT, "training.average_last": 0.6, "network.batch_norm": True},
    "early stopping": {
        **CONSTANT,
        "training.learning_rate": 0.3,
        "training.patience": 1,
        "training.eval_every_steps": 1,
    },
    "focal": {"loss.kind": "focal", "training.l2_embedding": 10.0, "training.l2_network": 0.01},
}


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_cut_off_at_any_step_ends_in_the_same_bytes(windows, tmp_path, name):
    changes = {"training.checkpoint_every_seconds": 1e-9, "training.batch_size": 48, **SETTINGS[name]}
    window = windows(changes)
    whole = fit(window)
    last_step = whole.steps
    assert last_step >= 2
    for kill_at in range(1, last_step + 1):
        states = ResumeStates(LocalStore(tmp_path / str(kill_at)), "training")

        def kill(step: int, _: int, kill_at: int = kill_at) -> None:
            if step == kill_at:
                raise Killed

        with pytest.raises(Killed):
            fit(window, states=states, progress=kill)
        resumed_at: list[int] = []
        resumed = fit(window, states=states, progress=lambda step, _, seen=resumed_at: seen.append(step))
        assert resumed_at[0] == kill_at
        assert weights(resumed) == weights(whole)
        assert resumed.curve == whole.curve
        assert resumed[1:-1] == whole[1:-1]


def test_a_training_killed_twice_ends_in_the_same_bytes(windows, tmp_path):
    window = windows({"training.checkpoint_every_seconds": 1e-9, "network.dropout": 0.2})
    whole = fit(window)
    states = ResumeStates(LocalStore(tmp_path), "training")
    for kill_at in (5, 11):

        def kill(step: int, _: int, kill_at: int = kill_at) -> None:
            if step == kill_at:
                raise Killed

        with pytest.raises(Killed):
            fit(window, states=states, progress=kill)
    assert weights(fit(window, states=states)) == weights(whole)
