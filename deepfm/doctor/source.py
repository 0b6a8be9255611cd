"""The source: which days it holds, and whether the newest one can be read as the configuration says."""

import datetime as dt
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from deepfm import layout
from deepfm.config import RetrainConfig
from deepfm.data.files import open_file
from deepfm.data.partitions import delivered_day
from deepfm.data.schema import check_schema, columns_of
from deepfm.doctor.checks import Check, failed, ok, refusal, warning
from deepfm.errors import ConfigError, DataRejectedError, DeepFMError
from deepfm.storage import ObjectInfo, ObjectStore

FETCHED_BYTES = 512 * 2**20
"""Files of a day beyond this are not fetched to look at their columns."""
_NAMED = 5


def source(store: ObjectStore, config: RetrainConfig, *, now: dt.datetime) -> Iterator[Check]:
    """The checks of the source.

    Args:
        store: The source.
        config: What its days are called and which columns they need.
        now: For the age of the newest day; aware.
    """
    template = config.data.partition
    try:
        found = store.list(layout.partitions_folder(template))
    except DeepFMError as error:
        yield refusal("source.reachable", error)
        return
    files: dict[dt.date, list[ObjectInfo]] = {}
    for info in found:
        if (day := delivered_day(template, info.key)) is not None:
            files.setdefault(day, []).append(info)
    if not files:
        observed = f"{store.url} holds no day of the form {template}, and {len(found)} other files"
        step = "Check data.source, which is relative to the working directory, and data.partition."
        yield failed("source.days", observed, step, exit_code=ConfigError.exit_code)
        return
    days = sorted(files)
    yield _days(days, store)
    yield _window(days, config)
    yield _age(days[-1], config, now=now)
    yield from _columns(store, config, files[days[-1]], day=days[-1])


def _days(days: Sequence[dt.date], store: ObjectStore) -> Check:
    there = set(days)
    span = (days[-1] - days[0]).days + 1
    gaps = [day for n in range(span) if (day := days[0] + dt.timedelta(days=n)) not in there]
    observed = f"{len(days)} days, {days[0]} to {days[-1]}, in {store.url}"
    if not gaps:
        return ok("source.days", observed)
    named = ", ".join(map(str, gaps[:_NAMED])) + (f" and {len(gaps) - _NAMED} more" if len(gaps) > _NAMED else "")
    return warning("source.days", f"{observed}; without {named}", "Deliver the missing days, or live with the gaps.")


def _window(days: Sequence[dt.date], config: RetrainConfig) -> Check:
    """Whether the newest day has a whole window before it."""
    back = config.window.window_days
    there = sum(1 for day in days if 0 < (days[-1] - day).days <= back)
    observed = f"{there} of the {back} days before {days[-1]}"
    if there >= config.window.min_days and 1 - there / back <= config.window.max_missing_share:
        return ok("source.window", observed)
    return warning("source.window", observed, "Deliver more days, or lower window.window_days.")


def _age(newest: dt.date, config: RetrainConfig, *, now: dt.datetime) -> Check:
    today = now.astimezone(ZoneInfo(config.time_zone)).date()
    age = (today - newest).days
    observed = f"{newest}, {age} {'day' if age == 1 else 'days'} old in {config.time_zone}"
    if age < 0:
        return warning(
            "source.newest_day", f"{newest} is not over in {config.time_zone}", "Check the clock and time_zone."
        )
    if age > max(1, config.lag_days):
        step = f"A run of today is about {today - dt.timedelta(days=config.lag_days)}: see whether deliveries stopped."
        return warning("source.newest_day", observed, step)
    return ok("source.newest_day", observed)


def _columns(
    store: ObjectStore, config: RetrainConfig, files: Sequence[ObjectInfo], *, day: dt.date
) -> Iterator[Check]:
    """Whether the files of a day open and bring the columns; a day's first files, if it is large and far away."""
    opened, fetched = 0, 0
    ignored: set[str] = set()
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="deepfm-") as folder:
        for info in files:
            if fetched > FETCHED_BYTES:
                break
            try:
                path = store.fetch(info.key, scratch=Path(folder))
                schema = open_file(path, key=info.key, delimiter=config.data.csv_delimiter).schema
            except DeepFMError as error:
                yield refusal("source.files", error)
                return
            broken += [finding.sentence for finding in check_schema(schema, config, where=info.key)]
            ignored |= set(schema.names) - {column.name for column in columns_of(config)}
            opened += 1
            if path.is_relative_to(folder):
                fetched += info.size_bytes
                path.unlink()
    yield ok("source.files", f"{opened} of {len(files)} files of {day} open")
    if broken:
        observed = "; ".join(broken[:_NAMED])
        step = "Correct [fields] and [data], or the delivery."
        yield failed("source.columns", observed, step, exit_code=DataRejectedError.exit_code)
    else:
        names = ", ".join(sorted(ignored)[:20]) or "none"
        yield ok("source.columns", f"all {len(columns_of(config))} are there; ignored: {names}")
