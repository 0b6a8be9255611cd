"""The machine: Python, packages, processors, disks, and whether the code that runs is the code that is meant."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import deepfm
from deepfm.config import RetrainConfig
from deepfm.doctor.checks import Check, failed, ok, warning
from deepfm.errors import NoSpaceError

DISTRIBUTION = "deepfm-retrain"
NAMED = ("numpy", "pandas", "pyarrow", "torch", "onnx", "onnxruntime", "great-expectations", "prefect")
"""Packages whose version is told, in this order; of the others only what is wrong with them."""
_EXTRAS = ("", "serving", "train")
_FLOWS = "flows"
FULL_BYTES = 200 * 2**20
"""With less free space than this a day's files do not fit."""
SCARCE_BYTES = 2 * 2**30
_INSTALL = 'Run: make setup, or pip install "deepfm-retrain[train]".'


def environment(config: RetrainConfig | None, *, folders: dict[str, Path]) -> Iterator[Check]:
    """The checks of this machine.

    Args:
        config: For the device that it asks for.
        folders: Where temporary files, the cache and a local store are, by what they hold.
    """
    yield python()
    yield packages()
    yield same_code(Path.cwd())
    yield processors()
    yield gpu(config)
    for what, folder in folders.items():
        yield disk(f"environment.disk_of_{what.replace(' ', '_')}", folder)
    yield home()


def python() -> Check:
    """Whether this Python is one of those that the package is for."""
    running = ".".join(map(str, sys.version_info[:3]))
    required = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    if SpecifierSet(required).contains(running):
        return ok("environment.python", f"{running}, {sys.executable}")
    return failed("environment.python", f"{running}, required {required}", "Make .venv with such a Python: make setup.")


def packages() -> Check:
    """Whether every package that is needed is there, and new enough."""
    needed = _requirements()
    there = {name: _version(name) for name in needed}
    wrong = [
        f"{name} {there[name] or 'is not installed'}, required {requirement.specifier}"
        for name, requirement in needed.items()
        if there[name] is None or not requirement.specifier.contains(there[name] or "", prereleases=True)
    ]
    if wrong:
        return failed("environment.packages", "; ".join(wrong), _INSTALL)
    told = [f"{name} {there[name]}" for name in NAMED if there.get(name)]
    return ok("environment.packages", ", ".join(told + ([] if "prefect" in there else ["no prefect: no flows"])))


def same_code(here: Path) -> Check:
    """Whether `python -m deepfm`, which looks into the working directory first, runs this very package."""
    running = Path(deepfm.__file__).resolve()
    found = PathFinder.find_spec("deepfm", [str(here)])
    origin = Path(found.origin).resolve() if found and found.origin else running
    if origin == running:
        return ok("environment.code", f"{metadata.version(DISTRIBUTION)} in {running.parent}")
    observed = f"deepfm is {running.parent}, python -m deepfm is {origin.parent}"
    return warning("environment.code", observed, "Run both from another folder, or install the one that you mean.")


def processors() -> Check:
    """How many threads may run side by side."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ok("environment.cpu", f"{allowed} {'thread' if allowed == 1 else 'threads'}")


def gpu(config: RetrainConfig | None) -> Check:
    """Whether there is the device that training asks for."""
    import torch

    if torch.cuda.is_available():
        return ok("environment.gpu", torch.cuda.get_device_name(0))
    if config is not None and config.training.device == "cuda":
        step = "Set training.device to auto, or train where there is a GPU."
        return failed("environment.gpu", "no CUDA device, and training.device is cuda", step)
    return ok("environment.gpu", "no CUDA device; training runs on the CPU")


def disk(name: str, folder: Path) -> Check:
    """Whether a folder, or where it would be made, can be written and has room."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as refused:
        return failed(name, f"{folder} cannot be written: {refused.strerror}", "Choose another folder, or free space.")
    observed = f"{folder}, {free / 2**30:.1f} GiB free"
    if free < FULL_BYTES:
        return failed(name, observed, "Free some space.", exit_code=NoSpaceError.exit_code)
    return warning(name, observed, "Free some space soon.") if free < SCARCE_BYTES else ok(name, observed)


def home() -> Check:
    """Whether there is a home folder; Prefect's temporary server keeps its database there."""
    name = "environment.home"
    step = "Set HOME to a folder that can be written, if flows run here; nothing else needs one."
    try:
        folder = Path.home()
        with tempfile.TemporaryFile(dir=folder):
            return ok(name, str(folder))
    except RuntimeError:
        return warning(name, "this user has no home folder", step)
    except OSError as refused:
        return warning(name, f"home folder cannot be written: {refused.strerror}", step)


def temporary_folder() -> Path | None:
    """Where temporary files go; None if no folder for them can be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def _requirements() -> dict[str, Requirement]:
    """What is needed to retrain, and for flows if Prefect is there, by name."""
    extras = (*_EXTRAS, _FLOWS) if _version("prefect") else _EXTRAS
    parsed = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    return {
        requirement.name: requirement
        for requirement in parsed
        if requirement.name != DISTRIBUTION
        and (requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras))
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
