"""A folder as a store, and the URLs that open one."""

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConfigError,
    DeepFMError,
    NoSpaceError,
    NotFoundError,
    StoreUnavailableError,
    UsageError,
)
from deepfm.storage import open_store
from deepfm.storage.local import LocalStore, checked_key


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class TestKeys:
    @pytest.mark.parametrize(
        "key",
        [
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            "./a",
            "a/./b",
            "a\0b",
            "a\nb",
            "a\u202eb",
            "\ud800",
        ],
    )
    def test_a_key_that_could_leave_the_store_is_refused_by_every_call(self, store: LocalStore, key: str) -> None:
        calls = [
            lambda: store.read(key),
            lambda: store.write(key, b""),
            lambda: store.create(key, b""),
            lambda: store.fetch(key, scratch=Path("unused")),
            lambda: store.delete(key),
        ]
        for call in calls:
            with pytest.raises(UsageError, match="object key is not allowed"):
                call()

    @given(
        st.lists(st.sampled_from(["..", ".", "", "a", "..a", "a..", "%2e%2e", "...", "~"]), min_size=1).map("/".join)
    )
    def test_an_allowed_key_stays_below_the_root(self, key: str) -> None:
        root = Path("/srv/store")
        try:
            path = root / checked_key(key)
        except UsageError:
            return
        assert Path(os.path.normpath(path)).is_relative_to(root)
        assert Path(os.path.normpath(path)) != root

    def test_the_name_of_a_temporary_file_is_no_key(self, store: LocalStore) -> None:
        with pytest.raises(UsageError):
            store.write(f"a/.{'0' * 32}.tmp", b"")


class TestAtomicity:
    @pytest.mark.parametrize("call", ["write", "create", "upload"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
    def test_a_failure_leaves_the_old_bytes_and_nothing_else(
        self, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
    ) -> None:
        store.write("a/old", b"old")
        local = tmp_path / "local"
        local.write_bytes(b"new")
        key = "a/new" if call == "create" else "a/old"

        def fail(_: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(DeepFMError) as caught:
            getattr(store, call)(key, local if call == "upload" else b"new")
        monkeypatch.undo()
        full = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), NoSpaceError)
        assert type(caught.value) is {errno.EIO: StoreUnavailableError, **full}.get(code, AccessDeniedError)
        assert "\n" not in str(caught.value)
        assert key in str(caught.value)
        assert [path.name for path in files_below(tmp_path / "store")] == ["old"]
        assert store.read("a/old") == b"old"

    @pytest.mark.parametrize("call", ["write", "create"])
    def test_a_killed_writer_leaves_no_object(self, store: LocalStore, tmp_path: Path, call: str) -> None:
        script = (
            "import os, pathlib, sys; from deepfm.storage.local import LocalStore\n"
            "store = LocalStore(pathlib.Path(sys.argv[1])); os.fsync = lambda _: os._exit(137)\n"
            f"store.{call}('key', b'half')"
        )
        (tmp_path / "store").mkdir()
        killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")], check=False)
        assert killed.returncode == 137
        assert len(files_below(tmp_path / "store")) == 1  # the temporary file that the kill left
        assert store.list("") == []
        with pytest.raises(NotFoundError):
            store.read("key")
        store.create("key", b"whole")
        assert store.read("key") == b"whole"

    def test_a_reader_never_meets_a_partial_object(self, store: LocalStore) -> None:
        bodies = [bytes([number]) * 50_000 for number in range(8)]
        store.write("key", bodies[0])
        with ThreadPoolExecutor(2) as pool:
            writes = [pool.submit(store.write, "key", body) for body in bodies * 3]
            while not all(write.done() for write in writes):
                assert store.read("key") in bodies

    def test_a_disk_without_hard_links_is_refused_by_name(
        self, store: LocalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", fail)
        with pytest.raises(ConfigError, match="required hard links"):
            store.create("key", b"")

    @pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
    def test_the_umask_decides_who_may_read(self, store: LocalStore, tmp_path: Path, umask: int, mode: int) -> None:
        before = os.umask(umask)
        try:
            store.create("created", b"")
            store.write("written", b"")
        finally:
            os.umask(before)
        for path in files_below(tmp_path / "store"):
            assert stat.S_IMODE(path.stat().st_mode) == mode


class TestFolder:
    def test_fetch_is_the_own_file(self, store: LocalStore, tmp_path: Path) -> None:
        store.write("a/b", b"1")
        assert store.fetch("a/b", scratch=tmp_path / "scratch") == tmp_path / "store" / "a" / "b"
        assert not (tmp_path / "scratch").exists()

    @pytest.mark.parametrize("key", ["a", "a/b/c", "missing"])
    def test_what_is_no_file_is_not_there(self, store: LocalStore, tmp_path: Path, key: str) -> None:
        store.write("a/b", b"1")
        with pytest.raises(NotFoundError):
            store.read(key)
        with pytest.raises(NotFoundError):
            store.fetch(key, scratch=tmp_path)

    def test_a_file_in_the_place_of_the_store_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("a file")
        with pytest.raises(ConfigError, match="a file is where a folder is needed"):
            LocalStore(tmp_path / "store").write("a/b", b"")

    def test_opening_and_reading_make_no_folder(self, store: LocalStore, tmp_path: Path) -> None:
        assert store.list("") == []
        assert store.list("a") == []
        store.delete("a")
        assert list(tmp_path.iterdir()) == []

    def test_linked_folders_are_listed_once_and_loops_end(self, store: LocalStore, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "file").write_bytes(b"12")
        store.write("a/b", b"1")
        (tmp_path / "store" / "linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "store" / "a" / "loop").symlink_to(tmp_path / "store")
        assert [info[:2] for info in store.list("")] == [("a/b", 1), ("linked/file", 2)]


class TestOpenStore:
    @pytest.mark.parametrize("name", ["store", "with space", "100%", "späte-läden", "a#b?c"])
    def test_every_spelling_of_a_folder_opens_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        open_store(str(tmp_path / name)).write("key", name.encode())
        urls = [f"file://./{quote(name)}", f"file://{quote(str(tmp_path / name))}", name, f"./{name}"]
        urls.append(open_store(name).url)
        for url in urls:
            assert open_store(url).read("key") == name.encode()
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_relative_store_stays_where_it_was_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        store = open_store("file://./store")
        store.write("key", b"1")
        monkeypatch.chdir("/")
        assert store.read("key") == b"1"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "file://",
            "file://host/folder",
            "~/store",
            "gs://bucket",
            "https://host/bucket",
            "file:store",
            "a\nb",
            "s3://bucket/a/../b",
            "s3:/bucket",
        ],
    )
    def test_other_urls_are_refused_with_what_is_accepted(self, url: str) -> None:
        with pytest.raises(ConfigError, match=r"file://\./folder, file:///folder, a plain path or s3://bucket/prefix"):
            open_store(url)

    @pytest.mark.parametrize(
        "bucket", ["", "b", "ab", "a" * 64, "Bucket", "my_bucket", "-bucket", "bucket.", "a b", "bücket", "a\nbc"]
    )
    def test_a_bucket_name_that_no_bucket_has_is_refused_with_the_rule(self, bucket: str) -> None:
        with pytest.raises(ConfigError) as caught:
            open_store(f"s3://{bucket}/prefix")
        assert str(caught.value).startswith(
            f"bucket name is not allowed: {bucket!a}, required 3 to 63 lower-case letters, digits, dots and hyphens,"
        )
        assert f"(s3://{ascii(bucket)[1:-1]}/prefix)" in str(caught.value)

    @pytest.mark.parametrize("secret", ["hunter2", "hunter2/hunter2", "hunter2" * 40])
    def test_credentials_in_a_url_are_refused_and_not_repeated(self, secret: str) -> None:
        with pytest.raises(ConfigError, match=r"s3://\*\*\*@bucket/prefix") as caught:
            open_store(f"s3://id:{secret}@bucket/prefix")
        assert "hunter2" not in str(caught.value)

    def test_boto3_is_loaded_for_s3_only(self, tmp_path: Path) -> None:
        script = (
            "import sys; from deepfm.storage import open_store\n"
            "open_store(sys.argv[1]).write('key', b'1'); assert 'boto3' not in sys.modules\n"
            "sys.modules['boto3'] = None\n"
            "try: open_store('s3://bucket')\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "store")], check=True, capture_output=True, text=True
        )
        assert done.stdout.startswith("ConfigError store s3://bucket needs boto3, which is not installed")


def test_create_in_many_threads_has_one_winner(store: LocalStore) -> None:
    def attempt(number: int) -> bool:
        try:
            store.create("deep/folder/key", b"%d" % number)
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(attempt, range(16)))
    assert won.count(True) == 1
    assert store.read("deep/folder/key") == b"%d" % won.index(True)
