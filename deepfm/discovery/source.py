"""What lies below a source, and how its days are named: the template that reaches most of the data files."""

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deepfm.data.files import is_data
from deepfm.layout import partition_date
from deepfm.storage import ObjectInfo

_DATE = re.compile(r"(?<![0-9])((?:19|20)[0-9]{2})([-_.]?)([0-9]{2})\2([0-9]{2})(?![0-9])")
_YEAR = re.compile(r"([A-Za-z_]+=)?((?:19|20)[0-9]{2})")
_TWO_DIGITS = re.compile(r"([A-Za-z_]+=)?([0-9]{2})")


class Delivered(NamedTuple):
    """Days that one template names, and what it leaves out."""

    template: str
    """Value of `data.partition`."""
    files: dict[dt.date, tuple[ObjectInfo, ...]]
    """Data files of every day, oldest day first."""
    ignored: tuple[str, ...]
    """Keys of data files that neither the template nor another one reaches."""
    rivals: tuple[str, ...]
    """Other templates that name days, the one with most files first."""


def find_days(files: Sequence[ObjectInfo], *, template: str | None = None) -> Delivered | None:
    """The days below a source by the template that reaches most files; None if no name holds a date.

    Args:
        files: Data files of the source.
        template: To use instead of looking for one.
    """
    found: dict[str, dict[str, dt.date]] = defaultdict(dict)
    for info in files:
        for candidate, date in _candidates(info.key) if template is None else _given(template, info.key):
            found[candidate][info.key] = date
    if not found:
        return None
    # Most files first; then the folder before the file in it; then the shorter name.
    best, *rest = sorted(found, key=lambda name: (-len(found[name]), is_data(name), len(name), name))
    days: dict[dt.date, list[ObjectInfo]] = defaultdict(list)
    for info in files:
        if info.key in found[best]:
            days[found[best][info.key]].append(info)
    ignored = tuple(info.key for info in files if not any(info.key in reached for reached in found.values()))
    rivals = tuple(name for name in rest if not found[name].keys() <= found[best].keys())
    return Delivered(best, {date: tuple(days[date]) for date in sorted(days)}, ignored, rivals)


def _given(template: str, key: str) -> Iterator[tuple[str, dt.date]]:
    if (date := partition_date(template, key)) is not None:
        yield template, date


def _candidates(key: str) -> Iterator[tuple[str, dt.date]]:
    """Every template that reaches a key, with the date that it reads from it."""
    if "{" in key or "}" in key:
        return
    parts = key.split("/")
    for index, part in enumerate(parts):
        before, is_file = parts[:index], index == len(parts) - 1
        for match in _DATE.finditer(part):
            year, mark, month, day = match.groups()
            placeholder = "{date}" if mark == "-" else f"{{date:%Y{mark}%m{mark}%d}}"
            named = f"{part[: match.start()]}{placeholder}{part[match.end() :]}"
            if date := _date(year, month, day):
                yield "/".join((*before, named)), date
                if (folders := _dated(before, date)) != before:
                    yield "/".join((*folders, named)), date
        # A folder for the year, one for the month and one for the day (or a file named by it).
        levels = [pattern.fullmatch(level) for pattern, level in zip(_LEVELS, parts[index : index + 3], strict=False)]
        if len(levels) == 3 and not is_file and index + 3 < len(parts) and all(levels):
            names = [level.groups() for level in levels if level]
            if date := _date(*(digits for _, digits in names)):
                forms = ("%Y", "%m", "%d")
                named = "/".join(f"{head or ''}{{date:{form}}}" for (head, _), form in zip(names, forms, strict=True))
                yield "/".join((*before, named)), date


def _dated(folders: Sequence[str], date: dt.date) -> list[str]:
    """The folders above a date, with a year or a month of it as a placeholder: `2026/clicks-2026-03-09.csv`."""
    forms = {f"{date:%Y}": "{date:%Y}", f"{date:%m}": "{date:%m}", f"{date:%Y-%m}": "{date:%Y-%m}"}
    forms[f"{date:%Y%m}"] = "{date:%Y%m}"
    named = []
    for folder in folders:
        head, mark, value = folder.rpartition("=")
        named.append(f"{head}{mark}{forms.get(value, value)}")
    return named


_LEVELS = (_YEAR, _TWO_DIGITS, _TWO_DIGITS)


def _date(year: str, month: str, day: str) -> dt.date | None:
    try:
        return dt.date(int(year), int(month), int(day))
    except ValueError:
        return None
