"""How a world's impressions reach the store: daily Parquet partitions with late, duplicate and, if asked for, bad rows.

clicks/dt=YYYY-MM-DD/part-0.parquet    the raw columns of `CLICKS`
truth/dt=YYYY-MM-DD/part-0.parquet     the true click probability of the same rows, in the same order
"""

import datetime as dt
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepfm.config import FieldConfig
from deepfm.documents import Document
from deepfm.errors import ConfigError
from deepfm.synthetic.config import WorldConfig
from deepfm.synthetic.world import MAX_PRICE, Impressions, Ints, Purpose, World, is_weekend

ITEM_ID_BASE = 7_000_000_000
"""Item ids start here: above 2^24, where float32 would merge neighbours."""
ROW_GROUP_ROWS = 131_072
POISONED_PRICE_FACTOR, POISONED_BRAND_SHARE, POISONED_CTR_FACTOR = 100, 0.9, 6
"""What a poisoned day multiplies prices by, the share of brands it loses, and about how many times its clicks grow."""
CLICKS = pa.schema(
    [
        ("impression_id", pa.string()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("user_id", pa.string()),
        ("item_id", pa.int64()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("hour", pa.int64()),
        ("weekend", pa.int64()),
        ("price", pa.float32()),
        ("click", pa.int8()),
    ]
)
"""Columns of a raw partition."""
TRUTH = pa.schema([("impression_id", pa.string()), ("probability", pa.float64())])
"""Columns of a truth partition; the probability is that of a real click, on a poisoned day too."""
FIELDS: Mapping[str, FieldConfig] = {
    "user_id": FieldConfig(kind="categorical"),
    "item_id": FieldConfig(kind="categorical", dtype="int64"),
    "category": FieldConfig(kind="categorical"),
    "brand": FieldConfig(kind="categorical"),
    "hour": FieldConfig(kind="categorical", dtype="int64"),
    "weekend": FieldConfig(kind="categorical", dtype="int64"),
    "price": FieldConfig(kind="numeric", dtype="float32", minimum=0.0, maximum=MAX_PRICE),
}
"""The columns that a model may use, and the bounds of a sound day; every other column identifies or labels the row."""


_FOLDERS = ("clicks", "truth")
_MARK = "world.json"
"""File in both folders that names the world that writes there."""


class WorldManifest(Document):
    """Which world wrote a folder."""

    world: WorldConfig
    """Its configuration without the number of days."""


def write_world(config: WorldConfig, out: Path, *, on_day: Callable[[dt.date], None] | None = None) -> None:
    """All days of the configuration lie below `out`, in `clicks/` and `truth/`.

    Args:
        config: The world.
        out: Folder, made if it is not there.
        on_day: Called with each day once it lies there.

    Raises:
        ConfigError: terminal; another world or anything else was written there, or the folder cannot be written.
        IntegrityError: terminal; `world.json` is damaged.
    """
    world = World(config)
    _check_place(out)
    for offset in range(config.days):
        logical_date = config.start + dt.timedelta(days=offset)
        write_day(world, logical_date, clicks=out / _FOLDERS[0], truth=out / _FOLDERS[1])
        if on_day is not None:
            on_day(logical_date)


def write_day(world: World, logical_date: dt.date, *, clicks: Path, truth: Path) -> None:
    """The day's partition lies in both folders, whole; one that is there already is kept.

    `world.json` in each folder names the world that writes there. The clicks appear last, at once.

    Args:
        world: The world.
        logical_date: Its day, not before `start`.
        clicks: Folder of the raw partitions.
        truth: Folder of the true probabilities.

    Raises:
        ConfigError: terminal; another world or anything else was written there, or a folder cannot be written.
        IntegrityError: terminal; `world.json` is damaged.
        UsageError: terminal; the world begins later.
    """
    try:
        for folder in (clicks, truth):
            _claim(folder, world.config)
        targets = [folder / f"dt={logical_date}" / "part-0.parquet" for folder in (truth, clicks)]
        if not all(target.exists() for target in targets):
            _write_files(world, logical_date, truth=targets[0], clicks=targets[1])
    except OSError as cause:
        raise _unwritable(cause, clicks) from cause


def partition(world: World, logical_date: dt.date) -> Iterator[Impressions]:
    """The impressions that are delivered for a day, in chunks: its own but the late ones, then the day before's late.

    Raises:
        UsageError: terminal; the world begins later.
    """
    yield from world.impressions(world.day(logical_date), late=False)
    if logical_date > world.config.start:
        yield from world.impressions(world.day(logical_date - dt.timedelta(days=1)), late=True)


def raw_tables(world: World, logical_date: dt.date) -> Iterator[tuple[pa.Table, pa.Table]]:
    """A day's partition as it is delivered: clicks and truth, row by row the same impressions.

    Raises:
        UsageError: terminal; the world begins later.
    """
    poisoned = logical_date == world.config.poisoned_day
    for ordinal, rows in enumerate(partition(world, logical_date)):
        rng = world.generator(Purpose.DELIVERY, (logical_date - world.config.start).days, ordinal)
        length = len(rows.number)
        copies = rng.choice(length, round(world.config.duplicate_share * length), replace=False)
        clicks, truth = _clicks_table(rows), _truth_table(rows)
        if poisoned:
            clicks = _poisoned(clicks, rng, ctr=world.config.ctr)
        order = np.concatenate([np.arange(length), copies])
        yield clicks.take(pa.array(order)), truth.take(pa.array(order))


def _clicks_table(rows: Impressions) -> pa.Table:
    day, items = rows.day, rows.day.items
    midnight = np.datetime64(day.date, "us").astype(np.int64)
    columns = {
        "impression_id": _impression_ids(rows),
        "event_time": pa.array(midnight + rows.hour * 3_600_000_000 + rows.microsecond, CLICKS.field(1).type),
        "user_id": _names("u", rows.user, width=6),
        "item_id": ITEM_ID_BASE + rows.item,
        "category": _names("category-", items.category[rows.item], width=2),
        "brand": _names("brand-", items.brand[rows.item], width=3),
        "hour": rows.hour,
        "weekend": np.full(len(rows.hour), int(is_weekend(day.date))),
        "price": pa.array(items.price[rows.item].astype(np.float32), from_pandas=True),
        "click": rows.click.astype(np.int8),
    }
    return pa.table(columns, schema=CLICKS)


def _truth_table(rows: Impressions) -> pa.Table:
    return pa.table({"impression_id": _impression_ids(rows), "probability": rows.probability}, schema=TRUTH)


def _impression_ids(rows: Impressions) -> pa.Array:
    return _names(f"{rows.day.date:%Y%m%d}-", rows.number, width=9)


def _names(prefix: str, numbers: Ints, *, width: int) -> pa.Array:
    digits = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _poisoned(clicks: pa.Table, rng: np.random.Generator, *, ctr: float) -> pa.Table:
    """What a broken upstream delivers: prices in cents, a lost join on brands, bots that click."""
    no_brand = pa.array(rng.random(clicks.num_rows) < POISONED_BRAND_SHARE)
    bot = rng.random(clicks.num_rows) < min(0.9, (POISONED_CTR_FACTOR - 1) * ctr)
    columns = dict(zip(clicks.column_names, clicks.columns, strict=True))
    columns["price"] = pc.multiply(clicks["price"], pa.scalar(POISONED_PRICE_FACTOR, pa.float32()))
    columns["brand"] = pc.if_else(no_brand, pa.scalar(None, pa.string()), clicks["brand"])
    columns["click"] = pa.array(clicks["click"].to_numpy() | bot)
    return pa.table(columns, schema=CLICKS)


def _check_place(out: Path) -> None:
    """Nothing, unless there is no click world yet and something else: a folder in use is no place for one."""
    try:
        ours = any((out / name / _MARK).exists() for name in _FOLDERS)
        if not ours and (held := _held(out, but=_FOLDERS)):
            raise _in_use(out, held)
    except OSError as cause:
        raise _unwritable(cause, out) from cause


def _held(folder: Path, *, but: Collection[str] = ()) -> list[str]:
    """What lies in a folder and can be seen, but for some names; nothing where there is no folder."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(name for name in names if not name.startswith(".") and name not in but)


def _in_use(folder: Path, held: list[str]) -> ConfigError:
    return ConfigError(
        "folder holds what no click world wrote",
        observed=", ".join(held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else ""),
        required=f"a new or empty folder, or one with {_MARK} in it",
        where=str(folder),
        next_step="Choose another folder.",
    )


def _unwritable(cause: OSError, folder: Path) -> ConfigError:
    return ConfigError(
        "click world cannot be written",
        observed=cause.strerror or cause,
        where=str(folder),
        next_step="Choose another folder.",
    )


def _claim(folder: Path, config: WorldConfig) -> None:
    """`world.json` in the folder says this configuration; a folder with anything else, real days too, is refused."""
    mark = folder / _MARK
    folder.mkdir(parents=True, exist_ok=True)
    if not mark.exists():
        if held := _held(folder):
            raise _in_use(folder, held)
        temporary = _temporary(mark)
        temporary.write_bytes(WorldManifest(world=config).to_bytes())
        temporary.replace(mark)
        return
    written = WorldManifest.from_bytes(mark.read_bytes(), where=str(mark)).world
    other = [
        name for name in WorldConfig.model_fields if name != "days" and getattr(written, name) != getattr(config, name)
    ]
    if other:
        raise ConfigError(
            "folder holds another click world",
            observed=f"different {', '.join(other)}",
            required="the configuration in world.json",
            where=str(folder),
            next_step="Choose another folder.",
        )


def _write_files(world: World, logical_date: dt.date, *, truth: Path, clicks: Path) -> None:
    """Both files appear whole, the clicks last: who waits for them never sees half a day."""
    schemas = {truth: TRUTH, clicks: CLICKS}
    parts = {target: _temporary(target.parents[1] / f"{target.parent.name}.parquet") for target in schemas}
    try:
        with ExitStack() as stack:
            to_truth, to_clicks = (
                stack.enter_context(pq.ParquetWriter(parts[target], schema, write_page_checksum=True))
                for target, schema in schemas.items()
            )
            for clicks_table, truth_table in raw_tables(world, logical_date):
                to_truth.write_table(truth_table, row_group_size=ROW_GROUP_ROWS)
                to_clicks.write_table(clicks_table, row_group_size=ROW_GROUP_ROWS)
        for target, part in parts.items():
            target.parent.mkdir(exist_ok=True)
            part.replace(target)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")
