"""What the Prefect server hears of beyond the states of runs, for automations to act on.

Nothing of Prefect is imported before a server is known to be in use: the library calls `tell_server` from a plain
command line, too.
"""

import os
import sys
from typing import Any

from deepfm.events import Event, Kind

NO_WORK = ("Skipped", "Planned", "Nothing to do")
"""What completed runs are called that have done nothing."""
STATE_NAMES = ("Rejected by the gate", "Inconclusive", "Not promoted", *NO_WORK)
"""What completed runs are called that did not promote."""
PROMOTED = "deepfm.champion.promoted"
"""A version has become champion."""
NAMES: dict[Kind, str] = {
    "promote": PROMOTED,
    "reject": "deepfm.challenger.rejected",
    "rollback": "deepfm.champion.rolled_back",
    "hold": "deepfm.promotions.held",
    "release": "deepfm.promotions.released",
    "retire": "deepfm.versions.retired",
}
"""What events are called in Prefect."""


def resource_of(model: str) -> str:
    """What an event about a model is about, in Prefect's words."""
    return f"deepfm.model.{model}"


def tell_server(event: Event) -> None:
    """The Prefect server has heard of an event; nothing, where neither a server is configured nor a flow runs.

    Raises:
        httpx.HTTPError: transient where the server does not answer; terminal where it refuses.
    """
    if "prefect" not in sys.modules and not os.environ.get("PREFECT_API_URL"):
        return
    from prefect.context import FlowRunContext
    from prefect.events import emit_event
    from prefect.settings import get_current_settings

    said: dict[str, Any] = {
        "event": NAMES[event.kind],
        "resource": {"prefect.resource.id": resource_of(event.model), "prefect.resource.name": event.model},
        "payload": event.model_dump(mode="json"),
    }
    if FlowRunContext.get():
        emit_event(**said)  # the run's own events go the same way, and this one names the run
    elif get_current_settings().api.url:
        _post(said)


def _post(said: dict[str, Any]) -> None:
    """The server has an event, by one request: `emit_event` would hold up the exit for a server that is away."""
    from prefect.client.orchestration import get_client
    from prefect.events import Event as Sent

    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[Sent(**said).model_dump(mode="json")]).raise_for_status()
