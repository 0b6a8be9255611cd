"""From raw days to a promoted ONNX file, on a folder and on a real S3 server: what runs come to and refuse."""

import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest

from deepfm import layout
from deepfm.errors import AccessDeniedError, DataNotReadyError, DataRejectedError, WindowError
from deepfm.pipeline import prepare_day, promote, validate_day, version_of
from deepfm.retraining import Direct, RunOutcome, retrain, window_of
from deepfm.serving import ServedChampion, VersionModel, read_version
from deployments.seaweed import client_of
from tests.places import ROWS, WORLD, YESTERDAY, Killed, Place, Tell, local_place, onnx_of
from tests.tiny_days import HOLDOUT, click_day, tiny_config, with_column


@pytest.fixture(params=["folder", "s3"])
def place(request, one_thread, tmp_path) -> Place:  # noqa: ARG001 - asked for its effect
    """A place with five delivered days."""
    if request.param == "folder":
        found = local_place(tmp_path)
    else:
        bucket = request.getfixturevalue("fresh_bucket")()
        found = Place(f"s3://{bucket}/store", f"s3://{bucket}/clicks", tmp_path)
    for date in WORLD:
        found.deliver(date)
    return found


@contextmanager
def log_denied(place: Place) -> Iterator[Tell | None]:
    """Within it nothing may be created below the log: a bucket's policy forbids it, or who watches a folder does."""

    def deny(_: str, key: str) -> None:
        if key.startswith(layout.log_prefix("tiny")):
            raise AccessDeniedError("access is denied", where=key)

    if place.store.startswith("file://"):
        yield deny
        return
    client, bucket = client_of(dict(os.environ)), place.store.split("/")[2]
    forbidden = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/store/{layout.log_prefix('tiny')}/*",
    }
    policy = {"Version": "2012-10-17", "Statement": [forbidden]}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    yield None
    client.delete_bucket_policy(Bucket=bucket)


class TestOnEveryStore:
    def test_a_run_promotes_the_same_file_everywhere_and_a_second_run_changes_nothing(self, place, reference):
        workspace = place.workspace()
        first = retrain(workspace, HOLDOUT)
        assert (first.status, first.verdict, first.champion_auc) == ("promoted", "promote", None)
        assert first == reference.outcome
        assert onnx_of(workspace, first) == reference.onnx
        (entry,) = workspace.registry.entries()
        assert (entry.version, entry.operation, entry.compared_entry) == (first.version, "promote", 0)
        before = place.objects()
        changes: list[tuple[str, str]] = []
        second = retrain(place.workspace(tell=lambda *change: changes.append(change)), HOLDOUT)
        assert second == first
        assert changes == []
        assert place.objects() == before

    def test_the_loser_of_a_race_is_gated_against_the_winner(self, place):
        rival = place.workspace({"training.seed": 1})
        won: list[RunOutcome] = []

        def let_the_rival_win(operation: str, key: str) -> None:
            if operation == "create" and key == layout.log_entry("tiny", 1) and not won:
                won.append(retrain(rival, HOLDOUT))

        outcome = retrain(place.workspace(tell=let_the_rival_win), HOLDOUT)
        assert won[0].status == "promoted"
        assert outcome.champion_auc == pytest.approx(won[0].challenger_auc)
        entries = rival.registry.entries()
        assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
        assert entries[0].version == won[0].version != outcome.version
        compared = [decision.compared_entry for decision in rival.registry.decisions(HOLDOUT, outcome.version or "")]
        assert compared == [0, 1]
        assert len(entries) == (2 if outcome.status == "promoted" else 1)

    def test_a_consumer_takes_the_next_champion(self, place):
        first = retrain(place.workspace(), YESTERDAY)
        served = ServedChampion.open(place.store, "tiny", threads=1)
        assert (served.status.version, served.refresh()) == (first.version, False)
        second = retrain(place.workspace(), HOLDOUT)
        assert (first.status, second.status) == ("promoted", "promoted")
        assert served.refresh() is True
        assert (served.status.version, served.status.sequence) == (second.version, 2)

    def test_who_may_not_append_to_the_log_keeps_what_it_made_and_the_next_one_who_may_promotes_it(
        self, place, reference
    ):
        with log_denied(place) as tell:
            for _ in range(2):
                with pytest.raises(AccessDeniedError, match="promotion is not permitted: access is denied") as caught:
                    retrain(place.workspace(tell=tell), HOLDOUT)
                assert caught.value.exit_code == 78
                assert layout.log_entry("tiny", 1) in caught.value.where
        workspace = place.workspace()
        assert (workspace.registry.versions(), workspace.registry.head()) == ([reference.outcome.version], None)
        kept = place.objects()
        changes: list[tuple[str, str]] = []
        assert retrain(place.workspace(tell=lambda *change: changes.append(change)), HOLDOUT) == reference.outcome
        promoted = place.objects()
        assert {key: promoted[key] for key in kept} == kept
        assert "upload" not in {operation for operation, _ in changes}

    def test_a_kill_at_the_commit_is_made_good_by_the_next_run(self, place, reference):
        def kill_before_the_log(_: str, key: str) -> None:
            if key == layout.log_entry("tiny", 1):
                raise Killed

        with pytest.raises(Killed):
            retrain(place.workspace(tell=kill_before_the_log), HOLDOUT)
        assert place.workspace().registry.head() is None
        assert retrain(place.workspace(), HOLDOUT) == reference.outcome
        assert len(place.workspace().registry.entries()) == 1


def shuffled_labels(date: dt.date) -> pa.Table:
    table = click_day(date, rows=ROWS)
    labels = np.random.default_rng(date.toordinal()).permutation(table["click"].to_numpy())
    return with_column(table, "click", pa.array(labels))


def test_shuffled_labels_are_not_promoted(here):
    for date in WORLD:
        here.deliver(date, shuffled_labels(date))
    workspace = here.workspace({"gate.min_auc": 0.6})
    outcome = retrain(workspace, HOLDOUT)
    assert outcome.status == "not_promoted"
    assert outcome.verdict in {"reject", "inconclusive"}
    assert outcome.reasons
    assert workspace.registry.head() is None
    assert retrain(workspace, HOLDOUT) == outcome


def without_clicks(date: dt.date) -> pa.Table:
    return with_column(click_day(date, rows=ROWS), "click", pa.array([False] * ROWS))


def test_a_bad_holdout_is_refused_by_name_and_trains_nothing(here):
    here.deliver(HOLDOUT, without_clicks(HOLDOUT))
    workspace = here.workspace()
    outcome = retrain(workspace, HOLDOUT)
    assert (outcome.status, outcome.version, outcome.verdict) == ("data_rejected", None, None)
    assert outcome.reasons == ("both_classes of the day: clicks 0, required at least 1",)
    assert workspace.store.list("models") == workspace.store.list("training") == []
    report = validate_day(workspace, HOLDOUT)
    assert report is not None
    with pytest.raises(DataRejectedError, match="clicks of 2026-03-04 were refused"):
        prepare_day(workspace, report)


def test_days_that_cannot_train_are_gaps_with_a_reason_and_part_of_the_version(here, reference):
    here.deliver(YESTERDAY, without_clicks(YESTERDAY))
    workspace = here.workspace({"window.window_days": 5})
    outcome = retrain(workspace, HOLDOUT)
    assert outcome.status == "promoted"
    assert outcome.version != reference.outcome.version
    window = workspace.registry.manifest(outcome.version or "")[0].window
    assert [day.logical_date for day in window.days] == WORLD[:3]
    assert [(gap.logical_date, gap.reason) for gap in window.gaps] == [
        (HOLDOUT - dt.timedelta(days=5), "missing"),
        (YESTERDAY, "refused: both_classes of the day: clicks 0, required at least 1"),
    ]


def test_a_version_knows_some_answers_and_shows_no_user(here):
    users = {user for date in WORLD for user in click_day(date, rows=ROWS)["user"].to_pylist()}
    workspace = here.workspace()
    outcome = retrain(workspace, HOLDOUT)
    manifest, _ = workspace.registry.manifest(outcome.version or "")
    assert manifest.golden is not None
    assert len(manifest.golden.rows) == 16
    assert not users & {row["user"] for row in manifest.golden.rows}
    assert VersionModel(*read_version(workspace.store, "tiny", manifest.version), threads=1).manifest == manifest


def test_too_few_days_and_no_day_at_all_say_so(here):
    with pytest.raises(WindowError, match=r"window before 2026-02-28 is too small: 0 accepted days, 100% missing"):
        retrain(here.workspace(), WORLD[0])
    with pytest.raises(DataNotReadyError, match="clicks of 2026-03-05 are not there: 2026-02-28 to 2026-03-04, 5 days"):
        retrain(here.workspace(), HOLDOUT + dt.timedelta(days=1))


def test_an_older_date_never_replaces_a_newer_champion(here):
    newer = retrain(here.workspace(), HOLDOUT)
    older = retrain(here.workspace(), YESTERDAY)
    assert newer.status == "promoted"
    assert (older.status, older.verdict) == ("not_promoted", "inconclusive")
    assert "an older date never replaces a newer one by itself" in older.reasons[0]
    head = here.workspace().registry.head()
    assert head is not None
    assert head.version == newer.version


def test_the_next_day_is_compared_with_the_champion_and_prepares_no_day_twice(here):
    changes: list[tuple[str, str]] = []
    workspace = here.workspace(tell=lambda *change: changes.append(change))
    first, second = retrain(workspace, YESTERDAY), retrain(workspace, HOLDOUT)
    assert first.status == "promoted"
    assert second.champion_auc is not None
    made = [key for operation, key in changes if "/prepared-" in key]
    assert len(made) == len(set(made))
    assert {key.split("/")[2] for key in made} == {str(date) for date in WORLD[:4]}
    judged = [key for _, key in changes if key.endswith("/validation.json")]
    assert sorted(key.split("/")[2] for key in judged) == [str(date) for date in WORLD]


def test_a_delivery_with_other_content_makes_another_version_of_the_days_that_use_it(here, reference):
    before = retrain(here.workspace(), HOLDOUT)
    here.deliver(YESTERDAY, click_day(YESTERDAY, rows=ROWS, seed=9))
    after = retrain(here.workspace(), HOLDOUT)
    assert before == reference.outcome
    assert after.version != before.version
    versions = {entry.version for entry in here.workspace().registry.entries()}
    assert before.version in versions
    here.deliver(YESTERDAY)
    assert retrain(here.workspace(), HOLDOUT) == before


def test_the_order_of_the_fields_is_part_of_a_prepared_day(here):
    fields = tiny_config().model_dump(exclude_none=True)["fields"]
    turned = {"fields": dict(reversed(fields.items()))}
    plain, other = here.workspace(), here.workspace(turned)
    reports = [validate_day(workspace, YESTERDAY) for workspace in (plain, other)]
    assert reports[0] is not None
    assert reports[0] == reports[1]
    days = [prepare_day(workspace, reports[0]) for workspace in (plain, other)]
    assert days[0].key != days[1].key
    assert retrain(plain, HOLDOUT).version != retrain(other, HOLDOUT).version


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"training.seed": 1}, False),
        ({"vocabulary.oov_rate": 0.02}, False),
        ({"sampling.keep_rate": 0.9}, False),
        ({"loss.pos_weight": 2.0}, False),
        ({"training.checkpoint_every_seconds": 5.0}, True),
        ({"gate.max_drop": 0.1}, True),
    ],
    ids=str,
)
def test_a_version_depends_on_what_can_change_its_weights_alone(reference, changes, same):
    changed = reference.place.workspace(changes)
    window = window_of(changed, HOLDOUT, runner=Direct())
    assert (version_of(changed, window) == reference.outcome.version) is same


def test_another_gate_does_not_promote_the_champion_a_second_time(here):
    first = retrain(here.workspace(), HOLDOUT)
    again = retrain(here.workspace({"gate.max_drop": 0.1}), HOLDOUT)
    assert again == first
    assert len(here.workspace().registry.entries()) == 1


def test_another_gate_decides_anew_on_a_version_that_was_turned_down(here):
    strict = retrain(here.workspace({"gate.min_auc": 0.97}), HOLDOUT)
    assert strict.status == "not_promoted"
    mild = retrain(here.workspace(), HOLDOUT)
    assert (mild.status, mild.version) == ("promoted", strict.version)


def test_only_a_cleared_decision_can_be_promoted(here):
    workspace = here.workspace({"gate.min_auc": 0.97})
    outcome = retrain(workspace, HOLDOUT)
    (decision,) = workspace.registry.decisions(HOLDOUT, outcome.version or "")
    with pytest.raises(Exception, match="was not cleared for promotion: the verdict is reject"):
        promote(workspace, decision)
    assert workspace.registry.head() is None


def test_a_user_without_a_name_can_promote(here, monkeypatch):
    def nameless() -> str:
        raise KeyError

    monkeypatch.setattr("getpass.getuser", nameless)
    assert retrain(here.workspace(), HOLDOUT).status == "promoted"
    entry = here.workspace().registry.head()
    assert entry is not None
    assert entry.actor == f"uid {os.getuid()}"
