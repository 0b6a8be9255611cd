"""The command line as users and machines meet it: one line per error, a documented exit code, clean stdout."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepfm import errors
from deepfm.cli import run as run_command
from deepfm.cli.progress import Shown
from tests.command_line import deepfm, one_line
from tests.places import WORLD, local_place
from tests.tiny_days import HOLDOUT
from tests.tiny_toml import write_toml

ROOT = Path(__file__).parents[2]
KEYS = {"date", "status", "verdict", "version", "challenger_auc", "champion_auc", "reasons"}


@pytest.fixture
def toml(here) -> Path:
    return write_toml(here.folder, source=here.source, store=here.store)


@pytest.fixture(scope="module")
def done(one_thread, tmp_path_factory) -> tuple[Path, str]:  # noqa: ARG001 - asked for its effect
    """A TOML whose holdout has been promoted, in a path with spaces, and what `--json` said of it."""
    place = local_place(tmp_path_factory.mktemp("done") / "a place with spaces")
    for date in WORLD:
        place.deliver(date)
    toml = write_toml(place.folder, source=place.source, store=place.store)
    finished = subprocess.run(run_of(toml, "--json"), capture_output=True, text=True, check=True)
    return toml, finished.stdout


def run_of(toml: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "deepfm", "run", "--config", str(toml), "--date", str(HOLDOUT), *more]


def test_json_is_one_array_on_stdout_and_a_second_run_says_the_same(monkeypatch, capsys, toml):
    arguments = ("run", "--config", str(toml), "--date", str(HOLDOUT), "--json")
    code, out, _ = deepfm(monkeypatch, capsys, *arguments)
    (row,) = json.loads(out)
    assert (code, set(row), row["status"], row["date"]) == (0, KEYS, "promoted", str(HOLDOUT))
    assert deepfm(monkeypatch, capsys, *arguments)[1] == out


def test_a_lost_gate_is_a_result(monkeypatch, capsys, toml):
    code, out, err = deepfm(
        monkeypatch, capsys, "run", "--config", str(toml), "--date", str(HOLDOUT), "--set", "gate.min_auc=0.97"
    )
    assert (code, err) == (0, "")
    assert "not promoted" in out
    assert "min_auc 0.97" in out


MISTAKES = {
    "no config": (["--config", "nowhere.toml"], 78, "does not exist"),
    "unknown key": (["--set", "training.epoch=2"], 78, "did you mean epochs?"),
    "wrong value": (["--set", "training.epochs=0"], 78, "training.epochs"),
    "bad override": (["--set", "epochs"], 2, "KEY=VALUE"),
    "bad date": (["--date", "yesterday"], 2, "YYYY-MM-DD"),
    "no GPU": (["--set", "training.device=cuda"], 78, "training.device"),
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
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    chosen = {"--config": str(toml), "--date": str(HOLDOUT)}
    given = [argument.replace("{toml}", str(toml)) for argument in arguments]
    chosen |= dict(zip(given[::2], given[1::2], strict=True))
    code, out, err = deepfm(monkeypatch, capsys, "run", *(part for pair in chosen.items() for part in pair))
    assert code == expected, err
    assert words in one_line(err)
    assert "do-not-tell" not in out + err


MISTYPED = {
    "no options": (["run"], "--config"),
    "unknown option": (["run", "--dat", "x"], "--date"),
    "unknown command": (["train"], "train"),
    "option without value": (["run", "--date"], "--date"),
    "not a number": (["synth", "--out", "x", "--days", "many"], "--days"),
    "no days": (["synth", "--out", "x", "--days", "0"], "--days"),
    "bad start": (["synth", "--out", "x", "--start", "soon"], "--start"),
    "bad poison": (["synth", "--out", "x", "--poison", "soon"], "--poison"),
    "poison outside": (["synth", "--out", "x", "--days", "2", "--poison", "2031-01-01"], "2026-03-02 to 2026-03-03"),
    "option for the TOML": (
        ["init", "x", "--out", "--force"],
        "--out is followed by an option: --force, required --out M",
    ),
    "option for the days": (["split", "x.csv", "--out", "--by", "a"], "Put the path behind --out"),
    "option for the world": (["synth", "--out", "--days"], "Put the path behind --out"),
    "option for the files": (["pull", "--out", "--json"], "Put the path behind --out"),
    "option for the page": (["report", "--config", "x", "--out", "--json"], "Put the path behind --out"),
    "no such day": (["run", "--config", "x", "--date", "2026-02-30"], "required YYYY-MM-DD, where 2026-02 has 28 days"),
    "no such month": (["run", "--config", "x", "--date", "2026-13-01"], "the months 01 to 12"),
    "nearly a command": (["ini"], "Did you mean 'init'? Try '"),
    "no such preset": (["synth", "--out", "x", "--preset", "huge"], "demo, full"),
}


@pytest.mark.parametrize("name", MISTYPED)
def test_a_mistyped_command_line_is_one_line_and_2(monkeypatch, capsys, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    arguments, words = MISTYPED[name]
    code, out, err = deepfm(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in one_line(err)
    assert not list(tmp_path.iterdir())


EXIT_CODES = {
    errors.UsageError: 2,
    errors.NotFoundError: 2,
    errors.DataCorruptError: 3,
    errors.WindowError: 3,
    errors.UndefinedMetricError: 3,
    errors.IntegrityError: 3,
    errors.ConflictError: 4,
    errors.TrainingError: 78,
    errors.ParityError: 70,
    errors.StoreUnavailableError: 75,
    errors.DataNotReadyError: 75,
    errors.ConfigError: 78,
    errors.AccessDeniedError: 78,
}


OF_THE_DAY = {
    errors.DataCorruptError: "data_rejected",
    errors.WindowError: "data_rejected",
    errors.UndefinedMetricError: "data_rejected",
    errors.DataNotReadyError: "not_delivered",
}


@pytest.mark.parametrize("error", EXIT_CODES, ids=lambda error: error.__name__)
def test_every_error_has_its_exit_code_and_is_a_row(monkeypatch, capsys, toml, error):
    def fails(*_: object, **__: object) -> None:
        raise error("something went wrong", observed="a\nb", next_step="Do better.")

    monkeypatch.setattr(run_command, "retrain", fails)
    code, out, err = deepfm(monkeypatch, capsys, "run", "--config", str(toml), "--date", str(HOLDOUT), "--json")
    (row,) = json.loads(out)
    assert (code, set(row), row["status"]) == (EXIT_CODES[error], KEYS, OF_THE_DAY.get(error, "failed"))
    assert one_line(err) == "deepfm: something went wrong: a b. Do better."


def test_a_failure_is_a_row_for_machines_too(monkeypatch, capsys, toml):
    code, out, err = deepfm(monkeypatch, capsys, "run", "--config", str(toml), "--date", "2031-01-01", "--json")
    (row,) = json.loads(out)
    assert (code, row["status"], row["version"]) == (75, "not_delivered", None)
    assert row["reasons"][0] in one_line(err)


def test_a_truncated_file_is_refused_by_name(monkeypatch, capsys, here, toml):
    file = Path(here.source) / f"dt={HOLDOUT}" / "part-0.parquet"
    file.write_bytes(file.read_bytes()[:200])
    code, out, err = deepfm(monkeypatch, capsys, "run", "--config", str(toml), "--date", str(HOLDOUT))
    assert (code, out) == (3, f"{HOLDOUT} data rejected\n")
    assert "part-0.parquet is not readable as Parquet" in one_line(err)


def test_the_flag_wins_over_the_variable_and_the_variable_over_the_file(monkeypatch, capsys, here, toml):
    monkeypatch.setenv("DEEPFM_STORE", f"file://{here.folder}/variable")
    arguments = ["run", "--config", str(toml), "--date", str(HOLDOUT)]
    deepfm(monkeypatch, capsys, *arguments, "--store", str(here.folder / "flag store"))
    assert sorted(path.name for path in here.folder.iterdir() if (path / "models").exists()) == ["flag store"]
    deepfm(monkeypatch, capsys, *arguments)
    assert (here.folder / "variable" / "models").exists()
    assert not (here.folder / "store").exists()


@pytest.mark.parametrize("writable", [True, False])
def test_a_bug_is_one_line_and_its_traceback_a_file(toml, tmp_path, writable):
    code = (
        "import sys; from deepfm.cli import app, run\n"
        "def broken(*a, **k): raise ZeroDivisionError('boom')\n"
        "run.retrain = broken; app.tempfile.tempdir = sys.argv.pop(1); app.main()"
    )
    folder = tmp_path if writable else tmp_path / "missing"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), *run_of(toml)[3:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 70
    line = one_line(done.stderr)
    assert "ZeroDivisionError: boom" in line
    if writable:
        log = Path(line.rsplit("traceback in ", 1)[1].rstrip(")"))
        assert "Traceback" in log.read_text()
    else:
        assert "could not be written" in line


def redirected(command: list[str], how: str) -> subprocess.CompletedProcess[str]:
    """A command of a shell that closes or fills one of its streams."""
    shell = ["bash", "-c", f'"$@" {how}', "bash", *command]
    return subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("how", "code"), [(">&-", 0), ("2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 75)])
def test_a_stream_that_nobody_reads_changes_no_result(done, how, code, as_json):
    finished = redirected(run_of(done[0], *(["--json"] if as_json else [])), how)
    assert finished.returncode == code, finished.stderr
    if code:
        assert "no space left" in one_line(finished.stderr)


def test_a_reader_that_has_left_is_told_about_in_one_line(done):
    process = subprocess.Popen(run_of(done[0], "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert "nobody reads" in one_line(process.communicate(timeout=60)[1])
    assert process.returncode == 75


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_an_error_that_nobody_reads_keeps_its_exit_code(how):
    assert redirected([sys.executable, "-m", "deepfm", "run", "--date", "x", "--config", "x"], how).returncode == 2


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_that_nobody_reads_to_the_end_is_no_failure(arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "deepfm", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0


def test_the_folders_of_a_report_are_made_as_those_of_a_config_are(monkeypatch, capsys, done, tmp_path):
    page = tmp_path / "new" / "deeper" / "page.html"
    code, out, err = deepfm(monkeypatch, capsys, "report", "--config", str(done[0]), "--out", str(page))
    assert (code, err, out) == (0, "", f"{page}\n")
    assert page.is_file()
    code, _, err = deepfm(monkeypatch, capsys, "report", "--config", str(done[0]), "--out", str(page / "x" / "y.html"))
    assert code == 2
    assert "the report cannot be written" in one_line(err)
    assert "Choose another --out." in err


def test_the_environment_changes_neither_the_model_nor_the_output(done, tmp_path):
    toml, said = done
    bare = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"}
    command = run_of(toml, "--json", "--store", str(tmp_path / "another store"))
    finished = subprocess.run(command, env=bare, cwd=ROOT, capture_output=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, b"")  # not a terminal: no progress, no control characters
    assert finished.stdout.decode() == said


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_ctrl_c_is_130_and_the_same_command_goes_on(toml, here, tmp_path, number, code, word):
    command, temporary = run_of(toml), tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "DEEPFM_CACHE": str(here.folder / "cache")}
    long = [
        "--set",
        "training.epochs=1000",
        "--set",
        "training.checkpoint_every_seconds=0.01",
        "--set",
        "training.patience=999",
    ]
    process = subprocess.Popen(
        [*command, *long], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(here.folder.glob("store/training/*/*/resume.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert word in one_line(err)
    assert list(here.folder.glob("store/training/*/*/resume.json"))
    assert here.workspace().registry.head() is None
    assert not list(temporary.glob("deepfm-*"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("run", "synth", "A first run", "Exit codes")),
        (["run"], ("Example", "--json")),
        (["synth"], ("Example",)),
    ],
)
def test_help_teaches(monkeypatch, capsys, arguments, words):
    code, out, err = deepfm(monkeypatch, capsys, *arguments, "--help")
    assert (code, err) == (0, "")
    assert all(word in out for word in words)


def test_no_argument_at_all_shows_the_help(monkeypatch, capsys):
    code, out, err = deepfm(monkeypatch, capsys)
    assert (code, err) == (2, "")
    assert "Exit codes" in out


def test_the_command_line_loads_nothing_heavy_before_it_has_work():
    heavy = ("torch", "prefect", "pandas", "pyarrow", "great_expectations", "onnxruntime", "onnx", "boto3")
    code = f"import sys; import deepfm.cli.app; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"


def test_the_version_is_printed(monkeypatch, capsys):
    code, out, _ = deepfm(monkeypatch, capsys, "--version")
    assert (code, out) == (0, "0.1.0\n")


def test_synth_writes_days_and_refuses_another_world(monkeypatch, capsys, tmp_path):
    arguments = ["synth", "--out", str(tmp_path / "a world"), "--days", "2", "--rows-per-day", "200"]
    code, out, err = deepfm(monkeypatch, capsys, *arguments)
    assert (code, err) == (0, "")
    assert "2026-03-02 to 2026-03-03" in out
    assert len(list((tmp_path / "a world" / "clicks").glob("dt=*/part-0.parquet"))) == 2
    code, _, err = deepfm(monkeypatch, capsys, *arguments, "--seed", "7")
    assert code == 78
    assert "seed" in one_line(err)


def test_a_place_that_cannot_be_written_is_one_line(monkeypatch, capsys, tmp_path):
    file = tmp_path / "file"
    file.touch()
    code, _, err = deepfm(monkeypatch, capsys, "synth", "--out", str(file), "--days", "1", "--rows-per-day", "200")
    assert (code, "Not a directory" in one_line(err)) == (78, True)


def test_people_see_the_stage_at_work_and_how_far_the_training_is(here):
    from rich.console import Console

    def train_challenger(_: object) -> str:
        shown.training(3, 10)
        shown._progress.refresh()
        return "trained"

    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with Shown(console) as shown:
            assert shown.each(lambda _, item: item + 1, here.workspace(), [1, 2]) == [2, 3]
            assert shown.call(train_challenger, here.workspace()) == "trained"
            assert [task.description for task in shown._progress.tasks] == ["dates"]
        text = console.file.getvalue()  # type: ignore[attr-defined]
        if terminal:
            assert "train challenger" in text
            assert "step 3 of 10" in text
        else:
            assert not text
