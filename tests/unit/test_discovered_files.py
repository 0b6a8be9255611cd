"""Sources of all sizes and formats, and those that get one clear line."""

import datetime as dt
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from deepfm import layout
from deepfm.discovery.sample import SAMPLE_ROWS, read_sample
from deepfm.discovery.source import find_days
from deepfm.discovery.toml_text import render
from deepfm.errors import DataCorruptError, DeepFMError, NotFoundError
from deepfm.storage import open_store
from deepfm.synthetic.config import preset_world
from deepfm.synthetic.delivery import write_world
from tests.deliveries import FIRST, ROWS, column, columns, deliver, look


def test_a_csv_says_the_same_as_parquet_of_the_same_rows(tmp_path):
    write_world(preset_world("demo", overrides={"days": 4, "rows_per_day": 1_500, "users": 200, "items": 60}), tmp_path)
    for path in sorted((tmp_path / "clicks").glob("dt=*/*.parquet")):
        for kind in ("csv", "gz", "semicolons"):
            (tmp_path / kind / path.parent.name).mkdir(parents=True)
        table = pq.read_table(path, partitioning=None)
        plain = tmp_path / "csv" / path.parent.name / "part-0.csv"
        pacsv.write_csv(table, plain)
        with gzip.open(tmp_path / "gz" / path.parent.name / "part-0.csv.gz", "wb") as sink:
            sink.write(plain.read_bytes())
        with_semicolons = pacsv.WriteOptions(delimiter=";")
        pacsv.write_csv(table, tmp_path / "semicolons" / path.parent.name / "part-0.csv", with_semicolons)
    texts = {
        kind: render(look(tmp_path / kind), model="m", out=Path("m.toml")).replace(f"/{kind}", "/clicks")
        for kind in ("clicks", "csv", "gz", "semicolons")
    }
    assert texts["csv"] == texts["gz"] == texts["clicks"]
    assert texts["semicolons"].replace('csv_delimiter = ";"\n', "") == texts["clicks"]


def test_a_large_source_is_read_in_part_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("deepfm.discovery.sample._READ_BYTES", 20_000)
    whole = look(deliver(tmp_path, days=30), partition="dt={date}")
    assert not whole.whole
    assert whole.rows_read == 8 * ROWS
    assert abs(whole.days.rows - 30 * ROWS) < ROWS
    assert (whole.days.count, whole.days.last) == (30, FIRST + dt.timedelta(days=29))


def test_too_many_rows_are_thinned_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr("deepfm.discovery.sample.SAMPLE_ROWS", 1_000)
    found = look(deliver(tmp_path, days=6))
    assert 500 <= found.rows_read <= 1_000 < SAMPLE_ROWS
    assert found.days.rows == 6 * ROWS
    store = open_store(str(tmp_path))
    delivered = find_days(store.list(""))
    assert delivered is not None
    sample = read_sample(store, delivered, scratch=tmp_path)
    assert np.bincount(sample.day).tolist() == [ROWS // 4] * 6


def test_a_file_that_cannot_be_read_is_named_and_the_others_speak(tmp_path):
    deliver(tmp_path, days=4)
    (tmp_path / "dt=2026-03-02" / "part-0.parquet").write_bytes(b"PAR1 no more")
    found = look(tmp_path)
    assert "dt=2026-03-02/part-0.parquet is not readable" in found.unreadable[0]
    assert "dt=2026-03-02/part-0.parquet" in render(found, model="m", out=Path("m.toml"))
    for path in tmp_path.glob("dt=*/*"):
        path.write_bytes(b"PAR1 no more")
    with pytest.raises(DataCorruptError, match="not readable"):
        look(tmp_path)


def test_columns_that_some_files_lack_or_store_otherwise(tmp_path):
    def day(date: dt.date) -> dict[str, Any]:
        plain = columns(date)
        if date == FIRST:
            return plain | {"shop": np.arange(ROWS) % 7, "new": np.arange(ROWS) % 3}
        return plain | {"shop": [f"s{n % 7}" for n in range(ROWS)]}

    found = look(deliver(tmp_path, day))
    assert column(found, "new").note == "some files do not have it, or have it twice"
    assert column(found, "shop").dtype == "string"


def test_files_that_are_no_data_are_left_alone(tmp_path):
    deliver(tmp_path)
    for name in ("README.md", "_days.csv", "dt=2026-03-01/_SUCCESS", "notes.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "everything.csv").write_text("a\n1\n")
    found = look(tmp_path)
    assert (found.ignored, len(found.days.model_dump())) == (("everything.csv",), len(found.days.model_dump()))
    assert "everything.csv" in render(found, model="m", out=Path("m.toml"))


def refusal(where: Path | str, **wishes) -> str:
    with pytest.raises(DeepFMError) as error:
        look(where, **wishes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_nothing_there(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        look(tmp_path / "nowhere")
    assert "is empty" in refusal(tmp_path)
    assert "Name the folder of the clicks" in refusal(tmp_path)
    for name in (".gitignore", "notes.txt", "README.md", "_days.csv", "a.md"):
        (tmp_path / name).write_text("x")
    text = refusal(tmp_path)
    assert "holds no data file: 5 files: README.md, _days.csv, a.md and 2 more, required files whose names" in text
    assert "Name the folder of the clicks" in text


def test_what_a_run_has_stored_is_not_taken_for_clicks(tmp_path):
    deliver(tmp_path / "clicks", days=2)
    for day in (1, 2, 3):
        stored = tmp_path / "store" / layout.prepared_prefix("m", dt.date(2026, 3, day), "0123456789abcdef")
        stored.mkdir(parents=True)
        pq.write_table(pa.table(columns(FIRST)), stored / "part-0.parquet")
    found = look(tmp_path)
    assert (found.partition, found.rivals, found.ignored) == ("clicks/dt={date}", (), ())


def test_an_error_of_one_data_set_names_the_others(tmp_path):
    deliver(tmp_path / "shop")
    deliver(tmp_path / "a", lambda date: {"n": columns(date)["item"]})
    text = refusal(tmp_path)
    assert "a/dt={date}: no column looks like the label" in text
    assert text.endswith("There are other data sets: take one with --partition 'shop/dt={date}'.")
    assert look(tmp_path, partition="shop/dt={date}").label == "click"


def test_a_flat_file_gets_the_command_that_cuts_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = columns(FIRST)
    pacsv.write_csv(pa.table(rows), "my clicks.csv")
    assert "deepfm split 'my clicks.csv' --pseudo-days 8 --out 'my clicks-days'" in refusal("my clicks.csv")
    assert "AUC may look better" in refusal(".")
    pacsv.write_csv(pa.table(rows | {"ts": [1_773_050_400] * ROWS}), "my clicks.csv")
    assert "deepfm split 'my clicks.csv' --by ts --out 'my clicks-days'" in refusal("my clicks.csv")


def test_no_label_and_no_field(tmp_path):
    deliver(tmp_path / "none", lambda date: columns(date) | {"flag": np.arange(ROWS) % 2, "click": np.arange(ROWS) % 3})
    text = refusal(tmp_path / "none")
    assert "click holds other values than 0 and 1" in text
    assert "columns of 0 and 1 are flag" in text
    assert "cannot be the label" in refusal(tmp_path / "none", label="item")
    deliver(tmp_path / "zeros", lambda date: columns(date) | {"click": np.zeros(ROWS, int)})
    assert "one class only" in refusal(tmp_path / "zeros")
    deliver(
        tmp_path / "bare",
        lambda date: {"click": columns(date)["click"], "price": np.linspace(0, 1, ROWS)},
    )
    assert "no column can be a categorical field" in refusal(tmp_path / "bare")
    deliver(tmp_path / "one", days=1)
    assert "one day" in refusal(tmp_path / "one")
    deliver(tmp_path / "rows", lambda date: pa.table(columns(date)).slice(0, 0))
    assert "no row" in refusal(tmp_path / "rows")


def test_wishes_that_cannot_be(tmp_path):
    deliver(tmp_path)
    assert "--label names a column that is not there: clik" in refusal(tmp_path, label="clik")
    assert "Did you mean click?" in refusal(tmp_path, label="clik")
    assert "--exclude names a column" in refusal(tmp_path, exclude=("nope",))
    assert "--event-time item holds no times" in refusal(tmp_path, event_time="item")
    assert "--partition reaches no file" in refusal(tmp_path, partition="day={date}")
