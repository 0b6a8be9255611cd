"""The `deepfm` command: every error is one line on stderr and a documented exit code."""

import logging
import os
import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from deepfm.cli import run, synth
from deepfm.errors import DeepFMError

_INTERRUPTED = 130

app = typer.Typer(
    name="deepfm",
    epilog="Exit codes: 0 done (a lost gate included), 2 usage, 3 data rejected, 4 conflict, 75 try later, "
    "78 configuration, 70 bug, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command(name="run")(run.run)
app.command(name="synth")(synth.synth)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        typer.echo(version("deepfm-retrain"))
        raise typer.Exit


@app.callback()
def root(
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the stages do, on stderr.")] = False,
    _version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Daily click data in, a gated and calibrated DeepFM as one ONNX file out."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.excepthook = _report_bug
    try:
        # Calling the application itself would put typer's own excepthook in place of ours.
        typer.main.get_command(app)()
    except DeepFMError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except SystemExit as leaving:
        if leaving.code == _INTERRUPTED:
            _say("interrupted; run the same command again to go on")
        raise


def _report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line for the user; the traceback goes to a file that a bug report can carry."""
    log = Path(tempfile.mkdtemp(prefix="deepfm-bug-"), "traceback.txt")
    log.write_text("".join(traceback.format_exception(kind, error, trace)), encoding="utf-8")
    _say(f"bug: {kind.__name__}: {' '.join(str(error).split())[:300]} (traceback in {log})")
    sys.stdout.flush()
    os._exit(DeepFMError.exit_code)


def _say(line: str) -> None:
    sys.stderr.write(f"deepfm: {line}\n")
