"""What the doctor says of a log that may not be appended to, a champion whose files are gone, and a cache that lies."""

import pytest

from deepfm import layout
from deepfm.doctor.checks import Check
from deepfm.doctor.registry import registry
from deepfm.promotion import Operator
from deepfm.registry import Registry
from deepfm.storage import ObjectStore
from tests.factories import MODEL, entry
from tests.fault_store import Call, FakeStore, Faulty
from tests.small_versions import A, B, judge, model_key, publish

CACHE = layout.champion_cache(MODEL)


@pytest.fixture
def store() -> FakeStore:
    """Two versions, promoted one after the other."""
    store = FakeStore()
    publish(store, A, B)
    for number, version in enumerate((A, B)):
        judge(store, version, "promote", against=number)
        Operator(store, MODEL, actor="ann", reason="test").promote(version)
    return store


def checks(store: ObjectStore, *, tried: bool = True) -> dict[str, Check]:
    return {check.name: check for check in registry(store, MODEL, tried=tried)}


def test_a_log_in_order_is_ok_and_nothing_is_changed(store: FakeStore) -> None:
    before = store.objects()
    found = checks(store)
    assert {check.status for check in found.values()} == {"ok"}
    assert found["registry.rights"].observed.startswith("may promote")
    assert found["registry.cache"].observed == "champion.json is entry 2 of 2"
    assert store.objects() == before


def test_before_the_first_promotion_there_is_little_to_look_at() -> None:
    assert {name: check.status for name, check in checks(FakeStore()).items()} == {
        "registry.log": "ok",
        "registry.cache": "ok",
        "registry.rights": "skipped",
        "registry.champion": "skipped",
    }


def test_who_may_read_and_not_append_is_told(store: FakeStore) -> None:
    denied = Faulty(store, lambda call: "denied" if call.operation == "create" else None)
    check = checks(denied)["registry.rights"]
    assert (check.status, check.observed) == ("warning", "may read and not promote (access is denied)")
    assert f"s3:PutObject) below {layout.log_prefix(MODEL)}/" in check.next_step


def test_rights_are_asked_only_of_a_store_that_refused_a_taken_key(store: FakeStore) -> None:
    changes: list[str] = []

    def note(call: Call) -> None:
        changes.extend([call.operation] if call.operation in {"create", "write", "upload", "delete"} else [])

    assert checks(Faulty(store, note), tried=False)["registry.rights"].status == "skipped"
    assert changes == []
    before = store.objects()
    assert checks(Faulty(store, lambda call: "unconditional" if call.operation == "create" else None))
    assert store.objects() == before


@pytest.mark.parametrize("gone", [layout.version_manifest(MODEL, B), model_key(B)])
def test_a_log_that_names_what_is_gone_fails_with_3(store: FakeStore, gone: str) -> None:
    store.delete(gone)
    check = checks(store)["registry.champion"]
    assert (check.status, check.exit_code) == ("failed", 3)
    assert check.observed.startswith(f"log entry 2 names {B}, which is not whole: ")
    assert gone in check.observed
    assert "deepfm rollback" in check.next_step


def other_bytes(data: bytes) -> bytes:
    return data.replace(b'"reason": "test"', b'"reason": "mine"')


CORRUPTIONS = {
    "not JSON": lambda _: b"{",
    "empty": lambda _: b"",
    "another document": lambda _: b"[]",
    "another model's entry": lambda _: entry(2, model="other").to_bytes(),
    "a sequence that is too big": lambda _: entry(10**12).to_bytes(),
    "an entry that the log has not": lambda _: entry(3).to_bytes(),
    "a negative sequence": lambda data: data.replace(b'"sequence": 2', b'"sequence": -2'),
    "other bytes": other_bytes,
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_cache_that_the_log_does_not_confirm_is_a_warning_and_the_log_wins(
    store: FakeStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    right = store.read(CACHE)
    wrong = CORRUPTIONS[name](right)
    assert wrong != right
    store.write(CACHE, wrong)
    found = checks(store)
    check = found["registry.cache"]
    assert check.status == "warning"
    assert check.observed.startswith("champion.json is ignored: ")
    assert "\n" not in check.observed
    assert "any writer repairs it" in check.next_step
    assert found["registry.champion"].status == "ok"
    assert found["registry.champion"].observed.startswith(B)
    assert (store.read(CACHE), caplog.text) == (wrong, "")
    Operator(store, MODEL, actor="ann", reason="test").hold()
    assert checks(store)["registry.cache"].observed == "champion.json is entry 3 of 3"


def test_a_cache_that_is_behind_is_ok_and_one_that_is_absent_is_told(store: FakeStore) -> None:
    first = Registry(store, MODEL).entry(1)
    assert first is not None
    store.write(CACHE, first.to_bytes())
    assert checks(store)["registry.cache"].observed == "champion.json is entry 1 of 2"
    store.delete(CACHE)
    check = checks(store)["registry.cache"]
    assert (check.status, check.observed) == ("warning", "there is no champion.json: every reader begins at entry 1")
