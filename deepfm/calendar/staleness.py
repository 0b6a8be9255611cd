"""What has changed since a version was made: which days were delivered again, arrived or left, or the configuration."""

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple

from deepfm import stage_keys
from deepfm.calendar.records import DayRecords
from deepfm.config import RetrainConfig
from deepfm.data.window import calendar_days
from deepfm.layout import DecisionResult
from deepfm.manifests import Gap, ValidationReport, VersionManifest, Window

_CONFIGURATION = "configuration changed"
"""Also said where a release has raised the format of a stage: the keys tell that something changed, not which."""
Days = Mapping[dt.date, DayRecords]


class Changes(NamedTuple):
    """What a run of the same date today would find changed."""

    reasons: tuple[str, ...]
    known: bool = True
    """False if a day could not be compared; then no reason does not mean that nothing changed."""


def expected_version(config: RetrainConfig, logical_date: dt.date, days: Days) -> str | None:
    """The version that a run of the date would make today; None while a day of the window has to be judged first."""
    keys, gaps = [], []
    for date in calendar_days(config, logical_date):
        day = days[date]
        if day.missing:
            gaps.append(Gap(logical_date=date, reason="missing"))
        elif not day.current:
            return None
        elif day.refused:
            gaps.append(Gap(logical_date=date, reason=day.current[-1].refusal))
        else:
            keys.append(stage_keys.prepare_key(config, day.current[-1].key))
    return stage_keys.version_id(config, logical_date, stage_keys.window_key(config, logical_date, keys, gaps))


def window_changes(config: RetrainConfig, manifest: VersionManifest, days: Days) -> Changes:
    """What has changed in the days that a version was trained on, and in what it depends on besides."""
    window = manifest.window
    dates = calendar_days(config, manifest.logical_date)
    used: dict[dt.date, str | Gap] = {day.logical_date: day.key for day in window.days}
    used |= {gap.logical_date: gap for gap in window.gaps}
    if dates != sorted(used):
        return Changes((_CONFIGURATION,))
    found = {date: _change(config, date, used[date], days[date]) for date in dates}
    reasons = tuple(dict.fromkeys(reason for reason in found.values() if reason))
    if reasons or None in found.values():
        return Changes(reasons, known=None not in found.values())
    return Changes(() if _same_version(config, manifest.version, window) else (_CONFIGURATION,))


def holdout_changes(
    config: RetrainConfig, date: dt.date, day: DayRecords, *, decisions: tuple[DecisionResult, ...], in_log: bool
) -> tuple[str, ...]:
    """What has changed in the day that a version was judged on, or in the gate.

    A version that is in the log is not decided again, so of its holdout a new delivery alone is told, until it was
    judged.
    """
    if day.delivered_again:
        return (f"{date} was delivered again",)
    if in_log or not decisions or day.missing:
        return ()
    decided = {decision.gate_key for decision in decisions}

    def judged_on(reports: tuple[ValidationReport, ...]) -> bool:
        return bool(decided & {stage_keys.gate_key(config, report.key) for report in reports})

    if judged_on(day.current):
        return ()
    return (_cause(date, before=judged_on(day.reports), now=judged_on(day.of_delivery)),)


def _change(config: RetrainConfig, date: dt.date, used: str | Gap, day: DayRecords) -> str | None:
    """What has changed about one day of a window: empty if nothing has, None if that cannot be told."""
    if isinstance(used, Gap) and used.reason == "missing":
        return "" if day.missing else f"{date} arrived since"
    if day.missing:
        return f"{date} is no longer delivered"
    if _uses(config, used, day.current):
        return ""
    if not day.reports:
        return None
    if day.delivered_again:
        return f"{date} was delivered again"
    return _cause(date, before=_uses(config, used, day.reports), now=_uses(config, used, day.of_delivery))


def _cause(date: dt.date, *, before: bool, now: bool) -> str:
    """What made the judgement that was used another one than today's, by whose delivery it was a judgement of."""
    return f"{date} was delivered again" if before and not now else _CONFIGURATION


def _uses(config: RetrainConfig, used: str | Gap, reports: tuple[ValidationReport, ...]) -> bool:
    """Whether the window's day is what one of these judgements leads to."""
    if isinstance(used, Gap):
        return any(not report.accepted and report.refusal == used.reason for report in reports)
    return any(report.accepted and stage_keys.prepare_key(config, report.key) == used for report in reports)


def _same_version(config: RetrainConfig, version: str, window: Window) -> bool:
    key = stage_keys.window_key(config, window.logical_date, [day.key for day in window.days], window.gaps)
    return stage_keys.version_id(config, window.logical_date, key) == version
