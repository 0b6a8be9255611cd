"""The file of a prepared day: Arrow IPC, uncompressed, so that a window maps it into memory and copies no row.

codes    fixed_size_list<int32>[F]     day-local codes of the categorical fields
numeric  fixed_size_list<float32>[D]   raw numeric values, NaN where missing or infinite (left out if D = 0)
label    uint8                         0 or 1
group    uint64                        hash of the user (of the row where there is no group)
row      uint64                        hash of the impression
"""

from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class ShardRows(NamedTuple):
    """Some consecutive rows of a prepared day."""

    codes: NDArray[np.int32]
    """[N, F]"""
    numeric: NDArray[np.float32]
    """[N, D]"""
    labels: NDArray[np.uint8]
    """[N]"""
    groups: NDArray[np.uint64]
    """[N]"""
    rows: NDArray[np.uint64]
    """[N]"""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)


class ShardWriter:
    """Appends rows to a shard; use as a context manager."""

    def __init__(self, path: Path, *, fields: int, numeric: int) -> None:
        self._fields, self._numeric = fields, numeric
        self._schema = _schema(fields, numeric)
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._sink.close()

    def write(self, rows: ShardRows) -> None:
        """Append rows; nothing is written for none."""
        if not len(rows):
            return
        columns = [_lists(rows.codes, self._fields, pa.int32())]
        if self._numeric:
            columns.append(_lists(rows.numeric, self._numeric, pa.float32()))
        columns += [pa.array(rows.labels), pa.array(rows.groups), pa.array(rows.rows)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))


def open_shard(path: Path, *, fields: int, numeric: int) -> list[ShardRows]:
    """The rows of a shard as views into the memory-mapped file, in chunks as they were written."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        return [_view(reader.get_batch(index), fields, numeric) for index in range(reader.num_record_batches)]


def _view(batch: pa.RecordBatch, fields: int, numeric: int) -> ShardRows:
    count = batch.num_rows
    values = (
        np.asarray(batch.column("numeric").values.to_numpy()).reshape(count, numeric)
        if numeric
        else np.zeros((count, 0), dtype=np.float32)
    )
    return ShardRows(
        codes=np.asarray(batch.column("codes").values.to_numpy()).reshape(count, fields),
        numeric=values,
        labels=np.asarray(batch.column("label").to_numpy()),
        groups=np.asarray(batch.column("group").to_numpy()),
        rows=np.asarray(batch.column("row").to_numpy()),
    )


def _schema(fields: int, numeric: int) -> pa.Schema:
    columns = [pa.field("codes", pa.list_(pa.int32(), fields), nullable=False)]
    if numeric:
        columns.append(pa.field("numeric", pa.list_(pa.float32(), numeric), nullable=False))
    columns += [
        pa.field("label", pa.uint8(), nullable=False),
        pa.field("group", pa.uint64(), nullable=False),
        pa.field("row", pa.uint64(), nullable=False),
    ]
    return pa.schema(columns)


def _lists(matrix: NDArray[np.int32] | NDArray[np.float32], width: int, kind: pa.DataType) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1), kind)
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(pa.field("item", kind), width))
