"""The promotion log and the champion: can a consumer that starts now load it and get an answer?"""

from collections.abc import Iterator

import numpy as np

from deepfm.doctor.checks import Check, attempt, failed, ok, skipped, warning
from deepfm.errors import IntegrityError
from deepfm.registry import Registry
from deepfm.serving import VersionModel, read_version
from deepfm.storage import ObjectStore

_RESTORE = "Restore the object from a backup or an older object version, or roll back: deepfm rollback."


def registry(store: ObjectStore, model: str) -> Iterator[Check]:
    """The checks of one model's log and champion; nothing is written."""
    log = Registry(store, model)

    def readable() -> Check:
        entries = log.entries()
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
        yield skipped("registry.champion", "the log cannot be read")
        return
    head = log.head()
    if head is None:
        yield skipped("registry.champion", "nothing was promoted yet")
        return
    if head.held:
        yield warning("registry.hold", "automatic promotions are on hold", "End it: deepfm release.")

    def answers() -> Check:
        manifest, onnx_bytes = read_version(store, model, head.version, manifest_sha256=head.manifest_sha256)
        champion = VersionModel(manifest, onnx_bytes, threads=1)
        (probability,) = champion.predict({field.name: [None] for field in champion.inputs})
        observed = f"{head.version}, {len(onnx_bytes):,} bytes, answers {probability:.4f} to missing values"
        if not (np.isfinite(probability) and 0 < probability < 1):
            step = "Roll back, and report the version."
            return failed("registry.champion", observed, step, exit_code=IntegrityError.exit_code)
        return ok("registry.champion", observed)

    yield attempt("registry.champion", answers, otherwise=_RESTORE)
