"""What is remembered of objects that were hashed: never across a change, never against the bytes, by any process."""

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deepfm.errors import IntegrityError
from deepfm.storage import LocalCache, ObjectInfo
from deepfm.storage.local import LocalStore

SECOND = 1_000_000_000


class CountedStore(LocalStore):
    """A store without files of its own that counts what is fetched."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetched: list[str] = []

    def fetch(self, key: str, *, scratch: Path) -> Path:
        self.fetched.append(key)
        path = scratch / f"{len(self.fetched)}-{threading.get_ident()}"
        scratch.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.read(key))
        return path


@pytest.fixture
def store(tmp_path: Path) -> CountedStore:
    return CountedStore(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path) -> LocalCache:
    return LocalCache(tmp_path / "cache", 1000)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: LocalStore, key: str, data: bytes, *, age: int = 60) -> ObjectInfo:
    """An object as it is listed some seconds later."""
    store.write(key, data)
    (info,) = [info for info in store.list("") if info.key == key]
    return info._replace(changed_ns=info.changed_ns - age * SECOND)


def entries(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "cache" / "digests"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_an_object_that_has_not_changed_is_fetched_once_for_all_caches_of_a_folder(store, cache, tmp_path):
    info = put(store, "a", b"data")
    for user in (cache, cache, LocalCache(tmp_path / "cache", 1000)):
        assert user.digest(store, info) == (sha256(b"data"), 4)
    assert store.fetched == ["a"]


def test_what_was_fetched_to_be_hashed_is_not_fetched_again_to_be_read(store, cache):
    held = cache.digest(store, put(store, "a", b"data"))
    assert cache.path(store, "a", **held._asdict()).read_bytes() == b"data"
    assert store.fetched == ["a"]


@pytest.mark.parametrize(
    "change",
    [{"tag": "other"}, {"size_bytes": 5}, {"changed_ns": 1}, {"key": "b"}],
    ids=lambda change: next(iter(change)),
)
def test_any_change_in_the_listing_is_a_reason_to_read(store, cache, change):
    info = put(store, "a", b"data")
    store.write("b", b"data")
    cache.digest(store, info)
    cache.digest(store, info._replace(**change))
    assert len(store.fetched) == 2


def test_two_stores_are_not_taken_for_each_other(store, cache, tmp_path):
    other = CountedStore(tmp_path / "other")
    info = put(store, "a", b"data")
    put(other, "a", b"DATA")
    assert cache.digest(store, info).sha256 != cache.digest(other, info).sha256


@pytest.mark.parametrize(("age", "remembered"), [(0, False), (1, False), (3, True)])
def test_an_object_that_changed_a_moment_ago_is_not_remembered(store, cache, age, remembered):
    info = put(store, "a", b"data", age=age)
    cache.digest(store, info)
    store.write("a", b"DATA")  # within the same tick of a coarse clock, as far as the listing tells
    assert cache.digest(store, info).sha256 == sha256(b"data" if remembered else b"DATA")
    assert len(store.fetched) == (1 if remembered else 2)


def test_a_real_file_that_is_rewritten_is_read_again_whatever_time_its_writer_claims(cache, tmp_path):
    store = LocalStore(tmp_path / "store")
    info = put(store, "a", b"data", age=0)
    path = tmp_path / "store" / "a"
    settled = info._replace(changed_ns=0)
    cache.digest(store, settled)
    before = path.stat()
    path.write_bytes(b"DATA")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (now,) = store.list("")
    assert now.tag != info.tag
    assert cache.digest(store, now).sha256 == sha256(b"DATA")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        lambda entry: entry | {"format": 0},
        lambda entry: entry | {"sha256": "0" * 63},
        lambda entry: entry | {"sha256": 7},
        lambda entry: {key: value for key, value in entry.items() if key != "sha256"},
        lambda entry: {key: value for key, value in entry.items() if key != "tag"},
        lambda entry: entry | {"more": 1},
    ],
)
def test_what_is_no_entry_of_this_format_is_none(store, cache, tmp_path, content):
    info = put(store, "a", b"data")
    cache.digest(store, info)
    (file,) = entries(tmp_path)
    file.write_bytes(
        content if isinstance(content, bytes) else json.dumps(content(json.loads(file.read_bytes()))).encode()
    )
    assert cache.digest(store, info) == (sha256(b"data"), 4)
    assert len(store.fetched) == 2
    assert cache.digest(store, info) == (sha256(b"data"), 4)
    assert len(store.fetched) == 2


def test_an_entry_that_names_other_bytes_is_refused_by_the_bytes_and_gone(store, cache, tmp_path):
    info = put(store, "a", b"data")
    cache.digest(store, info)
    (file,) = entries(tmp_path)
    file.write_bytes(json.dumps(json.loads(file.read_bytes()) | {"sha256": "0" * 64}).encode())
    wrong = cache.digest(store, info)
    with pytest.raises(IntegrityError):
        cache.path(store, "a", **wrong._asdict())
    assert cache.digest(store, info) == (sha256(b"data"), 4)


def test_an_entry_is_as_large_as_one_and_there_is_one_for_an_object(store, cache, tmp_path):
    for _ in range(3):
        cache.digest(store, put(store, "a", os.urandom(9)))
    (file,) = entries(tmp_path)
    assert file.stat().st_size < 1000


def test_many_threads_agree(store, tmp_path):
    infos = [put(store, f"key-{number}", b"%d" % number) for number in range(8)]

    def use(number: int) -> bool:
        held = LocalCache(tmp_path / "cache", 1000).digest(store, infos[number % 8])
        return held.sha256 == sha256(b"%d" % (number % 8))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(200)))


def test_a_rewrite_in_place_is_seen_although_size_and_time_stay(tmp_path, cache):
    """`cp -p` and `rsync --inplace -t` keep the time of change; nothing can set back that of the inode."""
    store = LocalStore(tmp_path / "own")
    store.write("key", b"AAA")
    path = tmp_path / "own" / "key"
    digest = sha256(b"AAA")
    assert cache.path(store, "key", sha256=digest, size_bytes=3) == path
    state = path.stat()
    path.write_bytes(b"BBB")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(IntegrityError):
        cache.path(store, "key", sha256=digest, size_bytes=3)


def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(tmp_path, cache, monkeypatch):
    store = LocalStore(tmp_path / "own")
    info = put(store, "key", b"AAA")
    path, real = tmp_path / "own" / "key", hashlib.file_digest

    def changed(source, name):
        found = real(source, name)
        path.write_bytes(b"CCC")
        return found

    monkeypatch.setattr(hashlib, "file_digest", changed)
    held = cache.digest(store, info)
    monkeypatch.setattr(hashlib, "file_digest", real)
    with pytest.raises(IntegrityError):
        cache.path(store, "key", sha256=held.sha256, size_bytes=3)
