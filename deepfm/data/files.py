"""One raw file, Parquet or CSV, behind one face: its schema, its rows in a stream, its errors in words.

A CSV carries no types, so every column of it is text here and an empty cell is null; what the text has to be is said by
the column's role, later. Compressed CSV is read as it streams. Memory: a few blocks, whatever the size of the file.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from deepfm.errors import DataCorruptError, DeepFMError
from deepfm.layout import DATA_SUFFIXES
from deepfm.storage.local import disk_error

_BLOCK_BYTES = 1 << 20
"""What a CSV is read in, some thirty of them ahead; no row may be longer."""
_PEEK_CHARACTERS = 1 << 16
_SMALL_ROWS = 10_000
"""A file of so few rows is read faster by one thread than by several."""
_TEXT_MARK = {b"deepfm.cells": b"text"}
"""In the schema of a file whose cells are all text, so that they are read by the role of their column."""
_READ_ERRORS = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error)
_VALUES = re.compile(r"(, got \d+):.*|(invalid value).*")
"""What a message goes on with are values of a row, which no log may hold."""


class DataFile(Protocol):
    """An open raw file."""

    schema: pa.Schema
    """Columns as stored; all text in a CSV."""
    rows: int | None
    """Rows, where the format says so before reading them."""

    def batches(self, columns: Sequence[str] | None = None, *, batch_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The rows, in order, in batches of at most `batch_rows`; all columns, or those named, in their order.

        Raises:
            DataCorruptError: terminal; the file cannot be read to its end.
        """
        ...


def is_data(key: str) -> bool:
    """Whether a key is that of a data file: by its ending, and no part of it hidden or a writer's own."""
    return key.lower().endswith(DATA_SUFFIXES) and not any(part.startswith(("_", ".")) for part in key.split("/"))


def is_csv(key: str) -> bool:
    """Whether a data file's name says that it holds text."""
    return not key.lower().endswith(".parquet")


def is_text(schema: pa.Schema) -> bool:
    """Whether the file behind a schema or a batch's schema holds text alone, whatever its columns mean."""
    return (schema.metadata or {}).items() >= _TEXT_MARK.items()


def open_file(path: Path, *, key: str, delimiter: str | None = None) -> DataFile:
    """The open file; nothing but its header or footer was read.

    Args:
        path: Where its bytes are.
        key: Its name in the source: the format follows from it, and errors name it.
        delimiter: Between the cells of a CSV; unset, a tab for `.tsv` and a comma otherwise.

    Raises:
        DataCorruptError: terminal; the file is not what its name says, or has no header.
        StoreUnavailableError: transient; the disk does not answer.
    """
    try:
        _check_contents(path, key)
        if is_csv(key):
            return _CsvFile(path, key, delimiter or ("\t" if ".tsv" in key.lower() else ","))
        return _ParquetFile(path, key)
    except _READ_ERRORS as cause:
        raise corrupt(key, cause) from cause


def corrupt(key: str, cause: BaseException) -> DeepFMError:
    """The error that says why a file cannot be read: its bytes are to blame, or the disk that they are on."""
    if isinstance(cause, OSError) and cause.errno is not None:
        # The clicks may be sound: a day must not be refused for good because a disk did not answer.
        return disk_error(cause, key)
    first = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    reason = _VALUES.sub(r"\1\2", first).removeprefix("CSV parse error: ")[:160]
    if "straddling object" in reason:
        reason = f"a row is longer than {_BLOCK_BYTES} bytes; is a quote never closed?"
    next_step = (
        "Deliver the file as UTF-8." if re.search("utf-?8", reason, re.IGNORECASE) else "Deliver the file again."
    )
    return _unreadable(key, reason, next_step)


def _unreadable(key: str, reason: str, next_step: str) -> DataCorruptError:
    kind = "CSV" if is_csv(key) else "Parquet"
    return DataCorruptError(f"{key} is not readable as {kind}: {reason}", next_step=next_step)


def _check_contents(path: Path, key: str) -> None:
    """Nothing, unless the file begins like one of another format than its name says."""
    with path.open("rb") as stream:
        start = stream.read(4)
    packed, named_packed = start[:2] == b"\x1f\x8b", key.lower().endswith(".gz")
    if is_csv(key) and start == b"PAR1":
        raise _unreadable(key, "it begins like Parquet", "Name it .parquet.")
    if is_csv(key) and packed and not named_packed:
        raise _unreadable(key, "it begins like gzip", "Add .gz to its name.")
    if named_packed and start and not packed:
        raise _unreadable(key, "it does not begin like gzip", "Take .gz off its name, or deliver the file again.")
    if not is_csv(key) and len(start) == 4 and start != b"PAR1":
        raise _unreadable(key, "it does not begin like Parquet", "Name CSV .csv, or deliver the file again.")


class _ParquetFile:
    """Page checksums are verified: a flipped bit is an error, not another value."""

    def __init__(self, path: Path, key: str) -> None:
        self._file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        self._key = key
        self.schema: pa.Schema = self._file.schema_arrow
        self.rows: int | None = self._file.metadata.num_rows

    def batches(self, columns: Sequence[str] | None = None, *, batch_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        names = None if columns is None else list(columns)
        several = self._file.metadata.num_rows > _SMALL_ROWS
        reader = self._file.iter_batches(batch_size=batch_rows, columns=names, use_threads=several)
        for batch in _read(reader, self._key):
            yield batch if names is None else batch.select(names)


class _CsvFile:
    """UTF-8 with a header line; cells may be quoted and hold line ends, and empty lines are no rows."""

    def __init__(self, path: Path, key: str, delimiter: str) -> None:
        self._path, self._key, self._delimiter = path, key, delimiter
        names, self.rows = self._header()
        self.schema = pa.schema([(name, pa.string()) for name in names], metadata=_TEXT_MARK)

    def batches(self, columns: Sequence[str] | None = None, *, batch_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        names = list(self.schema.names if columns is None else columns)
        if self.rows == 0:  # Arrow refuses a header without a line end
            return
        convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=names,
            null_values=[""],
            strings_can_be_null=True,
        )
        parse = pacsv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True)
        read = pacsv.ReadOptions(block_size=_BLOCK_BYTES)
        try:
            with pa.input_stream(str(self._path), compression="gzip" if self._compressed else None) as stream:
                reader = pacsv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert)
                for block in reader:
                    marked = block.replace_schema_metadata(_TEXT_MARK)
                    for start in range(0, block.num_rows, batch_rows):
                        yield marked.slice(start, batch_rows)
        except _READ_ERRORS as cause:
            raise corrupt(self._key, cause) from cause

    @property
    def _compressed(self) -> bool:
        return self._key.lower().endswith(".gz")

    def _header(self) -> tuple[list[str], int | None]:
        """The names of the columns, and 0 if no row follows them."""
        opened = gzip.open if self._compressed else open
        with opened(self._path, "rt", encoding="utf-8-sig", newline="") as stream:
            names = next((line for line in csv.reader(stream, delimiter=self._delimiter) if line), None)
            following = stream.read(_PEEK_CHARACTERS)
        if not names:
            raise DataCorruptError(
                f"{self._key} is empty", required="a header line", next_step="Deliver the file again."
            )
        return names, 0 if not following.strip("\r\n") and len(following) < _PEEK_CHARACTERS else None


def _read(reader: Iterator[pa.RecordBatch], key: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except _READ_ERRORS as cause:
        raise corrupt(key, cause) from cause
