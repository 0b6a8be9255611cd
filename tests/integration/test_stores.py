"""A folder and a bucket behave alike; a bucket also when the network or the server does not."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deepfm.errors import (
    AlreadyExistsError,
    ConfigError,
    IntegrityError,
    NotFoundError,
    StoreUnavailableError,
    UsageError,
)
from deepfm.storage import LocalCache, ObjectStore, open_store, s3, s3_client, s3_download
from tests.faulty_proxy import FaultyProxy, running_proxy


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return open_store(f"file://{tmp_path}/store")
    return open_store(f"s3://{request.getfixturevalue('fresh_bucket')()}/some/prefix")


def sizes(store: ObjectStore, prefix: str) -> list[tuple[str, int]]:
    return [(info.key, info.size_bytes) for info in store.list(prefix)]


class TestBothStores:
    def test_what_is_written_is_read(self, store: ObjectStore) -> None:
        for data in (b"", b"one", bytes(range(256)) * 5000):
            store.write("a/b/key", data)
            assert store.read("a/b/key") == data

    def test_what_is_longer_than_it_may_be_is_not_read(self, store: ObjectStore) -> None:
        store.write("key", b"x" * 100)
        assert store.read("key", most_bytes=100) == b"x" * 100
        with pytest.raises(IntegrityError, match=r"too large to be what it should be: .*, required at most 99"):
            store.read("key", most_bytes=99)

    def test_an_absent_object_is_not_found_by_any_call(self, store: ObjectStore, tmp_path: Path) -> None:
        store.write("a/b", b"")
        for key in ("a", "a/c", "x/y"):
            with pytest.raises(NotFoundError, match=f"object is not there .*/{key}"):
                store.read(key)
            with pytest.raises(NotFoundError):
                store.fetch(key, scratch=tmp_path / "scratch")
        scratch = tmp_path / "scratch"
        assert not scratch.exists() or list(scratch.iterdir()) == []

    def test_create_takes_a_free_key_only(self, store: ObjectStore) -> None:
        store.create("a/key", b"first")
        for data in (b"second", b"first"):
            with pytest.raises(AlreadyExistsError, match="a/key"):
                store.create("a/key", data)
        assert store.read("a/key") == b"first"
        store.delete("a/key")
        store.create("a/key", b"again")
        assert store.read("a/key") == b"again"

    def test_of_sixteen_creators_one_wins(self, store: ObjectStore) -> None:
        barrier = threading.Barrier(16)

        def attempt(key: str, number: int) -> bool:
            barrier.wait()
            try:
                store.create(key, b"%d" % number)
            except AlreadyExistsError:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            for round_number in range(3):
                key = f"log/{round_number:012d}.json"
                won = list(pool.map(attempt, [key] * 16, range(16)))
                assert won.count(True) == 1
                assert store.read(key) == b"%d" % won.index(True)

    def test_uploads_and_fetches_stream_any_size(self, store: ObjectStore, tmp_path: Path) -> None:
        for size in (0, 1, 20 << 20):  # the last one goes to S3 in parts
            local = tmp_path / "local"
            local.write_bytes(os.urandom(size))
            store.upload("a/file", local)
            found = store.fetch("a/file", scratch=tmp_path / "scratch")
            assert found.read_bytes() == local.read_bytes()
            assert sizes(store, "a") == [("a/file", size)]

    def test_two_fetches_do_not_share_a_download(self, store: ObjectStore, tmp_path: Path) -> None:
        store.write("key", b"data")
        first, second = (store.fetch("key", scratch=tmp_path / "scratch") for _ in range(2))
        if first.parent == tmp_path / "scratch":
            first.unlink()
        assert second.read_bytes() == b"data"

    def test_a_listing_is_sorted_and_ends_at_a_slash(self, store: ObjectStore) -> None:
        keys = ["a/b/2", "a/b/10", "a/b/c/d", "a/b-c/1", "a/bb/1", "a/B/1", "a/b.txt", "a/ä ö+%/1", "z"]
        for key in keys:
            store.write(key, key.encode())
        assert [found.key for found in store.list("a/b")] == ["a/b/10", "a/b/2", "a/b/c/d"]
        everything = [(key, len(key.encode())) for key in sorted(keys)]
        assert sizes(store, "") == everything
        assert sizes(store, "a") == everything[:-1]
        assert store.list("a/b/2") == store.list("missing") == []

    def test_deleting_is_repeatable(self, store: ObjectStore) -> None:
        store.write("a/key", b"1")
        for _ in range(2):
            store.delete("a/key")
            assert store.list("") == []
        with pytest.raises(NotFoundError):
            store.read("a/key")

    def test_keys_outside_the_store_are_refused(self, store: ObjectStore) -> None:
        for key in ("/a", "../a", "a/../../b", "a//b", "a\nb", ""):
            with pytest.raises(UsageError, match="object key is not allowed"):
                store.write(key, b"")

    def test_the_url_opens_the_same_store(self, store: ObjectStore) -> None:
        store.write("key", b"1")
        assert open_store(store.url).read("key") == b"1"

    def test_the_cache_gives_the_bytes_of_either(self, store: ObjectStore, tmp_path: Path) -> None:
        store.write("key", b"data")
        digest = "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
        cache = LocalCache(tmp_path / "cache", 1000)
        for _ in range(2):
            assert cache.path(store, "key", sha256=digest, size_bytes=4).read_bytes() == b"data"


def test_a_listing_of_several_pages_is_whole(fresh_bucket: Callable[[], str]) -> None:
    store = open_store(f"s3://{fresh_bucket()}")
    keys = [f"log/{number:05d}" for number in range(1100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.write(key, b""), keys))
    assert [found.key for found in store.list("log")] == keys


def test_prefixes_of_one_bucket_do_not_meet(fresh_bucket: Callable[[], str]) -> None:
    bucket = fresh_bucket()
    one, other, whole = (open_store(f"s3://{bucket}{prefix}") for prefix in ("/one", "/one-more", ""))
    one.write("key", b"1")
    other.write("key", b"22")
    assert sizes(one, "") == [("key", 1)]
    assert sizes(whole, "") == [("one-more/key", 2), ("one/key", 1)]


SECRET = "do-not-show-this-secret"


class TestConfiguration:
    """What a user sets wrongly comes back as one line that says so, without the secret."""

    @staticmethod
    def message(store: ObjectStore, call: str, tmp_path: Path) -> str:
        local = tmp_path / "local"
        local.write_bytes(b"1")
        calls = {
            "read": lambda: store.read("key"),
            "write": lambda: store.write("key", b"1"),
            "create": lambda: store.create("key", b"1"),
            "upload": lambda: store.upload("key", local),
            "fetch": lambda: store.fetch("key", scratch=tmp_path),
            "list": lambda: store.list("a"),
            "delete": lambda: store.delete("key"),
        }
        with pytest.raises(ConfigError) as caught:
            calls[call]()
        line = str(caught.value)
        assert "\n" not in line
        assert SECRET not in line
        return line

    @pytest.mark.parametrize("call", ["read", "write", "create", "upload", "fetch", "list", "delete"])
    def test_a_wrong_secret(
        self, fresh_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str
    ) -> None:
        bucket = fresh_bucket()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        line = self.message(open_store(f"s3://{bucket}"), call, tmp_path)
        assert "secret key does not fit" in line
        assert "Check AWS_SECRET_ACCESS_KEY." in line

    @pytest.mark.parametrize("call", ["read", "write", "create", "upload", "fetch", "list"])
    @pytest.mark.usefixtures("s3_environment")
    def test_a_missing_bucket(self, tmp_path: Path, call: str) -> None:
        line = self.message(open_store("s3://no-such-bucket"), call, tmp_path)
        assert "bucket does not exist" in line
        assert "s3://no-such-bucket" in line

    def test_an_unknown_key(
        self, fresh_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        bucket = fresh_bucket()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
        assert "access key is not known" in self.message(open_store(f"s3://{bucket}"), "read", tmp_path)

    @pytest.mark.usefixtures("s3_environment")
    def test_no_credentials(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert "no usable credentials" in self.message(open_store("s3://bucket"), "read", tmp_path)

    @pytest.mark.parametrize(
        ("name", "value"), [("AWS_ENDPOINT_URL", f"id:{SECRET}@nowhere"), ("AWS_PROFILE", "missing")]
    )
    @pytest.mark.usefixtures("s3_environment")
    def test_settings_that_boto3_refuses(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match="Check AWS_ENDPOINT_URL, AWS_PROFILE") as caught:
            open_store("s3://bucket")
        assert SECRET not in str(caught.value)

    @pytest.mark.usefixtures("s3_environment")
    def test_a_dead_endpoint_is_named_and_transient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://id:{SECRET}@127.0.0.1:9")
        store = open_store("s3://bucket")
        for call in (lambda: store.read("key"), lambda: store.create("key", b"1"), lambda: store.list("")):
            with pytest.raises(StoreUnavailableError, match=r"does not answer at http://127\.0\.0\.1:9: ") as caught:
                call()
            assert SECRET not in str(caught.value)
            assert "\n" not in str(caught.value)


class TestFaults:
    """The answers that a network takes away, in front of a real server."""

    @pytest.fixture
    def proxy(self, fresh_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
        bucket = fresh_bucket()
        with running_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            monkeypatch.setenv("TEST_BUCKET", bucket)
            yield proxy

    @pytest.fixture
    def store(self, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
        monkeypatch.setattr(s3, "_CREATE_PAUSES_SECONDS", (0.0,) * 4)
        monkeypatch.setattr(s3_download, "_PAUSES_SECONDS", (0.0,) * 3)
        assert proxy.faults == []
        return open_store(f"s3://{os.environ['TEST_BUCKET']}")

    @pytest.mark.parametrize(
        "faults",
        [
            ["lost"],
            ["dropped"],
            ["dropped", "pass", "lost"],
            ["409 ConditionalRequestConflict"] * 3,
            ["503 SlowDown"],
            ["500 InternalError", "pass", "dropped"],
            ["lost", "404 NoSuchKey"],  # the read-back is stale, so our own object refuses the second try
            ["lost", "500 InternalError"],  # the read-back is retried
            ["lost", "cut"],
        ],
        ids=" ".join,
    )
    def test_create_recognises_its_own_success(self, store: ObjectStore, proxy: FaultyProxy, faults: list[str]) -> None:
        proxy.faults = list(faults)
        store.create("key", b"ours")
        assert proxy.faults == []
        assert store.read("key") == b"ours"

    @pytest.mark.parametrize("fault", ["dropped", "lost", "500 InternalError", "409 ConditionalRequestConflict"])
    def test_create_never_takes_the_success_of_another(
        self, store: ObjectStore, proxy: FaultyProxy, fault: str
    ) -> None:
        store.create("key", b"theirs")
        proxy.faults = [fault]
        with pytest.raises(AlreadyExistsError):
            store.create("key", b"ours")
        assert store.read("key") == b"theirs"

    def test_a_plain_refusal_is_asked_once(self, store: ObjectStore, proxy: FaultyProxy) -> None:
        store.create("key", b"same")
        proxy.requests.clear()
        with pytest.raises(AlreadyExistsError):
            store.create("key", b"same")
        assert proxy.requests == ["PUT"]

    @pytest.mark.parametrize("fault", ["dropped", "503 SlowDown"])
    def test_create_gives_up_in_the_end(self, store: ObjectStore, proxy: FaultyProxy, fault: str) -> None:
        proxy.faults = [fault, "pass"] * 4
        with pytest.raises(StoreUnavailableError, match="did not say whether the object was created: 4 tries"):
            store.create("key", b"ours")
        assert proxy.requests == ["PUT", "GET"] * 4

    @pytest.mark.parametrize("fault", ["dropped", "500 InternalError", "503 SlowDown", "429 TooManyRequests"])
    def test_other_calls_are_retried(self, store: ObjectStore, proxy: FaultyProxy, tmp_path: Path, fault: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.write("key", b"data"),
            lambda: store.read("key"),
            lambda: store.fetch("key", scratch=tmp_path),
            lambda: store.list(""),
            lambda: store.delete("key"),
        ]
        for call in calls:
            proxy.faults = [fault]
            call()
            assert proxy.faults == []

    def test_a_broken_body_is_read_again(self, store: ObjectStore, proxy: FaultyProxy, tmp_path: Path) -> None:
        data = os.urandom(3 << 20)
        store.write("key", data)
        proxy.faults, proxy.headers = ["cut", "cut"], []
        assert store.read("key") == data
        half, quarter = len(data) // 2, len(data) // 4
        asked = [headers.get("range") for headers in proxy.headers]
        assert asked == [None, f"bytes={half}-", f"bytes={half + quarter}-"]
        proxy.faults = ["cut", "cut"]
        assert store.fetch("key", scratch=tmp_path / "scratch").read_bytes() == data
        assert len(list((tmp_path / "scratch").iterdir())) == 1

    def test_an_object_that_was_replaced_meanwhile_is_read_from_its_beginning(
        self, store: ObjectStore, proxy: FaultyProxy
    ) -> None:
        store.write("key", b"data" * 1000)
        proxy.faults, proxy.headers = ["cut", "moved"], []
        assert store.read("key") == b"data" * 1000
        assert [headers.get("range") for headers in proxy.headers] == [None, "bytes=2000-", None]

    def test_a_rest_that_is_not_there_is_read_from_its_beginning(self, store: ObjectStore, proxy: FaultyProxy) -> None:
        store.write("key", b"data" * 1000)
        proxy.faults = ["cut", "416 InvalidRange"]
        assert store.read("key") == b"data" * 1000

    def test_a_body_that_trickles_is_asked_for_again_from_there(
        self, store: ObjectStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write("key", b"data" * 5000)
        monkeypatch.setattr(s3_download, "_WINDOW_SECONDS", 0.2)
        monkeypatch.setattr(s3_download, "_SLOWEST_BYTES_A_SECOND", 200_000)
        proxy.faults, proxy.headers = ["trickle"], []
        assert store.read("key") == b"data" * 5000
        assert 10_000 < int(proxy.headers[1]["range"].removeprefix("bytes=").removesuffix("-")) < 10_100
        proxy.faults = ["trickle"] * 3
        with pytest.raises(StoreUnavailableError, match="download broke off: 3 times"):
            store.read("key")

    @pytest.mark.parametrize("call", ["create", "read", "list", "write"])
    def test_no_request_begins_when_the_time_is_over(
        self, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        monkeypatch.setattr(s3_client, "_READ_SECONDS", 0.2)
        monkeypatch.setattr(s3, "_LATEST_REQUEST_SECONDS", 0.3)
        store = open_store(f"s3://{os.environ['TEST_BUCKET']}")
        calls: dict[str, Callable[[], object]] = {
            "create": lambda: store.create("key", b"1"),
            "read": lambda: store.read("key"),
            "list": lambda: store.list(""),
            "write": lambda: store.write("key", b"1"),
        }
        proxy.faults = ["hang"] * 99
        with pytest.raises(StoreUnavailableError, match="no answer in time"):
            calls[call]()
        assert 1 <= len(proxy.requests) <= 3

    def test_a_body_that_stays_broken_leaves_no_file(
        self, store: ObjectStore, proxy: FaultyProxy, tmp_path: Path
    ) -> None:
        store.write("key", b"data" * 1000)
        proxy.faults = ["cut"] * 3
        with pytest.raises(StoreUnavailableError, match="download broke off: 3 times"):
            store.fetch("key", scratch=tmp_path / "scratch")
        assert list((tmp_path / "scratch").iterdir()) == []

    @pytest.mark.parametrize(
        ("fault", "line"),
        [
            ("403 AccessDenied", "access is denied"),
            ("403 Unheard", "access is denied"),
            ("403 RequestTimeTooSkewed", "clock of this machine is wrong"),
            ("400 ExpiredToken", "session token is not valid"),
            ("400 AuthorizationHeaderMalformed", "bucket is in another region"),
            ("301 PermanentRedirect", "bucket is in another region"),
            ("501 NotImplemented", "does not know conditional writes"),
            ("400 Unheard", "store refuses the request: 'Unheard', status 400"),
        ],
    )
    def test_a_refusal_is_terminal_and_not_retried(
        self, store: ObjectStore, proxy: FaultyProxy, fault: str, line: str
    ) -> None:
        proxy.faults = [fault, *["500 InternalError"] * 20] if fault.startswith("4") else [fault]
        with pytest.raises(ConfigError, match=line):
            store.create("key", b"data")
        assert proxy.requests.count("PUT") == 1
