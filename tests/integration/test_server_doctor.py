"""What the doctor says of a Prefect server that has nothing on it, does not answer, or lets nobody in."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from deepfm.doctor.checks import Check
from tests.tiny_days import tiny_config


def looked_at() -> dict[str, Check]:
    from flows.doctor import checks

    return {check.name: check for check in checks(tiny_config())}


@pytest.fixture
def nobody_is_let_in() -> Iterator[str]:
    """Address of a server that asks for an auth string."""

    class Closed(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Closed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()


@pytest.mark.usefixtures("prefect_server")
def test_an_empty_server_is_told_with_what_is_missing():
    found = looked_at()
    assert found["prefect.server"].status == "ok"
    assert found["prefect.versions"].status == "ok"
    assert found["prefect.access"].status == "ok"
    for name in ("prefect.pool_cpu", "prefect.pool_gpu", "prefect.deployments", "prefect.automations"):
        assert found[name].status == "failed"
        assert "deployments.apply" in found[name].next_step
    assert "retrain/daily" in found["prefect.deployments"].observed


def test_without_an_address_nothing_is_looked_at(monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert looked_at()["prefect.server"].status == "skipped"


def test_a_server_that_does_not_answer_fails_with_75():
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        found = looked_at()["prefect.server"]
    assert (found.status, found.exit_code) == ("failed", 75)
    assert "PREFECT_API_URL" in found.next_step


def test_a_server_that_others_reach_has_to_ask_for_something(nobody_is_let_in, monkeypatch):
    from flows import doctor

    monkeypatch.setattr(doctor, "_LOOPBACK", set())
    assert doctor._guarded(nobody_is_let_in).status == "ok"


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_asks_for_nothing_is_open_to_all(monkeypatch):
    from prefect.settings import get_current_settings

    from flows import doctor

    monkeypatch.setattr(doctor, "_LOOPBACK", set())
    assert doctor._guarded(str(get_current_settings().api.url)).status == "warning"


def test_a_server_that_lets_nobody_in_fails_with_78(nobody_is_let_in):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: nobody_is_let_in}):
        found = looked_at()["prefect.server"]
    assert (found.status, found.exit_code) == ("failed", 78)
    assert "answers 401" in found.observed
    assert "PREFECT_API_AUTH_STRING" in found.next_step
