"""Object keys: the only place where parts are joined with a slash, and where a name is checked before it becomes one.

days/<model>/<date>/validated-<key>/…                 one partition, judged
days/<model>/<date>/prepared-<key>/…                  the same, sampled and encoded
windows/<model>/<date>-<key>/…                        vocabularies and remap arrays of a training window
training/<model>/<version>/…                          resume state and result of a training
models/<model>/versions/<version>/<attempt>/…         files of one attempt
models/<model>/versions/<version>/manifest.json       create-only: the version
models/<model>/decisions/<date>/<version>-vs-<n>-<gate>/… create-only: the verdict against log entry n
models/<model>/log/<000000000001>.json                create-only: the commit
models/<model>/champion.json                          a cache of the log's head
models/<model>/probes/…                               objects by which a store is tried out before the first entry
probes/…                                              other objects by which a store is tried out, deleted again
"""

import datetime as dt
import re
from functools import lru_cache
from typing import NamedTuple

from deepfm.errors import UsageError

MANIFEST = "manifest.json"
MODELS = "models"
PROBES = "probes"
"""Folder of the objects by which a store is tried out."""
MODEL_FILE = "model.onnx"
"""Name of the model file in a version's attempt."""
ROW_SCHEMA_FILE = "inputs.schema.json"
"""Name of the JSON Schema of a row beside a model file that was pulled."""
QUARANTINE_FILE = "quarantine.parquet"
"""Name of the file of the rows that validation set aside."""
VALIDATION_FILE = "validation.json"
"""Name of the judgement on a day in its folder."""
DECISION_FILE = "decision.json"
"""Name of the verdict in its folder."""
CURVES_FILE = "curves.json"
"""Name of the curves beside the verdict."""
REPORT_FILE = "report.html"
"""Name of the report beside the verdict."""
VERSIONS_SHOWN = "Those that were promoted are shown by: deepfm history --config M.toml"
"""Next step where a version was named that is none."""
DATA_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
"""How the name of a raw data file ends, in lower case; other files of a partition are ignored."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})-[0-9a-f]{16}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DAY_RESULT = re.compile(
    r"days/[^/]+/([0-9-]{10})/(?:validated-(?P<validated>[^/]+)/validation|prepared-(?P<prepared>[^/]+)/manifest)\.json"
)
_DAY_FILE = re.compile(r"(?:.*/)?days/[^/]+/[0-9]{4}-[0-9]{2}-[0-9]{2}/(?:validated|prepared)-[0-9a-f]+/.*")
_VERSION_RESULT = re.compile(r"models/[^/]+/versions/([^/]+)/manifest\.json")
_DECISION_RESULT = re.compile(
    r"models/[^/]+/decisions/[^/]+/(?P<version>[0-9a-f-]{27})-vs-(?P<entry>[0-9]+)-(?P<gate>[^/]+)/decision\.json"
)
_LOG = re.compile(r"models/[a-z0-9][a-z0-9_-]{0,63}/log/([0-9]{12})\.json")
_PLACEHOLDER = re.compile(r"\{date(?::((?:[^{}%]|%[Ymdj])+))?\}")
_DATE_PART = re.compile("%(.)")
_ISO = "%Y-%m-%d"
_DIGITS = {"Y": 4, "m": 2, "d": 2, "j": 3}
"""How many digits each part of a date has: so a name can be read back in one way only."""


class DayResult(NamedTuple):
    """A judged or a prepared day, as the key of its document tells: one of the two stage keys is empty."""

    logical_date: dt.date
    validated: str
    prepared: str


class DecisionResult(NamedTuple):
    """A decision, as the key of its document tells."""

    version: str
    entry: int
    gate_key: str


def is_day_file(key: str) -> bool:
    """Whether a key, below whatever folder, is that of a file that a stage made of a day: no clicks as delivered."""
    return _DAY_FILE.fullmatch(key) is not None


def checked_name(name: str) -> str:
    """The model name itself, if it can be part of a key.

    Raises:
        UsageError: terminal; the name has other characters or is too long.
    """
    if not _NAME.fullmatch(name):
        raise UsageError("model name is not allowed", observed=ascii(name[:80]), required="[a-z0-9][a-z0-9_-]{0,63}")
    return name


def checked_version(version: str) -> str:
    """The version id itself, if it is `<date>-<16 hex>` and the date exists.

    Raises:
        UsageError: terminal; the id has another form.
    """
    if not is_version(version):
        raise UsageError(
            "version id is not allowed",
            observed=ascii(version[:80]),
            required="YYYY-MM-DD-<16 hex digits>",
            next_step=VERSIONS_SHOWN,
        )
    return version


def checked_file(name: str) -> str:
    """A file name itself, if it is one plain path component.

    Raises:
        UsageError: terminal; the name could leave its folder.
    """
    if not _FILE.fullmatch(name):
        raise UsageError("file name is not allowed", observed=ascii(name[:80]), required="letters, digits, . _ -")
    return name


def version_id(logical_date: dt.date, key: str) -> str:
    """The id of the version that these inputs make."""
    return checked_version(f"{logical_date.isoformat()}-{key}")


def version_date(version: str) -> dt.date:
    """The logical date that a version id begins with."""
    return dt.date.fromisoformat(checked_version(version)[:10])


def checked_partition(template: str) -> str:
    """The template of a day's folder or file itself, if every name that it makes tells its day.

    Raises:
        UsageError: terminal; the template has another placeholder, tells no whole date or could leave the source.
    """
    parts = set(_DATE_PART.findall("".join(form or _ISO for form in _PLACEHOLDER.findall(template))))
    whole = "Y" in parts and ("j" in parts or {"m", "d"} <= parts)
    name = _rendered(template, dt.date(2001, 2, 3))
    steps = name.removesuffix("/").split("/")
    if not whole or "{" in name or "}" in name or not name.isprintable() or not {"", ".", ".."}.isdisjoint(steps):
        raise UsageError(
            "template of a day is not allowed",
            observed=ascii(template[:80]),
            required="a relative folder or file with {date} or, say, {date:%Y/%m/%d} in it",
        )
    return template


def partition_is_file(template: str) -> bool:
    """Whether a template names one file a day; a slash at its end makes it a folder whatever its name."""
    return template.lower().endswith(DATA_SUFFIXES)


def partition_prefix(template: str, logical_date: dt.date) -> str:
    """The folder or the one file of a day's raw impressions below the source, without a slash at the end."""
    return _rendered(template, logical_date).strip("/")


def partition_date(template: str, key: str) -> dt.date | None:
    """The logical date that a raw object belongs to, or None for other objects."""
    match = _partition_pattern(template).fullmatch(key)
    if match is None:
        return None
    parts = match.groupdict()
    try:
        if "m" in parts and "d" in parts:
            day = dt.date(int(parts["Y"]), int(parts["m"]), int(parts["d"]))
        else:
            day = dt.date(int(parts["Y"]), 1, 1) + dt.timedelta(days=int(parts["j"]) - 1)
    except (ValueError, OverflowError):
        return None
    # Day 366 of a short year and a day of the year that is not the month's are no names of ours.
    return day if match[1] == partition_prefix(template, day) else None


def partitions_folder(template: str) -> str:
    """The narrowest folder that all partitions lie in; empty for the source itself."""
    return template.split("{", maxsplit=1)[0].rpartition("/")[0]


def day_prefix(model: str, logical_date: dt.date) -> str:
    """Everything that is known of one day."""
    return f"{days_prefix(model)}/{logical_date.isoformat()}"


def validated_prefix(model: str, logical_date: dt.date, key: str) -> str:
    """Validation report, profile and quarantined rows of a day."""
    return f"{day_prefix(model, logical_date)}/validated-{checked_file(key)}"


def prepared_prefix(model: str, logical_date: dt.date, key: str) -> str:
    """Sampled and encoded rows of a day."""
    return f"{day_prefix(model, logical_date)}/prepared-{checked_file(key)}"


def window_prefix(model: str, logical_date: dt.date, key: str) -> str:
    """Vocabularies and remap arrays of a window."""
    return f"windows/{checked_name(model)}/{logical_date.isoformat()}-{checked_file(key)}"


def trainings_prefix(model: str) -> str:
    """Everything that is known of any training."""
    return f"training/{checked_name(model)}"


def training_prefix(model: str, version: str) -> str:
    """Resume state and result of the training of a version."""
    return f"{trainings_prefix(model)}/{checked_version(version)}"


def training_request(model: str, version: str) -> str:
    """What is to be trained as a version, for another process."""
    return f"{training_prefix(model, version)}/request.json"


def training_result(model: str, version: str) -> str:
    """The finished training of a version."""
    return f"{training_prefix(model, version)}/result.json"


def version_prefix(model: str, version: str) -> str:
    """All attempts at a version."""
    return f"models/{checked_name(model)}/versions/{checked_version(version)}"


def attempt_prefix(model: str, version: str, attempt: str) -> str:
    """The files of one attempt at a version."""
    return f"{version_prefix(model, version)}/{checked_file(attempt)}"


def version_manifest(model: str, version: str) -> str:
    """The create-only object that makes a version exist."""
    return f"{version_prefix(model, version)}/{MANIFEST}"


def decisions_prefix(model: str, logical_date: dt.date) -> str:
    """All decisions on challengers of one logical date."""
    return f"models/{checked_name(model)}/decisions/{logical_date.isoformat()}"


def decision_prefix(model: str, logical_date: dt.date, version: str, *, entry: int, gate_key: str) -> str:
    """The decision of a gate's configuration on a version against log entry `entry` (0: there was no champion)."""
    return f"{decisions_prefix(model, logical_date)}/{checked_version(version)}-vs-{entry}-{checked_file(gate_key)}"


def days_prefix(model: str) -> str:
    """Everything that is known of any day."""
    return f"days/{checked_name(model)}"


def day_result(key: str) -> DayResult | None:
    """The judged or prepared day whose document a key names, or None for other keys."""
    match = _DAY_RESULT.fullmatch(key)
    date = _date(match.group(1)) if match else None
    if match is None or date is None:
        return None
    return DayResult(date, match["validated"] or "", match["prepared"] or "")


def version_result(key: str) -> str | None:
    """The version whose manifest a key names, or None for other keys."""
    match = _VERSION_RESULT.fullmatch(key)
    return match.group(1) if match and is_version(match.group(1)) else None


def decision_result(key: str) -> DecisionResult | None:
    """The decision whose document a key names, or None for other keys."""
    match = _DECISION_RESULT.fullmatch(key)
    if match is None or not is_version(match["version"]):
        return None
    return DecisionResult(match["version"], int(match["entry"]), match["gate"])


def model_prefix(model: str) -> str:
    """Versions, decisions and promotion log of a model."""
    return f"{MODELS}/{checked_name(model)}"


def versions_prefix(model: str) -> str:
    """All versions of a model."""
    return f"models/{checked_name(model)}/versions"


def model_of(key: str) -> str:
    """The model whose folder under `models/` a key lies in; empty for other keys."""
    head, _, rest = key.partition("/")
    name, slash, _ = rest.partition("/")
    return name if head == MODELS and slash and _NAME.fullmatch(name) else ""


def log_prefix(model: str) -> str:
    """All log entries of a model."""
    return f"models/{checked_name(model)}/log"


def log_entry(model: str, sequence: int) -> str:
    """The create-only object of one log entry; sequence numbers begin at 1."""
    return f"{log_prefix(model)}/{sequence:012d}.json"


def log_sequence(key: str) -> int:
    """The sequence number in a log entry's key.

    Raises:
        UsageError: terminal; the key is not that of a log entry.
    """
    match = _LOG.fullmatch(key)
    if match is None:
        raise UsageError("not a log entry's key", observed=ascii(key[:160]))
    return int(match.group(1))


def champion_cache(model: str) -> str:
    """The cache of the log's head."""
    return f"models/{checked_name(model)}/champion.json"


def probe_key(name: str) -> str:
    """The key of an object by which a store is tried out."""
    return file_key(PROBES, name)


def model_probes_prefix(model: str) -> str:
    """The objects by which a store is tried out where the rights may end at one model."""
    return f"{model_prefix(model)}/probes"


def model_probe_key(model: str, name: str) -> str:
    """The key of such an object."""
    return file_key(model_probes_prefix(model), name)


def file_key(prefix: str, name: str) -> str:
    """The key of a plain file below a prefix."""
    return f"{prefix}/{checked_file(name)}"


def name_below(prefix: str, key: str) -> str:
    """What follows a prefix in a key."""
    return key.removeprefix(f"{prefix}/")


def _date(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


def _rendered(template: str, day: dt.date) -> str:
    # Not strftime: systems differ in what they make of a year before 1000.
    numbers = {"Y": day.year, "m": day.month, "d": day.day, "j": day.timetuple().tm_yday}

    def digits(part: re.Match[str]) -> str:
        return f"{numbers[part[1]]:0{_DIGITS[part[1]]}}"

    return _PLACEHOLDER.sub(lambda placeholder: _DATE_PART.sub(digits, placeholder[1] or _ISO), template)


@lru_cache
def _partition_pattern(template: str) -> re.Pattern[str]:
    """What matches the keys of all days; its first group is the folder or file, the named ones the parts of a date."""
    seen: set[str] = set()

    def group(part: re.Match[str]) -> str:
        letter = part[1]
        if letter in seen:
            return f"(?P={letter})"
        seen.add(letter)
        return f"(?P<{letter}>[0-9]{{{_DIGITS[letter]}}})"

    # Text and formats in turn; re.escape leaves the per cent sign as it is.
    pieces = _PLACEHOLDER.split(template.strip("/"))
    pattern = "".join(
        re.escape(text) + _DATE_PART.sub(group, re.escape(form))
        for text, form in zip(pieces[::2], [part or _ISO for part in pieces[1::2]] + [""], strict=True)
    )
    return re.compile(f"({pattern})" + ("" if partition_is_file(template) else "/.+"))


def is_version(text: str) -> bool:
    """Whether a text has the form of a version's id."""
    match = _VERSION.fullmatch(text)
    return match is not None and _date(match.group(1)) is not None
