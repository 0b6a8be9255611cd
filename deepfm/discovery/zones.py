"""In which zone days are cut: the one in which most rows lie in the day of their partition."""

import datetime as dt
from collections.abc import Iterator
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from deepfm.discovery.times import NONE

_TIE = 0.002
"""Shares that are closer than this say nothing against UTC: a few late rows are normal everywhere."""
_KNOWN = {
    -570: "Pacific/Marquesas", 210: "Asia/Tehran", 270: "Asia/Kabul", 330: "Asia/Kolkata", 345: "Asia/Kathmandu",
    390: "Asia/Yangon", 570: "Australia/Darwin",
}  # fmt: skip
_PLACES = {
    -480: "America/Los_Angeles", -420: "America/Denver", -360: "America/Chicago", -300: "America/New_York",
    -180: "America/Sao_Paulo", 60: "Europe/Berlin", 120: "Europe/Athens", 180: "Europe/Istanbul", 240: "Asia/Dubai",
    300: "Asia/Karachi", 420: "Asia/Bangkok", 480: "Asia/Singapore", 540: "Asia/Tokyo", 600: "Australia/Brisbane",
}  # fmt: skip
_WITH_SUMMER_TIME = (
    "Europe/London", "Europe/Berlin", "Europe/Athens",
    "America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles", "Australia/Sydney",
)  # fmt: skip


class Cut(NamedTuple):
    """Where days begin and end."""

    zone: str
    outside: NDArray[np.bool_]
    """Which rows with a time lie outside of the day of their partition."""


def find_cut(instants: NDArray[np.int64], dates: NDArray[np.int64], *, zone: str | None = None) -> Cut:
    """The zone in which most rows lie within their day: UTC if it does as well as any, fixed offsets before others.

    Args:
        instants: Microseconds since 1970, UTC, [N]; rows without a time are left out.
        dates: Days since 1970 of their partitions, [N].
        zone: To use instead of looking for one.
    """
    there = instants != NONE
    instants, dates = instants[there], dates[there]
    candidates = [zone] if zone else list(_candidates())
    outsides = [_outside(instants, dates, name) for name in candidates]
    shares = np.array([outside.mean() if len(outside) else 0.0 for outside in outsides])
    best = 0 if shares[0] <= shares.min() + _TIE else int(shares.argmin())
    return Cut(candidates[best], outsides[best])


def place_in(zone: str) -> str:
    """A place whose clocks show a fixed offset, for people; empty if none comes to mind."""
    if not zone.startswith("Etc/GMT"):
        return ""
    return _PLACES.get(-60 * int(zone.removeprefix("Etc/GMT")), "")


def _candidates() -> Iterator[str]:
    """UTC, whole hours from near to far, the half hours that people live in, and zones with summer time."""
    yield "UTC"
    for hours in sorted(range(-12, 15), key=abs):
        if hours:
            yield f"Etc/GMT{-hours:+d}"
    yield from _KNOWN.values()
    yield from _WITH_SUMMER_TIME


def _outside(instants: NDArray[np.int64], dates: NDArray[np.int64], zone: str) -> NDArray[np.bool_]:
    clock = ZoneInfo(zone)
    days, inverse = np.unique(dates, return_inverse=True)
    starts, ends = (
        np.array([_midnight(int(day) + step, clock) for day in days], dtype=np.int64)[inverse] for step in (0, 1)
    )
    return (instants < starts) | (instants >= ends)


def _midnight(day: int, clock: ZoneInfo) -> int:
    date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
    return int(dt.datetime.combine(date, dt.time(), clock).timestamp()) * 1_000_000
