"""Daily life with a real Prefect server, real workers and a real S3 server: schedules, kills, cancellations."""

import datetime as dt
import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import CONFIG, LONG, STORE, Up, everything_up, kill, wait

DAY = dt.timedelta(days=1)
DEPLOYMENTS = {
    "retrain/daily",
    "retrain/backfill-day",
    "backfill/range",
    "champion/promote",
    "champion/rollback",
    "train/gpu",
}
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def told() -> Iterator[list[str]]:
    """What people are told, and where: an address that takes notes."""
    notes: list[str] = []

    class Notes(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notes.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Notes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        notes.append(f"json://127.0.0.1:{server.server_port}/")
        yield notes
        server.shutdown()


@pytest.fixture(scope="module")
def up(tmp_path_factory, told, postgres) -> Iterator[Up]:
    """In Postgres, as a server has it that is shared; the tests with a browser live on SQLite."""
    with everything_up(tmp_path_factory.mktemp("up") / "here", UP_NOTIFY=told[0], UP_DATABASE=postgres) as found:
        yield found


def asked(up: Up, date: dt.date, *, epochs: int, store: str = STORE) -> str:
    """A run with a long training."""
    overrides = [LONG[0].replace("1000", str(epochs)), *LONG[1:]]
    return up.start("retrain/backfill-day", logical_date=date, overrides=overrides, promote=True, store=store)


def long_run(up: Up, date: dt.date, *, epochs: int = 1000, store: str = STORE) -> str:
    """A run whose training is under way, and has stored a state to go on from."""
    run = asked(up, date, epochs=epochs, store=store)
    wait(lambda: up.processes("deepfm.delegation", str(date)), seconds=60)
    wait(lambda: resume_state(up, date, store), seconds=60)
    return run


def resume_state(up: Up, date: dt.date, store: str) -> bool:
    program = (
        "from deepfm.storage import open_store\n"
        f"keys = [found.key for found in open_store({store!r}).list('training/clicks')]\n"
        f"print(json.dumps(any('/{date}-' in key and key.endswith('resume.json') for key in keys)))"
    )
    return bool(up.call(program))


def test_a_second_up_starts_nothing_twice_and_the_doctor_finds_all_well(up):
    before = {name: up.pid(name) for name in ("store", "server", "worker-cpu", "worker-gpu")}
    told = up.command("deployments.up").stdout
    assert {name: up.pid(name) for name in before} == before
    assert told.count("runs already") == 4
    done = up.command("deepfm", "doctor", "--config", str(CONFIG), "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    ours = {name: check["status"] for name, check in checks.items() if name.startswith("prefect.")}
    assert set(ours.values()) == {"ok"}, checks
    assert len(ours) == 9


def test_every_deployment_is_there_and_schedules_have_created_their_runs(up):
    flows = {flow["id"]: flow["name"] for flow in up.get("/flows/filter", {})}
    found = {f"{flows[entry['flow_id']]}/{entry['name']}": entry for entry in up.get("/deployments/filter", {})}
    assert set(found) == DEPLOYMENTS
    waiting = Counter(run["deployment_id"] for run in up.runs("retrain") + up.runs("backfill") if run["auto_scheduled"])
    assert waiting[found["retrain/daily"]["id"]] >= 3
    assert waiting[found["backfill/range"]["id"]] >= 3
    for schedule in (entry["schedules"][0]["schedule"] for entry in found.values() if entry["schedules"]):
        assert int(schedule["cron"].split()[1]) >= 4
        assert schedule["timezone"] == "UTC"


def test_a_scheduled_retrain_promotes_the_day_before(up):
    up.call(
        "from prefect.client.schemas.schedules import CronSchedule\n"
        "found = client.read_deployment_by_name('retrain/daily')\n"
        "client.create_deployment_schedules(found.id, [(CronSchedule(cron='* * * * *', timezone='UTC'), True)])\n"
        "print(json.dumps(True))"
    )
    try:
        name = f"retrain clicks {up.last}"
        done = wait(
            lambda: [run for run in up.runs("retrain") if run["name"] == name and run["state_type"] == "COMPLETED"],
            seconds=240,
        )
    finally:
        # It takes the extra schedule away.
        up.command("deployments.apply", "--config", str(CONFIG), "--at", up.environment["UP_AT"])
    assert done[0]["auto_scheduled"]
    assert {"model:clicks", f"day:{up.last}"} <= set(done[0]["tags"])
    assert [entry["logical_date"] for entry in up.log()] == [str(up.last)]
    kinds = {artifact["key"] for artifact in up.get("/artifacts/filter", {})}
    assert "clicks-verdict" in kinds
    assert up.runs("train")[0]["state_name"] == "Completed"


def test_a_killed_flow_process_is_crashed_and_run_again_it_promotes_once(up):
    date, store = up.last - DAY, "s3://deepfm-models/killed-flow"
    run = long_run(up, date, epochs=20, store=store)
    kill(*flow_processes(up, run))
    assert up.ended(run, seconds=30)["type"] == "CRASHED"
    again = asked(up, date, epochs=20, store=store)
    assert up.ended(again, seconds=200)["name"] == "Completed"
    assert [(entry["operation"], entry["logical_date"]) for entry in up.log(store)] == [("promote", str(date))]


def flow_processes(up: Up, run: str) -> list[int]:
    """Processes that run a flow run, by the variable that Prefect gives them."""
    found = []
    for pid in up.processes():
        variables = Path(f"/proc/{pid}/environ").read_bytes()
        if run.encode() in variables and b"deepfm.delegation" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(pid)
    assert found
    return found


def test_a_cancelled_run_leaves_no_process_and_promotes_nothing(up):
    store = "s3://deepfm-models/cancelled"
    run = long_run(up, up.last - 2 * DAY, store=store)
    up.call(
        "from prefect.states import Cancelling\nfrom uuid import UUID\n"
        f"client.set_flow_run_state(UUID({run!r}), Cancelling(), force=True)\nprint(json.dumps(True))"
    )
    wait(lambda: not up.processes("deepfm.delegation"), seconds=45)
    assert up.ended(run, seconds=45)["type"] == "CANCELLED"
    wait(lambda: all(found["state_type"] == "CANCELLED" for found in up.runs("train")[:1]), seconds=45)
    assert up.log(store) == []


def test_a_training_that_fails_fails_its_run_with_the_reason_and_people_are_told(up, told):
    run = up.start("retrain/backfill-day", logical_date=up.last - 2 * DAY, overrides=["training.learning_rate=1e30"])
    state = up.ended(run)
    assert state["type"] == "FAILED"
    assert "diverged" in state["message"]
    name = f"retrain clicks {up.last - 2 * DAY} has Failed"
    wait(lambda: [note for note in told if name in note and "diverged" in note], seconds=30)


def test_a_killed_worker_does_not_end_what_it_started(up):
    store = "s3://deepfm-models/killed-worker"
    run = long_run(up, date := up.last - 3 * DAY, epochs=20, store=store)
    kill(up.pid("worker-cpu"))
    try:
        assert up.ended(run, seconds=200)["type"] == "COMPLETED"
    finally:
        up.again()
    assert [(entry["operation"], entry["logical_date"]) for entry in up.log(store)] == [("promote", str(date))]
    assert up.command("deepfm", "doctor", "--config", str(CONFIG), check=False).returncode == 0


def test_workers_and_their_runs_that_are_gone_are_noticed_and_the_work_goes_on(up):
    run = long_run(up, up.last - 4 * DAY, epochs=100)  # it works until the other one waits for the device
    child = up.runs("train")[0]["id"]
    date, store = up.last - 6 * DAY, "s3://deepfm-models/killed-both"
    before = {found["id"] for found in up.runs("train")}
    other = asked(up, date, epochs=20, store=store)
    taken = up.call(
        "from prefect.states import Pending\n"
        "found = client.read_deployment_by_name('retrain/backfill-day')\n"
        "run = client.create_flow_run_from_deployment(found.id, state=Pending())\n"
        "print(json.dumps(str(run.id)))"
    )  # by a worker that went away at once
    wait(lambda: {found["id"] for found in up.runs("train")} - before, seconds=60)  # it works, and its heart has beaten
    kill(up.pid("worker-gpu"), *flow_processes(up, child), up.pid("worker-cpu"), *flow_processes(up, other))
    wait(lambda: not up.processes("deepfm.delegation"), seconds=10)
    up.again()
    assert up.ended(child, seconds=180)["type"] == "CRASHED"
    assert "no heartbeat" in up.ended(other, seconds=180)["message"]
    assert "taken by a worker and not begun" in up.ended(taken, seconds=180)["message"]
    assert up.ended(run, seconds=280)["type"] == "COMPLETED"
    assert up.ended(asked(up, date, epochs=20, store=store), seconds=200)["name"] == "Completed"
    assert [(entry["operation"], entry["logical_date"]) for entry in up.log(store)] == [("promote", str(date))]


def test_a_killed_server_costs_a_run_nothing_that_is_stored(up):
    date, store = up.last - 5 * DAY, "s3://deepfm-models/killed-server"
    run = long_run(up, date, epochs=20, store=store)
    kill(up.pid("server"))
    up.again()
    up.ended(run, seconds=250)  # completed or crashed: either way the same request comes to the same end
    assert up.ended(asked(up, date, epochs=20, store=store), seconds=200)["name"] == "Completed"
    assert [(entry["operation"], entry["logical_date"]) for entry in up.log(store)] == [("promote", str(date))]


def test_promote_and_rollback_are_flows(up):
    first = up.log()[-1]["version"]
    run = up.start("champion/promote", version=str(up.last - 4 * DAY), reason="by hand", force=True)
    assert up.ended(run)["type"] == "COMPLETED"
    second = up.log()[-1]
    assert (second["operation"], second["reason"], second["version"][:10]) == (
        "promote",
        "by hand",
        str(up.last - 4 * DAY),
    )
    run = up.start("champion/rollback", reason="it was not better")
    assert up.ended(run)["type"] == "COMPLETED"
    assert up.log()[-1]["version"] == first
