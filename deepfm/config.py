"""Every tunable and its default: one TOML file per model becomes one frozen `RetrainConfig`.

The sentence under a field is its documentation everywhere (`--help`, the Prefect form, the docs). Paths are relative to
the working directory. A value that cannot work is refused here, before any work is done.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deepfm.errors import UsageError
from deepfm.layout import checked_partition

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Section(BaseModel):
    """A frozen part of the configuration; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def checked_zone(value: str) -> str:
    """The name itself, if it is that of a time zone; else a ValueError that says so."""
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError) as cause:
        msg = f"{value!r} is not a time zone; use a name such as Europe/Berlin"
        raise ValueError(msg) from cause
    return value


class DataConfig(Section):
    """Where the raw impressions are and what their special columns are called."""

    source: str
    """Folder or `s3://bucket/prefix` that holds the daily partitions."""
    partition: str = "dt={date}"
    """Folder or file of one day below the source, such as `dt={date}` or `clicks-{date:%Y%m%d}.csv.gz`."""
    csv_delimiter: str | None = None
    """Character between the cells of CSV files; unset, a tab in `.tsv` files and a comma in others."""
    label: str = "click"
    """Column that holds 1 where the impression was clicked and 0 where it was not."""
    event_time: str | None = None
    """Timestamp column of the impression; without it the checks of time are skipped by name."""
    event_time_zone: str | None = None
    """Zone of event times that are stored without one; unset, such times are refused."""
    event_time_unit: Literal["s", "ms", "us"] | None = None
    """Unit of event times that are stored as integers since 1970 in UTC; unset, such times are refused."""
    event_key: str | None = None
    """Column that identifies an impression; duplicates of it are set aside and sampling hashes it."""
    group: str | None = None
    """Column of the user: GAUC, the early-stopping slice and the gate's errors are computed per group."""

    @field_validator("event_time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        return value if value is None else checked_zone(value)

    @field_validator("partition")
    @classmethod
    def _tells_the_day(cls, value: str) -> str:
        try:
            return checked_partition(value)
        except UsageError as cause:
            raise ValueError(str(cause)) from cause

    @field_validator("csv_delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is None or (len(value) == 1 and value.isascii() and value not in '"\r\n\0'):
            return value
        raise ValueError(f"{value!a}, required one ASCII character other than a quote and a line end")


class FieldConfig(Section):
    """One input column of the model."""

    kind: Literal["categorical", "numeric"]
    """`categorical` gets one embedding per value, `numeric` one embedding scaled by its standardised value."""
    dtype: Literal["string", "int64", "float32"] = "string"
    """Type of the raw value as the consumer passes it: string or int64 (categorical), float32 (numeric)."""
    minimum: float | None = None
    """Smallest value that a valid row may hold (numeric fields)."""
    maximum: float | None = None
    """Largest value that a valid row may hold (numeric fields)."""
    max_null_share: Share | None = None
    """Largest share of missing values on a valid day; unset, `validation.max_null_share` holds."""

    @model_validator(mode="before")
    @classmethod
    def _numeric_is_float(cls, raw: object) -> object:
        if isinstance(raw, Mapping) and raw.get("kind") == "numeric" and "dtype" not in raw:
            return {**raw, "dtype": "float32"}
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "numeric") != (self.dtype == "float32"):
            raise ValueError(f"a {self.kind} field cannot have dtype {self.dtype}; only numeric ones have float32")
        if self.kind == "categorical" and (self.minimum is not None or self.maximum is not None):
            raise ValueError("minimum and maximum belong to numeric fields")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class ValidationConfig(Section):
    """What a valid day looks like."""

    min_rows: Count = 100
    """Fewest impressions of a valid day."""
    min_ctr: Share = 0.0
    """Smallest click-through rate of a valid day; a day with one class only is always refused."""
    max_ctr: Share = 1.0
    """Largest click-through rate of a valid day."""
    max_null_share: Share = 0.2
    """Largest share of missing values in any field."""
    max_bad_share: Share = 0.05
    """Largest share of rows that may be quarantined before the whole day is refused."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_ctr >= self.max_ctr:
            raise ValueError(f"min_ctr {self.min_ctr} is not below max_ctr {self.max_ctr}")
        return self


class SamplingConfig(Section):
    """Which negatives are kept; positives always are. Predictions are corrected for it exactly."""

    negatives_per_positive: Positive | None = None
    """Negatives kept per click, 4 for 1:4; a day that has fewer keeps all."""
    keep_rate: Rate | None = None
    """Share of negatives kept, instead of a ratio."""
    seed: int = 0
    """Changes which negatives are kept."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.negatives_per_positive is not None and self.keep_rate is not None:
            raise ValueError("negatives_per_positive and keep_rate exclude each other; remove one")
        return self


class VocabularyConfig(Section):
    """Which values get an embedding of their own."""

    min_count: Annotated[int, Field(ge=2)] = 2
    """Fewest sampled rows of the window that hold a value which gets its own id; rarer ones share the OOV id."""
    oov_rate: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.01
    """Share of look-ups replaced by OOV in training, so that OOV learns what an unseen value looks like."""


class WindowConfig(Section):
    """Which days train a model; the logical date itself is the holdout."""

    window_days: Annotated[int, Field(ge=1, le=3660)] = 7
    """Calendar days before the logical date."""
    min_days: Count = 1
    """Fewest accepted days among them."""
    max_missing_share: Share = 0.5
    """Largest share of them that may be missing or refused."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.min_days > self.window_days:
            raise ValueError(f"min_days {self.min_days} is more than window_days {self.window_days}")
        return self


class NetworkConfig(Section):
    """The shape of DeepFM (Guo et al., 2017)."""

    embedding_dim: Annotated[int, Field(ge=1, le=1024)] = 16
    """Dimension that all fields share: the FM part is a dot product between them."""
    hidden: tuple[Count, ...] = (128, 64)
    """Widths of the deep part's hidden layers."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of hidden activations dropped in training."""
    batch_norm: bool = False
    """Normalise hidden layers over the batch."""


class LossConfig(Section):
    """How an error costs; the export undoes the distortion of weighting and focusing."""

    kind: Literal["bce", "focal"] = "bce"
    """Binary cross-entropy, or the focal loss of Lin et al. (2017)."""
    pos_weight: Positive | Literal["auto"] = 1.0
    """Weight of a click; `auto` is the window's weighted negatives per click."""
    focal_alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Weight of clicks in the focal loss (negatives get one minus it)."""
    focal_gamma: Annotated[float, Field(ge=0.0, le=8.0)] = 2.0
    """Focusing exponent; 0 is weighted cross-entropy."""

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        if self.kind == "focal" and self.pos_weight != 1.0:
            raise ValueError("pos_weight belongs to bce; the focal loss weighs clicks by focal_alpha")
        return self


class TrainingConfig(Section):
    """How the network is fitted."""

    batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto"
    """Rows of a step; `auto` is at most 4096 and small enough for several hundred steps an epoch."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 4
    """Passes over the window at most; early stopping may end before."""
    learning_rate: Positive = 1e-3
    """Adam's rate for the dense layers."""
    embedding_learning_rate: Positive = 1e-2
    """Adam's rate for embeddings and first-order weights."""
    l2_embedding: NonNegative = 30.0
    """Precision of a normal prior on embeddings and first-order weights: rare values shrink, frequent ones hardly."""
    l2_network: NonNegative = 0.0
    """L2 penalty on the weights of the deep part."""
    schedule: Literal["decay", "plateau", "constant"] = "decay"
    """`decay` lowers the rates linearly to 0, `plateau` is ReduceLROnPlateau on the early-stopping AUC."""
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Factor of ReduceLROnPlateau."""
    plateau_patience: Annotated[int, Field(ge=0)] = 2
    """Checks without gain before ReduceLROnPlateau lowers the rates."""
    average_last: Share = 0.0
    """Share of the planned steps, at the end, whose weights are averaged; use it where the rate stays up."""
    validation_share: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.05
    """Share of the window held back for early stopping; 0 turns early stopping off."""
    validation_by: Literal["group", "row"] = "row"
    """Hold back single rows or whole groups (users); a model does not learn from the history of groups held back."""
    eval_every_steps: Count | Literal["auto"] = "auto"
    """Steps between early-stopping checks; `auto` is four an epoch."""
    patience: Annotated[int, Field(ge=1)] = 6
    """Checks without gain before training stops; the best state is restored."""
    shuffle_rows: Annotated[int, Field(ge=4096)] = 1_000_000
    """Rows shuffled in memory at a time: bounds the memory of reading a window of any size."""
    checkpoint_every_seconds: Positive = 60.0
    """Seconds of training that a kill may cost."""
    seed: int = 0
    """Seed of initialisation, shuffling and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes CUDA where there is a device."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.average_last > 0 and self.schedule == "decay":
            raise ValueError("average_last and schedule = 'decay' both settle the weights; choose another schedule")
        if self.schedule == "plateau" and self.validation_share == 0:
            raise ValueError("schedule = 'plateau' follows the held-back AUC, which validation_share = 0 turns off")
        return self


class GateConfig(Section):
    """What a challenger has to show on the holdout day."""

    policy: Literal["fresh"] = "fresh"
    """`fresh` promotes unless the challenger is significantly worse or worse by more than max_drop."""
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    """One-sided confidence of every bound."""
    min_auc: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.55
    """The lower bound of the AUC must reach this on the first run; the AUC itself on later ones."""
    max_auc: Annotated[float, Field(gt=0.5, le=1.0)] = 0.98
    """An AUC above this waits for a person: clicks seldom allow it, but a column that tells the label does."""
    max_drop: NonNegative = 0.005
    """Largest loss of AUC against the champion that freshness may cost."""
    min_calibration: Positive = 0.8
    """Smallest sum of scores per click, its sampling error allowed for."""
    max_calibration: Positive = 1.25
    """Largest sum of scores per click, its sampling error allowed for."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min_calibration < 1.0 < self.max_calibration:
            raise ValueError(f"calibration bounds {self.min_calibration} to {self.max_calibration} do not enclose 1")
        if self.min_auc >= self.max_auc:
            raise ValueError(f"min_auc {self.min_auc} is not below max_auc {self.max_auc}")
        return self


class RetrainConfig(Section):
    """Everything that one model's retraining depends on."""

    model: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of the model in the store: lower-case letters, digits, `-` and `_`."""
    store: str = "file://./store"
    """Where models are kept: `file://` folder or `s3://bucket/prefix`; `--store` and `DEEPFM_STORE` win."""
    time_zone: str = "UTC"
    """Zone that a day begins and ends in."""
    lag_days: Annotated[int, Field(ge=0, le=30)] = 1
    """Days between a scheduled run and the day that it is about."""
    data: DataConfig
    fields: dict[str, FieldConfig]
    """The model's inputs, by column name."""
    validation: ValidationConfig = ValidationConfig()
    sampling: SamplingConfig = SamplingConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    window: WindowConfig = WindowConfig()
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return checked_zone(value)

    @model_validator(mode="after")
    def _fields_are_inputs(self) -> Self:
        if len(self.categorical) < 1:
            raise ValueError("fields must hold at least one categorical field")
        for role in ("label", "event_time", "event_key"):
            column = getattr(self.data, role)
            if column in self.fields:
                raise ValueError(f"fields.{column} is the {role} and cannot be an input of the model")
        reserved = [name for name in self.fields if not name.isidentifier() or name == "probability"]
        if reserved:
            raise ValueError(f"fields {', '.join(reserved)}: required Python identifiers other than probability")
        return self

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical fields, in the order of the file."""
        return tuple(name for name, field in self.fields.items() if field.kind == "categorical")

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric fields, in the order of the file."""
        return tuple(name for name, field in self.fields.items() if field.kind == "numeric")

    def day_bounds_utc(self, logical_date: dt.date) -> tuple[dt.datetime, dt.datetime]:
        """The half-open interval of a local day as two aware UTC instants; 23 to 25 hours apart."""
        zone = ZoneInfo(self.time_zone)
        start = dt.datetime.combine(logical_date, dt.time(), zone)
        end = dt.datetime.combine(logical_date + dt.timedelta(days=1), dt.time(), zone)
        return start.astimezone(dt.UTC), end.astimezone(dt.UTC)
