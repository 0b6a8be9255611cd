"""One row a day: what was done, what came of it, and what a run today would change."""

import datetime as dt
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from deepfm import layout, stage_keys
from deepfm.calendar.records import DayRecords, Listing, Progress, list_all, read_days, read_log, side_by_side
from deepfm.calendar.staleness import Changes, expected_version, holdout_changes, window_changes
from deepfm.data.window import calendar_days, fewest_days
from deepfm.documents import Part
from deepfm.errors import UsageError
from deepfm.manifests import Decision, Finite, LogEntry, Verdict, VersionManifest
from deepfm.succession import succession
from deepfm.workspace import Workspace

DEFAULT_DAYS = 30
MOST_DAYS = 3660
_SOURCE_UNKNOWN = Changes((), known=False)


class CalendarDay(Part):
    """One day of the calendar; null means that it is not known, or not there yet."""

    date: dt.date
    """The day."""
    delivered: bool | None
    """Whether the source has files of it; null if the source could not be asked."""
    valid: bool | None
    """Whether what was delivered is fit for use; null until it was judged under today's configuration."""
    prepared: bool
    """Whether it is sampled and encoded for today's configuration."""
    trained: bool
    """Whether there is a version of this logical date."""
    verdict: Verdict | None = None
    """The gate's newest on the version."""
    version: str | None = None
    """The version; of several the one that a run today would make, else the champion, else the one decided last."""
    challenger_auc: Finite | None = None
    """Its AUC on the day."""
    champion_auc: Finite | None = None
    """The champion's on the same rows."""
    champion: bool = False
    """Whether it is the champion now."""
    stale: bool | None = False
    """Whether a run today would make or decide something else; null if that cannot be told."""
    reasons: tuple[str, ...] = ()
    """Why it is stale, why the day was refused, why the version was not promoted, what became of it."""
    standing: Annotated[Literal["", "champion", "was", "rolled_back"], Field(exclude=True)] = ""
    """What the version is to the promotion log."""
    trainable: Annotated[bool, Field(exclude=True)] = False
    """Whether a run today could make a version that is not there yet, as far as can be seen."""


class Calendar(NamedTuple):
    """A range of days."""

    days: tuple[CalendarDay, ...]
    """Oldest first, without gaps; none if no day has data or a result."""
    source_problem: str
    """Why it is not known what was delivered; empty if it is."""
    held: bool
    """Whether automatic promotions are on hold."""


def calendar_of(
    workspace: Workspace,
    *,
    start: dt.date | None = None,
    end: dt.date | None = None,
    progress: Progress | None = None,
) -> Calendar:
    """The calendar of a range, by default the last 30 days up to the newest one that has data or a result.

    Args:
        workspace: Where to look; nothing is written.
        start: First day.
        end: Last day.
        progress: Called with documents read and to be read.

    Raises:
        UsageError: terminal; the range is reversed or longer than ten years.
        IntegrityError: terminal; a stored document is damaged.
        StoreUnavailableError: transient.
    """
    _check_range(start, end)
    listing = list_all(workspace)
    dates = _dates(start, end, listing)
    if not dates:
        return Calendar((), listing.source_problem, held=_held(read_log(workspace, listing, ())))
    back = workspace.config.window.window_days
    if dates[0].toordinal() <= back:
        raise UsageError("range begins before the calendar does", observed=dates[0])
    needed = (dt.date.fromordinal(n) for n in range(dates[0].toordinal() - back, dates[-1].toordinal() + 1))
    days = read_days(workspace, listing, needed, progress=progress)
    return _Rows(workspace, listing, dates, days).calendar()


class _Rows:
    """Puts the records of a range together."""

    def __init__(
        self, workspace: Workspace, listing: Listing, dates: list[dt.date], days: dict[dt.date, DayRecords]
    ) -> None:
        self._workspace, self._listing, self._dates, self._days = workspace, listing, dates, days
        self._config = workspace.config
        self._log = read_log(workspace, listing, [name for date in dates for name in listing.versions.get(date, ())])
        self._withdrawn = succession(self._log).withdrawn
        expected = {date: expected_version(self._config, date, days) for date in dates if date in listing.versions}
        self._shown = {date: self._choose(listing.versions[date], name) for date, name in expected.items()}
        decisions = side_by_side(self._decision, list(self._shown.values()))
        self._decisions = dict(zip(self._shown.values(), decisions, strict=True))
        others = [name for date, name in self._shown.items() if name != expected[date]]
        changes = side_by_side(self._window_changes, others)
        self._changes = dict(zip(others, changes, strict=True))

    def calendar(self) -> Calendar:
        """The rows."""
        rows = tuple(self._row(date) for date in self._dates)
        return Calendar(rows, self._listing.source_problem, held=_held(self._log))

    def _choose(self, versions: tuple[str, ...], expected: str | None) -> str:
        if expected in versions:
            return expected
        champion = self._log[-1].version if self._log else None
        return max(versions, key=lambda name: (name == champion, self._last_entry(name), name))

    def _last_entry(self, version: str) -> int:
        return max((decision.entry for decision in self._listing.decisions.get(version, ())), default=-1)

    def _decision(self, version: str) -> Decision | None:
        """The decision against the newest log entry; of several gates' today's."""
        found = self._listing.decisions.get(version, ())
        if not found:
            return None
        date = layout.version_date(version)
        today = {stage_keys.gate_key(self._config, report.key) for report in self._days[date].current}
        last = max(found, key=lambda decision: (decision.entry, decision.gate_key in today, decision.gate_key))
        prefix = layout.decision_prefix(self._workspace.model, date, version, entry=last.entry, gate_key=last.gate_key)
        return self._workspace.document(Decision, layout.file_key(prefix, layout.DECISION_FILE))

    def _window_changes(self, version: str) -> Changes:
        key = layout.version_manifest(self._workspace.model, version)
        manifest = self._workspace.document(VersionManifest, key)
        return _SOURCE_UNKNOWN if manifest is None else window_changes(self._config, manifest, self._days)

    def _row(self, date: dt.date) -> CalendarDay:
        day, version = self._days[date], self._shown.get(date)
        row = CalendarDay(
            date=date,
            delivered=day.delivered,
            valid=not day.refused if day.current else None,
            prepared=any(stage_keys.prepare_key(self._config, report.key) in day.prepared for report in day.current),
            trained=version is not None,
            reasons=tuple(finding.sentence for finding in day.current[-1].broken) if day.refused else (),
        )
        if version is not None:
            row = self._with_version(row, day, version)
        elif day.delivered_again:
            row = row.model_copy(update={"reasons": (f"{date} was delivered again",)})
        if not day.delivered or day.refused:
            return row
        obstacle = self._too_small(date)
        if version is None and obstacle:
            row = row.model_copy(update={"reasons": (*row.reasons, obstacle)})
        wanted = version is None or bool(row.stale)
        return row.model_copy(update={"trainable": wanted and not obstacle})

    def _with_version(self, row: CalendarDay, day: DayRecords, version: str) -> CalendarDay:
        decision, standing = self._decisions[version], self._standing(version)
        changes = self._changes.get(version, Changes(()))
        holdout = holdout_changes(
            self._config,
            row.date,
            day,
            decisions=self._listing.decisions.get(version, ()),
            in_log=bool(standing),
        )
        stale = tuple(dict.fromkeys((*changes.reasons, *holdout)))
        known = changes.known and day.delivered is not None
        lost = decision.reasons if decision is not None and decision.verdict != "promote" else ()
        undecided = ("not decided: a run goes on from here",) if decision is None and not standing else ()
        return row.model_copy(
            update={
                "version": version,
                "verdict": decision.verdict if decision else None,
                "challenger_auc": decision.challenger.auc if decision else None,
                "champion_auc": decision.champion.auc if decision and decision.champion else None,
                "champion": standing == "champion",
                "standing": standing,
                "stale": True if stale else (False if known else None),
                "reasons": (*stale, *row.reasons, *lost, *undecided, *self._reign(version, standing)),
            }
        )

    def _standing(self, version: str) -> Literal["", "champion", "was", "rolled_back"]:
        if self._log and self._log[-1].version == version:
            return "champion"
        if version in self._withdrawn:
            return "rolled_back"
        return "was" if any(entry.version == version for entry in self._log) else ""

    def _reign(self, version: str, standing: str) -> tuple[str, ...]:
        if standing == "rolled_back":
            return (f"rolled back by log entry {self._withdrawn[version].sequence}",)
        if standing == "was":
            last = max(i for i, entry in enumerate(self._log) if entry.version == version)
            return (f"champion until log entry {self._log[last + 1].sequence}",)
        return ()

    def _too_small(self, date: dt.date) -> str:
        """Why the window before a date cannot train, as far as can be seen; empty if it can."""
        window = [self._days[day] for day in calendar_days(self._config, date)]
        usable = sum(not day.missing and not day.refused for day in window)
        needed = fewest_days(self._config)
        if usable >= needed:
            return ""
        return f"window too small: {usable} of the {len(window)} days before it can be used, required {needed}"


def _held(log: tuple[LogEntry, ...]) -> bool:
    return bool(log) and log[-1].held


def _check_range(start: dt.date | None, end: dt.date | None) -> None:
    if start is None or end is None:
        return
    if start > end:
        raise UsageError("--start is after --end", observed=f"{start} and {end}")
    if (end - start).days >= MOST_DAYS:
        raise UsageError("range is too long", observed=f"{(end - start).days + 1} days", required=f"{MOST_DAYS}")


def _dates(start: dt.date | None, end: dt.date | None, listing: Listing) -> list[dt.date]:
    last = end or listing.newest or start
    if last is None:
        return []
    if end is None and start is not None:
        last = max(last, start)
    # Of the days that nobody asked for, those before the first delivery say nothing.
    earliest = min(listing.oldest or last, last)
    first = start or max(earliest, dt.date.fromordinal(max(1, last.toordinal() - DEFAULT_DAYS + 1)))
    _check_range(first, last)
    return [dt.date.fromordinal(n) for n in range(first.toordinal(), last.toordinal() + 1)]
