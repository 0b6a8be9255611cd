"""What a user can set about a bucket, on a real server with a proxy in front that shows each request."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deepfm.errors import ConfigError
from deepfm.storage import open_store
from deepfm.storage.s3 import S3Store
from tests.faulty_proxy import FaultyProxy, running_proxy
from tests.seaweed import S3Server, client_of


@pytest.fixture
def bucket(fresh_bucket: Callable[[], str]) -> str:
    return fresh_bucket()


@pytest.fixture
def proxy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:  # noqa: ARG001 - sets the variables
    with running_proxy(os.environ["AWS_ENDPOINT_URL"]) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """A function that writes the AWS files, with settings of a profile that is in use, and takes the variables away."""
    access, secret, endpoint = (
        os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
    )

    def write(*settings: str, key: str = access, token: str = "") -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        credentials = [f"aws_access_key_id = {key}", f"aws_secret_access_key = {secret}"]
        credentials += [f"aws_session_token = {token}"] if token else []
        own = [] if any("endpoint_url" in line for line in settings) else [f"endpoint_url = {endpoint}"]
        (tmp_path / "credentials").write_text("\n".join(["[clicks]", *credentials]) + "\n")
        (tmp_path / "config").write_text("\n".join(["[profile clicks]", *own, *settings]) + "\n")
        monkeypatch.setenv("AWS_PROFILE", "clicks")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    return write


def opened(bucket: str) -> S3Store:
    store = open_store(f"s3://{bucket}")
    assert isinstance(store, S3Store)
    return store


class TestAddressing:
    def test_a_server_of_ones_own_is_addressed_by_path(self, bucket, proxy):
        opened(bucket).write("key", b"1")
        assert proxy.headers[0][":path"] == f"/{bucket}/key"

    def test_the_bucket_can_be_in_the_host_name(self, bucket, proxy, monkeypatch):
        ask = socket.getaddrinfo
        # As a domain of its own would do.
        monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest, **o: ask("127.0.0.1", *rest, **o))
        port = proxy.server_port
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://localhost:{port}")
        monkeypatch.setenv("DEEPFM_S3_ADDRESSING", "virtual")
        store = opened(bucket)
        for call in (
            lambda: store.write("some/key", b"1" * 1000),
            lambda: store.create("other", b"2"),
            lambda: store.read("some/key"),
            lambda: store.list("some"),
            lambda: store.delete("some/key"),
        ):
            call()
        assert {headers["host"] for headers in proxy.headers} == {f"{bucket}.localhost:{port}"}
        assert store.describe().addressing == "host name"
        assert [found.key for found in store.list("")] == ["other"]

    def test_the_aws_config_file_can_say_so_too(self, bucket, profile):
        profile("s3 =", "  addressing_style = virtual")
        assert opened(bucket).describe().addressing == "host name"

    def test_the_variable_wins_over_the_file(self, bucket, proxy, profile, monkeypatch):
        profile("s3 =", "  addressing_style = virtual")
        monkeypatch.setenv("DEEPFM_S3_ADDRESSING", "path")
        opened(bucket).write("key", b"1")
        assert proxy.headers[0][":path"] == f"/{bucket}/key"


class TestChecksums:
    @staticmethod
    def sums(proxy: FaultyProxy) -> list[str]:
        return [name for name in proxy.headers[-1] if name.startswith("x-amz-checksum") or name == "x-amz-trailer"]

    def test_a_server_of_ones_own_gets_none_unless_it_is_asked_for(self, bucket, proxy, monkeypatch):
        opened(bucket).write("key", b"1")
        assert self.sums(proxy) == []
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
        store = opened(bucket)
        store.write("key", b"1")
        assert self.sums(proxy)
        assert store.describe().checksums == "always"

    def test_the_aws_config_file_is_asked_too(self, bucket, proxy, profile):
        profile("request_checksum_calculation = when_supported")
        opened(bucket).write("key", b"1")
        assert self.sums(proxy)

    def test_amazon_gets_its_own_default(self, bucket, monkeypatch):
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        facts = opened(bucket).describe()
        assert (facts.addressing, facts.checksums) == ("host name", "always")
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        assert opened(bucket).describe().checksums == "if required"


class TestEncryption:
    def test_every_write_asks_for_it_and_the_server_has_done_it(
        self, bucket, s3_server: S3Server, proxy, monkeypatch, tmp_path
    ):
        (tmp_path / "large").write_bytes(os.urandom(9 << 20))  # goes in parts
        monkeypatch.setenv("DEEPFM_S3_SSE", "AES256")
        store = opened(bucket)
        store.write("written", b"1")
        store.create("created", b"2")
        store.upload("uploaded", tmp_path / "large")
        asked = [h for h in proxy.headers if "uploadId" not in h[":path"]]
        assert {h.get("x-amz-server-side-encryption") for h in asked} == {"AES256"}
        client = client_of(s3_server)
        for key in ("written", "created", "uploaded"):
            assert client.head_object(Bucket=bucket, Key=key)["ServerSideEncryption"] == "AES256"
        assert store.read("written") == b"1"
        assert store.fetch("uploaded", scratch=tmp_path).read_bytes() == (tmp_path / "large").read_bytes()
        assert store.describe().encryption == "AES256"

    def test_a_key_goes_with_it(self, bucket, proxy, monkeypatch):
        monkeypatch.setenv("DEEPFM_S3_SSE", "aws:kms")
        monkeypatch.setenv("DEEPFM_S3_KMS_KEY_ID", "alias/clicks")
        proxy.faults = ["403 AccessDenied"]  # this server has no such key
        with pytest.raises(ConfigError, match="access is denied"):
            opened(bucket).write("key", b"1")
        assert proxy.headers[0]["x-amz-server-side-encryption"] == "aws:kms"
        assert proxy.headers[0]["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/clicks"

    def test_nothing_is_asked_for_by_itself(self, bucket, proxy):
        opened(bucket).write("key", b"1")
        assert "x-amz-server-side-encryption" not in proxy.headers[0]


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"DEEPFM_S3_ADDRESSING": "hosted"},
            "DEEPFM_S3_ADDRESSING is not understood: 'hosted', required path or virtual",
        ),
        ({"DEEPFM_S3_SSE": "aes256"}, "DEEPFM_S3_SSE is not understood: 'aes256', required AES256 or aws:kms"),
        ({"DEEPFM_S3_KMS_KEY_ID": "alias/clicks"}, "names a key that nothing uses: DEEPFM_S3_SSE is not set"),
        (
            {"AWS_ENDPOINT_URL": "http://169.254.169.254"},
            "is not allowed: its host is link-local",
        ),
        ({"AWS_ENDPOINT_URL": "http://192.0.2.1"}, "Use https, or set DEEPFM_ALLOW_HTTP=1"),
        ({"AWS_REQUEST_CHECKSUM_CALCULATION": "sometimes"}, "S3 client cannot be set up"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_line(bucket, monkeypatch, variables, line):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        opened(bucket)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


class TestProfiles:
    def test_a_profile_names_region_endpoint_and_credentials(self, bucket, proxy, profile):
        profile("region = eu-west-3")
        store = opened(bucket)
        store.write("key", b"1")
        facts = store.describe()
        assert (facts.region, facts.endpoint) == ("eu-west-3", proxy.endpoint)
        assert facts.credentials == "the shared credentials file, profile clicks"
        assert "/eu-west-3/s3/" in proxy.headers[0]["authorization"]

    @pytest.mark.parametrize("code", ["400 ExpiredToken", "400 InvalidToken"])
    @pytest.mark.parametrize("call", ["read", "write", "create", "upload", "list"])
    def test_credentials_that_were_renewed_meanwhile_are_used(self, bucket, s3_server, proxy, profile, code, call):
        client_of(s3_server).put_object(Bucket=bucket, Key="key", Body=b"1")
        profile(key="older")
        store = opened(bucket)
        calls = {
            "read": lambda: store.read("key"),
            "write": lambda: store.write("key", b"1"),
            "create": lambda: store.create("new", b"1"),
            "upload": lambda: store.upload("key", Path(__file__)),
            "list": lambda: store.list(""),
        }
        profile()
        proxy.faults, proxy.headers = [code], []
        calls[call]()
        assert ["older" in headers["authorization"] for headers in proxy.headers] == [True, False]

    def test_a_file_that_is_empty_for_a_moment_costs_that_moment(self, bucket, s3_server, proxy, profile, tmp_path):
        client_of(s3_server).put_object(Bucket=bucket, Key="key", Body=b"1")
        profile(key="older")
        store = opened(bucket)
        proxy.faults = ["400 ExpiredToken"]
        (tmp_path / "credentials").write_text("")
        with pytest.raises(ConfigError):
            store.read("key")
        profile()
        assert store.read("key") == b"1"

    def test_credentials_that_nobody_renewed_are_one_line_and_not_tried_again(self, bucket, proxy, profile):
        profile()
        store = opened(bucket)
        proxy.faults, proxy.headers = ["400 ExpiredToken"] * 9, []
        began = time.monotonic()
        with pytest.raises(ConfigError, match="session token is not valid") as caught:
            store.create("key", b"1")
        assert "Renew the credentials" in caught.value.next_step
        assert len(proxy.headers) == 1
        assert time.monotonic() - began < 10

    def test_newer_credentials_that_have_expired_as_well_are_one_line(self, bucket, proxy, profile):
        profile()
        store = opened(bucket)
        profile(token="newer")
        proxy.faults, proxy.headers = ["400 ExpiredToken"] * 9, []
        with pytest.raises(ConfigError, match="session token is not valid"):
            store.read("key")
        assert len(proxy.headers) == 2


def test_a_listing_that_ends_in_the_middle_is_not_taken_for_a_whole_one(bucket, monkeypatch):
    store = opened(bucket)
    pages = [{"IsTruncated": True, "KeyCount": 0, "NextContinuationToken": "1"}, {"IsTruncated": True, "KeyCount": 0}]
    monkeypatch.setattr(store, "_page", lambda *_, **__: pages.pop(0))
    with pytest.raises(ConfigError, match="a listing that is cut off and does not say how it goes on"):
        store.list("")
    endless = {"IsTruncated": True, "KeyCount": 0, "NextContinuationToken": "1"}
    monkeypatch.setattr(store, "_page", lambda *_, **__: endless)
    with pytest.raises(ConfigError, match="a listing that is cut off"):
        store.list("")
