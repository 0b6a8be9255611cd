"""`deepfm predict`: the same rows with a probability each, whatever holds them; one line for what cannot be scored."""

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepfm.cli import predict as command
from deepfm.promotion import Operator
from deepfm.scoring import reading
from deepfm.serving import ChampionModel
from deepfm.storage import open_store
from tests.command_line import deepfm, one_line
from tests.factories import MODEL
from tests.small_versions import A, B, publish

ROOT = Path(__file__).parents[2]
NAMES = ["note", "price", "user", "item"]
ROWS: list[list[Any]] = [
    ["first, second", 1.5, "u1", 17],
    ["ü\n2", None, None, None],
    [None, -3.25, "never seen", 2**62 + 1],
    ["", 1e300, "u2", -5],
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two versions, the first of which is champion."""
    store = open_store(str(tmp_path_factory.mktemp("predict")))
    publish(store, A, B)
    Operator(store, MODEL, actor="test", reason="test").promote(A, force=True)
    return store


@pytest.fixture(scope="module")
def expected(store) -> list[float]:
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
    return ChampionModel.open(store.url, MODEL).predict(columns).tolist()


@pytest.fixture
def predict(monkeypatch, capsysbinary, store, tmp_path):
    """Runs the command in a folder of its own: code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code, out, err = deepfm(
            monkeypatch, capsysbinary, "predict", *arguments, "--store", store.url, "--model", MODEL
        )
        return code, out.decode(), err.decode()  # type: ignore[attr-defined]

    return run


def text_of(rows, *, delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([NAMES, *rows])
    return text.getvalue()


def objects() -> list[dict[str, object]]:
    return [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def write(name: str) -> None:
    """The rows as a file in the working directory."""
    path = Path(name)
    if ".parquet" in name:
        pq.write_table(pa.Table.from_pylist(objects()), path)
        return
    lines = "".join(json.dumps(row) + "\n" for row in objects())
    text = lines if "json" in name else text_of(ROWS, delimiter="\t" if "tsv" in name else ",")
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def read(path: Path) -> list[dict[str, object]]:
    """The rows of an output, as they are there."""
    name = path.name
    if name.endswith(".parquet"):
        return pq.read_table(path).to_pylist()
    text = (gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()).decode()
    if "json" in name:
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if "tsv" in name else ","))


INS = ["rows.csv", "rows.csv.gz", "rows.tsv", "rows.parquet", "rows.jsonl", "rows.ndjson.gz"]
OUTS = ["out.csv", "out.tsv.gz", "out.parquet", "out.jsonl", "out.jsonl.gz"]


@pytest.mark.parametrize("name", INS)
@pytest.mark.parametrize("out", OUTS)
def test_any_format_becomes_any_other_with_the_same_probabilities(predict, expected, name, out):
    write(name)
    code, said, err = predict(name, "--out", out)
    assert (code, said, err) == (0, f"4 rows in {out}, by {A}.\n", "")
    rows = read(Path(out))
    assert list(rows[0]) == [*NAMES, "probability"]
    assert [np.float32(row["probability"]) for row in rows] == expected  # type: ignore[arg-type]
    assert [row["user"] or None for row in rows] == [row[2] for row in ROWS]
    assert [row["note"] or "" for row in rows] == [row[0] or "" for row in ROWS]


def test_the_figures_are_those_of_the_consumer_to_the_last_digit(predict, expected):
    write("rows.csv")
    out = predict("rows.csv")[1]
    assert [float(row["probability"]) for row in csv.DictReader(io.StringIO(out, newline=""))] == expected


def test_csv_passes_through_as_it_came(predict):
    text = 'item,"a ""b""",price,user,empty\n007,"x, y",1.50,u1,\n,ü, NaN ,"",\n'
    Path("rows.csv").write_text(text)
    lines = predict("rows.csv")[1].splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [
        'item,"a ""b""",price,user,empty',
        '007,"x, y",1.50,u1,',
        ",ü, NaN ,,",
    ]


@pytest.mark.parametrize("word", ["", "NA", "nan", "NULL", "None", r"\N"])
def test_a_word_for_missing_is_missing(predict, word):
    Path("rows.csv").write_text(f"user,item,price\nu1,{word},{word}\nu1,,\n")
    first, second = csv.DictReader(io.StringIO(predict("rows.csv")[1]))
    assert first["probability"] == second["probability"]


def test_types_pass_through_parquet(predict):
    table = pa.table(
        {
            "user": pa.array(["u1"]).dictionary_encode(),
            "item": pa.array([17], pa.int32()),
            "price": pa.array([1.5], pa.float32()),
            "tags": pa.array([["a", "b"]]),
        }
    )
    pq.write_table(table, "rows.parquet")
    predict("rows.parquet", "--out", "out.parquet")
    assert pq.read_table("out.parquet").drop_columns("probability").equals(table)
    predict("rows.parquet", "--out", "out.csv")
    assert read(Path("out.csv"))[0]["tags"] == '["a","b"]'


def test_from_csv_the_models_inputs_get_their_types_where_there_are_types(predict):
    Path("rows.csv").write_text("user,item,price,other\n7,17,NA,8\n")
    predict("rows.csv", "--out", "out.jsonl")
    row = read(Path("out.jsonl"))[0]
    assert {name: row[name] for name in ("user", "item", "price", "other")} == {
        "user": "7",
        "item": 17,
        "price": None,
        "other": "8",
    }


def test_json_lines_hold_no_nan_and_may_begin_with_a_mark(predict):
    pq.write_table(pa.table({"user": ["u1"], "item": [17], "price": [float("nan")]}), "rows.parquet")
    assert '"price":null' in predict("rows.parquet", "--out", "out.jsonl")[1] + Path("out.jsonl").read_text()
    Path("rows.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert predict("rows.jsonl")[0] == 0


def test_a_version_and_a_column_can_be_named(predict):
    write("rows.jsonl")
    out = predict("rows.jsonl", "--version", B[:10], "--column", "p")[1]
    assert all("p" in json.loads(line) for line in out.splitlines())
    code, _, err = predict("rows.jsonl", "--column", "price", "--out", "out.csv")
    assert (code, Path("out.csv").exists()) == (2, False)
    assert "the input has a column price already. Name another with --column." in one_line(err)


def test_a_dash_reads_json_lines_from_stdin(predict, expected, monkeypatch):
    lines = "\n".join(json.dumps(row) for row in objects())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    code, out, err = predict("-")
    assert (code, err) == (0, "")
    assert [json.loads(line)["probability"] for line in out.splitlines()] == expected


def test_batches_join_without_a_seam(predict, monkeypatch):
    rows = [{"user": f"u{i % 4}", "item": i % 30, "price": i / 7, "id": i} for i in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), "rows.parquet")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = predict("rows.parquet")[1]
    monkeypatch.setattr(reading, "BATCH_ROWS", 7)
    assert predict("rows.parquet")[1] == whole
    Path("late.csv").write_text("user,item,price\n" + "u1,1,1\n" * 20 + "u1,x,1\n")
    assert "late.csv, row 21" in one_line(predict("late.csv")[2])
    predict("rows.jsonl", "--out", "out.csv")
    assert [row["id"] for row in read(Path("out.csv"))] == [str(i) for i in range(100)]


@pytest.mark.parametrize("out", ["out.csv", "out.parquet", "out.jsonl"])
@pytest.mark.parametrize("name", ["none.csv", "none.parquet", "none.jsonl"])
def test_no_rows_are_no_rows(predict, name, out):
    if name == "none.parquet":
        pq.write_table(pa.table({"user": pa.array([], pa.string()), "item": [], "price": []}), name)
    else:
        Path(name).write_text("user,item,price\n" if name == "none.csv" else "\n")
    code, said, _ = predict(name, "--out", out)
    assert (code, said) == (0, f"0 rows in {out}, by {A}.\n")
    assert read(Path(out)) == []
    if out == "out.csv" and name != "none.jsonl":
        assert Path(out).read_text() == "user,item,price,probability\n"


GOOD = '{"user":"u1","item":17,"price":1}\n'
SECRET = "do-not-tell"
BROKEN: dict[str, tuple[Any, ...]] = {
    "missing column": (
        "rows.csv",
        "users,item,price\nu1,1,1\n",
        3,
        "user is missing: columns users, item, price (rows.csv). Is it the column users? Rename it.",
    ),
    "other case": ("rows.csv", "USER,item,price\nu1,1,1\n", 3, "Is it the column USER?"),
    "other separator": ("rows.csv", "user;item;price\nu1;1;1\n", 3, "separated by ';'", "data.csv_delimiter"),
    "nothing like it": ("rows.csv", "a,b,c\nu1,1,1\n", 3, "columns a, b, c", "found by name"),
    "many columns": (
        "rows.csv",
        ",".join(f"c{n}" for n in range(20)) + "\n",
        3,
        "c7 and 12 more",
    ),
    "text for an integer": (
        "rows.csv",
        f"user,item,price\nu1,1,1\nu1,{SECRET},1\n",
        3,
        "field item",
        "rows.csv, row 2",
    ),
    "fraction": ("rows.csv", "user,item,price\nu1,1.5,1\n", 3, "field item", "row 1"),
    "text for a number": ("rows.csv", f"user,item,price\nu1,1,{SECRET}\n", 3, "field price", "row 1"),
    "short row": (
        "rows.csv",
        f'user,item,price\n"u\n1",1,1\n\n{SECRET},1\n',
        3,
        "too many cells: 2, required 3",
        "row 2",
    ),
    "doubled column": ("rows.csv", "user,item,price,user\nu1,1,1,u2\n", 3, "user"),
    "no header": ("rows.csv", "", 3, "header"),
    "not UTF-8": ("rows.csv", b"user,item,price\n\xff,1,1\n", 3, "rows.csv"),
    "cut gzip": ("rows.csv.gz", gzip.compress(b"user,item,price\n" + b"u1,1,1\n" * 99)[:-9], 3, "rows.csv.gz"),
    "not Parquet": ("rows.parquet", "user,item,price\n", 3, "rows.parquet"),
    "missing field": (
        "rows.jsonl",
        GOOD + '\n{"user":"u1","price":1}\n',
        3,
        "field item is missing: columns user, price (rows.jsonl, line 3",
    ),
    "text in JSON": ("rows.jsonl", GOOD + f'{{"user":"u1","item":"{SECRET}","price":1}}', 3, "item", "line 2"),
    "number for text": ("rows.jsonl", '{"user":1.5,"item":1,"price":1}', 3, "field user cannot be used", "line 1"),
    "broken line": ("rows.jsonl", GOOD + f'{{"user":"{SECRET}', 3, "the line is no JSON (rows.jsonl, line 2)"),
    "not an object": ("rows.jsonl", GOOD + f'["{SECRET}"]', 3, "the line is no JSON object (rows.jsonl, line 2)"),
    "deep": ("rows.jsonl", "[" * 100_000, 3, "the line is no JSON"),
    "cut gzip of JSON": ("rows.jsonl.gz", gzip.compress(GOOD.encode() * 99)[:-9], 3, "cannot be read to its end"),
    "not gzip": ("rows.jsonl.gz", GOOD, 3, "rows.jsonl.gz"),
    "surrogate": ("rows.jsonl", '{"user":"u1","item":1,"price":1,"x":"\\ud800"}', 3, "not Unicode"),
    "no format": ("rows.txt", GOOD, 2, "the file's name says no format: 'rows.txt'"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("out", ["out.csv", "out.jsonl"])
def test_what_cannot_be_scored_is_one_line_without_a_value_and_no_file(predict, case, out):
    name, content, expected, *words = BROKEN[case]
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, said, err = predict(name, "--out", out)
    assert (code, said) == (expected, "")
    line = one_line(err)
    assert [word for word in words if word not in line] == [], line
    assert SECRET not in line
    assert [path.name for path in Path().iterdir()] == [name]


@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
def test_json_lines_that_no_table_holds_are_refused(predict, out):
    Path("rows.jsonl").write_text(GOOD + GOOD.replace("}", ',"extra":1}'))
    code, _, err = predict("rows.jsonl", "--out", out)
    assert code == 3
    assert "a line has a field that the first one lacks: 'extra' (rows.jsonl, line 2). Write JSON lines" in one_line(
        err
    )
    assert predict("rows.jsonl", "--out", "out.jsonl")[0] == 0


def test_values_of_several_types_do_not_become_parquet(predict):
    Path("rows.jsonl").write_text(GOOD.replace("}", ',"x":1}') + GOOD.replace("}", ',"x":"text"}'))
    code, _, err = predict("rows.jsonl", "--out", "out.parquet")
    assert code == 3
    assert "the values of a field are of several types (rows.jsonl, lines 1 to 2)" in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (("nowhere.csv",), 2, "there is no such file (nowhere.csv)"),
        ((".",), 2, "there is no such file (.). It is a folder"),
        (("rows.csv", "--out", "out.txt"), 2, "--out says no format: 'out.txt'"),
        (("rows.csv", "--out", "rows.csv/out.csv"), 78, "a file is where a folder is needed"),
        (("rows.csv", "--version", "2031-01-01"), 2, "version 2031-01-01 is not there"),
    ],
)
def test_a_mistake_is_one_line(predict, arguments, expected, words):
    write("rows.csv")
    code, out, err = predict(*arguments)
    assert (code, out) == (expected, "")
    assert words in one_line(err)


def test_a_line_without_an_end_does_not_fill_the_memory(predict, monkeypatch):
    monkeypatch.setattr(reading, "_LONGEST_LINE", 1000)
    Path("rows.jsonl").write_text(GOOD + "x" * 2000)
    assert "a line is longer than 1000 bytes" in one_line(predict("rows.jsonl")[2])


def test_an_older_output_stays_when_the_new_one_fails(predict):
    Path("out.csv").write_text("older")
    Path("rows.csv").write_text("user,item,price\n" + "u1,1,1\n" * 100 + "u1,x,1\n")
    assert predict("rows.csv", "--out", "out.csv")[0] == 3
    assert Path("out.csv").read_text() == "older"


def test_the_input_is_never_written_over(predict):
    write("rows.csv")
    code, _, err = predict("rows.csv", "--out", "./rows.csv")
    assert (code, "--out is the input itself" in err) == (2, True)
    assert Path("rows.csv").read_text() == text_of(ROWS)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.jsonl"])
def test_the_rows_are_guessed_from_the_beginning(predict, name, tmp_path):  # noqa: ARG001 - asked for its folder
    numbers = np.random.default_rng(0).random(200_000).tolist()
    form = '{{"user":"u1","price":{}}}' if "json" in name else "u1,{}"
    data = "".join(form.format(number) + "\n" for number in numbers).encode()
    Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert reading.estimated_rows(Path(name)) == pytest.approx(200_000, rel=0.1)
    assert reading.estimated_rows(reading.STDIN) is None


def test_who_watches_sees_the_rows_go_by(predict, monkeypatch):
    from rich.console import Console

    screen = io.StringIO()
    monkeypatch.setattr(command, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    write("rows.csv")
    assert predict("rows.csv")[0] == 0
    assert "4 done" in screen.getvalue()
