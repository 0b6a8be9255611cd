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
from deepfm.training.checkpoint import ResumePointer
from tests.evidence.lines import Line
from tests.seaweed import client_of, running_seaweed

DATE = "2026-03-05"
HEAVY = ("torch", "prefect", "pandas", "great_expectations", "pyarrow", "onnx")
_RESUME = "training/*/*/resume.json"
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
        "local folder and SeaweedFS, other hash seed, zone, locale",
        f"{first[:48]}... and {second[:48]}...",
        "equal version and sha256 of model.onnx",
        first == second,
    )


def kills(folder: Path) -> Iterator[Line]:
    """A training that was killed goes on to the same bytes."""
    world = small_world(folder)
    quick = ("training.checkpoint_every_seconds=0.01", "training.epochs=30")
    whole = finished(world, (folder / "whole").as_uri(), quick)
    step = killed_at(world, folder / "killed", quick)
    resumed = finished(world, (folder / "killed").as_uri(), quick)
    yield Line(
        "training killed with SIGKILL and run again",
        f"killed {'in mid-training' if step else 'at no step'}, state of step {step}; same digest: {resumed == whole}",
        "the ONNX bytes of an uninterrupted run",
        step > 0 and resumed == whole,
    )


def killed_at(world: Path, store: Path, overrides: tuple[str, ...]) -> int:
    """The step of the resume state that a retrain left when it was killed in mid-training; 0 if it was not."""
    process = subprocess.Popen(command(world, store.as_uri(), overrides), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(store.glob(_RESUME)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.kill()
    left = list(store.glob(_RESUME))
    if process.wait() != -signal.SIGKILL or not left or left[0].with_name("result.json").exists():
        return 0
    return ResumePointer.from_bytes(left[0].read_bytes(), where=left[0].name).step


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
    """The version and the digest that a retrain in a process of its own printed."""
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command(world, store, overrides), env=variables, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
