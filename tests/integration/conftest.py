"""One undisturbed run on a folder that other runs are compared with."""

import pytest
import torch

from deepfm.retraining import retrain
from tests.places import WORLD, Place, Reference, local_place, onnx_of
from tests.tiny_days import HOLDOUT


@pytest.fixture(scope="session")
def one_thread():
    """One torch thread, so that sums come in one order and two tests do not fight for two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reference(one_thread, tmp_path_factory) -> Reference:  # noqa: ARG001 - asked for its effect
    """The undisturbed run."""
    place = local_place(tmp_path_factory.mktemp("reference"))
    for date in WORLD:
        place.deliver(date)
    changes: list[tuple[str, str]] = []
    workspace = place.workspace(tell=lambda *change: changes.append(change))
    outcome = retrain(workspace, HOLDOUT)
    return Reference(place, outcome, onnx_of(workspace, outcome), changes)


@pytest.fixture
def here(one_thread, tmp_path) -> Place:  # noqa: ARG001 - asked for its effect
    """A folder with five delivered days."""
    place = local_place(tmp_path)
    for date in WORLD:
        place.deliver(date)
    return place
