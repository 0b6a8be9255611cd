"""From raw days to a promoted ONNX file, on a folder and on a real S3 server: repeated, cut off, raced and refused."""

import datetime as dt
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch

from deepfm import layout
from deepfm.errors import DataNotReadyError, DataRejectedError, WindowError
from deepfm.pipeline import prepare_day, promote, validate_day
from deepfm.retraining import RunOutcome, retrain
from deepfm.serving import read_model
from deepfm.storage import LocalCache, ObjectStore, open_store
from deepfm.workspace import Workspace
from tests.tiny_days import HOLDOUT, click_day, tiny_config, with_column, write_day

ROWS = 300
WORLD = [HOLDOUT - dt.timedelta(days=back) for back in (4, 3, 2, 1, 0)]
YESTERDAY = HOLDOUT - dt.timedelta(days=1)


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


class Watched:
    """A store that tells of every change before it happens."""

    def __init__(self, store: ObjectStore, tell: Callable[[str, str], None]) -> None:
        self._store, self._tell = store, tell

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        if name not in {"write", "create", "upload", "delete"}:
            return call

        def told(key: str, *args: object) -> None:
            self._tell(name, key)
            call(key, *args)

        return told


class Place(NamedTuple):
    """Where one test keeps its store, its clicks and its cache."""

    store: str
    source: str
    folder: Path

    def workspace(
        self, changes: dict[str, Any] | None = None, *, tell: Callable[[str, str], None] | None = None
    ) -> Workspace:
        config = tiny_config({**(changes or {}), "data.source": self.source})
        store = open_store(self.store)
        return Workspace(
            config,
            store=store if tell is None else Watched(store, tell),  # type: ignore[arg-type]
            source=open_store(self.source),
            cache=LocalCache(self.folder / "cache", 2**30),
        )

    def deliver(self, date: dt.date, table: pa.Table | None = None) -> None:
        """Put one day of clicks in place, over an older delivery."""
        staging = self.folder / "staging"
        write_day(staging, date, click_day(date, rows=ROWS) if table is None else table)
        key = f"dt={date}/part-0.parquet"
        open_store(self.source).upload(key, staging / key)

    def objects(self) -> dict[str, bytes]:
        store = open_store(self.store)
        return {info.key: store.read(info.key) for info in store.list("models") + store.list("days")}


def local_place(folder: Path) -> Place:
    folder.mkdir(parents=True, exist_ok=True)
    return Place(f"file://{folder}/store", f"{folder}/clicks", folder)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path) -> Place:
    """A place with five delivered days."""
    if request.param == "folder":
        found = local_place(tmp_path)
    else:
        bucket = request.getfixturevalue("fresh_bucket")()
        found = Place(f"s3://{bucket}/store", f"s3://{bucket}/clicks", tmp_path)
    for date in WORLD:
        found.deliver(date)
    return found


class Reference(NamedTuple):
    """An undisturbed run on a folder, to compare others with."""

    place: Place
    outcome: RunOutcome
    onnx: bytes
    changes: list[tuple[str, str]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Reference:
    place = local_place(tmp_path_factory.mktemp("reference"))
    for date in WORLD:
        place.deliver(date)
    changes: list[tuple[str, str]] = []
    workspace = place.workspace(tell=lambda *change: changes.append(change))
    outcome = retrain(workspace, HOLDOUT)
    return Reference(place, outcome, onnx_of(workspace, outcome), changes)


def onnx_of(workspace: Workspace, outcome: RunOutcome) -> bytes:
    assert outcome.version is not None
    manifest, _ = workspace.registry.manifest(outcome.version)
    return bytes(read_model(workspace.store, manifest))


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

    def test_a_kill_at_the_commit_is_made_good_by_the_next_run(self, place, reference):
        def kill_before_the_log(operation: str, key: str) -> None:
            if key == layout.log_entry("tiny", 1):
                raise Killed

        with pytest.raises(Killed):
            retrain(place.workspace(tell=kill_before_the_log), HOLDOUT)
        assert place.workspace().registry.head() is None
        assert retrain(place.workspace(), HOLDOUT) == reference.outcome
        assert len(place.workspace().registry.entries()) == 1


@pytest.fixture
def here(tmp_path) -> Place:
    """A folder with five delivered days."""
    place = local_place(tmp_path)
    for date in WORLD:
        place.deliver(date)
    return place


def kill_points(changes: list[tuple[str, str]]) -> list[int]:
    """Where to cut a run: at every change from the window on, and at one change of every kind before it."""
    kinds: dict[tuple[str, str], int] = {}
    points = []
    for number, (operation, key) in enumerate(changes):
        parts = key.split("/")
        kind = (parts[0], parts[-2].split("-")[0] + parts[-1])
        if parts[0] != "days" or (
            kind not in kinds and parts[-1] in {"rows.arrow", "manifest.json", "validation.json"}
        ):
            points.append(number)
        kinds.setdefault(kind, number)
        assert operation in {"upload", "create", "write", "delete"}
    return points


def test_a_run_cut_off_anywhere_is_finished_by_the_next_one(reference, tmp_path):
    points = kill_points(reference.changes)
    assert len(points) > 12
    for point in points:
        place = local_place(tmp_path / str(point))
        shutil.copytree(reference.place.source, place.source)
        # What an undisturbed run stored before the point is what this run would have stored.
        done = {key for _, key in reference.changes[:point] if key.startswith(("days/", "windows/"))}
        for key in done:
            target = place.folder / "store" / key
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(reference.place.folder / "store" / key, target)
        name = suffix(reference.changes[point][1])
        seen: list[str] = []

        def kill(operation: str, key: str, name: str = name, seen: list[str] = seen) -> None:
            if suffix(key) == name:
                seen.append(operation)
                raise Killed

        with pytest.raises(Killed):
            retrain(place.workspace(tell=kill), HOLDOUT)
        assert len(seen) == 1
        workspace = place.workspace()
        assert retrain(workspace, HOLDOUT) == reference.outcome, name
        assert onnx_of(workspace, reference.outcome) == reference.onnx
        assert [entry.version for entry in workspace.registry.entries()] == [reference.outcome.version]
        expected = {suffix(key) for key in reference.place.objects()}
        assert {suffix(key) for key in place.objects()} >= expected - {layout.champion_cache("tiny")}


def suffix(key: str) -> str:
    """A key without the random name of its attempt."""
    parts = key.split("/")
    return "/".join("attempt" if len(part) == 32 else part for part in parts)


def test_a_training_cut_off_in_the_middle_resumes_to_the_same_file(here, reference):
    changes = {"training.checkpoint_every_seconds": 1e-9}
    steps: list[int] = []

    def kill(step: int, _: int) -> None:
        steps.append(step)
        if step == 9:
            raise Killed

    with pytest.raises(Killed):
        retrain(here.workspace(changes), HOLDOUT, progress=kill)
    resumed: list[int] = []
    outcome = retrain(here.workspace(changes), HOLDOUT, progress=lambda step, _: resumed.append(step))
    assert (steps[-1], resumed[0]) == (9, 9)
    assert outcome == reference.outcome
    assert onnx_of(here.workspace(), outcome) == reference.onnx
    assert outcome.version is not None
    left = here.workspace().store.list(layout.training_prefix("tiny", outcome.version))
    assert [info.key.rpartition("/")[2] for info in left] == ["result.json"]


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
    assert outcome.reasons == ("both_classes of the day: clicks 0, at least 1",)
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
        (YESTERDAY, "refused: both_classes of the day: clicks 0, at least 1"),
    ]


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
        ({"data.source": "elsewhere"}, True),
    ],
    ids=str,
)
def test_a_version_depends_on_what_can_change_its_weights_alone(reference, changes, same):
    changed = reference.place.workspace(changes)
    window = _window_of(changed, HOLDOUT, Direct())
    assert (version_of(changed, window) == reference.outcome.version) is same


def test_another_gate_does_not_promote_the_champion_a_second_time(here):
    first = retrain(here.workspace(), HOLDOUT)
    again = retrain(here.workspace({"gate.max_drop": 0.1}), HOLDOUT)
    assert again == first
    assert len(here.workspace().registry.entries()) == 1


def test_another_gate_decides_anew_on_a_version_that_was_turned_down(here):
    strict = retrain(here.workspace({"gate.min_auc": 0.99}), HOLDOUT)
    assert strict.status == "not_promoted"
    mild = retrain(here.workspace(), HOLDOUT)
    assert (mild.status, mild.version) == ("promoted", strict.version)


def test_only_a_cleared_decision_can_be_promoted(here):
    workspace = here.workspace({"gate.min_auc": 0.99})
    outcome = retrain(workspace, HOLDOUT)
    (decision,) = workspace.registry.decisions(HOLDOUT, outcome.version or "")
    with pytest.raises(Exception, match="was not cleared for promotion: the verdict is reject"):
        promote(workspace, decision)
    assert workspace.registry.head() is None


PROGRAM = """
import datetime, hashlib, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from deepfm.config_file import load_config
from deepfm.retraining import retrain
from deepfm.serving import read_model
from deepfm.workspace import open_workspace

workspace = open_workspace(load_config(Path("model.toml")), store_url="file://./store", cache=Path("cache"))
outcome = retrain(workspace, datetime.date(2026, 3, 4))
manifest, _ = workspace.registry.manifest(outcome.version)
print(outcome.version, hashlib.sha256(read_model(workspace.store, manifest)).hexdigest())
"""
TOML = """
model = "tiny"
[data]
source = "{source}"
event_time = "time"
event_key = "id"
group = "user"
[fields.user]
kind = "categorical"
[fields.item]
kind = "categorical"
dtype = "int64"
[fields.price]
kind = "numeric"
minimum = 0.0
maximum = 1e6
[validation]
min_rows = 10
[window]
window_days = 3
[network]
embedding_dim = 4
hidden = [8]
[training]
batch_size = 32
epochs = 2
device = "cpu"
learning_rate = 0.02
embedding_learning_rate = 0.02
l2_embedding = 0.0
validation_share = 0.05
validation_by = "group"
[gate]
min_auc = 0.5
min_calibration = 0.1
max_calibration = 10.0
"""


def test_fresh_processes_anywhere_in_the_world_make_the_same_file(reference, tmp_path):
    expected = f"{reference.outcome.version} {hashlib.sha256(reference.onnx).hexdigest()}"
    for seed, zone, language in (("1", "Pacific/Kiritimati", "C"), ("2", "America/Los_Angeles", "C.UTF-8")):
        folder = tmp_path / seed
        folder.mkdir()
        (folder / "model.toml").write_text(TOML.format(source=reference.place.source))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LANG": language, "LC_ALL": language},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.splitlines()[-1] == expected
