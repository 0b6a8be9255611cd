"""`deepfm predict` as a process of its own: readers that leave, an interrupt, memory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepfm.promotion import Operator
from deepfm.storage import open_store
from tests.command_line import one_line
from tests.factories import MODEL
from tests.small_versions import A, publish

ROOT = Path(__file__).parents[2]
GOOD = '{"user":"u1","item":17,"price":1}\n'


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A version that is champion."""
    store = open_store(str(tmp_path_factory.mktemp("predict")))
    publish(store, A)
    Operator(store, MODEL, actor="test", reason="test").promote(A, force=True)
    return store


def test_a_reader_that_leaves_ends_it_in_one_line(store, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD * 200_000)
    arguments = ["predict", str(path), "--store", store.url, "--model", MODEL]
    process = subprocess.Popen(
        [sys.executable, "-m", "deepfm", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["probability"] > 0
    process.stdout.close()
    assert process.stderr is not None
    assert one_line(process.stderr.read().decode()) == "deepfm: nobody reads stdout; what was done is stored"
    assert process.wait(timeout=60) == 75


def test_a_reader_that_was_never_there_ends_it_in_one_line_too(store, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["predict", str(path), "--store", store.url, "--model", MODEL]
    with open(writer, "wb") as gone:  # noqa: PTH123 - a descriptor
        done = subprocess.run(
            [sys.executable, "-m", "deepfm", *arguments], stdout=gone, stderr=subprocess.PIPE, cwd=ROOT, check=False
        )
    assert done.returncode == 75
    assert "nobody reads stdout" in one_line(done.stderr.decode())


def test_an_interrupt_leaves_no_file(store, tmp_path):
    arguments = ["predict", "-", "--out", str(tmp_path / "out.csv"), "--store", store.url, "--model", MODEL]
    process = subprocess.Popen(
        [sys.executable, "-m", "deepfm", *arguments], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    process.stdin.write(GOOD.encode() * 50_000)
    process.stdin.flush()
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, list(tmp_path.iterdir())) == (130, []), err


def test_memory_does_not_follow_the_file(store, tmp_path):
    """Ten times the rows take no more memory, in the process that has scored them."""
    script = (
        "import resource, sys\n"
        "from deepfm.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as left: code = left.code\n"
        "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)); sys.exit(code)"
    )
    peaks = []
    for rows in (40_000, 400_000):
        path = tmp_path / f"{rows}.csv"
        path.write_text("user,item,price,text\n" + "u1,17,1.25,some text that takes some room\n" * rows)
        arguments = ["predict", str(path), "--out", str(tmp_path / "out.csv"), "--store", store.url, "--model", MODEL]
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
        )
        peaks.append(int(done.stderr) / 1024)
    assert peaks[1] < peaks[0] + 60, peaks
