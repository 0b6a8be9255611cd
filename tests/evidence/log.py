"""`make evidence-log`: what is said of the promotion log, measured; exit 1 if a claim falls short.

    python -m tests.evidence.log [--list] [--only NAME ...]

Writers race, answers are lost, calls fail and processes are killed, in memory, on folders and on a real S3 server.
"""

import sys

from tests.evidence import consumers, cuts, races
from tests.evidence.lines import Measurement
from tests.evidence.suite import run_suite

KNOWN: dict[str, Measurement] = {
    "planted": races.planted,
    "writers": races.writers,
    "nth": cuts.nth,
    "kills": cuts.kills,
    "consumers": consumers.consumers,
}

if __name__ == "__main__":
    sys.exit(run_suite(KNOWN, target="evidence-log", description=__doc__))
