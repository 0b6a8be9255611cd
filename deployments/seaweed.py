"""A real S3 server on loopback: SeaweedFS, from PyPI."""

import os
import random
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_GRPC_OFFSET = 10_000  # the server also listens this far above each of its ports


def environment(endpoint: str, secret_key: str, *, access_key: str = "local-access-key") -> dict[str, str]:
    """What the server and its users need, and nothing of the machine's own AWS settings."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def command(folder: Path, s3: int, master: int, volume: int, filer: int) -> list[str]:
    """The server's command line; it takes its credentials from the environment."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
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
        "-s3.domainName=localhost",
    ]


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now, each also ten thousand above it."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - a port is no secret
        with ExitStack() as held:
            try:
                for number in (port, port + _GRPC_OFFSET):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def client_of(variables: Mapping[str, str]) -> "S3Client":
    """A client of the server that some variables describe."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            connect_timeout=3,
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 1},
        ),
    )


def ready(variables: Mapping[str, str]) -> bool:
    """Whether an object can be stored; a server that answers /healthz may still refuse that."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = client_of(variables)
    bucket = f"ready-{uuid4().hex}"
    try:
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
        client.delete_object(Bucket=bucket, Key="ready")
        client.delete_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError):
        return False
    return True


def make_bucket(name: str) -> None:
    """The bucket is there, on the server that this process's variables describe."""
    client = client_of(os.environ)
    if name not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=name)
