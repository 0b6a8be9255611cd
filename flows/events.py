"""What the flows tell the Prefect server beyond their states, for automations to act on."""

from prefect.events import emit_event

NO_WORK = ("Skipped", "Planned", "Nothing to do")
"""What completed runs are called that have done nothing."""
STATE_NAMES = ("Rejected by the gate", "Inconclusive", "Not promoted", *NO_WORK)
"""What completed runs are called that did not promote."""
PROMOTED = "deepfm.champion.promoted"
"""A version has become champion."""


def resource_of(model: str) -> str:
    """What an event about a model is about, in Prefect's words."""
    return f"deepfm.model.{model}"


def tell_promotion(model: str, version: str) -> None:
    """The server has heard of a promotion."""
    emit_event(
        PROMOTED,
        resource={"prefect.resource.id": resource_of(model), "prefect.resource.name": model},
        payload={"version": version},
    )
