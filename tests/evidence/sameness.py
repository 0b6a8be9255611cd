"""Claims about bytes: equal over stores, processes and kills; and about what a consumer loads."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from deepfm.synthetic.config import preset_world
from deepfm.synthetic.delivery import write_world
from tests.evidence.lines import Line
from tests.seaweed import client_of, running_seaweed

DATE = "2026-03-05"
HEAVY = ("torch", "prefect", "pandas", "great_expectations", "pyarrow", "onnx")
_STRANGE = (
    {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LANG": "C", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "2", "TZ": "America/New_York", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
)


def stores(folder: Path) -> Iterator[Line]:
    """Two processes, two stores, two environments, one digest."""
    world = small_world(folder)
    with running_seaweed(_made(folder / "seaweed")) as server:
        client_of(server).create_bucket(Bucket="evidence")
        first = finished(world, (folder / "store").as_uri(), environment=_STRANGE[0])
        second = finished(world, "s3://evidence/models", environment={**_STRANGE[1], **server.environment})
    yield Line(
        "same inputs on a local folder and on SeaweedFS, other hash seed, time zone and locale",
        f"{first[:50]} and {second[:50]}",
        "equal version and ONNX digest",
        first == second,
    )


def kills(folder: Path) -> Iterator[Line]:
    """A training that was killed goes on to the same bytes."""
    world = small_world(folder)
    quick = ("training.checkpoint_every_seconds=0.01", "training.epochs=30")
    whole = finished(world, (folder / "whole").as_uri(), quick)
    process = subprocess.Popen(command(world, (folder / "killed").as_uri(), quick), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((folder / "killed").glob("training/*/*/resume.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    resumed = finished(world, (folder / "killed").as_uri(), quick)
    yield Line(
        "training killed with SIGKILL and run again",
        f"killed in mid-training: {killed}, same digest: {resumed == whole}",
        "the bytes of an uninterrupted run",
        killed and resumed == whole,
    )


def consumer(_: Path) -> Iterator[Line]:
    """What `import deepfm.serving` brings with it."""
    code = f"import sys, deepfm.serving; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    yield Line("import deepfm.serving loads", loaded, f"none of {', '.join(HEAVY)}", loaded == "[]")


def small_world(folder: Path) -> Path:
    """A few small days."""
    write_world(preset_world("demo", overrides={"days": 4, "rows_per_day": 6_000}), folder / "world")
    return folder / "world"


def command(world: Path, store: str, overrides: tuple[str, ...] = ()) -> list[str]:
    """One retrain as a command."""
    return [sys.executable, "-m", "tests.evidence.one_run", str(world), store, DATE, *overrides]


def finished(
    world: Path, store: str, overrides: tuple[str, ...] = (), *, environment: Mapping[str, str] | None = None
) -> str:
    """What a retrain in a process of its own printed."""
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command(world, store, overrides), env=variables, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr[-300:]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
