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
"""

import datetime as dt
import re

from deepfm.errors import UsageError

MANIFEST = "manifest.json"
MODELS = "models"
MODEL_FILE = "model.onnx"
"""Name of the model file in a version's attempt."""
QUARANTINE_FILE = "quarantine.parquet"
"""Name of the file of the rows that validation set aside."""
DECISION_FILE = "decision.json"
"""Name of the verdict in its folder."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})-[0-9a-f]{16}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LOG = re.compile(r"models/[a-z0-9][a-z0-9_-]{0,63}/log/([0-9]{12})\.json")


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
    match = _VERSION.fullmatch(version)
    if match is None or _date(match.group(1)) is None:
        raise UsageError(
            "version id is not allowed", observed=ascii(version[:80]), required="YYYY-MM-DD-<16 hex digits>"
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


def partition_prefix(pattern: str, logical_date: dt.date) -> str:
    """The folder of one day's raw impressions below the source, without a slash at the end."""
    return pattern.replace("{date}", logical_date.isoformat()).strip("/")


def partition_date(pattern: str, key: str) -> dt.date | None:
    """The logical date whose folder a raw object lies in, or None for other objects."""
    head, tail = pattern.strip("/").split("{date}")
    match = re.match(re.escape(head) + r"([0-9]{4}-[0-9]{2}-[0-9]{2})" + re.escape(tail) + "/", key)
    return None if match is None else _date(match.group(1))


def day_prefix(model: str, logical_date: dt.date) -> str:
    """Everything that is known of one day."""
    return f"days/{checked_name(model)}/{logical_date.isoformat()}"


def validated_prefix(model: str, logical_date: dt.date, key: str) -> str:
    """Validation report, profile and quarantined rows of a day."""
    return f"{day_prefix(model, logical_date)}/validated-{checked_file(key)}"


def prepared_prefix(model: str, logical_date: dt.date, key: str) -> str:
    """Sampled and encoded rows of a day."""
    return f"{day_prefix(model, logical_date)}/prepared-{checked_file(key)}"


def window_prefix(model: str, logical_date: dt.date, key: str) -> str:
    """Vocabularies and remap arrays of a window."""
    return f"windows/{checked_name(model)}/{logical_date.isoformat()}-{checked_file(key)}"


def training_prefix(model: str, version: str) -> str:
    """Resume state and result of the training of a version."""
    return f"training/{checked_name(model)}/{checked_version(version)}"


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
