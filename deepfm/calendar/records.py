"""What source and store hold about some days: three listings, and the documents of those days alone; never a row.

A judgement is of the present delivery if the day's files have the names and sizes that it recorded. So a file that was
replaced by one of the same name and size is not noticed, unless a run on this machine has read the new one.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from deepfm import layout, stage_keys
from deepfm.data.partitions import delivered_day
from deepfm.errors import DeepFMError, UsageError
from deepfm.layout import DecisionResult
from deepfm.manifests import LogEntry, ValidationReport
from deepfm.storage import ObjectInfo
from deepfm.workspace import Workspace

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], None]
_READERS = 16


class Listing(NamedTuple):
    """What there is, as three listings tell."""

    delivered: dict[dt.date, tuple[ObjectInfo, ...]] | None
    """Data files of each day in the source; None where the source cannot be listed or holds no day at all."""
    source_problem: str
    """Why that is not known, in one line."""
    judged: dict[dt.date, tuple[str, ...]]
    """Keys of the stored judgements of each day."""
    prepared: dict[dt.date, frozenset[str]]
    """Keys of the prepared days of each day."""
    versions: dict[dt.date, tuple[str, ...]]
    """Versions of each logical date."""
    decisions: dict[str, tuple[DecisionResult, ...]]
    """Decisions on each version, the one against the newest log entry last."""
    log: tuple[int, ...]
    """Numbers of the log's entries."""

    @property
    def newest(self) -> dt.date | None:
        """The newest day that has data or a result."""
        return max(self._dates, default=None)

    @property
    def oldest(self) -> dt.date | None:
        """The oldest day that has data or a result."""
        return min(self._dates, default=None)

    @property
    def _dates(self) -> set[dt.date]:
        return {*(self.delivered or ()), *self.judged, *self.versions}


class DayRecords(NamedTuple):
    """What is known of one day."""

    delivered: bool | None
    """Whether the source has files of it; None if that is not known."""
    reports: tuple[ValidationReport, ...]
    """Every stored judgement."""
    of_delivery: tuple[ValidationReport, ...]
    """Those of the files that are there now; all, where nothing is there or known."""
    current: tuple[ValidationReport, ...]
    """Those of them under today's configuration; two differ in the bytes of files alone."""
    prepared: frozenset[str]
    """Keys of its prepared days."""

    @property
    def missing(self) -> bool:
        """Whether a run today would find no data of it, as far as can be seen."""
        return self.delivered is False or (self.delivered is None and not self.reports)

    @property
    def delivered_again(self) -> bool:
        """Whether it was judged, and what is there now was not."""
        return bool(self.delivered and self.reports and not self.of_delivery)

    @property
    def refused(self) -> bool:
        """Whether what is there now was refused under today's configuration."""
        return bool(self.current) and not any(report.accepted for report in self.current)


def list_all(workspace: Workspace) -> Listing:
    """What source and store hold of the model.

    Raises:
        ConfigError: terminal; the store cannot be used.
        StoreUnavailableError: transient; the store does not answer.
    """
    delivered, problem = _delivered(workspace)
    days = _found(layout.day_result, workspace.store.list(layout.days_prefix(workspace.model)))
    keys = workspace.store.list(layout.model_prefix(workspace.model))
    decisions = sorted(_found(layout.decision_result, keys), key=lambda found: found[:3])
    return Listing(
        delivered=delivered,
        source_problem=problem,
        judged=_grouped((day.logical_date, day.validated) for day in days if day.validated),
        prepared={
            date: frozenset(found)
            for date, found in _grouped((day.logical_date, day.prepared) for day in days if day.prepared).items()
        },
        versions=_grouped((layout.version_date(name), name) for name in _found(layout.version_result, keys)),
        decisions=_grouped((decision.version, decision) for decision in decisions),
        log=tuple(sorted(_sequences(keys))),
    )


def read_days(
    workspace: Workspace, listing: Listing, dates: Iterable[dt.date], *, progress: Progress | None = None
) -> dict[dt.date, DayRecords]:
    """The records of some days; the judgements of these days alone are read."""
    wanted = sorted(dates)
    jobs = [(date, key) for date in wanted for key in listing.judged.get(date, ())]

    def read(job: tuple[dt.date, str]) -> ValidationReport | None:
        prefix = layout.validated_prefix(workspace.model, *job)
        return workspace.document(ValidationReport, layout.file_key(prefix, layout.VALIDATION_FILE))

    reports = _grouped(
        (job[0], report)
        for job, report in zip(jobs, side_by_side(read, jobs, progress=progress), strict=True)
        if report
    )
    return {date: _day(workspace, listing, date, reports.get(date, ())) for date in wanted}


def read_log(workspace: Workspace, listing: Listing, versions: Sequence[str]) -> tuple[LogEntry, ...]:
    """What the log says of these versions, oldest entry first, and its last entry in any case.

    A version enters the log after its decision, so older entries are left alone; but what a rollback takes away depends
    on the whole log.
    """
    # One without a decision may be anywhere.
    first = min((min((d.entry for d in listing.decisions.get(v, ())), default=0) for v in versions), default=None)
    wanted = [n for n in listing.log if n == listing.log[-1] or (first is not None and n > first)]
    entries = [entry for entry in side_by_side(workspace.registry.entry, wanted) if entry]
    if any(entry.operation == "rollback" for entry in entries):
        return tuple(workspace.registry.entries())
    return tuple(entries)


def side_by_side(read: Callable[[T], R], jobs: Sequence[T], *, progress: Progress | None = None) -> list[R]:
    """The results of a call for each job, in their order; several wait for the store at a time."""
    results = []
    with ThreadPoolExecutor(_READERS) as pool:
        for result in pool.map(read, jobs):
            results.append(result)
            if progress:
                progress(len(results), len(jobs))
    return results


def _delivered(workspace: Workspace) -> tuple[dict[dt.date, tuple[ObjectInfo, ...]] | None, str]:
    template = workspace.config.data.partition
    try:
        infos = workspace.source.list(layout.partitions_folder(template))
    except DeepFMError as problem:
        return None, str(problem)
    dated = ((delivered_day(template, info.key), info) for info in infos)
    files = _grouped((date, info) for date, info in dated if date is not None)
    if not files:
        return None, f"data.source holds no day of the form {template} ({workspace.source.url})"
    return files, ""


def _day(workspace: Workspace, listing: Listing, date: dt.date, reports: tuple[ValidationReport, ...]) -> DayRecords:
    files = None if listing.delivered is None else listing.delivered.get(date, ())
    of_delivery = tuple(report for report in reports if not files or _same_files(workspace, report, files))
    return DayRecords(
        delivered=None if files is None else bool(files),
        reports=reports,
        of_delivery=of_delivery,
        current=tuple(
            report
            for report in of_delivery
            if report.key == stage_keys.validate_key(workspace.config, report.partition)
        ),
        prepared=listing.prepared.get(date, frozenset()),
    )


def _same_files(workspace: Workspace, report: ValidationReport, files: Sequence[ObjectInfo]) -> bool:
    judged = {file.key: file for file in report.partition.files}
    if {(file.key, file.size_bytes) for file in judged.values()} != {(info.key, info.size_bytes) for info in files}:
        return False
    known = ((info.key, workspace.cache.known(workspace.source, info)) for info in files)
    return all(digest in {None, judged[key].sha256} for key, digest in known)


def _found(parse: Callable[[str], T | None], objects: Iterable[ObjectInfo]) -> list[T]:
    return [found for found in (parse(info.key) for info in objects) if found is not None]


def _sequences(objects: Iterable[ObjectInfo]) -> Iterable[int]:
    for info in objects:
        try:
            yield layout.log_sequence(info.key)
        except UsageError:
            continue


def _grouped(pairs: Iterable[tuple[T, R]]) -> dict[T, tuple[R, ...]]:
    groups: defaultdict[T, list[R]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return {key: tuple(values) for key, values in groups.items()}
