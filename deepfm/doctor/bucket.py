"""A bucket: where it is, whose credentials are used, whether it answers, and what it does with deleted objects."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from deepfm.doctor.checks import Check, failed, ok, refusal, skipped, warning
from deepfm.errors import AccessDeniedError, DeepFMError, StoreUnavailableError

if TYPE_CHECKING:
    from deepfm.storage.s3 import S3Store

_SKEW_SECONDS = 60.0


def bucket(place: "S3Store") -> Iterator[Check]:
    """The checks of a bucket's surroundings; the first that fails is the last, and nothing is written."""
    facts = place.describe()
    where = f"bucket {facts.bucket} at {facts.endpoint} (by {facts.setting})"
    how = f"addressed by {facts.addressing}, checksums {facts.checksums}"
    how += f", encrypted with {facts.encryption}" if facts.encryption else ""
    yield ok("store.endpoint", f"{where}, region {facts.region}, {how}")
    if facts.credentials:
        yield ok("store.credentials", f"from {facts.credentials}")
    else:
        step = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        yield failed("store.credentials", "none were found", step)
        return
    try:
        server = place.server_time()
    except StoreUnavailableError as error:
        step = f"Check {facts.setting}, the network, and whether the server runs."
        yield refusal("store.answers", error).model_copy(update={"next_step": step})
        return
    except DeepFMError as error:
        yield refusal("store.answers", error)
        return
    yield ok("store.answers", "a listing was answered")
    if server is not None:
        yield _clock(server)
    yield _told("store.versioning", lambda: _versioning(place), right="s3:GetBucketVersioning")
    yield _told("store.object_lock", lambda: _object_lock(place), right="s3:GetBucketObjectLockConfiguration")


def _clock(server: dt.datetime) -> Check:
    seconds = (dt.datetime.now(dt.UTC) - server).total_seconds()
    if abs(seconds) > _SKEW_SECONDS:
        observed = f"this machine is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the store"
        return warning(
            "store.clock", observed, "Set this machine's clock by the network; from 15 minutes on S3 refuses."
        )
    return ok("store.clock", f"{abs(seconds):.0f} s apart from this machine's")


def _told(name: str, check: Callable[[], Check], *, right: str) -> Check:
    """The check's result, or why the server does not tell; it is no failure, because nothing else needs the answer."""
    try:
        return check()
    except AccessDeniedError:
        return skipped(name, f"this identity may not ask: it takes {right}")
    except DeepFMError:
        return skipped(name, "the server does not say")


def _versioning(place: "S3Store") -> Check:
    name, status = "store.versioning", place.versioning()
    if status == "Enabled":
        observed = "on: what is deleted or replaced stays as an older version, and the store only grows"
        step = (
            "Have a lifecycle rule remove noncurrent versions, if none does. Some servers ignore the condition of a "
            "write in such buckets: see create if absent."
        )
        return warning(name, observed, step)
    if status == "Suspended":
        return ok(name, "suspended: what is deleted now is gone, older versions from before stay")
    return ok(name, "off: what is deleted is gone")


def _object_lock(place: "S3Store") -> Check:
    name = "store.object_lock"
    if not place.object_lock():
        return ok(name, "off")
    observed = "on: objects can be replaced, but what prune deletes takes its room until its retention ends"
    return warning(name, observed, "Use a bucket without object lock, or keep its default retention short.")
