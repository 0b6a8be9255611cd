"""A disk one call of which fails, seen from inside a process: Python tells an audit hook before it touches a file."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

_CALLS = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.scandir", "os.utime"}
_WRITES = {"os.rename", "os.link", "os.mkdir"}


class FailingDisk:
    """The disk below a folder, whose n-th call fails: one that writes finds it full, one that reads cannot read.

    Nothing takes an audit hook away again: this is for a process that ends soon.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._left = f"{folder}{os.sep}", number
        self.active = False

    @property
    def met(self) -> bool:
        """Whether the call was made."""
        return self._left <= 0

    def install(self) -> None:
        """From now on calls are counted while the disk is active."""
        sys.addaudithook(self._hear)
        flush = os.fsync

        def fsync(fd: Any) -> None:
            # Audit hooks are not told of this call, at which a full disk is often found out.
            self._count(errno.ENOSPC)
            flush(fd)

        os.fsync = fsync

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.active and event in _CALLS and str(arguments[0]).startswith(self._folder):
            writes = event in _WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
            self._count(errno.ENOSPC if writes else errno.EIO)

    def _count(self, code: int) -> None:
        if self.active:
            self._left -= 1
            if self._left == 0:
                raise OSError(code, os.strerror(code))
