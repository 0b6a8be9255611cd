"""What the flows tell the Prefect server beyond their states, for automations to act on."""

from prefect.events import emit_event

from deepfm.retraining import RunOutcome

PROMOTED = "deepfm.champion.promoted"
"""A version has become champion."""


def resource_of(model: str) -> str:
    """What an event about a model is about, in Prefect's words."""
    return f"deepfm.model.{model}"


def tell_promotion(model: str, outcome: RunOutcome) -> None:
    """The server has heard of a promotion."""
    emit_event(
        PROMOTED,
        resource={"prefect.resource.id": resource_of(model), "prefect.resource.name": model},
        payload=outcome.model_dump(mode="json", include={"date", "version", "challenger_auc", "champion_auc"}),
    )
