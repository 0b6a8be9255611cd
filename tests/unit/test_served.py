"""A long-lived consumer: it follows the log, keeps what it has when something is wrong, and says how old that is."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deepfm import layout, serving
from deepfm.errors import IntegrityError, NotFoundError, StoreUnavailableError, UsageError
from deepfm.golden import Golden
from deepfm.loading import ChampionModel
from deepfm.registry import Registry
from deepfm.serving import ServedChampion
from deepfm.storage.local import LocalStore
from tests.factories import MODEL
from tests.tiny_models import (
    answer,
    entry_of,
    model_key,
    put_champion,
    put_entry,
    put_version,
    tiny_model,
    version_of,
)

ROW = {"user": [None], "price": [None]}
NOTHING: dict[str, str | int | float | None] = {"user": None, "price": None}


class WatchedStore(LocalStore):
    """It notes what is read, and fails or damages a read where a test asks for it."""

    def __init__(self, root):
        super().__init__(root)
        self.reads: list[str] = []
        self.down = False
        self.damaged: list[str] = []

    def read(self, key, *, most_bytes=None):
        self.reads.append(key)
        if self.down:
            raise StoreUnavailableError("store does not answer", where=self.url)
        data = super().read(key, most_bytes=most_bytes)
        if self.damaged and key.endswith(self.damaged[0]):
            self.damaged.pop(0)
            return data[:-3]
        return data


@pytest.fixture
def store(tmp_path):
    store = WatchedStore(tmp_path / "store")
    put_champion(store, 1)
    return store


def serve(store, **options):
    champion = ChampionModel.load(store, Registry(store, MODEL).champion(), threads=1)
    return ServedChampion(store, champion, threads=1, **{"poll_seconds": 30.0, **options})


@pytest.fixture
def served(store):
    return serve(store)


def scores(served, bias):
    return served.predict(ROW)[0] == pytest.approx(answer(bias), abs=1e-6)


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_opens_by_url(store):
    served = ServedChampion.open(store.url, MODEL, threads=1)
    assert (served.version, served.sequence) == (version_of(1), 1)
    assert served.model.version == served.version
    np.testing.assert_array_equal(served.predict(ROW), served.model.predict(ROW))


def test_nothing_new_costs_one_read_of_the_next_entry(served, store, monkeypatch):
    monkeypatch.setattr(WatchedStore, "url", "s3://bucket/prefix")
    store.reads.clear()
    assert served.refresh() is False
    assert store.reads == [layout.log_entry(MODEL, 2)]


def test_a_promotion_is_served_from_the_next_refresh_on(served, store):
    put_champion(store, 2, bias=1.0)
    assert scores(served, 0.0)
    assert served.refresh() is True
    assert (served.version, served.sequence) == (version_of(2), 2)
    assert scores(served, 1.0)
    assert served.refresh() is False


def test_only_the_last_of_several_promotions_is_loaded(served, store):
    for sequence in range(2, 6):
        put_champion(store, sequence, bias=sequence)
    store.reads.clear()
    served.refresh()
    assert served.sequence == 5
    assert scores(served, 5)
    assert [key for key in store.reads if key.endswith(".onnx")] == [model_key(version_of(5))]


def test_a_cache_saves_the_way_up(served, store):
    for sequence in range(2, 12):
        put_champion(store, sequence, bias=sequence)
    Registry(store, MODEL).repair_cache()
    store.reads.clear()
    served.refresh()
    assert served.sequence == 11
    assert len([key for key in store.reads if "/log/" in key]) == 3


@pytest.mark.parametrize("operation", ["hold", "release"])
def test_a_hold_advances_without_loading_anything(served, store, operation):
    put_entry(store, entry_of(2, version_of(1), served.model.entry.manifest_sha256, operation))
    store.reads.clear()
    assert served.refresh() is True
    assert served.sequence == 2
    assert not [key for key in store.reads if "/versions/" in key]
    assert scores(served, 0.0)


def test_a_rollback_is_served_under_a_higher_number(served, store):
    put_champion(store, 2, bias=1.0)
    served.refresh()
    put_champion(store, 3, version=version_of(1))
    served.refresh()
    assert (served.version, served.sequence) == (version_of(1), 3)
    assert scores(served, 0.0)


def test_it_never_goes_back_when_the_log_does(served, store):
    put_champion(store, 2, bias=1.0)
    served.refresh()
    store.delete(layout.log_entry(MODEL, 2))
    with pytest.raises(StoreUnavailableError, match=r"log entry 2 was served and is gone"):
        served.refresh()
    assert served.sequence == 2
    assert scores(served, 1.0)


def test_a_call_in_flight_is_answered_by_the_model_that_it_began_with(served, store):
    model = served.model
    put_champion(store, 2, bias=1.0)
    served.refresh()
    assert model.predict(ROW)[0] == pytest.approx(answer(0.0), abs=1e-6)
    assert scores(served, 1.0)


@pytest.mark.parametrize("part", ["model.onnx", "manifest.json", "000000000002.json"])
def test_a_body_that_was_cut_off_is_read_once_more(served, store, part):
    put_champion(store, 2, bias=1.0)
    store.damaged = [part]
    assert served.refresh() is True
    assert scores(served, 1.0)


@pytest.mark.parametrize("part", ["model.onnx", "manifest.json", "000000000002.json"])
def test_what_is_damaged_twice_is_refused_and_the_old_model_stays(served, store, part):
    put_champion(store, 2, bias=1.0)
    store.damaged = [part] * 2
    with pytest.raises(IntegrityError) as refusal:
        served.refresh()
    assert "\n" not in str(refusal.value)
    assert (served.version, served.sequence, served.status.error) == (version_of(1), 1, str(refusal.value))
    assert scores(served, 0.0)
    assert served.refresh() is True
    assert served.status.error is None
    assert scores(served, 1.0)


def test_a_version_that_is_gone_leaves_the_old_one(served, store):
    put_champion(store, 2)
    store.delete(model_key(version_of(2)))
    with pytest.raises(NotFoundError):
        served.refresh()
    assert served.sequence == 1


def test_golden_rows_are_scored_when_a_model_is_loaded(served, store):
    data = tiny_model(1.0).SerializeToString()
    golden = Golden(rows=({"user": "u1", "price": 0.5}, NOTHING), probabilities=(0.5, answer(1.0)))
    put_entry(store, entry_of(2, version_of(2), put_version(store, version_of(2), data, golden=golden)))
    with pytest.raises(IntegrityError, match=r"answers otherwise than it should: 0\.8\d+ for row 0, required 0\.5"):
        served.refresh()
    assert scores(served, 0.0)


@pytest.mark.parametrize(("off", "accepted"), [(0.9e-4, True), (1.1e-4, False), (-1.1e-4, False)])
def test_golden_rows_allow_for_another_processor_and_no_more(served, store, off, accepted):
    data = tiny_model(1.0).SerializeToString()
    golden = Golden(rows=(NOTHING,), probabilities=(answer(1.0) + off,))
    put_entry(store, entry_of(2, version_of(2), put_version(store, version_of(2), data, golden=golden)))
    if accepted:
        assert served.refresh() is True
    else:
        with pytest.raises(IntegrityError):
            served.refresh()


def test_an_outage_is_served_through_and_told(served, store, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    served.refresh()
    store.down = True
    for age in (0.0, 3600.0, 86400.0):
        now[0] = 1000.0 + age
        with pytest.raises(StoreUnavailableError):
            served.refresh()
        assert scores(served, 0.0)
        assert served.staleness_seconds == age
        assert served.status.error == f"store does not answer ({store.url})"
    store.down = False
    put_champion(store, 2, bias=1.0)
    assert served.refresh() is True
    assert (served.staleness_seconds, served.status.error) == (0.0, None)
    assert scores(served, 1.0)


def test_a_folder_that_is_not_mounted_is_an_outage_and_not_an_empty_log(served, tmp_path):
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(StoreUnavailableError, match="Check that the folder is mounted"):
        served.refresh()
    assert scores(served, 0.0)
    (tmp_path / "away").rename(tmp_path / "store")
    assert served.refresh() is False


def test_the_status_says_what_is_served(served):
    status = served.status
    assert status.model == MODEL
    assert (status.version, status.sequence) == (version_of(1), 1)
    assert status.logical_date == layout.version_date(version_of(1))
    assert status.promoted_utc == served.model.entry.created_utc
    assert status.staleness_seconds >= 0
    assert (status.error, status.watching) == (None, False)


def test_two_refreshes_at_once_load_a_model_once(served, store):
    put_champion(store, 2, bias=1.0)
    store.reads.clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: served.refresh(), range(8)))
    assert sorted(found) == [False] * 7 + [True]
    assert store.reads.count(model_key(version_of(2))) == 1


def test_the_watch_follows_promotions_and_ends(store):
    served = serve(store, poll_seconds=0.01)
    with served.watch() as same:
        assert same is served
        assert served.status.watching
        served.start()
        assert [thread.name for thread in threading.enumerate()].count(f"deepfm-{MODEL}") == 1
        put_champion(store, 2, bias=1.0)
        wait(lambda: served.sequence == 2)
        assert scores(served, 1.0)
    wait(lambda: not served.status.watching)
    put_champion(store, 3, bias=2.0)
    time.sleep(0.1)
    assert served.sequence == 2
    with served.watch():
        wait(lambda: served.sequence == 3)


def test_a_watch_stops_in_the_middle_of_a_long_pause(store):
    served = serve(store, poll_seconds=3600.0)
    served.start()
    began = time.monotonic()
    served.stop()
    assert time.monotonic() - began < 30
    assert not served.status.watching


def test_the_watch_outlives_every_error_and_tells_each_once(store, caplog):
    caplog.set_level(logging.INFO, logger="deepfm.serving")
    served = serve(store, poll_seconds=0.005)
    with served.watch():
        store.down = True
        store.reads.clear()
        wait(lambda: len(store.reads) > 5)
        store.down = False
        put_champion(store, 2, bias=1.0)
        wait(lambda: served.sequence == 2)
        wait(lambda: "the log can be followed again" in caplog.messages)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"{version_of(1)} is served on: store does not answer ({store.url})"]


def test_a_watch_outlives_a_bug(store, monkeypatch, caplog):
    served = serve(store, poll_seconds=0.005)
    right = ChampionModel.load

    def wrong(*_, **__):
        raise IndexError("nobody has thought of this")

    monkeypatch.setattr(ChampionModel, "load", wrong)
    with served.watch():
        put_champion(store, 2, bias=1.0)
        wait(lambda: served.status.error is not None)
        assert served.status.error == "nobody has thought of this"
        assert served.status.watching
        monkeypatch.setattr(ChampionModel, "load", right)
        wait(lambda: served.sequence == 2)
    assert "IndexError" in caplog.text


def test_the_pause_has_jitter_and_backs_off_to_eight_polls():
    for failures, polls in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 8), (10_000, 8)]:
        pauses = [serving._pause(30.0, failures) for _ in range(200)]
        assert 0.8 * 30 * polls <= min(pauses) < max(pauses) <= 1.2 * 30 * polls
        assert len(set(pauses)) > 100


@pytest.mark.parametrize("poll_seconds", [0.0, -1.0, float("nan")])
def test_a_pause_that_is_none_is_refused(store, poll_seconds):
    with pytest.raises(UsageError, match="pause between polls"):
        serve(store, poll_seconds=poll_seconds)
