"""A store that is not where it is looked for: each command says what is there instead, and what to check."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deepfm.errors import (
    AccessDeniedError,
    ConfigError,
    DeepFMError,
    NoSpaceError,
    NotFoundError,
    StoreUnavailableError,
)
from deepfm.storage import ObjectStore, open_store
from tests.command_line import deepfm, one_line
from tests.places import local_place
from tests.tiny_days import HOLDOUT
from tests.tiny_toml import write_toml

DOCTOR = "deepfm doctor tries the store step by step."
READING = {
    "history": ("history",),
    "pull": ("pull",),
    "predict": ("predict", "rows.csv"),
    "report": ("report",),
    "promote": ("promote", "2026-03-04", "--reason", "x"),
    "rollback": ("rollback", "--reason", "x"),
    "hold": ("hold", "--reason", "x"),
    "release": ("release", "--reason", "x"),
}


@pytest.fixture
def aws(monkeypatch):
    """AWS variables of nobody, and no attempt to find others."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "do-not-tell")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("deepfm.storage.s3_client._ATTEMPTS", 1)
    return monkeypatch


class Answer(http.server.BaseHTTPRequestHandler):
    """The same answer to every request."""

    status, kind, body = 200, "", b""
    extra: tuple[tuple[str, str], ...] = ()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Keep the output of the tests clean."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response_only(self.status)
        for name, value in (("Content-Type", self.kind), *self.extra):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - names of the base class


class Files(http.server.SimpleHTTPRequestHandler):
    """What `python -m http.server` runs, over the folder of this file."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, directory=str(Path(__file__).parent), **options)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Keep the output of the tests clean."""


@pytest.fixture
def serve(aws) -> Iterator[object]:
    """A function that starts a server and points AWS_ENDPOINT_URL at it."""
    running = []

    def start(handler: type[http.server.BaseHTTPRequestHandler], **answer: object) -> str:
        kind = type("Handler", (handler,), answer)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        endpoint = f"http://127.0.0.1:{server.server_port}"
        aws.setenv("AWS_ENDPOINT_URL", endpoint)
        return endpoint

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def calls_of(store: ObjectStore, tmp_path: Path) -> dict[str, Callable[[], object]]:
    local = tmp_path / "local"
    local.write_bytes(b"1")
    return {
        "list": lambda: store.list("models"),
        "read": lambda: store.read("key"),
        "fetch": lambda: store.fetch("key", scratch=tmp_path),
        "create": lambda: store.create("key", b"1"),
        "write": lambda: store.write("key", b"1"),
        "upload": lambda: store.upload("key", local),
        "delete": lambda: store.delete("key"),
    }


class TestNoConnection:
    @pytest.mark.parametrize(
        ("endpoint", "words"),
        [
            ("http://127.0.0.1:9", "connection refused"),
            ("https://no-such-host.invalid:8333", "host name is not known"),
            ("https://127.0.0.1:9", "connection refused"),
        ],
    )
    @pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
    def test_the_variable_that_names_the_address_is_the_next_step(self, aws, endpoint, words, variable):
        aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:10")
        aws.setenv(variable, endpoint)
        with pytest.raises(StoreUnavailableError) as caught:
            open_store("s3://bucket").list("")
        assert caught.value.exit_code == 75
        assert str(caught.value).startswith(f"store does not answer at {endpoint}: {words} ")
        assert caught.value.next_step.startswith(f"Check {variable}, which names this address")
        assert caught.value.next_step.endswith(DOCTOR)

    def test_an_address_of_the_config_file_is_looked_for_there(self, aws, tmp_path):
        (tmp_path / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:9\n")
        aws.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        with pytest.raises(StoreUnavailableError, match="Check the network and endpoint_url in the AWS config file"):
            open_store("s3://bucket").list("")

    def test_a_region_that_does_not_exist_is_looked_for_there(self, aws):
        aws.setenv("AWS_DEFAULT_REGION", "eu-wset-1")
        aws.setattr("socket.getaddrinfo", unknown_host)
        with pytest.raises(StoreUnavailableError) as caught:
            open_store("s3://bucket").list("")
        assert "does not answer at https://s3.eu-wset-1.amazonaws.com: host name is not known" in str(caught.value)
        assert "AWS_DEFAULT_REGION; for a server other than Amazon's set AWS_ENDPOINT_URL" in caught.value.next_step

    def test_doctor_names_it_too(self, aws, capsys):
        aws.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        code, out, _ = deepfm(aws, capsys, "doctor", "--store", "s3://bucket", "--json")
        checks = {check["name"]: check for check in json.loads(out)["checks"]}
        assert code == 75
        assert "at http://127.0.0.1:9 (by AWS_ENDPOINT_URL_S3), region us" in checks["store.endpoint"]["observed"]
        assert checks["store.answers"]["next_step"].startswith("Check AWS_ENDPOINT_URL_S3,")


def unknown_host(*_: object, **__: object) -> object:
    import socket

    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


PAGE = b"<html><head></head><body>console</body></html>"
NO_LISTING: dict[str, dict[str, Any]] = {
    "a page for every request": {"kind": "text/html; charset=utf-8", "body": PAGE},
    "an empty success": {},
    "a page that is not there": {"status": 404, "kind": "text/html", "body": PAGE},
    "nothing there, without a word": {"status": 404},
    "a JSON service": {"status": 404, "kind": "application/json", "body": b'{"detail":"Not Found"}'},
    "a redirect": {"status": 301, "kind": "text/html", "body": PAGE, "extra": (("Location", "/x/"),)},
    "a login": {"status": 401, "kind": "text/html", "body": PAGE},
    "a page of XML": {"status": 200, "kind": "application/xml", "body": b"<feed></feed>"},
}
ERROR = b"<Error><Code>%s</Code></Error>"
REQUEST_ID = (("x-amz-request-id", "1"),)
S3_REFUSALS: dict[str, tuple[dict[str, Any], type[DeepFMError]]] = {
    "an error without a type": ({"status": 404, "body": ERROR % b"NoSuchKey"}, NotFoundError),
    "an error of another type": ({"status": 404, "kind": "text/plain", "body": ERROR % b"NoSuchKey"}, NotFoundError),
    "a page with the header": ({"status": 404, "kind": "text/html", "body": PAGE, "extra": REQUEST_ID}, NotFoundError),
    "no body": ({"status": 404}, NotFoundError),
    "no body with a type": ({"status": 404, "kind": "text/plain"}, NotFoundError),
    "a right that is missing": ({"status": 403, "body": ERROR % b"AccessDenied"}, AccessDeniedError),
    "a refusal without a word": ({"status": 403}, AccessDeniedError),
    "no space": ({"status": 403, "body": ERROR % b"QuotaExceeded"}, NoSpaceError),
    "a proxy without a server": ({"status": 502, "kind": "text/html", "body": PAGE}, StoreUnavailableError),
    "a proxy that has enough": ({"status": 429, "kind": "text/html", "body": PAGE}, StoreUnavailableError),
}


class TestNoS3:
    @pytest.mark.parametrize("call", ["list", "read", "fetch", "create", "write", "upload", "delete"])
    def test_a_web_server_is_told_by_every_call(self, serve, tmp_path, call):
        endpoint = serve(Files)
        with pytest.raises(ConfigError) as caught:
            calls_of(open_store("s3://bucket/prefix"), tmp_path)[call]()
        assert str(caught.value).startswith(f"what answers at {endpoint} does not speak S3: status ")
        assert caught.value.next_step.startswith("Check AWS_ENDPOINT_URL")
        assert caught.value.next_step.endswith(DOCTOR)

    @pytest.mark.parametrize("answer", NO_LISTING)
    def test_a_listing_is_told_from_any_other_answer(self, serve, answer):
        serve(Answer, **NO_LISTING[answer])
        with pytest.raises(ConfigError, match="does not speak S3"):
            open_store("s3://bucket").list("models")

    def test_a_page_is_no_object(self, serve):
        serve(Answer, **NO_LISTING["a page for every request"])
        with pytest.raises(ConfigError, match="does not speak S3: status 200 with an HTML page"):
            open_store("s3://bucket").read("key")

    @pytest.mark.parametrize("answer", S3_REFUSALS)
    def test_a_server_of_few_words_is_still_a_store(self, serve, answer):
        given, expected = S3_REFUSALS[answer]
        serve(Answer, **given)
        with pytest.raises(expected):
            open_store("s3://bucket").read("key")

    def test_an_object_that_is_a_page_is_read_from_a_store(self, serve):
        serve(Answer, kind="text/html", body=PAGE, extra=REQUEST_ID)
        assert open_store("s3://bucket").read("key") == PAGE

    @pytest.mark.parametrize("answer", ["a page for every request", "a page that is not there", "an empty success"])
    def test_doctor_tells(self, serve, aws, capsys, answer):
        serve(Answer, **NO_LISTING[answer])
        code, out, _ = deepfm(aws, capsys, "doctor", "--store", "s3://bucket", "--json")
        check = next(check for check in json.loads(out)["checks"] if check["name"] == "store.answers")
        assert (code, check["status"]) == (78, "failed")
        assert "does not speak S3" in check["observed"]
        assert check["next_step"].startswith("Check AWS_ENDPOINT_URL")


class TestNoFolder:
    @pytest.mark.parametrize("command", READING)
    def test_who_only_reads_is_told_that_it_is_not_there(self, monkeypatch, capsys, tmp_path, command):
        toml = write_toml(tmp_path, source=str(tmp_path / "clicks"), store=str(tmp_path / "store"))
        name, *rest = READING[command]
        mistyped = tmp_path / "storr"
        code, out, err = deepfm(monkeypatch, capsys, name, *rest, "--config", str(toml), "--store", str(mistyped))
        assert (code, out) == (2, "")
        line = one_line(err)
        assert f"store's folder does not exist: {mistyped} (by --store). Check --store" in line
        assert "run first" in line
        assert not mistyped.exists()

    def test_the_rule_that_chose_it_is_named(self, monkeypatch, capsys, tmp_path):
        toml = write_toml(tmp_path, source=str(tmp_path / "clicks"), store=str(tmp_path / "none"))
        monkeypatch.delenv("DEEPFM_STORE", raising=False)
        monkeypatch.chdir(tmp_path)
        assert "(by store in the TOML)" in deepfm(monkeypatch, capsys, "history", "--config", str(toml))[2]
        assert f"{tmp_path}/store (by the default)" in deepfm(monkeypatch, capsys, "history", "--model", "tiny")[2]
        monkeypatch.setenv("DEEPFM_STORE", "file://./other")
        assert f"{tmp_path}/other (by DEEPFM_STORE)" in deepfm(monkeypatch, capsys, "history", "--model", "tiny")[2]

    def test_a_file_in_its_place_is_78(self, monkeypatch, capsys, tmp_path):
        toml = write_toml(tmp_path, source=str(tmp_path / "clicks"), store=str(tmp_path / "store"))
        for inside in ("", "/below"):
            store = f"{toml}{inside}"
            code, _, err = deepfm(monkeypatch, capsys, "history", "--config", str(toml), "--store", store)
            assert code == 78
            assert "a file is where a folder is needed" in one_line(err)

    def test_status_says_so_and_goes_on(self, monkeypatch, capsys, tmp_path):
        place = local_place(tmp_path)
        place.deliver(HOLDOUT)
        toml = write_toml(place.folder, source=place.source, store=place.store)
        code, out, err = deepfm(monkeypatch, capsys, "status", "--config", str(toml))
        assert (code, err) == (0, "")
        assert out.startswith(f"The store's folder {tmp_path}/store is not there yet: the first run makes it. ")
        assert "1 delivered" in out
        (tmp_path / "store").mkdir()
        assert "not there yet" not in deepfm(monkeypatch, capsys, "status", "--config", str(toml))[1]

    def test_doctor_warns(self, monkeypatch, capsys, tmp_path):
        store = tmp_path / "storr"
        arguments = ("doctor", "--store", str(store), "--read-only", "--json")
        code, out, _ = deepfm(monkeypatch, capsys, *arguments)
        check = next(check for check in json.loads(out)["checks"] if check["name"] == "store.url")
        assert (code, check["status"]) == (0, "warning")
        assert check["observed"].endswith("by --store: the folder is not there")
        assert not store.exists()
