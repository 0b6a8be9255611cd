"""The `deepfm` command: every error is one line on stderr and a documented exit code."""

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path
from types import FrameType, TracebackType
from typing import Annotated, NoReturn, cast

import typer

from deepfm.cli import (
    backfill,
    doctor,
    history,
    init,
    predict,
    promote,
    prune,
    pull,
    report,
    run,
    split,
    status,
    synth,
)
from deepfm.cli.options import VerboseOption
from deepfm.errors import DeepFMError, NoSpaceError, TransientError, UsageError, one_line

_INTERRUPTED, _TERMINATED = 130, 143
_NOBODY_READS = 1
"""What typer makes of a closed pipe."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
_MistypedError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
"""Any command line that cannot be parsed; typer's own name for it is private and moves between its releases."""


class OneLineFormatter(logging.Formatter):
    """A record is one line, whoever wrote the words in it; only a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The record's line."""
        return one_line(super().formatMessage(record))


app = typer.Typer(
    name="deepfm",
    epilog="Exit codes: 0 done (a lost gate included), 2 usage, 3 data rejected, 4 conflict, 75 try later, "
    "78 configuration, 70 bug, 130 interrupted, 143 terminated.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command(name="split")(split.split)
app.command(name="init")(init.init)
app.command(name="run")(run.run)
app.command(name="backfill")(backfill.backfill)
app.command(name="status")(status.status)
app.command(name="doctor")(doctor.doctor)
app.command(name="report")(report.report)
app.command(name="history")(history.history)
app.command(name="promote")(promote.promote)
app.command(name="rollback")(promote.rollback)
app.command(name="hold")(promote.hold)
app.command(name="release")(promote.release)
app.command(name="prune")(prune.prune)
app.command(name="pull")(pull.pull)
app.command(name="predict")(predict.predict)
app.command(name="synth")(synth.synth)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        typer.echo(version("deepfm-retrain"))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    *,
    _verbose: VerboseOption = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Daily click data in, a gated and calibrated DeepFM as one ONNX file out.

    [bold]Clicks to try it on[/]: deepfm synth --out ./demo/world --poison 2026-03-08

    [bold]A first run[/]: deepfm run --config examples/synthetic.toml --date 2026-03-09
    """
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[to_stderr])
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(UsageError.exit_code)


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.excepthook = _report_bug
    asked_to_end: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        """An eviction ends a run as Ctrl-C does: what is half done is stored or cleared away."""
        asked_to_end.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    _spell_out_strange_letters()
    try:
        # Calling the application itself would put typer's own excepthook in place of ours.
        code = typer.main.get_command(app)(standalone_mode=False)
    except DeepFMError as error:
        _leave(str(error), error.exit_code)
    except _MistypedError as error:
        command = error.ctx.command_path if error.ctx else "deepfm"
        text = error.format_message().rstrip(".")
        _leave(str(UsageError(text, next_step=f"Try '{command} --help'.")), UsageError.exit_code)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        sys.stdout = None  # what it still holds would fail again on the way out
        _leave("no space left on a disk; free some and run the same command again", NoSpaceError.exit_code)
    except SystemExit as leaving:
        if leaving.code == _NOBODY_READS:
            _leave_unread()
        raise
    if code == _INTERRUPTED:
        told = "terminated" if asked_to_end else "interrupted"
        _leave(f"{told}; run the same command again to go on", _TERMINATED if asked_to_end else _INTERRUPTED)
    sys.exit(code)


def _spell_out_strange_letters() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_unread() -> NoReturn:
    """Say that nobody reads stdout; but who leaves in the midst of a help, such as head, has missed nothing."""
    if len(sys.argv) == 1 or not {"--help", "--version"}.isdisjoint(sys.argv[1:]):
        sys.exit(0)
    _leave("nobody reads stdout; what was done is stored", TransientError.exit_code)


def _report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line for the user; the traceback goes to a file that a bug report can carry."""
    try:
        log = Path(tempfile.mkdtemp(prefix="deepfm-bug-"), "traceback.txt")
        log.write_text("".join(traceback.format_exception(kind, error, trace)), encoding="utf-8")
        where = f"traceback in {log}"
    except OSError as refused:
        where = f"its traceback could not be written: {refused.strerror}"
    _say(f"bug: {kind.__name__}: {one_line(str(error))[:300]} ({where})")
    os._exit(DeepFMError.exit_code)


def _leave(line: str, code: int) -> NoReturn:
    _say(line)
    sys.exit(code)


def _say(line: str) -> None:
    # Whether anybody can read the line changes nothing about what happened: the exit code stays.
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.write(f"deepfm: {line}\n")
            sys.stderr.flush()
