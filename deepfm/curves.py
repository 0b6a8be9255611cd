"""What a decision rests on beyond its figures: the curves of both models on the holdout, small whatever its size.

They are stored beside the decision and before it. Nothing is decided by them: the report draws them.
"""

import datetime as dt
from typing import Annotated

from pydantic import Field

from deepfm.documents import Document, Part

Rows = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
MAX_ROC_POINTS = 200
CALIBRATION_BINS = 20
MAX_SCORE_BINS = 40


class CalibrationBin(Part):
    """Rows of about the same score: what they were promised and what came."""

    mean_score: Probability
    """Mean of their scores."""
    rows: Annotated[int, Field(ge=1)]
    """How many they are."""
    clicks: Rows
    """Clicks among them."""
    low: Probability
    """Lower end of the 95 % interval of their click rate (Wilson, rows taken as independent)."""
    high: Probability
    """Upper end of it."""

    @property
    def click_rate(self) -> float:
        """Clicks over rows."""
        return self.clicks / self.rows


class ModelCurves(Part):
    """One version on the holdout, as counts of rows."""

    version: str
    """The version."""
    roc_negatives: tuple[Rows, ...]
    """Negatives that score at or above each threshold, thresholds falling: from 0 to all of them."""
    roc_clicks: tuple[Rows, ...]
    """Clicks that score at or above the same thresholds: exact, however few the thresholds are."""
    calibration: tuple[CalibrationBin, ...]
    """At most 20 bins of about equal counts, by rising score; equal scores share a bin."""
    negatives_by_score: tuple[Rows, ...]
    """Negatives in each bin of the document's logit grid."""
    clicks_by_score: tuple[Rows, ...]
    """Clicks in the same bins."""


class Curves(Document):
    """The curves behind one decision; create-only, as the decision is."""

    model: str
    """The model."""
    version: str
    """The challenger."""
    logical_date: dt.date
    """The holdout day."""
    compared_entry: int
    """Log entry whose champion it was compared with; 0 if there was none."""
    holdout_key: str
    """Key of the holdout's validation: which delivery was scored."""
    gate: dict[str, str | int | float]
    """The gate's configuration at the time, by key."""
    logit_start: float
    """Lower edge of the first score bin, in log-odds."""
    logit_width: Annotated[float, Field(gt=0.0)]
    """Width of every score bin, in log-odds."""
    challenger: ModelCurves
    """The challenger's."""
    champion: ModelCurves | None
    """The champion's, if both were scored on these rows."""
