"""A newcomer's first commands: from a flat file, a folder or a bucket to a configuration that runs as it is."""

import json
import shlex
import shutil
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from deepfm.config_file import load_config
from deepfm.storage.s3 import S3Store
from deepfm.synthetic.config import preset_world
from deepfm.synthetic.delivery import write_world
from tests import command_line
from tests.command_line import one_line
from tests.seaweed import client_of

FLAT = {
    "user_id": "user_id", "item_id": "item_id", "category": "category", "brand": "brand", "hour": "hour_of_day",
    "weekend": "is_weekend", "click": "click",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Eight days of 3,750 rows."""
    folder = tmp_path_factory.mktemp("world")
    changes = {"days": 8, "rows_per_day": 3_750, "users": 300, "items": 120, "new_items_per_day": 2, "ctr": 0.1}
    write_world(preset_world("demo", overrides=changes), folder)
    return folder / "clicks"


@pytest.fixture
def deepfm(monkeypatch, capsys, tmp_path):
    """A command in this process and in an empty working directory: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        return command_line.deepfm(monkeypatch, capsys, *arguments)

    return call


def table_of(world: Path) -> pa.Table:
    paths = sorted(world.glob("dt=*/*.parquet"))
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths])


@pytest.mark.usefixtures("one_thread")
def test_a_flat_csv_is_promoted_in_three_commands(deepfm, world):
    rows = table_of(world).select(list(FLAT)).rename_columns(list(FLAT.values()))
    pacsv.write_csv(rows, "flat.csv")
    code, out, err = deepfm("split", "flat.csv", "--pseudo-days", "8", "--out", "days")
    assert (code, err) == (0, "")
    assert "8 days, 2000-01-24 to 2000-01-31" in out
    assert "drift, freshness and new items are not seen" in out
    code, out, err = deepfm("init", "days", "--out", "M.toml")
    assert (code, err) == (0, "")
    assert "deepfm run --config M.toml --date 2000-01-31" in out
    text = Path("M.toml").read_text()
    assert "The days are made up" in text
    assert list(tomllib.loads(text)["fields"]) == [name for name in FLAT.values() if name != "click"]
    code, out, _ = deepfm("run", "--config", "M.toml", "--date", "2000-01-31", "--json")
    assert (code, json.loads(out)[0]["status"]) == (0, "promoted")


@pytest.mark.usefixtures("one_thread")
def test_files_of_a_bucket_run_as_they_are(deepfm, world, fresh_bucket, s3_environment):
    """One gzipped file a day, named by its date."""
    bucket, client = fresh_bucket(), client_of(s3_environment)
    for path in sorted(world.glob("dt=*/*.parquet"))[:6]:
        table = pq.read_table(path, partitioning=None)
        with pa.CompressedOutputStream("day.csv.gz", "gzip") as sink:
            pacsv.write_csv(table, sink)
        client.upload_file("day.csv.gz", bucket, f"raw/clicks-{path.parent.name[3:].replace('-', '')}.csv.gz")
    code, out, err = deepfm("init", f"s3://{bucket}/raw", "--out", "M.toml", "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)
    assert found["partition"] == "clicks-{date:%Y%m%d}.csv.gz"
    assert {c["name"]: c["role"] for c in found["columns"] if c["role"] != "field"} == {
        "impression_id": "event_key", "event_time": "event_time", "user_id": "group", "click": "label",
        "weekend": "left_out",  # Monday to Saturday: on the newest day for the first time
    }  # fmt: skip
    assert load_config(Path("M.toml")).data.source == f"s3://{bucket}/raw"
    code, out, _ = deepfm("run", "--config", "M.toml", "--date", found["days"]["run_date"], "--json")
    row = json.loads(out)[0]
    assert (code, row["status"]) == (0, "promoted"), row["reasons"]


def test_a_large_bucket_is_not_downloaded(deepfm, world, fresh_bucket, s3_environment, monkeypatch):
    bucket, client = fresh_bucket(), client_of(s3_environment)
    path = sorted(world.glob("dt=*/*.parquet"))[0]
    for day in range(1, 21):
        for part in range(3):
            client.upload_file(str(path), bucket, f"dt=2026-03-{day:02}/part-{part}.parquet")
    fetched: list[str] = []
    fetch = S3Store.fetch

    def counted(store: S3Store, key: str, *, scratch: Path) -> Path:
        fetched.append(key)
        return fetch(store, key, scratch=scratch)

    monkeypatch.setattr("deepfm.discovery.sample._READ_BYTES", 8 * path.stat().st_size)
    monkeypatch.setattr(S3Store, "fetch", counted)
    code, out, _ = deepfm("init", f"s3://{bucket}", "--out", "M.toml", "--json")
    assert code == 0
    assert len(fetched) == len(set(fetched)) == 8
    days = json.loads(out)[0]["days"]
    assert (days["count"], days["last"]) == (20, "2026-03-20")
    assert abs(days["rows"] / (60 * pq.read_metadata(path).num_rows) - 1) < 0.01


def test_the_table_is_for_people_and_an_older_toml_is_kept(deepfm, world):
    code, out, err = deepfm("init", str(world), "--out", "M.toml")
    assert (code, err) == (0, "")
    for word in ("impression_id", "event key", "group, field", "float32", "deepfm run --config M.toml"):
        assert word in out
    Path("M.toml").write_text("mine")
    code, out, err = deepfm("init", str(world), "--out", "M.toml")
    assert (code, out) == (2, "")
    assert "--force" in one_line(err)
    assert Path("M.toml").read_text() == "mine"
    assert deepfm("init", str(world), "--out", "M.toml", "--force", "--model", "shop")[0] == 0
    assert load_config(Path("M.toml")).model == "shop"
    assert sorted(path.name for path in Path().iterdir()) == ["M.toml"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("init", "nowhere", "--out", "M.toml"), 2, "nowhere does not exist"),
        (("init", "nowhere", "--out", "M.toml", "--time-zone", "Mars"), 2, "--time-zone is not known"),
        (("init", "nowhere", "--out", "M.toml", "--partition", "dt=x"), 2, "template of a day is not allowed"),
        (("init", "nowhere", "--out", "M.toml", "--model", "A B"), 2, "model name is not allowed"),
        (("split", "flat.csv", "--out", "days"), 2, "--by COLUMN or --pseudo-days N"),
        (("split", "flat.csv", "--out", "days", "--by", "a", "--pseudo-days", "3"), 2, "--by COLUMN or --pseudo-days"),
        (("split", "none.csv", "--out", "days", "--by", "a"), 2, "none.csv is not there"),
        (("split", "flat.json", "--out", "days", "--by", "a"), 2, "no file that can be split"),
        (("split", "flat.csv", "--out", "days", "--by", "clik"), 2, "Did you mean click?"),
        (("split", "flat.csv", "--out", "days", "--by", "a", "--time-zone", "Mars"), 2, "--time-zone is not known"),
        (("split", "flat.csv", "--out", "days", "--by", "a", "--last-day", "2026-01-01"), 2, "--last-day belongs"),
        (
            ("split", "flat.csv", "--out", "days", "--pseudo-days", "2", "--last-day", "x"),
            2,
            "--last-day is not a date",
        ),
        (("split", "none.csv", "--out", "flat.csv"), 2, "none.csv is not there"),
        (("split", "flat.csv", "--out", "flat.csv", "--by", "clik"), 2, "Did you mean click?"),
        (("split", "flat.csv", "--out", "flat.csv", "--by", "a"), 2, "flat.csv is there already"),
        (("split", "broken.csv.gz", "--out", "days", "--pseudo-days", "2"), 3, "broken.csv.gz is not readable"),
        (("init", "flat.csv", "--out", "M.toml"), 2, "deepfm split flat.csv --pseudo-days 8 --out flat-days"),
    ],
)
def test_what_cannot_be_gets_one_line(deepfm, arguments, code, said):
    Path("flat.csv").write_text("a,click\n" + "x,1\ny,0\n" * 20)
    Path("broken.csv.gz").write_bytes(b"no gzip")
    left, out, err = deepfm(*arguments)
    assert (left, out) == (code, "")
    assert said in one_line(err)
    assert sorted(path.name for path in Path().iterdir()) == ["broken.csv.gz", "flat.csv"]


def test_one_of_several_data_sets_is_named_with_the_command_that_takes_another(deepfm, world):
    for name in ("shop", "my news"):
        shutil.copytree(world, Path("parent", name))
    code, out, err = deepfm("init", "parent", "--out", "M.toml")
    assert (code, err) == (0, "")
    assert "shop/dt={date}, one of several data sets" in out
    assert "not read" not in out
    command = out.splitlines()[-1].strip()
    assert command == "deepfm init parent --partition 'my news/dt={date}' --out M.toml --force"
    assert deepfm(*shlex.split(command)[1:])[0] == 0
    assert load_config(Path("M.toml")).data.partition == "my news/dt={date}"


@pytest.mark.usefixtures("one_thread")
def test_the_run_that_is_suggested_is_not_that_of_a_day_that_cannot_work(deepfm, world):
    shutil.copytree(world, "clicks")
    *_, unlabelled, unreadable = sorted(Path("clicks").glob("dt=*/*.parquet"))
    rows = pq.read_table(unlabelled, partitioning=None)
    place = rows.schema.get_field_index("click")
    pq.write_table(rows.set_column(place, "click", pa.nulls(rows.num_rows, pa.int8())), unlabelled)
    unreadable.write_bytes(b"PAR1")
    code, out, err = deepfm("init", "clicks", "--out", "M.toml")
    assert (code, err) == (0, "")
    assert "6 days, 2026-03-02 to 2026-03-07" in out
    told = "2026-03-08 (click is missing in all rows), 2026-03-09 (part-0.parquet cannot be read)"
    assert f"cannot be run: {told}" in out
    assert "2026-03-08 (click is missing" in Path("M.toml").read_text()
    command = next(line for line in out.splitlines() if line.startswith("  deepfm run"))
    assert command == "  deepfm run --config M.toml --date 2026-03-07"
    code, out, _ = deepfm(*shlex.split(command)[1:], "--json")
    assert (code, json.loads(out)[0]["verdict"] is None) == (0, False)  # the day was judged


def test_split_says_what_it_wrote_to_machines(deepfm):
    Path("flat.csv").write_text("when,a\n2026-03-02,x\n2026-03-01,y\n,z\n2026-03-02,z\n")
    code, out, err = deepfm("split", "flat.csv", "--by", "when", "--out", "days", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "path": "days",
        "rows": 3,
        "days": [
            {"date": "2026-03-01", "path": "days/dt=2026-03-01/part-0.parquet", "rows": 1},
            {"date": "2026-03-02", "path": "days/dt=2026-03-02/part-0.parquet", "rows": 2},
        ],
        "rows_without_a_day": 1,
        "path_without_a_day": "days/_without_a_day.parquet",
    }
    for day in json.loads(out)["days"]:
        assert pq.read_metadata(day["path"]).num_rows == day["rows"]


def test_split_by_time_reads_a_bucket_and_sets_rows_without_a_day_aside(deepfm, world, fresh_bucket, s3_environment):
    rows = table_of(world)
    undated = pa.array([None] * 5 + rows["event_time"].to_pylist()[5:], rows.schema.field("event_time").type)
    place = rows.schema.get_field_index("event_time")
    pq.write_table(rows.set_column(place, "event_time", undated), "flat.parquet")
    bucket = fresh_bucket()
    client_of(s3_environment).upload_file("flat.parquet", bucket, "a/flat.parquet")
    code, out, err = deepfm("split", f"s3://{bucket}/a/flat.parquet", "--by", "event_time", "--out", "days")
    assert (code, err) == (0, "")
    assert "5 rows have no day; they are in days/_without_a_day.parquet" in out
    assert "next: deepfm init days --out days.toml" in out
    code, _, _ = deepfm("init", "days", "--out", "days.toml")
    assert code == 0
    assert load_config(Path("days.toml")).data.event_time == "event_time"
