"""What a log adds up to, entry by entry."""

from deepfm.manifests import LogEntry, Operation
from deepfm.succession import Succession, succession
from tests.factories import entry
from tests.small_versions import A, B, C


def after(*acts: tuple[Operation, str]) -> tuple[Succession, list[LogEntry]]:
    """What a log of these acts adds up to, and the log."""
    log: list[LogEntry] = []
    held = False
    for sequence, (operation, version) in enumerate(acts, start=1):
        held = {"hold": True, "release": False}.get(operation, held)
        log.append(entry(sequence).model_copy(update={"operation": operation, "version": version, "held": held}))
    return succession(log), log


def versions(found: Succession) -> list[str]:
    return [champion.version for champion in found.champions]


def test_an_empty_log_has_nobody():
    found, _ = after()
    assert (found.champions, found.withdrawn, found.hold, found.previous) == ((), {}, None, None)


def test_a_rollback_takes_champions_away_and_says_which_entry_did():
    found, log = after(("promote", A), ("promote", B), ("promote", C), ("rollback", A))
    assert versions(found) == [A]
    assert found.withdrawn == {B: log[3], C: log[3]}
    assert found.previous is None


def test_a_version_that_is_champion_again_was_not_taken_away():
    found, log = after(("promote", A), ("promote", B), ("rollback", A), ("promote", B))
    assert versions(found) == [A, B]
    assert found.withdrawn == {}
    assert found.champions[-1] == log[3]


def test_going_to_a_champion_that_was_left_takes_the_current_away():
    found, log = after(("promote", A), ("promote", B), ("rollback", A), ("rollback", B))
    assert versions(found) == [B]
    assert found.withdrawn == {A: log[3]}


def test_a_version_may_reign_twice():
    found, log = after(("promote", A), ("promote", B), ("promote", A))
    assert versions(found) == [A, B, A]
    assert found.previous == log[1]


def test_a_hold_lasts_until_its_release_and_changes_no_champion():
    found, log = after(("promote", A), ("hold", A), ("promote", B), ("rollback", A))
    assert (versions(found), found.hold) == ([A], log[1])
    found, _ = after(("promote", A), ("hold", A), ("release", A))
    assert (versions(found), found.hold) == ([A], None)
