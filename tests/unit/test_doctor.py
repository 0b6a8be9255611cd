"""The doctor: every cause has its line, its next step and its exit code; a store that lets two win is found out."""

import datetime as dt
import shutil
import threading
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from deepfm import layout
from deepfm.doctor import environment
from deepfm.doctor.checks import Check, exit_code, failed, ok, refusal, warning
from deepfm.doctor.examination import Patient, examine
from deepfm.doctor.settings import clicks, settings
from deepfm.doctor.source import source
from deepfm.doctor.store import store
from deepfm.errors import AccessDeniedError, AlreadyExistsError, ConfigError, StoreUnavailableError
from deepfm.manifests import Partition, ValidationReport
from deepfm.storage import ObjectStore, open_store
from tests.broken_stores import (
    CuttingBodies,
    Flipping,
    Framing,
    FramingSigned,
    Hasty,
    Ignoring,
    Inverting,
    LosingTheLastPart,
    Odd,
)
from tests.tiny_days import HOLDOUT, click_day, tiny_config, write_day

NOON = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)


class Racing(Odd):
    """A server that lets two win that come at once, and refuses whoever comes later."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._turn, self._late = threading.Lock(), Counter[str]()

    def create(self, key: str, data: bytes) -> None:
        with self._turn:
            self._late[key] += 1
            if "race" in key and self._late[key] == 2:
                self._store.write(key, data)
            else:
                self._store.create(key, data)


class Replacing(Odd):
    """A server that refuses the second writer and keeps its bytes all the same."""

    def create(self, key: str, data: bytes) -> None:
        try:
            self._store.create(key, data)
        except AlreadyExistsError:
            self._store.write(key, data)
            raise


class Blind(Odd):
    """A server whose listings lag behind."""

    def list(self, _: str) -> list[object]:
        return []


class ReadOnly(Odd):
    def write(self, *_: object) -> None:
        raise AccessDeniedError("access is denied", next_step="Allow s3:PutObject.")

    create = write


class Remembering(Odd):
    """A bucket whose versioning is suspended, at a server to which a deletion is an object."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._deleted: set[str] = set()

    def create(self, key: str, data: bytes) -> None:
        if key in self._deleted:
            raise AlreadyExistsError("object exists already")
        self._store.create(key, data)

    def delete(self, key: str) -> None:
        self._deleted.add(key)
        self._store.delete(key)


class Stubborn(Odd):
    def delete(self, *_: object) -> None:
        raise AccessDeniedError("access is denied")


class Away(Odd):
    def list(self, _: str) -> list[object]:
        raise StoreUnavailableError("store does not answer")


def by_name(checks: Any) -> dict[str, Check]:
    return {check.name: check for check in checks}


def store_checks(place: object, *, read_only: bool = False) -> dict[str, Check]:
    return by_name(store(cast("ObjectStore", place), read_only=read_only))


def test_a_folder_keeps_the_condition_and_is_left_as_it_was(tmp_path):
    checks = store_checks(open_store(str(tmp_path)))
    assert {check.status for check in checks.values()} == {"ok"}
    assert open_store(str(tmp_path)).list("") == []


@pytest.mark.parametrize(
    ("kind", "found_by", "words"),
    [
        (Ignoring, "store.create_if_absent", "replaced the first"),
        (Ignoring, "store.race", "8 of 8 writers"),
        (Inverting, "store.create_if_absent", "a key that is free was refused"),
        (Hasty, "store.race", "of 8 writers of one key were told that they won"),
        (Racing, "store.race", "2 of 8 writers"),
        (Replacing, "store.create_if_absent", "replaced the first"),
    ],
)
def test_a_store_that_lets_two_win_cannot_keep_a_log(tmp_path, kind, found_by, words):
    check = store_checks(kind(tmp_path))[found_by]
    assert (check.status, check.exit_code) == ("failed", 78)
    assert words in check.observed
    assert "cannot keep a promotion log safely" in check.observed
    assert open_store(str(tmp_path)).list("") == []


@pytest.mark.parametrize(
    ("kind", "words", "step"),
    [
        (Framing, "the framing of the upload was stored inside", "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
        (FramingSigned, "the framing of the upload was stored inside", "AWS_REQUEST_CHECKSUM_CALCULATION"),
        (CuttingBodies, "1,048,577 bytes in one request were read back as 65,536", "proxy"),
        (LosingTheLastPart, "8,388,609 bytes in parts were read back as 8,388,608", "proxy"),
        (Flipping, "1,048,577 bytes in one request were read back as 1,048,577, others from byte 20 on", "changes"),
    ],
)
def test_a_store_that_gives_back_other_bytes_is_told_with_the_cause(tmp_path, kind, words, step):
    checks = store_checks(kind(tmp_path))
    check = checks["store.bytes"]
    assert (check.status, check.exit_code) == ("failed", 78)
    assert words in check.observed
    assert step in check.next_step
    assert checks["store.create_if_absent"].status == checks["store.race"].status == "skipped"
    assert open_store(str(tmp_path)).list("") == []


def test_a_listing_that_lags_behind_fails(tmp_path):
    assert "not in the listing" in store_checks(Blind(tmp_path))["store.writable"].observed


def test_a_store_that_may_only_be_read_is_a_consumers(tmp_path):
    checks = store_checks(ReadOnly(tmp_path))
    assert checks["store.readable"].status == "ok"
    assert checks["store.writable"].status == "failed"
    assert checks["store.writable"].observed.startswith("reader only: can consume, cannot retrain")
    assert "--read-only" in checks["store.writable"].next_step
    assert checks["store.race"].status == "skipped"


def test_read_only_writes_nothing(tmp_path):
    checks = store_checks(ReadOnly(tmp_path), read_only=True)
    assert exit_code(list(checks.values())) == 0
    assert checks["store.writable"].status == "skipped"


def test_probes_that_cannot_be_deleted_are_a_warning(tmp_path):
    checks = store_checks(Stubborn(tmp_path))
    assert checks["store.create_again"].status == "skipped"
    assert checks["store.cleanup"].status == "warning"
    assert f"/{layout.PROBES}" in checks["store.cleanup"].next_step


def test_a_key_that_stays_taken_after_a_deletion_is_a_warning(tmp_path):
    checks = store_checks(Remembering(tmp_path))
    assert {name for name, check in checks.items() if check.status != "ok"} == {"store.create_again"}
    assert exit_code(list(checks.values())) == 0
    check = checks["store.create_again"]
    assert check.status == "warning"
    assert "versions that are pruned cannot be made again" in check.observed
    assert "versioning was never enabled" in check.next_step


def test_a_store_that_does_not_answer_is_not_asked_again(tmp_path):
    checks = store_checks(Away(tmp_path))
    assert (checks["store.readable"].status, checks["store.readable"].exit_code) == ("failed", 75)
    assert checks["store.writable"].status == checks["store.race"].status == "skipped"


@pytest.mark.parametrize(
    ("codes", "expected"), [([], 0), ([3], 3), ([3, 75], 75), ([75, 78, 3], 78), ([2], 2), ([78, 70], 70)]
)
def test_the_exit_code_is_that_of_the_worst_failure(codes, expected):
    checks = [failed("a.b", "", "", exit_code=code) for code in codes]
    assert exit_code([ok("a.a", ""), warning("a.c", "", ""), *checks]) == expected


def test_an_error_becomes_a_line_without_saying_its_next_step_twice():
    error = ConfigError("bucket does not exist", where="s3://b", next_step="Create it.")
    check = refusal("store.readable", error)
    assert (check.observed, check.next_step, check.exit_code) == ("bucket does not exist (s3://b)", "Create it.", 78)


def test_packages_are_held_against_the_metadata(monkeypatch):
    assert environment.packages().status == "ok"
    assert "numpy" in environment.packages().observed
    there = {"torch": "2.4.0", "pyarrow": None}
    version = metadata.version

    def other(name: str) -> str:
        found = there.get(name, "absent")
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return version(name) if found == "absent" else found

    monkeypatch.setattr(metadata, "version", other)
    check = environment.packages()
    assert check.status == "failed"
    assert "torch 2.4.0, required >=2.10" in check.observed
    assert "pyarrow is not installed" in check.observed


def test_prefect_is_needed_for_flows_alone(monkeypatch):
    version = metadata.version

    def without(name: str) -> str:
        if name == "prefect":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without)
    assert environment.packages().status == "ok"
    assert environment.packages().observed.endswith("no prefect: no flows")


def test_a_python_that_is_not_supported_fails(monkeypatch):
    assert environment.python().status == "ok"
    monkeypatch.setattr("sys.version_info", (3, 9, 1))
    assert "3.9.1, required" in environment.python().observed


def test_another_package_of_our_name_in_the_working_directory_is_told(tmp_path):
    assert environment.same_code(tmp_path).status == "ok"
    (tmp_path / "deepfm").mkdir()
    (tmp_path / "deepfm" / "__init__.py").touch()
    check = environment.same_code(tmp_path)
    assert check.status == "warning"
    assert str(tmp_path) in check.observed


def test_a_gpu_that_was_asked_for_and_is_not_there_fails(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert environment.gpu(None).status == "ok"
    assert environment.gpu(tiny_config({"training.device": "cuda"})).status == "failed"


@pytest.mark.parametrize(("free", "status"), [(2**40, "ok"), (2**30, "warning"), (2**20, "failed")])
def test_free_space_is_told_and_little_of_it_warned_of(monkeypatch, tmp_path, free, status):
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free))
    check = environment.disk("environment.disk", tmp_path / "not" / "there" / "yet")
    assert check.status == status
    assert status != "failed" or check.exit_code == 75
    assert not (tmp_path / "not").exists()


def test_a_folder_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").touch()
    assert environment.disk("environment.disk", tmp_path / "file" / "store").status == "failed"


def test_a_missing_home_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.home().status == "ok"
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    assert environment.home().status == "warning"


def test_without_a_folder_for_temporary_files_it_ends_there(monkeypatch):
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", none)
    (check,) = examine(Patient())
    assert (check.status, check.next_step) == ("failed", "Set TMPDIR to one.")


def test_columns_that_are_not_named_are_warned_of_with_what_is_lost():
    checks = by_name(settings(tiny_config({"data.event_time": None, "data.group": None, "lag_days": 0})))
    assert checks["config.toml"].observed.startswith("model tiny: 2 categorical and 1 numeric fields, 3 days")
    assert {name for name, check in checks.items() if check.status == "warning"} == {
        "config.event_time",
        "config.group",
        "config.lag_days",
    }


@pytest.mark.parametrize(
    ("clicked", "keep_rate", "status"), [(1000, None, "ok"), (100, None, "warning"), (1000, 0.05, "warning")]
)
def test_few_clicks_and_few_negatives_are_warned_of(clicked, keep_rate, status):
    report = ValidationReport(
        model="tiny",
        logical_date=HOLDOUT,
        key="k",
        partition=Partition(logical_date=HOLDOUT, files=(), fingerprint="f"),
        accepted=True,
        rows=10_000,
        quarantined_rows=0,
        valid_rows=10_000,
        clicks=clicked,
        findings=(),
        files={},
    )
    assert clicks(tiny_config({"sampling.keep_rate": keep_rate}), report).status == status


def source_checks(folder: Path, **changes: Any) -> dict[str, Check]:
    return by_name(source(open_store(str(folder)), tiny_config(changes), now=NOON))


def test_days_and_gaps_and_age_are_told(tmp_path):
    for back in (0, 1, 3):
        write_day(tmp_path, HOLDOUT - dt.timedelta(days=back), click_day(HOLDOUT, rows=20))
    checks = source_checks(tmp_path)
    assert "3 days, 2026-03-01 to 2026-03-04" in checks["source.days"].observed
    assert checks["source.days"].observed.endswith("without 2026-03-02")
    assert checks["source.newest_day"].observed == "2026-03-04, 1 day old in UTC"
    assert {name: check.status for name, check in checks.items()} == {
        "source.days": "warning",
        "source.window": "ok",
        "source.newest_day": "ok",
        "source.files": "ok",
        "source.columns": "ok",
    }


def test_the_age_of_a_day_is_that_of_the_models_zone(tmp_path):
    write_day(tmp_path, dt.date(2026, 3, 6), click_day(HOLDOUT, rows=20))
    assert source_checks(tmp_path)["source.newest_day"].status == "warning"
    assert source_checks(tmp_path, time_zone="Pacific/Kiritimati")["source.newest_day"].status == "ok"


def test_a_window_longer_than_the_days_there_are_is_warned_of(tmp_path):
    write_day(tmp_path, HOLDOUT, click_day(HOLDOUT, rows=20))
    check = source_checks(tmp_path)["source.window"]
    assert (check.status, check.observed) == ("warning", "0 of the 3 days before 2026-03-04")


def test_deliveries_that_stopped_are_warned_of(tmp_path):
    write_day(tmp_path, dt.date(2026, 2, 1), click_day(HOLDOUT, rows=20))
    assert source_checks(tmp_path)["source.newest_day"].status == "warning"


def test_columns_that_are_ignored_are_named(tmp_path):
    write_day(tmp_path, HOLDOUT, click_day(HOLDOUT, rows=20))
    assert source_checks(tmp_path, **{"fields.price": None})["source.columns"].observed.endswith("ignored: price")


def test_a_column_of_another_type_fails_with_3(tmp_path):
    write_day(tmp_path, HOLDOUT, click_day(HOLDOUT, rows=20))
    check = source_checks(tmp_path, **{"fields.user.dtype": "int64"})["source.columns"]
    assert (check.status, check.exit_code) == ("failed", 3)
    assert "column_type of user" in check.observed


def test_a_file_that_does_not_open_fails_with_3(tmp_path):
    write_day(tmp_path, HOLDOUT, click_day(HOLDOUT, rows=20))
    (tmp_path / f"dt={HOLDOUT}" / "part-0.parquet").write_bytes(b"PAR1 and no more")
    check = source_checks(tmp_path)["source.files"]
    assert (check.status, check.exit_code) == ("failed", 3)


def test_a_source_without_a_day_of_that_name_fails_with_78(tmp_path):
    write_day(tmp_path, HOLDOUT, click_day(HOLDOUT, rows=20))
    check = source_checks(tmp_path, **{"data.partition": "day={date}"})["source.days"]
    assert (check.status, check.exit_code) == ("failed", 78)
    assert "and 1 other" in check.observed
