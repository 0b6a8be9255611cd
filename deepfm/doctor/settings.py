"""The configuration: what it says in one line, and choices in it that are allowed and rarely meant."""

from collections.abc import Iterator

from deepfm.config import RetrainConfig
from deepfm.doctor.checks import Check, ok, warning
from deepfm.manifests import ValidationReport

_FEW_CLICKS = 200
"""Below this the error of a day's AUC is about .02, and hardly any difference can be shown."""


def settings(config: RetrainConfig) -> Iterator[Check]:
    """The checks of a configuration that could be read."""
    yield ok("config.toml", summary(config))
    yield from columns(config)
    if config.lag_days == 0:
        step = "Set lag_days to 1, unless partitions are complete before their day is over."
        yield warning("config.lag_days", "0: a scheduled run is about a day that is not over", step)


def summary(config: RetrainConfig) -> str:
    """The configuration in one line."""
    sampling = config.sampling
    kept = "all negatives"
    if sampling.negatives_per_positive is not None:
        kept = f"{sampling.negatives_per_positive:g} negatives per click"
    elif sampling.keep_rate is not None:
        kept = f"{sampling.keep_rate:g} of the negatives"
    return (
        f"model {config.model}: {len(config.categorical)} categorical and {len(config.numeric)} numeric fields, "
        f"{config.window.window_days} days of training, {kept}, {config.loss.kind}, days of {config.time_zone}"
    )


def columns(config: RetrainConfig) -> Iterator[Check]:
    """A warning for every optional column that is not named, with what is lost by it."""
    lost = {
        "event_time": "rows of other days go unnoticed",
        "event_key": "duplicates go unnoticed",
        "group": "no GAUC, and the gate's errors take rows of one user for independent",
    }
    for role, loss in lost.items():
        if getattr(config.data, role) is None:
            yield warning(f"config.{role}", f"not set: {loss}", f"Set data.{role} if the clicks have such a column.")


def clicks(config: RetrainConfig, day: ValidationReport) -> Check:
    """Whether a day has clicks enough to decide on, and sampling keeps a sensible share of the rest."""
    name, negatives = "source.clicks", day.valid_rows - day.clicks
    observed = f"{day.clicks} clicks in {day.valid_rows} valid rows of {day.logical_date}"
    rate = config.sampling.keep_rate
    if rate is not None and negatives * rate < day.clicks:
        kept = f"{observed}, and sampling.keep_rate {rate:g} keeps fewer negatives than that"
        return warning(name, kept, "Raise sampling.keep_rate, or set sampling.negatives_per_positive instead.")
    if day.clicks < _FEW_CLICKS:
        step = "Expect inconclusive verdicts; a larger gate.max_drop lets fresh models through."
        return warning(name, observed, step)
    return ok(name, observed)
