"""One undisturbed run on a folder that other runs are compared with, and a Prefect server."""

from collections.abc import Iterator

import pytest
import torch

from deepfm import layout
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

    def tell(operation: str, key: str) -> None:
        if layout.model_probes_prefix("tiny") not in key:
            changes.append((operation, key))

    workspace = place.workspace(tell=tell)
    outcome = retrain(workspace, HOLDOUT)
    return Reference(place, outcome, onnx_of(workspace, outcome), changes)


@pytest.fixture
def here(one_thread, tmp_path) -> Place:  # noqa: ARG001 - asked for its effect
    """A folder with five delivered days."""
    place = local_place(tmp_path)
    for date in WORLD:
        place.deliver(date)
    return place


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory) -> Iterator[None]:
    """A temporary Prefect server for a module, without heartbeats, which cost time, and nothing in the user's home."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    settings = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOCAL_STORAGE_PATH: tmp_path_factory.mktemp("prefect"),
    }
    with prefect_test_harness(server_startup_timeout=120), temporary_settings(settings):
        yield
