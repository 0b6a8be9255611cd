"""A listing that comes in pages of two: nothing of a model is lost between them."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from deepfm import layout, retention
from deepfm.promotion import Operator
from deepfm.registry import Registry
from deepfm.retention import Retention
from deepfm.storage.s3 import S3Store
from tests.factories import MODEL
from tests.small_versions import judge, publish, version_of_day

VERSIONS = [version_of_day(day) for day in range(50)]
PROMOTED, KEPT = 7, 3
DAY_NS = 86_400 * 10**9


@pytest.fixture
def pages(fresh_bucket: Callable[[], str]) -> tuple[S3Store, list[int]]:
    """A bucket whose server gives two objects at a time, and the number of pages that it gave so far."""
    store, given = S3Store(fresh_bucket()), [0]

    def two(params: dict[str, Any], **_: object) -> None:
        params["MaxKeys"] = 2
        given[0] += 1

    # The stubs do not know that a handler may change what is asked for.
    store._clients.patient.meta.events.register("before-parameter-build.s3.ListObjectsV2", cast("Any", two))
    return store, given


def test_no_version_entry_or_removal_is_lost_between_pages(
    pages: tuple[S3Store, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, given = pages
    publish(store, *VERSIONS)
    operator = Operator(store, MODEL, actor="ann", reason="test")
    for version in VERSIONS[:PROMOTED]:
        judge(store, version, "promote")
        operator.promote(version)
    registry = Registry(store, MODEL)
    assert registry.versions() == VERSIONS
    assert [entry.version for entry in registry.entries()] == VERSIONS[:PROMOTED]
    clock = retention._clock_ns(store)
    monkeypatch.setattr(retention, "_clock_ns", lambda _: clock + 91 * DAY_NS)
    removed = Retention(store, MODEL, keep=KEPT).prune(actor="ann", reason="make room")
    stay = VERSIONS[PROMOTED - KEPT : PROMOTED]
    assert [removal.version for removal in removed] == [version for version in VERSIONS if version not in stay]
    assert {removal.files for removal in removed} == {2}
    assert registry.versions() == stay
    assert len(store.list(layout.versions_prefix(MODEL))) == 2 * KEPT
    assert given[0] > 100, "the pages were long: the test shows nothing"
