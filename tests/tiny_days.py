"""Small click days, and what the stages before a test's own make of them; a test changes one thing."""

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from deepfm.config import RetrainConfig
from deepfm.config_file import parse_config
from deepfm.data.partitions import find_partition
from deepfm.data.preparing import prepare_rows
from deepfm.data.profile import profile_partition
from deepfm.data.window import assemble
from deepfm.manifests import FileEntry, PreparedDay, ValidationReport, Window, WindowDay
from deepfm.storage import LocalCache, open_store
from deepfm.training.batches import WindowRows
from deepfm.training.loop import Fitted, Trainer
from deepfm.weights import pack

HOLDOUT = dt.date(2026, 3, 4)
DAYS = tuple(HOLDOUT - dt.timedelta(days=back) for back in (3, 2, 1))
CPU = torch.device("cpu")
_BASE: dict[str, Any] = {
    "model": "tiny",
    "data": {"source": "clicks", "event_time": "time", "event_key": "id", "group": "user"},
    "fields": {
        "user": {"kind": "categorical"},
        "item": {"kind": "categorical", "dtype": "int64"},
        "price": {"kind": "numeric", "minimum": 0.0, "maximum": 1e6},
    },
    "validation": {"min_rows": 10},
    "window": {"window_days": 3},
    "network": {"embedding_dim": 4, "hidden": [8]},
    # Everything that moves a weight is set here: a better default is no reason for a test to change.
    "training": {
        "batch_size": 32,
        "epochs": 2,
        "device": "cpu",
        "learning_rate": 0.02,
        "embedding_learning_rate": 0.02,
        "l2_embedding": 0.0,
        "validation_share": 0.05,
        "validation_by": "group",
    },
    "gate": {"min_auc": 0.5, "min_calibration": 0.1, "max_calibration": 10.0},
}


def tiny_config(changes: Mapping[str, Any] | None = None) -> RetrainConfig:
    """The base configuration with some dotted keys set; a value of None removes the key."""
    raw: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in _BASE.items()}
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        table = raw
        for parent in parents:
            table[parent] = dict(table.get(parent, {}))
            table = table[parent]
        if value is None:
            table.pop(last, None)
        else:
            table[last] = value
    return parse_config(raw, where="test")


def click_day(date: dt.date, *, rows: int = 240, seed: int = 0) -> pa.Table:
    """One day of impressions: one in five is clicked, by a taste that user, item and price all tell of."""
    rng = np.random.default_rng([date.toordinal(), seed])
    users, items = rng.integers(0, 12, rows), rng.integers(0, 8, rows)
    price = rng.gamma(2.0, 5.0, rows)
    logits = -1.6 + 1.2 * np.sin(users * 2.0) + 1.5 * np.cos(items * 3.0) - 0.05 * (price - 10.0)
    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    seconds = np.sort(rng.integers(0, 86_400, rows))
    return pa.table(
        {
            "click": pa.array(rng.random(rows) < 1.0 / (1.0 + np.exp(-logits))),
            "time": pa.array([midnight + dt.timedelta(seconds=int(s)) for s in seconds], pa.timestamp("us", tz="UTC")),
            "id": pa.array([f"{date}-{row}" for row in range(rows)]),
            "user": pa.array([f"u{user}" for user in users]),
            "item": pa.array(items * 1000, pa.int64()),
            "price": pa.array(price),
        }
    )


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """The table with one column replaced."""
    return table.set_column(table.column_names.index(name), name, values if isinstance(values, pa.Array) else [values])


def write_day(root: Path, date: dt.date, *tables: pa.Table) -> None:
    """One Parquet file per table in the day's folder."""
    folder = root / f"dt={date}"
    folder.mkdir(parents=True, exist_ok=True)
    for index, table in enumerate(tables):
        pq.write_table(table, folder / f"part-{index}.parquet")


class Profiled(NamedTuple):
    """A day after its profile, with a report that accepts it."""

    report: ValidationReport
    quarantine: Path
    frame: Any
    reasons: dict[str, int]


def profiled(root: Path, config: RetrainConfig, date: dt.date, *, scratch: Path) -> Profiled:
    """A day's real partition and profile; the rules are not asked."""
    scratch.mkdir(parents=True, exist_ok=True)
    source, cache = open_store(str(root)), LocalCache(scratch / "cache", 2**30)
    partition = find_partition(source, config, date, cache=cache)
    assert partition is not None
    profile = profile_partition(source, partition, config, cache=cache, scratch=scratch)
    day = profile.day
    report = ValidationReport(
        model=config.model,
        logical_date=date,
        key=partition.fingerprint,
        partition=partition,
        accepted=True,
        rows=day.rows,
        quarantined_rows=day.rows - day.valid_rows,
        valid_rows=day.valid_rows,
        clicks=day.clicks,
        findings=(),
        files={},
    )
    return Profiled(report, profile.quarantine, profile.frame, day.reasons)


class TinyWindow(NamedTuple):
    """A window, its prepared days and their local files."""

    window: Window
    days: dict[dt.date, PreparedDay]
    files: dict[dt.date, dict[str, Path]]
    config: RetrainConfig

    def rows(self) -> WindowRows:
        """The rows to train on."""
        return WindowRows(self.window, self.days, self.files, self.config)


def prepared(root: Path, config: RetrainConfig, date: dt.date, *, scratch: Path) -> tuple[PreparedDay, dict[str, Path]]:
    """A prepared day and its files."""
    day = profiled(root, config, date, scratch=scratch)
    rows = prepare_rows(
        open_store(str(root)),
        day.report,
        config,
        quarantine=day.quarantine,
        cache=LocalCache(scratch / "cache", 2**30),
        scratch=scratch,
    )
    document = PreparedDay(
        model=config.model,
        logical_date=date,
        key="0" * 16,
        rows=day.report.valid_rows,
        clicks=day.report.clicks,
        sampled_rows=rows.sampled_rows,
        keep_rate=rows.keep_rate,
        dictionary_sizes=rows.dictionary_sizes,
        moments=rows.moments,
        files={name: FileEntry(sha256="0" * 64, size_bytes=0) for name in rows.files},
    )
    return document, rows.files


def tiny_window(folder: Path, config: RetrainConfig, *, tables: Mapping[dt.date, pa.Table] | None = None) -> TinyWindow:
    """A window over some days, made by the stages themselves."""
    tables = tables if tables is not None else {date: click_day(date) for date in DAYS}
    days: dict[dt.date, PreparedDay] = {}
    files: dict[dt.date, dict[str, Path]] = {}
    for date, table in tables.items():
        write_day(folder / "clicks", date, table)
        days[date], files[date] = prepared(folder / "clicks", config, date, scratch=folder / str(date))
    return assembled(folder, config, list(days.values()), files)


def assembled(
    folder: Path, config: RetrainConfig, days: Sequence[PreparedDay], files: Mapping[dt.date, Mapping[str, Path]]
) -> TinyWindow:
    """The window of some prepared days."""
    made = assemble(days, files, config, logical_date=HOLDOUT, scratch=folder)
    window = Window(
        model=config.model,
        logical_date=HOLDOUT,
        key="1" * 16,
        days=tuple(
            WindowDay(
                logical_date=day.logical_date,
                key=day.key,
                sampled_rows=day.sampled_rows,
                clicks=day.clicks,
                keep_rate=day.keep_rate,
            )
            for day in days
        ),
        gaps=(),
        keep_rate=min(day.keep_rate for day in days),
        categorical=config.categorical,
        numeric=config.numeric,
        vocabulary_sizes=made.vocabulary_sizes,
        normalisation=made.normalisation,
        files={},
    )
    local = {day.logical_date: {**files[day.logical_date], **made.files} for day in days}
    return TinyWindow(window, {day.logical_date: day for day in days}, local, config)


def fit(window: TinyWindow, **settings) -> Fitted:
    """The model that a window makes."""
    return Trainer(window.rows(), window.window, window.config).fit(**settings)


def weights(fitted: Fitted) -> bytes:
    """The bytes of the fitted weights."""
    return pack(fitted.model.state_dict(), {})
