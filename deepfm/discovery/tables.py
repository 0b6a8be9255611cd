"""Files as they come, and their rows under one schema."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from deepfm.data.files import DataFile, is_csv, open_file
from deepfm.discovery.delimiters import delimiter_of
from deepfm.storage import ObjectInfo, ObjectStore


@contextmanager
def fetched(store: ObjectStore, key: str, *, scratch: Path) -> Iterator[Path]:
    """Within it, a local path that holds an object; a download is removed afterwards."""
    path = store.fetch(key, scratch=scratch)
    try:
        yield path
    finally:
        if path.parent == scratch:
            path.unlink(missing_ok=True)


def opened(path: Path, key: str) -> tuple[DataFile, str | None]:
    """The open file and the delimiter of a CSV that does not use the usual one."""
    delimiter = delimiter_of(path, key=key) if is_csv(key) else None
    return open_file(path, key=key, delimiter=delimiter), delimiter


def read_flat(store: ObjectStore, info: ObjectInfo, *, scratch: Path, rows: int = 20_000) -> pa.Table:
    """The first rows of one file.

    Raises:
        DataCorruptError: terminal; it is not readable.
    """
    with fetched(store, info.key, scratch=scratch) as path:
        file, _ = opened(path, info.key)
        batches = []
        for batch in file.batches(named_once(file.schema)[0]):
            batches.append(batch)
            if sum(part.num_rows for part in batches) >= rows:
                break
        return unified([pa.Table.from_batches([batch]) for batch in batches]) if batches else pa.table({})


def named_once(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Names that a schema has once, and names that it has more often."""
    counts = Counter(schema.names)
    return [name for name in schema.names if counts[name] == 1], [name for name in counts if counts[name] > 1]


def unified(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of all tables under one schema: a column whose type differs is read as text."""
    types: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            types.setdefault(field.name, set()).add(_plain(field.type))
    target = pa.schema([(name, _one_type(kinds)) for name, kinds in types.items()])
    return pa.concat_tables([_as(table, target) for table in tables]) if tables else pa.table({})


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _one_type(kinds: set[pa.DataType]) -> pa.DataType:
    known = {kind for kind in kinds if not pa.types.is_null(kind)}
    if len(known) <= 1:
        return next(iter(known), pa.null())
    if all(pa.types.is_integer(kind) for kind in known):
        return pa.int64()
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in known):
        return pa.float64()
    if all(pa.types.is_timestamp(kind) and kind.tz for kind in known):
        return pa.timestamp("us", tz="UTC")
    return pa.string()


def _as(table: pa.Table, target: pa.Schema) -> pa.Table:
    columns = []
    for field in target:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        nested = pa.types.is_nested(column.type) or pa.types.is_binary(column.type)
        same = column.type == field.type
        columns.append(column if same else _nothing(column, field) if nested else column.cast(field.type, safe=False))
    return pa.table(columns, schema=target)


def _nothing(column: pa.ChunkedArray, field: pa.Field) -> pa.Array:
    # A list in some files and a plain type in others: the column is of no use either way.
    return pa.nulls(len(column), field.type)
