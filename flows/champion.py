"""The flows `promote` and `rollback`: what a person may do to the champion, from the Prefect UI."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from deepfm.config_file import load_config
from deepfm.promotion import Change, Operator, find_version
from deepfm.workspace import Workspace, open_workspace
from flows.artifacts import escaped, key_of
from flows.logs import shown_if_possible

_TAIL = 10
"""Log entries that the artifact shows."""


@flow(name="champion", flow_run_name="promote {version}", persist_result=False, validate_parameters=True)
def promote(config: str, version: str, reason: str, store: str | None = None, force: bool = False) -> State[Any]:  # noqa: FBT001, FBT002 - a switch in the form
    """Make a version champion by name; its files are verified and loaded first.

    Args:
        config: Path of the model's TOML.
        version: Id of the version, or its logical date.
        reason: Why; it is kept in the log.
        store: Where models are kept; unset, DEEPFM_STORE or the TOML's store.
        force: Promote also what the gate rejected, or never judged.
    """
    workspace = _workspace(config, store)
    chosen = find_version(workspace.registry, version)
    return _done(workspace, _operator(workspace, reason).promote(chosen, force=force))


@flow(name="champion", flow_run_name="roll back", persist_result=False, validate_parameters=True)
def rollback(
    config: str,
    reason: str,
    version: str = "",
    store: str | None = None,
    force: bool = False,  # noqa: FBT001, FBT002 - a switch in the form
) -> State[Any]:
    """Make an earlier champion champion again; its files are verified and loaded first.

    Args:
        config: Path of the model's TOML.
        reason: Why; it is kept in the log.
        version: Id or logical date of an earlier champion; empty, the one before the current.
        store: Where models are kept; unset, DEEPFM_STORE or the TOML's store.
        force: Accept also a version that never was champion.
    """
    workspace = _workspace(config, store)
    chosen = find_version(workspace.registry, version) if version else None
    return _done(workspace, _operator(workspace, reason).rollback(chosen, force=force))


def _workspace(config: str, store: str | None) -> Workspace:
    return open_workspace(load_config(Path(config)), store_url=store)


def _operator(workspace: Workspace, reason: str) -> Operator:
    # The log says who: the machine's user, and through which run a person did it.
    return Operator(workspace.store, workspace.model, actor=f"{workspace.actor} by {flow_run.name}", reason=reason)


def _done(workspace: Workspace, change: Change) -> State[Any]:
    line = f"{change.entry.version} is champion"
    line += f", instead of {change.before}" if change.changed and change.before else ""
    line += "" if change.changed else " already: nothing changed"
    rows = [
        f"| {entry.sequence} | {entry.created_utc:%F %H:%M} | {entry.operation} | {entry.version} "
        f"| {escaped(entry.actor)} | {escaped(entry.reason)} |"
        for entry in workspace.registry.entries()[-_TAIL:]
    ]
    table = ["| | when (UTC) | what | version | who | why |", "|---|---|---|---|---|---|", *rows]
    with shown_if_possible():
        create_markdown_artifact(
            "\n".join([f"## {escaped(line)}", "", *table]) + "\n",
            key=key_of(workspace.model, "champion"),
            description=f"Champion of {workspace.model}",
        )
    return Completed(message=line, data=change)
