"""The command line as users and machines meet it: one line per error, a documented exit code, clean stdout."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepfm.cli import app as command_line
from deepfm.cli import run as run_command
from tests.tiny_days import HOLDOUT
from tests.tiny_toml import write_toml

KEYS = {"date", "status", "verdict", "version", "challenger_auc", "champion_auc", "reasons"}


@pytest.fixture
def toml(here) -> Path:
    return write_toml(here.folder, source=here.source, store=here.store)


def deepfm(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["deepfm", *arguments])
    hook = sys.excepthook
    with pytest.raises(SystemExit) as left:
        command_line.main()
    sys.excepthook = hook
    out, err = capsys.readouterr()
    code = left.value.code
    return (0 if code is None else int(code)), out, err


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_json_is_one_array_on_stdout_and_a_second_run_says_the_same(monkeypatch, capsys, toml):
    arguments = ("run", "--config", str(toml), "--date", str(HOLDOUT), "--json")
    code, out, _ = deepfm(monkeypatch, capsys, *arguments)
    (row,) = json.loads(out)
    assert (code, set(row), row["status"], row["date"]) == (0, KEYS, "promoted", str(HOLDOUT))
    assert deepfm(monkeypatch, capsys, *arguments)[1] == out


def test_a_lost_gate_is_a_result(monkeypatch, capsys, toml):
    code, out, err = deepfm(
        monkeypatch, capsys, "run", "--config", str(toml), "--date", str(HOLDOUT), "--set", "gate.min_auc=0.99"
    )
    assert (code, err) == (0, "")
    assert "not promoted" in out
    assert "min_auc 0.99" in out


MISTAKES = {
    "no config": (["--config", "nowhere.toml"], 78, "does not exist"),
    "unknown key": (["--set", "training.epoch=2"], 78, "did you mean epochs?"),
    "wrong value": (["--set", "training.epochs=0"], 78, "training.epochs"),
    "bad override": (["--set", "epochs"], 78, "KEY=VALUE"),
    "bad date": (["--date", "yesterday"], 2, "YYYY-MM-DD"),
    "no such day": (["--date", "2031-01-01"], 75, "2026-02-28 to 2026-03-04"),
    "window too small": (["--date", "2026-02-28"], 3, "window before 2026-02-28 is too small"),
    "label missing": (["--set", "data.label=clicked"], 3, "column_present of clicked"),
    "unknown store": (["--store", "ftp://x"], 78, "ftp"),
    "store is a file": (["--store", "{toml}"], 78, "a file is where a folder is needed"),
    "bucket out of reach": (["--store", "s3://bucket/x"], 75, "127.0.0.1:9"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_its_exit_code(monkeypatch, capsys, toml, name):
    arguments, expected, words = MISTAKES[name]
    for variable, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "do-not-tell",
    }.items():
        monkeypatch.setenv(variable, value)
    chosen = {"--config": str(toml), "--date": str(HOLDOUT)}
    given = [argument.replace("{toml}", str(toml)) for argument in arguments]
    chosen |= dict(zip(given[::2], given[1::2], strict=True))
    code, out, err = deepfm(monkeypatch, capsys, "run", *(part for pair in chosen.items() for part in pair))
    assert code == expected, err
    said = out if name == "label missing" else one_line(err)
    assert words in said
    assert "do-not-tell" not in out + err


def test_a_failure_is_a_row_for_machines_too(monkeypatch, capsys, toml):
    code, out, err = deepfm(
        monkeypatch, capsys, "run", "--config", str(toml), "--date", "2031-01-01", "--json"
    )  # fmt: skip
    (row,) = json.loads(out)
    assert (code, row["status"], row["version"]) == (75, "failed", None)
    assert row["reasons"][0] in one_line(err)


def test_a_truncated_file_is_refused_by_name(monkeypatch, capsys, here, toml):
    file = Path(here.source) / f"dt={HOLDOUT}" / "part-0.parquet"
    file.write_bytes(file.read_bytes()[:200])
    code, out, _ = deepfm(monkeypatch, capsys, "run", "--config", str(toml), "--date", str(HOLDOUT))
    assert code == 3
    assert "part-0.parquet is not readable as Parquet" in out


def test_the_flag_wins_over_the_variable_and_the_variable_over_the_file(monkeypatch, capsys, here, toml):
    monkeypatch.setenv("DEEPFM_STORE", f"file://{here.folder}/variable")
    arguments = ["run", "--config", str(toml), "--date", str(HOLDOUT)]
    deepfm(monkeypatch, capsys, *arguments, "--store", str(here.folder / "flag store"))
    assert sorted(path.name for path in here.folder.iterdir() if (path / "models").exists()) == ["flag store"]
    deepfm(monkeypatch, capsys, *arguments)
    assert (here.folder / "variable" / "models").exists()
    assert not (here.folder / "store").exists()


def test_a_bug_is_one_line_and_its_traceback_a_file(toml):
    code = (
        "import sys; from deepfm.cli import app, run\n"
        "def broken(*a, **k): raise ZeroDivisionError('boom')\n"
        "run.retrain = broken; sys.argv = ['deepfm', 'run', '--config', sys.argv[1], '--date', '2026-03-04']\n"
        "app.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(toml)], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    line = one_line(done.stderr)
    assert "ZeroDivisionError: boom" in line
    log = Path(line.rsplit("traceback in ", 1)[1].rstrip(")"))
    assert "Traceback" in log.read_text()


def test_ctrl_c_is_130_and_the_same_command_goes_on(toml, here):
    command = [sys.executable, "-m", "deepfm", "run", "--config", str(toml), "--date", str(HOLDOUT)]
    long = [
        "--set",
        "training.epochs=1000",
        "--set",
        "training.checkpoint_every_seconds=0.01",
        "--set",
        "training.patience=999",
    ]
    process = subprocess.Popen([*command, *long], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(here.folder.glob("store/training/*/*/resume.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "interrupted" in one_line(err)
    assert here.workspace().registry.head() is None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_teaches_and_is_quick():
    for arguments, words in (([], "synth"), (["run"], "Example"), (["synth"], "Example")):
        environment = {key: value for key, value in os.environ.items() if key != "HOME"} | {
            "LANG": "C",
            "COLUMNS": "120",
        }
        done = subprocess.run(
            [sys.executable, "-m", "deepfm", *arguments, "--help"],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    code = "import sys; import deepfm.cli.app; print([m for m in ('torch', 'prefect', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_version_is_printed(monkeypatch, capsys):
    code, out, _ = deepfm(monkeypatch, capsys, "--version")
    assert (code, out) == (0, "0.1.0\n")


def test_synth_writes_days_and_refuses_another_world(monkeypatch, capsys, tmp_path):
    arguments = ["synth", "--out", str(tmp_path / "a world"), "--days", "2", "--rows-per-day", "200"]
    assert deepfm(monkeypatch, capsys, *arguments)[0] == 0
    assert len(list((tmp_path / "a world" / "clicks").glob("dt=*/part-0.parquet"))) == 2
    code, _, err = deepfm(monkeypatch, capsys, *arguments, "--seed", "7")
    assert code == 78
    assert "seed" in one_line(err)


def test_progress_is_shown_to_people_only(capsys, here):
    from rich.console import Console

    for terminal in (True, False):
        console = Console(file=sys.stderr, force_terminal=terminal, width=100)
        with run_command.Shown(console) as shown:
            assert shown.each(lambda _, item: item + 1, here.workspace(), [1, 2]) == [2, 3]
            shown.training(3, 10)
        err = capsys.readouterr().err
        assert ("\x1b" in err) == terminal
