"""A real S3 server for tests and evidence: SeaweedFS on loopback, stopped by its own process."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from deployments import seaweed

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_START_SECONDS = 60


class S3Server(NamedTuple):
    """Where a server listens and with which credentials."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use the server."""
        return seaweed.environment(self.endpoint, self.secret_key, access_key=self.access_key)


@contextmanager
def running_seaweed(folder: Path) -> Iterator[S3Server]:
    """A SeaweedFS S3 server with its data in a folder, gone when the block ends."""
    ports = seaweed.free_ports(4)
    server = S3Server(f"http://127.0.0.1:{ports[0]}", "test-access-key", f"secret-{uuid4().hex}")
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            seaweed.command(folder, *ports),
            cwd=folder,
            env={**os.environ, **server.environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(server, process, log=folder / "server.log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def client_of(server: S3Server) -> "S3Client":
    return seaweed.client_of(server.environment)


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], *, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if seaweed.ready(server.environment):
            return
        time.sleep(0.1)
    msg = f"S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}"
    raise RuntimeError(msg)
