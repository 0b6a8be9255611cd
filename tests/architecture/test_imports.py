"""Who imports whom: the contracts in pyproject.toml, and what a fresh interpreter really loads."""

import subprocess
import sys
from pathlib import Path

import pytest

from deepfm.doctor import examination
from deepfm.events import ENTRY_POINTS
from tests.sinks import declared

ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "prefect", "pandas", "great_expectations", "pyarrow", "onnx"]


def loaded_of(modules: list[str], *, after: str) -> list[str]:
    """Which of these modules a fresh interpreter holds once `after` is imported."""
    code = f"import sys, {after}; sys.stdout.write(' '.join(m for m in {modules!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_import_contracts_hold():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["deepfm.serving", "deepfm.registry", "deepfm.storage"])
def test_a_consumer_loads_nothing_heavy(module: str):
    assert loaded_of(HEAVY, after=module) == []


@pytest.mark.parametrize("module", ["deepfm.cli.app", "flows.events"])
def test_the_command_line_works_without_prefect(module: str):
    assert loaded_of(["prefect"], after=module) == []


def test_every_declared_entry_point_is_a_function_that_somebody_asks_for():
    found = declared()
    assert {point.group for point in found} == {examination.ENTRY_POINTS, ENTRY_POINTS}
    assert all(callable(point.load()) for point in found)


def test_opening_the_storage_package_does_not_load_boto3():
    assert loaded_of(["boto3", "botocore"], after="deepfm.storage") == []


def test_the_probe_sees_what_is_loaded():
    assert loaded_of(["numpy", "torch"], after="numpy") == ["numpy"]
