"""Scored rows as CSV, TSV, JSON lines or Parquet, by the name of the file."""

import csv
import gzip
import io
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic_core import PydanticSerializationError, to_json

from deepfm.errors import DataRejectedError, UsageError
from deepfm.scoring.reading import JSON_SUFFIXES, Rows
from deepfm.storage.local import disk_errors, temporary_beside

_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_PARQUET = ".parquet"


class Sink(Protocol):
    """Where scored rows go."""

    def write(self, rows: Rows, scores: NDArray[np.float32]) -> None:
        """The rows are written, each with its probability.

        Raises:
            UsageError: terminal; the rows have a column of the probability's name already.
            DataRejectedError: terminal; the rows hold what this format cannot.
        """
        ...

    def close(self) -> None:
        """Everything is written that the format needs at its end."""
        ...


class _Table:
    """CSV: the header of the first rows; a missing value is an empty cell."""

    def __init__(self, stream: BinaryIO, column: str, *, delimiter: str) -> None:
        self._stream, self._column, self._delimiter = stream, column, delimiter
        self._begun = False

    def write(self, rows: Rows, scores: NDArray[np.float32]) -> None:
        _require_free(self._column, rows.names)
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self._delimiter, lineterminator="\n")
        if not self._begun:
            writer.writerow([*rows.names, self._column])
            self._begun = True
        writer.writerows(zip(*map(_flat, rows.columns()), scores.tolist(), strict=True))
        self._stream.write(_encoded(text.getvalue()))

    def close(self) -> None:
        return


class _JsonLines:
    """The fields of a row, then the probability."""

    def __init__(self, stream: BinaryIO, column: str) -> None:
        self._stream, self._column = stream, column

    def write(self, rows: Rows, scores: NDArray[np.float32]) -> None:
        lines = []
        for record, score in zip(rows.records(), scores.tolist(), strict=True):
            _require_free(self._column, record)
            lines.append(_json(record | {self._column: score}))
        self._stream.write(b"\n".join([*lines, b""]))

    def close(self) -> None:
        return


class _Parquet:
    """The columns of the input with their types, then the probability as float32."""

    def __init__(self, stream: BinaryIO, column: str) -> None:
        self._stream, self._column = stream, column
        self._writer: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None

    def write(self, rows: Rows, scores: NDArray[np.float32]) -> None:
        _require_free(self._column, rows.names)
        batch = rows.batch(self._schema)
        scored = batch.append_column(self._column, pa.array(scores, pa.float32()))
        if self._writer is None:
            self._schema = batch.schema
            self._writer = pq.ParquetWriter(self._stream, scored.schema, write_page_checksum=True)
        self._writer.write_batch(scored)

    def close(self) -> None:
        if self._writer is None:
            pq.write_table(pa.table({self._column: pa.array([], pa.float32())}), self._stream)
        else:
            self._writer.close()


def text_sink(stream: BinaryIO, column: str, *, json_lines: bool) -> Sink:
    """A sink of text in UTF-8: JSON lines, or CSV.

    Args:
        stream: Takes the bytes.
        column: Name of the probability.
        json_lines: Which of the two.
    """
    return _JsonLines(stream, column) if json_lines else _Table(stream, column, delimiter=",")


@contextmanager
def file_sink(path: Path, column: str) -> Iterator[Sink]:
    """Within it, a sink; after it, a whole file, in place at once, over an older one. After an error: nothing.

    Args:
        path: The file; its name says the format, and whether it is compressed.
        column: Name of the probability.

    Raises:
        UsageError: terminal; the name says no format that can be written.
        ConfigError: terminal; the disk is read-only, or rights are missing.
        NoSpaceError: transient; the disk is full.
    """
    name = path.name.lower()
    if not name.endswith((*_TABLES, *JSON_SUFFIXES, _PARQUET)):
        raise UsageError(
            "--out says no format",
            observed=ascii(path.name[:80]),
            required=f"a name that ends in {', '.join(_TABLES)}, {JSON_SUFFIXES[0]} or {_PARQUET}",
        )
    with disk_errors(str(path)), temporary_beside(path) as temporary:
        with temporary.open("xb") as raw, _packed(raw, name) as stream:
            sink = _sink(stream, column, name)
            yield sink
            sink.close()
        temporary.replace(path)


def _sink(stream: BinaryIO, column: str, name: str) -> Sink:
    if name.endswith(_PARQUET):
        return _Parquet(stream, column)
    if name.endswith(JSON_SUFFIXES):
        return _JsonLines(stream, column)
    return _Table(stream, column, delimiter="\t" if ".tsv" in name else ",")


@contextmanager
def _packed(raw: BinaryIO, name: str) -> Iterator[BinaryIO]:
    if not name.endswith(".gz"):
        yield raw
        return
    # No name and no time in the header: the same rows are the same bytes.
    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as stream:
        yield cast("BinaryIO", stream)


def _require_free(column: str, names: Container[str]) -> None:
    if column in names:
        raise UsageError(f"the input has a column {column} already", next_step="Name another with --column.")


def _flat(column: Sequence[object]) -> Sequence[object]:
    """The cells of a column, nested ones as JSON."""
    if {dict, list}.isdisjoint(map(type, column)):
        return column
    return [_json(cell).decode() if isinstance(cell, dict | list) else cell for cell in column]


def _json(value: object) -> bytes:
    try:
        return to_json(value, inf_nan_mode="null", bytes_mode="base64")
    except PydanticSerializationError as cause:
        raise _unwritable() from cause


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as cause:
        raise _unwritable() from cause


def _unwritable() -> DataRejectedError:
    return DataRejectedError("a row holds text that is not Unicode (a lone surrogate)")
