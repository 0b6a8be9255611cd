"""Versions, decisions and the promotion log, on a folder that fails on demand."""

import datetime as dt
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm import layout
from deepfm.documents import sha256_hex
from deepfm.errors import ConfigError, ConflictError, IntegrityError, NotFoundError, StoreUnavailableError, UsageError
from deepfm.manifests import LogEntry
from deepfm.registry import Registry
from deepfm.storage.local import LocalStore
from tests.factories import DAY, MODEL, VERSION, decision, entry, manifest
from tests.fault_store import Faulty

if TYPE_CHECKING:
    from collections.abc import Callable


class FaultyStore(LocalStore):
    """A folder whose next log entries meet what the test says, and which records its writes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.on_create: list[Callable[[str, bytes], None]] = []
        self.read_only = False
        self.writes: list[str] = []
        self.reads: list[str] = []

    def read(self, key: str, *, most_bytes: int | None = None) -> bytes:
        self.reads.append(key)
        return super().read(key, most_bytes=most_bytes)

    def create(self, key: str, data: bytes) -> None:
        self._refuse_if_read_only()
        if self.on_create and key.startswith(layout.log_prefix(MODEL)):
            self.on_create.pop(0)(key, data)
        else:
            super().create(key, data)

    def write(self, key: str, data: bytes) -> None:
        self._refuse_if_read_only()
        self.writes.append(key)
        super().write(key, data)

    def applied_but_unanswered(self, key: str, data: bytes) -> None:
        super().create(key, data)
        raise StoreUnavailableError("answer was lost")

    def not_applied(self, _key: str, _data: bytes) -> None:
        raise StoreUnavailableError("answer was lost")

    def acknowledged_but_not_kept(self, _key: str, _data: bytes) -> None:
        return

    def acknowledged_over_another(self, key: str, _data: bytes) -> None:
        """As a server that ignores the condition, overtaken between its answer and our read."""
        super().write(key, entry(layout.log_sequence(key), actor="somebody").to_bytes())

    def acknowledged_and_mangled(self, key: str, data: bytes) -> None:
        super().write(key, data + b" ")

    def _refuse_if_read_only(self) -> None:
        if self.read_only:
            raise ConfigError("access is denied")


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(tmp_path)


@pytest.fixture
def registry(store: FaultyStore) -> Registry:
    return Registry(store, MODEL)


def filled(registry: Registry, count: int) -> list[LogEntry]:
    return [registry.append(entry(sequence)) for sequence in range(1, count + 1)]


class TestVersions:
    def test_a_published_manifest_is_found_with_the_digest_of_its_bytes(
        self, registry: Registry, store: FaultyStore
    ) -> None:
        published = registry.publish(manifest(), deterministic=True)
        data = store.read(layout.version_manifest(MODEL, VERSION))
        assert registry.manifest(VERSION) == (published, sha256_hex(data))

    def test_the_first_manifest_wins(self, registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
        first = registry.publish(manifest(attempt="first"), deterministic=True)
        assert registry.publish(manifest(attempt="second"), deterministic=True) == first
        assert caplog.records == []

    def test_other_model_bytes_are_a_conflict_only_where_training_is_deterministic(
        self, registry: Registry, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = registry.publish(manifest(onnx=b"one"), deterministic=True)
        other = manifest(onnx=b"two")
        with pytest.raises(ConflictError, match=f"sha256 {sha256_hex(b'two')}, required {sha256_hex(b'one')}"):
            registry.publish(other, deterministic=True)
        with caplog.at_level(logging.WARNING):
            assert registry.publish(other, deterministic=False) == first
        assert "exists with another model.onnx" in caplog.text

    def test_an_absent_version_is_not_found(self, registry: Registry) -> None:
        with pytest.raises(NotFoundError):
            registry.manifest(VERSION)

    def test_a_manifest_under_the_wrong_key_is_refused(self, registry: Registry, store: FaultyStore) -> None:
        store.write(layout.version_manifest(MODEL, VERSION), manifest(model="other").to_bytes())
        with pytest.raises(IntegrityError, match="under the key of another"):
            registry.manifest(VERSION)

    def test_documents_of_another_model_are_refused(self, registry: Registry) -> None:
        for call in (
            lambda: registry.publish(manifest(model="other"), deterministic=True),
            lambda: registry.append(entry(1, model="other")),
        ):
            with pytest.raises(UsageError, match="another model"):
                call()


class TestDecisions:
    def test_the_first_decision_stays(self, registry: Registry) -> None:
        first, digest = registry.record(decision(reason="first"))
        assert digest == sha256_hex(first.to_bytes())
        assert registry.record(decision(reason="second")) == (first, digest)

    def test_decisions_come_by_the_entry_they_were_made_against(self, registry: Registry) -> None:
        for compared in (10, 9, 0):
            registry.record(decision(compared_entry=compared))
        registry.record(decision(compared_entry=9, gate_key="0" * 16))
        found = registry.decisions(DAY, VERSION)
        assert [(d.compared_entry, d.gate_key[0]) for d in found] == [(0, "c"), (9, "0"), (9, "c"), (10, "c")]
        assert registry.decisions(DAY, f"{DAY}-{'b' * 16}") == []
        assert registry.decisions(DAY + dt.timedelta(days=1), VERSION) == []


class TestHead:
    def test_an_empty_log_has_no_head(self, registry: Registry) -> None:
        assert registry.head() is None
        assert registry.repair_cache() is None
        assert registry.entries() == []

    def test_a_current_cache_saves_the_way_up(self, registry: Registry, store: FaultyStore) -> None:
        last = filled(registry, 5)[-1]
        store.reads.clear()
        assert registry.head() == last
        assert store.reads == [layout.champion_cache(MODEL), layout.log_entry(MODEL, 5), layout.log_entry(MODEL, 6)]

    def test_a_stale_cache_is_only_where_the_way_begins(self, registry: Registry, store: FaultyStore) -> None:
        filled(registry, 2)
        stale = store.read(layout.champion_cache(MODEL))
        third = registry.append(entry(3))
        store.write(layout.champion_cache(MODEL), stale)
        assert registry.head() == third
        registry.repair_cache()
        assert store.read(layout.champion_cache(MODEL)) == third.to_bytes()

    @pytest.mark.parametrize(
        "cache",
        [
            b"",
            b"\xff\x00",
            b"{}",
            b"[" * 10_000,
            entry(2).to_bytes(),
            entry(3).to_bytes(),
            entry(9).to_bytes(),
            entry(10**12).to_bytes(),
            entry(10**400).to_bytes(),
            entry(2, model="other").to_bytes(),
        ],
        ids=["empty", "noise", "no-fields", "nested", "forged", "forged-head", "high", "high-13", "huge", "foreign"],
    )
    def test_a_cache_that_the_log_does_not_confirm_is_ignored_and_repaired(
        self, registry: Registry, store: FaultyStore, caplog: pytest.LogCaptureFixture, cache: bytes
    ) -> None:
        last = filled(registry, 3)[-1]
        store.write(layout.champion_cache(MODEL), cache)
        assert registry.head() == last
        assert "the cache of the champion is ignored" in caplog.text
        assert registry.repair_cache() == last
        assert store.read(layout.champion_cache(MODEL)) == last.to_bytes()

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=200))
    def test_no_bytes_in_the_cache_change_the_head(
        self, tmp_path_factory: pytest.TempPathFactory, cache: bytes
    ) -> None:
        store = FaultyStore(tmp_path_factory.mktemp("cache"))
        registry = Registry(store, MODEL)
        last = filled(registry, 2)[-1]
        store.write(layout.champion_cache(MODEL), cache)
        assert registry.head() == last

    def test_a_reader_needs_no_right_to_write(self, registry: Registry, store: FaultyStore) -> None:
        entries = filled(registry, 2)
        store.write(layout.champion_cache(MODEL), b"damaged")
        store.read_only = True
        assert registry.head() == entries[-1]
        assert registry.entries() == entries

    def test_a_damaged_log_entry_is_an_error_and_not_the_end(self, registry: Registry, store: FaultyStore) -> None:
        filled(registry, 3)
        for damage in (b"{", entry(1).to_bytes(), entry(2, model="other").to_bytes()):
            store.write(layout.log_entry(MODEL, 2), damage)
            store.delete(layout.champion_cache(MODEL))
            for call in (registry.head, registry.entries):
                with pytest.raises(IntegrityError):
                    call()

    def test_a_current_cache_is_not_written_again(self, registry: Registry, store: FaultyStore) -> None:
        filled(registry, 1)
        store.writes.clear()
        registry.repair_cache()
        assert store.writes == []

    def test_a_log_that_was_longer_before_is_not_believed(self, registry: Registry, store: FaultyStore) -> None:
        filled(registry, 3)
        store.delete(layout.log_entry(MODEL, 3))
        for call in (registry.head, registry.entries):
            with pytest.raises(StoreUnavailableError, match="entry 2 as the last one, required entry 3"):
                call()
        assert Registry(store, MODEL).entries() == [registry.entry(1), registry.entry(2)]


class TestHistory:
    def test_the_log_comes_oldest_first(self, registry: Registry) -> None:
        assert filled(registry, 12) == registry.entries()

    def test_clocks_that_are_days_apart_order_nothing(self, registry: Registry, store: FaultyStore) -> None:
        for number in range(1, 6):
            written = entry(number)
            ahead = dt.timedelta(days=number % 2 - number)
            registry.append(written.model_copy(update={"created_utc": written.created_utc + ahead}))
        assert [found.sequence for found in registry.entries()] == [1, 2, 3, 4, 5]
        store.delete(layout.champion_cache(MODEL))
        head = Registry(store, MODEL).repair_cache()
        assert head is not None
        assert head.sequence == 5
        assert store.read(layout.champion_cache(MODEL)) == head.to_bytes()

    def test_a_gap_is_named(self, registry: Registry, store: FaultyStore) -> None:
        filled(registry, 4)
        store.delete(layout.log_entry(MODEL, 2))
        with pytest.raises(IntegrityError, match="log entry 2 is missing: entry 4 exists"):
            registry.entries()

    def test_an_entry_that_is_listed_and_not_given_is_no_gap(self, registry: Registry, store: FaultyStore) -> None:
        filled(registry, 4)
        late = Faulty(store, lambda call: "stale" if call.key == layout.log_entry(MODEL, 2) else None)
        with pytest.raises(StoreUnavailableError, match="log entry 2 is listed and is not given"):
            Registry(late, MODEL).entries()

    def test_what_is_no_entry_is_passed_over(self, registry: Registry, store: FaultyStore) -> None:
        entries = filled(registry, 2)
        store.write(f"{layout.log_prefix(MODEL)}/notes.txt", b"")
        assert registry.entries() == entries


class TestAppend:
    def test_an_entry_is_stored_and_cached(self, registry: Registry, store: FaultyStore) -> None:
        wanted = entry(1)
        assert registry.append(wanted) == wanted
        assert store.read(layout.log_entry(MODEL, 1)) == store.read(layout.champion_cache(MODEL)) == wanted.to_bytes()

    def test_a_taken_number_names_who_and_when(self, registry: Registry) -> None:
        first = registry.append(entry(1, actor="nightly"))
        with pytest.raises(ConflictError, match=rf"promote of {VERSION} by nightly on 2026-03-02 04:05:06\+0000"):
            registry.append(entry(1))
        assert registry.entries() == [first]

    def test_the_same_append_twice_is_one_entry(self, registry: Registry) -> None:
        wanted = entry(1)
        registry.append(wanted)
        later = wanted.model_copy(update={"created_utc": wanted.created_utc + dt.timedelta(hours=1)})
        assert registry.append(later) == wanted
        assert registry.entries() == [wanted]

    def test_a_gap_is_refused(self, registry: Registry) -> None:
        filled(registry, 1)
        with pytest.raises(UsageError, match="would leave a gap"):
            registry.append(entry(3))
        assert len(registry.entries()) == 1

    def test_a_lost_answer_after_success_is_a_success(self, registry: Registry, store: FaultyStore) -> None:
        store.on_create = [store.applied_but_unanswered]
        wanted = entry(1)
        assert registry.append(wanted) == wanted
        assert registry.head() == wanted

    def test_a_lost_answer_without_success_is_transient(self, registry: Registry, store: FaultyStore) -> None:
        store.on_create = [store.not_applied]
        with pytest.raises(StoreUnavailableError, match="answer was lost"):
            registry.append(entry(1))
        assert registry.entries() == []

    def test_a_lost_answer_and_another_winner_is_a_conflict(self, registry: Registry, store: FaultyStore) -> None:
        registry.append(entry(1, actor="winner"))
        store.on_create = [store.not_applied]
        with pytest.raises(ConflictError, match="by winner"):
            registry.append(entry(1))

    def test_an_acknowledged_entry_that_is_not_there_is_transient(self, registry: Registry, store: FaultyStore) -> None:
        store.on_create = [store.acknowledged_but_not_kept]
        with pytest.raises(StoreUnavailableError, match="is not there after it was written"):
            registry.append(entry(1))

    def test_a_store_that_ignores_the_condition_is_found_out(self, registry: Registry, store: FaultyStore) -> None:
        store.on_create = [store.acknowledged_over_another]
        with pytest.raises(ConflictError, match="by somebody"):
            registry.append(entry(1))

    def test_a_store_that_changes_the_bytes_is_found_out(self, registry: Registry, store: FaultyStore) -> None:
        store.on_create = [store.acknowledged_and_mangled]
        with pytest.raises(IntegrityError, match="holds other bytes"):
            registry.append(entry(1))

    def test_a_cache_that_cannot_be_written_does_not_undo_the_commit(
        self,
        registry: Registry,
        store: FaultyStore,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def refuse(_key: str, _data: bytes) -> None:
            raise ConfigError("access is denied")

        monkeypatch.setattr(store, "write", refuse)
        wanted = entry(1)
        assert registry.append(wanted) == wanted
        assert "could not be repaired" in caplog.text
        assert registry.head() == wanted

    def test_a_late_writer_does_not_move_the_cache_back(self, registry: Registry, store: FaultyStore) -> None:
        first, second = entry(1), entry(2)

        def overtaken(key: str, data: bytes) -> None:
            LocalStore.create(store, key, data)
            registry.append(second)

        store.on_create = [overtaken]
        assert registry.append(first) == first
        assert store.read(layout.champion_cache(MODEL)) == second.to_bytes()


def test_racing_writers_make_one_gapless_log(tmp_path: Path) -> None:
    """Every writer appends above the head that it sees; each success is in the log once, each failure not at all."""
    writers, rounds = 8, 6
    won: list[LogEntry] = []
    lost: list[LogEntry] = []
    start = threading.Barrier(writers)

    def write(number: int) -> None:
        registry = Registry(LocalStore(tmp_path), MODEL)
        start.wait()
        for _ in range(rounds):
            head = registry.head()
            wanted = entry(head.sequence + 1 if head else 1, actor=f"writer-{number}")
            try:
                won.append(registry.append(wanted))
            except ConflictError:
                lost.append(wanted)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    log = Registry(LocalStore(tmp_path), MODEL).entries()
    assert [e.sequence for e in log] == list(range(1, len(won) + 1))
    assert {e.attempt for e in log} == {e.attempt for e in won}
    assert len(won) + len(lost) == writers * rounds
    assert lost, "no two writers ever met: the test shows nothing"
    assert Registry(LocalStore(tmp_path), MODEL).head() == log[-1]


def test_the_registry_loads_nothing_that_a_consumer_lacks() -> None:
    script = (
        "import sys, deepfm.registry, deepfm.storage\n"
        "print(*{'torch', 'pandas', 'pyarrow', 'great_expectations', 'prefect', 'onnx', 'boto3'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
