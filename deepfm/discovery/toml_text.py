"""The TOML that a newcomer reads: every line with its reason, and what was left out a `#` away."""

import json
import math
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

from deepfm.config import DataConfig, GateConfig, RetrainConfig, Section, TrainingConfig, ValidationConfig, WindowConfig
from deepfm.discovery.found import Found, FoundColumn, told
from deepfm.discovery.naming import is_usable

_WIDTH = 116
_UNUSABLE = 10
_AUC_NOISE, _LARGEST_DROP = 0.116, 0.05
_SHOWN: dict[str, tuple[type[Section], tuple[str, ...]]] = {
    "training": (TrainingConfig, ("epochs", "batch_size", "learning_rate", "l2_embedding", "validation_by", "device")),
    "gate": (GateConfig, ("min_auc", "max_auc", "max_drop", "confidence", "min_calibration", "max_calibration")),
}
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PSEUDO = (
    "The days are made up: blocks of rows in the order of a file. Drift, freshness and new items are not seen, "
    "and AUC may look better than it will be."
)


def render(found: Found, *, model: str, out: Path) -> str:
    """The text of the TOML.

    Args:
        found: What is in the source.
        model: Name of the model.
        out: Where the text will be, for the commands that it suggests.
    """
    parts = (_head(found, model, out), _data(found), _fields(found), _validation(found), _sampling(found))
    return "\n".join("\n".join(part) + "\n" for part in (*parts, _window(found), *_defaults(found)))


def model_name(out: Path) -> str:
    """A model's name from that of its file."""
    name = re.sub(r"[^a-z0-9_-]+", "-", out.stem.lower()).strip("-_")[:64]
    return name or "clicks"


def source_text(where: str) -> str:
    """The source as the configuration names it, which works from the working directory."""
    if "://" in where or Path(where).is_absolute():
        return where
    plain = Path(where).as_posix()
    return plain if plain.startswith("..") else f"./{plain}" if plain != "." else "."


def first_commands(found: Found, out: Path) -> tuple[str, str, str]:
    """What to run next."""
    config = f"--config {shlex.quote(str(out))}"
    days = found.days
    return (
        f"deepfm run {config} --date {days.run_date}",
        f"deepfm backfill {config} --start {days.backfill_start} --end {days.run_date}",
        f"deepfm status {config}",
    )


def _head(found: Found, model: str, out: Path) -> Iterator[str]:
    days = found.days
    rows = f"{days.rows:,} rows, all of them read" if found.whole else f"about {_rounded(days.rows):,} rows"
    read = "" if found.whole else f", {found.rows_read:,} of them read"
    yield f"# {days.count} days of clicks, {days.first} to {days.last}, {rows}{read}."
    if found.pseudo_days:
        yield from _comment(_PSEUDO)
    for line in found.unreadable:
        yield from _comment(f"Not readable: {line}")
    if days.unusable:
        yield from _comment(f"Cannot be run: {told(days.unusable, most=_UNUSABLE)}.")
    yield "#"
    yield from (f"#   {_plain(command)}" for command in first_commands(found, out))
    yield f"model = {_text(model)}"
    yield from _line('store = "file://./store"', _sentence(RetrainConfig, "store"))
    yield from _line(f"time_zone = {_text(found.time_zone)}", found.zone_note)


def _data(found: Found) -> Iterator[str]:
    yield "[data]"
    yield f"source = {_text(source_text(found.source))}"
    yield from _line(f"partition = {_text(found.partition)}", f"{found.days.count} usable days have such a name")
    if found.rivals:
        yield from _comment(f"Other data sets are there, which reach no more files: {', '.join(found.rivals[:3])}.")
    if found.ignored:
        more = f" and {len(found.ignored) - 3} more" if len(found.ignored) > 3 else ""
        yield from _comment(
            f"Not read, because the template does not reach them: {', '.join(found.ignored[:3])}{more}."
        )
    if found.delimiter:
        yield f"csv_delimiter = {_text(found.delimiter)}"
    yield from _line(f"label = {_text(found.label)}", f"{_percent(found.ctr)} of the rows are clicks")
    yield from _times(found)
    for role, what in (("event_key", "finds rows that are delivered twice"), ("group", "GAUC and errors are per user")):
        column = found.column_of(role)  # type: ignore[arg-type]
        if column is None:
            yield from _line(f'# {role} = "COLUMN"', f"none found. {_sentence(DataConfig, role)}")
        else:
            yield from _line(f"{role} = {_text(column.name)}", f"{column.distinct:,} values; {what}")


def _times(found: Found) -> Iterator[str]:
    times = found.times
    if times is None:
        yield from _line('# event_time = "COLUMN"', f"none found. {_sentence(DataConfig, 'event_time')}")
        return
    yield from _line(f"event_time = {_text(times.column)}", "rows outside their day are set aside")
    if times.zone:
        yield from _line(f"event_time_zone = {_text(times.zone)}", "assumed: the times do not say it")
    if times.unit:
        yield from _line(f"event_time_unit = {_text(times.unit)}", "whole numbers since 1970")


def _fields(found: Found) -> Iterator[str]:
    yield from _comment(
        "What the model sees: a string or an int64 has a vector for each value, a number one that it scales."
    )
    yield "[fields]"
    for column in found.fields:
        yield from _line(_field(column), _facts(column))
    left_out = [column for column in found.columns if column.role == "left_out" or _lost(column)]
    if not left_out:
        return
    yield ""
    yield from _comment("Left out, each with its reason. Remove the # in front of a name to take a field back.")
    for column in left_out:
        if column.kind and is_usable(column.name):
            yield from _line(f"# {_field(column)}", column.note)
        else:
            yield from _comment(f"{column.name}: {column.note}")


def _lost(column: FoundColumn) -> bool:
    return column.role == "group" and not column.is_field


def _validation(found: Found) -> Iterator[str]:
    yield from _comment("What a valid day looks like. A day that is not is refused, with the rule that it breaks.")
    yield "[validation]"
    days = found.days
    yield from _line(f"min_rows = {days.min_rows}", f"well below a small day; the middle day has {days.usual_rows:,}")
    if found.min_ctr is not None and found.max_ctr is not None:
        yield from _line(f"min_ctr = {found.min_ctr:g}", f"a fifth of the usual {_percent(found.ctr)}")
        yield from _line(f"max_ctr = {found.max_ctr:g}", "five times the usual")
    for key, value in (("max_null_share", None), ("max_bad_share", found.max_bad_share)):
        why = "ordinary days have more than the default allows" if value else _sentence(ValidationConfig, key)
        default = ValidationConfig.model_fields[key].default
        yield from _line(f"{'' if value else '# '}{key} = {value or default}", why)


def _sampling(found: Found) -> Iterator[str]:
    yield "[sampling]"
    if found.negatives_per_positive is None:
        yield from _comment(f"{found.sampling_note[0].upper()}{found.sampling_note[1:]}.")
    else:
        yield from _line(f"negatives_per_positive = {found.negatives_per_positive}", found.sampling_note)


def _window(found: Found) -> Iterator[str]:
    days = found.days
    yield "[window]"
    clicks = f"about {found.clicks_a_day:,} clicks on a usual day"
    yield from _line(f"window_days = {days.window_days}", f"{_sentence(WindowConfig, 'window_days')} {clicks}")
    yield from _line(f"min_days = {days.min_days}", _sentence(WindowConfig, "min_days"))
    if days.max_missing_share is not None:
        why = f"{days.count} of {(days.last - days.first).days + 1} calendar days have clicks"
        yield from _line(f"max_missing_share = {days.max_missing_share}", why)


def _defaults(found: Found) -> Iterator[list[str]]:
    noise = noise_of_auc(found.clicks_a_day, default=GateConfig().max_drop)
    for name, (section, keys) in _SHOWN.items():
        lines = [f"# [{name}]"]
        if name == "gate" and noise is not None:
            why = f"smaller differences of AUC are chance on a day of {found.clicks_a_day:,} clicks"
            lines = ["[gate]", *_line(f"max_drop = {noise:g}", why)]
        for key in keys:
            if key == "max_drop" and noise is not None:
                continue
            value = json.dumps(section.model_fields[key].default)
            lines.extend(_line(f"# {key} = {value}", _sentence(section, key)))
        yield lines


def noise_of_auc(day_clicks: int, *, default: float) -> float | None:
    """The error of a difference of two AUCs on a usual day, where it is larger than the drop allowed by default.

    Two models of about the same data (correlation .9) differ by chance with an error of .116 / sqrt(clicks).
    """
    error = _AUC_NOISE / math.sqrt(max(day_clicks, 1))
    return None if error <= default else min(_LARGEST_DROP, float(f"{error:.0e}"))


def _field(column: FoundColumn) -> str:
    parts = [f'kind = "{column.kind}"']
    if column.dtype == "int64":
        parts.append('dtype = "int64"')
    if column.max_null_share is not None:
        parts.append(f"max_null_share = {column.max_null_share}")
    return f"{_key(column.name)} = {{ {', '.join(parts)} }}"


def _facts(column: FoundColumn) -> str:
    """What a person wants to know of a field before trusting it."""
    said = [column.value_range or f"{column.distinct:,} values"]
    if column.null_share:
        said.append(f"{_percent(column.null_share)} missing")
    if column.kind == "categorical":
        said.append(f"such as {', '.join(map(_short, column.examples))}" if column.examples else "not shown")
    if column.note:
        said.append(column.note)
    return "; ".join(said)


def _line(code: str, why: str) -> Iterator[str]:
    """A line with its reason behind it, or above it where both are too long."""
    why = _plain(why)
    if not why:
        yield code
    elif len(code) + len(why) + 3 <= _WIDTH:
        yield f"{code} # {why}"
    else:
        yield from _comment(why)
        yield code


def _comment(text: str) -> list[str]:
    return textwrap.wrap(_plain(text), _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def _sentence(section: type[Section], key: str) -> str:
    return " ".join((section.model_fields[key].description or "").replace("`", "").split())


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    """A TOML string; JSON escapes the same but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _plain(text: str) -> str:
    """Text that a comment can hold on one line."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:12]}…"


def _rounded(count: int) -> int:
    return int(float(f"{count:.1e}"))


def _percent(share: float) -> str:
    return f"{share:.2%}" if share < 0.1 else f"{share:.0%}"
