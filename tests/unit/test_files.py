"""One raw file as it is delivered: what is read from CSV and Parquet, and what is said about files that cannot be."""

import errno
import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepfm.data import files
from deepfm.data.files import is_csv, is_data, is_text, open_file
from deepfm.errors import DataCorruptError, StoreUnavailableError

PARQUET = pa.table({"a": [1, 2], "b": ["x", None]})


def packed(data: bytes) -> bytes:
    """The bytes in gzip, without the time at which it was done: a test is named after what it reads."""
    return gzip.compress(data, mtime=0)


def read(path: Path, content: bytes, columns=("a", "b"), *, delimiter: str | None = None, batch_rows: int = 10):
    path.write_bytes(content)
    file = open_file(path, key=f"dt=2026-03-04/{path.name}", delimiter=delimiter)
    batches = list(file.batches(columns, batch_rows=batch_rows))
    assert all(batch.num_rows <= batch_rows for batch in batches)
    if is_csv(path.name):
        assert all(is_text(batch.schema) for batch in batches)
        assert is_text(file.schema)
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(PARQUET, sink, write_page_checksum=True)
    return sink.getvalue().to_pybytes()


PLAIN = b"a,b\n1,x\n2,y\n"
ROWS = [("1", "x"), ("2", "y")]


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("plain.csv", PLAIN, ROWS),
        ("Capital.CSV", PLAIN, ROWS),
        ("unended.csv", PLAIN.rstrip(), ROWS),
        ("mark.csv", b"\xef\xbb\xbf" + PLAIN, ROWS),
        ("windows.csv", PLAIN.replace(b"\n", b"\r\n"), ROWS),
        ("mac.csv", PLAIN.replace(b"\n", b"\r"), ROWS),
        ("tabs.tsv", PLAIN.replace(b",", b"\t"), ROWS),
        ("tabs.Tsv.GZ", packed(PLAIN.replace(b",", b"\t")), ROWS),
        ("packed.csv.gz", packed(PLAIN), ROWS),
        ("two-members.csv.gz", packed(b"a,b\n1,x\n") + packed(b"2,y\n"), ROWS),
        ("turned.csv", b"b,extra,a\nx,0,1\ny,0,2\n", ROWS),
        ("blank-lines.csv", b"\n\na,b\n\n1,x\n\n\n2,y\n\n", ROWS),
        ("quoted.csv", b'"a","b"\n"1","x"\n2,y\n', ROWS),
        ("quoted-marks.csv", b'a,b\n1,"x ""y"", z\nw"\n', [("1", 'x "y", z\nw')]),
        ("empty-cells.csv", b'a,b\n,\n"",""\n', [(None, None), (None, None)]),
        ("not-empty.csv", b"a,b\nNA, \n", [("NA", " ")]),
        ("doubled-elsewhere.csv", b"a,x,x,b\n1,0,0,x\n", [("1", "x")]),
        ("not-ascii.csv", "a,b\né,🦊\n".encode(), [("é", "🦊")]),
        ("header-only.csv", b"a,b\n", []),
        ("header-without-end.csv", b"a,b", []),
        ("header-and-blanks.csv", b"a,b\r\n\r\n\r\n", []),
        ("header-only.csv.gz", packed(b"a,b"), []),
        ("some.parquet", parquet_bytes(), [(1, "x"), (2, None)]),
        ("some.Parquet", parquet_bytes(), [(1, "x"), (2, None)]),
    ],
)
def test_a_file_is_read(tmp_path, name, content, rows):
    assert is_data(f"dt=2026-03-04/{name}")
    assert read(tmp_path / name, content) == rows


def test_another_delimiter_is_told(tmp_path):
    content = PLAIN.replace(b",", b";")
    assert read(tmp_path / "plain.csv", content, delimiter=";") == ROWS
    assert open_file(tmp_path / "plain.csv", key="plain.csv").schema.names == ["a;b"]


def test_rows_come_in_order_over_blocks_and_batches(tmp_path):
    rows = [(str(number), "x" * 400) for number in range(30_000)]  # a dozen blocks
    content = b"a,b\n" + "".join(f"{a},{b}\n" for a, b in rows).encode()
    assert read(tmp_path / "large.csv", content, batch_rows=7_000) == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nothing.csv", b"", "nothing.csv is empty, required a header line. Deliver the file again"),
        ("blank.csv", b"\n\n", "blank.csv is empty, required a header line"),
        ("short.csv", b"a,b\n1,secret\nsecret\n", "not readable as CSV: Expected 2 columns, got 1. Deliver"),
        ("long.csv", b"a,b\n1,secret,3\n", "not readable as CSV: Expected 2 columns, got 3. Deliver"),
        ("latin.csv", "a,b\n1,secretÿ\n".encode("latin-1"), "byte 0xff in position 12: invalid start byte. Deliver"),
        ("latin.csv", "a,b\n1,secretÿ\n".encode("latin-1"), "Deliver the file as UTF-8."),
        ("late-latin.csv", b"a,b\n" + b"1,x\n" * 99_999 + b"1,\xff\n", "invalid UTF8 data. Deliver the file as UTF-8."),
        ("wide.csv", PLAIN.decode().encode("utf-16"), "Deliver the file as UTF-8."),
        ("huge.csv", b"a,b\n1," + b"x" * (9 << 20), "a row is longer than 1048576 bytes; is a quote never closed?"),
        ("open.csv", b'a,b\n1,"' + b"1,x\n" * (2 << 20), "a row is longer than 1048576 bytes"),
        ("cut.csv.gz", packed(PLAIN * 9_999)[:-30], "not readable as CSV: "),
        ("changed.csv.gz", packed(PLAIN)[:-8] + bytes(8), "not readable as CSV: "),
        ("plain.csv.gz", PLAIN, "it does not begin like gzip. Take .gz off its name, or deliver the file again."),
        ("packed.csv", packed(PLAIN), "it begins like gzip. Add .gz to its name."),
        ("parquet.csv", parquet_bytes(), "it begins like Parquet. Name it .parquet."),
        ("csv.parquet", PLAIN, "not readable as Parquet: it does not begin like Parquet. Name CSV .csv, or deliver"),
        ("packed.parquet", packed(parquet_bytes()), "it does not begin like Parquet"),
        ("cut.parquet", parquet_bytes()[:-9], "not readable as Parquet: "),
        ("nothing.parquet", b"", "not readable as Parquet: "),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_without_a_value_of_it(tmp_path, name, content, words):
    with pytest.raises(DataCorruptError) as caught:
        read(tmp_path / name, content)
    assert words in str(caught.value)
    assert f"dt=2026-03-04/{name}" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("dt=2026-03-04/part.parquet", True),
        ("hour=00/part.tsv.gz", True),
        ("part.CSV.gz", True),
        ("_SUCCESS", False),
        ("part.parquet.crc", False),
        (".part.parquet", False),
        ("_temporary/0/part.parquet", False),
        (".ipynb_checkpoints/part.csv", False),
        ("notes.txt", False),
        ("part.json", False),
    ],
)
def test_data_files_are_known_by_their_name(key, data):
    assert is_data(key) == data


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz"])
def test_a_disk_that_cannot_be_read_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "_check_contents", fail)
    with pytest.raises(StoreUnavailableError, match=name):
        open_file(tmp_path / name, key=name)
