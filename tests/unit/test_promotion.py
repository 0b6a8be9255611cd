"""What a person may do to the log: promote by name, go back, hold and release; and what a retrain makes of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from deepfm import layout
from deepfm.errors import ConflictError, IntegrityError, NotFoundError, UsageError
from deepfm.manifests import LogEntry
from deepfm.promotion import Change, Operator, find_version
from deepfm.registry import Registry
from deepfm.storage.local import LocalStore
from tests.factories import MODEL, entry
from tests.small_versions import A, B, C, D, judge, model_key, publish, version_of_day


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Four published versions, all cleared by the gate."""
    store = LocalStore(tmp_path)
    publish(store, A, B, C, D)
    for version in (A, B, C, D):
        judge(store, version, "promote")
    return store


@pytest.fixture
def operator(store: LocalStore) -> Operator:
    return operator_of(store)


def operator_of(store: LocalStore, *, actor: str = "ann", reason: str = "because") -> Operator:
    return Operator(store, MODEL, actor=actor, reason=reason)


def log_of(store: LocalStore) -> list[LogEntry]:
    return Registry(store, MODEL).entries()


def acts(store: LocalStore) -> list[tuple[str, str]]:
    return [(found.operation, found.version) for found in log_of(store)]


class TestPromote:
    def test_the_entry_says_who_why_and_what_the_gate_knew(self, store: LocalStore, operator: Operator) -> None:
        operator.promote(A)
        digest = judge(store, B, "inconclusive", against=1, champion=A)
        change = operator_of(store, reason="  checked\n by hand ").promote(B)
        (_, stored) = log_of(store)
        assert change == Change(operation="promote", changed=True, before=A, entry=stored)
        assert (stored.actor, stored.reason, stored.held) == ("ann", "checked by hand", False)
        assert (stored.decision_sha256, stored.compared_entry) == (digest, 1)
        assert (stored.challenger_auc, stored.champion_auc) == (0.7, 0.6)
        assert stored.manifest_sha256 == Registry(store, MODEL).manifest(B)[1]

    def test_the_auc_of_another_champion_is_left_out(self, store: LocalStore, operator: Operator) -> None:
        operator.promote(A)
        judge(store, C, "promote", against=1, champion=A)
        operator.promote(B)
        assert operator.promote(C).entry.champion_auc is None

    def test_an_older_date_is_promoted_by_name(self, store: LocalStore, operator: Operator) -> None:
        operator.promote(D)
        operator.promote(A)
        assert acts(store) == [("promote", D), ("promote", A)]

    def test_the_champion_itself_is_left_alone(self, store: LocalStore, operator: Operator) -> None:
        first = operator.promote(A).entry
        assert operator.promote(A) == Change(operation="promote", changed=False, before=A, entry=first)
        assert len(log_of(store)) == 1

    def test_a_rejected_version_needs_force(self, store: LocalStore, operator: Operator) -> None:
        judge(store, B, "reject", against=3)
        with pytest.raises(UsageError, match=f"{B} may not be promoted: the gate rejected it: the gate says reject"):
            operator.promote(B)
        assert operator.needs_force(B)
        assert log_of(store) == []
        assert operator.promote(B, force=True).changed

    def test_a_version_that_the_gate_never_saw_needs_force(self, store: LocalStore, operator: Operator) -> None:
        unseen = version_of_day(9)
        publish(store, unseen)
        with pytest.raises(UsageError, match="the gate has not judged it"):
            operator.promote(unseen)
        forced = operator.promote(unseen, force=True).entry
        assert (forced.decision_sha256, forced.challenger_auc, forced.compared_entry) == (None, None, 0)

    def test_the_newest_decision_counts(self, store: LocalStore, operator: Operator) -> None:
        judge(store, A, "reject", against=1)
        judge(store, A, "inconclusive", against=2)
        assert operator.promote(A).changed

    def test_of_two_configurations_the_one_that_rejects_counts(self, store: LocalStore, operator: Operator) -> None:
        judge(store, A, "reject", against=2, gate_key="1" * 16)
        judge(store, A, "promote", against=2, gate_key="2" * 16)
        with pytest.raises(UsageError, match="rejected"):
            operator.promote(A)

    def test_an_absent_version_is_named(self, operator: Operator) -> None:
        with pytest.raises(NotFoundError):
            operator.promote(version_of_day(20), force=True)


class TestRollback:
    @pytest.fixture
    def reigned(self, store: LocalStore, operator: Operator) -> LocalStore:
        """A, B and C were promoted, in this order."""
        for version in (A, B, C):
            operator.promote(version)
        return store

    def test_rollback_after_rollback_goes_further_back(self, reigned: LocalStore, operator: Operator) -> None:
        assert [operator.rollback().entry.version for _ in range(2)] == [B, A]
        with pytest.raises(NotFoundError, match=f"there is no champion before {A}"):
            operator.rollback()
        assert len(log_of(reigned)) == 5

    def test_a_champion_that_a_rollback_left_is_not_gone_back_to(self, reigned: LocalStore, operator: Operator) -> None:
        operator.rollback()
        operator.promote(D)
        assert operator.rollback().entry.version == B
        assert acts(reigned)[-3:] == [("rollback", B), ("promote", D), ("rollback", B)]

    def test_a_named_champion_takes_all_above_it_away(self, reigned: LocalStore, operator: Operator) -> None:
        change = operator.rollback(A)
        assert (change.before, change.entry.version, len(log_of(reigned))) == (C, A, 4)
        with pytest.raises(NotFoundError):
            operator.rollback()

    def test_a_named_champion_that_was_left_takes_the_place_of_the_current(
        self, reigned: LocalStore, operator: Operator
    ) -> None:
        operator.rollback()
        operator.rollback(C)
        assert operator.rollback().entry.version == A
        assert acts(reigned)[-3:] == [("rollback", B), ("rollback", C), ("rollback", A)]

    def test_the_target_keeps_its_decision_and_figures(self, reigned: LocalStore, operator: Operator) -> None:
        judge(reigned, D, "promote", against=3, champion=C)
        promoted = operator.promote(D).entry
        assert promoted.champion_auc == 0.6
        operator.promote(A)
        stored = operator.rollback().entry
        for name in ("version", "logical_date", "manifest_sha256", "decision_sha256", "challenger_auc"):
            assert getattr(stored, name) == getattr(promoted, name)
        assert (stored.champion_auc, stored.actor, stored.reason) == (None, "ann", "because")

    def test_the_champion_itself_is_left_alone(self, reigned: LocalStore, operator: Operator) -> None:
        assert not operator.rollback(C).changed
        assert len(log_of(reigned)) == 3

    def test_a_version_that_never_was_champion_needs_force(self, reigned: LocalStore, operator: Operator) -> None:
        with pytest.raises(UsageError, match=f"{D} never was champion"):
            operator.rollback(D)
        assert operator.rollback(D, force=True).entry.version == D
        assert operator.rollback().entry.version == B
        assert len(log_of(reigned)) == 5

    def test_an_absent_version_is_no_target(self, reigned: LocalStore, operator: Operator) -> None:
        with pytest.raises(NotFoundError):
            operator.rollback(version_of_day(20), force=True)
        assert len(log_of(reigned)) == 3

    def test_without_a_champion_there_is_nothing_to_go_back_from(self, operator: Operator) -> None:
        with pytest.raises(NotFoundError, match=f"model {MODEL} has no champion"):
            operator.rollback()

    @pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "manifest", "no model", "other inputs"])
    def test_a_broken_target_is_refused_before_the_log_names_it(
        self, reigned: LocalStore, operator: Operator, damage: str
    ) -> None:
        data = bytearray(reigned.read(model_key(B)))
        if damage == "flipped":
            data[len(data) // 2] ^= 1
            reigned.write(model_key(B), bytes(data))
        elif damage == "cut":
            reigned.write(model_key(B), bytes(data[:-1]))
        elif damage == "gone":
            reigned.delete(model_key(B))
        elif damage == "manifest":
            key = layout.version_manifest(MODEL, B)
            reigned.write(key, reigned.read(key) + b" ")
        else:
            broken_forever(reigned, damage)
        with pytest.raises((IntegrityError, NotFoundError)):
            operator.rollback()
        assert len(log_of(reigned)) == 3


def broken_forever(store: LocalStore, damage: str) -> None:
    """B was published and logged with a file that cannot be loaded: every digest is right."""
    registry = Registry(store, MODEL)
    store.delete(layout.version_manifest(MODEL, B))
    publish(store, B, data=b"no model") if damage == "no model" else publish(store, B)
    if damage == "other inputs":
        manifest = registry.manifest(B)[0]
        store.write(
            layout.version_manifest(MODEL, B), manifest.model_copy(update={"inputs": manifest.inputs[:2]}).to_bytes()
        )
    logged = registry.entry(2)
    assert logged is not None
    renewed = logged.model_copy(update={"manifest_sha256": registry.manifest(B)[1]})
    store.write(layout.log_entry(MODEL, 2), renewed.to_bytes())


class TestHold:
    def test_a_hold_stays_through_what_people_do_until_a_release(self, store: LocalStore, operator: Operator) -> None:
        operator.promote(A)
        operator.hold()
        operator.promote(B)
        operator.rollback()
        operator.release()
        operator.promote(B)
        assert [found.held for found in log_of(store)] == [False, True, True, True, False, False]
        assert {found.version for found in log_of(store)[1:2]} == {A}

    def test_a_second_hold_or_release_changes_nothing(self, store: LocalStore, operator: Operator) -> None:
        operator.promote(A)
        assert not operator.release().changed
        assert operator.hold().changed
        assert not operator.hold().changed
        assert acts(store) == [("promote", A), ("hold", A)]

    def test_without_a_champion_there_is_nothing_to_hold(self, operator: Operator) -> None:
        for act in (operator.hold, operator.release):
            with pytest.raises(NotFoundError, match="has no champion"):
                act()


@pytest.mark.parametrize("reason", ["", " \n\t ", "x" * 501, "a\x1b[31mred"])
def test_a_reason_that_the_log_cannot_keep_is_refused(store: LocalStore, reason: str) -> None:
    with pytest.raises(UsageError, match="--reason") as refused:
        operator_of(store, reason=reason)
    assert "\x1b" not in str(refused.value)


class TestFindVersion:
    def test_a_version_is_found_by_its_id_and_by_its_date(self, store: LocalStore) -> None:
        registry = Registry(store, MODEL)
        assert registry.versions() == [A, B, C, D]
        assert find_version(registry, B) == find_version(registry, B[:10]) == B

    def test_a_date_of_several_versions_names_them(self, store: LocalStore) -> None:
        other = f"{A[:10]}-{'f' * 16}"
        publish(store, other)
        with pytest.raises(UsageError, match=f"{A[:10]} has 2 versions: {A}, {other}"):
            find_version(Registry(store, MODEL), A[:10])

    def test_an_absent_one_names_the_newest(self, store: LocalStore) -> None:
        for text in ("2031-01-01", version_of_day(20)):
            with pytest.raises(NotFoundError, match=f"version {text} is not there: the newest are {B}, {C}, {D}"):
                find_version(Registry(store, MODEL), text)
        with pytest.raises(NotFoundError, match=r"deepfm history --config M\.toml$"):
            find_version(Registry(store, MODEL), "2031-01-01")

    def test_a_model_without_versions_gets_the_command_that_makes_one(self, store: LocalStore) -> None:
        with pytest.raises(NotFoundError, match=r"has no version yet\. Make one: deepfm run --config M\.toml"):
            find_version(Registry(store, "other"), "2031-01-01")

    def test_other_text_is_refused(self, store: LocalStore) -> None:
        with pytest.raises(UsageError, match=r"version id is not allowed: .*deepfm history --config M\.toml$"):
            find_version(Registry(store, MODEL), "newest")

    def test_files_of_a_version_without_manifest_are_none(self, store: LocalStore) -> None:
        store.delete(layout.version_manifest(MODEL, D))
        assert Registry(store, MODEL).versions() == [A, B, C]


class Overtaken(LocalStore):
    """A folder in which somebody else appends just before the next entry."""

    def create(self, key: str, data: bytes) -> None:
        if key.startswith(layout.log_prefix(MODEL)):
            super().create(key, entry(layout.log_sequence(key), actor="bob").to_bytes())
        super().create(key, data)


@pytest.mark.parametrize("act", ["promote", "rollback", "hold"])
def test_a_lost_race_says_who_won_and_when(store: LocalStore, tmp_path: Path, act: str) -> None:
    for version in (A, B):
        operator_of(store).promote(version)
    late = operator_of(Overtaken(tmp_path))
    calls = {"promote": lambda: late.promote(C), "rollback": late.rollback, "hold": late.hold}
    with pytest.raises(ConflictError, match=r"log entry 3 was appended by somebody else: .* by bob on 2026-03-02"):
        calls[act]()
    assert len(log_of(store)) == 3


def test_people_who_race_make_one_log_in_which_every_winner_is_once(store: LocalStore) -> None:
    operator_of(store).promote(A)
    people = 6
    start = threading.Barrier(people)
    won: list[Change] = []
    lost: list[ConflictError] = []

    def act(number: int) -> None:
        operator = operator_of(store, actor=f"person {number}")
        start.wait()
        for turn in range(4):
            try:
                if turn % 2:
                    operator.hold() if number % 2 else operator.release()
                else:
                    won.append(operator.promote((A, B, C, D)[(number + turn) % 4]))
            except ConflictError as conflict:
                lost.append(conflict)

    with ThreadPoolExecutor(people) as pool:
        list(pool.map(act, range(people)))
    log = log_of(store)
    assert [found.sequence for found in log] == list(range(1, len(log) + 1))
    attempts = [change.entry.attempt for change in won if change.changed]
    assert len(attempts) == len(set(attempts))
    assert set(attempts) == {found.attempt for found in log[1:] if found.operation == "promote"}
    for before, after in pairwise(log):
        assert after.held == {"hold": True, "release": False}.get(after.operation, before.held)
        assert after.operation == "promote" or after.version == before.version
    assert lost, "no two people ever met: the test shows nothing"
