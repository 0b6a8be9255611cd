"""The template of deployments, filled in for a model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deepfm.errors import ConfigError, UsageError
from tests.tiny_days import tiny_config

ROOT = Path(__file__).parents[2]


def rendered(**changes):
    from deployments.apply import render

    given = {"config": Path("m.toml"), "store": None, "at": "06:15", "name": "", "directory": Path()}
    return render(tiny_config().model_copy(update={"time_zone": "Europe/Berlin"}), **{**given, **changes})


def test_every_deployment_has_the_model_its_zone_and_its_place():
    from deployments.apply import wanted_of
    from flows.doctor import DEPLOYMENTS, TRAINING

    found = wanted_of(rendered(store="s3://bucket/prefix"))
    assert set(found) == {*DEPLOYMENTS, TRAINING}
    for name in DEPLOYMENTS:
        assert found[name]["parameters"]["config"] == str(Path("m.toml").absolute())
        assert found[name]["parameters"]["store"] == "s3://bucket/prefix"
        assert found[name]["tags"] == ["model:tiny"]
    assert found["retrain/daily"]["schedules"] == [{"cron": "15 6 * * *", "timezone": "Europe/Berlin"}]
    assert found["backfill/range"]["schedules"][0]["cron"] == "15 8 * * *"
    assert found["backfill/range"]["schedules"][0]["parameters"]["last_days"] == 7
    for name in ("retrain/daily", "backfill/range"):
        assert found[name]["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert "concurrency_limit" not in found["retrain/backfill-day"]
    assert found[TRAINING]["work_pool"]["name"] == "gpu"


def test_a_second_model_has_names_of_its_own_but_for_the_training():
    from deployments.apply import wanted_of

    assert {"retrain/daily-web", "train/gpu"} <= set(wanted_of(rendered(name="web")))


@pytest.mark.parametrize("at", ["04:00", "4:00", "23:59", "22:30"])
def test_no_schedule_lies_where_clocks_are_changed(at):
    for entry in yaml.safe_load(rendered(at=at))["deployments"]:
        for schedule in entry.get("schedules", ()):
            assert 4 <= int(schedule["cron"].split()[1]) <= 23


@pytest.mark.parametrize(
    ("at", "later"), [("06:15", "15 8"), ("21:59", "59 23"), ("22:30", "59 23"), ("23:59", "59 23")]
)
def test_missing_days_are_looked_for_later_on_the_same_day(at, later):
    from deployments.apply import wanted_of

    assert wanted_of(rendered(at=at))["backfill/range"]["schedules"][0]["cron"] == f"{later} * * *"


@pytest.mark.parametrize("at", ["00:00", "3:59", "24:00", "6", "six", "06:60", ""])
def test_a_time_that_cannot_be_meant_is_refused(at):
    with pytest.raises(UsageError, match="--at"):
        rendered(at=at)


@pytest.mark.parametrize("name", ["Web", "a b", "a/b", "ü"])
def test_a_suffix_that_is_no_name_is_refused(name):
    with pytest.raises(UsageError, match="--as"):
        rendered(name=name)


def test_parameters_are_those_of_the_flows():
    from deployments.apply import wanted_of
    from flows import backfill, champion, retrain, train

    flows: dict[str, list[Any]] = {
        "retrain": [retrain.retrain],
        "backfill": [backfill.backfill],
        "champion": [champion.promote, champion.rollback],
        "train": [train.train],
    }
    for name, entry in wanted_of(rendered()).items():
        path, _, function = entry["entrypoint"].partition(":")
        assert (ROOT / path).is_file()
        (flow,) = (flow for flow in flows[name.partition("/")[0]] if flow.fn.__name__ == function)
        known = set(flow.parameters.properties)
        given = set(entry["parameters"]) | {key for s in entry.get("schedules", ()) for key in s.get("parameters", ())}
        assert given <= known, name
        assert entry["description"]


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_a_pool_keeps_runs_alive_and_gives_them_a_heartbeat(pool):
    template = json.loads((ROOT / "deployments" / "work_pools" / f"{pool}.json").read_text())
    variables = template["base_job_template"]["variables"]["properties"]
    assert variables["stream_output"]["default"] is False
    assert int(variables["env"]["default"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) <= 30
    assert template["concurrency_limit"] == {"cpu": None, "gpu": 1}[pool]
    assert template["queues"]["urgent"] < template["queues"]["default"]


def test_without_a_server_nothing_is_deployed(monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from deployments.apply import _require_server

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(ConfigError, match="PREFECT_API_URL"):
        _require_server()


def test_an_address_to_notify_that_is_none_is_refused_without_being_printed():
    from deployments.automations import _block

    with pytest.raises(UsageError, match=r"none that Apprise knows.*--notify, or UP_NOTIFY") as refused:
        _block("slakc://tokenA/tokenB")
    assert "tokenA" not in str(refused.value)


def test_automations_declare_dead_runs_dead_and_name_the_model():
    from uuid import uuid4

    from deployments.automations import wanted
    from flows.doctor import AUTOMATIONS

    found = {automation.name: automation for automation in wanted("clicks", block=uuid4(), days=3)}
    assert {*AUTOMATIONS, "deepfm: tell when clicks has had no promotion"} == set(found)
    kinds = {name: automation.actions[0].type for name, automation in found.items()}
    assert {name for name, kind in kinds.items() if kind == "change-flow-run-state"} == set(AUTOMATIONS[:2])
    assert set(kinds.values()) == {"change-flow-run-state", "send-notification"}


def test_of_all_that_is_told_only_a_promotion_ends_the_wait_for_one():
    from prefect.server.events.schemas.automations import EventTrigger

    from deployments.automations import wanted
    from flows.events import NAMES

    (found,) = [automation for automation in wanted("clicks", block=None, days=3) if "promotion" in automation.name]
    trigger = EventTrigger.model_validate(found.trigger.model_dump())
    assert [kind for kind, name in NAMES.items() if trigger.expects(name)] == ["promote"]


def test_cycles_are_freed_by_a_thread_that_may_wait_and_not_by_the_one_that_serves(tmp_path):
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "__init__.py").touch()
    (tmp_path / "prefect" / "__main__.py").write_text("""
import gc, sys, threading, time
freed = []
class Cursor:
    def __init__(self):
        self.cycle = self
    def __del__(self):
        freed.append(threading.current_thread().name)
Cursor()
kept = [[] for _ in range(10 * gc.get_threshold()[0])]
until = time.monotonic() + 30
while not freed and time.monotonic() < until:
    time.sleep(0.1)
print(freed, sys.argv[1:])
""")
    done = subprocess.run(
        [sys.executable, "-m", "deployments.server", "--port", "1"],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "['garbage'] ['server', 'start', '--port', '1']"
