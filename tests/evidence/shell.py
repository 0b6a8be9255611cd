"""Commands as a user types them: a process each, with what it printed, its exit code and the memory that it took."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

_MEASURED = (
    "import resource, runpy, sys\n"
    "try:\n"
    "    runpy.run_module('deepfm', run_name='__main__', alter_sys=True)\n"
    "finally:\n"
    "    open(sys.argv[0] and __import__('os').environ['PEAK_FILE'], 'w')"
    ".write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))\n"
)


class Said(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str
    seconds: float
    peak_mib: int
    """Largest resident memory of the process."""

    @property
    def json(self) -> Any:
        """What it printed for machines."""
        return json.loads(self.out)

    @property
    def last(self) -> str:
        """Its last line on stderr: the error, if it is one."""
        return ([line for line in self.err.splitlines() if line.strip()] or [""])[-1]


def deepfm(*arguments: object, home: Path, **variables: str) -> Said:
    """A finished `deepfm` command that was started in a folder."""
    peak = home / ".peak"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, arguments)],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PEAK_FILE": str(peak), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    kib = int(peak.read_text()) if peak.exists() else 0
    return Said(done.returncode, done.stdout, done.stderr, time.monotonic() - began, kib // 1024)
