"""Days of clicks as nobody here has seen them, and what is found in them."""

import datetime as dt
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepfm.config_file import parse_config
from deepfm.discovery.found import Found
from deepfm.discovery.roles import Wishes
from deepfm.discovery.survey import survey
from deepfm.discovery.toml_text import render

FIRST = dt.date(2026, 3, 1)
ROWS = 600


def columns(date: dt.date, *, rows: int = ROWS, ctr: float = 0.2) -> dict[str, Any]:
    """Plain columns of one day; a test adds its own."""
    rng = np.random.default_rng(date.toordinal())
    return {
        "click": (rng.random(rows) < ctr).astype(np.int64),
        "user_id": [f"u{user}" for user in rng.integers(0, 40, rows)],
        "item": rng.integers(100, 130, rows),
    }


def deliver(folder: Path, make=columns, *, days: int = 3, write=None) -> Path:
    """Daily partitions of what `make` says of a date."""
    for offset in range(days):
        date = FIRST + dt.timedelta(days=offset)
        (folder / f"dt={date}").mkdir(parents=True)
        table = make(date) if isinstance(made := make(date), pa.Table) else pa.table(made)
        if write is None:
            pq.write_table(table, folder / f"dt={date}" / "part-0.parquet")
        else:
            write(table, folder / f"dt={date}" / "part-0.csv")
    return folder


def look(folder: Path | str, **wishes) -> Found:
    return survey(str(folder), Wishes(**wishes), scratch=Path("/nonexistent"))


def config_of(found: Found):
    return parse_config(tomllib.loads(render(found, model="m", out=Path("m.toml"))), where="test")


def column(found: Found, name: str):
    return next(column for column in found.columns if column.name == name)


def with_extra(**extra):
    """A day with columns more; a function gets the labels and a generator."""

    def make(date: dt.date) -> dict[str, Any]:
        plain, rng = columns(date), np.random.default_rng(date.toordinal() + 1)
        return plain | {name: make(plain["click"], rng) for name, make in extra.items()}

    return make
