"""The one place where an error of S3's client or server becomes a line of ours; no text of the server is repeated."""

import socket
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as ConnectionFailedError,
)
from botocore.parsers import ResponseParserError

from deepfm.errors import (
    AccessDeniedError,
    ConfigError,
    DeepFMError,
    NoSpaceError,
    NotFoundError,
    StoreUnavailableError,
)
from deepfm.storage.s3_endpoint import another_server, where_to_look

CREDENTIAL_ERRORS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError)
CLIENT_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
_LISTED = {"Name", "IsTruncated", "KeyCount", "Contents"}
_NO_CONNECTION = (EndpointConnectionError, ConnectTimeoutError, SSLError)
_RIGHTS = (
    "access is denied",
    "Allow s3:GetObject and s3:ListBucket (without it an absent object is denied too), and s3:PutObject for writers.",
)
_REGION = ("bucket is in another region", "Set AWS_DEFAULT_REGION to the region of the bucket.")
_TOKEN = ("session token is not valid", "Renew the credentials, then run the same command again.")
_NO_CONDITION = (
    "store does not know conditional writes",
    "Use a store that can create an object only if it is absent.",
)
_EXPIRED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")
_EXPLAINED = {
    "NoSuchBucket": ("bucket does not exist", "Create the bucket, or correct the store URL."),
    "InvalidBucketName": ("bucket name is not allowed", "Correct the store URL."),
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "InvalidAccessKeyId": ("access key is not known to the store", "Check AWS_ACCESS_KEY_ID."),
    "SignatureDoesNotMatch": ("secret key does not fit the access key", "Check AWS_SECRET_ACCESS_KEY."),
    **dict.fromkeys(_EXPIRED, _TOKEN),
    "RequestTimeTooSkewed": ("clock of this machine is wrong", "Set it to the network's time."),
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "NotImplemented": _NO_CONDITION,
    "501": _NO_CONDITION,
    "EntityTooLarge": ("object is too large for the store", "Choose another store."),
}
_ABSENT_CODES = {"NoSuchKey", "404", "NotFound", "ObjectLockConfigurationNotFoundError"}
_PASSING_CODES = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "OperationAborted"}
_PASSING_STATUS = {408, 409, 425, 429}


class LateError(BotoCoreError):
    """A request was not made any more, because the time for the call was over."""

    fmt = "time is over"


class NotS3Error(ResponseParserError):
    """What answers is no S3 server; the text is what was observed."""


def refuse_page(response_dict: Mapping[str, Any], **_: object) -> None:
    """Raise if a success comes with an HTML page; for botocore's `before-parse` event.

    Web servers, and the consoles of S3 servers, answer so to any request. S3 servers put `x-amz-` headers into their
    answers, and nobody stores a page where a store has its objects.

    Raises:
        NotS3Error: it does.
    """
    status, headers = response_dict["status_code"], response_dict["headers"]
    if status < 300 and "html" in headers.get("Content-Type", "") and not _amazonian(headers):
        what = f"status {status} with an HTML page"
        raise NotS3Error(what)


def checked_listing(page: Mapping[str, Any]) -> Mapping[str, Any]:
    """The page itself, if it is one; botocore takes any answer that it can parse, even an empty one, for an empty page.

    Raises:
        NotS3Error: there is nothing in it that a listing has.
    """
    if _LISTED.isdisjoint(page):
        what = "a success that is no listing"
        raise NotS3Error(what)
    return page


def status_of(cause: BaseException | None) -> int:
    """The status of the answer that an error stands for; 0 if it is no answer."""
    if not isinstance(cause, ClientError):
        return 0
    return int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def expired(cause: BaseException) -> bool:
    """Whether the server took the credentials for ones whose time is over."""
    return isinstance(cause, ClientError) and _code(cause) in _EXPIRED


def translation(cause: Exception, *, where: str, endpoint: str) -> DeepFMError:
    """The error of ours that an error of the client stands for."""
    if isinstance(cause, CREDENTIAL_ERRORS):
        return no_credentials(where)
    if isinstance(cause, ClientError):
        return _refusal(cause, where=where, endpoint=endpoint)
    if isinstance(cause, NotS3Error):
        return _not_s3(str(cause), where=where, endpoint=endpoint)
    if isinstance(cause, LateError):
        return _unavailable("no answer in time", where=where, endpoint=endpoint, next_step="Try again later.")
    if isinstance(cause, HTTPClientError | ConnectionFailedError | ResponseParserError):
        next_step = where_to_look(endpoint) if isinstance(cause, _NO_CONNECTION) else "Try again later."
        return _unavailable(_in_words(cause), where=where, endpoint=endpoint, next_step=next_step)
    return ConfigError("request cannot be made", observed=type(cause).__name__, where=where)


def no_credentials(where: str) -> ConfigError:
    """Nobody says who asks."""
    return ConfigError(
        "no usable credentials for the store",
        where=where,
        next_step="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
    )


def _refusal(cause: ClientError, *, where: str, endpoint: str) -> DeepFMError:
    code, status = _code(cause), status_of(cause)
    if _foreign(cause):
        return _not_s3(f"status {status} without an S3 error code", where=where, endpoint=endpoint)
    if code == "QuotaExceeded":
        next_step = "Free some space, then run the same command again."
        return NoSpaceError("quota of the store is used up", where=f"{where} at {endpoint}", next_step=next_step)
    if code in _EXPLAINED or status in {401, 403}:
        problem, next_step = explained = _EXPLAINED.get(code, _RIGHTS)
        kind = AccessDeniedError if explained is _RIGHTS else ConfigError
        return kind(problem, where=f"{where} at {endpoint}", next_step=next_step)
    if code in _ABSENT_CODES:
        return NotFoundError("object is not there", where=where)
    if code in _PASSING_CODES or status in _PASSING_STATUS or status >= 500:
        return _unavailable(f"status {status}", where=where, endpoint=endpoint, next_step="Try again later.")
    return ConfigError("store refuses the request", observed=f"{code[:80]!a}, status {status}", where=where)


def _foreign(cause: ClientError) -> bool:
    """Whether a refusal is no S3 server's.

    Those send a document with an error code, from which botocore has the code: where there is none, the status stands
    for it. A proxy before a server, or a server of few words, may leave the document out, so `x-amz-` headers and an
    empty answer count for S3 too; but not to a listing, whose "not there" always has its code.
    """
    status = status_of(cause)
    headers = cause.response["ResponseMetadata"].get("HTTPHeaders", {})
    if _code(cause) != str(status) or _amazonian(headers) or status in _PASSING_STATUS:
        return False
    if status >= 500 and status != 501:
        return False
    kind = headers.get("content-type", "")
    page = bool(kind) and "xml" not in kind and headers.get("content-length") != "0"
    return page or (status == 404 and cause.operation_name == "ListObjectsV2")


def _code(cause: ClientError) -> str:
    """The error's code; where the answer has none, the status, which botocore takes itself unless the page is XML."""
    return str(cause.response.get("Error", {}).get("Code", "") or status_of(cause))


def _amazonian(headers: Mapping[str, Any]) -> bool:
    return any(name.lower().startswith("x-amz-") for name in headers)


def _in_words(cause: Exception) -> str:
    """What kept a request from its answer: the reason of the operating system where it is a plain one."""
    lower = getattr(cause, "kwargs", {}).get("error")
    origin = getattr(lower, "__cause__", None) or getattr(lower, "__context__", None)
    if isinstance(origin, socket.gaierror):
        return "host name is not known"
    return "connection refused" if isinstance(origin, ConnectionRefusedError) else type(cause).__name__


def _not_s3(observed: str, *, where: str, endpoint: str) -> ConfigError:
    return ConfigError(
        f"what answers at {endpoint} does not speak S3",
        observed=observed,
        where=where,
        next_step=another_server(endpoint),
    )


def _unavailable(observed: str, *, where: str, endpoint: str, next_step: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"store does not answer at {endpoint}", observed=observed, where=where, next_step=next_step
    )
