"""`deepfm status` and `deepfm doctor` over what the real stages leave, in a folder and in a bucket."""

import datetime as dt
import json
import shutil
import socket
import time
from pathlib import Path
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from deepfm.calendar.rows import calendar_of
from deepfm.retraining import retrain
from deepfm.storage import open_store
from deepfm.storage.s3_errors import status_of
from tests.command_line import deepfm, one_line
from tests.places import ROWS, WORLD, Place, local_place
from tests.seaweed import client_of
from tests.tiny_days import HOLDOUT, click_day
from tests.tiny_toml import write_toml

WINDOW_DAY = WORLD[2]
ROW = {
    "date",
    "delivered",
    "valid",
    "prepared",
    "trained",
    "verdict",
    "version",
    "challenger_auc",
    "champion_auc",
    "champion",
    "stale",
    "reasons",
}


@pytest.fixture
def done(reference, one_thread, tmp_path) -> Place:  # noqa: ARG001 - asked for its effect
    """A copy of the undisturbed run."""
    shutil.copytree(reference.place.folder, tmp_path, dirs_exist_ok=True)
    return Place(f"file://{tmp_path}/store", f"{tmp_path}/clicks", tmp_path)


@pytest.fixture
def toml(done) -> Path:
    return write_toml(done.folder, source=done.source, store=done.store)


def row_of(place: Place, date: dt.date, **changes: object) -> dict:
    (row,) = calendar_of(place.workspace(changes), start=date, end=date).days
    return row.model_dump()


def checks_of(monkeypatch, capsys, *arguments: str) -> tuple[int, dict[str, dict]]:
    """Exit code and checks by name of `deepfm doctor --json`."""
    code, out, err = deepfm(monkeypatch, capsys, "doctor", *arguments, "--json")
    answer = json.loads(out)
    assert (set(answer), err) == ({"ok", "checks"}, "")
    assert answer["ok"] is (code == 0)
    assert {key for check in answer["checks"] for key in check} == {"name", "status", "observed", "next_step"}
    assert all(check["next_step"] for check in answer["checks"] if check["status"] in {"warning", "failed"})
    return code, {check["name"]: check for check in answer["checks"]}


def test_what_a_run_would_make_is_what_the_calendar_expects(done, reference):
    row = row_of(done, HOLDOUT)
    assert (row["version"], row["stale"], row["champion"]) == (reference.outcome.version, False, True)
    assert row["challenger_auc"] == reference.outcome.challenger_auc
    assert row_of(done, HOLDOUT - dt.timedelta(days=1))["prepared"]


def test_a_stale_day_is_fresh_again_after_its_run(done):
    done.deliver(WINDOW_DAY, click_day(WINDOW_DAY, rows=ROWS + 1))
    assert row_of(done, HOLDOUT)["reasons"] == (f"{WINDOW_DAY} was delivered again",)
    outcome = retrain(done.workspace(), HOLDOUT)
    row = row_of(done, HOLDOUT)
    assert (row["version"], row["stale"]) == (outcome.version, False)


def test_another_configuration_is_fresh_after_its_run_too(done):
    changes = {"network.hidden": [4], "sampling.keep_rate": 0.5}
    assert row_of(done, HOLDOUT, **changes)["reasons"][0] == "configuration changed"
    outcome = retrain(done.workspace(changes), HOLDOUT)
    assert (row_of(done, HOLDOUT, **changes)["version"], row_of(done, HOLDOUT, **changes)["stale"]) == (
        outcome.version,
        False,
    )


def test_a_refused_day_is_told_after_its_run(done):
    done.deliver(HOLDOUT, click_day(HOLDOUT, rows=5))
    assert retrain(done.workspace(), HOLDOUT).status == "data_rejected"
    row = row_of(done, HOLDOUT)
    assert (row["valid"], row["stale"]) == (False, False)
    assert "required at least 10" in row["reasons"][0]


def test_status_is_an_array_for_machines(monkeypatch, capsys, toml):
    code, out, err = deepfm(
        monkeypatch, capsys, "status", "--config", str(toml), "--start", str(WORLD[0]), "--end", str(HOLDOUT), "--json"
    )
    rows = json.loads(out)
    assert (code, err, len(rows)) == (0, "", 5)
    assert all(set(row) == ROW for row in rows)
    assert [row["trained"] for row in rows] == [False] * 4 + [True]


def test_status_is_a_calendar_for_people_with_the_next_command_last(monkeypatch, capsys, toml):
    code, out, _ = deepfm(monkeypatch, capsys, "status", "--config", str(toml))
    lines = out.splitlines()
    assert code == 0
    assert any(line.startswith(f"Wed {HOLDOUT}  yes") and "★" in line for line in lines)
    assert lines[-2].startswith("5 days: 5 delivered, 0 refused, 1 trained, 1 promoted, 1 stale; ★")
    assert lines[-1].startswith(f"3 days could be trained: deepfm backfill --config {toml} --start 2026-03-02")


def test_status_before_the_first_run_and_before_the_first_day(monkeypatch, capsys, tmp_path):
    place = local_place(tmp_path)
    toml = write_toml(place.folder, source=place.source, store=place.store)
    code, out, err = deepfm(monkeypatch, capsys, "status", "--config", str(toml), "--json")
    assert (code, json.loads(out)) == (0, [])
    assert "holds no day" in one_line(err)
    place.deliver(HOLDOUT)
    code, out, _ = deepfm(monkeypatch, capsys, "status", "--config", str(toml))
    assert code == 0
    assert "1 delivered, 0 refused, 0 trained" in out
    assert out.splitlines()[-1] == "No day can be trained yet, for the reasons beside the days."
    assert "window too small: 0 of the 3 days before it can be used, required 2" in out
    for date in WORLD:
        place.deliver(date)
    _, out, _ = deepfm(monkeypatch, capsys, "status", "--config", str(toml))
    assert "3 days could be trained" in out.splitlines()[-1]
    assert not (place.folder / "store").exists()


def test_status_shows_the_rest_where_the_source_is_out_of_reach(monkeypatch, capsys, toml):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    text = toml.read_text()
    toml.write_text(text.replace(f'source = "{toml.parent}/clicks"', 'source = "s3://bucket/clicks"'))
    code, out, err = deepfm(monkeypatch, capsys, "status", "--config", str(toml), "--start", str(HOLDOUT))
    assert (code, err) == (0, "")
    assert "Delivered is not known: store does not answer at http://127.0.0.1:9" in out
    assert f"Wed {HOLDOUT}  ?" in out
    assert "★" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--start", "soon"], "--start is not a date"),
        (["--start", "2026-03-04", "--end", "2026-03-01"], "--start is after --end"),
        (["--start", "2000-01-01", "--end", "2026-03-01"], "too long"),
    ],
)
def test_a_range_that_cannot_be_meant_is_one_line(monkeypatch, capsys, toml, arguments, words):
    code, out, err = deepfm(monkeypatch, capsys, "status", "--config", str(toml), *arguments)
    assert (code, out) == (2, "")
    assert words in one_line(err)


def test_status_in_a_bucket_says_what_it_says_in_a_folder(done, fresh_bucket):
    bucket = Place(f"s3://{fresh_bucket()}/store", f"s3://{fresh_bucket()}/clicks", done.folder)
    for ours, theirs in ((done.store, bucket.store), (done.source, bucket.source)):
        here, there = open_store(ours), open_store(theirs)
        for info in here.list(""):
            there.write(info.key, here.read(info.key))
    began = time.monotonic()
    assert calendar_of(bucket.workspace()) == calendar_of(done.workspace())
    assert time.monotonic() - began < 10


def test_a_healthy_place_passes_and_nothing_is_left_in_the_store(monkeypatch, capsys, done, toml):
    before = done.objects()
    code, checks = checks_of(monkeypatch, capsys, "--config", str(toml))
    assert code == 0
    assert [name for name, check in checks.items() if check["status"] not in {"ok", "warning"}] == ["prefect.server"]
    assert checks["prefect.server"]["status"] == "skipped"  # no server is named
    assert {name for name, check in checks.items() if check["status"] == "warning"} == {
        "source.newest_day",
        "source.clicks",
    }
    assert done.objects() == before
    assert open_store(done.store).list("probes") == []


def test_doctor_is_a_list_for_people(monkeypatch, capsys, toml):
    code, out, err = deepfm(monkeypatch, capsys, "doctor", "--config", str(toml))
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line and not line.startswith(" ")][:-1] == [
        "environment",
        "config",
        "store",
        "source",
        "registry",
        "prefect",
    ]
    assert out.splitlines()[-1].endswith("2 warning, 1 skipped")


def test_doctor_needs_no_configuration(monkeypatch, capsys, done):
    code, checks = checks_of(monkeypatch, capsys, "--store", done.store, "--read-only")
    assert code == 0
    assert checks["config.toml"]["status"] == checks["source.reachable"]["status"] == "skipped"
    assert checks["store.writable"]["status"] == checks["store.race"]["status"] == "skipped"
    assert "answers 0." in checks["registry.champion"]["observed"]


def test_a_configuration_that_cannot_be_read_fails_and_the_rest_is_looked_at(monkeypatch, capsys, done, toml):
    toml.write_text(toml.read_text().replace("epochs", "epoch"))
    code, checks = checks_of(monkeypatch, capsys, "--config", str(toml), "--store", done.store)
    assert code == 78
    assert "did you mean epochs?" in checks["config.toml"]["observed"]
    assert checks["registry.champion"]["status"] == "ok"


def test_a_column_that_is_not_delivered_fails_with_3(monkeypatch, capsys, done, toml):
    newest = HOLDOUT + dt.timedelta(days=1)
    done.deliver(newest, click_day(newest, rows=ROWS).rename_columns(["click", "time", "id", "user", "itm", "price"]))
    code, checks = checks_of(monkeypatch, capsys, "--config", str(toml))
    assert (code, checks["source.columns"]["status"]) == (3, "failed")
    assert "did you mean itm?" in checks["source.columns"]["observed"]


def test_a_champion_with_other_bytes_fails_with_3(monkeypatch, capsys, done, toml):
    (model,) = (done.folder / "store").rglob("model.onnx")
    model.write_bytes(model.read_bytes() + b"\0")
    code, checks = checks_of(monkeypatch, capsys, "--config", str(toml))
    assert (code, checks["registry.champion"]["status"]) == (3, "failed")
    assert "size in bytes does not match" in checks["registry.champion"]["observed"]


def test_a_log_with_a_gap_fails_with_3(monkeypatch, capsys, done, toml):
    log = done.folder / "store" / "models" / "tiny" / "log"
    shutil.copy(log / "000000000001.json", log / "000000000003.json")
    code, checks = checks_of(monkeypatch, capsys, "--config", str(toml))
    assert (code, checks["registry.log"]["status"], checks["registry.champion"]["status"]) == (3, "failed", "skipped")


def test_a_file_in_the_way_of_the_store_fails_with_78(monkeypatch, capsys, toml):
    code, checks = checks_of(monkeypatch, capsys, "--config", str(toml), "--store", str(toml))
    assert (code, checks["store.writable"]["status"], checks["store.race"]["status"]) == (78, "failed", "skipped")
    assert "a file is where a folder is needed" in checks["store.writable"]["observed"]


def test_a_bucket_passes_and_says_how_it_is_reached_without_a_secret(monkeypatch, capsys, s3_environment, fresh_bucket):
    store = f"s3://{fresh_bucket()}/models"
    code, checks = checks_of(monkeypatch, capsys, "--store", store)
    assert code == 0
    assert s3_environment.endpoint in checks["store.endpoint"]["observed"]
    assert "region us-east-1, addressed by path" in checks["store.endpoint"]["observed"]
    assert checks["store.credentials"]["observed"] == "from the environment"
    assert {
        name: checks[f"store.{name}"]["status"] for name in ("answers", "clock", "race", "cleanup")
    } == dict.fromkeys(("answers", "clock", "race", "cleanup"), "ok")
    assert s3_environment.secret_key[7:] not in json.dumps(checks)
    assert s3_environment.access_key not in json.dumps(checks)
    assert open_store(store).list("") == []


@pytest.mark.parametrize("suspended", [False, True], ids=["enabled", "suspended"])
def test_in_a_bucket_with_versions_the_doctor_finds_what_writers_would(
    monkeypatch, capsys, s3_environment, fresh_bucket, suspended
):
    bucket, client = fresh_bucket(), client_of(s3_environment)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    if suspended:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})

    def stored() -> bool:
        try:
            client.put_object(Bucket=bucket, Key="key", Body=b"data", IfNoneMatch="*")
        except ClientError as refusal:
            if status_of(refusal) != 412:
                raise
            return False
        return True

    assert stored()
    second = stored()
    client.delete_object(Bucket=bucket, Key="key")
    freed = stored()
    code, checks = checks_of(monkeypatch, capsys, "--store", f"s3://{bucket}")
    once = ("failed", "failed", 78) if second else ("ok", "ok", 0)
    assert (checks["store.create_if_absent"]["status"], checks["store.race"]["status"], code) == once
    assert checks["store.create_again"]["status"] == ("ok" if freed else "warning")
    assert ("Ceph" in json.dumps(checks)) is (second or not freed)


def test_what_a_bucket_does_with_deleted_objects_is_told(monkeypatch, capsys, s3_environment, fresh_bucket):
    client, versioned, locked = client_of(s3_environment), fresh_bucket(), f"locked-{uuid4().hex}"
    client.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={"Status": "Enabled"})
    client.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    told = {}
    for bucket in (fresh_bucket(), versioned, locked):
        code, checks = checks_of(monkeypatch, capsys, "--store", f"s3://{bucket}")
        assert (code, checks["store.create_if_absent"]["status"], checks["store.race"]["status"]) == (0, "ok", "ok")
        told[bucket] = tuple(checks[f"store.{name}"]["status"] for name in ("versioning", "object_lock"))
        if bucket == versioned:
            assert "a lifecycle rule" in checks["store.versioning"]["next_step"]
    assert list(told.values()) == [("ok", "ok"), ("warning", "ok"), ("warning", "warning")]
    client.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={"Status": "Suspended"})
    _, checks = checks_of(monkeypatch, capsys, "--store", f"s3://{versioned}", "--read-only")
    assert checks["store.versioning"]["observed"].startswith("suspended: ")


@pytest.mark.usefixtures("s3_environment")
def test_credentials_of_a_file_are_told_by_their_profile(monkeypatch, capsys, s3_environment, fresh_bucket, tmp_path):
    shared = tmp_path / "credentials"
    key, secret = s3_environment.access_key, s3_environment.secret_key
    shared.write_text(f"[clicks]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    store = f"s3://{fresh_bucket()}"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    monkeypatch.setenv("AWS_PROFILE", "clicks")
    code, checks = checks_of(monkeypatch, capsys, "--store", store)
    assert code == 0
    assert checks["store.credentials"]["observed"] == "from the shared credentials file, profile clicks"


S3_MISTAKES: dict[str, tuple[dict[str, str | None], int, str, str]] = {
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "do-not-tell"}, 78, "store.answers", "secret key does not fit"),
    "unknown key": ({"AWS_ACCESS_KEY_ID": "do-not-tell"}, 78, "store.answers", "access key is not known"),
    "no credentials": ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, 78, "store.credentials", "none"),
    "half of them": ({"AWS_SECRET_ACCESS_KEY": None}, 78, "store.url", "no usable credentials"),
}


@pytest.mark.parametrize("name", S3_MISTAKES)
def test_a_mistake_with_credentials_is_told_with_its_cause(monkeypatch, capsys, fresh_bucket, name):
    changes, expected, check, words = S3_MISTAKES[name]
    store = f"s3://{fresh_bucket()}"
    for variable, value in changes.items():
        monkeypatch.setenv(variable, value) if value else monkeypatch.delenv(variable)
    code, checks = checks_of(monkeypatch, capsys, "--store", store)
    assert (code, checks[check]["status"]) == (expected, "failed")
    assert words in checks[check]["observed"]
    assert checks["registry.log"]["status"] == "skipped"
    assert checks.get("store.race", {"status": "skipped"})["status"] == "skipped"
    assert "do-not-tell" not in json.dumps(checks)


@pytest.mark.usefixtures("s3_environment")
def test_a_bucket_that_does_not_exist_is_told(monkeypatch, capsys):
    code, checks = checks_of(monkeypatch, capsys, "--store", f"s3://absent-{uuid4().hex}")
    assert (code, checks["store.answers"]["status"]) == (78, "failed")
    assert "bucket does not exist" in checks["store.answers"]["observed"]


@pytest.mark.usefixtures("s3_environment")
def test_where_nothing_listens_it_takes_seconds_and_ends_with_75(monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    code, checks = checks_of(monkeypatch, capsys, "--store", "s3://bucket")
    assert time.monotonic() - began < 15
    assert (code, checks["store.answers"]["status"]) == (75, "failed")
    assert "AWS_ENDPOINT_URL" in checks["store.answers"]["next_step"]


@pytest.mark.usefixtures("s3_environment")
def test_a_server_that_accepts_and_says_nothing_does_not_hang_it(monkeypatch, capsys):
    monkeypatch.setattr("deepfm.storage.s3_client._READ_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        code, checks = checks_of(monkeypatch, capsys, "--store", "s3://bucket")
        assert time.monotonic() - began < 15
    assert (code, checks["store.answers"]["status"]) == (75, "failed")


@pytest.mark.usefixtures("s3_environment")
def test_a_clock_that_is_off_is_a_warning(monkeypatch, capsys, fresh_bucket):
    behind = dt.timedelta(seconds=90)
    monkeypatch.setattr("deepfm.storage.s3.S3Store.server_time", lambda _: dt.datetime.now(dt.UTC) - behind)
    code, checks = checks_of(monkeypatch, capsys, "--store", f"s3://{fresh_bucket()}")
    assert (code, checks["store.clock"]["status"]) == (0, "warning")
    assert "90 s ahead of the store" in checks["store.clock"]["observed"]


def test_the_store_is_told_with_the_rule_that_chose_it(monkeypatch, capsys, done, toml):
    _, checks = checks_of(monkeypatch, capsys, "--config", str(toml))
    assert checks["store.url"]["observed"].endswith("by store in the TOML")
    monkeypatch.setenv("DEEPFM_STORE", done.store)
    _, checks = checks_of(monkeypatch, capsys, "--config", str(toml))
    assert checks["store.url"]["observed"].endswith("by DEEPFM_STORE")
    _, checks = checks_of(monkeypatch, capsys, "--config", str(toml), "--store", done.store)
    assert checks["store.url"]["observed"].endswith("by --store")
    monkeypatch.delenv("DEEPFM_STORE")
    monkeypatch.chdir(done.folder)
    _, checks = checks_of(monkeypatch, capsys)
    assert checks["store.url"]["observed"] == f"{Path.cwd().joinpath('store').as_uri()}, by the default"
