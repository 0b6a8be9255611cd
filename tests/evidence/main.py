"""`make evidence-main`: every claim about the way from clicks to a consumer, measured; exit 1 if one falls short.

    python -m tests.evidence.main [--list] [--only NAME ...]

REAL_CLICKS names a folder with real daily clicks (ml100k, obd_zozotown); without it those lines are skipped.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Measure the chosen claims in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="evidence-") as folder:
        _quiet_prefect(Path(folder))
        from rich.console import Console

        from tests.evidence import days, learning, sameness
        from tests.evidence.lines import measure

        known = {
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
        chosen = _arguments(list(known))
        console = Console(highlight=False, soft_wrap=True)
        return measure(((name, known[name]) for name in chosen), Path(folder), console=console)


def _arguments(known: list[str]) -> list[str]:
    parser = argparse.ArgumentParser(prog="make evidence-main", description=__doc__)
    parser.add_argument("--list", action="store_true", help="show the names and stop")
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="NAME", help="measure these alone")
    arguments = parser.parse_args()
    if arguments.list:
        sys.stdout.write("\n".join(known) + "\n")
        return []
    return list(arguments.only)


def _quiet_prefect(folder: Path) -> None:
    """Prefect reads these when it is imported: a temporary server of its own, and no noise."""
    os.environ |= {
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    os.environ.pop("PREFECT_API_URL", None)


if __name__ == "__main__":
    sys.exit(main())
