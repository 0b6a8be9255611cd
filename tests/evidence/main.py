"""`make evidence-main`: every claim about the way from clicks to a consumer, measured; exit 1 if one falls short.

    python -m tests.evidence.main [--list] [--only NAME ...]

REAL_CLICKS names a folder with real daily clicks (ml100k, obd_zozotown); without it those lines are skipped.
"""

import sys

from tests.evidence import days, learning, sameness
from tests.evidence.lines import Measurement
from tests.evidence.suite import run_suite

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

if __name__ == "__main__":
    sys.exit(run_suite(KNOWN, target="evidence-main", description=__doc__))
