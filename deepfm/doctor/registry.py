"""The promotion log and the champion: may one promote here, and can a consumer that starts now get an answer?"""

from collections.abc import Iterator, Sequence

import numpy as np

from deepfm import layout
from deepfm.doctor.checks import Check, attempt, failed, ok, skipped, warning
from deepfm.errors import AccessDeniedError, AlreadyExistsError, IntegrityError, NotFoundError
from deepfm.manifests import LogEntry
from deepfm.registry import Registry
from deepfm.serving import VersionModel, read_version
from deepfm.storage import ObjectStore

_RESTORE = "Restore the object from a backup or an older object version, or roll back: deepfm rollback."
_CHECKS = ("registry.cache", "registry.rights", "registry.champion")


def registry(store: ObjectStore, model: str, *, tried: bool) -> Iterator[Check]:
    """The checks of one model's log and champion; nothing is changed.

    Args:
        store: Where the model is.
        model: Its name.
        tried: Whether the store may be written to and was seen to refuse a key that is taken.
    """
    log = Registry(store, model)
    entries: list[LogEntry] = []

    def readable() -> Check:
        entries.extend(log.entries())
        if not entries:
            return ok("registry.log", f"empty: nothing of {model} was promoted yet")
        last = entries[-1]
        return ok(
            "registry.log",
            f"{len(entries)} entries without a gap; the last is a {last.operation} of {last.version} by {last.actor}",
        )

    checked = attempt("registry.log", readable, otherwise=_RESTORE)
    yield checked
    if checked.status == "failed":
        yield from (skipped(name, "the log cannot be read") for name in _CHECKS)
        return
    yield attempt("registry.cache", lambda: _cache(log, entries))
    if not entries:
        yield from (skipped(name, "nothing was promoted yet") for name in _CHECKS[1:])
        return
    if tried:
        yield attempt("registry.rights", lambda: _rights(store, entries[-1]))
    else:
        yield skipped("registry.rights", "asked only where create if absent is ok: nothing may be overwritten")
    if entries[-1].held:
        yield warning("registry.hold", "automatic promotions are on hold", "End it: deepfm release.")
    yield attempt("registry.champion", lambda: _champion(store, entries[-1]), otherwise=_RESTORE)


def _cache(log: Registry, entries: Sequence[LogEntry]) -> Check:
    name = "registry.cache"
    try:
        found = log.cached()
    except IntegrityError as damage:
        step = (
            "The log decides, and any writer repairs it, such as the next promotion. If the log should be longer than "
            "it is, restore its entries from a backup."
        )
        return warning(name, f"champion.json is ignored: {damage}", step)
    if found is None and entries:
        step = "The next promotion writes it, if its identity may."
        return warning(name, "there is no champion.json: every reader begins at entry 1", step)
    if found is None:
        return ok(name, "there is no champion.json, as nothing was promoted yet")
    return ok(name, f"champion.json is entry {found[0].sequence} of {len(entries)}")


def _rights(store: ObjectStore, head: LogEntry) -> Check:
    """Whether this identity may promote: the head's own bytes are created under the head's own key, which is taken.

    A right is judged before a condition is. Even a store that forgot the condition would only store the same bytes.
    """
    name, key = "registry.rights", layout.log_entry(head.model, head.sequence)
    try:
        store.create(key, store.read(key))
    except AlreadyExistsError:
        return ok(name, "may promote: the log can be appended to")
    except AccessDeniedError as denial:
        below = layout.log_prefix(head.model)
        step = f"Where this identity is to promote, give it the right to create objects (s3:PutObject) below {below}/."
        return warning(name, f"may read and not promote ({denial.problem})", step)
    return ok(name, "may promote: the log can be appended to, by an answer that was lost at first")


def _champion(store: ObjectStore, head: LogEntry) -> Check:
    name = "registry.champion"
    try:
        manifest, onnx_bytes = read_version(store, head.model, head.version, manifest_sha256=head.manifest_sha256)
    except NotFoundError as gone:
        observed = f"log entry {head.sequence} names {head.version}, which is not whole: {gone}"
        return failed(name, observed, _RESTORE, exit_code=IntegrityError.exit_code)
    champion = VersionModel(manifest, onnx_bytes, threads=1)
    (probability,) = champion.predict({field.name: [None] for field in champion.inputs})
    observed = f"{head.version}, {len(onnx_bytes):,} bytes, answers {probability:.4f} to missing values"
    if not (np.isfinite(probability) and 0 < probability < 1):
        return failed(name, observed, "Roll back, and report the version.", exit_code=IntegrityError.exit_code)
    return ok(name, observed)
