"""Writers that race for one log on a folder and in a bucket, with answers that are lost, late or refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deepfm.storage import ObjectStore, open_store
from deepfm.storage.s3 import S3Store
from tests.factories import MODEL
from tests.fault_wire import REFUSALS, spoil
from tests.histories import History, anomalies, stored_log
from tests.log_writers import Historian, race, race_of_processes


def untrue(history: History, store: ObjectStore, entries: int) -> list[str]:
    """The anomalies of a race that was one."""
    log = stored_log(store, MODEL)
    told = [append.told for append in history.appends]
    assert len(log) >= entries
    assert {"committed", "conflict"} <= set(told), "nobody lost: the race shows nothing"
    return anomalies(history, log)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_of_sixteen_writers_in_four_processes_every_loser_is_told_the_truth(tmp_path: Path) -> None:
    history = race_of_processes(tmp_path.as_uri(), processes=4, writers=4, entries=300, thinks_seconds=0.01)
    assert untrue(history, open_store(tmp_path.as_uri()), 300) == []


def test_of_sixteen_writers_to_a_bucket_every_loser_is_told_the_truth(fresh_bucket: Callable[[], str]) -> None:
    bucket = fresh_bucket()
    store = spoil(S3Store(bucket), seed=1, shares=REFUSALS)
    history = race(lambda: store, writers=16, entries=100, thinks_seconds=0.05, weather={})
    assert untrue(history, open_store(f"s3://{bucket}"), 100) == []


def test_a_bucket_that_answers_late_turns_no_writer_and_no_reader_back(fresh_bucket: Callable[[], str]) -> None:
    bucket = fresh_bucket()
    store = spoil(S3Store(bucket), seed=2, shares={**REFUSALS, "stale": 0.02})
    history = race(lambda: store, writers=8, entries=30, thinks_seconds=0.05, weather={}, kind=Historian)
    assert untrue(history, open_store(f"s3://{bucket}"), 30) == []
