"""The rules of the root conftest hold: a folder gives its marker, and REQUIRE_ALL=1 turns a skip into a failure."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPS = """
import pytest
def test_skips(): pytest.skip("no browser here")
@pytest.mark.gpu
def test_wants_a_gpu(): pytest.skip("no device here")
@pytest.mark.xfail(reason="known")
def test_fails_as_expected(): assert False
def test_passes(): pass
"""
SKIPS_ITSELF = """
import pytest
pytest.skip("no server here", allow_module_level=True)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\nmarkers = gpu: a\n")
    for folder in ("unit", "e2e", "benchmarks"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
    (tmp_path / "tests/unit/test_skips.py").write_text(SKIPS)
    return tmp_path


def outcome(project: Path, *arguments: str, require_all: str = "") -> dict[str, int]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", *arguments]
    environment = os.environ | {"REQUIRE_ALL": require_all, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    counts = re.findall(r"(\d+) (passed|failed|skipped|xfailed|deselected|errors?)", done.stdout.splitlines()[-1])
    return {word: int(count) for count, word in counts}


def test_a_skip_is_a_skip_by_default(project: Path):
    assert outcome(project) == {"passed": 1, "skipped": 2, "xfailed": 1}


def test_a_skip_fails_where_all_is_required(project: Path):
    assert outcome(project, require_all="1") == {"failed": 1, "passed": 1, "skipped": 1, "xfailed": 1}


def test_a_module_that_skips_itself_fails_where_all_is_required(project: Path):
    (project / "tests/e2e/test_server.py").write_text(SKIPS_ITSELF)
    assert outcome(project, "tests/e2e") == {"skipped": 1}
    assert outcome(project, "tests/e2e", require_all="1") == {"error": 1}


def test_the_folder_selects(project: Path):
    for folder in ("e2e", "benchmarks"):
        (project / f"tests/{folder}/test_one.py").write_text("def test_one(): pass\n")
    assert outcome(project, "-m", "e2e") == {"passed": 1, "deselected": 5}
    assert outcome(project, "-m", "benchmark") == {"passed": 1, "deselected": 5}


def test_every_folder_marker_is_registered(pytestconfig: pytest.Config):
    registered = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert {"unit", "integration", "e2e", "architecture", "benchmark", "gpu"} <= registered
