"""The flow `backfill` on a real, temporary Prefect server: plan, calendar, each day once, and what comes of dates."""

import asyncio
import datetime as dt
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Self, cast

import pyarrow as pa
import pytest

from deepfm.errors import UsageError
from tests.places import WORLD
from tests.tiny_days import HOLDOUT, click_day, with_column
from tests.tiny_toml import write_toml

GOLDEN = Path(__file__).parents[1] / "golden" / "flows" / "backfill.json"
pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def asked(here) -> dict[str, Any]:
    """A request for every date of the tiny days."""
    config = write_toml(here.folder, source=here.source, store=here.store)
    return {"start": WORLD[0], "end": HOLDOUT, "config": str(config)}


def run(**asked: Any) -> Any:
    """The last state of a backfill."""
    from flows.backfill import backfill

    return backfill(**asked, return_state=True)


def page() -> str:
    from prefect.artifacts import Artifact

    found = asyncio.run(Artifact.aget("tiny-backfill"))
    assert found is not None
    return str(found.data)


def test_a_plan_touches_nothing_and_shows_a_calendar(asked, here):
    state = run(**asked, dry_run=True, note="only looking")
    assert (state.name, state.is_completed()) == ("Planned", True)
    text = page()
    for part in (
        "| Week | Mon | Tue |",
        "only looking",
        "3 dates would be retrained",
        "to be retrained: 3",
        "○ to be retrained, now delivered |",
        "window too small: 2",
    ):
        assert part in text
    assert not Path(here.folder / "store").exists()


def test_each_day_is_judged_and_prepared_once_and_the_dates_are_runs_of_their_own(asked, here, monkeypatch):
    from prefect.client.orchestration import get_client

    from deepfm.data import judging, preparing

    counts: Counter[str] = Counter()
    for module, name in ((judging, "judge_partition"), (preparing, "prepare_rows")):
        real = getattr(module, name)

        def counted(*args: Any, _real: Any = real, _name: str = name, **kwargs: Any) -> Any:
            counts[_name] += 1
            return _real(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)
    state = run(**asked, promote="if newer than the champion")
    assert state.is_completed(), state.message
    outcomes = state.result()
    assert [outcome.date for outcome in outcomes] == WORLD[2:]
    assert counts == {"judge_partition": 5, "prepare_rows": 4}
    promoted = sum(outcome.status == "promoted" for outcome in outcomes)
    assert len(here.workspace().registry.entries()) == promoted > 0
    text = page()
    assert "Done:" in text
    assert f"{outcomes[-1].challenger_auc:.4f}" in text
    with get_client(sync_client=True) as client:
        names = {found.name: found for found in client.read_flow_runs()}
    for date in WORLD[2:]:
        assert {"model:tiny", f"day:{date}"} <= set(names[f"retrain tiny {date}"].tags)
    assert f"backfill tiny {WORLD[0]} to {HOLDOUT}" in names
    again = run(**asked)
    assert again.name == "Nothing to do"


@pytest.mark.parametrize(
    ("trained", "rest"),
    [
        ("", ""),  # it got nowhere: the dates say why
        ("a", "bcd"),
        ("bc", "d"),  # what was left out has failed
        ("abcd", ""),
        ("d", ""),
    ],
)
def test_a_training_run_that_gave_the_device_back_is_followed_by_another(monkeypatch, trained, rest):
    from flows import backfill as module

    monkeypatch.setattr(module, "is_trained", lambda _, version: version in trained)
    assert module._rest(cast("Any", None), list("abcd")) == list(rest)


def test_nothing_is_promoted_unless_it_is_asked_for(asked, here):
    state = run(**asked)
    assert state.is_completed()
    assert here.workspace().registry.entries() == []
    assert all("No promotion was asked for" in outcome.reasons[0] for outcome in state.result()[:1])


def test_a_refused_day_fails_the_backfill_by_name_and_the_other_dates_are_done(asked, here):
    day = click_day(WORLD[3])
    here.deliver(WORLD[3], with_column(day, "click", pa.array([0] * day.num_rows, pa.int64())))
    state = run(**asked)
    assert state.is_failed()
    assert f"1 of 3 dates could not be retrained; {WORLD[3]}" in state.message
    assert "both_classes" in state.message
    assert "! refused" in page()
    assert run(**asked).name == "Nothing to do"  # what was refused is not missing
    assert run(**asked, which="missing and failed").is_failed()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": HOLDOUT, "end": WORLD[0]}, "is after"),
        ({"end": dt.date(2999, 1, 1), "start": dt.date(2998, 12, 30)}, "not over"),
        ({"start": dt.datetime.now(dt.UTC).date(), "end": dt.datetime.now(dt.UTC).date()}, "not over"),
        ({"start": dt.date(2020, 1, 1), "end": dt.date(2021, 1, 1)}, "at most 366"),
        ({"start": dt.date(2025, 1, 1), "end": dt.date(2025, 2, 1)}, "Tick large"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused_in_one_line(asked, here, changes, words):
    state = run(**(asked | changes))
    assert state.is_failed()
    with pytest.raises(UsageError, match=words):
        state.result()
    assert not Path(here.folder / "store").exists()


def test_a_leap_day_and_one_day_are_ranges(asked):
    day = dt.date(2024, 2, 29)
    assert run(**(asked | {"start": day, "end": day})).name == "Nothing to do"
    whole = {"start": dt.date(2024, 1, 1), "end": dt.date(2024, 12, 31), "large": True, "dry_run": True}
    assert run(**(asked | whole)).is_completed()


def test_what_was_kept_from_promotion_is_not_promoted_by_the_daily_search(asked, here, monkeypatch):
    from flows import backfill as module

    assert run(**asked).is_completed()
    monkeypatch.setattr(module, "resolve_logical_date", lambda *_: HOLDOUT)
    found = run(**asked, last_days=5, promote="if newer than the champion")
    assert found.name == "Nothing to do"
    assert here.workspace().registry.entries() == []
    assert run(**asked, promote="if newer than the champion").is_completed()  # a person may
    assert here.workspace().registry.entries() != []


def test_a_training_that_nobody_starts_ends_the_backfill_and_is_asked_for_once(asked, monkeypatch):
    from deepfm.errors import ConfigError
    from flows import tasks

    asks: list[Any] = []

    def nobody(*_: Any, **given: Any) -> None:
        asks.append(given["versions"])
        raise ConfigError("no worker has started it")

    monkeypatch.setattr(tasks, "train_on", nobody)
    state = run(**asked, train_on="train/gpu", max_parallel=1)
    with pytest.raises(ConfigError, match="no worker"):
        state.result()
    assert [len(versions) for versions in asks] == [3]
    assert "Ended before it was done" in page()


def test_a_schedule_asks_for_the_last_days_up_to_the_one_that_is_due(asked):
    due = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    run(**(asked | {"start": dt.date(2000, 1, 1), "end": dt.date(2000, 1, 1)}), last_days=7, dry_run=True)
    assert f"Backfill of tiny, {due - dt.timedelta(days=6)} to {due}" in page()


def test_the_form_of_the_flow_is_pinned():
    from flows.backfill import backfill

    schema = json.dumps(backfill.parameters.model_dump(), indent=2, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(schema)
    assert GOLDEN.read_text() == schema
    fields = backfill.parameters.model_dump()["properties"]
    assert all(field["description"] for field in fields.values())
    assert fields["start"]["format"] == "date"


def test_a_scheduled_search_that_is_a_day_late_leaves_it_to_a_newer_one(asked, monkeypatch):
    from flows import backfill as module

    monkeypatch.setattr(module, "lateness", lambda: dt.timedelta(hours=25))
    assert run(**asked, last_days=7).name == "Skipped"
    assert run(**asked, dry_run=True).name == "Planned"


def test_a_page_that_cannot_be_written_costs_no_work(asked, monkeypatch):
    import httpx
    from prefect.client.orchestration import get_client

    from flows import artifacts, calendar

    def away(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("gone")

    monkeypatch.setattr(artifacts, "create_markdown_artifact", away)

    class Away:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def read_artifacts(self, **given: Any) -> Any:
            with get_client(sync_client=True) as client:
                return client.read_artifacts(**given)

        def update_artifact(self, *_: object) -> None:
            away()

    monkeypatch.setattr(calendar, "get_client", lambda **_: Away())
    state = run(**asked)
    assert state.is_completed(), state.message
    assert len(state.result()) == 3


def test_a_backfill_that_breaks_says_so_on_its_page(asked, monkeypatch):
    from deepfm.errors import ConfigError
    from flows import backfill as module

    def breaks(*_: Any) -> None:
        raise ConfigError("no such bucket")

    monkeypatch.setattr(module, "_prepare", breaks)
    assert run(**asked).is_failed()
    assert "Ended before it was done" in page()
