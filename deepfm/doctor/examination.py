"""All checks in order, each told as soon as it is done."""

import datetime as dt
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from deepfm import layout
from deepfm.config import RetrainConfig
from deepfm.config_file import load_config
from deepfm.doctor.checks import Check, failed, ok, refusal, skipped, warning
from deepfm.doctor.environment import environment, temporary_folder
from deepfm.doctor.registry import registry
from deepfm.doctor.settings import clicks, settings
from deepfm.doctor.source import source
from deepfm.doctor.store import models_in, store
from deepfm.errors import DeepFMError
from deepfm.manifests import ValidationReport
from deepfm.storage import ObjectStore, absent_folder, open_store
from deepfm.workspace import cache_folder, resolve_store

GROUPS = ("environment", "config", "store", "source", "registry")
ENTRY_POINTS = "deepfm.doctor"
"""Functions that other packages offer: from a configuration, or None, to further checks of a group of their own."""


class Patient(NamedTuple):
    """What is looked at."""

    config_path: Path | None = None
    """The model's TOML, if one was named."""
    store_url: str | None = None
    """Wins over DEEPFM_STORE and the TOML."""
    source_url: str | None = None
    """Wins over the TOML."""
    read_only: bool = False
    """Whether nothing may be written to the store."""


def examine(patient: Patient) -> Iterator[Check]:
    """Every check, in the order of `GROUPS`; nothing of ours is raised, and only probe objects are written."""
    if not (temporary := temporary_folder()):
        yield failed("environment.temporary_files", "there is no folder to keep them in", "Set TMPDIR to one.")
        return
    config, read = _config(patient)
    opened, resolved = _opened(*resolve_store(patient.store_url, config))
    folders = {"temporary files": temporary, "cache": cache_folder()}
    if opened is not None and opened.url.startswith("file://") and not patient.read_only:
        folders["store"] = Path(unquote(urlsplit(opened.url).path))
    yield from environment(config, folders=folders)
    yield from [read] if config is None else settings(config)
    yield resolved
    passed: set[str] = set()
    for check in store(opened, read_only=patient.read_only) if opened is not None else ():
        passed |= {check.name} if check.status == "ok" else set()
        yield check
    yield from _source(config)
    if opened is None or "store.readable" not in passed:
        yield skipped("registry.log", "the store cannot be read")
    else:
        yield from _kept(opened, config, tried="store.create_if_absent" in passed)
    for further in entry_points(group=ENTRY_POINTS):
        yield from further.load()(config)


def _config(patient: Patient) -> tuple[RetrainConfig | None, Check]:
    if patient.config_path is None:
        return None, skipped("config.toml", "no --config was given")
    try:
        config = load_config(patient.config_path)
    except DeepFMError as error:
        return None, refusal("config.toml", error, otherwise="Correct the TOML.")
    if patient.source_url is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"source": patient.source_url})})
    return config, ok("config.toml", str(patient.config_path))


def _opened(url: str, rule: str) -> tuple[ObjectStore | None, Check]:
    try:
        opened = open_store(url)
    except DeepFMError as error:
        return None, refusal("store.url", error)
    observed = f"{opened.url}, by {rule}"
    try:
        absent = absent_folder(opened)
    except DeepFMError:  # what is in its place the disk's check says, and the probes
        absent = None
    if absent is None:
        return opened, ok("store.url", observed)
    step = "Check --store, DEEPFM_STORE and the working directory, unless nothing was run yet: a first run makes it."
    return opened, warning("store.url", f"{observed}: the folder is not there", step)


def _source(config: RetrainConfig | None) -> Iterator[Check]:
    if config is None:
        yield skipped("source.reachable", "no configuration says what its days are called")
        return
    try:
        opened = open_store(config.data.source)
    except DeepFMError as error:
        yield refusal("source.reachable", error)
        return
    yield from source(opened, config, now=dt.datetime.now(dt.UTC))


def _kept(opened: ObjectStore, config: RetrainConfig | None, *, tried: bool) -> Iterator[Check]:
    """What the store holds: clicks of the newest accepted day, log and champion of each model."""
    try:
        models = [config.model] if config is not None else models_in(opened)
        newest = _newest_accepted(opened, config.model) if config is not None else None
    except DeepFMError as error:
        yield refusal("registry.log", error)
        return
    if config is not None and newest is not None:
        yield clicks(config, newest)
    if not models:
        yield skipped("registry.log", "the store holds no model")
    for model in models:
        yield from registry(opened, model, tried=tried)


def _newest_accepted(opened: ObjectStore, model: str) -> ValidationReport | None:
    """A judgement on the newest judged day, if the day was accepted."""
    keys = [found.key for found in opened.list(layout.days_prefix(model))]
    judged = {key: day.logical_date for key in keys if (day := layout.day_result(key)) is not None and day.validated}
    for key in (key for key, date in judged.items() if date == max(judged.values())):
        report = ValidationReport.from_bytes(opened.read(key), where=f"{opened.url}/{key}")
        if report.accepted:
            return report
    return None
