"""One partition judged: files first, then the profile, then the rules. What cannot be read is refused, not raised."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from deepfm import layout
from deepfm.config import RetrainConfig
from deepfm.data.partitions import read_schemas
from deepfm.data.profile import DayFigures, Profile, profile_partition
from deepfm.data.validation import check_files, explain_bad_rows, judge, skipped_checks
from deepfm.errors import DataRejectedError
from deepfm.manifests import Finding, Partition
from deepfm.storage import LocalCache, ObjectStore


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
        findings = check_files(read_schemas(source, partition, cache=cache), config)
        if _broken(findings):
            return Judged(accepted=False, findings=findings, skipped=skipped, day=DayFigures(), files={})
        profile = profile_partition(source, partition, config, cache=cache, scratch=scratch)
    except DataRejectedError as error:
        unreadable = Finding(
            rule="readable", column="*", severity="critical", passed=False, observed=str(error), required="whole files"
        )
        return Judged(accepted=False, findings=(unreadable,), skipped=skipped, day=DayFigures(), files={})
    judgement = judge(profile.frame, config, bad_rows=profile.day.reasons)
    findings = (*findings, *judgement.findings, *explain_bad_rows(profile.day))
    files = _write(profile, judgement.native_json, scratch=scratch)
    return Judged(not _broken(findings), findings, skipped, profile.day, files)


def _broken(findings: tuple[Finding, ...]) -> bool:
    return any(not finding.passed and finding.severity == "critical" for finding in findings)


def _write(profile: Profile, native_json: bytes, *, scratch: Path) -> dict[str, Path]:
    frame, native = scratch / "profile.parquet", scratch / "great_expectations.json"
    pq.write_table(pa.Table.from_pandas(profile.frame, preserve_index=False), frame, write_page_checksum=True)
    native.write_bytes(native_json)
    return {frame.name: frame, layout.QUARANTINE_FILE: profile.quarantine, native.name: native}
