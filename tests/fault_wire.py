"""What can happen to the requests of a bucket's store, below botocore's retries and in front of a real server."""

import random
from collections.abc import Mapping
from io import BytesIO
from typing import Any, NamedTuple, cast

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from botocore.httpsession import URLLib3Session

from deepfm.storage.s3 import S3Store

REFUSALS: Mapping[str, float] = {"lost": 0.2, "409": 0.05, "500": 0.01, "503": 0.01, "dropped": 0.01}
"""A fifth of the conditional writes is applied without an answer."""
_CODES = {
    "409": "ConditionalRequestConflict",
    "500": "InternalError",
    "502": "BadGateway",
    "503": "SlowDown",
}


class _Body(BytesIO):
    """A body as botocore reads it."""

    def stream(self, **_: Any) -> Any:
        yield self.read()


class _Answer(NamedTuple):
    """An answer that can be given any number of times."""

    status: int
    headers: HTTPHeaders
    body: bytes

    def to(self, request: AWSPreparedRequest) -> AWSResponse:
        return AWSResponse(request.url, self.status, self.headers, _Body(self.body))


class _Answers:
    """What the server answers to reads, and what it answered before that."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[_Answer, _Answer]] = {}

    def of(self, request: AWSPreparedRequest, session: URLLib3Session) -> tuple[AWSResponse, AWSResponse]:
        """The answer of now and an older one: what was there before the last change, or that nothing was."""
        found = session.send(request)
        now = _Answer(found.status_code, HTTPHeaders.from_pairs(found.headers.items()), found.content)
        before, last = self._given.get(request.url, (_ABSENT, now))
        if last.body != now.body:
            before = last
        self._given[request.url] = before, now
        older = now if before is _ABSENT and "list-type" in request.url else before
        return now.to(request), older.to(request)


def spoil(store: S3Store, *, seed: object, shares: Mapping[str, float]) -> S3Store:
    """The store itself, whose requests now meet faults: `lost`, `dropped`, `stale` or the status of an error.

    Args:
        store: A bucket.
        seed: What makes the same faults come in the same order.
        shares: The probability of each fault; `lost` and `409` befall conditional requests only, `stale` reads and
            listings: they are answered as before the last change that this store has seen.
    """
    chances, session = random.Random(str(seed)), URLLib3Session(max_pool_connections=4)
    answers = _Answers()

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        reads, conditional = request.method == "GET", "If-None-Match" in request.headers
        now, older = answers.of(request, session) if reads and "stale" in shares else (None, None)
        drawn = chances.random()
        for fault, share in shares.items():
            drawn -= share if {"lost": conditional, "409": conditional, "stale": reads}.get(fault, True) else 0.0
            if drawn < 0:
                return older if fault == "stale" else _answer(fault, request, session)
        return now

    for client in (store._clients.patient, store._clients.single):
        # The stubs do not know that a handler may answer in the server's place.
        client.meta.events.register("before-send.s3", cast("Any", send))
    return store


def plan(store: S3Store) -> list[str]:
    """A list to be filled: the store's next requests are answered with the statuses in it, first to last."""
    faults: list[str] = []

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        fault = faults.pop(0) if faults else None
        return _refusal(int(fault), _CODES[fault]).to(request) if fault else None

    for client in (store._clients.patient, store._clients.single):
        client.meta.events.register("before-send.s3", cast("Any", send))
    return faults


def _answer(fault: str, request: AWSPreparedRequest, session: URLLib3Session) -> AWSResponse:
    if fault == "dropped":
        raise ConnectionClosedError(endpoint_url=request.url)
    if fault == "lost":
        session.send(request)
        raise ReadTimeoutError(endpoint_url=request.url)
    return _refusal(int(fault), _CODES[fault]).to(request)


def _refusal(status: int, code: str) -> _Answer:
    document = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
    return _Answer(status, HTTPHeaders.from_pairs([("x-amz-request-id", "1")]), document)


_ABSENT = _refusal(404, "NoSuchKey")
