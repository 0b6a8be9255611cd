"""From the usual AWS settings, and a few of our own, to the clients that ask a bucket.

Two clients ask it: one that botocore retries, and one that it does not, because a retried conditional write reports its
own first success as a loss.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from deepfm.errors import ConfigError
from deepfm.storage.s3_endpoint import is_amazons, require_allowed
from deepfm.storage.s3_errors import CREDENTIAL_ERRORS, LateError, no_credentials, refuse_page

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ADDRESSING = "DEEPFM_S3_ADDRESSING"
"""`path` or `virtual`: where in a request's URL the bucket is."""
ENCRYPTION = "DEEPFM_S3_SSE"
"""How the server encrypts what is written; unset, as the bucket says."""
KMS_KEY = "DEEPFM_S3_KMS_KEY_ID"
"""The key of the two kinds of encryption that have one; unset, the server's own."""
NOBODY = ("", "")
"""The identity of clients without credentials."""
_CONNECT_SECONDS = 3
_READ_SECONDS = 20
_ATTEMPTS = 5
_CONNECTIONS = 32
_CHECKSUMS = ("request_checksum_calculation", "response_checksum_validation")
_deadline: ContextVar[float] = ContextVar("_deadline", default=float("inf"))


class Clients(NamedTuple):
    """What asks a bucket, made from one reading of the settings."""

    patient: "S3Client"
    """Its requests are retried."""
    single: "S3Client"
    """Its requests are made once."""
    identity: tuple[str, str]
    """Access key and session token in use when they were made; secret."""
    encryption: dict[str, Any]
    """What each request adds that stores something."""

    @property
    def endpoint(self) -> str:
        """Where requests go; it may hold a password."""
        return self.patient.meta.endpoint_url


def connect(where: str) -> Clients:
    """New clients; the settings, and credentials in files, are read anew.

    Args:
        where: URL that an error names.

    Raises:
        ConfigError: terminal; there are no credentials, a setting is none that boto3 knows, or the endpoint is refused.
    """
    encryption = _encryption()
    try:
        session = boto3.Session()
        region = session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
        endpoint = session.client("s3", region_name=region).meta.endpoint_url
        require_allowed(endpoint)
        settings = _settings(session, amazons=is_amazons(endpoint))
        clients = [
            session.client("s3", region_name=region, config=settings.merge(Config(retries=_retries(attempts))))
            for attempts in (_ATTEMPTS, 1)
        ]
        found = session.get_credentials()
        held = found.get_frozen_credentials() if found is not None else None
    except CREDENTIAL_ERRORS as cause:
        raise no_credentials(where) from cause
    except (BotoCoreError, ValueError) as cause:
        # Not from its cause: that may repeat any piece of an address with a password in it.
        raise ConfigError(
            "S3 client cannot be set up",
            observed=type(cause).__name__,
            where=where,
            next_step="Check AWS_ENDPOINT_URL, AWS_PROFILE, AWS_DEFAULT_REGION and the AWS config file.",
        ) from None
    for client in clients:
        client.meta.events.register("before-parse.s3", refuse_page)
        client.meta.events.register("before-send.s3", _refuse_late)
    identity = (held.access_key or "", held.token or "") if held is not None else NOBODY
    return Clients(clients[0], clients[1], identity, encryption)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """No request of this thread begins later than that, whoever retries it; one within another can only shorten it."""
    token = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def _refuse_late(**_: object) -> None:
    if time.monotonic() > _deadline.get():
        raise LateError


def _retries(attempts: int) -> Any:
    return {"mode": "standard", "total_max_attempts": attempts}


def _settings(session: boto3.Session, *, amazons: bool) -> Config:
    """How to ask; what the user has set wins, and a server other than Amazon's is asked for the least otherwise.

    Such a server knows buckets by path, not by host name, and stores the trailer of a checksum that it does not know
    inside the object.
    """
    profile = session._session.get_scoped_config()  # noqa: SLF001 - boto3 does not say what was set and what is default
    options: dict[str, Any] = {}
    named = profile.get("s3")
    if asked := _one_of(ADDRESSING, ("path", "virtual")):
        options["s3"] = {"addressing_style": asked}
    elif not amazons and not (isinstance(named, dict) and "addressing_style" in named):
        options["s3"] = {"addressing_style": "path"}
    if not amazons:
        unset = [name for name in _CHECKSUMS if name not in profile and f"AWS_{name.upper()}" not in os.environ]
        options |= dict.fromkeys(unset, "when_required")
    return Config(
        connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, max_pool_connections=_CONNECTIONS, **options
    )


def _encryption() -> dict[str, Any]:
    kind, key = _one_of(ENCRYPTION, ("AES256", "aws:kms", "aws:kms:dsse")), os.environ.get(KMS_KEY, "")
    if key and not kind.startswith("aws:kms"):
        raise ConfigError(
            f"{KMS_KEY} names a key that nothing uses",
            observed=f"{ENCRYPTION} is {kind or 'not set'}",
            next_step=f"Set {ENCRYPTION}=aws:kms, or unset {KMS_KEY}.",
        )
    return ({"ServerSideEncryption": kind} if kind else {}) | ({"SSEKMSKeyId": key} if key else {})


def _one_of(variable: str, values: tuple[str, ...]) -> str:
    """The variable's value; empty if it is not set."""
    value = os.environ.get(variable, "")
    if value and value not in values:
        raise ConfigError(
            f"{variable} is not understood",
            observed=ascii(value[:40]),
            required=" or ".join(values),
            next_step="Correct it, or unset it.",
        )
    return value
