"""The configuration: what is refused before any work is done, in words that name the key."""

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from deepfm.config import RetrainConfig, Section
from deepfm.config_file import load_config
from deepfm.errors import ConfigError, TerminalError
from tests.tiny_days import tiny_config

MINIMAL = """
model = "clicks"
[data]
source = "raw"
[fields.item]
kind = "categorical"
"""


def load(tmp_path: Path, text: str | bytes, *overrides: str) -> RetrainConfig:
    path = tmp_path / "model.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, overrides=overrides)


def sections() -> list[type[Section]]:
    return Section.__subclasses__()


def test_a_minimal_file_is_enough(tmp_path):
    config = load(tmp_path, MINIMAL)
    assert (config.model, config.data.source, config.categorical, config.numeric) == ("clicks", "raw", ("item",), ())
    assert config.sampling.negatives_per_positive is None
    assert config.data.group is None


def test_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    expected = load(tmp_path, MINIMAL)
    assert load(tmp_path, b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode()) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL + "[training]\nepoch = 2", ["training.epoch is not a key", "did you mean epochs?"]),
        (MINIMAL + "dtyp = 'string'", ["fields.item.dtyp is not a key", "did you mean dtype?"]),
        ("modle = 'x'" + MINIMAL, ["modle is not a key", "did you mean model?"]),
        (MINIMAL + "[gate]\nzzz = 1", ["gate.zzz is not a key", "known keys are policy, confidence"]),
        (MINIMAL.replace('source = "raw"', ""), ["data.source is missing"]),
        ("", ["model is missing", "(and 2 more)"]),
        (MINIMAL.replace("clicks", "No Good"), ["model: "]),
        (MINIMAL + "[training]\nepochs = 'many'", ["training.epochs: ", "integer"]),
        (MINIMAL + "[training]\nbatch_size = 5000", ["training.batch_size: ", "less than or equal to 4096"]),
        (MINIMAL + "[training]\nlearning_rate = nan", ["training.learning_rate: "]),
        ('time_zone = "Mars/Olympus"' + MINIMAL, ["time_zone: 'Mars/Olympus' is not a time zone"]),
        (MINIMAL + "[sampling]\nkeep_rate = 0.0", ["sampling.keep_rate: "]),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, text, words):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.where.endswith("model.toml")


@pytest.mark.parametrize("content", [b"model = ", b"\xff\xfe\x00", b"a = 1\na = 2"])
def test_what_is_not_toml_is_refused_in_one_line(tmp_path, content):
    with pytest.raises(ConfigError, match=r"model\.toml (is not TOML|cannot be read)"):
        load(tmp_path, content)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml does not exist"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fields.price.dtype": "string"}, "a numeric field cannot have dtype string"),
        ({"fields.user.dtype": "float32"}, "a categorical field cannot have dtype float32"),
        ({"fields.user.minimum": 0.0}, "minimum and maximum belong to numeric fields"),
        ({"fields.price.minimum": 2e6}, "minimum 2000000.0 is above maximum 1000000.0"),
        ({"fields.price.minimum": float("nan")}, "fields.price.minimum"),
        ({"validation.min_ctr": 0.5, "validation.max_ctr": 0.5}, "min_ctr 0.5 is not below max_ctr 0.5"),
        ({"sampling.keep_rate": 0.5, "sampling.negatives_per_positive": 4}, "exclude each other"),
        ({"window.min_days": 4}, "min_days 4 is more than window_days 3"),
        ({"loss.kind": "focal", "loss.pos_weight": 2.0}, "pos_weight belongs to bce"),
        ({"training.average_last": 0.5}, "average_last and schedule = 'decay'"),
        ({"training.schedule": "plateau", "training.validation_share": 0.0}, "validation_share = 0 turns off"),
        ({"gate.min_calibration": 1.1}, "do not enclose 1"),
        ({"fields": {"price": {"kind": "numeric"}}}, "at least one categorical field"),
        ({"data.label": "item"}, "fields.item is the label"),
        ({"data.event_key": "user"}, "fields.user is the event_key"),
        ({"data.event_time": "price"}, "fields.price is the event_time"),
        ({"fields.probability": {"kind": "numeric"}}, "fields probability"),
        ({"fields.not ok": {"kind": "numeric"}}, "fields not ok"),
        ({"data.partition": "all"}, "data.partition: template of a day is not allowed: 'all', required a relative"),
        ({"data.partition": "{date.__class__}"}, "template of a day is not allowed"),
        ({"data.csv_delimiter": ""}, "data.csv_delimiter: '', required one ASCII character"),
        ({"data.csv_delimiter": "||"}, "required one ASCII character"),
        ({"data.csv_delimiter": "\n"}, "required one ASCII character"),
        ({"data.csv_delimiter": "\u00a7"}, "required one ASCII character"),
        ({"data.event_time_unit": "ns"}, "data.event_time_unit: "),
        ({"vocabulary.min_count": 1}, "vocabulary.min_count"),
        ({"data.source": None}, "data.source is missing"),
    ],
)
def test_values_that_cannot_work_together_are_refused(changes, words):
    with pytest.raises(ConfigError) as caught:
        tiny_config(changes)
    assert words in str(caught.value)


def test_overrides_are_toml_or_else_text(tmp_path):
    overrides = ["training.epochs=7", "data.group=user", "network.hidden=[9, 8]", "sampling.keep_rate = 0.25"]
    config = load(tmp_path, MINIMAL, *overrides)
    assert (config.training.epochs, config.data.group, config.sampling.keep_rate) == (7, "user", 0.25)
    assert config.network.hidden == (9, 8)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs", "--set is not KEY=VALUE: training.epochs"),
        ("=3", "--set is not KEY=VALUE"),
        ("model.name=x", "--set model.name goes below model, which is a value"),
        ("training.epoch=3", "did you mean epochs?"),
        ("training..epochs=3", "is not a key"),
    ],
)
def test_a_bad_override_is_refused_by_name(tmp_path, override, words):
    with pytest.raises(TerminalError) as caught:
        load(tmp_path, MINIMAL, override)
    assert words in str(caught.value)


def test_a_configuration_is_frozen():
    config = tiny_config()
    with pytest.raises(ValidationError, match="frozen"):
        config.training.epochs = 3  # type: ignore[misc]


def test_numeric_fields_are_float32_without_saying_so():
    assert tiny_config().fields["price"].dtype == "float32"


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_field_has_its_sentence(section):
    nested = {"data", "validation", "sampling", "vocabulary", "window", "network", "loss", "training", "gate"}
    for name, info in section.model_fields.items():
        if section is RetrainConfig and name in nested:
            continue  # a section: its own class says what it is
        assert info.description, f"{section.__name__}.{name}"
        assert info.description.endswith("."), f"{section.__name__}.{name}"


@pytest.mark.parametrize(
    ("zone", "date", "hours"),
    [
        ("Europe/Berlin", dt.date(2026, 3, 29), 23),
        ("Europe/Berlin", dt.date(2026, 10, 25), 25),
        ("Europe/Berlin", dt.date(2026, 7, 1), 24),
        ("Australia/Lord_Howe", dt.date(2026, 4, 5), 24.5),
        ("UTC", dt.date(2026, 3, 29), 24),
    ],
)
def test_a_local_day_has_the_hours_that_its_clocks_give_it(zone, date, hours):
    start, end = tiny_config({"time_zone": zone}).day_bounds_utc(date)
    assert (end - start) == dt.timedelta(hours=hours)
    assert start.tzinfo is dt.UTC


# Cairo and Beirut skip midnight itself in spring; Havana has it twice in autumn.
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Africa/Cairo", "Asia/Beirut", "America/Havana", "Pacific/Apia"])
def test_local_days_tile_the_years_around_every_change_of_the_clocks(zone):
    config = tiny_config({"time_zone": zone})
    local = ZoneInfo(zone)
    day, last = dt.date(2020, 1, 1), dt.date(2030, 12, 31)
    start, end = config.day_bounds_utc(day)
    changes = 0
    while day < last:
        assert start.astimezone(local).date() == day
        assert (end - dt.timedelta(microseconds=1)).astimezone(local).date() == day
        changes += end - start != dt.timedelta(hours=24)
        day += dt.timedelta(days=1)
        following = config.day_bounds_utc(day)
        assert following[0] == end
        start, end = following
    assert changes > 0


def test_a_mistake_in_an_override_is_not_blamed_on_the_file(tmp_path):
    with pytest.raises(
        ConfigError, match=r"training\.epoch is not a key; did you mean epochs\? \(--set training\.epoch=2\)"
    ):
        load(tmp_path, MINIMAL, "training.epoch=2")
    with pytest.raises(ConfigError, match=r"epoch is not a key.*model\.toml"):
        load(tmp_path, MINIMAL + "\n[training]\nepoch = 2\n", "training.epochs=2")
