"""What several commands share: options, the place that they point at, tables of rows for people and for machines."""

import calendar
import datetime as dt
import difflib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from pydantic_core import to_json

from deepfm import layout
from deepfm.config import RetrainConfig
from deepfm.config_file import load_config
from deepfm.documents import Part
from deepfm.errors import NotFoundError, UsageError
from deepfm.registry import Registry
from deepfm.storage import ObjectStore, absent_folder, open_store
from deepfm.workspace import resolve_store


def log_what_happens(verbose: bool) -> bool:  # noqa: FBT001 - typer's callback
    """Whether the log goes to stderr in full; warnings always do."""
    if verbose:
        logging.getLogger().setLevel(logging.INFO)
    return verbose


ConfigOption = Annotated[Path, typer.Option("--config", readable=False, help="The model's TOML.", metavar="M.toml")]
OptionalConfigOption = Annotated[
    Path | None,
    typer.Option("--config", readable=False, help="The model's TOML; or use --store and --model.", metavar="M.toml"),
]
DateOption = Annotated[str, typer.Option("--date", help="Logical date: the holdout day.", metavar="YYYY-MM-DD")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", help="file:// folder or s3://bucket/prefix; wins over DEEPFM_STORE and the TOML.", metavar="URL"
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Name of the model, where there is no TOML.", metavar="NAME")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the TOML, such as training.epochs=2.", metavar="KEY=VALUE"),
]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=log_what_happens, help="Log what the stages do, on stderr."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout, everything else on stderr.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in the log.", metavar="TEXT")]

_DATE = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})")
_MONTHS = 12


class Place(NamedTuple):
    """The model that a command is about, and where it is kept."""

    store: ObjectStore
    model: str
    config: RetrainConfig | None
    """None where the command was given a store and a name instead of a TOML."""

    @property
    def registry(self) -> Registry:
        """The model's versions and log."""
        return Registry(self.store, self.model)


def place_of(config: Path | None, *, store: str | None, model: str | None) -> Place:
    """The model that `--config`, or `--store` and `--model`, point at, in a store that something was written to.

    Raises:
        UsageError: terminal; neither a TOML nor a name was given.
        NotFoundError: terminal; there is no such folder, or the store holds other models, and none of this name.
        ConfigError: terminal; the TOML or the store cannot be used.
    """
    settings = load_config(config) if config is not None else None
    name = model or (settings.model if settings is not None else None)
    if name is None:
        raise UsageError("no model was named", next_step="Give --config M.toml, or --store URL and --model NAME.")
    url, rule = resolve_store(store, settings)
    place = Place(open_store(url), layout.checked_name(name), settings)
    if (folder := absent_folder(place.store)) is not None:
        raise NotFoundError(
            "store's folder does not exist",
            observed=str(folder),
            where=f"by {rule}",
            next_step="Check --store, DEEPFM_STORE and the working directory, or run first: deepfm run makes it.",
        )
    # The first runs of a new TOML find no model of its name; a name that was typed has to be there.
    if model is not None and (others := _models(place.store)) and name not in others:
        near = difflib.get_close_matches(name, others, n=1)
        raise NotFoundError(
            f"model {name} is not in the store",
            observed=f"there are {', '.join(others[:10])}",
            where=place.store.url,
            next_step=f"Did you mean {near[0]}?" if near else "Check --model, --store and --config.",
        )
    return place


def tell_absent(store: ObjectStore) -> None:
    """Say so if the store's folder is not there yet, to somebody who may have meant another one."""
    if (folder := absent_folder(store)) is not None:
        typer.echo(
            f"The store's folder {folder} is not there yet: the first run makes it. "
            "If there has been one, check --store, DEEPFM_STORE and the working directory."
        )


def parse_date(text: str, *, option: str) -> dt.date:
    """The date in YYYY-MM-DD.

    Raises:
        UsageError: terminal; it is not one. The line names the option.
    """
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a calendar day has no zone
    except ValueError as cause:
        raise UsageError(f"{option} is not a date", observed=text[:40], required=_required_date(text)) from cause


def not_an_option(parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """The path itself, if it is none of the options: one that follows `--out` would be taken for its value.

    Raises:
        UsageError: terminal; it begins with two dashes. The line names both.
    """
    if value is None or not str(value).startswith("--"):
        return value
    option = parameter.opts[0]
    raise UsageError(
        f"{option} is followed by an option",
        observed=str(value)[:80],
        required=f"{option} {parameter.metavar or 'PATH'}",
        next_step=f"Put the path behind {option}; one that does begin with dashes is written ./--name.",
    )


def print_json(rows: Sequence[Part]) -> None:
    """One JSON array on stdout."""
    typer.echo(to_json([row.model_dump(mode="json") for row in rows], indent=2).decode())


def _required_date(text: str) -> str:
    """The form of a date; if the text has it, why there is no such day."""
    if (parts := _DATE.fullmatch(text)) is None:
        return "YYYY-MM-DD"
    year, month = (int(part) for part in parts.groups()[:2])
    if not year or not 1 <= month <= _MONTHS:
        return "YYYY-MM-DD, where a year has the months 01 to 12"
    return f"YYYY-MM-DD, where {year:04}-{month:02} has {calendar.monthrange(year, month)[1]} days"


def _models(store: ObjectStore) -> list[str]:
    return sorted({layout.model_of(found.key) for found in store.list(layout.MODELS)} - {""})
