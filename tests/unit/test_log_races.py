"""The checker of histories: what it says of each way in which a promotion log can be kept wrongly, and of ours."""

import datetime as dt
import re

import pytest

from deepfm.registry import Registry
from tests.factories import DAY, MODEL, entry
from tests.fault_store import FakeStore
from tests.histories import Append, History, Sight, Told, anomalies, stored_log
from tests.log_writers import Writer, race
from tests.planted_bugs import PLANTED, raced


def past(*told: Told) -> tuple[History, dict[int, bytes]]:
    """Appends one after the other, each told what is given, and the log that holds them all."""
    entries = [entry(number, actor=f"writer {number}") for number in range(1, len(told) + 1)]
    appends = [Append(wanted, n, n + 0.25, n + 0.75, told[n]) for n, wanted in enumerate(entries)]
    return History(appends, []), {wanted.sequence: wanted.to_bytes() for wanted in entries}


class TestChecker:
    def test_a_log_that_is_as_everybody_was_told_has_no_anomaly(self) -> None:
        history, log = past("committed", "unknown", "committed")
        lost = Append(entry(2), 1, 1.3, 1.9, "conflict")
        gone = Append(entry(4), 3, 3.0, 4.0, "unknown")
        seen = [Sight("reader", 0, 0.0, 0.1), Sight("reader", 2, 2.3, 2.4)]
        assert anomalies(history + History([lost, gone], seen), log) == []

    def test_an_acknowledged_entry_that_is_absent_or_changed(self) -> None:
        history, log = past("committed", "committed")
        log[1] = history.appends[0].entry.model_copy(update={"reason": "another"}).to_bytes()
        del log[2]
        assert anomalies(history, log) == [
            "entry 1 of writer 1 was changed after it was acknowledged",
            "writer 2 was told that entry 2 is its own, which is absent",
        ]

    def test_a_loser_that_has_won(self) -> None:
        history, log = past("conflict")
        assert anomalies(history, log) == ["writer 1 was told that it lost entry 1, which is its own"]

    def test_gaps_doubles_and_wrong_numbers(self) -> None:
        history, log = past("committed", "committed", "committed")
        log[4], log[2] = log[3], log[3]
        del log[3]
        found = anomalies(history, log)
        attempt = history.appends[2].entry.attempt
        for said in (
            "entry 3 is missing below entry 4",
            "entry 4 says that it is entry 3",
            f"attempt {attempt} is in the log 2 times",
        ):
            assert said in found

    def test_an_entry_that_nobody_appended(self) -> None:
        _, log = past("committed")
        assert anomalies(History([], []), log) == ["entry 1 of writer 1 was appended by nobody"]

    def test_a_decision_against_another_entry(self) -> None:
        history, log = past("committed", "committed")
        history.appends[1] = history.appends[1]._replace(decided_against=0)
        assert anomalies(history, log) == ["entry 2 was decided against entry 0"]

    @pytest.mark.parametrize(("told", "wrong"), [("committed", True), ("unknown", False)])
    def test_an_acknowledged_entry_above_one_that_was_begun_later(self, told: Told, wrong: bool) -> None:  # noqa: FBT001
        history, log = past("committed", told)
        history.appends[0] = history.appends[0]._replace(began=2.0, ended=2.5)
        said = ["entry 2 was acknowledged before an entry below it was begun"] if wrong else []
        assert anomalies(history, log) == said

    def test_a_head_that_goes_back_or_comes_from_the_future(self) -> None:
        history, log = past("committed", "committed", "committed")
        history.sights.extend([Sight("ann", 2, 2.0, 2.1), Sight("bob", 1, 2.2, 2.3), Sight("ann", 1, 3.0, 3.1)])
        history.sights.append(Sight("bob", 3, 2.4, 2.45)._replace(began=1.0, ended=1.1))
        found = anomalies(history, log)
        assert "ann saw entry 1 as the head after entry 2" in found
        assert "bob saw entry 3 before anybody began to append it" in found

    def test_an_automatic_promotion_of_an_older_day(self) -> None:
        history, log = past("committed", "committed")
        older = {"logical_date": DAY - dt.timedelta(days=1)}
        for decision, said in ((None, []), ("e" * 64, [f"entry 2 turns the champion back from {DAY} to 2026-02-28"])):
            changed = history.appends[1].entry.model_copy(update={**older, "decision_sha256": decision})
            history.appends[1] = history.appends[1]._replace(entry=changed)
            assert anomalies(history, {**log, 2: changed.to_bytes()}) == said


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.__name__)
def test_a_planted_bug_is_found(planted: type[Registry] | type[Writer]) -> None:
    found: list[str] = []
    for seed in range(5):
        # Which threads meet is up to the machine: a race that nobody lost shows nothing.
        found += raced(planted, seed=seed)
        if any(re.search(PLANTED[planted], said) for said in found):
            return
    pytest.fail(f"not found in five races: {found[:5]}")


def test_nothing_is_found_in_the_code_as_it_is() -> None:
    for seed in range(3):
        assert raced(seed=seed) == []


def test_of_sixteen_writers_every_loser_is_told_the_truth() -> None:
    store = FakeStore()
    history = race(lambda: store, writers=16, entries=300)
    log = stored_log(store, MODEL)
    assert anomalies(history, log) == []
    told = [append.told for append in history.appends]
    assert told.count("committed") + told.count("unknown") >= len(log) >= 300
    assert min(told.count("conflict"), told.count("unknown")) > 0, "no race and no lost answer: the test shows nothing"
