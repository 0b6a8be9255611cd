"""`make evidence-clicks`: every claim about clicks that nobody here has seen, measured; exit 1 if one falls short.

    python -m tests.evidence.clicks [--list] [--only NAME ...]

REAL_CLICKS names a folder with real daily clicks (ml100k, obd_zozotown); without it those lines are skipped.
"""

import sys

from tests.evidence import flat, mistakes, newcomer, odd
from tests.evidence.lines import Measurement
from tests.evidence.suite import run_suite

KNOWN: dict[str, Measurement] = {
    "flat": flat.three_commands,
    "odd": odd.odd_inputs,
    "many": odd.many_files,
    "large": odd.large_file,
    "bucket": newcomer.bucket,
    "obd_zozotown": newcomer.obd_zozotown,
    "ml100k": newcomer.ml100k,
    "mistakes": mistakes.mistakes,
}

if __name__ == "__main__":
    sys.exit(run_suite(KNOWN, target="evidence-clicks", description=__doc__))
