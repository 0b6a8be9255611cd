"""The last stage of a run: its report, kept beside its decision."""

import logging

from deepfm import layout
from deepfm.errors import AlreadyExistsError
from deepfm.workspace import Workspace

logger = logging.getLogger(__name__)


def keep_report(workspace: Workspace, version: str) -> str | None:
    """The key of the report on a version's decision, drawn if it is not there yet; None if nothing was decided.

    It comes after the promotion, of which it tells and which it cannot hold up.

    Raises:
        IntegrityError: terminal; a document is damaged.
        StoreUnavailableError: transient.
    """
    prefix = layout.decisions_prefix(workspace.model, layout.version_date(version))
    keys = {found.key for found in workspace.store.list(prefix)}
    decided = [key for key in keys if (found := layout.decision_result(key)) and found.version == version]
    if not decided:
        return None
    # Of several decisions the report is on the one that counts, which takes more than names to tell.
    folder = decided[0].rpartition("/")[0] if len(decided) == 1 else ""
    if folder and (kept := layout.file_key(folder, layout.REPORT_FILE)) in keys:
        return kept
    return _drawn(workspace, version, keys)


def _drawn(workspace: Workspace, version: str, keys: set[str]) -> str:
    from deepfm.report.facts import gather
    from deepfm.report.page import render

    facts = gather(workspace.store, workspace.config, version=version)
    key = layout.file_key(facts.folder, layout.REPORT_FILE)
    if key not in keys:
        try:
            workspace.store.create(key, render(facts).encode())
        except AlreadyExistsError:
            logger.info("another run has kept the report on %s", version)
    return key
