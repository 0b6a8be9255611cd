"""`history`, `promote`, `rollback`, `hold`, `release` and `pull`, as people and scripts meet them."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from deepfm import layout, promotion
from deepfm.documents import sha256_hex
from deepfm.errors import ConflictError
from deepfm.registry import Registry
from deepfm.serving import ChampionModel
from deepfm.storage import ObjectStore, open_store
from deepfm.storage.local import LocalStore
from tests.command_line import deepfm, one_line
from tests.factories import MODEL, entry
from tests.small_versions import A, B, C, D, judge, model_key, publish, small_onnx, version_of_day

ACTS = {"promote": (B,), "rollback": (), "hold": (), "release": ()}
MISTAKES = {
    "rejected": (("promote", D), 2, "the gate rejected it: the gate says reject. Add --force"),
    "unknown date": (("promote", "2031-01-01"), 2, "version 2031-01-01 is not there"),
    "no version": (("promote", "newest"), 2, "version id is not allowed"),
    "never champion": (("rollback", "--to", C), 2, f"{C} never was champion"),
    "never champion, rejected": (("rollback", "--to", D), 2, f"{D} never was champion"),
    "empty reason": (("hold", "--reason", " "), 2, "--reason"),
}


class Shell:
    """The commands on one model; what they say and the code that they leave with."""

    def __init__(self, monkeypatch, capsys, url: str) -> None:
        self._monkeypatch, self._capsys, self.store = monkeypatch, capsys, filled(open_store(url))
        self.place = ("--store", url, "--model", MODEL)

    def __call__(self, command: str, *arguments: str) -> tuple[int, str, str]:
        return deepfm(self._monkeypatch, self._capsys, command, *arguments, *self.place)

    def done(self, command: str, *arguments: str) -> str:
        """What a command that succeeds says on stdout."""
        code, out, err = self(command, *arguments)
        assert (code, err) == (0, "")
        return out

    @property
    def champion(self) -> str:
        return Registry(self.store, MODEL).champion().version

    def entries(self) -> list[str]:
        return [found.operation for found in Registry(self.store, MODEL).entries()]


def filled(store: ObjectStore) -> ObjectStore:
    """Three versions that the gate cleared, and one that it rejected."""
    publish(store, A, B, C, D)
    for version in (A, B, C):
        judge(store, version, "promote")
    judge(store, D, "reject")
    return store


@pytest.fixture
def shell(monkeypatch, capsys, tmp_path) -> Shell:
    return Shell(monkeypatch, capsys, str(tmp_path / "a store"))


@pytest.fixture
def reigned(shell) -> Shell:
    """A, then B was promoted."""
    for version in (A, B):
        shell.done("promote", version, "--reason", "good")
    return shell


class TestActs:
    def test_each_says_in_one_line_what_changed_and_how_to_undo_it(self, reigned):
        place = f"--store '{reigned.place[1]}' --model {MODEL}"
        assert " " in reigned.place[1]
        assert reigned.done("promote", C, "--reason", "x") == (
            f"{C} is champion, instead of {B} (log entry 3). Undo: deepfm rollback {place} --reason TEXT\n"
        )
        assert reigned.done("hold", "--reason", "x") == (
            f"Promotions are on hold (log entry 4). Undo: deepfm release {place} --reason TEXT\n"
        )
        assert reigned.done("rollback", "--reason", "x") == (
            f"{B} is champion, instead of {C} (log entry 5, promotions stay on hold). "
            f"Undo: deepfm promote {place} {C} --reason TEXT\n"
        )
        assert reigned.done("release", "--reason", "x").startswith("Promotions are not on hold (log entry 6). Undo: ")

    def test_the_first_champion_has_nothing_to_undo(self, shell):
        assert shell.done("promote", A, "--reason", "x") == f"{A} is champion, the first one (log entry 1).\n"

    def test_the_printed_undo_undoes_a_forced_promotion_that_was_rolled_back(self, reigned):
        reigned.done("promote", D, "--reason", "trial", "--force")
        out = reigned.done("rollback", "--reason", "x")
        assert f"{D} --force --reason TEXT" in out
        reigned.done("promote", D, "--force", "--reason", "TEXT")
        assert reigned.champion == D

    def test_what_is_so_already_is_said_and_not_logged(self, reigned):
        assert reigned.done("promote", B, "--reason", "x") == f"{B} is champion already: nothing changed.\n"
        assert reigned.done("rollback", "--to", B, "--reason", "x") == f"{B} is champion already: nothing changed.\n"
        assert reigned.done("release", "--reason", "x") == "Promotions are not on hold: nothing changed.\n"
        reigned.done("hold", "--reason", "x")
        assert reigned.done("hold", "--reason", "x") == "Promotions are on hold already: nothing changed.\n"
        assert len(reigned.entries()) == 3

    def test_a_date_names_a_version(self, reigned):
        reigned.done("promote", C[:10], "--reason", "x")
        reigned.done("rollback", "--to", A[:10], "--reason", "x")
        assert reigned.champion == A

    @pytest.mark.parametrize("act", ACTS)
    def test_a_reason_has_to_be_given(self, reigned, act):
        code, out, err = reigned(act, *ACTS[act])
        assert (code, out) == (2, "")
        assert "--reason" in one_line(err)

    @pytest.mark.parametrize("act", ACTS)
    def test_json_is_the_act_and_the_entry(self, reigned, act):
        change = json.loads(reigned.done(act, *ACTS[act], "--reason", "why", "--json"))
        assert set(change) == {"operation", "changed", "before", "entry"}
        assert (change["operation"], change["before"]) == (act, B)
        head = Registry(reigned.store, MODEL).champion()
        assert change["entry"] == json.loads(head.model_dump_json())
        assert change["changed"] == (act in {"rollback", "hold"})

    @pytest.mark.parametrize("mistake", MISTAKES)
    def test_a_mistake_is_one_line_and_changes_nothing(self, reigned, mistake):
        arguments, expected, words = MISTAKES[mistake]
        reason = () if "--reason" in arguments else ("--reason", "x")
        code, out, err = reigned(*arguments, *reason)
        assert (code, out) == (expected, "")
        assert words in one_line(err)
        assert len(reigned.entries()) == 2

    @pytest.mark.parametrize("act", ["rollback", "hold", "release"])
    def test_before_the_first_promotion_there_is_one_line(self, shell, act):
        code, out, err = shell(act, "--reason", "x")
        assert (code, out) == (2, "")
        assert f"model {MODEL} has no champion" in one_line(err)

    def test_before_the_second_there_is_nothing_to_go_back_to(self, shell):
        shell.done("promote", A, "--reason", "x")
        code, _, err = shell("rollback", "--reason", "x")
        assert (code, one_line(err)) == (
            2,
            f"deepfm: there is no champion before {A} (log entry 1). Promote another version by name.",
        )

    def test_a_broken_target_is_refused_in_one_line(self, reigned):
        reigned.store.write(model_key(A), small_onnx()[:-1])
        code, out, err = reigned("rollback", "--reason", "x")
        assert (code, out) == (3, "")
        assert "size in bytes does not match" in one_line(err)
        assert reigned.champion == B

    def test_a_lost_race_is_4_and_says_who_and_when(self, reigned, monkeypatch):
        registry = Registry(reigned.store, MODEL)
        append = Registry.append

        def overtaken(self, wanted):
            monkeypatch.setattr(Registry, "append", append)
            registry.append(entry(wanted.sequence, actor="bob"))
            return append(self, wanted)

        monkeypatch.setattr(Registry, "append", overtaken)
        code, out, err = reigned("hold", "--reason", "x")
        assert (code, out) == (4, "")
        assert "by bob on 2026-03-02 04:05:06+0000" in one_line(err)


class TestHistory:
    def test_an_empty_log_says_so(self, shell):
        assert shell.done("history") == "Nothing has been promoted yet.\n"
        assert json.loads(shell.done("history", "--json")) == []

    def test_every_entry_is_a_line_and_the_last_line_is_the_state(self, reigned):
        reigned.done("hold", "--reason", "sale this week")
        _, first, second, third, state = reigned.done("history").splitlines()
        assert first.split()[3:5] == ["promote", A]
        assert second.split()[3:5] == ["promote", B]
        assert third.split()[3:6] == ["hold", B, "★"]
        assert "0.7000" in first
        assert "0.7000" not in third
        assert "★" not in first + second
        assert state.startswith(f"Champion: {B}. Promotions are on hold since ")
        assert state.endswith("(sale this week).")

    def test_a_limit_shows_the_newest(self, reigned):
        reigned.done("hold", "--reason", "x")
        assert [row["operation"] for row in json.loads(reigned.done("history", "--limit", "2", "--json"))] == [
            "promote",
            "hold",
        ]
        assert len(reigned.done("history", "--limit", "1").splitlines()) == 3

    def test_json_is_the_log_as_it_is_stored(self, reigned):
        stored = [json.loads(reigned.store.read(layout.log_entry(MODEL, number))) for number in (1, 2)]
        assert json.loads(reigned.done("history", "--json")) == stored

    def test_letters_that_the_terminal_lacks_are_spelled_out(self, reigned):
        reigned.done("hold", "--reason", "Räumungsverkauf")
        done = subprocess.run(
            [sys.executable, "-m", "deepfm", "history", *reigned.place],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            check=True,
        )
        assert done.stderr == b""
        assert rb"R\xe4umungsverkauf" in done.stdout

    def test_another_writers_words_cannot_colour_the_terminal(self, shell):
        hostile = entry(1).model_copy(update={"actor": "eve\x1b[2J", "reason": "[red]a\nb\x07"})
        Registry(shell.store, MODEL).append(hostile)
        out = shell.done("history")
        assert "\x1b" not in out
        assert "\x07" not in out
        assert "[red]a b" in out


class TestPull:
    @pytest.fixture
    def out(self, tmp_path) -> Path:
        return tmp_path / "new folder" / "pulled"

    def test_the_champions_file_runs_with_onnxruntime_alone_as_printed(self, reigned, out):
        printed = reigned.done("pull", "--out", str(out))
        assert printed.splitlines()[0] == f"# {out / B / 'model.onnx'}"
        done = subprocess.run([sys.executable, "-I", "-c", printed], capture_output=True, text=True, check=True)
        columns = {"user": ["some value", None], "item": [17, None], "price": [1.5, None]}
        expected = ChampionModel.open(reigned.store.url, MODEL).predict(columns)
        assert np.fromstring(done.stdout.strip(" []\n"), sep=" ") == pytest.approx(expected, abs=1e-7)

    def test_json_names_the_file_its_digest_and_the_inputs(self, reigned, out):
        summary = json.loads(reigned.done("pull", "--out", str(out), "--json"))
        assert set(summary) == {"version", "path", "sha256", "inputs"}
        assert summary["version"] == B
        assert sha256_hex(Path(summary["path"]).read_bytes()) == summary["sha256"]
        assert [(field["name"], field["dtype"]) for field in summary["inputs"]] == [
            ("user", "string"),
            ("item", "int64"),
            ("price", "float32"),
        ]

    def test_the_manifest_is_the_stored_one(self, reigned, out):
        reigned.done("pull", "--out", str(out), "--version", A[:10])
        assert (out / A / "manifest.json").read_bytes() == reigned.store.read(layout.version_manifest(MODEL, A))
        assert sorted(path.name for path in (out / A).iterdir()) == [
            "inputs.schema.json",
            "manifest.json",
            "model.onnx",
        ]

    def test_a_schema_says_what_a_row_may_hold(self, reigned, out):
        reigned.done("pull", "--out", str(out))
        schema = json.loads((out / B / "inputs.schema.json").read_bytes())
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["title"] == f"One row for {MODEL}, version {B}"
        assert schema["additionalProperties"] is True
        assert [*schema["properties"]] == schema["required"] == ["user", "item", "price"]
        types = [field["type"] for field in schema["properties"].values()]
        assert types == [["string", "null"], ["integer", "null"], ["number", "null"]]
        user, item, price = (field["description"] for field in schema["properties"].values())
        assert "missing" in user
        assert "scored as unseen" in user
        assert "-9223372036854775808" in item
        assert "mean of training" in price

    def test_the_manifest_is_put_last(self, reigned, out, monkeypatch):
        written = []
        write = LocalStore.write

        def noted(self: LocalStore, key: str, data: bytes) -> None:
            written.append(key)
            write(self, key, data)

        monkeypatch.setattr(LocalStore, "write", noted)
        reigned.done("pull", "--out", str(out))
        assert written[-1] == f"{B}/manifest.json"
        assert len(written) == 3

    def test_it_needs_no_right_to_write(self, reigned, out, monkeypatch):
        own = LocalStore.write

        def refused(self: LocalStore, key: str, data: bytes) -> None:
            assert self.folder == out, f"{key} was written into the store"
            own(self, key, data)

        for call in ("create", "upload", "delete"):
            monkeypatch.setattr(LocalStore, call, None)
        monkeypatch.setattr(LocalStore, "write", refused)
        reigned.done("pull", "--out", str(out))
        assert (out / B / "manifest.json").exists()

    def test_twice_is_once_and_a_changed_file_is_replaced_aloud(self, reigned, out):
        reigned.done("pull", "--out", str(out))
        path = out / B / "model.onnx"
        before = path.stat().st_ino
        reigned.done("pull", "--out", str(out))
        assert path.stat().st_ino == before
        path.write_bytes(b"mine")
        code, _, err = reigned("pull", "--out", str(out), "--json")
        assert (code, one_line(err)) == (0, f"{B}/model.onnx had other bytes and was replaced.")
        assert path.read_bytes() == small_onnx()

    @pytest.mark.parametrize("broken", ["model file", "manifest", "a file that is no model"])
    def test_nothing_is_put_where_the_store_is_broken(self, reigned, out, broken):
        version: tuple[str, ...] = ()
        words = "does not match"
        if broken == "model file":
            reigned.store.write(model_key(B), b"other")
        elif broken == "manifest":
            key = layout.version_manifest(MODEL, B)
            reigned.store.write(key, reigned.store.read(key) + b" ")
        else:
            publish(reigned.store, version_of_day(9), data=b"no model")
            version, words = ("--version", version_of_day(9)), "not ONNX"
        code, _, err = reigned("pull", "--out", str(out), *version)
        assert code == 3
        assert words in one_line(err)
        assert not out.exists()

    def test_a_folder_that_cannot_be_written_is_one_line(self, reigned, tmp_path):
        (tmp_path / "file").write_text("in the way")
        code, _, err = reigned("pull", "--out", str(tmp_path / "file"))
        assert code == 78
        assert "a file is where a folder is needed" in one_line(err)

    def test_without_a_champion_there_is_one_line(self, shell, out):
        code, _, err = shell("pull", "--out", str(out))
        assert code == 2
        assert "has no champion" in one_line(err)


def test_the_commands_and_a_race_on_a_bucket(monkeypatch, capsys, fresh_bucket):
    shell = Shell(monkeypatch, capsys, f"s3://{fresh_bucket()}/team")
    shell.done("promote", A, "--reason", "first")
    people = 4
    start = threading.Barrier(people)

    def promote(number: int) -> promotion.Change | None:
        operator = promotion.Operator(shell.store, MODEL, actor=f"person {number}", reason="race")
        start.wait()
        try:
            return operator.promote((B, C)[number % 2])
        except ConflictError:
            return None

    with ThreadPoolExecutor(people) as pool:
        changes = [change for change in pool.map(promote, range(people)) if change and change.changed]
    log = Registry(shell.store, MODEL).entries()
    assert [found.sequence for found in log] == list(range(1, len(changes) + 2))
    assert {found.attempt for found in log[1:]} == {change.entry.attempt for change in changes}
    shell.done("rollback", "--to", A, "--reason", "all of them")
    assert shell.champion == A
    assert len(json.loads(shell.done("history", "--json"))) == len(log) + 1
