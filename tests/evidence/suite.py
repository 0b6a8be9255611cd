"""What the evidence commands share: choosing claims, a temporary folder that everything stays in, an exit code."""

import argparse
import atexit
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from tests.evidence.lines import Measurement, measure


def run_suite(known: Mapping[str, Measurement], *, target: str, description: str | None) -> int:
    """Measure the chosen claims in a temporary folder; 1 if one falls short, else 0."""
    parser = argparse.ArgumentParser(prog=f"make {target}", description=description)
    parser.add_argument("--list", action="store_true", help="show the names and stop")
    parser.add_argument(
        "--only", nargs="+", choices=known, default=[*known], metavar="NAME", help="measure these alone"
    )
    arguments = parser.parse_args()
    if arguments.list:
        sys.stdout.write("\n".join(known) + "\n")
        return 0
    folder = tempfile.TemporaryDirectory(prefix="evidence-")
    # Prefect's temporary server writes there until its own exit hook, registered later and so run earlier, stops it.
    atexit.register(folder.cleanup)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _confine(Path(folder.name))
    chosen = ((name, known[name]) for name in arguments.only)
    return measure(chosen, Path(folder.name), console=Console(highlight=False, soft_wrap=True))


def _confine(folder: Path) -> None:
    """Caches lie below the folder, and so does Prefect with a quiet server of its own: it is not imported yet."""
    os.environ |= {
        "DEEPFM_CACHE": str(folder / "cache"),
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.pop("DEEPFM_STORE", None)
