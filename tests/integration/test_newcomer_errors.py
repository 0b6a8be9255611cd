"""What newcomers get wrong, one row each: a documented exit code, and one line that says what to do next."""

import ctypes
import datetime as dt
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.command_line import deepfm, one_line
from tests.places import Place
from tests.tiny_days import HOLDOUT, click_day, with_column, write_day
from tests.tiny_toml import write_toml

LIBC = ctypes.CDLL(None)
ROOT = Path(__file__).parents[2]
INIT = ("init", "{source}", "--out", "{folder}/m.toml")
RUN = ("run", "--config", "{toml}", "--date", str(HOLDOUT))


class Mistake(NamedTuple):
    """What a newcomer does, and what the line has to say."""

    arguments: tuple[str, ...]
    code: int
    words: str
    prepare: Callable[[Place, Path], None] | None = None


def file_of(place: Place) -> Path:
    return Path(place.source) / f"dt={HOLDOUT}" / "part-0.parquet"


def labels(values: object) -> Callable[[Place, Path], None]:
    def prepare(place: Place, _: Path) -> None:
        table = click_day(HOLDOUT)
        column = pa.array(np.resize(np.array(values, dtype=object), table.num_rows).tolist())
        write_day(Path(place.source), HOLDOUT, with_column(table, "click", column))

    return prepare


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Place, Path], None]:
    def prepare(place: Place, _: Path) -> None:
        file_of(place).write_bytes(change(file_of(place).read_bytes()))

    return prepare


def as_csv(place: Place, _: Path) -> None:
    pyarrow.csv.write_csv(click_day(HOLDOUT), file_of(place))


def folder_for_file(place: Place, _: Path) -> None:
    file_of(place).unlink()
    (file_of(place) / "inner").mkdir(parents=True)


def no_days(place: Place, _: Path) -> None:
    for day in Path(place.source).iterdir():
        day.rename(day.with_name(f"day-{day.name[-1]}"))


def text_price(place: Place, _: Path) -> None:
    table = click_day(HOLDOUT)
    write_day(Path(place.source), HOLDOUT, with_column(table, "price", pa.array(["cheap"] * table.num_rows)))


def naive_times(place: Place, _: Path) -> None:
    table = click_day(HOLDOUT)
    write_day(Path(place.source), HOLDOUT, with_column(table, "time", table["time"].cast(pa.timestamp("us"))))


def toml_text(change: Callable[[bytes], bytes]) -> Callable[[Place, Path], None]:
    def prepare(_: Place, toml: Path) -> None:
        toml.write_bytes(change(toml.read_bytes()))

    return prepare


def promoted(place: Place, toml: Path) -> None:
    del place
    command = [sys.executable, "-m", "deepfm", *(word.format(toml=toml) for word in RUN)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)


def rows_without_item(place: Place, toml: Path) -> None:
    promoted(place, toml)
    (place.folder / "rows.csv").write_text("user,price\nu1,3\n")


MISTAKES = {
    "missing config": Mistake(("run", "--config", "nowhere.toml", "--date", "2026-03-04"), 78, "does not exist"),
    "config left out": Mistake(("run", "--date", "2026-03-04"), 2, "--config"),
    "typo in a key": Mistake(
        RUN, 78, "did you mean epochs?", toml_text(lambda text: text.replace(b"epochs", b"epchs"))
    ),
    "typo in a command": Mistake(("rnu", "--config", "{toml}"), 2, "run"),
    "typo in an option": Mistake(("run", "--confg", "{toml}"), 2, "--config"),
    "folder without partitions": Mistake(RUN, 78, "holds no partition", no_days),
    "init on a folder without partitions": Mistake(INIT, 2, "split", no_days),
    "init on nothing": Mistake(("init", "{folder}/nothing", "--out", "{folder}/m.toml"), 2, "nothing"),
    "init on an empty folder": Mistake(
        ("init", "{folder}/empty", "--out", "{folder}/m.toml"),
        2,
        "empty",
        lambda place, _: (place.folder / "empty").mkdir(),
    ),
    "init over a config": Mistake(("init", "{source}", "--out", "{toml}"), 2, "--force"),
    "split by a column that is not there": Mistake(
        ("split", "{file}", "--by", "tiem", "--out", "{folder}/x"), 2, "tim"
    ),
    "split by a column without dates": Mistake(("split", "{file}", "--by", "user", "--out", "{folder}/x"), 2, "user"),
    "no such date": Mistake(("run", "--config", "{toml}", "--date", "2031-01-01"), 75, "2026-02-28 to 2026-03-04"),
    "a date that is none": Mistake(("run", "--config", "{toml}", "--date", "2026-02-30"), 2, "YYYY-MM-DD"),
    "label column missing": Mistake((*RUN, "--set", "data.label=clicked"), 3, "did you mean click?"),
    "label all zero": Mistake(RUN, 3, "both_classes", labels([0])),
    "label all one": Mistake(RUN, 3, "both_classes", labels([1])),
    "label not 0 or 1": Mistake(RUN, 3, "label", labels([1, 2, 3, 4, 5])),
    "label of words": Mistake(RUN, 3, "click", labels(["yes", "no"])),
    "empty day": Mistake(RUN, 3, "min_rows", lambda p, _: write_day(Path(p.source), HOLDOUT, click_day(HOLDOUT)[:0])),
    "empty file": Mistake(RUN, 3, "part-0.parquet", bytes_of(lambda _: b"")),
    "truncated file": Mistake(RUN, 3, "part-0.parquet", bytes_of(lambda data: data[: len(data) // 2])),
    "corrupt file": Mistake(RUN, 3, "part-0.parquet", bytes_of(lambda data: data[:40] + b"\xff" * 80 + data[120:])),
    "renamed file": Mistake(RUN, 3, "Name CSV .csv", as_csv),
    "a folder in place of a file": Mistake(RUN, 75, "are not there", folder_for_file),
    "wrong type": Mistake(RUN, 3, "price", text_price),
    "time zone missing": Mistake(RUN, 3, "event_time_zone", naive_times),
    "time zone unknown": Mistake((*RUN, "--set", "time_zone=Berlin"), 78, "Europe/Berlin"),
    "bucket name wrong": Mistake((*RUN, "--store", "s3://b/p"), 78, "3 to 63 lower-case letters, digits, dots"),
    "bucket wrong": Mistake((*RUN, "--store", "s3://no-such-bucket-here/x"), 78, "no-such-bucket-here"),
    "key wrong": Mistake((*RUN, "--store", "{bucket}"), 78, "AWS_ACCESS_KEY_ID", lambda *_: wrong("AWS_ACCESS_KEY_ID")),
    "secret wrong": Mistake((*RUN, "--store", "{bucket}"), 78, "AWS_SECRET", lambda *_: wrong("AWS_SECRET_ACCESS_KEY")),
    "endpoint wrong": Mistake(
        (*RUN, "--store", "{bucket}"), 75, "Check AWS_ENDPOINT_URL", lambda *_: wrong("AWS_ENDPOINT_URL")
    ),
    "no credentials": Mistake((*RUN, "--store", "{bucket}"), 78, "AWS_ACCESS_KEY_ID", lambda *_: without_keys()),
    "store in the way of a file": Mistake((*RUN, "--store", "{toml}"), 78, "a file is where a folder is needed"),
    "version unknown": Mistake(
        ("pull", "--config", "{toml}", "--version", "2026-03-04-0123456789abcdef", "--out", "{folder}/p"),
        2,
        "2026-03-04-0123456789abcdef",
        promoted,
    ),
    "version that is none": Mistake(
        ("promote", "newest", "--config", "{toml}", "--reason", "x"), 2, "newest", promoted
    ),
    "model unknown": Mistake(
        ("history", "--store", "file://{folder}/store", "--model", "tinny"), 2, "Did you mean tiny?", promoted
    ),
    "no champion to go back to": Mistake(
        ("rollback", "--config", "{toml}", "--reason", "x"),
        2,
        "champion",
        lambda place, _: (place.folder / "store").mkdir(),
    ),
    "no model named": Mistake(("history",), 2, "--config"),
    "predict on nothing": Mistake(("predict", "{folder}/none.csv", "--config", "{toml}"), 2, "none.csv", promoted),
    "predict without a field": Mistake(
        ("predict", "{folder}/rows.csv", "--config", "{toml}"),
        3,
        "item",
        rows_without_item,
    ),
    "store mistyped": Mistake(("history", "--config", "{toml}", "--store", "./storr"), 2, "folder does not exist"),
    "report before the first run": Mistake(("report", "--config", "{toml}"), 2, "run first"),
    "report on a day without a run": Mistake(
        ("report", "--config", "{toml}", "--date", "2026-03-03"), 2, "2026-03-03", promoted
    ),
}

WORKS = {
    "TOML with a byte order mark": toml_text(lambda text: b"\xef\xbb\xbf" + text),
    "TOML with CRLF": toml_text(lambda text: text.replace(b"\n", b"\r\n")),
    "TOML with tabs": toml_text(lambda text: text.replace(b" = ", b"\t=\t")),
}


def wrong(name: str) -> None:
    os.environ[name] = "http://127.0.0.1:9" if name == "AWS_ENDPOINT_URL" else "do-not-tell"


def without_keys() -> None:
    del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_the_next_step(request, monkeypatch, capsys, here, name):
    mistake = MISTAKES[name]
    toml = write_toml(here.folder, source=here.source, store=here.store)
    bucket = ""
    if "s3://" in str(mistake.arguments) or "{bucket}" in mistake.arguments:
        bucket = f"s3://{request.getfixturevalue('fresh_bucket')()}/store"
    for variable in [variable for variable in os.environ if variable.startswith("AWS_")]:
        monkeypatch.setenv(variable, os.environ[variable])  # what a row changes is put back
    if mistake.prepare is not None:
        mistake.prepare(here, toml)
    capsys.readouterr()
    places = {"toml": toml, "folder": here.folder, "source": here.source, "file": file_of(here), "bucket": bucket}
    code, out, err = deepfm(monkeypatch, capsys, *(word.format_map(places) for word in mistake.arguments))
    assert code == mistake.code, err + out
    line = one_line(err)
    assert line.startswith("deepfm: ")
    assert mistake.words in line
    assert "do-not-tell" not in out + err


@pytest.mark.parametrize("name", WORKS)
def test_what_editors_do_to_a_file_does_not_matter(monkeypatch, capsys, here, name):
    toml = write_toml(here.folder, source=here.source, store=here.store)
    WORKS[name](here, toml)
    code, _, err = deepfm(monkeypatch, capsys, "status", "--config", str(toml))
    assert code == 0, err


@pytest.mark.parametrize(("problem", "code", "words"), [(errno.ENOSPC, 75, "space"), (errno.EROFS, 78, "ead-only")])
def test_a_disk_that_is_full_or_cannot_be_written_is_one_line(monkeypatch, capsys, here, problem, code, words):
    toml = write_toml(here.folder, source=here.source, store=here.store)
    real = os.fsync

    def fails(descriptor: int) -> None:
        real(descriptor)
        raise OSError(problem, os.strerror(problem))

    monkeypatch.setattr(os, "fsync", fails)
    found, _, err = deepfm(monkeypatch, capsys, *(word.format(toml=toml) for word in RUN))
    assert found == code, err
    assert words in one_line(err)
    monkeypatch.setattr(os, "fsync", real)
    assert deepfm(monkeypatch, capsys, *(word.format(toml=toml) for word in RUN))[0] == 0


RIGHTS = {
    "a file that may not be read": ("{file}", 0o000, RUN, 78, "access is denied"),
    "a folder of a day that may not be listed": ("{day}", 0o000, RUN, 78, "access is denied"),
    "a config that may not be read": ("{toml}", 0o000, RUN, 78, "cannot be read: Permission denied"),
    "a store that may only be read": ("{folder}/store", 0o555, RUN, 78, "access is denied"),
    "a log that may only be read": ("{folder}/store/models/tiny/log", 0o555, RUN, 78, "promotion is not permitted"),
    "a folder for the TOML that may only be read": (
        "{folder}/mine",
        0o555,
        ("init", "{source}", "--label", "click", "--out", "{folder}/mine/m.toml"),
        78,
        "access is denied",
    ),
    "a folder for a report that may only be read": (
        "{folder}/mine",
        0o555,
        ("report", "--config", "{toml}", "--out", "{folder}/mine/page.html"),
        2,
        "Permission denied",
    ),
}


@pytest.mark.parametrize("name", RIGHTS)
def test_rights_that_are_missing_are_one_line_and_given_back_all_goes_on(here, name):
    path, mode, words, code, told = RIGHTS[name]
    toml = write_toml(here.folder, source=here.source, store=here.store)
    (here.folder / "mine").mkdir()
    (here.folder / "store" / "models" / "tiny" / "log").mkdir(parents=True)
    if "report" in words:
        promoted(here, toml)
    places = {
        "toml": str(toml),
        "folder": str(here.folder),
        "source": here.source,
        "file": str(file_of(here)),
        "day": str(file_of(here).parent),
    }
    barred = Path(path.format_map(places))
    usual = barred.stat().st_mode
    barred.chmod(mode)
    try:
        refused = plain_user(*(word.format_map(places) for word in words))
    finally:
        barred.chmod(usual)
    assert refused.returncode == code, refused.stderr
    assert told in one_line(refused.stderr)
    assert str(barred) in refused.stderr
    again = plain_user(*(word.format_map(places) for word in words))
    assert again.returncode == 0, again.stderr


def plain_user(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command by somebody whom the rights of files bind, which they do not bind root."""
    overriding, reading = 1, 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    drop_from_bounding_set = 24

    def drop() -> None:
        for capability in (overriding, reading):
            LIBC.prctl(drop_from_bounding_set, capability, 0, 0, 0)

    return subprocess.run(
        [sys.executable, "-m", "deepfm", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=drop,
    )


@pytest.mark.parametrize("command", ["init", "backfill", "predict"])
def test_ctrl_c_is_one_line_and_130(here, tmp_path, command):
    """At any moment, of a command that reads a pipe which nobody fills, or of one that has just begun."""
    toml = write_toml(here.folder, source=here.source, store=here.store)
    promoted(here, toml)
    arguments = {
        "init": ("init", here.source, "--out", str(tmp_path / "new.toml")),
        "backfill": ("backfill", "--config", str(toml), "--start", "2026-03-02", "--end", str(HOLDOUT)),
        "predict": ("predict", "-", "--config", str(toml)),
    }[command]
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "deepfm", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "deepfm.cli.options" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    told = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert process.returncode == 130, err[-2000:]
    assert [line for line in told if "interrupted" in line] == told
    assert len(told) == 1
    assert out == ""
    assert not (tmp_path / "new.toml").exists()


def test_no_home_no_terminal_and_a_path_with_spaces(here, tmp_path):
    place = tmp_path / "a place with spaces"
    place.mkdir()
    bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deepfm", *arguments],
            cwd=place,
            env=bare,
            capture_output=True,
            text=True,
            check=False,
        )

    first = command("init", here.source, "--out", "my model.toml", "--model", "spaced", "--label", "click")
    assert first.returncode == 0, first.stderr
    last = command("run", "--config", "my model.toml", "--date", str(HOLDOUT), "--set", "training.epochs=1")
    assert last.returncode == 0, last.stderr
    report = command("report", "--config", "my model.toml", "--out", "my report.html")
    assert (report.returncode, "\x1b" in first.stdout + last.stdout + report.stdout) == (0, False), report.stderr
    assert dt.date.fromisoformat(last.stdout[:10]) == HOLDOUT
    assert pq.read_table(here.source).num_rows > 0
