"""Columns that say in their file's metadata that they are of an extension type, which a reader may have code for.

Old readers unpickled what the metadata of `arrow.py_extension_type` held (CVE-2023-47248). Nothing of ours may run it,
whether a model uses the column or not: it is read as what it is stored as, or refused in one line.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepfm.data.judging import Judged, judge_partition
from deepfm.data.partitions import find_partition, iterate_rows
from deepfm.storage import LocalCache, open_store
from tests.tiny_days import HOLDOUT, click_day, tiny_config

CONFIG = tiny_config()
OLD = "arrow.py_extension_type"
PLAIN = click_day(HOLDOUT).append_column("extra", pa.array([1] * 240))
COLUMNS = ("click", "user", "item", "price", "extra")
KNOWN = ("arrow.json", "arrow.uuid", "arrow.bool8", "arrow.opaque", "arrow.fixed_shape_tensor", "pandas.period")
"""Types that pyarrow or pandas has classes for, each of which reads the metadata in its own way."""


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A file that is there once the payload has run."""
    return tmp_path / "trapped"


@pytest.fixture
def day(tmp_path: Path) -> Callable[[pa.Table], tuple[Judged, list[dict]]]:
    """How a day of one file is judged, and its canonical rows if it is accepted."""

    def judge(table: pa.Table) -> tuple[Judged, list[dict]]:
        path = tmp_path / "raw" / f"dt={HOLDOUT}" / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        source, cache = open_store(str(tmp_path / "raw")), LocalCache(tmp_path / "cache", 2**30)
        partition = find_partition(source, CONFIG, HOLDOUT, cache=cache)
        assert partition is not None
        judged = judge_partition(source, partition, CONFIG, cache=cache, scratch=tmp_path)
        batches = iterate_rows(source, partition, CONFIG, cache=cache) if judged.accepted else ()
        return judged, [row for batch in batches for row in batch.rows.to_pylist()]

    return judge


def payload(trap: Path) -> bytes:
    """A pickle, written by hand, that makes the file when it is loaded."""
    return f"cio\nopen\n(S'{trap}'\nS'w'\ntR.".encode()


def pretending(column: str, name: str, metadata: bytes) -> pa.Table:
    """The day, one of whose columns says that it is of an extension type."""
    index = PLAIN.column_names.index(column)
    about = {b"ARROW:extension:name": name.encode(), b"ARROW:extension:metadata": metadata}
    return PLAIN.cast(PLAIN.schema.set(index, PLAIN.schema.field(index).with_metadata(about)))


def test_the_payload_would_run(trap):
    program = f"import pickle; pickle.loads({payload(trap)!r})"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert trap.exists()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", [OLD, "somebody.elses"])
def test_a_column_of_an_unknown_type_is_what_it_is_stored_as(day, trap, column, name):
    judged, rows = day(pretending(column, name, payload(trap)))
    assert judged.accepted
    assert rows == day(PLAIN)[1]
    assert not trap.exists()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", KNOWN)
def test_a_column_of_a_known_type_is_read_or_refused_by_name(day, trap, column, name):
    for metadata in (payload(trap), b"", b'{"shape": [-1], "type_name": "a", "vendor_name": "b"}', b"\xff{"):
        judged, rows = day(pretending(column, name, metadata))
        assert judged.accepted == (rows != [])
        for finding in judged.findings:
            assert finding.sentence.isprintable()
            if not finding.passed and finding.severity == "critical":
                assert (finding.rule, finding.column) in {("column_type", column), ("readable", "*")}
        assert not trap.exists()
