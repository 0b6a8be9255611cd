"""A source looked at: where it is, how its days are named, what its columns are, and what fits them."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepfm.config import ValidationConfig
from deepfm.data.files import is_data
from deepfm.discovery.fields import Facts, decide
from deepfm.discovery.found import Found, FoundColumn, FoundDays, FoundTimes, Role
from deepfm.discovery.places import listed, without_days
from deepfm.discovery.roles import Time, Wishes, clicked_of, find_group, find_key, find_label, find_time
from deepfm.discovery.sample import Sample, read_sample
from deepfm.discovery.sizing import ctr_limits, null_limit, sampling_of, size_days
from deepfm.discovery.source import Delivered, find_days
from deepfm.discovery.usable import unusable_days
from deepfm.discovery.values import Values, typed
from deepfm.discovery.zones import place_in
from deepfm.errors import DataRejectedError, UsageError
from deepfm.layout import is_day_file

PSEUDO_DAYS = "_pseudo_days"
"""File beside partitions that are blocks of rows and no days."""
_DEFAULTS = ValidationConfig()


def survey(where: str, wishes: Wishes, *, scratch: Path) -> Found:
    """What a source holds and what configuration fits it.

    Args:
        where: A local folder or `s3://bucket/prefix`.
        wishes: What is known already.
        scratch: Where downloads go.

    Raises:
        UsageError: terminal; nothing there, no dates, no label, no usable field: each with the next step.
        DataRejectedError: terminal; no file is readable, or there is no row.
        StoreUnavailableError: transient.
    """
    store, listing = listed(where)
    files = [info for info in listing if is_data(info.key) and not is_day_file(info.key)]
    delivered = find_days(files, template=wishes.partition)
    if not files or delivered is None:
        raise without_days(where, store, listing, files, wishes, scratch=scratch)
    pseudo = any(info.key == PSEUDO_DAYS for info in listing)
    try:
        return _found(where, delivered, read_sample(store, delivered, scratch=scratch), wishes, pseudo_days=pseudo)
    except (UsageError, DataRejectedError) as refused:
        if not delivered.rivals:
            raise
        raise _of_several(refused, delivered) from refused


def _of_several(refused: UsageError | DataRejectedError, delivered: Delivered) -> UsageError | DataRejectedError:
    """The same error, which says that it is about one data set of several."""
    others = " or ".join(f"--partition {shlex.quote(name)}" for name in delivered.rivals[:3])
    return type(refused)(
        f"{delivered.template}: {refused.problem}",
        observed=refused.observed,
        required=refused.required,
        where=refused.where,
        next_step=f"{refused.next_step} There are other data sets: take one with {others}.".lstrip(),
    )


class _Rows(NamedTuple):
    """The rows read, typed."""

    columns: list[Values]
    label: Values
    clicked: NDArray[np.bool_]
    day: NDArray[np.int64]
    dates: NDArray[np.int64]
    time: Time | None


def _found(where: str, delivered: Delivered, sample: Sample, wishes: Wishes, *, pseudo_days: bool) -> Found:
    if not sample.rows.num_rows:
        raise DataRejectedError("the files hold no row", where=where, next_step="Check the source.")
    rows = _rows(sample, wishes)
    roles = _roles(rows, wishes, whole=sample.whole)
    unsteady = {*sample.partial, *sample.doubled}
    unusable = unusable_days(sample.days, rows.day, rows.label, rows.clicked, whole=sample.whole)
    usable = np.array([day.date not in unusable for day in sample.days])[rows.day]
    ctr = _ctr(rows.clicked, usable)
    days = size_days(sample.days, ctr=ctr, unusable=unusable)
    newest = np.array([day.date == days.run_date for day in sample.days])[rows.day]
    columns = decide(rows.columns, Facts(rows.clicked, newest, roles, unsteady, wishes.exclude))
    columns += [FoundColumn(name=name, role="left_out", note="a file has it twice") for name in sample.doubled]
    _check_fields(columns, where)
    usual = usable & np.array([day.rows >= days.min_rows for day in sample.days])[rows.day]
    day_clicks = days.usual_rows * ctr
    negatives, why = sampling_of(ctr, window_clicks=int(day_clicks * days.window_days * _density(days)))
    lowest, highest = ctr_limits(ctr, day_clicks=days.min_rows * ctr)
    zone = rows.time.cut.zone if rows.time else wishes.time_zone or "UTC"
    zone = wishes.time_zone or zone
    return Found(
        source=where,
        partition=delivered.template,
        rivals=delivered.rivals,
        ignored=delivered.ignored,
        unreadable=sample.unreadable,
        delimiter=sample.delimiter,
        pseudo_days=pseudo_days,
        rows_read=len(rows.clicked),
        whole=sample.whole,
        days=days,
        label=rows.label.name,
        ctr=ctr,
        clicks_a_day=round(day_clicks),
        min_ctr=lowest,
        max_ctr=highest,
        max_bad_share=_bad_limit(rows, roles, usual),
        time_zone=zone,
        zone_note=_zone_note(rows.time, zone, wishes),
        times=_times(rows, usual, wishes),
        negatives_per_positive=negatives,
        sampling_note=why,
        columns=tuple(_with_limit(column, rows, usual) for column in columns),
    )


def _rows(sample: Sample, wishes: Wishes) -> _Rows:
    wishes.check(sample.rows.column_names)
    columns = [typed(name, sample.rows.column(name), from_text=sample.from_text) for name in sample.rows.column_names]
    label = find_label(columns, wishes, from_text=sample.from_text)
    epoch = np.array([(day.date.toordinal() - _EPOCH) for day in sample.days], dtype=np.int64)
    dates = epoch[sample.day]
    others = [values for values in columns if values.name != label.name]
    return _Rows(columns, label, clicked_of(label), sample.day, dates, find_time(others, wishes, dates))


_EPOCH = 719_163
"""Ordinal of 1970-01-01."""


def _roles(rows: _Rows, wishes: Wishes, *, whole: bool) -> dict[str, Role]:
    roles: dict[str, Role] = {rows.label.name: "label"}
    if rows.time is not None:
        roles.setdefault(rows.time.name, "event_time")
    if key := find_key((values for values in rows.columns if values.name not in roles), wishes):
        roles.setdefault(key, "event_key")
    if group := find_group((values for values in rows.columns if values.name not in roles), wishes, whole=whole):
        roles.setdefault(group, "group")
    return roles


def _ctr(clicked: NDArray[np.bool_], usable: NDArray[np.bool_]) -> float:
    """Share of clicks in the usable days; in all where those, read in part, hold one class only."""
    share = float(clicked[usable].mean()) if usable.any() else 0.0
    return share if 0.0 < share < 1.0 else float(clicked.mean())


def _check_fields(columns: Sequence[FoundColumn], where: str) -> None:
    if any(column.is_field and column.kind == "categorical" for column in columns):
        return
    reasons = "; ".join(f"{column.name}: {column.note}" for column in columns if column.role == "left_out")
    raise UsageError(
        "no column can be a categorical field",
        observed=reasons[:400] or f"columns are {', '.join(column.name for column in columns)}",
        required="at least one text or id whose values come back",
        where=where,
        next_step="Deliver such a column.",
    )


def _density(days: FoundDays) -> float:
    """Share of the calendar days that there are."""
    return min(1.0, days.count / ((days.last - days.first).days + 1))


def _bad_limit(rows: _Rows, roles: dict[str, Role], usual: NDArray[np.bool_]) -> float | None:
    """Room for the rows that ordinary days set aside: outside their day, doubled, without a label."""
    missing = rows.label.nulls[usual] if usual.any() else rows.label.nulls
    bad = float(missing.mean()) + _most_outside(rows.time, rows.day, usual)
    key = next((values for values in rows.columns if roles.get(values.name) == "event_key"), None)
    if key is not None:
        bad += 1 - key.distinct / len(key.codes)
    needed = 2 * bad
    return None if needed <= _DEFAULTS.max_bad_share else min(1.0, math.ceil(needed * 20) / 20)


def _most_outside(time: Time | None, day: NDArray[np.int64], usual: NDArray[np.bool_]) -> float:
    """Largest share of the rows of a usual day that have no time within it."""
    if time is None:
        return 0.0
    bad = ~time.there
    bad[time.there] = time.cut.outside
    return _largest_share(bad, day, usual)


def _largest_share(chosen: NDArray[np.bool_], day: NDArray[np.int64], usual: NDArray[np.bool_]) -> float:
    if not usual.any():
        return float(chosen.mean())
    rows, hits = np.bincount(day[usual]), np.bincount(day[usual], chosen[usual])
    return float((hits[rows > 0] / rows[rows > 0]).max())


def _with_limit(column: FoundColumn, rows: _Rows, usual: NDArray[np.bool_]) -> FoundColumn:
    if column.kind is None or not column.null_share:
        return column
    values = next(values for values in rows.columns if values.name == column.name)
    seen = _largest_share(values.nulls, rows.day, usual)
    return column.model_copy(update={"max_null_share": null_limit(seen, default=_DEFAULTS.max_null_share)})


def _times(rows: _Rows, usual: NDArray[np.bool_], wishes: Wishes) -> FoundTimes | None:
    time = rows.time
    if time is None:
        return None
    return FoundTimes.model_validate(
        {
            "column": time.name,
            "unit": time.form.unit if time.form.kind == "epoch" else None,
            "zone": None if time.form.aware else wishes.time_zone or "UTC",
            "outside_share": _most_outside(time, rows.day, usual),
        }
    )


def _zone_note(time: Time | None, zone: str, wishes: Wishes) -> str:
    if wishes.time_zone is not None:
        return "as you said"
    if time is None:
        return "assumed: no column of times says where days begin and end"
    share = 1 - float(time.cut.outside.mean())
    place = place_in(zone)
    inside = f"{share:.1%} of the event times lie in the day of their partition"
    return inside + (f"; {place} has the same clock, if it has no summer time" if place else "")
