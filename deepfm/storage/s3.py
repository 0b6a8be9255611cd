"""A bucket as a store: AWS S3, or a server that speaks its protocol and keeps `If-None-Match: *`.

The commit of the whole system is one PutObject that succeeds only if the key is free. Two clients serve it: one that
botocore retries, and one that it does not, because a retried conditional write reports its own first success as a loss.
"""

import datetime as dt
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as ConnectionFailedError

from deepfm.errors import AlreadyExistsError, ConfigError, NotFoundError, StoreUnavailableError
from deepfm.storage.local import checked_key, disk_errors, temporary_beside
from deepfm.storage.protocol import ObjectInfo
from deepfm.storage.s3_endpoint import AMAZONS, setting_of, shown
from deepfm.storage.s3_errors import (
    CLIENT_ERRORS,
    CREDENTIAL_ERRORS,
    checked_listing,
    no_credentials,
    refuse_page,
    status_of,
    translation,
)

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectTypeDef

_CONNECT_SECONDS = 3
_READ_SECONDS = 20
_ATTEMPTS = 5
_CREATE_PAUSES_SECONDS = (0.1, 0.5, 1.0, 0.0)
_BODY_PAUSES_SECONDS = (0.1, 0.5, 0.0)
_CHUNK_BYTES = 1 << 20
_CONNECTIONS = 32

_BROKEN_BODY = (HTTPClientError, IncompleteReadError, ConnectionFailedError)
_ORIGINS = {
    "env": "the environment",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the AWS config file",
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a web identity",
    "custom-process": "a process named in the AWS config file",
    "sso": "single sign-on",
    "container-role": "the container's role",
    "iam-role": "the instance's role",
}
_PROFILED = {"shared-credentials-file", "config-file", "assume-role", "custom-process", "sso"}


class S3Facts(NamedTuple):
    """How a bucket is reached; nothing secret."""

    bucket: str
    endpoint: str
    setting: str
    """What the endpoint follows from, such as `AWS_ENDPOINT_URL`."""
    region: str
    addressing: str
    """`path` or `host name`: where in a request's URL the bucket is."""
    credentials: str
    """Where they come from, in words; empty if there are none."""


class S3Store:
    """An `ObjectStore` in a bucket, below a prefix.

    Endpoint, region and credentials come from the usual AWS variables and profiles; the region is us-east-1 if nothing
    names one. At an endpoint other than Amazon's, buckets are addressed by path and checksum trailers are left out: a
    server that does not know the trailers stores them inside the object.
    """

    def __init__(self, bucket: str, *, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        try:
            self._client, self._single = _clients()
            self._endpoint = shown(self._client.meta.endpoint_url)
        except CREDENTIAL_ERRORS as cause:
            raise no_credentials(self.url) from cause
        except (BotoCoreError, ValueError) as cause:
            raise ConfigError(
                "S3 client cannot be set up",
                observed=type(cause).__name__,
                where=self.url,
                next_step="Check AWS_ENDPOINT_URL, AWS_PROFILE and AWS_DEFAULT_REGION.",
            ) from cause

    @property
    def url(self) -> str:
        """Bucket and prefix as an `s3://` URL."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def read(self, key: str) -> bytes:
        """The whole object.

        Raises:
            NotFoundError: terminal; there is no such object.
        """
        body = BytesIO()
        self._download(key, body)
        return body.getvalue()

    def write(self, key: str, data: bytes) -> None:
        """The object is in place, over an older one if there was one."""
        with self._translated(key):
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data)

    def create(self, key: str, data: bytes) -> None:
        """The object is in place, and its key was free before.

        An answer that was lost (time-out, broken connection, 5xx) says nothing: the key is read back. Our bytes mean
        success, so a writer whose bytes must be told apart puts a random id into them. After such an answer a refusal
        may be our own success too. 409 means that another request is under way, not that the key is taken.

        Args:
            key: Where to.
            data: One small object; it goes in a single request, because the condition on the completion of a
                multipart upload is not atomic everywhere.

        Raises:
            AlreadyExistsError: terminal; the key is taken by other bytes, or was before we began.
            StoreUnavailableError: transient; no clear answer after several tries.
        """
        unanswered = False
        for pause in _CREATE_PAUSES_SECONDS:
            answer = self._put_if_absent(key, data)
            if answer == "stored":
                return
            unanswered = unanswered or answer == "lost"
            if answer == "taken" and not unanswered:
                raise self._taken(key)
            if answer != "busy":
                stored = self._read_if_present(key)
                if stored == data:
                    return
                if stored is not None:
                    raise self._taken(key)
            time.sleep(pause)
        raise StoreUnavailableError(
            "store did not say whether the object was created",
            observed=f"{len(_CREATE_PAUSES_SECONDS)} tries",
            where=f"{self.url}/{key} at {self._endpoint}",
            next_step="Try again later.",
        )

    def upload(self, key: str, path: Path) -> None:
        """As `write`, streamed from a local file; a large one goes in parts."""
        with path.open("rb") as source, self._translated(key):
            self._client.upload_fileobj(source, self._bucket, self._key(key))

    def fetch(self, key: str, *, scratch: Path) -> Path:
        """A new file in `scratch` with the whole object; a failed download leaves none.

        Raises:
            NotFoundError: terminal; there is no such object.
        """
        target = scratch / uuid4().hex
        with disk_errors(str(scratch)), temporary_beside(target) as temporary:
            with temporary.open("xb") as sink:
                self._download(key, sink)
            return temporary.rename(target)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object below `prefix/` (of the whole store if it is empty), sorted by key.

        Servers differ in their order and return a page at a time; the placeholders that consoles make for folders are
        left out.
        """
        full = f"{self._key(prefix)}/" if prefix else self._prefix
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=full)
            return sorted(
                self._info(found)
                for page in pages
                for found in checked_listing(page).get("Contents", ())
                if not found["Key"].endswith("/")
            )

    def delete(self, key: str) -> None:
        """The object is gone; an absent one is no error."""
        try:
            with self._translated(key):
                self._client.delete_object(Bucket=self._bucket, Key=self._key(key))
        except NotFoundError:
            return

    def describe(self) -> S3Facts:
        """Where requests go and whose credentials they carry; the store is not asked."""
        found = boto3.Session().get_credentials()
        style = (getattr(self._client.meta.config, "s3", None) or {}).get("addressing_style")
        return S3Facts(
            bucket=self._bucket,
            endpoint=self._endpoint,
            setting=setting_of(self._endpoint),
            region=self._client.meta.region_name,
            addressing="path" if style == "path" else "host name",
            credentials="" if found is None else _origin(found.method),
        )

    def server_time(self) -> dt.datetime | None:
        """The server's clock, from the answer to one listing that is asked once; None if it does not tell.

        Raises:
            ConfigError: terminal; what every other call would raise, too.
            StoreUnavailableError: transient; no answer within seconds.
        """
        with self._translated(""):
            answer = self._single.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
            checked_listing(answer)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else None

    def _key(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _info(self, found: "ObjectTypeDef") -> ObjectInfo:
        changed = found["LastModified"]
        tag = f"{found.get('ETag', '')} {changed.isoformat()}"
        return ObjectInfo(found["Key"].removeprefix(self._prefix), found["Size"], tag, round(changed.timestamp() * 1e9))

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except CLIENT_ERRORS as cause:
            raise translation(cause, where=f"{self.url}/{key}", endpoint=self._endpoint) from cause

    def _taken(self, key: str) -> AlreadyExistsError:
        return AlreadyExistsError("object exists already", where=f"{self.url}/{key}")

    def _put_if_absent(self, key: str, data: bytes) -> Literal["stored", "taken", "busy", "lost"]:
        try:
            with self._translated(key):
                self._single.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
        except StoreUnavailableError as failure:
            return "busy" if status_of(failure.__cause__) == 409 else "lost"
        except ConfigError as failure:
            if status_of(failure.__cause__) == 412:
                return "taken"
            raise
        return "stored"

    def _read_if_present(self, key: str) -> bytes | None:
        try:
            return self.read(key)
        except NotFoundError:
            return None

    def _download(self, key: str, sink: IO[bytes]) -> None:
        """The sink holds the whole object; a body that broke is read again, which botocore does not do."""
        for pause in _BODY_PAUSES_SECONDS:
            sink.seek(0)
            sink.truncate()
            with self._translated(key):
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
            try:
                with closing(answer["Body"]) as body:
                    for chunk in body.iter_chunks(_CHUNK_BYTES):
                        sink.write(chunk)
            except _BROKEN_BODY:
                time.sleep(pause)
                continue
            return
        raise StoreUnavailableError(
            "download broke off",
            observed=f"{len(_BODY_PAUSES_SECONDS)} times",
            where=f"{self.url}/{key} at {self._endpoint}",
            next_step="Try again later.",
        )


def _clients() -> tuple["S3Client", "S3Client"]:
    """One client that botocore retries, and one that asks once."""
    session = boto3.Session()
    region = session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
    host = urlsplit(session.client("s3", region_name=region).meta.endpoint_url).hostname or ""
    settings = Config(connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, max_pool_connections=_CONNECTIONS)
    if not host.endswith(AMAZONS):
        settings = settings.merge(
            Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
        )
    patient = settings.merge(Config(retries={"mode": "standard", "total_max_attempts": _ATTEMPTS}))
    single = settings.merge(Config(retries={"mode": "standard", "total_max_attempts": 1}))
    clients = (
        session.client("s3", region_name=region, config=patient),
        session.client("s3", region_name=region, config=single),
    )
    for client in clients:
        client.meta.events.register("before-parse.s3", refuse_page)
    return clients


def _origin(method: str) -> str:
    """Where credentials come from, by botocore's name for it."""
    words = _ORIGINS.get(method, method)
    return f"{words}, profile {boto3.Session().profile_name}" if method in _PROFILED else words
