"""The evidence command can fail: a claim that falls short is exit 1, a skipped one is not, an error loses no other."""

import datetime as dt
import io
import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from deepfm.errors import WindowError
from tests.evidence import newcomer
from tests.evidence.lines import Line, measure
from tests.evidence.shell import Said


def measured(folder, *measurements) -> tuple[int, list[str]]:
    written = io.StringIO()
    code = measure(measurements, folder, console=Console(file=written, width=300))
    return code, written.getvalue().splitlines()


@pytest.mark.parametrize(("holds", "code"), [([True, True], 0), ([True, False], 1), ([None], 0), ([None, False], 1)])
def test_a_claim_that_falls_short_fails_the_command(tmp_path, holds, code):
    def measurement(folder):
        assert folder.is_dir()
        yield from (Line("a claim", "3 [of 4]", "at least 2", value) for value in holds)

    exit_code, lines = measured(tmp_path, ("some", measurement))
    assert exit_code == code
    words = {True: "holds", False: "falls short", None: "skipped"}
    for value, line in zip(holds, lines[1:-1], strict=True):
        assert line.startswith(words[value])
        assert [part.strip() for part in line.partition("some: ")[2].split("  ") if part.strip()] == [
            "a claim",
            "at least 2",
            "3 [of 4]",
        ]
    assert lines[-1].startswith(f"{len(holds)} claims in ")
    assert f"{holds.count(False)} falls short" in lines[-1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WindowError("too few days"), "WindowError: too few days"),
        (subprocess.CalledProcessError(3, ["python"], stderr="first\nlast\n"), "exit 3: last"),
    ],
)
def test_an_error_falls_short_and_the_next_claim_is_measured(tmp_path, error, said):
    def broken(_):
        yield Line("before", "1", "1", holds=True)
        raise error

    def sound(_):
        yield Line("after", "1", "1", holds=True)

    exit_code, lines = measured(tmp_path, ("broken", broken), ("sound", sound))
    assert exit_code == 1
    assert [line[:11].strip() for line in lines[1:-1]] == ["holds", "falls short", "holds"]
    assert lines[2].endswith(said)


@pytest.mark.parametrize(("promotions", "holds"), [(1, None), (2, True)])
def test_a_rollback_that_was_not_shown_is_said(tmp_path, monkeypatch, promotions, holds):
    rows = [{"status": "promoted", "version": f"v{n}"} for n in range(promotions)]

    def typed(command: str, *_: object, home: Path, **__: str) -> Said:
        (home / "model.toml").write_text("[fields]\n")
        (home / "scores.csv").write_text("probability\n0.5\n")
        return Said(0, json.dumps(rows) if command == "backfill" else "", "", 0.1, 1)

    monkeypatch.setattr(newcomer, "deepfm", typed)
    date = dt.date(2026, 3, 1)
    (tmp_path / f"dt={date}").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / f"dt={date}" / "part-0.parquet")
    *_, last = newcomer._way(tmp_path, str(tmp_path), [date], leave_out={})
    assert (last.claim, last.holds) == ("rollback", holds)
    assert ("not shown" in last.figure) == (holds is None)
