"""A run that was cut off anywhere, or repeated anywhere in the world, ends in the same version and one log entry."""

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from deepfm import layout
from deepfm.retraining import retrain
from tests.places import Killed, Place, local_place, onnx_of
from tests.tiny_days import HOLDOUT

PROGRAM = """
import datetime, hashlib, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from deepfm.config import RetrainConfig
from deepfm.retraining import retrain
from deepfm.serving import read_model
from deepfm.workspace import open_workspace

config = RetrainConfig.model_validate_json(Path("config.json").read_bytes())
workspace = open_workspace(config, store_url="file://./store", cache=Path("cache"))
outcome = retrain(workspace, datetime.date(2026, 3, 4))
manifest, _ = workspace.registry.manifest(outcome.version)
print(outcome.version, hashlib.sha256(read_model(workspace.store, manifest)).hexdigest())
"""


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
        missing = {suffix(key) for _, key in reference.changes} - {suffix(key) for key in place.objects()}
        assert {key for key in missing if key.startswith(("days/", "models/"))} <= {layout.champion_cache("tiny")}


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


def test_fresh_processes_anywhere_in_the_world_make_the_same_file(reference, tmp_path):
    expected = f"{reference.outcome.version} {hashlib.sha256(reference.onnx).hexdigest()}"
    for seed, zone, language in (("1", "Pacific/Kiritimati", "C"), ("2", "America/Los_Angeles", "C.UTF-8")):
        folder = tmp_path / seed
        folder.mkdir()
        (folder / "config.json").write_text(reference.place.workspace().config.model_dump_json())
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


def _race(place: Place, barrier: Any, outcomes: Any) -> None:
    barrier.wait()
    outcomes.put(retrain(place.workspace(), HOLDOUT))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_eight_processes_that_start_the_same_day_at_once_promote_it_once(here, reference):
    processes = multiprocessing.get_context("fork")
    barrier, outcomes = processes.Barrier(8), processes.Queue()
    running = [processes.Process(target=_race, args=(here, barrier, outcomes)) for _ in range(8)]
    for process in running:
        process.start()
    found = [outcomes.get(timeout=120) for _ in running]
    for process in running:
        process.join(timeout=30)
    assert not any(process.is_alive() for process in running)
    assert {(outcome.version, outcome.status) for outcome in found} == {(reference.outcome.version, "promoted")}
    workspace = here.workspace()
    assert [entry.version for entry in workspace.registry.entries()] == [reference.outcome.version]
    assert onnx_of(workspace, found[0]) == reference.onnx
