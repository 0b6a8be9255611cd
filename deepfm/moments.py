"""Sums of a column, as a prepared day holds them."""

from typing import Annotated

from pydantic import Field

from deepfm.documents import Part


class Moments(Part):
    """Sums of a numeric column's valid values, from which mean and deviation of any window follow."""

    count: int
    """Number of values that are neither missing nor infinite."""
    mean: Annotated[float, Field(allow_inf_nan=False)]
    """Their mean."""
    m2: Annotated[float, Field(allow_inf_nan=False)]
    """Sum of squared distances from the mean (Welford)."""
