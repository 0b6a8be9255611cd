"""A real S3 server for tests and evidence: SeaweedFS on loopback, stopped by its own process."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_START_SECONDS = 60
_GRPC_OFFSET = 10_000  # the server also listens this far above each of its ports


class S3Server(NamedTuple):
    """Where a server listens and with which credentials."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use the server, and nothing of the machine's own AWS settings."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now, each also ten thousand above it."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with ExitStack() as held:
            try:
                for number in (port, port + _GRPC_OFFSET):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


@contextmanager
def running_seaweed(folder: Path) -> Iterator[S3Server]:
    """A SeaweedFS S3 server with its data in a folder, gone when the block ends."""
    s3, master, volume, filer = free_ports(4)
    server = S3Server(f"http://127.0.0.1:{s3}", "test-access-key", f"secret-{uuid4().hex}")
    command = [
        str(Path(sys.executable).parent / "weed"),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={s3}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        "-s3.autoCreateBucket=false",
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **server.environment}, stdout=log, stderr=subprocess.STDOUT
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
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            connect_timeout=3,
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 1},
        ),
    )


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], *, log: Path) -> None:
    """Return once an object could be stored; a server that answers /healthz may still refuse that."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = client_of(server)
    deadline = time.monotonic() + _START_SECONDS
    bucket = f"ready-{uuid4().hex}"
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if bucket not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
        else:
            return
    msg = f"S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}"
    raise RuntimeError(msg)
