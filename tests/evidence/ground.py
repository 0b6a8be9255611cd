"""A small trained model whose commands, configuration and clicks random mistakes are made in."""

import contextlib
import io
import os
import random
import shutil
import string
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from deepfm.cli import app
from deepfm.synthetic.config import preset_world
from deepfm.synthetic.delivery import write_world

_RUN_SHARE = 0.05
"""Share of the cases of a broken folder that run the whole way: judging a day costs a second, listing it does not."""
_WORDS = (
    "", " ", "x", "-1", "0", "1e400", "10" * 40, "nan", "null", "true", "../../etc/passwd", "s3://", "s3://a", "file://",
    "ftp://host/x", "2026-02-30", "2026-13-01", "0000-00-00", "9999-12-31", "20260301", "today", "\u202egnp",
    "\U0001f600", "a" * 5000, "%2e%2e/", "'; rm -rf /", "<script>", "\x1b[31m", "con", "2026-03-05-0123456789abcdef",
    "{date}", "\u00e9",
)  # fmt: skip


class Case(NamedTuple):
    """What is typed, in which folder."""

    arguments: list[str]
    folder: Path
    variables: Mapping[str, str] = MappingProxyType({})
    """Of the environment, while the command runs."""


class Ground:
    """A small world that was trained on once; a case that breaks something works on a copy of the part."""

    def __init__(self, home: Path, rng: random.Random) -> None:
        self.home, self.rng = home, rng
        self.fresh = home / "fresh"
        world = preset_world("demo", overrides={"days": 4, "rows_per_day": 400, "ctr": 0.3})
        write_world(world, home / "world")
        self.clicks = home / "world" / "clicks"
        self.last = max(path.name for path in self.clicks.glob("dt=*")).removeprefix("dt=")
        self.toml = home / "model.toml"
        done = run_in_process(["init", str(self.clicks), "--out", str(self.toml), "--model", "fuzzed"])
        assert done.code == 0, done.err
        self.text = self.toml.read_text()
        done = run_in_process(["run", *self.model, "--date", self.last, "--set", "training.epochs=1"])
        assert done.code == 0, done.err

    @property
    def model(self) -> list[str]:
        """The options that name the model."""
        return ["--config", str(self.toml), "--store", str(self.home / "store")]

    def word(self) -> str:
        """Something that somebody might type."""
        if self.rng.random() < 0.7:
            return self.rng.choice(_WORDS)
        return "".join(self.rng.choices(string.printable.replace("\x00", ""), k=self.rng.randrange(1, 20)))

    def typo(self, word: str) -> str:
        """The word with one character lost, doubled, swapped or changed."""
        n = self.rng.randrange(max(len(word), 1))
        return self.rng.choice((
            word[:n] + word[n + 1 :], word[:n] + word[n : n + 1] * 2 + word[n + 1 :],
            word[:n] + self.rng.choice(string.ascii_letters) + word[n + 1 :],
            word[:n] + word[n + 1 : n + 2] + word[n : n + 1] + word[n + 2 :],
        ))  # fmt: skip

    def commands(self) -> dict[str, list[str]]:
        """Every command as it is meant, on the trained model; nothing here trains or runs for long."""
        out = str(self.home / "out")
        return {
            "init": ["init", str(self.clicks), "--out", f"{out}.toml", "--force"],
            "split": ["split", str(self.home / "missing.csv"), "--by", "event_time", "--out", f"{out}-days"],
            "run": ["run", *self.model, "--date", self.last, "--set", "training.epochs=1"],
            "backfill": ["backfill", *self.model, "--start", self.last, "--end", self.last],
            "status": ["status", *self.model],
            "report": ["report", *self.model, "--out", f"{out}.html"],
            "history": ["history", *self.model],
            "promote": ["promote", "2026-03-05-0123456789abcdef", *self.model, "--reason", "because"],
            "rollback": ["rollback", *self.model, "--reason", "because"],
            "pull": ["pull", *self.model, "--out", f"{out}-pulled"],
            "predict": ["predict", str(self.home / "rows.csv"), *self.model, "--out", f"{out}.csv"],
            "synth": ["synth", "--out", f"{out}-world", "--days", "1", "--rows-per-day", "100"],
        }  # fmt: skip

    def command(self) -> list[str]:
        """One of the commands."""
        return list(self.rng.choice(list(self.commands().values())))

    def config_case(self, text: str | bytes) -> Case:
        """A command that reads a TOML of this text."""
        path = self.home / "changed.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        name = self.rng.choice(("status", "history", "report", "run" if self.rng.random() < _RUN_SHARE else "status"))
        arguments = [str(path) if word == str(self.toml) else word for word in self.commands()[name]]
        return Case(arguments, self.home)

    def folder_case(self, change: Callable[[Path], None]) -> Case:
        """A command on a copy of the clicks in which one file of the last day was changed."""
        if self.fresh.is_dir():
            shutil.rmtree(self.fresh)
        self.fresh.unlink(missing_ok=True)
        shutil.copytree(self.clicks, self.fresh)
        change(self.fresh / f"dt={self.last}" / "part-0.parquet")
        if self.rng.random() < _RUN_SHARE:
            return Case([*self.commands()["run"], "--set", f"data.source={self.fresh}"], self.home)
        return Case(["init", str(self.fresh), "--out", str(self.home / "out.toml"), "--force"], self.home)


class Done(NamedTuple):
    """How a command left."""

    code: int
    err: str
    trace: str


def run_in_process(arguments: list[str], variables: Mapping[str, str] = MappingProxyType({})) -> Done:
    """The command line on these arguments; what it would have shown as a bug is in `trace`."""
    out, err, trace, code = io.StringIO(), io.StringIO(), "", 0
    argv, hook, sys.argv = sys.argv, sys.excepthook, ["deepfm", *arguments]
    before = dict(os.environ)
    os.environ |= variables
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            app.main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException as bug:  # noqa: BLE001 - what escapes is what is looked for
        trace = f"{type(bug).__name__}: {bug}"
    finally:
        sys.argv, sys.excepthook = argv, hook
        for name in variables:
            os.environ.pop(name)
        os.environ |= before
    return Done(code, err.getvalue(), trace)
