"""The flow `retrain` on a real, temporary Prefect server."""

import asyncio
import datetime as dt
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pytest

from deepfm.errors import ConfigError, DataRejectedError, StoreUnavailableError
from tests.tiny_days import HOLDOUT, click_day
from tests.tiny_toml import write_toml

if TYPE_CHECKING:
    from deepfm.workspace import Workspace

GOLDEN = Path(__file__).parents[1] / "golden" / "flows" / "retrain.json"


@pytest.fixture(scope="module")
def prefect_server():
    """A server for this module, without heartbeats, which would only slow it down."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture
def arguments(here, prefect_server):  # noqa: ARG001 - the server has to run
    """What the flow gets for the tiny days."""
    return {"config": str(write_toml(here.folder, source=here.source, store=here.store)), "logical_date": HOLDOUT}


def artifact(key: str) -> str:
    from prefect.artifacts import Artifact

    found = asyncio.run(Artifact.aget(key))
    assert found is not None
    return str(found.data)


def test_a_retrain_promotes_and_leaves_its_verdict_as_an_artifact(arguments, here):
    from flows.retrain import retrain

    outcome = retrain(**arguments)
    assert outcome.status == "promoted"
    assert here.workspace().registry.head().version == outcome.version
    text = artifact("tiny-verdict")
    assert outcome.version in text
    assert "is the new champion" in text
    assert f"{outcome.challenger_auc:.4f}" in text
    assert retrain(**arguments) == outcome
    assert len(here.workspace().registry.entries()) == 1


def test_a_refused_day_fails_the_flow_and_names_the_rules(arguments, here):
    from flows.retrain import retrain

    table = click_day(HOLDOUT)
    index = table.schema.get_field_index("click")
    here.deliver(HOLDOUT, table.set_column(index, "click", pa.array([0] * len(table), pa.int64())))
    with pytest.raises(DataRejectedError, match="both_classes"):
        retrain(**arguments)
    assert "both\\_classes" in artifact("tiny-verdict")
    assert here.workspace().registry.head() is None


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("error", "tries"), [(StoreUnavailableError("no answer"), 2), (ConfigError("no such bucket"), 1)]
)
def test_only_errors_that_can_pass_are_tried_again(monkeypatch, error, tries):
    from prefect import flow

    from flows import tasks

    monkeypatch.setattr(tasks, "RETRY_DELAYS_SECONDS", [0.0, 0.0, 0.0])
    calls = []

    def stage(workspace: object) -> str:
        calls.append(workspace)
        if len(calls) == 1:
            raise error
        return "done"

    @flow
    def once() -> str:
        return tasks.StageTasks().call(stage, cast("Workspace", None))

    if tries == 1:
        with pytest.raises(ConfigError):
            once()
    else:
        assert once() == "done"
    assert len(calls) == tries


def test_the_form_of_the_flow_is_pinned():
    from flows.retrain import retrain

    schema = json.dumps(retrain.parameters.model_dump(), indent=2, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(schema)
    assert GOLDEN.read_text() == schema
    assert '"format": "date"' in schema  # a calendar in the form


@pytest.mark.parametrize(
    ("scheduled", "zone", "expected"),
    [
        ("2026-03-29T02:30:00+00:00", "Europe/Berlin", "2026-03-28"),  # the night the clocks go forward
        ("2026-10-24T22:30:00+00:00", "Europe/Berlin", "2026-10-24"),  # half past midnight there
        ("2026-03-01T05:00:00+00:00", "America/New_York", "2026-02-28"),
        ("2024-03-01T11:00:00+00:00", "Pacific/Kiritimati", "2024-03-01"),
        ("2026-01-01T04:00:00+00:00", "UTC", "2025-12-31"),
    ],
)
def test_the_logical_date_is_that_of_the_schedule(monkeypatch, scheduled, zone, expected):
    from flows import logical_date
    from tests.tiny_days import tiny_config

    class Run:
        scheduled_start_time = dt.datetime.fromisoformat(scheduled)

    monkeypatch.setattr(logical_date, "flow_run", Run)
    config = tiny_config({"time_zone": zone})
    assert logical_date.resolve_logical_date(None, config) == dt.date.fromisoformat(expected)
    assert logical_date.resolve_logical_date(HOLDOUT, config) == HOLDOUT
