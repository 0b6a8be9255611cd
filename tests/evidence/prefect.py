"""`make evidence-prefect`: what is said of schedules, pools and backfills, measured; exit 1 if one falls short.

    python -m tests.evidence.prefect [--list] [--only NAME ...]

A real server, real workers and a real S3 server are brought up on loopback, and gone afterwards.
"""

import sys

from tests.evidence import backfills, stalls
from tests.evidence.lines import Measurement
from tests.evidence.suite import run_suite

KNOWN: dict[str, Measurement] = {
    "twice": backfills.up_and_down_twice,
    "overhead": backfills.overhead,
    "thirty": backfills.thirty_days,
    "sqlite": stalls.answers_on_sqlite,
}

if __name__ == "__main__":
    sys.exit(run_suite(KNOWN, target="evidence-prefect", description=__doc__))
