"""What the doctor says of a bucket by what its server answers: on, off, not allowed to ask, or never heard of."""

from typing import Any

import pytest
from botocore.stub import Stubber

from deepfm.doctor.bucket import bucket
from deepfm.doctor.checks import Check
from deepfm.storage.s3 import S3Store

Answer = dict[str, Any] | tuple[str, int]
DENIED: Answer = ("AccessDenied", 403)
LOCK = {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}
ANSWERS: dict[str, tuple[Answer, Answer, tuple[str, str], tuple[str, str]]] = {
    "on": ({"Status": "Enabled"}, LOCK, ("warning", "on: "), ("warning", "on: ")),
    "off": ({}, ("ObjectLockConfigurationNotFoundError", 404), ("ok", "off: "), ("ok", "off")),
    "suspended": ({"Status": "Suspended"}, {}, ("ok", "suspended: "), ("ok", "off")),
    "may not ask": (DENIED, DENIED, ("skipped", "this identity may not ask"), ("skipped", "this identity may not ask")),
    "not known": (
        ("NotImplemented", 501),
        ("MethodNotAllowed", 405),
        ("skipped", "the server does not say"),
        ("skipped", "the server does not say"),
    ),
    "no answer": (
        ("InternalError", 500),
        ("SlowDown", 503),
        ("skipped", "the server does not say"),
        ("skipped", "the server does not say"),
    ),
}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A bucket at an address that nobody asks."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "do-not-tell")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    return S3Store("bucket")


def checks(store: S3Store, versioning: Answer, lock: Answer) -> dict[str, Check]:
    with Stubber(store._clients.single) as stub:
        listing = {"Name": "bucket", "KeyCount": 0, "ResponseMetadata": {"HTTPHeaders": {}}}
        stub.add_response("list_objects_v2", listing)
        for call, answer in (("get_bucket_versioning", versioning), ("get_object_lock_configuration", lock)):
            if isinstance(answer, tuple):
                stub.add_client_error(call, answer[0], http_status_code=answer[1])
            else:
                stub.add_response(call, answer, {"Bucket": "bucket"})
        found = {check.name: check for check in bucket(store)}
        stub.assert_no_pending_responses()
    return found


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_server_says_of_deleted_objects(store: S3Store, name: str) -> None:
    versioning, lock, *expected = ANSWERS[name]
    found = checks(store, versioning, lock)
    for check, (status, words) in zip((found["store.versioning"], found["store.object_lock"]), expected, strict=True):
        assert check.status == status
        assert check.observed.startswith(words)
        assert bool(check.next_step) == (status == "warning")


def test_the_right_that_is_missing_is_named(store: S3Store) -> None:
    found = checks(store, DENIED, DENIED)
    assert found["store.versioning"].observed.endswith("s3:GetBucketVersioning")
    assert found["store.object_lock"].observed.endswith("s3:GetBucketObjectLockConfiguration")
