"""What was found in a source: the document that `deepfm init --json` prints and the TOML is written from."""

import datetime as dt
from collections.abc import Sequence
from typing import Literal

from deepfm.documents import Part

Role = Literal["label", "event_time", "event_key", "group", "field", "left_out"]


class FoundColumn(Part):
    """One column and what it is taken for."""

    name: str
    """As in the files."""
    role: Role
    """`label`, `event_time`, `event_key`, `group`, `field` or `left_out`; a group may be a field, too."""
    kind: Literal["categorical", "numeric"] | None = None
    """As a field; unset if it is none, or can be none."""
    dtype: Literal["string", "int64", "float32"] | None = None
    """As a field."""
    is_field: bool = False
    """Whether it is an input of the model."""
    distinct: int = 0
    """Values other than missing in the rows read."""
    null_share: float = 0.0
    """Share of the rows read that hold none, from 0 to 1."""
    max_null_share: float | None = None
    """Limit for this field, where the default is too low for its ordinary days."""
    examples: tuple[str, ...] = ()
    """A few values; none of a column that may tell about a person."""
    value_range: str = ""
    """Smallest and largest number."""
    note: str = ""
    """Why it was left out, or what to check."""


class UnusableDay(Part):
    """A day that a run would refuse."""

    date: dt.date
    reason: str
    """What is wrong with it."""


def told(unusable: Sequence[UnusableDay], *, most: int) -> str:
    """The days that a run would refuse, in words."""
    first = ", ".join(f"{day.date} ({day.reason})" for day in unusable[:most])
    return first + (f" and {len(unusable) - most} more" if len(unusable) > most else "")


class FoundDays(Part):
    """The days of a source and the limits that its ordinary days keep."""

    first: dt.date
    """Oldest day with readable files and a label."""
    last: dt.date
    """Newest such day."""
    count: int
    """Such days."""
    unusable: tuple[UnusableDay, ...] = ()
    """Days that a run would refuse, and those of too few rows."""
    rows: int
    """Impressions, estimated from the size of the files where not all were read."""
    usual_rows: int
    """Impressions of the middle day."""
    run_date: dt.date
    """Newest day that is usable and large enough to judge on."""
    backfill_start: dt.date
    """Oldest day that has a window before it."""
    min_rows: int
    """What every usual day has."""
    min_days: int
    """Days of a window that have to be there."""
    window_days: int
    """Calendar days of a window."""
    max_missing_share: float | None = None
    """Where the days have more gaps than the default allows."""


class FoundTimes(Part):
    """The column of event times and how it is stored."""

    column: str
    """Its name."""
    unit: Literal["s", "ms", "us"] | None = None
    """Of whole numbers since 1970."""
    zone: str | None = None
    """Zone assumed for values that do not say theirs."""
    outside_share: float = 0.0
    """Largest share of the rows of a day that lie outside of it."""


class Found(Part):
    """Everything that the TOML says, and why."""

    source: str
    """Where the clicks are, as it was given."""
    partition: str
    """Template of the folder or file of a day."""
    rivals: tuple[str, ...] = ()
    """Other templates that days could be read from."""
    ignored: tuple[str, ...] = ()
    """Data files that neither the template nor another one reaches."""
    unreadable: tuple[str, ...] = ()
    """Files that could not be read, with the reason."""
    delimiter: str | None = None
    """Of CSV files, if unusual."""
    pseudo_days: bool = False
    """Whether the days are blocks of rows that `deepfm split` cut."""
    rows_read: int = 0
    """Rows that the findings are made from."""
    whole: bool = True
    """Whether these are all rows, so that they are counted and not estimated."""
    days: FoundDays
    """The days."""
    label: str
    """Column of the label."""
    ctr: float
    """Share of clicks among the rows read."""
    clicks_a_day: int
    """Clicks of the middle day, about."""
    min_ctr: float | None = None
    """Where the days have clicks enough for a limit."""
    max_ctr: float | None = None
    """As `min_ctr`."""
    max_bad_share: float | None = None
    """Where ordinary days have more rows to set aside than the default allows."""
    time_zone: str = "UTC"
    """Zone in which the days are cut."""
    zone_note: str = ""
    """How that is known."""
    times: FoundTimes | None = None
    """Event times, if a column has them."""
    negatives_per_positive: int | None = None
    """Sampling; unset if none."""
    sampling_note: str = ""
    """Why."""
    columns: tuple[FoundColumn, ...]
    """Every column, in the order of the files."""

    def column_of(self, role: Role) -> FoundColumn | None:
        """The column that has a role."""
        return next((column for column in self.columns if column.role == role), None)

    @property
    def fields(self) -> tuple[FoundColumn, ...]:
        """The model's inputs."""
        return tuple(column for column in self.columns if column.is_field)

    @property
    def left_out(self) -> tuple[FoundColumn, ...]:
        """The columns that could be seen as inputs and are not."""
        return tuple(column for column in self.columns if column.role == "left_out")
