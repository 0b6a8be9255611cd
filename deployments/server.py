"""Prefect's server, in a process whose event loop never waits for SQLite: `python -m deployments.server --port 4200`.

An error leaves database cursors in reference cycles. Python collects cycles in whatever thread happens to allocate, and
to free a cursor SQLite waits until its connection is idle. If that connection waits to write, and the writer before it
needs the event loop, and the event loop is what collects, then the whole server stands still for as long as SQLite
waits at most, which Prefect sets to a minute. So cycles are collected by a thread of their own, which may wait.
"""

import gc
import runpy
import sys
import threading
import time
from typing import NoReturn

_EVERY_SECONDS = 1.0
_YOUNG = 1
_ALL_EVERY = 60


def main() -> None:
    """`prefect server start` with the arguments that this program was given."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()
    sys.argv[1:1] = ["server", "start"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _collect() -> NoReturn:
    """Young cycles every second, old ones every minute: about what Python does by itself."""
    turn = 0
    while True:
        time.sleep(_EVERY_SECONDS)
        turn += 1
        gc.collect(_YOUNG if turn % _ALL_EVERY else 2)


if __name__ == "__main__":
    main()
