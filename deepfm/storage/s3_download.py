"""A whole object into a file, over a connection that may break off or all but stand still.

What has arrived is kept: the rest is asked for by range. A server that ignores the range, or has another object there
by now, is read from the beginning. Whether the bytes are the right ones is for whoever knows their digest.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from deepfm.errors import ConfigError, StoreUnavailableError
from deepfm.storage.protocol import require_length
from deepfm.storage.s3_errors import status_of

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

_PAUSES_SECONDS = (0.1, 0.5, 0.0)
_CHUNK_BYTES = 1 << 20
_WINDOW_SECONDS = 20.0
_SLOWEST_BYTES_A_SECOND = 10 << 10
_RANGE_REFUSED = 416


class _SlowError(BotoCoreError):
    fmt = "fewer bytes than a slow line brings"


def download(
    get: Callable[[int], "GetObjectOutputTypeDef"], sink: IO[bytes], *, most_bytes: int | None, where: str
) -> None:
    """The sink holds the whole object.

    Args:
        get: Asks for the object from a byte on.
        sink: An empty file.
        most_bytes: How long the object may be.
        where: What an error names.

    Raises:
        IntegrityError: terminal; it is longer than that.
        StoreUnavailableError: transient; three tries have brought next to nothing.
    """
    tag, fruitless = "", 0
    while True:
        held = sink.tell()
        answer = _asked(get, held)
        if answer is None or (held and not _goes_on(answer, held, tag)):
            _close(answer)
            sink.seek(0)
            sink.truncate()
            held, fruitless = 0, fruitless + 1
        else:
            tag = answer.get("ETag", "")
            try:
                for chunk in _arriving(answer["Body"]):
                    require_length(sink.tell() + len(chunk), most_bytes, where=where)
                    sink.write(chunk)
            except (BotoCoreError, HTTPError):  # a broken record of TLS comes as urllib3's own
                fruitless += sink.tell() - held < _CHUNK_BYTES
            else:
                return
        if fruitless >= len(_PAUSES_SECONDS):
            raise StoreUnavailableError(
                "download broke off",
                observed=f"{fruitless} times, the last one after {sink.tell():,} bytes",
                where=where,
                next_step="Try again later.",
            )
        time.sleep(_PAUSES_SECONDS[max(fruitless - 1, 0)])


def _asked(get: Callable[[int], "GetObjectOutputTypeDef"], held: int) -> "GetObjectOutputTypeDef | None":
    """The answer; None if there is nothing from that byte on, so that what is held belongs to another object."""
    try:
        return get(held)
    except ConfigError as failure:
        if held and status_of(failure.__cause__) == _RANGE_REFUSED:
            return None
        raise


def _goes_on(answer: "GetObjectOutputTypeDef", held: int, tag: str) -> bool:
    """Whether it holds the rest of the same object; told here, because not every server takes conditions on reads."""
    return answer.get("ContentRange", "").startswith(f"bytes {held}-") and answer.get("ETag", "") == tag


def _close(answer: "GetObjectOutputTypeDef | None") -> None:
    if answer is not None:
        answer["Body"].close()


def _arriving(body: "StreamingBody") -> Iterator[bytes]:
    """What arrives, as it does; botocore's time-out counts from byte to byte, so a trickle never meets it.

    Raises:
        BotoCoreError: the connection broke, or stands all but still.
    """
    with closing(body):
        # botocore waits for as many bytes as were asked for; the same stream can also give what is there.
        stream: Any = body.__enter__()
        stream.read = stream.read1
        began, arrived = time.monotonic(), 0
        while chunk := body.read(_CHUNK_BYTES):
            yield chunk
            arrived += len(chunk)
            if (took := time.monotonic() - began) >= _WINDOW_SECONDS:
                if arrived < took * _SLOWEST_BYTES_A_SECOND:
                    raise _SlowError
                began, arrived = time.monotonic(), 0
