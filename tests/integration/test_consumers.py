"""Consumers that read while versions are promoted, and from a bucket whose server goes away."""

import numpy as np
import pytest

from deepfm.errors import StoreUnavailableError
from deepfm.serving import ServedChampion
from deepfm.storage import open_store
from tests.evidence.consumers import read_during_promotions
from tests.factories import MODEL
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
