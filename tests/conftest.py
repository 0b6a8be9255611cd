"""Resources that tests of several folders share: a real S3 server and buckets in it, and who hears of events."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import pytest

from deepfm.events import Event
from tests.ceph import running_ceph
from tests.seaweed import S3Server, client_of, running_seaweed
from tests.sinks import Sink, only


@pytest.fixture(scope="session", autouse=True)
def nobody_hears() -> Iterator[None]:
    """What tests do to models is told to nobody, whatever is installed and whichever server this machine uses."""
    with only(), pytest.MonkeyPatch.context() as patched:
        patched.delenv("PREFECT_API_URL", raising=False)
        yield


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    """What a sink has heard of during the test."""
    events: list[Event] = []
    with only(Sink(events.append)):
        yield events


@pytest.fixture(scope="session")
def running_s3() -> Callable[[Path], AbstractContextManager[S3Server]]:
    """What starts a real S3 server with its data in a folder: SeaweedFS, or Ceph under S3_SERVER=ceph."""
    return {"seaweed": running_seaweed, "ceph": running_ceph}[os.environ.get("S3_SERVER", "seaweed")]


@pytest.fixture(scope="session")
def s3_server(
    running_s3: Callable[[Path], AbstractContextManager[S3Server]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    """A real S3 server of its own, gone with the session."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with this process's AWS variables pointing at it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def fresh_bucket(s3_environment: S3Server) -> Callable[[], str]:
    """A function that makes an empty bucket and returns its name."""

    def make() -> str:
        name = f"test-{uuid4().hex}"
        client_of(s3_environment).create_bucket(Bucket=name)
        return name

    return make
