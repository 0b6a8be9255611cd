"""How the modules of this folder become commands."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from deepfm.errors import DeepFMError


def run(command: Callable[..., Any]) -> None:
    """Run a command with its options: every error of ours is one line and a documented exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        app()
    except DeepFMError as error:
        typer.echo(f"deployments: {error}", err=True)
        sys.exit(error.exit_code)
