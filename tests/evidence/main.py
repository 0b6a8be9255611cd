"""`make evidence-main`: every claim about the way from clicks to a consumer, measured; exit 1 if one falls short.

    python -m tests.evidence.main [--list] [--only NAME ...]

REAL_CLICKS names a folder with real daily clicks (ml100k, obd_zozotown); without it those lines are skipped.
"""

import argparse
import atexit
import os
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.evidence import days, learning, sameness
from tests.evidence.lines import Measurement, measure

KNOWN: dict[str, Measurement] = {
    "consumer": sameness.consumer,
    "stores": sameness.stores,
    "kills": sameness.kills,
    "parity": learning.parity,
    "shuffled": learning.shuffled,
    "demo": days.demo,
    "obd_zozotown": days.obd_zozotown,
    "ml100k": days.ml100k,
    "reachable": learning.reachable,
    "calibration": learning.calibration,
}


def main() -> int:
    """Measure the chosen claims in a temporary folder."""
    arguments = _arguments()
    if arguments.list:
        sys.stdout.write("\n".join(KNOWN) + "\n")
        return 0
    folder = tempfile.TemporaryDirectory(prefix="evidence-")
    # Prefect's temporary server writes there until its own exit hook, registered later and so run earlier, stops it.
    atexit.register(folder.cleanup)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _confine(Path(folder.name))
    chosen = ((name, KNOWN[name]) for name in arguments.only)
    return measure(chosen, Path(folder.name), console=Console(highlight=False, soft_wrap=True))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make evidence-main", description=__doc__)
    parser.add_argument("--list", action="store_true", help="show the names and stop")
    parser.add_argument(
        "--only", nargs="+", choices=KNOWN, default=[*KNOWN], metavar="NAME", help="measure these alone"
    )
    return parser.parse_args()


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


if __name__ == "__main__":
    sys.exit(main())
