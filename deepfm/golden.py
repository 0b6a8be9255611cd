"""Rows with known answers, as a version's manifest holds them."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from deepfm.documents import Part


class Golden(Part):
    """Rows with known answers, by which whoever loads the model sees that it computes what it computed at export.

    They are made up: each value is drawn on its own from what the model file holds, so that no impression is copied.
    """

    rows: Annotated[tuple[dict[str, str | int | float | None], ...], Field(min_length=1, max_length=64)]
    """Raw values by field; null is missing."""
    probabilities: tuple[Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)], ...]
    """What the model file answered to each."""

    @model_validator(mode="after")
    def _one_answer_each(self) -> Self:
        if len(self.rows) != len(self.probabilities):
            raise ValueError(f"{len(self.probabilities)} probabilities, required one for each of {len(self.rows)} rows")
        return self
