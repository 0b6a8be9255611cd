"""A range of dates by one command: oldest first, every day prepared once, one row a date whatever happened to it."""

import datetime as dt
import json
from pathlib import Path

import pytest

from deepfm.backfilling import MOST_DAYS, Remembering, backfill, dates_between
from deepfm.errors import StoreUnavailableError, UsageError
from deepfm.retraining import Direct, retrain
from tests.command_line import deepfm, one_line
from tests.places import WORLD
from tests.tiny_days import HOLDOUT
from tests.tiny_toml import write_toml

EARLIER = HOLDOUT - dt.timedelta(days=1)
LATER = HOLDOUT + dt.timedelta(days=1)


@pytest.fixture
def toml(here) -> Path:
    return write_toml(here.folder, source=here.source, store=here.store)


class Counting(Direct):
    """Plain calls, each remembered by name and date."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def each(self, stage, workspace, items):
        self.seen += [(stage.__name__, str(getattr(item, "logical_date", item))) for item in items]
        return super().each(stage, workspace, items)


def test_a_range_runs_oldest_first_and_asks_about_each_day_once(here):
    counting = Counting()
    rows = list(backfill(here.workspace(), [HOLDOUT, EARLIER], runner=counting))
    assert [row.date for row in rows] == [EARLIER, HOLDOUT]
    assert all(row.status in {"promoted", "not_promoted"} for row in rows)
    assert len(counting.seen) == len(set(counting.seen))


def test_a_second_backfill_says_the_same_and_trains_nothing(here):
    workspace = here.workspace()
    first = list(backfill(workspace, [EARLIER, HOLDOUT]))
    stored = workspace.store.list("")
    assert list(backfill(workspace, [EARLIER, HOLDOUT])) == first
    assert workspace.store.list("") == stored


def test_a_day_that_is_not_there_or_refused_gets_its_row_and_stops_nobody(here):
    file = Path(here.source) / f"dt={EARLIER}" / "part-0.parquet"
    file.write_bytes(file.read_bytes()[:200])
    rows = list(backfill(here.workspace(), [WORLD[0], EARLIER, HOLDOUT, LATER]))
    assert [row.status for row in rows] == ["data_rejected", "data_rejected", "promoted", "not_delivered"]
    assert "window" in rows[0].reasons[0]
    assert "part-0.parquet" in rows[1].reasons[0]
    assert str(LATER) in rows[3].reasons[0]


def test_a_store_that_does_not_answer_ends_it(here, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise StoreUnavailableError("no answer")

    monkeypatch.setattr("deepfm.backfilling.retrain", fails)
    with pytest.raises(StoreUnavailableError):
        list(backfill(here.workspace(), [HOLDOUT]))


def test_ranges_that_cannot_be_meant_are_refused():
    assert dates_between(EARLIER, HOLDOUT) == [EARLIER, HOLDOUT]
    with pytest.raises(UsageError, match="--start is after --end"):
        dates_between(HOLDOUT, EARLIER)
    with pytest.raises(UsageError, match="too long"):
        dates_between(HOLDOUT, HOLDOUT + dt.timedelta(days=MOST_DAYS))


def test_what_is_remembered_is_told_apart_by_stage_and_day(here):
    def one(_: object, item: dt.date) -> str:
        return f"one {item}"

    def two(_: object, item: dt.date) -> str:
        return f"two {item}"

    remembering = Remembering(Direct())
    for _ in range(2):
        assert remembering.each(one, here.workspace(), [EARLIER, HOLDOUT]) == [f"one {EARLIER}", f"one {HOLDOUT}"]
        assert remembering.each(two, here.workspace(), [HOLDOUT]) == [f"two {HOLDOUT}"]


def test_the_command_prints_a_row_a_date_and_a_summary(monkeypatch, capsys, toml):
    arguments = ("backfill", "--config", str(toml), "--start", str(EARLIER), "--end", str(LATER))
    code, out, err = deepfm(monkeypatch, capsys, *arguments)
    assert code == 0
    assert [line[:10] for line in out.splitlines() if not line.startswith(" ")] == [
        str(EARLIER), str(HOLDOUT), str(LATER),
    ]  # fmt: skip
    assert "3 dates:" in err
    assert "1 not delivered" in err
    code, out, err = deepfm(monkeypatch, capsys, *arguments, "--json")
    rows = json.loads(out)
    assert (code, [row["date"] for row in rows]) == (0, [str(EARLIER), str(HOLDOUT), str(LATER)])
    assert set(rows[0]) == {"date", "status", "verdict", "version", "challenger_auc", "champion_auc", "reasons"}


@pytest.mark.parametrize(("start", "end", "code"), [(LATER, LATER, 75), (WORLD[0], WORLD[0], 3)])
def test_a_range_of_which_nothing_could_be_trained_says_so_by_its_exit_code(
    monkeypatch, capsys, toml, start, end, code
):
    arguments = ("backfill", "--config", str(toml), "--start", str(start), "--end", str(end), "--json")
    found, out, _ = deepfm(monkeypatch, capsys, *arguments)
    assert (found, len(json.loads(out))) == (code, 1)


def test_what_was_done_before_an_error_is_printed(monkeypatch, capsys, toml):
    def fails_later(workspace, date, **more):
        if date == HOLDOUT:
            raise StoreUnavailableError("no answer")
        return retrain(workspace, date, **more)

    monkeypatch.setattr("deepfm.backfilling.retrain", fails_later)
    arguments = ("backfill", "--config", str(toml), "--start", str(EARLIER), "--end", str(LATER), "--json")
    code, out, err = deepfm(monkeypatch, capsys, *arguments)
    assert (code, [row["status"] for row in json.loads(out)]) == (75, ["promoted", "failed"])
    assert "no answer" in err


def test_a_reversed_range_is_one_line(monkeypatch, capsys, toml):
    arguments = ("backfill", "--config", str(toml), "--start", str(HOLDOUT), "--end", str(EARLIER))
    code, out, err = deepfm(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Swap them" in one_line(err)


def test_two_days_that_were_delivered_with_the_same_bytes_stay_two_days(here):
    """Without event times nothing tells them apart but their dates."""
    folder = Path(here.source)
    (folder / f"dt={WORLD[1]}" / "part-0.parquet").write_bytes(
        (folder / f"dt={WORLD[2]}" / "part-0.parquet").read_bytes()
    )
    workspace = here.workspace({"data.event_time": None})
    assert [row.status for row in backfill(workspace, [EARLIER, HOLDOUT])] == ["promoted", "promoted"]
    for version in workspace.registry.versions():
        days = [day.logical_date for day in workspace.registry.manifest(version)[0].window.days]
        assert len(days) == len(set(days)) == 3


def test_a_configuration_that_cannot_be_read_is_a_row_too(monkeypatch, capsys):
    code, out, err = deepfm(
        monkeypatch,
        capsys,
        "backfill",
        "--config",
        "nowhere.toml",
        "--start",
        "2026-03-04",
        "--end",
        "2026-03-04",
        "--json",
    )
    assert (code, [row["status"] for row in json.loads(out)]) == (78, ["failed"])
    assert "nowhere.toml" in one_line(err)
