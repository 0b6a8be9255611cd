"""One TOML file becomes one `RetrainConfig`; what is wrong with it is said in one line, with the nearest known key."""

import copy
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from deepfm.config import FieldConfig, RetrainConfig
from deepfm.errors import ConfigError, UsageError


def load_config(path: Path, *, overrides: Sequence[str] = ()) -> RetrainConfig:
    """The configuration of a TOML file, with `key.path=value` overrides applied on top.

    Args:
        path: The TOML file; a byte order mark and CRLF line ends are accepted.
        overrides: Such as `training.epochs=2`; the value is TOML, or else taken as a string.

    Raises:
        ConfigError: terminal; one line that names the key, what was observed and the nearest known key.
        UsageError: terminal; an override is not KEY=VALUE.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as cause:
        raise ConfigError(f"config {path} does not exist", next_step="Check --config.") from cause
    except OSError as cause:
        raise ConfigError(
            f"config {path} cannot be read", observed=cause.strerror, next_step="Check --config."
        ) from cause
    except UnicodeDecodeError as cause:
        raise ConfigError(f"config {path} cannot be read: {cause}", next_step="Save it as UTF-8.") from cause
    except tomllib.TOMLDecodeError as cause:
        raise ConfigError(f"config {path} is not TOML: {cause}") from cause
    if not overrides:
        return parse_config(raw, where=str(path))
    changed = copy.deepcopy(raw)
    for override in overrides:
        _apply_override(changed, override)
    try:
        return parse_config(changed, where=f"--set {' '.join(overrides)}")
    except ConfigError:
        parse_config(raw, where=str(path))  # raises if the file alone is to blame
        raise


def parse_config(raw: Mapping[str, Any], *, where: str) -> RetrainConfig:
    """The configuration of parsed TOML.

    Raises:
        ConfigError: terminal; see `load_config`.
    """
    try:
        return RetrainConfig.model_validate(raw)
    except ValidationError as cause:
        raise ConfigError(f"config: {_explain(cause)}", where=where) from cause


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError("--set is not KEY=VALUE", observed=override, next_step="Write --set training.epochs=2.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, last = key.strip().split(".")
    table = raw
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {key} goes below {parent}, which is a value")
    table[last] = value


def _explain(error: ValidationError) -> str:
    """The first finding in words; an unknown key comes with the nearest known one."""
    first = error.errors()[0]
    # A union adds the name of the branch that it tried.
    path = ".".join(part for part in map(str, first["loc"]) if not part.startswith(("constrained-", "literal[")))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(known)}."
        return f"{path} is not a key; {hint}{more}"
    if first["type"] == "missing":
        return f"{path} is missing{more}"
    text = first["msg"].removeprefix("Value error, ")
    return f"{path or 'file'}: {text}{more}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = RetrainConfig
    for part in location:
        if section is RetrainConfig and part == "fields":
            section = FieldConfig
            continue
        info = section.model_fields.get(str(part))
        if info is not None and isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            section = info.annotation
    return list(section.model_fields)
