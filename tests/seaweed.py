"""A real S3 server for tests and evidence: SeaweedFS on loopback, stopped by its own process."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
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
    log = folder / "server.log"
    environment = {**os.environ, **server.environment}
    with process_of(seaweed.command(folder, *ports), folder, environment=environment, log=log) as process:
        wait_until_ready(server, process, log=log)
        yield server


@contextmanager
def process_of(
    command: list[str], folder: Path, *, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process in a folder, its output in a file; ended with the block, killed if it does not end."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def client_of(server: S3Server) -> "S3Client":
    return seaweed.client_of(server.environment)


def wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], *, log: Path) -> None:
    """An object can be stored, or the end of the log is the error."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if seaweed.ready(server.environment):
            return
        time.sleep(0.1)
    msg = f"S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}"
    raise RuntimeError(msg)
