"""Consumers that read while versions are promoted, and from a bucket whose server goes away."""

import numpy as np
import pytest

from deepfm.errors import NotFoundError, StoreUnavailableError
from deepfm.registry import Registry
from deepfm.serving import ChampionModel, ServedChampion
from deepfm.storage import open_store
from deepfm.storage.s3 import S3Store
from tests.evidence.consumers import read_during_promotions
from tests.factories import MODEL
from tests.fault_wire import spoil
from tests.seaweed import client_of
from tests.tiny_models import answer, put_champion

ROW = {"user": [None], "price": [None]}


def test_reads_during_promotions_are_whole_in_order_and_answered(tmp_path):
    seen = read_during_promotions(tmp_path, reads=3_000, promotions=30)
    assert (seen.torn, seen.backwards, seen.failed) == (0, 0, 0)
    assert seen.reads >= 3_000
    assert seen.versions >= 2


def test_a_bucket_is_followed_and_its_outage_is_served_through(tmp_path, monkeypatch, running_s3):
    with running_s3(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        client_of(server).create_bucket(Bucket="models")
        store = open_store("s3://models/team")
        put_champion(store, 1)
        served = ServedChampion.open(store.url, MODEL, threads=1)
        assert served.refresh() is False
        put_champion(store, 2, bias=1.0)
        assert served.refresh() is True
    with pytest.raises(StoreUnavailableError):
        served.refresh()
    assert served.status.error is not None
    assert served.status.staleness_seconds > 0
    np.testing.assert_allclose(served.predict(ROW), [answer(1.0)], rtol=1e-6)


def test_a_bucket_that_answers_late_turns_no_consumer_back(fresh_bucket):
    store = open_store(f"s3://{fresh_bucket()}")
    put_champion(store, 1)
    late = spoil(S3Store(store.url.removeprefix("s3://")), seed=3, shares={"stale": 0.3})
    champion = ChampionModel.load(store, Registry(store, MODEL).champion(), threads=1)
    served = ServedChampion(late, champion, threads=1, poll_seconds=30.0)
    refused = stood_still = 0
    for sequence in range(2, 12):
        put_champion(store, sequence, bias=sequence / 10)
        Registry(store, MODEL).repair_cache()
        while served.sequence < sequence:
            before = served.sequence
            try:
                stood_still += not served.refresh()
            except (NotFoundError, StoreUnavailableError):
                refused += 1
            assert before <= served.sequence <= sequence
            np.testing.assert_allclose(
                served.predict(ROW), [answer(served.sequence / 10 * (served.sequence > 1))], rtol=1e-6
            )
    assert min(refused, stood_still) > 0, "nothing was late: the test shows nothing"
