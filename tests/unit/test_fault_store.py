"""The store in memory is a store, the faults are what they are called, and the registry stands every one of them."""

from collections import Counter
from pathlib import Path

import pytest

from deepfm import layout
from deepfm.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConflictError,
    DeepFMError,
    NoSpaceError,
    NotFoundError,
    StoreUnavailableError,
    UsageError,
)
from deepfm.registry import Registry
from tests.factories import MODEL, decision, entry, manifest
from tests.fault_store import FAULTS, FakeStore, Faulty, at_call, by_chance


def test_the_store_in_memory_keeps_the_contract(tmp_path: Path) -> None:
    store = FakeStore({"a/b/1": b"one"})
    store.create("a/c", b"three")
    with pytest.raises(AlreadyExistsError):
        store.create("a/c", b"other")
    (tmp_path / "file").write_bytes(b"four")
    store.upload("a/d", tmp_path / "file")
    assert store.fetch("a/d", scratch=tmp_path / "scratch").read_bytes() == b"four"
    assert [(info.key, info.size_bytes) for info in store.list("a")] == [("a/b/1", 3), ("a/c", 5), ("a/d", 4)]
    assert [info.key for info in store.list("a/b")] == ["a/b/1"]
    before = store.list("a/b")
    store.write("a/b/1", b"two")
    assert store.list("a/b") != before
    for _ in range(2):
        store.delete("a/c")
    with pytest.raises(NotFoundError):
        store.read("a/c")
    with pytest.raises(UsageError):
        store.write("../a", b"")
    assert store.objects() == {"a/b/1": b"two", "a/d": b"four"}


@pytest.mark.parametrize(
    ("fault", "error", "applied"),
    [
        ("lost", StoreUnavailableError, True),
        ("dropped", StoreUnavailableError, False),
        ("full", NoSpaceError, False),
        ("denied", AccessDeniedError, False),
        ("unconditional", None, True),
    ],
)
def test_a_change_meets_what_it_is_called(fault: str, error: type[DeepFMError] | None, applied: bool) -> None:  # noqa: FBT001
    behind = FakeStore()
    store = Faulty(behind, at_call(1, fault))
    if error is None:
        behind.write("key", b"other")
        store.create("key", b"data")
    else:
        with pytest.raises(error):
            store.create("key", b"data")
    assert (behind.objects().get("key") == b"data") == applied
    assert store.fired == ["create key"]


def test_reads_are_late_short_or_wrong(tmp_path: Path) -> None:
    def reading(fault: str, number: int = 1) -> Faulty:
        return Faulty(FakeStore({"key": b"data"}), at_call(number, fault))

    assert reading("cut").read("key") == b"da"
    assert reading("cut").fetch("key", scratch=tmp_path).read_bytes() == b"da"
    assert reading("flipped").read("key") not in {b"data", b"da"}
    for fault, error in (("stale", NotFoundError), ("deleted", NotFoundError), ("silent", StoreUnavailableError)):
        with pytest.raises(error):
            reading(fault).read("key")
    store = reading("stale", 3)
    store.read("key")
    store.write("key", b"newer")
    assert [store.read("key"), store.read("key")] == [b"data", b"newer"]
    store = reading("stale", 2)
    store.write("new", b"")
    assert [len(store.list("")), len(store.list(""))] == [1, 2]


def test_a_fault_that_cannot_befall_a_call_lets_it_pass() -> None:
    store = Faulty(FakeStore({"key": b"data"}), at_call(1, "lost"))
    assert store.read("key") == b"data"
    assert store.fired == []


def test_faults_by_chance_come_as_often_as_asked_and_again_with_the_same_seed() -> None:
    def fired(seed: int) -> list[str]:
        store = Faulty(FakeStore(), by_chance(seed, {"lost": 0.2, "stale": 0.5}))
        seen = []
        for number in range(500):
            try:
                store.write(f"key-{number}", b"")
            except StoreUnavailableError:
                seen.append(str(number))
        return seen

    assert fired(1) == fired(1) != fired(2)
    assert 60 < len(fired(1)) < 140


def publish_and_promote(registry: Registry) -> None:
    """What a run does to the registry, at the top of a log of one entry; doing it twice changes nothing."""
    registry.publish(manifest(), deterministic=True)
    registry.record(decision(compared_entry=1))
    head = registry.head()
    if head is not None and head.attempt != "ours":
        registry.append(entry(head.sequence + 1, attempt="ours"))
    registry.repair_cache()


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"deleted"}))
def test_whichever_call_fails_it_is_a_typed_error_or_a_success_and_doing_it_again_heals(fault: str) -> None:
    number = fired = 0
    while True:
        number += 1
        behind = FakeStore()
        Registry(behind, MODEL).append(entry(1, attempt="theirs"))
        store = Faulty(behind, at_call(number, fault))
        told = DeepFMError("nothing")
        try:
            publish_and_promote(Registry(store, MODEL))
        except DeepFMError as error:
            told = error
        attempts = [found.attempt for found in Registry(behind, MODEL).entries()]
        assert not (isinstance(told, ConflictError) and "ours" in attempts), "told that it lost its own entry"
        if number > store.calls:
            break
        fired += len(store.fired)
        publish_and_promote(Registry(behind, MODEL))
        log = Registry(behind, MODEL).entries()
        assert Counter(found.attempt for found in log) == {"theirs": 1, "ours": 1}
        assert behind.read(layout.champion_cache(MODEL)) == log[-1].to_bytes()
    assert fired > 0
