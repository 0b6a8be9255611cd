"""What can happen to the requests of a bucket's store, below botocore's retries and in front of a real server."""

import random
from collections.abc import Mapping
from io import BytesIO
from typing import Any, cast

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from botocore.httpsession import URLLib3Session

from deepfm.storage.s3 import S3Store

REFUSALS: Mapping[str, float] = {"lost": 0.2, "409": 0.05, "500": 0.01, "503": 0.01, "dropped": 0.01}
"""A fifth of the conditional writes is applied without an answer."""
_CODES = {"409": "ConditionalRequestConflict", "500": "InternalError", "503": "SlowDown"}


class _Body(BytesIO):
    """A body as botocore reads it."""

    def stream(self, **_: Any) -> Any:
        yield self.read()


def spoil(store: S3Store, *, seed: object, shares: Mapping[str, float]) -> S3Store:
    """The store itself, whose requests now meet faults: `lost`, `dropped` or the status of an error.

    Args:
        store: A bucket.
        seed: What makes the same faults come in the same order.
        shares: The probability of each fault; `lost` and `409` befall conditional requests only.
    """
    chances, session = random.Random(str(seed)), URLLib3Session(max_pool_connections=4)

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        conditional = "If-None-Match" in request.headers
        drawn = chances.random()
        for fault, share in shares.items():
            drawn -= share if conditional or fault not in {"lost", "409"} else 0.0
            if drawn < 0:
                return _answer(fault, request, session)
        return None

    for client in (store._clients.patient, store._clients.single):
        # The stubs do not know that a handler may answer in the server's place.
        client.meta.events.register("before-send.s3", cast("Any", send))
    return store


def _answer(fault: str, request: AWSPreparedRequest, session: URLLib3Session) -> AWSResponse:
    if fault == "dropped":
        raise ConnectionClosedError(endpoint_url=request.url)
    if fault == "lost":
        session.send(request)
        raise ReadTimeoutError(endpoint_url=request.url)
    document = f"<Error><Code>{_CODES[fault]}</Code><Message>m</Message></Error>".encode()
    headers = HTTPHeaders.from_pairs([("x-amz-request-id", "1")])
    return AWSResponse(request.url, int(fault), headers, _Body(document))
