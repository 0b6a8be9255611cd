"""One partition judged: files first, then the profile, then the rules. What cannot be read is refused, not raised."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from deepfm import layout
from deepfm.config import RetrainConfig
from deepfm.data.partitions import read_schemas
from deepfm.data.profile import DayFigures, Profile, profile_partition, unreadable_reason
from deepfm.data.schema import Column, Role, columns_of
from deepfm.data.validation import check_files, explain_bad_rows, judge, skipped_checks
from deepfm.errors import DataRejectedError
from deepfm.manifests import Finding, Partition
from deepfm.storage import LocalCache, ObjectStore

_UNREADABLE: dict[Role, str] = {
    "label": "values other than 0 and 1",
    "event_time": "values that are no time",
    "string": "numbers with a fraction, or text that is not UTF-8",
    "key": "numbers with a fraction, or text that is not UTF-8",
    "int64": "values that are no integer of 64 bits",
    "numeric": "text that is no number",
}
"""What the cells of a column hold that cannot be read as what it is."""


class Judged(NamedTuple):
    """A partition's findings, figures and files."""

    accepted: bool
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]
    day: DayFigures
    files: Mapping[str, Path]


def judge_partition(
    source: ObjectStore, partition: Partition, config: RetrainConfig, *, cache: LocalCache, scratch: Path
) -> Judged:
    """The judgement on a partition, and in `scratch` its profile, quarantined rows and Great Expectations' results.

    Raises:
        StoreUnavailableError: transient.
    """
    skipped = skipped_checks(config)
    try:
        findings = check_files(read_schemas(source, partition, config, cache=cache), config)
        if _broken(findings):
            return Judged(accepted=False, findings=findings, skipped=skipped, day=DayFigures(), files={})
        profile = profile_partition(source, partition, config, cache=cache, scratch=scratch)
    except DataRejectedError as error:
        unreadable = Finding(
            rule="readable", column="*", severity="critical", passed=False, observed=str(error), required="whole files"
        )
        return Judged(accepted=False, findings=(unreadable,), skipped=skipped, day=DayFigures(), files={})
    judgement = judge(profile.frame, config, bad_rows=profile.day.reasons)
    findings = (*findings, *_unreadable(profile.day, config), *judgement.findings, *explain_bad_rows(profile.day))
    files = _write(profile, judgement.native_json, scratch=scratch)
    return Judged(not _broken(findings), findings, skipped, profile.day, files)


def _unreadable(day: DayFigures, config: RetrainConfig) -> Iterator[Finding]:
    """A critical finding for each column of which too many cells cannot be read: the cause of what follows from it."""
    limit = config.validation.max_bad_share
    for column in columns_of(config):
        share = day.reasons.get(unreadable_reason(column.name), 0) / max(day.rows, 1)
        if share > limit:
            yield Finding(
                rule="readable",
                column=column.name,
                severity="critical",
                passed=False,
                observed=f"holds {_UNREADABLE[column.role]} in {100 * share:.3g} % of the rows",
                required=f"at most {100 * limit:.3g} % (validation.max_bad_share){_remedy(column, config)}",
            )


def _remedy(column: Column, config: RetrainConfig) -> str:
    if column.role == "numeric":
        return f'; for text set fields.{column.name}.kind to "categorical"'
    if column.role == "int64":
        return f'; for other values set fields.{column.name}.dtype to "string"'
    if column.role == "event_time":
        needs = {"text without a zone needs": "event_time_zone", "numbers need": "event_time_unit"}
        return "".join(f"; {need} data.{key}" for need, key in needs.items() if getattr(config.data, key) is None)
    return ""


def _broken(findings: tuple[Finding, ...]) -> bool:
    return any(not finding.passed and finding.severity == "critical" for finding in findings)


def _write(profile: Profile, native_json: bytes, *, scratch: Path) -> dict[str, Path]:
    frame, native = scratch / "profile.parquet", scratch / "great_expectations.json"
    pq.write_table(pa.Table.from_pandas(profile.frame, preserve_index=False), frame, write_page_checksum=True)
    native.write_bytes(native_json)
    return {frame.name: frame, layout.QUARANTINE_FILE: profile.quarantine, native.name: native}
