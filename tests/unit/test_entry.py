"""The `deepfm` script where only the consumer is installed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("lacking", [("typer", "rich"), ("rich",)])
def test_what_the_command_line_needs_is_said_in_one_line(lacking: tuple[str, ...]) -> None:
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({lacking!r})); sys.argv = ['deepfm', '--help']\n"
        "from deepfm.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"deepfm: the command line needs {' and '.join(lacking)}, ")
    assert 'pip install "deepfm-retrain[train]"' in line


def test_the_installed_script_is_the_guarded_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"deepfm": "deepfm.__main__:main"}


def test_help_comes_with_everything_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deepfm", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Commands" in done.stdout
