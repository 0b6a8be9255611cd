"""The calendar of days: what was done, what came of it, and what a run today would change."""

import datetime as dt
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deepfm import layout, stage_keys
from deepfm.calendar.rows import CalendarDay, calendar_of
from deepfm.config import RetrainConfig
from deepfm.documents import sha256_hex, stage_key
from deepfm.errors import ConfigError, IntegrityError, UsageError
from deepfm.manifests import Finding, Gap, Partition, RawFile, ValidationReport, WindowDay
from deepfm.storage import LocalCache, open_store
from deepfm.storage.digests import KnownDigests
from deepfm.workspace import Workspace
from tests.factories import decision, entry, manifest
from tests.tiny_days import tiny_config

D = dt.date(2026, 3, 4)
WINDOW = [D - dt.timedelta(days=back) for back in (3, 2, 1)]
EMPTY_RULE = Finding(rule="rows", column="*", severity="critical", passed=False, observed="3", required="at least 10")


class Counting:
    """A store that counts its calls."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        if name != "url":
            self.calls[name] += 1
        return getattr(self._store, name)


class World:
    """A store and a source whose documents are made by hand, under the keys that the stages use."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.config = tiny_config({"data.source": str(folder / "clicks"), **changes})
        self.store, self.source = open_store(str(folder / "store")), open_store(str(folder / "clicks"))

    def workspace(self, config: RetrainConfig | None = None, *, store: Any = None, source: Any = None) -> Workspace:
        cache = LocalCache(self.folder / "cache", 2**20)
        return Workspace(config or self.config, store=store or self.store, source=source or self.source, cache=cache)

    def deliver(self, date: dt.date, data: bytes = b"clicks") -> None:
        self.source.write(f"dt={date}/part-0.parquet", data)

    def withdraw(self, date: dt.date) -> None:
        self.source.delete(f"dt={date}/part-0.parquet")

    def judge(self, date: dt.date, *, accepted: bool = True) -> ValidationReport:
        """What is delivered now, judged and, if accepted, prepared."""
        key = f"dt={date}/part-0.parquet"
        data = self.source.read(key)
        file = RawFile(key=key, sha256=sha256_hex(data), size_bytes=len(data))
        partition = Partition(logical_date=date, files=(file,), fingerprint=stage_key(file))
        report = ValidationReport(
            model="tiny",
            logical_date=date,
            key=stage_keys.validate_key(self.config, partition),
            partition=partition,
            accepted=accepted,
            rows=100,
            quarantined_rows=0,
            valid_rows=100,
            clicks=10,
            findings=() if accepted else (EMPTY_RULE,),
            files={},
        )
        prefix = layout.validated_prefix("tiny", date, report.key)
        self.store.write(layout.file_key(prefix, layout.VALIDATION_FILE), report.to_bytes())
        if accepted:
            key = stage_keys.prepare_key(self.config, report.key)
            self.store.write(layout.file_key(layout.prepared_prefix("tiny", date, key), layout.MANIFEST), b"{}")
        return report

    def train(self, date: dt.date) -> str:
        """The version of a date whose window's days are judged as they are now."""
        days, gaps = [], []
        for back in (3, 2, 1):
            day = date - dt.timedelta(days=back)
            if not self.source.list(f"dt={day}"):
                gaps.append(Gap(logical_date=day, reason="missing"))
                continue
            report = self.judge(day)
            key = stage_keys.prepare_key(self.config, report.key)
            days.append(WindowDay(logical_date=day, key=key, sampled_rows=10, clicks=5, keep_rate=1.0))
        key = stage_keys.window_key(self.config, date, [day.key for day in days], gaps)
        version = stage_keys.version_id(self.config, date, key)
        base = manifest(model="tiny")
        window = base.window.model_copy(
            update={"logical_date": date, "key": key, "days": tuple(days), "gaps": tuple(gaps)}
        )
        made = base.model_copy(update={"version": version, "logical_date": date, "window": window})
        self.store.write(layout.version_manifest("tiny", version), made.to_bytes())
        return version

    def decide(self, version: str, report: ValidationReport, *, verdict: str = "promote", against: int = 0) -> None:
        made = decision(compared_entry=against, gate_key=stage_keys.gate_key(self.config, report.key))
        changes = {"model": "tiny", "version": version, "logical_date": report.logical_date, "verdict": verdict}
        self.workspace().registry.record(made.model_copy(update=changes))

    def log(self, sequence: int, version: str, *, operation: str = "promote", held: bool = False) -> None:
        changes = {"version": version, "operation": operation, "held": held}
        self.workspace().registry.append(entry(sequence, model="tiny").model_copy(update=changes))

    def row(self, date: dt.date = D, config: RetrainConfig | None = None, **workspace: Any) -> CalendarDay:
        (row,) = calendar_of(self.workspace(config, **workspace), start=date, end=date).days
        return row

    def changed(self, **changes: Any) -> RetrainConfig:
        return tiny_config({"data.source": self.config.data.source, **changes})


@pytest.fixture
def world(tmp_path) -> World:
    """A window and a holdout, delivered."""
    made = World(tmp_path)
    for date in (*WINDOW, D):
        made.deliver(date)
    return made


@pytest.fixture
def promoted(world) -> World:
    """The same, trained, decided and promoted."""
    version = world.train(D)
    world.decide(version, world.judge(D))
    world.log(1, version)
    return world


def test_nothing_at_all_is_an_empty_calendar(tmp_path):
    calendar = calendar_of(World(tmp_path).workspace())
    assert calendar.days == ()
    assert "dt={date}" in calendar.source_problem


def test_delivered_days_are_rows_and_those_with_a_window_could_be_trained(world):
    days = calendar_of(world.workspace()).days
    assert [(row.date, row.delivered) for row in days] == [(date, True) for date in (*WINDOW, D)]
    # The window may miss half of its three days at most.
    assert [row.date for row in days if row.trainable] == [D - dt.timedelta(days=1), D]
    small = "window too small: {} of the 3 days before it can be used, required 2"
    assert [row.reasons for row in days] == [(small.format(0),), (small.format(1),), (), ()]
    assert {(row.valid, row.trained, row.stale) for row in days} == {(None, False, False)}


def test_the_calendar_is_thirty_days_unless_a_range_is_asked_for(world):
    world.deliver(D + dt.timedelta(days=40))
    days = calendar_of(world.workspace()).days
    assert (len(days), days[-1].date) == (30, D + dt.timedelta(days=40))
    first = D - dt.timedelta(days=9)
    assert calendar_of(world.workspace(), start=first, end=D).days[0].date == first
    assert [row.date for row in calendar_of(world.workspace(), end=WINDOW[0] - dt.timedelta(days=1)).days] == [
        WINDOW[0] - dt.timedelta(days=1)
    ]


def test_a_day_after_the_newest_is_shown_if_asked_for(world):
    assert [row.delivered for row in calendar_of(world.workspace(), start=D + dt.timedelta(days=5)).days] == [False]


def test_a_promoted_day_tells_everything(promoted):
    row = promoted.row()
    assert (row.delivered, row.valid, row.prepared, row.trained) == (True, True, True, True)
    assert (row.verdict, row.challenger_auc, row.champion_auc, row.champion) == ("promote", 0.7, None, True)
    assert (row.stale, row.reasons, row.trainable) == (False, (), False)


def test_a_refused_day_names_the_rules_that_it_breaks(world):
    world.judge(D, accepted=False)
    row = world.row()
    assert (row.valid, row.prepared, row.trainable) == (False, False, False)
    assert row.reasons == ("rows of the day: 3, required at least 10",)


def test_a_refused_day_that_is_delivered_again_could_be_trained(world):
    world.judge(D, accepted=False)
    world.deliver(D, b"other clicks")
    row = world.row()
    assert (row.valid, row.trainable, row.reasons) == (None, True, (f"{D} was delivered again",))


def test_a_window_day_of_another_size_makes_the_version_stale(promoted):
    promoted.deliver(WINDOW[1], b"other clicks")
    row = promoted.row()
    assert (row.stale, row.trainable, row.reasons) == (True, True, (f"{WINDOW[1]} was delivered again",))
    promoted.judge(WINDOW[1])
    assert promoted.row().reasons == (f"{WINDOW[1]} was delivered again",)


def test_a_day_that_arrived_since_makes_the_version_stale(world):
    world.withdraw(WINDOW[0])
    world.train(D)
    assert world.row().stale is False
    world.deliver(WINDOW[0])
    assert (world.row().stale, world.row().reasons[0]) == (True, f"{WINDOW[0]} arrived since")


def test_a_window_day_that_is_gone_makes_the_version_stale(promoted):
    promoted.withdraw(WINDOW[0])
    assert promoted.row().reasons == (f"{WINDOW[0]} is no longer delivered",)


def test_a_window_day_that_is_refused_by_now_is_told(promoted):
    promoted.deliver(WINDOW[2], b"bad")
    promoted.judge(WINDOW[2], accepted=False)
    assert promoted.row().reasons == (f"{WINDOW[2]} was delivered again",)


@pytest.mark.parametrize(
    "changes",
    [
        {"training.epochs": 3},
        {"network.hidden": [9]},
        {"sampling.keep_rate": 0.5},
        {"validation.min_rows": 11},
        {"window.window_days": 2},
        {"window.window_days": 5},
        {"vocabulary.min_count": 3},
    ],
)
def test_a_key_that_a_version_depends_on_makes_it_stale(promoted, changes):
    row = promoted.row(config=promoted.changed(**changes))
    assert (row.stale, row.reasons) == (True, ("configuration changed",))


@pytest.mark.parametrize("changes", [{"training.device": "auto"}, {"gate.min_auc": 0.6}, {"lag_days": 2}])
def test_a_key_that_a_promoted_version_does_not_depend_on_changes_nothing(promoted, changes):
    assert promoted.row(config=promoted.changed(**changes)).stale is False


def test_a_lost_gate_is_stale_once_the_gate_is_another(world):
    world.decide(world.train(D), world.judge(D), verdict="reject")
    assert (world.row().stale, world.row().verdict, world.row().reasons) == (False, "reject", ("first run",))
    row = world.row(config=world.changed(**{"gate.min_auc": 0.6}))
    assert (row.stale, row.reasons) == (True, ("configuration changed", "first run"))


def test_a_holdout_that_is_delivered_again_makes_a_lost_gate_stale(world):
    world.decide(world.train(D), world.judge(D), verdict="reject")
    world.deliver(D, b"other clicks")
    assert world.row().reasons[0] == f"{D} was delivered again"
    world.judge(D)
    assert (world.row().stale, world.row().reasons[0]) == (True, f"{D} was delivered again")


def test_a_holdout_that_is_delivered_again_is_told_of_a_promoted_version_until_it_was_judged(promoted):
    promoted.deliver(D, b"other clicks")
    assert (promoted.row().stale, promoted.row().reasons) == (True, (f"{D} was delivered again",))
    promoted.judge(D)
    assert promoted.row().stale is False


def test_files_of_one_name_and_size_stand_for_any_judgement_of_them(promoted):
    promoted.deliver(WINDOW[0], b"CLICKS")
    promoted.judge(WINDOW[0])
    assert promoted.row().stale is False


def test_a_version_whose_days_are_no_longer_stored_cannot_be_compared(promoted):
    for info in promoted.store.list(layout.days_prefix("tiny")):
        promoted.store.delete(info.key)
    assert (promoted.row().stale, promoted.row().valid) == (None, None)


def test_of_several_versions_the_one_that_a_run_would_make_is_shown(promoted):
    first = promoted.row().version
    promoted.deliver(WINDOW[0], b"other clicks")
    assert promoted.row().version == first
    second = promoted.train(D)
    assert second != first
    assert (promoted.row().version, promoted.row().stale, promoted.row().champion) == (second, False, False)
    assert promoted.row().reasons == ("not decided: a run goes on from here",)


def test_the_log_tells_who_was_champion_and_who_was_rolled_back(promoted):
    first = promoted.row().version
    later = D + dt.timedelta(days=1)
    promoted.deliver(later)
    second = promoted.train(later)
    promoted.decide(second, promoted.judge(later), against=1)
    promoted.log(2, second)
    assert (promoted.row().champion, promoted.row().reasons) == (False, ("champion until log entry 2",))
    promoted.log(3, str(first), operation="rollback", held=True)
    assert promoted.row().champion
    assert promoted.row(later).reasons == ("rolled back by log entry 3",)
    assert calendar_of(promoted.workspace()).held


def test_what_a_rollback_took_away_is_read_from_the_whole_log(tmp_path):
    world = World(tmp_path)
    dates = [D + dt.timedelta(days=n) for n in range(3)]
    for date in (*WINDOW, *dates):
        world.deliver(date)
    versions = [world.train(date) for date in dates]
    for n, (date, version) in enumerate(zip(dates, versions, strict=True)):
        world.decide(version, world.judge(date), against=n)
        world.log(n + 1, version)
    world.log(4, versions[0], operation="rollback")
    # The entry of the version that was gone back to is older than anything of this range.
    for date in dates[1:]:
        assert world.row(date).reasons == ("rolled back by log entry 4",)


def test_a_source_that_cannot_be_listed_leaves_the_rest(promoted):
    class Gone:
        url = "s3://gone"

        def list(self, _: str) -> None:
            raise ConfigError("bucket does not exist")

    calendar = calendar_of(promoted.workspace(source=Gone()))
    row = calendar.days[-1]
    assert calendar.source_problem == "bucket does not exist"
    assert (row.delivered, row.valid, row.prepared, row.trained, row.champion) == (None, True, True, True, True)
    assert (row.stale, row.trainable) == (None, False)
    changed = promoted.row(config=promoted.changed(**{"training.epochs": 3}), source=Gone())
    assert (changed.stale, changed.reasons) == (True, ("configuration changed",))


def test_an_empty_source_is_no_proof_that_days_were_withdrawn(promoted):
    for date in (*WINDOW, D):
        promoted.withdraw(date)
    assert (promoted.row().delivered, promoted.row().stale) == (None, None)


def test_a_damaged_document_is_named(promoted):
    (key,) = (i.key for i in promoted.store.list(layout.day_prefix("tiny", D)) if i.key.endswith("validation.json"))
    promoted.store.write(key, b"{")
    with pytest.raises(IntegrityError, match=r"validation\.json"):
        promoted.row()


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (D, D - dt.timedelta(days=1), "--start is after --end"),
        (D - dt.timedelta(days=3660), D, "too long"),
        (D - dt.timedelta(days=3660), None, "too long"),
        (dt.date(1, 1, 1), dt.date(1, 1, 2), "begins before"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused(world, start, end, words):
    with pytest.raises(UsageError, match=words):
        calendar_of(world.workspace(), start=start, end=end)


def test_what_is_read_grows_with_the_range_and_not_with_the_history(tmp_path):
    world = World(tmp_path)
    dates = [D - dt.timedelta(days=back) for back in range(15, -1, -1)]
    for n, date in enumerate(dates):
        world.deliver(date)
        version = world.train(date)
        world.decide(version, world.judge(date), against=n)
        world.log(n + 1, version)
    store, source = Counting(world.store), Counting(world.source)
    days = calendar_of(world.workspace(store=store, source=source), start=dates[-5]).days
    assert sum(row.trained for row in days) == 5
    assert source.calls == {"list": 1}
    # 8 judgements, 5 decisions, 5 log entries and no manifest, for no version of the range is stale.
    assert store.calls == {"list": 2, "read": 18}


def test_other_bytes_of_one_size_are_noticed_where_this_machine_has_read_them(promoted):
    promoted.deliver(WINDOW[0], b"CLICKS")
    (info,) = promoted.source.list(f"dt={WINDOW[0]}")
    # As if it had been hashed some time after its delivery.
    digests = KnownDigests(promoted.folder / "cache" / "digests")
    later = time.time_ns() + 10**10
    digests.remember(promoted.source.url, info, sha256=sha256_hex(b"CLICKS"), began_ns=later)
    assert promoted.row().reasons == (f"{WINDOW[0]} was delivered again",)
