"""Places to retrain in: a store, delivered days and a cache, with every change watched if a test asks for it."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa

from deepfm.retraining import RunOutcome
from deepfm.serving import read_model
from deepfm.storage import LocalCache, ObjectStore, open_store
from deepfm.workspace import Workspace
from tests.tiny_days import HOLDOUT, click_day, tiny_config, write_day

ROWS = 300
WORLD = [HOLDOUT - dt.timedelta(days=back) for back in (4, 3, 2, 1, 0)]
YESTERDAY = HOLDOUT - dt.timedelta(days=1)
Tell = Callable[[str, str], None]


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


class Watched:
    """A store that tells of every change before it happens."""

    def __init__(self, store: ObjectStore, tell: Tell) -> None:
        self._store, self._tell = store, tell

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        if name not in {"write", "create", "upload", "delete"}:
            return call

        def told(key: str, *args: object) -> None:
            self._tell(name, key)
            call(key, *args)

        return told


class Place(NamedTuple):
    """Where one test keeps its store, its clicks and its cache."""

    store: str
    source: str
    folder: Path

    def workspace(self, changes: dict[str, Any] | None = None, *, tell: Tell | None = None) -> Workspace:
        """The workspace of the tiny configuration with some changes; `tell` hears of every change of the store."""
        config = tiny_config({**(changes or {}), "data.source": self.source})
        store = open_store(self.store)
        return Workspace(
            config,
            store=store if tell is None else cast("ObjectStore", Watched(store, tell)),
            source=open_store(self.source),
            cache=LocalCache(self.folder / "cache", 2**30),
        )

    def deliver(self, date: dt.date, table: pa.Table | None = None) -> None:
        """Put one day of clicks in place, over an older delivery."""
        staging = self.folder / "staging"
        write_day(staging, date, click_day(date, rows=ROWS) if table is None else table)
        key = f"dt={date}/part-0.parquet"
        open_store(self.source).upload(key, staging / key)

    def objects(self) -> dict[str, bytes]:
        """What the store holds of days and models."""
        store = open_store(self.store)
        return {info.key: store.read(info.key) for info in store.list("models") + store.list("days")}


def local_place(folder: Path) -> Place:
    """A place in a folder, with nothing delivered yet."""
    folder.mkdir(parents=True, exist_ok=True)
    return Place(f"file://{folder}/store", f"{folder}/clicks", folder)


class Reference(NamedTuple):
    """An undisturbed run on a folder, to compare others with."""

    place: Place
    outcome: RunOutcome
    onnx: bytes
    changes: list[tuple[str, str]]
    """Every change of the store, but those by which it was tried out before the first entry of the log."""


def onnx_of(workspace: Workspace, outcome: RunOutcome) -> bytes:
    """The bytes of an outcome's model file."""
    assert outcome.version is not None
    manifest, _ = workspace.registry.manifest(outcome.version)
    return bytes(read_model(workspace.store, manifest))
