"""Verified local files: what is downloaded, what is reused, what is refused and what is evicted."""

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm.errors import ConfigError, IntegrityError, NotFoundError
from deepfm.storage.cache import LocalCache
from deepfm.storage.local import LocalStore


class Expected(TypedDict):
    sha256: str
    size_bytes: int


class RemoteStore(LocalStore):
    """A store without files of its own: every fetch is a copy into scratch, and may be broken on the way."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetches = 0
        self.broken: list[bytes] = []
        self._lock = threading.Lock()

    def fetch(self, key: str, *, scratch: Path) -> Path:
        data = self.read(key)
        with self._lock:
            self.fetches += 1
            if self.broken:
                data = self.broken.pop()
        scratch.mkdir(parents=True, exist_ok=True)
        path = scratch / uuid4().hex
        path.write_bytes(data)
        return path


@pytest.fixture
def remote(tmp_path: Path) -> RemoteStore:
    return RemoteStore(tmp_path / "remote")


def put(store: LocalStore, key: str, data: bytes) -> Expected:
    store.write(key, data)
    return entry(data)


def entry(data: bytes) -> Expected:
    return Expected(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def held(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_download_is_reused_by_digest(remote: RemoteStore, tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 1000)
    expected = put(remote, "a", b"data")
    put(remote, "b", b"data")
    first = cache.path(remote, "a", **expected)
    assert first.read_bytes() == b"data"
    assert cache.path(remote, "b", **expected) == first
    assert LocalCache(tmp_path / "cache", 1000).path(remote, "a", **expected) == first
    assert remote.fetches == 1


def test_a_local_store_is_not_copied_and_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path / "store")
    expected = put(store, "a", b"data")
    hashed = []
    real = hashlib.file_digest

    def counted(source, name: str):
        hashed.append(name)
        return real(source, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    for _ in range(3):
        cache = LocalCache(tmp_path / "cache", 1000)
        assert cache.path(store, "a", **expected) == tmp_path / "store" / "a"
    assert len(hashed) == 1
    assert not (tmp_path / "cache").exists()


def test_a_local_file_that_changed_is_refused(tmp_path: Path) -> None:
    store, cache = LocalStore(tmp_path / "store"), LocalCache(tmp_path / "cache", 1000)
    expected = put(store, "a", b"data")
    cache.path(store, "a", **expected)
    store.write("a", b"DATA")
    with pytest.raises(IntegrityError, match=r"required 4 bytes with sha256 [0-9a-f]{64} \(file://.*/a\)"):
        cache.path(store, "a", **expected)


@pytest.mark.parametrize("wrong", [b"", b"dat", b"dbta", b"data!"])
def test_broken_bytes_are_read_once_more_and_then_refused(remote: RemoteStore, tmp_path: Path, wrong: bytes) -> None:
    cache = LocalCache(tmp_path / "cache", 1000)
    expected = put(remote, "a", b"data")
    remote.broken = [wrong, wrong]
    with pytest.raises(IntegrityError):
        cache.path(remote, "a", **expected)
    assert remote.fetches == 2
    assert held(tmp_path / "cache") == []
    remote.broken = [wrong]
    assert cache.path(remote, "a", **expected).read_bytes() == b"data"
    assert remote.fetches == 4


def test_a_cached_file_that_rotted_is_downloaded_again(remote: RemoteStore, tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 1000)
    expected = put(remote, "a", b"data")
    cache.path(remote, "a", **expected).write_bytes(b"rot!")
    assert cache.path(remote, "a", **expected).read_bytes() == b"data"


def test_an_absent_object_is_not_found(remote: RemoteStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        LocalCache(tmp_path / "cache", 1000).path(remote, "a", **entry(b"data"))


def test_an_unusable_folder_is_one_line(remote: RemoteStore, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    expected = put(remote, "a", b"data")
    with pytest.raises(ConfigError, match="a file is where a folder is needed"):
        LocalCache(tmp_path / "cache", 1000).path(remote, "a", **expected)


def test_the_least_recently_used_file_goes_first(remote: RemoteStore, tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 30)
    expected = {name: put(remote, name, name.encode() * 10) for name in "abcd"}
    paths = {name: cache.path(remote, name, **expected[name]) for name in "abc"}
    cache.path(remote, "a", **expected["a"])
    paths["d"] = cache.path(remote, "d", **expected["d"])
    assert {name for name, path in paths.items() if path.exists()} == {"a", "c", "d"}


def test_a_file_above_the_cap_is_returned_all_the_same(remote: RemoteStore, tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 30)
    small = cache.path(remote, "s", **put(remote, "s", b"small"))
    large = cache.path(remote, "l", **put(remote, "l", b"l" * 31))
    assert large.read_bytes() == b"l" * 31
    assert not small.exists()


def test_a_download_that_a_kill_left_is_swept_after_a_day(remote: RemoteStore, tmp_path: Path) -> None:
    incoming = tmp_path / "cache" / "incoming"
    incoming.mkdir(parents=True)
    for name, age_hours in (("old", 25), ("running", 1)):
        (incoming / name).write_bytes(b"half")
        then = time.time() - age_hours * 3600
        os.utime(incoming / name, (then, then))
    LocalCache(tmp_path / "cache", 1000).path(remote, "a", **put(remote, "a", b"data"))
    assert [path.name for path in incoming.iterdir()] == ["running"]


def test_many_threads_with_caches_of_their_own_agree(remote: RemoteStore, tmp_path: Path) -> None:
    expected = {str(number): put(remote, str(number), b"%d" % number * 10) for number in range(4)}

    def use(number: int) -> bytes:
        key = str(number % 4)
        return LocalCache(tmp_path / "cache", 1000).path(remote, key, **expected[key]).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(64))) == [b"%d" % (number % 4) * 10 for number in range(64)]
    assert len(held(tmp_path / "cache")) == 4


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=20), st.integers(0, 40))
def test_any_order_of_use_gives_the_right_bytes_below_the_cap(
    tmp_path_factory: pytest.TempPathFactory, uses: list[int], cap: int
) -> None:
    root = tmp_path_factory.mktemp("order")
    remote, cache = RemoteStore(root / "remote"), LocalCache(root / "cache", cap)
    for number in uses:
        data = bytes([number]) * (number + 5)
        path = cache.path(remote, str(number), **put(remote, str(number), data))
        assert path.read_bytes() == data
        others = sum(file.stat().st_size for file in held(root / "cache") if file != path)
        assert others + len(data) <= max(cap, len(data))
