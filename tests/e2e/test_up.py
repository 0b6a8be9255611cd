"""What `make up` keeps and refuses: records in Postgres, a port of one's own, a schedule that was paused."""

import fcntl
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.server import CONFIG, Up, everything_up

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def up(postgres, tmp_path_factory) -> Iterator[Up]:
    with everything_up(tmp_path_factory.mktemp("up") / "here", UP_DATABASE=postgres) as found:
        del found.environment["UP_DATABASE"]  # asked for once
        yield found


def server_checks(up: Up) -> dict[str, str]:
    import json

    done = up.command("deepfm", "doctor", "--config", str(CONFIG), "--json", check=False)
    checks = json.loads(done.stdout)["checks"]
    return {check["name"]: check["status"] for check in checks if check["name"].startswith("prefect.")}


def test_records_are_kept_in_postgres_and_its_password_stays_where_it_is(up, postgres):
    password = str(urlsplit(postgres).password)
    assert set(server_checks(up).values()) == {"ok"}
    run = up.start("backfill/range", start=up.last, end=up.last, dry_run=True)
    assert up.ended(run)["name"] == "Planned"
    assert not list(up.folder.rglob("*.db"))
    assert (up.folder / "database").stat().st_mode & 0o077 == 0
    told = [path for path in up.folder.glob("*") if path.is_file() and path.name != "database"]
    assert [path.name for path in told if password in path.read_text(errors="replace")] == []


def test_it_goes_on_in_postgres_and_leaves_a_pause_alone(up):
    up.call(
        "found = client.read_deployment_by_name('retrain/daily')\n"
        "client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)\n"
        "print(json.dumps(True))"
    )
    before = up.pid("server")
    os.kill(before, 9)
    told = up.command("deployments.up").stdout
    assert "paused, and left so" in told
    assert up.pid("server") != before
    assert len(up.runs("backfill")) >= 1  # what was run before is known to the new server
    assert server_checks(up)["prefect.schedule"] == "warning"


@pytest.mark.parametrize(("port", "words"), [("99999", "UP_PORT is no port"), ("4299", "server runs at another port")])
def test_a_port_that_cannot_be_had_is_refused_in_one_line(up, port, words):
    there = {**up.environment, "UP_PORT": port}
    done = up._replace(environment=there).command("deployments.up", check=False)
    assert (done.returncode, words in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr


def test_two_at_once_do_not_meet(up):
    with (up.folder / "lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = up.command("deployments.up", check=False)
    assert done.returncode == 4
    assert "another make up or make down is at work" in done.stderr
