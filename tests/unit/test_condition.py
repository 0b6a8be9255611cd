"""The first entry of a log is refused where a store lets two writers win, and trying that out leaves nothing behind."""

import logging
from pathlib import Path
from typing import Any, cast

import pytest

from deepfm import layout
from deepfm.errors import (
    AccessDeniedError,
    ConfigError,
    ConflictError,
    DeepFMError,
    IntegrityError,
    StoreUnavailableError,
)
from deepfm.registry import Registry
from deepfm.storage import ObjectStore, open_store
from deepfm.storage.condition import require_one_winner, require_refusal
from tests.broken_stores import Flipping, Hasty, Ignoring, Inverting, Odd
from tests.factories import MODEL, entry, manifest
from tests.fault_store import FAULTS, Call, FakeStore, Faulty, at_call

PROBES = layout.model_probes_prefix(MODEL)
LOG = layout.log_prefix(MODEL)


class Killed(BaseException):
    """What a kill looks like from inside."""


def recording(calls: list[tuple[str, str]], store: ObjectStore) -> Faulty:
    """The store; what is asked of it is written down."""

    def note(call: Call) -> None:
        calls.append((call.operation, call.key))

    return Faulty(store, note)


@pytest.mark.parametrize("kind", [Ignoring, Inverting, Hasty])
def test_no_log_begins_on_a_store_that_lets_two_win(tmp_path: Path, kind: type[Odd]) -> None:
    with pytest.raises(ConfigError, match="this store cannot keep a promotion log safely: ") as caught:
        Registry(cast("ObjectStore", kind(tmp_path)), MODEL).append(entry(1))
    assert caught.value.exit_code == 78
    assert "If-None-Match" in caught.value.next_step
    assert open_store(str(tmp_path)).list("") == []


def test_a_store_is_tried_out_once_below_the_model_and_left_as_it_was() -> None:
    calls: list[tuple[str, str]] = []
    store = FakeStore()
    registry = Registry(recording(calls, store), MODEL)
    registry.append(entry(1))
    first = len(calls)
    assert {key.startswith(f"{layout.model_prefix(MODEL)}/") for _, key in calls} == {True}
    assert sum(key.startswith(PROBES) for operation, key in calls if operation == "create") == 6
    assert store.objects().keys() == {layout.log_entry(MODEL, 1), layout.champion_cache(MODEL)}
    registry.append(entry(2))
    Registry(recording(calls, store), MODEL).append(entry(3))
    assert [key for _, key in calls[first:] if key.startswith(PROBES)] == []


def test_a_number_that_was_seen_to_be_taken_tries_nothing_out() -> None:
    calls: list[tuple[str, str]] = []
    registry = Registry(recording(calls, FakeStore({layout.log_entry(MODEL, 1): entry(1).to_bytes()})), MODEL)
    assert registry.head() is not None
    with pytest.raises(ConflictError):
        registry.append(entry(1))
    assert [key for _, key in calls if key.startswith(PROBES)] == []


def test_who_may_not_delete_may_promote(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore()
    faulty = Faulty(store, lambda call: "denied" if call.operation == "delete" else None)
    with caplog.at_level(logging.WARNING):
        Registry(faulty, MODEL).append(entry(1))
    assert "objects by which the store was tried out are left: access is denied" in caplog.text
    assert len([key for key in store.objects() if key.startswith(PROBES)]) == 2


@pytest.mark.parametrize(("below", "begun"), [(LOG, False), (LOG, True), (PROBES, False)])
def test_who_may_not_append_is_told_what_it_takes_and_keeps_the_version(below: str, begun: bool) -> None:  # noqa: FBT001
    store = FakeStore()
    if begun:
        Registry(store, MODEL).append(entry(1))

    def deny(call: Call) -> str | None:
        return "denied" if call.operation == "create" and call.key.startswith(below) else None

    registry, wanted = Registry(Faulty(store, deny), MODEL), entry(2 if begun else 1)
    registry.publish(manifest(), deterministic=True)
    before = store.objects()
    with pytest.raises(AccessDeniedError, match=f"promotion is not permitted: .* required .* below {LOG}/") as caught:
        registry.append(wanted)
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (78, False)
    assert store.objects() == before
    assert Registry(store, MODEL).append(wanted) == wanted


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"deleted"}))
def test_whichever_call_of_a_first_promotion_fails_doing_it_again_heals(fault: str) -> None:
    number = fired = 0
    while True:
        number += 1
        behind, wanted = FakeStore(), entry(1)
        store = Faulty(behind, at_call(number, fault))
        told: DeepFMError | None = None
        try:
            Registry(store, MODEL).append(wanted)
        except DeepFMError as error:
            told = error
        assert not (isinstance(told, ConflictError) and layout.log_entry(MODEL, 1) in behind.objects())
        if number > store.calls:
            break
        fired += len(store.fired)
        assert Registry(behind, MODEL).append(wanted) == wanted
        log = {key: data for key, data in behind.objects().items() if not key.startswith(PROBES)}
        assert log == dict.fromkeys((layout.log_entry(MODEL, 1), layout.champion_cache(MODEL)), wanted.to_bytes())
    assert fired > 0


@pytest.mark.parametrize("number", range(1, 11))
def test_a_kill_while_a_store_is_tried_out_changes_nothing(number: int) -> None:
    def kill(_: Call) -> Any:
        raise Killed

    behind, wanted = FakeStore(), entry(1)
    with pytest.raises(Killed):
        Registry(Faulty(behind, at_call(number, kill)), MODEL).append(wanted)
    assert {key.startswith(PROBES) for key in behind.objects()} <= {True}
    assert Registry(behind, MODEL).append(wanted) == wanted


def test_an_object_that_is_not_there_after_it_was_written_is_transient() -> None:
    behind = FakeStore()
    with pytest.raises(StoreUnavailableError, match="an object is not there after it was written"):
        Registry(Faulty(behind, at_call(3, "stale")), MODEL).append(entry(1))
    assert behind.objects() == {}


class Acknowledging(Odd):
    """A server that acknowledges a second object and keeps the first."""

    def create(self, key: str, data: bytes) -> None:
        try:
            self._store.create(key, data)
        except DeepFMError:
            return


class Swapping(Odd):
    """A server that tells one writer that it won, and stores another one's bytes."""

    def create(self, key: str, data: bytes) -> None:
        try:
            self._store.create(key, data)
        except DeepFMError:
            self._store.write(key, data)
            raise


def test_a_second_object_that_is_acknowledged_and_one_that_is_swapped_are_found_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a second object under one key was acknowledged"):
        require_refusal(cast("ObjectStore", Acknowledging(tmp_path)), "probes/acknowledged")
    with pytest.raises(ConfigError, match="another one's bytes are stored"):
        require_one_winner(cast("ObjectStore", Swapping(tmp_path)), "probes/swapped", writers=2)


def test_bytes_that_changed_are_no_sign_of_a_second_writer(tmp_path: Path) -> None:
    flipping = Flipping(tmp_path)
    flipping.create = flipping.write  # type: ignore[attr-defined]
    with pytest.raises(IntegrityError, match="other bytes than it was written with"):
        require_one_winner(cast("ObjectStore", flipping), "probes/flipped", writers=1)
