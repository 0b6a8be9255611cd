"""How large a click world is and what happens in it; `demo` learns well in minutes, `full` is the size to judge by."""

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from deepfm.config import Count, NonNegative, Section
from deepfm.errors import ConfigError, UsageError

Seed = Annotated[int, Field(ge=0, lt=2**63)]
SmallShare = Annotated[float, Field(ge=0.0, le=0.5)]


class WorldConfig(Section):
    """Everything that a click world depends on; two equal ones give equal rows."""

    seed: Seed = 0
    """Changes everything that is drawn."""
    start: dt.date = dt.date(2026, 3, 2)
    """First day of the world, in UTC."""
    days: Annotated[int, Field(ge=1, le=3660, exclude=True)] = 10
    """Days that `write_world` writes; more of them change none of the earlier ones."""
    rows_per_day: Annotated[int, Field(ge=100, le=10**9)] = 200_000
    """Impressions that happen on a day."""
    ctr: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.01
    """Click-through rate that every day has on average over its impressions."""
    users: Count = 20_000
    """Users, from very active to rare."""
    items: Count = 5_000
    """Items on the first day, from very popular to rare."""
    new_items_per_day: Annotated[int, Field(ge=0, le=10**6)] = 100
    """Items that arrive on each later day; for some days they are shown more than they will be."""
    categories: Count = 40
    """Categories; an item has one."""
    brands: Count = 200
    """Brands; an item has one."""
    drift: NonNegative = 0.08
    """Pace at which item effects, category effects and popularity wander: two days `t` apart correlate at
    exp(-(drift * t)^2 / 2)."""
    late_share: SmallShare = 0.01
    """Share of a day's impressions that is delivered in the next day's partition, with its own event time."""
    duplicate_share: SmallShare = 0.005
    """Share of a partition's rows that is delivered twice, byte for byte."""
    missing_price_share: SmallShare = 0.03
    """Share of the items whose price nobody knows."""
    poisoned_day: dt.date | None = None
    """Day whose partition is delivered broken: prices in cents, most brands missing, far too many clicks."""

    @model_validator(mode="after")
    def _poison_lies_in_the_world(self) -> Self:
        if self.poisoned_day is not None and self.poisoned_day < self.start:
            msg = f"poisoned_day {self.poisoned_day} lies before start {self.start}"
            raise ValueError(msg)
        return self


PRESETS: Mapping[str, WorldConfig] = {
    "demo": WorldConfig(
        rows_per_day=40_000, ctr=0.05, users=5_000, items=1_000, new_items_per_day=20, categories=20, brands=50
    ),
    "full": WorldConfig(days=15),
}
"""Ready worlds by name."""


def preset_world(name: str, *, overrides: Mapping[str, Any] | None = None) -> WorldConfig:
    """The ready configuration of that name, with single values replaced.

    Args:
        name: `demo` or `full`.
        overrides: Values by field name, such as `{"seed": 3}`.

    Raises:
        UsageError: terminal; there is no such preset.
        ConfigError: terminal; an override that no world can have.
    """
    if name not in PRESETS:
        raise UsageError("no such click world", observed=repr(name), required=f"one of {', '.join(PRESETS)}")
    values = {field: getattr(PRESETS[name], field) for field in WorldConfig.model_fields}
    try:
        return WorldConfig.model_validate({**values, **(overrides or {})})
    except ValidationError as cause:
        first = cause.errors()[0]
        path = ".".join(str(part) for part in first["loc"]) or "values"
        raise ConfigError(f"click world: {path}: {first['msg'].removeprefix('Value error, ')}") from cause
