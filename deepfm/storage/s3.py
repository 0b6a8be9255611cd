"""A bucket as a store: AWS S3, or a server that speaks its protocol and keeps `If-None-Match: *`.

The commit of the whole system is one PutObject that succeeds only if the key is free.
"""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from uuid import uuid4

import boto3

from deepfm.errors import AlreadyExistsError, ConfigError, DeepFMError, NotFoundError, StoreUnavailableError
from deepfm.storage.local import checked_key, disk_errors, temporary_beside
from deepfm.storage.protocol import ObjectInfo
from deepfm.storage.s3_client import NOBODY, Clients, connect, within
from deepfm.storage.s3_download import download
from deepfm.storage.s3_endpoint import setting_of, shown, without_userinfo
from deepfm.storage.s3_errors import (
    CLIENT_ERRORS,
    CREDENTIAL_ERRORS,
    NotS3Error,
    checked_listing,
    expired,
    status_of,
    translation,
)

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef, ObjectTypeDef

T = TypeVar("T")
_LATEST_REQUEST_SECONDS = 40.0
"""A call of one small request, or of a few that belong together, makes none later; so it ends in a minute or so."""
_SMALL_BYTES = 8 << 20
"""From here on boto3 uploads in parts."""
_CREATE_PAUSES_SECONDS = (0.1, 0.5, 1.0, 0.0)

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
    checksums: str
    """When requests carry one: `always` or `if required`."""
    encryption: str
    """What the server is asked to encrypt with; empty if the bucket decides."""
    credentials: str
    """Where they come from, in words; empty if there are none."""


class S3Store:
    """An `ObjectStore` in a bucket, below a prefix.

    Endpoint, region, profile and credentials come from the usual AWS variables and files; the region is us-east-1 if
    nothing names one. Credentials that the server calls expired are looked for once more, so that a long run goes on
    with those that were put into a file in the meantime.

    Raises:
        ConfigError: terminal; as `connect`.
    """

    def __init__(self, bucket: str, *, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._clients = connect(self.url)
        self._endpoint = shown(self._clients.endpoint)
        self._renewing = threading.Lock()

    @property
    def url(self) -> str:
        """Bucket and prefix as an `s3://` URL."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def read(self, key: str, *, most_bytes: int | None = None) -> bytes:
        """The whole object.

        Raises:
            NotFoundError: terminal; there is no such object.
            IntegrityError: terminal; it is longer than that.
        """
        body = BytesIO()
        self._download(key, body, most_bytes=most_bytes)
        return body.getvalue()

    def write(self, key: str, data: bytes) -> None:
        """The object is in place, over an older one if there was one."""
        place = self._place(key)
        self._ask(key, lambda ask: ask.patient.put_object(**place, Body=data, **ask.encryption))

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
        with within(_LATEST_REQUEST_SECONDS):
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
            where=self._where(key),
            next_step="Try again later.",
        )

    def upload(self, key: str, path: Path) -> None:
        """As `write`, streamed from a local file; a large one goes in parts, which have no deadline in common."""
        if path.stat().st_size < _SMALL_BYTES:
            self.write(key, path.read_bytes())
            return
        place = self._place(key)

        def send(ask: Clients) -> None:
            with path.open("rb") as source:
                ask.patient.upload_fileobj(source, place["Bucket"], place["Key"], ExtraArgs=ask.encryption or None)

        self._ask(key, send)

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
        return sorted(self._info(found) for found in self._listed(prefix, full) if not found["Key"].endswith("/"))

    def delete(self, key: str) -> None:
        """The object is gone; an absent one is no error."""
        place = self._place(key)
        try:
            self._ask(key, lambda ask: ask.patient.delete_object(**place))
        except NotFoundError:
            return

    def describe(self) -> S3Facts:
        """Where requests go and whose credentials they carry; the store is not asked."""
        found = boto3.Session().get_credentials()
        config = self._clients.patient.meta.config
        always = getattr(config, "request_checksum_calculation", "") == "when_supported"
        encryption = self._clients.encryption
        return S3Facts(
            bucket=self._bucket,
            endpoint=self._endpoint,
            setting=setting_of(self._endpoint),
            region=self._clients.patient.meta.region_name,
            addressing="path" if (getattr(config, "s3", None) or {}).get("addressing_style") == "path" else "host name",
            checksums="always" if always else "if required",
            encryption=" ".join(filter(None, (encryption.get("ServerSideEncryption"), encryption.get("SSEKMSKeyId")))),
            credentials="" if found is None else _origin(found.method),
        )

    def server_time(self) -> dt.datetime | None:
        """The server's clock, from the answer to one listing that is asked once; None if it does not tell.

        Raises:
            ConfigError: terminal; what every other call would raise, too.
            StoreUnavailableError: transient; no answer within seconds.
        """
        answer = self._ask("", lambda ask: self._page(ask.single, self._prefix, MaxKeys=1))
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else None

    def versioning(self) -> str:
        """`Enabled` or `Suspended`; empty if the bucket never kept older versions. It is asked once.

        Raises:
            AccessDeniedError: terminal; nobody may ask with these credentials.
            ConfigError: terminal; the server does not know the question.
            StoreUnavailableError: transient; no answer within seconds.
        """
        answer = self._ask("", lambda ask: ask.single.get_bucket_versioning(Bucket=self._bucket))
        return answer.get("Status", "")

    def object_lock(self) -> bool:
        """Whether objects of the bucket can be locked against their removal. It is asked once.

        Raises:
            AccessDeniedError: terminal; nobody may ask with these credentials.
            ConfigError: terminal; the server does not know the question.
            StoreUnavailableError: transient; no answer within seconds.
        """
        try:
            answer = self._ask("", lambda ask: ask.single.get_object_lock_configuration(Bucket=self._bucket))
        except NotFoundError:  # the answer of a bucket without it
            return False
        return answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"

    def _key(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _place(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._key(key)}

    def _info(self, found: "ObjectTypeDef") -> ObjectInfo:
        changed = found["LastModified"]
        tag = f"{found.get('ETag', '')} {changed.isoformat()}"
        return ObjectInfo(found["Key"].removeprefix(self._prefix), found["Size"], tag, round(changed.timestamp() * 1e9))

    def _ask(self, key: str, request: Callable[[Clients], T]) -> T:
        """What the request returns; it may be made a second time, with newer credentials."""
        clients = self._clients
        try:
            with within(_LATEST_REQUEST_SECONDS):
                return request(clients)
        except CLIENT_ERRORS as cause:
            newer = self._renewed(clients) if expired(cause) or isinstance(cause, CREDENTIAL_ERRORS) else None
            if newer is None:
                raise self._translated(cause, key) from without_userinfo(cause)
        try:
            with within(_LATEST_REQUEST_SECONDS):
                return request(newer)
        except CLIENT_ERRORS as cause:
            raise self._translated(cause, key) from without_userinfo(cause)

    def _translated(self, cause: Exception, key: str) -> DeepFMError:
        return translation(cause, where=f"{self.url}/{key}", endpoint=self._endpoint)

    def _renewed(self, used: Clients) -> Clients | None:
        """Clients with other credentials than those; None if there are none."""
        with self._renewing:
            if self._clients is used:
                self._clients = connect(self.url)
            return self._clients if self._clients.identity not in {used.identity, NOBODY} else None

    def _listed(self, prefix: str, full: str) -> Iterator["ObjectTypeDef"]:
        """Page by page; each may take as long as a request of its own."""
        following: dict[str, str] = {}
        while True:
            page = self._ask(prefix, lambda ask: self._page(ask.patient, full, **following))  # noqa: B023 - called here
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken", "")
            if not token or token == following.get("ContinuationToken"):
                what = "a listing that is cut off and does not say how it goes on"
                raise self._translated(NotS3Error(what), prefix)
            following = {"ContinuationToken": token}

    def _page(self, client: Any, full: str, **options: Any) -> "ListObjectsV2OutputTypeDef":
        page: ListObjectsV2OutputTypeDef = client.list_objects_v2(Bucket=self._bucket, Prefix=full, **options)
        checked_listing(page)
        return page

    def _where(self, key: str) -> str:
        return f"{self.url}/{key} at {self._endpoint}"

    def _taken(self, key: str) -> AlreadyExistsError:
        return AlreadyExistsError("object exists already", where=f"{self.url}/{key}")

    def _put_if_absent(self, key: str, data: bytes) -> Literal["stored", "taken", "busy", "lost"]:
        place = self._place(key)
        try:
            self._ask(key, lambda ask: ask.single.put_object(**place, Body=data, IfNoneMatch="*", **ask.encryption))
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

    def _download(self, key: str, sink: IO[bytes], *, most_bytes: int | None = None) -> None:
        place = self._place(key)

        def get(first: int) -> "GetObjectOutputTypeDef":
            rest: dict[str, Any] = {"Range": f"bytes={first}-"} if first else {}
            return self._ask(key, lambda ask: ask.patient.get_object(**place, **rest))

        download(get, sink, most_bytes=most_bytes, where=self._where(key))


def _origin(method: str) -> str:
    """Where credentials come from, by botocore's name for it."""
    words = _ORIGINS.get(method, method)
    return f"{words}, profile {boto3.Session().profile_name}" if method in _PROFILED else words
