"""`deepfm split`: every row of a flat file is in the day that it belongs to, and a failure leaves nothing behind."""

import datetime as dt
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm.discovery import splitting
from deepfm.discovery.flat import FlatFile
from deepfm.discovery.splitting import UNDATED, Cut, split_file
from deepfm.discovery.survey import PSEUDO_DAYS
from deepfm.errors import DataCorruptError, DataRejectedError, DeepFMError, UsageError

FIRST = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def quiet(stage: str, done: int, total: int | None) -> None:
    """Nobody watches."""


def flat(rows: int = 1_000, *, days: int = 6, seed: int = 0) -> pa.Table:
    """Rows of some days in no order."""
    rng = np.random.default_rng(seed)
    times = [FIRST + dt.timedelta(seconds=int(second)) for second in rng.integers(0, days * 86_400, rows)]
    return pa.table(
        {
            "n": np.arange(rows),
            "when": pa.array(times, pa.timestamp("us", tz="UTC")),
            "code": [f"{n % 7:03}" for n in range(rows)],
            "price": rng.random(rows),
        }
    )


def split(table: pa.Table, folder: Path, cut: Cut, *, name: str = "flat.parquet"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    else:
        options = pacsv.WriteOptions(delimiter="\t" if ".tsv" in name else ";" if "semi" in name else ",")
        pacsv.write_csv(table, path, options)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    return split_file(FlatFile(path, name), folder / "days", cut, told=quiet)


def written(folder: Path) -> dict[str, pa.Table]:
    return {
        path.parent.name: pq.read_table(path, partitioning=None, page_checksum_verification=True)
        for path in sorted((folder / "days").glob("dt=*/part-0.parquet"))
    }


@pytest.mark.parametrize("run_bytes", [1, 20_000, 1 << 30])
def test_every_row_is_in_its_day_in_the_order_of_the_file(tmp_path, monkeypatch, run_bytes):
    monkeypatch.setattr(splitting, "_RUN_BYTES", run_bytes)
    monkeypatch.setattr("deepfm.discovery.flat.BATCH_ROWS", 100)
    monkeypatch.setattr(splitting, "_GROUP_ROWS", 64)
    table = flat()
    outcome = split(table, tmp_path, Cut(by="when"))
    parts = written(tmp_path)
    assert list(parts) == [f"dt={(FIRST + dt.timedelta(days=n)).date()}" for n in range(6)]
    for name, part in parts.items():
        day = [row for row in table.to_pylist() if f"dt={row['when'].date()}" == name]
        assert part.to_pylist() == day
        assert part.schema == table.schema
    assert (outcome.rows, outcome.days, outcome.undated) == (1_000, 6, 0)
    assert sorted(path.name for path in (tmp_path / "days").iterdir()) == list(parts)
    assert not list(tmp_path.glob(".*"))


@given(st.lists(st.one_of(st.none(), st.integers(0, 40)), min_size=1, max_size=60), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_no_row_is_lost_or_moved(tmp_path_factory, days, batch_rows):
    if sum(day is not None for day in days) * 2 < len(days) or all(day is None for day in days):
        return
    folder = tmp_path_factory.mktemp("split")
    dates = [None if day is None else (FIRST + dt.timedelta(days=day)).date() for day in days]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepfm.discovery.flat.BATCH_ROWS", batch_rows)
        patch.setattr(splitting, "_RUN_BYTES", 64)
        outcome = split(pa.table({"n": range(len(days)), "day": pa.array(dates, pa.date32())}), folder, Cut(by="day"))
    found = {name: part["n"].to_pylist() for name, part in written(folder).items()}
    assert found == {f"dt={date}": [n for n, other in enumerate(dates) if other == date] for date in {*dates} - {None}}
    undated = [n for n, date in enumerate(dates) if date is None]
    assert outcome.undated == len(undated)
    if undated:
        assert pq.read_table(folder / "days" / UNDATED)["n"].to_pylist() == undated


@pytest.mark.parametrize("name", ["flat.csv", "flat.csv.gz", "flat.tsv", "semi.csv", "flat.CSV"])
def test_text_files_say_the_same_as_parquet(tmp_path, name):
    table = flat()
    split(table, tmp_path / "a", Cut(by="when"))
    split(table, tmp_path / "b", Cut(by="when"), name=name)
    for ours, theirs in zip(written(tmp_path / "a").values(), written(tmp_path / "b").values(), strict=True):
        assert theirs.drop_columns("when").to_pylist() == ours.drop_columns("when").to_pylist()
        assert theirs.schema.field("code").type == pa.string()  # 003 is no number


CELLS = {
    "integers": (["1", "", "-7"], pa.int64(), [1, None, -7]),
    "missing words": (["1", "NA", "null"], pa.int64(), [1, None, None]),
    "numbers": (["1", "2.5", "1e3"], pa.float64(), [1.0, 2.5, 1000.0]),
    "leading zeros": (["01", "2", "3"], pa.string(), ["01", "2", "3"]),
    "long digits": (["12345678901234567890", "1", "2"], pa.string(), ["12345678901234567890", "1", "2"]),
    "late text": (["1", "2", "x"], pa.string(), ["1", "2", "x"]),
    "nothing but words": (["NA", "nan", ""], pa.string(), ["NA", "nan", None]),
    "dates": (["2026-03-01", "x", ""], pa.string(), ["2026-03-01", "x", None]),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_column_of_text_has_one_type_in_all_days(tmp_path, monkeypatch, name):
    monkeypatch.setattr("deepfm.discovery.flat.BATCH_ROWS", 1)
    cells, kind, values = CELLS[name]
    (tmp_path / "a.csv").write_text(
        "when,cell\n" + "".join(f"2026-03-0{n + 1},{cell}\n" for n, cell in enumerate(cells))
    )
    split_file(FlatFile(tmp_path / "a.csv", "a.csv"), tmp_path / "days", Cut(by="when"), told=quiet)
    parts = list(written(tmp_path).values())
    assert [part.schema.field("cell").type for part in parts] == [kind] * 3
    assert [part["cell"][0].as_py() for part in parts] == values


@pytest.mark.parametrize(
    ("values", "zone", "days"),
    [
        (["2026-03-09T23:30:00Z", "2026-03-10T00:30:00+02:00"], "Europe/Berlin", ["2026-03-09", "2026-03-10"]),
        (["2026-03-09 23:30:00", "2026-03-09 23:30:00"], "Europe/Berlin", ["2026-03-09"]),
        ([1_773_098_400, 1_773_012_000], "UTC", ["2026-03-08", "2026-03-09"]),
        (["20260309", "20260311"], "UTC", ["2026-03-09", "2026-03-11"]),
        ([20260309, 20260311], "UTC", ["2026-03-09", "2026-03-11"]),
        ([1_773_098_400.25, 1_773_098_401.5], "Asia/Tokyo", ["2026-03-10"]),
    ],
)
def test_days_of_times_however_they_are_stored(tmp_path, values, zone, days):
    split(pa.table({"when": values}), tmp_path, Cut(by="when", zone=zone))
    assert [name.removeprefix("dt=") for name in written(tmp_path)] == days


def test_types_of_parquet_are_kept(tmp_path):
    table = pa.table(
        {
            "when": pa.array([FIRST.date()] * 3, pa.date32()),
            "tags": [["a"], [], None],
            "small": pa.array([1, 2, None], pa.int8()),
            "code": pa.array(["x", "y", "x"]).dictionary_encode(),
            "bits": pa.array([b"\x00", None, b"\xff"]),
        }
    )
    split(table, tmp_path, Cut(by="when"))
    (part,) = written(tmp_path).values()
    assert part.to_pylist() == table.to_pylist()
    assert part.schema.field("small").type == pa.int8()


def test_pseudo_days_are_equal_blocks_that_end_at_a_fixed_date(tmp_path, monkeypatch):
    monkeypatch.setattr("deepfm.discovery.flat.BATCH_ROWS", 7)
    outcome = split(flat(103), tmp_path, Cut(pseudo_days=8))
    parts = written(tmp_path)
    assert [part["n"].to_pylist() for part in parts.values()] == [
        [n for n in range(103) if n * 8 // 103 == block] for block in range(8)
    ]
    assert {part.num_rows for part in parts.values()} == {12, 13}
    assert (outcome.first, outcome.last) == (dt.date(2000, 1, 24), dt.date(2000, 1, 31))
    assert "made up" in (tmp_path / "days" / PSEUDO_DAYS).read_text()


def refused(error: type[DeepFMError], table: pa.Table, folder: Path, cut: Cut, **how) -> str:
    with pytest.raises(error) as raised:
        split(table, folder, cut, **how)
    assert not (folder / "days").exists()
    assert not list(folder.glob(".*"))
    return str(raised.value)


def test_a_column_that_tells_no_day(tmp_path):
    table = flat(100)
    assert "did you mean" in refused(UsageError, table, tmp_path, Cut(by="whem")).lower()
    assert "are no dates" in refused(UsageError, table, tmp_path, Cut(by="code"))
    german = table.set_column(1, "when", pa.array(["09.03.2026"] * 100))
    assert "required times, dates, text such as 2026-03-09" in refused(UsageError, german, tmp_path, Cut(by="when"))
    many = pa.table({"day": np.arange(0, 4_000).astype("datetime64[D]")})
    assert "is it really one?" in refused(UsageError, many, tmp_path, Cut(by="day"))
    none = pa.table({"day": pa.nulls(3, pa.date32())})
    assert "no date at all" in refused(UsageError, none, tmp_path, Cut(by="day"))
    few = pa.table({"day": pa.array([FIRST.date(), None, None], pa.date32())})
    assert "no date in 2 of 3 rows" in refused(UsageError, few, tmp_path, Cut(by="day"))


def test_blocks_that_cannot_be(tmp_path):
    for count in (1, 101, 3_661):
        assert "--pseudo-days is out of range" in refused(UsageError, flat(100), tmp_path, Cut(pseudo_days=count))
    assert "holds no row" in refused(DataRejectedError, flat(0), tmp_path, Cut(pseudo_days=2))


def test_a_folder_in_use_is_left_alone_and_an_empty_one_is_taken(tmp_path):
    (tmp_path / "days").mkdir()
    split(flat(10), tmp_path, Cut(pseudo_days=2))
    before = sorted(path.name for path in (tmp_path / "days").iterdir())
    with pytest.raises(UsageError, match="is there already"):
        split(flat(10), tmp_path, Cut(pseudo_days=3))
    assert sorted(path.name for path in (tmp_path / "days").iterdir()) == before


def test_a_broken_file_leaves_nothing(tmp_path):
    pq.write_table(flat(5_000), tmp_path / "flat.parquet", row_group_size=100)
    data = bytearray((tmp_path / "flat.parquet").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = b"\xff" * 300
    (tmp_path / "flat.parquet").write_bytes(data)
    with pytest.raises(DataCorruptError):
        split_file(
            FlatFile(tmp_path / "flat.parquet", "flat.parquet"), tmp_path / "days", Cut(pseudo_days=4), told=quiet
        )
    assert [path.name for path in tmp_path.iterdir()] == ["flat.parquet"]


@pytest.mark.parametrize("stage", ["reading", "sorting", "writing"])
def test_an_interruption_leaves_nothing(tmp_path, stage):
    def interrupted(*told: object) -> None:
        if told[0] == stage:
            raise KeyboardInterrupt

    pq.write_table(flat(), tmp_path / "flat.parquet")
    file = FlatFile(tmp_path / "flat.parquet", "flat.parquet")
    with pytest.raises(KeyboardInterrupt):
        split_file(file, tmp_path / "days", Cut(by="when"), told=interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["flat.parquet"]


def test_columns_that_are_there_twice_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DataRejectedError, match=r"twice|same name|more than once"):
        FlatFile(tmp_path / "a.csv", "a.csv")


def test_rows_are_told_of_as_they_go(tmp_path):
    heard: list[tuple[str, int, int | None]] = []
    pq.write_table(flat(200_000), tmp_path / "flat.parquet")
    file = FlatFile(tmp_path / "flat.parquet", "flat.parquet")
    split_file(file, tmp_path / "days", Cut(by="when"), told=lambda *told: heard.append(told))
    for stage in ("reading", "sorting", "writing"):
        steps = [done for name, done, _ in heard if name == stage]
        assert steps == sorted(steps)
        assert steps[-1] == 200_000
