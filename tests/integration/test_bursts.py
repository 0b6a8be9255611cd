"""Servers that are busy for a number of requests: short bursts are waited out, long ones are an error that can pass."""

from collections.abc import Callable
from itertools import product

import pytest
from botocore.retries.quota import RetryQuota
from botocore.retries.standard import ExponentialBackoff

from deepfm.errors import StoreUnavailableError
from deepfm.storage import s3
from deepfm.storage.s3 import S3Store
from tests.fault_wire import plan

WAITED_OUT = 5
"""Answers in a row at which a call gives up."""


@pytest.fixture
def store(fresh_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A bucket with one object; nobody waits between two tries, and earlier bursts have used up no retries."""
    monkeypatch.setattr(RetryQuota, "acquire", lambda *_: True)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    monkeypatch.setattr(s3, "_CREATE_PAUSES_SECONDS", (0.0,) * 4)
    store = S3Store(fresh_bucket())
    store.write("a/there", b"there")
    return store


@pytest.mark.parametrize("fault", ["500", "502", "503"])
def test_a_burst_is_waited_out_or_is_an_error_that_can_pass(store: S3Store, fault: str) -> None:
    faults = plan(store)
    calls: dict[str, tuple[Callable[[str], object], object]] = {
        "read": (lambda _: store.read("a/there"), b"there"),
        "write": (lambda _: store.write("a/there", b"there"), None),
        "list": (lambda _: [found.key for found in store.list("a")], ["a/there"]),
        "create": (lambda key: store.create(key, b"ours"), None),
        "delete": (lambda _: store.delete("a/absent"), None),
    }
    for count, (name, (call, expected)) in product(range(9), calls.items()):
        faults[:] = [fault] * count
        # A create asks in between whether it has succeeded, and so outlasts one answer more.
        if count < WAITED_OUT + (name == "create"):
            assert call(f"b/{count}") == expected
        else:
            with pytest.raises(StoreUnavailableError):
                call(f"b/{count}")
        faults.clear()
        assert store.read("a/there") == b"there"
