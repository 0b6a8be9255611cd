"""Where a model's stages read and write, and how their documents and files get there.

A stage writes its files first and its document last, create-only: a document that exists names files that are whole.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from deepfm import layout
from deepfm.config import RetrainConfig
from deepfm.documents import Document
from deepfm.errors import AlreadyExistsError, NotFoundError
from deepfm.events import current_actor
from deepfm.manifests import FileEntry, PreparedDay, ValidationReport, Window, WindowDay
from deepfm.registry import Registry
from deepfm.storage import LocalCache, ObjectStore, open_store
from deepfm.storage.local import disk_errors

CACHE_BYTES = 20 * 2**30
"""Size cap of the local cache of a store that is not on this machine."""
D = TypeVar("D", bound=Document)


class Workspace:
    """Where a model's stages read and write: configuration, store, source of raw clicks, local cache."""

    def __init__(self, config: RetrainConfig, *, store: ObjectStore, source: ObjectStore, cache: LocalCache) -> None:
        self.config, self.store, self.source, self.cache = config, store, source, cache
        self.registry = Registry(store, config.model)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.config.model

    @property
    def actor(self) -> str:
        """Who runs this."""
        return current_actor()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder that is gone afterwards.

        Raises:
            NoSpaceError: transient; its disk is full.
            StoreUnavailableError: transient; its disk does not answer.
        """
        with disk_errors(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="deepfm-") as folder:
            yield Path(folder)

    def document(self, kind: type[D], key: str) -> D | None:
        """The stored document, or None if it is not there."""
        try:
            return kind.from_bytes(self.store.read(key), where=f"{self.store.url}/{key}")
        except NotFoundError:
            return None

    def settle(self, document: D, key: str) -> D:
        """Store a stage's document, its last object; if one is there already, that one counts."""
        try:
            self.store.create(key, document.to_bytes())
        except AlreadyExistsError:
            return self.document(type(document), key) or document
        return document

    def put(self, prefix: str, files: Mapping[str, Path]) -> dict[str, FileEntry]:
        """Upload a stage's files and return what its document says of them."""
        for name, path in files.items():
            self.store.upload(layout.file_key(prefix, name), path)
        return {name: _entry(path) for name, path in files.items()}

    def quarantine(self, report: ValidationReport) -> Path:
        """The local file of the rows that validation set aside."""
        prefix = layout.validated_prefix(self.model, report.logical_date, report.key)
        name = layout.QUARANTINE_FILE
        return self.local(prefix, {name: report.files[name]})[name]

    def prepared(self, day: WindowDay) -> PreparedDay:
        """The document of a window's day."""
        key = layout.file_key(layout.prepared_prefix(self.model, day.logical_date, day.key), layout.MANIFEST)
        return PreparedDay.from_bytes(self.store.read(key), where=f"{self.store.url}/{key}")

    def day_files(self, day: PreparedDay) -> dict[str, Path]:
        """Local files of a prepared day, by name."""
        return self.local(layout.prepared_prefix(self.model, day.logical_date, day.key), day.files)

    def window_files(self, window: Window) -> dict[str, Path]:
        """Local files of a window, by name."""
        return self.local(layout.window_prefix(self.model, window.logical_date, window.key), window.files)

    def local(self, prefix: str, files: Mapping[str, FileEntry]) -> dict[str, Path]:
        """Verified local files of a stage, by name."""
        return {
            name: self.cache.path(
                self.store, layout.file_key(prefix, name), sha256=entry.sha256, size_bytes=entry.size_bytes
            )
            for name, entry in files.items()
        }


def open_workspace(config: RetrainConfig, *, store_url: str | None = None, cache: Path | None = None) -> Workspace:
    """The workspace of a configuration.

    Args:
        config: The model's configuration.
        store_url: Wins over `DEEPFM_STORE`, which wins over `store` in the configuration.
        cache: Folder of the local cache; unset, `DEEPFM_CACHE` or a folder in the user's temporary files.
    """
    url, _ = resolve_store(store_url, config)
    return Workspace(
        config,
        store=open_store(url),
        source=open_store(config.data.source),
        cache=LocalCache(cache or cache_folder(), CACHE_BYTES),
    )


def resolve_store(given: str | None, config: RetrainConfig | None) -> tuple[str, str]:
    """The store's URL, and the rule that it follows from.

    Args:
        given: By `--store`; wins over `DEEPFM_STORE`, which wins over `store` in the configuration.
        config: The model's configuration, if there is one.
    """
    if given:
        return given, "--store"
    if from_environment := os.environ.get("DEEPFM_STORE"):
        return from_environment, "DEEPFM_STORE"
    if config is not None and "store" in config.model_fields_set:
        return config.store, "store in the TOML"
    return str(RetrainConfig.model_fields["store"].default), "the default"


def cache_folder() -> Path:
    """Where the local cache is unless a caller says: `DEEPFM_CACHE`, or a folder in the user's temporary files."""
    return Path(os.environ.get("DEEPFM_CACHE") or Path(tempfile.gettempdir(), f"deepfm-cache-{os.getuid()}"))


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as stream:
        return FileEntry(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), size_bytes=path.stat().st_size)
