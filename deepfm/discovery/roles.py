"""Which column is the label, the time, the key and the user: names propose, values decide."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepfm.discovery.naming import group_rank, is_event_key, label_rank, sounds_like_time, time_rank
from deepfm.discovery.times import Form, form_of, instants_of
from deepfm.discovery.values import Values
from deepfm.discovery.zones import Cut, find_cut
from deepfm.errors import UsageError

NEARLY_ALL = 0.98
_MOST_OUTSIDE = 0.1
_MOST_MISSING = 0.05
_UNITS = ("s", "ms", "us")


class Wishes(NamedTuple):
    """What the person who asked knows already."""

    label: str | None = None
    event_time: str | None = None
    event_key: str | None = None
    group: str | None = None
    time_zone: str | None = None
    partition: str | None = None
    exclude: tuple[str, ...] = ()

    def check(self, names: Sequence[str]) -> None:
        """Nothing, if every column named is there.

        Raises:
            UsageError: terminal; one is not.
        """
        options = {
            "--label": self.label, "--event-time": self.event_time, "--event-key": self.event_key,
            "--group": self.group, **{f"--exclude {name}": name for name in self.exclude},
        }  # fmt: skip
        for option, name in options.items():
            if name is not None and name not in names:
                raise absent(name, names, option=option.split(" ")[0])


class Time(NamedTuple):
    """The column of event times, read."""

    name: str
    form: Form
    cut: Cut
    there: NDArray[np.bool_]
    """Which rows have one."""


def absent(name: str, names: Sequence[str], *, option: str) -> UsageError:
    """The error that says that a column is not there, with the nearest one that is."""
    near = difflib.get_close_matches(name, names, n=1)
    return UsageError(
        f"{option} names a column that is not there",
        observed=name,
        required=f"one of {', '.join(names[:20])}",
        next_step=f"Did you mean {near[0]}?" if near else "",
    )


def is_binary(values: Values, *, from_text: bool) -> bool:
    """Whether a column holds nothing but 0 and 1, or false and true."""
    if values.kind in {"integer", "number", "flag"}:
        return set(values.unique().to_pylist()) <= {0, 1}
    texts = {str(text).lower() for text in values.unique().to_pylist()} if values.distinct <= 6 else {"many"}
    return from_text and values.kind == "text" and texts <= {"true", "false"}


def clicked_of(values: Values) -> NDArray[np.bool_]:
    """Which rows were clicked, bool [N]; those without a label were not."""
    if values.kind == "text":
        return np.asarray(pc.fill_null(pc.equal(pc.utf8_lower(values.array), "true"), False))  # noqa: FBT003
    return np.asarray(values.floats() == 1.0)


def find_label(columns: Sequence[Values], wishes: Wishes, *, from_text: bool) -> Values:
    """The label: the column asked for, or the one of the likeliest name that holds nothing but 0 and 1.

    Raises:
        UsageError: terminal; there is none, or the one asked for holds other values or one class only.
    """
    binary = [values for values in columns if values.distinct and is_binary(values, from_text=from_text)]
    if wishes.label is not None:
        chosen = next((values for values in binary if values.name == wishes.label), None)
        if chosen is None:
            raise UsageError(
                f"--label {wishes.label} cannot be the label",
                observed="other values than 0 and 1",
                required="1 where the impression was clicked and 0 where it was not",
                next_step="Write such a column, or name another one with --label.",
            )
        return _with_both(chosen)
    named = sorted((rank, values.name) for values in binary if (rank := label_rank(values.name)) is not None)
    if named:
        return _with_both(next(values for values in binary if values.name == named[0][1]))
    others = ", ".join(values.name for values in binary if values.distinct == 2)
    near = ", ".join(values.name for values in columns if label_rank(values.name) is not None)
    raise UsageError(
        "no column looks like the label",
        observed=f"{near} holds other values than 0 and 1" if near else None,
        required="1 where the impression was clicked and 0 where it was not",
        next_step=f"Name it with --label; columns of 0 and 1 are {others}." if others else "Name it with --label.",
    )


def find_time(columns: Sequence[Values], wishes: Wishes, dates: NDArray[np.int64]) -> Time | None:
    """The event time: the column asked for, or the likeliest one of which nine rows in ten lie in their partition.

    Args:
        columns: All of them.
        wishes: What is known.
        dates: Days since 1970 of the partition of every row.

    Raises:
        UsageError: terminal; the column asked for holds no times.
    """
    for values in sorted(columns, key=lambda values: time_rank(values.name)):
        if wishes.event_time not in {None, values.name}:
            continue
        form = time_form(values, asked=wishes.event_time is not None)
        if form is None:
            continue
        instants = instants_of(values.array, form)
        # Times without a zone are those of the zone asked for: on the wall, its days are the days.
        zone = wishes.time_zone if form.aware or wishes.time_zone is None else "UTC"
        cut = find_cut(instants, dates, zone=zone)
        there = ~values.nulls
        if wishes.event_time or (cut.outside.mean() <= _MOST_OUTSIDE and there.mean() >= 1 - _MOST_MISSING):
            return Time(values.name, form, cut, instants != np.iinfo(np.int64).min)
    if wishes.event_time is not None:
        raise UsageError(
            f"--event-time {wishes.event_time} holds no times",
            required="timestamps, ISO 8601 text, or seconds, milliseconds or microseconds since 1970",
            next_step="Name another column, or leave the option out: an event time is optional.",
        )
    return None


def time_form(values: Values, *, asked: bool = False) -> Form | None:
    """How a column stores instants; None if it does not, or in a way that no configuration can name."""
    form = believed_form(values, asked=asked)
    if form is None or not form.is_instant:
        return None
    unknown = form.kind == "epoch" and (values.kind == "text" or form.unit not in _UNITS)
    return None if unknown else form


def believed_form(values: Values, *, asked: bool = False) -> Form | None:
    """How a column stores times or dates; numbers are times only where the name says so: ids can be as large."""
    if values.kind in {"nested", "empty", "flag"} or pa.types.is_time(values.array.type):
        return None
    if pa.types.is_duration(values.array.type):
        return None
    form = form_of(values.array)
    if form is not None and form.kind == "epoch" and not (asked or sounds_like_time(values.name)):
        return None
    return form


def find_key(columns: Iterable[Values], wishes: Wishes) -> str | None:
    """The column that identifies an impression; None if there is none."""
    if wishes.event_key is not None:
        return wishes.event_key
    return next((v.name for v in columns if is_event_key(v.name) and all_distinct(v) and not v.nulls.any()), None)


def find_group(columns: Iterable[Values], wishes: Wishes, *, whole: bool) -> str | None:
    """The column of the user; people before visits; None if there is none.

    Args:
        columns: Those that have no role yet.
        wishes: What is known.
        whole: Whether all rows were read; among a few of many rows, nobody may come twice.
    """
    if wishes.group is not None:
        return wishes.group
    ranks: Mapping[str, int] = {
        values.name: rank
        for values in columns
        if (rank := group_rank(values.name)) is not None
        and values.kind in {"text", "integer"}
        and values.distinct > 1
        and not (whole and all_distinct(values))
    }
    return min(ranks, key=lambda name: ranks[name], default=None)


def all_distinct(values: Values) -> bool:
    """Whether (nearly) every row has a value of its own; a few rows may be delivered twice."""
    there = int((~values.nulls).sum())
    return there >= 20 and values.distinct >= NEARLY_ALL * there


def _with_both(values: Values) -> Values:
    if values.distinct == 2:
        return values
    raise UsageError(
        f"label {values.name} has one class only in the rows read",
        observed=f"{len(values.codes)} rows",
        required="rows with 1 and rows with 0",
        next_step="Name another column with --label, or deliver the other rows.",
    )
