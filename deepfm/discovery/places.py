"""Where the clicks are, and the next step where no day can be found there."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from deepfm.data.files import is_data
from deepfm.discovery.naming import time_rank
from deepfm.discovery.roles import Wishes, believed_form
from deepfm.discovery.tables import read_flat
from deepfm.discovery.values import typed
from deepfm.errors import NotFoundError, UsageError
from deepfm.layout import DATA_SUFFIXES
from deepfm.storage import ObjectInfo, ObjectStore, open_store
from deepfm.storage.local import disk_errors

_REQUIRED = f"files whose names begin with neither . nor _ and end in {', '.join(DATA_SUFFIXES)}"
_ELSEWHERE = (
    "Name the folder of the clicks; made-up ones to try it on come with: deepfm synth --out ./world, "
    "then deepfm init ./world/clicks --out clicks.toml"
)
_SHOWN = 3


def listed(where: str) -> tuple[ObjectStore, list[ObjectInfo]]:
    """The store behind a source and what it holds; of a single file, that file.

    Raises:
        NotFoundError: terminal; there is nothing.
    """
    if not where.startswith("s3://"):
        path = Path(unquote(where.removeprefix("file://")) if where.startswith("file://") else where)
        with disk_errors(where):
            is_file, is_there = path.is_file(), path.exists()
        if is_file:
            return open_store(str(path.parent)), [ObjectInfo(path.name, path.stat().st_size)]
        if not is_there:
            raise NotFoundError(
                f"{where} does not exist", next_step="Check the path, which is relative to where you are."
            )
    store = open_store(where)
    listing = store.list("")
    if not listing and is_data(where):
        parent, _, name = where.rpartition("/")
        store = open_store(parent)
        listing = [info for info in store.list("") if info.key == name]
    if not listing:
        raise NotFoundError(f"{where} is empty", required=_REQUIRED, next_step=_ELSEWHERE)
    return store, listing


def without_days(
    where: str,
    store: ObjectStore,
    listing: Sequence[ObjectInfo],
    files: Sequence[ObjectInfo],
    wishes: Wishes,
    *,
    scratch: Path,
) -> UsageError:
    """The error that says what to do with files that no date names."""
    if not files:
        return UsageError(
            f"{where} holds no data file",
            observed=_names(listing),
            required=_REQUIRED,
            next_step=_ELSEWHERE,
        )
    if wishes.partition is not None:
        return UsageError(
            "--partition reaches no file",
            observed=f"files such as {files[0].key}",
            required=f"names like {wishes.partition}",
            next_step="Leave the option out to have the template found.",
        )
    first = files[0]
    one_file = len(listing) == 1 and where.endswith(first.key)
    path = where if one_file else f"{where.rstrip('/')}/{first.key}"
    out = f"{first.key.rpartition('/')[2].partition('.')[0]}-days"
    split = f"deepfm split {shlex.quote(path)}"
    rows = read_flat(store, first, scratch=scratch)
    columns = [typed(name, rows.column(name), from_text=True) for name in rows.column_names]
    dated = sorted((v.name for v in columns if believed_form(v) is not None), key=time_rank)
    if dated:
        how = f"Run: {split} --by {shlex.quote(dated[0])} --out {shlex.quote(out)}"
    else:
        how = (
            f"Run: {split} --pseudo-days 8 --out {shlex.quote(out)}; rows in file order then stand for time: drift, "
            "freshness and new items are not seen, and AUC may look better than it will be."
        )
    return UsageError(
        f"{where} has no day in the names of its files",
        observed=f"{len(files)} data {'file' if len(files) == 1 else 'files'}, such as {first.key}",
        required="a folder or a file for each day, such as dt=2026-03-09/ or clicks-2026-03-09.csv",
        next_step=how,
    )


def _names(listing: Sequence[ObjectInfo]) -> str:
    """A few of the names, hidden ones last."""
    keys = sorted(
        (info.key for info in listing), key=lambda key: (key.startswith(".") or "/." in key, key.count("/"), key)
    )
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {'file' if len(keys) == 1 else 'files'}: {', '.join(keys[:_SHOWN])}{more}"
