"""A proxy on loopback between a bucket's store and its real server, which takes answers away."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_TRICKLE_SECONDS = 0.01


class FaultyProxy(ThreadingHTTPServer):
    """Between the store and its server: each request meets the next planned fault, or passes.

    `lost`: applied, then the connection breaks. `dropped`: the connection breaks before anything happens. `cut`: the
    body ends in the middle. `trickle`: half of the body, and then a byte now and then. `hang`: no answer. `moved`:
    another object is said to be there by now. `<status> <code>`: an S3 error.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        """What came with each request, by lower-case name; `:path` is what it asked for."""
        self.over = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running_proxy(target: str) -> Iterator[FaultyProxy]:
    """A proxy in front of an endpoint, gone when the block ends."""
    proxy = FaultyProxy(target)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One connection to the proxy."""

    server: FaultyProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Keep the output of the tests clean."""

    def do_GET(self) -> None:
        """Answer as the fault says."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(self.command)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()} | {":path": self.path})
        fault = self.server.faults.pop(0) if self.server.faults else "pass"
        if fault in {"dropped", "hang"}:
            self.close_connection = True
            self.server.over.wait(60 if fault == "hang" else 0)
        elif " " not in fault:
            self._forward(body, fault)
        else:
            status, code = fault.split()
            self._answer(int(status), [], f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode())

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - names of the base class

    def _forward(self, body: bytes, fault: str) -> None:
        headers = {name: value for name, value in self.headers.items() if name != "Expect"}
        connection = http.client.HTTPConnection(self.server.target, timeout=20)
        connection.request(self.command, self.path, body=body, headers=headers)
        answer = connection.getresponse()
        data, kept = answer.read(), answer.getheaders()
        connection.close()
        self.close_connection = fault in {"lost", "cut", "trickle"}
        if fault == "moved":
            kept = [(name, '"0"' if name.lower() == "etag" else value) for name, value in kept]
        if fault != "lost":
            self._answer(answer.status, kept, data, fault)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, fault: str = "pass") -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault not in {"cut", "trickle"}:
            self.wfile.write(data)
            return
        half = len(data) // 2
        self.wfile.write(data[:half])
        if fault == "trickle":
            self._trickle(data[half:])

    def _trickle(self, data: bytes) -> None:
        for byte in data:
            if self.server.over.is_set():
                return
            try:
                self.wfile.write(bytes([byte]))
            except OSError:  # whoever asked has left
                return
            time.sleep(_TRICKLE_SECONDS)
