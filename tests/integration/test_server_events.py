"""What a real, temporary Prefect server hears of: each act once, from a flow or from a plain command line."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deepfm.registry import Registry
from tests.factories import MODEL, VERSION, entry
from tests.fault_store import FakeStore
from tests.sinks import declared, only
from tests.tiny_days import HOLDOUT
from tests.tiny_toml import write_toml

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("prefect_server", "our_sinks")


@pytest.fixture
def our_sinks() -> Iterator[None]:
    """Events go where this package says, installed or not."""
    with only(*(found for found in declared() if found.group == "deepfm.events")):
        yield


def told_of(model: str, *, last: str) -> list[dict[str, Any]]:
    """What the server has of a model in the order in which it happened, once it has an event of that name."""
    from prefect.client.orchestration import get_client

    wanted = {"resource": {"id": [f"deepfm.model.{model}"]}, "order": "ASC"}
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            found = client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
            if last in names(found) or time.monotonic() > deadline:
                return list(found)
            time.sleep(0.2)


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"].removeprefix("deepfm.") for event in events]


def test_each_act_of_a_flow_is_one_event_that_names_its_run(here):
    from flows.champion import promote, rollback
    from flows.retrain import retrain

    config = str(write_toml(here.folder, source=here.source, store=here.store))
    given: dict[str, Any] = {"config": config, "logical_date": HOLDOUT}
    worse: dict[str, Any] = {**given, "overrides": ["training.epochs=1", "gate.min_auc=0.97"]}
    champion = retrain(**given)
    assert retrain(**given) == champion
    challenger = retrain(**worse)
    assert retrain(**worse) == challenger
    assert (champion.status, challenger.verdict) == ("promoted", "reject")
    promote(config, challenger.version, reason="it is better than it looks", force=True)
    rollback(config, reason="it is not")

    told = told_of("tiny", last="champion.rolled_back")
    assert [(name, event["payload"]["version"]) for name, event in zip(names(told), told, strict=True)] == [
        ("champion.promoted", champion.version),
        ("challenger.rejected", challenger.version),
        ("champion.promoted", challenger.version),
        ("champion.rolled_back", champion.version),
    ]
    rejected = told[1]["payload"]
    assert (rejected["challenger_auc"], rejected["champion_auc"]) == (
        challenger.challenger_auc,
        champion.challenger_auc,
    )
    assert rejected["reasons"] == list(challenger.reasons)
    runs = [
        [related["prefect.resource.name"] for related in event["related"] if role(related) == "flow-run"]
        for event in told
    ]
    assert runs == [[f"retrain tiny {HOLDOUT}"]] * 2 + [[f"promote {challenger.version}"], ["roll back"]]


def role(related: dict[str, str]) -> str:
    return related["prefect.resource.role"]


def test_a_plain_process_with_the_address_of_a_server_tells_it():
    from prefect.settings import PREFECT_API_URL

    code = (
        "from deepfm.registry import Registry\nfrom tests.factories import MODEL, entry\n"
        "from tests.fault_store import FakeStore\nfrom tests.sinks import declared, only\n"
        "with only(*(found for found in declared() if found.group == 'deepfm.events')):\n"
        "    Registry(FakeStore(), MODEL).append(entry(1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (event,) = told_of(MODEL, last="champion.promoted")
    assert event["payload"]["version"] == VERSION
    assert event["payload"]["sequence"] == 1


def test_a_server_that_is_away_costs_a_plain_process_one_line(caplog):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    registry, wanted = Registry(FakeStore(), MODEL), entry(1)
    began = time.monotonic()
    with (
        temporary_settings({PREFECT_API_URL: "http://ann:do-not-tell@127.0.0.1:9/api"}),
        caplog.at_level(logging.WARNING, logger="deepfm"),
    ):
        assert registry.append(wanted) == wanted
    assert time.monotonic() - began < 10
    (record,) = [record for record in caplog.records if record.name == "deepfm.events"]
    assert record.getMessage().endswith(f"may not have heard of promote {VERSION}: ConnectError")
    assert "do-not-tell" not in caplog.text
