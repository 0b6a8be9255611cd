"""Clicks as people have them: equal rows are prepared to equal bytes whatever the files, and misfits are named."""

import gzip
import hashlib
import io
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from deepfm import pipeline
from deepfm.data.partitions import days_with_data, find_partition, not_delivered
from deepfm.errors import DataNotReadyError
from deepfm.manifests import ValidationReport
from deepfm.storage import LocalCache, open_store
from deepfm.storage.s3 import S3Store
from tests.places import Place, local_place
from tests.tiny_days import DAYS, HOLDOUT, click_day, tiny_config, with_column

ROWS = 400
NAIVE = {"data.event_time_zone": "UTC"}
Files = dict[str, bytes]


def parquet(table: pa.Table, **settings) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **settings)
    return sink.getvalue()


def csv(table: pa.Table, delimiter: str = ",") -> bytes:
    sink = io.BytesIO()
    pacsv.write_csv(table, sink, pacsv.WriteOptions(delimiter=delimiter))
    return sink.getvalue()


def halves(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    return table.slice(0, ROWS // 3), table.slice(ROWS // 3)


def odd_day() -> pa.Table:
    """A day with missing values, quotes, line ends, large ids and numbers of every kind."""
    table = click_day(HOLDOUT, rows=ROWS)
    users = [None if row % 17 == 0 else f'u"{row % 9}",\nx' if row % 5 == 0 else f"é{row % 7}" for row in range(ROWS)]
    items = [None if row % 13 == 0 else 2**62 + row % 11 for row in range(ROWS)]
    price = [None if row % 11 == 0 else -1.0 if row % 101 == 0 else 0.1 * row for row in range(ROWS)]
    table = with_column(table, "user", pa.array(users))
    table = with_column(table, "price", pa.array(price, pa.float64()))
    return with_column(table, "item", pa.array(items, pa.int64()))


def pandas_csv(table: pa.Table) -> bytes:
    """What `DataFrame.to_csv` makes of it: times in its own form, missing values as NULL, CRLF, a mark at the start."""
    text = table.to_pandas(types_mapper=pd.ArrowDtype).to_csv(index=False, na_rep="", lineterminator="\r\n")
    return b"\xef\xbb\xbf" + text.encode()


def judged(place: Place, files: Files, changes=None) -> ValidationReport:
    for key, content in files.items():
        open_store(place.source).write(f"dt={HOLDOUT}/{key}", content)
    report = pipeline.validate_day(place.workspace({"data.source": place.source, **(changes or {})}), HOLDOUT)
    assert report is not None
    return report


def prepared(place: Place, files: Files, changes=None) -> tuple[ValidationReport, dict[str, str]]:
    """The report on a day and the digests of what it was prepared to."""
    report = judged(place, files, changes)
    assert report.accepted, report.refusal
    day = pipeline.prepare_day(place.workspace(changes), report)
    return report, {name: entry.sha256 for name, entry in day.files.items()}


DELIVERIES: dict[str, Callable[[pa.Table], Files]] = {
    "one CSV": lambda table: {"part-0.csv": csv(table)},
    "one CSV, packed": lambda table: {"part-0.csv.gz": gzip.compress(csv(table))},
    "TSV": lambda table: {"part-0.tsv": csv(table, "\t")},
    "pandas": lambda table: {"part-0.CSV": pandas_csv(table)},
    "CSV and Parquet": lambda table: {"a.csv": csv(halves(table)[0]), "b.parquet": parquet(halves(table)[1])},
    "small row groups": lambda table: {"a.parquet": parquet(table, row_group_size=7)},
    "an empty file among full ones": lambda table: {
        "a.parquet": parquet(halves(table)[0]),
        "b.parquet": parquet(table.slice(0, 0)),
        "c.csv": csv(table).partition(b"\n")[0],
        "d.csv": csv(halves(table)[1]),
    },
    "100 files": lambda table: {f"{n:03}.parquet": parquet(table.slice(4 * n, 4)) for n in range(100)},
    "columns in another order": lambda table: {
        "a.parquet": parquet(table.select(table.column_names[::-1]).append_column("more", pa.array([1] * ROWS)))
    },
    "in sub-folders": lambda table: {
        "hour=00/part.csv": csv(halves(table)[0]),
        "hour=01/part.csv": csv(halves(table)[1]),
        "_temporary/0/part.csv": b"half",
        "_SUCCESS": b"",
        ".part.csv.crc": b"x",
    },
    "integers as floats, labels as floats, times without a zone": lambda table: {
        "a.parquet": parquet(
            with_column(
                with_column(table, "click", table["click"].cast(pa.int8()).cast(pa.float64())),
                "time",
                table["time"].cast(pa.timestamp("ns")),
            )
        )
    },
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> tuple[ValidationReport, dict[str, str]]:
    return prepared(local_place(tmp_path_factory.mktemp("expected")), {"part-0.parquet": parquet(odd_day())}, NAIVE)


@pytest.mark.parametrize("name", DELIVERIES)
def test_equal_rows_are_prepared_to_equal_bytes(name, expected, tmp_path):
    report, files = prepared(local_place(tmp_path), DELIVERIES[name](odd_day()), NAIVE)
    assert files == expected[1]
    same = {"rows", "valid_rows", "quarantined_rows", "clicks"}
    assert report.model_dump(include=same) == expected[0].model_dump(include=same)
    assert report.quarantined_rows == 3  # negative prices
    findings = [[f for f in r.findings if f.rule != "column_used"] for r in (report, expected[0])]
    assert findings[0] == findings[1]


def test_an_id_that_is_an_integer_in_some_files_is_the_same_id(tmp_path):
    table = with_column(click_day(HOLDOUT, rows=ROWS), "user", pa.array([str(row % 9) for row in range(ROWS)]))
    first, second = halves(table)
    plain = prepared(local_place(tmp_path / "plain"), {"a.parquet": parquet(table)})
    numbers = with_column(second, "user", second["user"].cast(pa.int64()))
    nullable = with_column(second, "user", second["user"].cast(pa.int64()).cast(pa.float64()))
    for name, other in (("numbers", numbers), ("nullable", nullable)):
        files = {"a.parquet": parquet(first), "b.parquet": parquet(other)}
        assert prepared(local_place(tmp_path / name), files)[1] == plain[1]


@pytest.mark.parametrize("kind", ["Int64", "float64", "object", "boolean"])
def test_a_label_with_nulls_costs_the_rows_that_have_none(tmp_path, kind):
    frame = click_day(HOLDOUT, rows=ROWS).to_pandas()
    labels = frame["click"].astype(int).astype(object)
    labels[:5] = None
    frame["click"] = labels if kind == "object" else labels.astype(kind)
    report = judged(local_place(tmp_path), {"a.parquet": parquet(pa.Table.from_pandas(frame))})
    assert report.accepted, report.refusal
    assert report.quarantined_rows == 5
    assert [f.observed for f in report.findings if f.rule == "quarantined"] == [f"label on 5 of {ROWS} rows"]


def replaced(name: str, values: list, rows: int = ROWS) -> pa.Table:
    return with_column(click_day(HOLDOUT, rows=rows), name, pa.array(values))


UNFIT = {
    "a number": (
        replaced("price", ["abc"] * ROWS),
        "price: holds text that is no number in 100 % of the rows",
        '; for text set fields.price.kind to "categorical"',
    ),
    "an integer": (
        replaced("item", ["x"] * (ROWS // 4) + ["7"] * (ROWS - ROWS // 4)),
        "item: holds values that are no integer of 64 bits in 25 % of the rows",
        '; for other values set fields.item.dtype to "string"',
    ),
    "a time with a zone": (
        replaced("time", ["2026-03-04 12:00:00"] * ROWS),
        "time: holds values that are no time in 100 % of the rows",
        "; text without a zone needs data.event_time_zone; numbers need data.event_time_unit",
    ),
    "a label": (
        replaced("click", ["yes", "no"] * (ROWS // 2)),
        "click: holds values other than 0 and 1 in 100 % of the rows",
        "",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_column_that_holds_something_else_is_named_first_and_with_the_way_out(tmp_path, what):
    table, cause, way_out = UNFIT[what]
    report = judged(local_place(tmp_path), {"a.csv": csv(table)})
    assert not report.accepted
    required = "required at most 5 % (validation.max_bad_share)"
    assert report.broken[0].sentence == f"readable of {cause}, {required}{way_out}"
    assert not {"abc", "yes"} & set(report.refusal.split())


def test_single_cells_that_do_not_fit_cost_their_rows_and_are_no_missing_values(tmp_path):
    price = pa.array(["1.5"] * (ROWS - 8) + ["abc"] * 8)
    report = judged(local_place(tmp_path), {"a.csv": csv(with_column(click_day(HOLDOUT, rows=ROWS), "price", price))})
    assert report.accepted, report.refusal
    assert report.quarantined_rows == 8
    assert [f.observed for f in report.findings if f.rule == "quarantined"] == [f"price_unreadable on 8 of {ROWS} rows"]
    (nulls,) = [f for f in report.findings if (f.rule, f.column) == ("null_share", "price")]
    assert nulls.observed == "null_share 0"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id;click\n1;0\n", "the first line has 1 cells, is it a header line?"),
        (csv(odd_day())[:-30], "a.csv is not readable as CSV: Expected 6 columns, got"),
        (parquet(odd_day()), "it begins like Parquet. Name it .parquet"),
        (csv(odd_day()).partition(b"\n")[2], "is it a header line?"),
    ],
    ids=["another delimiter", "cut off", "Parquet", "no header"],
)
def test_a_csv_that_cannot_be_read_refuses_the_day_in_words(tmp_path, content, words):
    report = judged(local_place(tmp_path), {"a.csv": content, "b.csv": csv(odd_day())})
    assert not report.accepted
    assert words in report.refusal
    assert "é" not in report.refusal


TEMPLATES = ["clicks-{date:%Y%m%d}.csv", "year={date:%Y}/month={date:%m}/day={date:%d}", "{date:%Y}/{date}.parquet",
             "{date:%Y/%j}"]  # fmt: skip


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
def test_days_are_found_by_a_template_of_folders_or_files(request, tmp_path, template, remote):
    url = f"s3://{request.getfixturevalue('fresh_bucket')()}/raw" if remote else str(tmp_path / "raw")
    source, config = open_store(url), tiny_config({"data.partition": template})
    cache = LocalCache(tmp_path / "cache", 2**30)
    for date in DAYS:
        name = template.replace("{date}", date.isoformat())
        name = name.replace("{date:", "").replace("}", "")
        key = date.strftime(name) + ("" if template.endswith(("csv", "parquet")) else "/part-0.csv")
        source.write(key, csv(click_day(date, rows=3)))
        source.write(f"{key}.bak", b"x")
    assert days_with_data(source, config) == sorted(DAYS)
    found = [find_partition(source, config, date, cache=cache) for date in DAYS]
    assert [len(partition.files) for partition in found if partition] == [1] * len(DAYS)
    assert find_partition(source, config, HOLDOUT, cache=cache) is None
    assert isinstance(not_delivered(source, config, HOLDOUT), DataNotReadyError)


@pytest.mark.parametrize("remote", [False, True])
def test_a_write_changes_the_tag_of_an_object_and_nothing_else_does(request, tmp_path, remote):
    store = open_store(f"s3://{request.getfixturevalue('fresh_bucket')()}/raw" if remote else str(tmp_path / "raw"))
    store.write("a/key", b"1")
    (first,) = store.list("a")
    assert abs(first.changed_ns - time.time_ns()) < 60e9
    store.read("a/key")
    assert store.list("a") == [first]
    store.write("a/key", b"2")
    (second,) = store.list("")
    assert second.tag != first.tag
    assert second.changed_ns >= first.changed_ns


class Traffic:
    """What is downloaded and what is hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.downloads: Counter[str] = Counter()
        download = S3Store._download

        def counted(store: S3Store, key: str, sink) -> None:
            self.downloads[key] += 1
            download(store, key, sink)

        monkeypatch.setattr(S3Store, "_download", counted)

    def of(self, prefix: str) -> int:
        return sum(count for key, count in self.downloads.items() if key.startswith(prefix))


def test_raw_objects_are_downloaded_once_and_not_again_to_learn_that_nothing_changed(
    fresh_bucket, tmp_path, monkeypatch
):
    place = Place(f"file://{tmp_path}/store", f"s3://{fresh_bucket()}/clicks", tmp_path)
    source = open_store(place.source)
    for index, part in enumerate(halves(odd_day())):
        source.write(f"dt={HOLDOUT}/part-{index}.parquet", parquet(part))
    time.sleep(2.1)  # younger objects are not remembered
    traffic = Traffic(monkeypatch)
    report, _ = prepared(place, {})
    assert traffic.downloads == {f"dt={HOLDOUT}/part-{index}.parquet": 1 for index in (0, 1)}
    traffic.downloads.clear()
    assert judged(place, {}) == report
    assert traffic.of("") == 0
    source.write(f"dt={HOLDOUT}/part-0.parquet", parquet(halves(odd_day())[0].slice(1)))
    assert judged(place, {}).rows == report.rows - 1
    assert traffic.downloads == {f"dt={HOLDOUT}/part-0.parquet": 1}


def test_a_local_file_is_hashed_once_and_not_again_to_learn_that_nothing_changed(tmp_path, monkeypatch):
    hashed: list[str] = []
    digest = hashlib.file_digest

    def counted(stream, name: str):
        hashed.append(Path(stream.name).name)
        return digest(stream, name)

    place = local_place(tmp_path)
    open_store(place.source).write(f"dt={HOLDOUT}/raw.parquet", parquet(odd_day()))
    time.sleep(2.1)  # a younger file is not remembered
    monkeypatch.setattr(hashlib, "file_digest", counted)
    report, _ = prepared(place, {})
    assert hashed.count("raw.parquet") == 1
    assert judged(place, {}) == report
    assert hashed.count("raw.parquet") == 1
    open_store(place.source).write(f"dt={HOLDOUT}/raw.parquet", parquet(odd_day()))  # the same bytes, another file
    assert judged(place, {}) == report
    assert hashed.count("raw.parquet") == 2


MEMORY = """
import resource, sys
from pathlib import Path
from tests.places import Place
from tests.tiny_days import DAYS, HOLDOUT
from deepfm import pipeline
root = Path(sys.argv[1])
workspace = Place(f"file://{root}/store", f"{root}/clicks", root).workspace({"data.event_key": None})
for date in (DAYS[0], HOLDOUT):
    report = pipeline.validate_day(workspace, date)
    assert report.accepted, report.refusal
    pipeline.prepare_day(workspace, report)
    print(report.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_two_million_rows_need_no_more_memory_than_two_hundred_thousand(tmp_path, suffix):
    for date, hundred_thousands in ((DAYS[0], 2), (HOLDOUT, 20)):
        folder = tmp_path / "clicks" / f"dt={date}"
        folder.mkdir(parents=True)
        table = pa.concat_tables([click_day(date, rows=100_000)] * hundred_thousands)
        (pq.write_table if suffix == "parquet" else pacsv.write_csv)(table, folder / f"part-0.{suffix}")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.split()
    few, few_mebibytes, many, many_mebibytes = map(int, done)
    assert (few, many) == (200_000, 2_000_000)
    # A Parquet file is mapped, a CSV is read some 40 MiB ahead; the rows themselves take several times as much.
    assert many_mebibytes < few_mebibytes + 80
