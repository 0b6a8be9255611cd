"""What can be wrong between a promotion log and whoever reads or appends to it, each as the error that says so."""

from collections.abc import Set as AbstractSet

from deepfm import layout
from deepfm.errors import AccessDeniedError, ConflictError, DeepFMError, IntegrityError, StoreUnavailableError
from deepfm.manifests import LogEntry


def missing(sequence: int, listed: AbstractSet[int], *, where: str) -> DeepFMError:
    """An entry below others is not given; transient if it is listed, because a store may lag, else a gap."""
    if sequence in listed:
        return StoreUnavailableError(
            f"log entry {sequence} is listed and is not given", where=where, next_step="Try again later."
        )
    return IntegrityError(
        f"log entry {sequence} is missing",
        observed=f"entry {max(listed)} exists",
        required="a log without gaps",
        where=where,
        next_step="Restore the entry from a backup or an older object version.",
    )


def shorter(sequence: int, reached: int, *, where: str) -> StoreUnavailableError:
    """The log ends below an entry that was seen before."""
    return StoreUnavailableError(
        "store shows less of the log than before",
        observed=f"entry {sequence} as the last one",
        required=f"entry {reached}",
        where=where,
        next_step="Try again later; if it repeats, restore what is missing from a backup.",
    )


def taken(stored: LogEntry, *, where: str) -> ConflictError:
    """Somebody else has the number."""
    return ConflictError(
        f"log entry {stored.sequence} was appended by somebody else",
        observed=f"{stored.operation} of {stored.version} by {stored.actor} on {stored.created_utc:%F %T%z}",
        where=where,
        next_step="Decide again, against the new champion.",
    )


def not_kept(sequence: int, *, where: str) -> StoreUnavailableError:
    """The store has acknowledged an entry, or said that there is one, and gives none."""
    return StoreUnavailableError(
        f"log entry {sequence} is not there after it was written",
        where=where,
        next_step="Try again later; if it repeats, the store does not keep what it acknowledges.",
    )


def not_permitted(denial: AccessDeniedError, *, model: str, store: str) -> AccessDeniedError:
    """Whoever appends has no right to, though it may have the right to all before."""
    log, probes = layout.log_prefix(model), layout.model_probes_prefix(model)
    return AccessDeniedError(
        "promotion is not permitted",
        observed=f"{denial.problem}; this identity may store versions and not append to the log",
        required=f"s3:PutObject (on a folder: to write) below {log}/ and, before its first entry, {probes}/",
        where=denial.where or store,
        next_step="Give it that right, or let somebody run the same who has it: what is stored stays.",
    )
