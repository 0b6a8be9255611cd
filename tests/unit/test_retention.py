"""What a prune removes, what it never does, and what it leaves behind when it is cut off or overtaken."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm import layout, retention
from deepfm.errors import NotFoundError, StoreUnavailableError, UsageError
from deepfm.promotion import Operator
from deepfm.registry import Registry
from deepfm.retention import Removal, Retention
from deepfm.serving import ChampionModel
from deepfm.storage.local import LocalStore
from tests.factories import MODEL
from tests.fault_store import Faulty
from tests.small_versions import judge, model_key, publish, version_of_day

V = [version_of_day(day) for day in range(10)]
_DAY_NS = 86_400 * 10**9


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Ten versions; 0 to 6 were champion one after the other, 7 to 9 never."""
    return filled(tmp_path)


def filled(folder: Path) -> LocalStore:
    store = LocalStore(folder)
    publish(store, *V)
    for version in V[:7]:
        judge(store, version, "promote")
        Operator(store, MODEL, actor="ann", reason="test").promote(version)
    return store


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """The store's clock is so many days ahead of when everything was written."""
    monkeypatch.setattr(retention, "_clock_ns", lambda _: time.time_ns() + round(days * _DAY_NS))


def pruned(store: LocalStore, *, keep: int = 5) -> list[Removal]:
    return Retention(store, MODEL, keep=keep).prune(actor="ann", reason="make room")


def there(store: LocalStore) -> list[str]:
    return Registry(store, MODEL).versions()


def test_nothing_goes_before_its_time(store, monkeypatch):
    later(monkeypatch, 89.9)
    assert Retention(store, MODEL).plan() == pruned(store) == []
    assert there(store) == V


def test_old_ones_go_and_the_newest_champions_stay(store, monkeypatch):
    later(monkeypatch, 91)
    planned = Retention(store, MODEL).plan()
    assert pruned(store) == planned
    assert [(removal.version, removal.why) for removal in planned] == [
        (V[0], "superseded"),
        (V[1], "superseded"),
        *((version, "never champion") for version in V[7:]),
    ]
    assert {(removal.age_days, removal.files) for removal in planned} == {(91, 2)}
    assert there(store) == V[2:7]
    head = Registry(store, MODEL).head()
    assert head is not None
    assert (head.operation, head.version, head.reason) == ("retire", V[6], "make room")
    assert head.retired == (V[0], V[1], *V[7:])
    assert ChampionModel.open(store.url, MODEL).version == V[6]
    assert pruned(store) == []


def test_one_is_the_least_that_can_be_kept(store, monkeypatch):
    later(monkeypatch, 1000)
    pruned(store, keep=1)
    assert there(store) == [V[6]]
    for keep, days in ((0, 90), (5, 0)):
        with pytest.raises(UsageError, match="keep too little"):
            Retention(store, MODEL, keep=keep, older_than_days=days)


def test_age_counts_from_when_a_champion_was_replaced_last(store, monkeypatch):
    Operator(store, MODEL, actor="ann", reason="test").rollback(V[0])
    later(monkeypatch, 91)
    pruned(store, keep=1)
    assert there(store) == [V[0]]


def test_nobody_goes_back_to_what_was_given_up(store, monkeypatch):
    later(monkeypatch, 91)
    kept = [store.read(layout.version_manifest(MODEL, version)) for version in V[:2]]
    pruned(store)
    operator = Operator(store, MODEL, actor="ann", reason="test")
    # Even where the files are still there, as after a prune that was cut off.
    store.write(layout.version_manifest(MODEL, V[0]), kept[0])
    for act in (operator.rollback, operator.promote):
        with pytest.raises(NotFoundError, match=f"version {V[0]} was given up: .* by ann .make room. .log entry 8"):
            act(V[0], force=True)
    for expected in V[5:1:-1]:
        assert operator.rollback().entry.version == expected
    with pytest.raises(NotFoundError, match="no champion before"):
        operator.rollback()


def test_a_rollback_that_comes_first_keeps_its_version(store, monkeypatch):
    later(monkeypatch, 91)
    planned = retention.Retention._found
    overtaken: list[object] = []

    def overtake(self, entries):
        found = planned(self, entries)
        if not overtaken:
            overtaken.append(Operator(store, MODEL, actor="bob", reason="last good one").rollback(V[0]))
        return found

    monkeypatch.setattr(retention.Retention, "_found", overtake)
    pruned(store)
    assert V[0] in there(store)
    assert ChampionModel.open(store.url, MODEL).version == V[0]
    assert [entry.operation for entry in Registry(store, MODEL).entries()[-2:]] == ["rollback", "retire"]


def test_a_removal_that_was_cut_off_is_finished(store, monkeypatch):
    later(monkeypatch, 91)
    deleted: list[str] = []
    delete = LocalStore.delete

    def fail_at_third(self, key):
        deleted.append(key)
        if len(deleted) == 3:
            raise StoreUnavailableError("store does not answer")
        delete(self, key)

    monkeypatch.setattr(LocalStore, "delete", fail_at_third)
    with pytest.raises(StoreUnavailableError):
        pruned(store)
    assert deleted[0] == layout.version_manifest(MODEL, V[0])
    monkeypatch.setattr(LocalStore, "delete", delete)
    assert {removal.why for removal in pruned(store)} == {"given up before"}
    assert there(store) == V[2:7]
    assert [entry.operation for entry in Registry(store, MODEL).entries()].count("retire") == 1


def test_what_became_no_version_goes_after_a_week(store, monkeypatch):
    half = version_of_day(20)
    strays = {
        layout.file_key(layout.attempt_prefix(MODEL, half, "a" * 32), layout.MODEL_FILE),
        f"{layout.training_prefix(MODEL, half)}/state.safetensors",
        layout.file_key(layout.attempt_prefix(MODEL, V[6], "b" * 32), layout.MODEL_FILE),
    }
    for key in strays:
        store.write(key, b"half")
    later(monkeypatch, 6.9)
    assert pruned(store) == []
    later(monkeypatch, 7.1)
    assert [(removal.version, removal.why, removal.files) for removal in pruned(store)] == [
        (V[6], "no version", 1),
        (half, "no version", 2),
    ]
    assert strays.isdisjoint(info.key for info in store.list(""))
    assert store.read(model_key(V[6]))
    assert there(store) == V


def test_what_trying_out_the_store_has_left_goes_after_a_week(store, monkeypatch):
    left = [layout.model_probe_key(MODEL, "killed"), layout.probe_key("killed")]
    for key in left:
        store.write(key, b"probe")
    later(monkeypatch, 6.9)
    assert pruned(store) == []
    later(monkeypatch, 7.1)
    (removal,) = Retention(store, MODEL).plan()
    assert removal.model_dump() == {"version": "", "why": "probes", "age_days": 7, "files": 2, "size_bytes": 10}
    entries = Registry(store, MODEL).entries()
    assert pruned(store) == [removal]
    assert set(left).isdisjoint(info.key for info in store.list(""))
    assert (there(store), Registry(store, MODEL).entries()) == (V, entries)


def test_without_a_champion_no_version_is_given_up(tmp_path, monkeypatch):
    store = LocalStore(tmp_path)
    later(monkeypatch, 1000)
    assert pruned(store) == []
    publish(store, *V[:2])
    assert pruned(store) == []
    assert there(store) == V[:2]


@settings(max_examples=25, deadline=None)
@given(
    acts=st.lists(st.sampled_from(["rollback", "hold", "release", "promote", "prune"]), max_size=8),
    keep=st.integers(1, 4),
    days=st.sampled_from([1, 100, 1000]),
)
def test_whatever_happened_the_head_and_the_last_champions_stay(tmp_path_factory, acts, keep, days):
    store = filled(tmp_path_factory.mktemp("store"))
    registry, operator = Registry(store, MODEL), Operator(store, MODEL, actor="ann", reason="test")
    with pytest.MonkeyPatch.context() as monkeypatch:
        later(monkeypatch, days)
        for act in [*acts, "prune"]:
            if act == "prune":
                pruned(store, keep=keep)
                continue
            try:
                operator.promote(V[0], force=True) if act == "promote" else getattr(operator, act)()
            except NotFoundError:
                continue
        newest: list[str] = []
        for entry in reversed(registry.entries()):
            if entry.version not in newest:
                newest.append(entry.version)
        given_up = {version for entry in registry.entries() for version in entry.retired}
        assert set(newest[:keep]) <= set(registry.versions())
        assert given_up.isdisjoint({*newest[:keep], *registry.versions()})
        assert ChampionModel.open(store.url, MODEL).version == newest[0]


def test_ages_are_told_by_the_stores_clock_and_not_by_the_machines(store, monkeypatch):
    ahead = time.time_ns() + 1000 * _DAY_NS
    monkeypatch.setattr(time, "time_ns", lambda: ahead)
    monkeypatch.setattr(time, "time", lambda: ahead / 1e9)
    assert pruned(store, keep=1) == []
    assert store.list(layout.PROBES) == []


@pytest.mark.parametrize("prefix", [layout.PROBES, layout.log_prefix(MODEL)])
def test_a_listing_that_lags_is_an_outage_and_nothing_goes(store, prefix):
    before = [info.key for info in store.list("")]
    lagging = Faulty(store, lambda call: "stale" if (call.operation, call.key) == ("list", prefix) else None)
    with pytest.raises(StoreUnavailableError, match="is stored and not listed yet"):
        Retention(lagging, MODEL).prune(actor="ann", reason="tidy up")
    assert [info.key for info in store.list("")] == before
