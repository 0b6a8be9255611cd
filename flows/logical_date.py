"""The day that a run is about: the only reader of the schedule."""

import datetime as dt
from zoneinfo import ZoneInfo

from prefect.runtime import flow_run

from deepfm.config import RetrainConfig
from deepfm.errors import UsageError


def resolve_logical_date(requested: dt.date | None, config: RetrainConfig) -> dt.date:
    """The requested date, or the local date of the run's *scheduled* time minus `lag_days`.

    A run that starts late, or again after midnight, is still about the same day.

    Raises:
        UsageError: terminal; no date was asked for and the run has no scheduled time.
    """
    if requested is not None:
        return requested
    scheduled: dt.datetime | None = flow_run.scheduled_start_time
    if scheduled is None:
        raise UsageError("no logical date", next_step="Pass logical_date, or run from a schedule.")
    local = scheduled.astimezone(ZoneInfo(config.time_zone))
    return dt.date.fromordinal(local.toordinal() - config.lag_days)  # Prefect's own type of date ends here
