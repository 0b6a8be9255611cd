"""Twenty-three kinds of mistakes, in arguments, configurations and folders, at random: no traceback, one clear line.

Every command runs in this process through the real entry point. A case is right if it leaves with a documented exit
code other than that of a bug, and says at most one line that begins with the program's name.
"""

import gzip
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tests.evidence.ground import Case, Done, Ground, run_in_process
from tests.evidence.lines import Line

ROUNDS = int(os.environ.get("MISTAKES", "1000"))
"""Cases of each kind."""
_DOCUMENTED = {0, 2, 3, 4, 75, 78}
_REFUSED = 3
"""A refused day is a result: its reasons are on stdout."""


def mistakes(folder: Path) -> Iterator[Line]:
    """Every kind of mistake, `ROUNDS` times each."""
    os.environ["DEEPFM_CACHE"] = str(folder / "cache")
    os.chdir(folder)  # where a relative --out ends up
    ground = Ground(folder, random.Random(20))
    rows = pq.read_table(next((ground.clicks / f"dt={ground.last}").glob("*.parquet")))
    pyarrow.csv.write_csv(rows, folder / "rows.csv")
    wrong: list[str] = []
    codes: Counter[int] = Counter()
    for name, kind in KINDS.items():
        began = time.monotonic()
        before = len(wrong)
        for _ in range(ROUNDS):
            case = kind(ground)
            done = run_in_process(case.arguments, case.variables)
            codes[done.code] += 1
            if problem := _problem(done):
                wrong.append(f"{name}: {problem} after {' '.join(case.arguments)!r:.300}")
        lines = f"{len(wrong) - before} wrong" + (f", first {wrong[before]}" if len(wrong) > before else "")
        rate = ROUNDS / (time.monotonic() - began)
        yield Line(f"mistake: {name}, {ROUNDS} times", f"{lines}; {rate:.0f}/s", "0 wrong", len(wrong) == before)
    told = ", ".join(f"{count} of {code}" for code, count in sorted(codes.items()))
    yield Line(f"{sum(codes.values()):,} mistakes of {len(KINDS)} kinds", told, "0 tracebacks", not wrong)


def _problem(done: Done) -> str:
    if done.trace:
        return f"traceback {done.trace}"
    if done.code not in _DOCUMENTED:
        return f"exit {done.code}"
    if "Traceback" in done.err:
        return "a traceback on stderr"
    errors = [line for line in done.err.splitlines() if line.startswith("deepfm: ")]
    if len(errors) > 1 or (not errors and done.code not in {0, _REFUSED}):
        return f"{len(errors)} lines of error"
    return ""


def _options(arguments: list[str]) -> list[int]:
    return [n for n, word in enumerate(arguments) if word.startswith("--")]


def mistyped_command(ground: Ground) -> Case:
    name, *rest = ground.command()
    return Case([ground.typo(name), *rest], ground.home)


def mistyped_option(ground: Ground) -> Case:
    words = ground.command()
    n = ground.rng.choice(_options(words))
    words[n] = ground.typo(words[n])
    return Case(words, ground.home)


def odd_value(ground: Ground) -> Case:
    words = ground.command()
    n = ground.rng.choice(_options(words)) + 1
    if n < len(words) and words[n - 1] not in {"--out", "--store"}:  # what it writes stays below its folder
        words[n] = ground.word()
    return Case(words, ground.home)


def odd_argument(ground: Ground) -> Case:
    words = ground.command()
    words.insert(ground.rng.randrange(1, len(words) + 1), ground.word() or "x")
    return Case(words, ground.home)


def lost_word(ground: Ground) -> Case:
    words = ground.command()
    del words[ground.rng.randrange(1, len(words))]
    return Case(words, ground.home)


def odd_date(ground: Ground) -> Case:
    name = ground.rng.choice(("run", "backfill"))
    words = ground.commands()[name]
    for n in [n for n in _options(words) if words[n] in {"--date", "--start", "--end"}]:
        words[n + 1] = ground.word()
    return Case(words, ground.home)


def odd_override(ground: Ground) -> Case:
    keys = (
        "training.epochs",
        "data.source",
        "fields",
        "window.window_days",
        "model",
        "x.y",
        "",
        "sampling.keep_rate",
        "data.partition",
    )
    key = ground.rng.choice(keys)
    return Case([*ground.commands()["status"], "--set", f"{key}={ground.word()}"], ground.home)


def odd_store(ground: Ground) -> Case:
    urls = ("ftp://x", "s3:/x", "s3://", "file:/x", "http://h/b", "~", "", "a:b", "file://host/x", str(ground.toml))
    url = ground.rng.choice(urls)
    words = ground.commands()[ground.rng.choice(("status", "history", "report", "rollback", "run"))]
    words[words.index("--store") + 1] = url
    return Case(words, ground.home)


def odd_port(ground: Ground) -> Case:
    """An address of a bucket's server that cannot be; none that can is tried, so that no case waits for a network."""
    port = ground.rng.choice(("99999", "65536", "-1", "x", "9000x", "1e3", " ", "٣", "0x10", "9000:9000"))
    host = ground.rng.choice(
        ("http://127.0.0.1", "https://127.0.0.1", "http://[::1]", "http://[::1", "127.0.0.1", "http://")
    )
    words = ground.commands()[ground.rng.choice(("status", "history", "report", "run", "pull"))]
    words[words.index("--store") + 1] = "s3://bucket/store"
    if ground.rng.random() < 0.3:
        words = ["init", "s3://bucket/clicks", "--out", str(ground.home / "out.toml"), "--force"]
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_MAX_ATTEMPTS": "1"}
    name = ground.rng.choice(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
    return Case(words, ground.home, {**keys, name: f"{host}:{port}"})


def bracketed_out(ground: Ground) -> Case:
    """What a terminal's markup is written in, in the name of what a command writes."""
    folder = ground.home / "brackets"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    name = ground.rng.choice(
        ("[/]", "[red]", "[/red]", "[bold", "a]b[", "[link=x]y", "[0]", "[[/]]", "[@click=x]", "\\[/]")
    )
    out = str(folder / f"{name}{ground.rng.choice(('', '.toml', '.html', '.csv', '/x'))}")
    words = ground.commands()[ground.rng.choice(("init", "split", "report", "pull", "predict", "synth"))]
    if words[0] == "split":
        words[1] = str(ground.home / "rows.csv")
    words[words.index("--out") + 1] = out
    return Case(words, ground.home)


def odd_model(ground: Ground) -> Case:
    name = ground.rng.choice(("history", "rollback", "pull"))
    words = [name, "--store", str(ground.home / "store"), "--model", ground.word()]
    return Case([*words, *(["--reason", "because"] if name == "rollback" else [])], ground.home)


def odd_version(ground: Ground) -> Case:
    words = ground.commands()[ground.rng.choice(("promote", "pull", "report", "rollback"))]
    if words[0] == "promote":
        words[1] = ground.word() or "x"
        return Case(words, ground.home)
    return Case([*words, "--to" if words[0] == "rollback" else "--version", ground.word()], ground.home)


def odd_rows(ground: Ground) -> Case:
    lines = (ground.home / "rows.csv").read_text().splitlines()[:20]
    n, cut = ground.rng.randrange(len(lines)), ground.rng.randrange(8)
    cells = lines[n].split(",")
    cells[cut % len(cells)] = ground.word().replace("\r", "").replace("\n", " ")
    lines[n] = ",".join(cells if ground.rng.random() < 0.7 else cells[1:])
    path = ground.home / f"odd{ground.rng.choice(('.csv', '.tsv', '.jsonl', '.parquet', '.csv.gz', '.txt', ''))}"
    path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    words = ground.commands()["predict"]
    words[1] = str(path)
    return Case(words, ground.home)


def mistyped_key(ground: Ground) -> Case:
    lines = ground.text.splitlines()
    n = ground.rng.choice([n for n, line in enumerate(lines) if "=" in line and not line.startswith("#")])
    key, rest = lines[n].split("=", 1)
    lines[n] = f"{ground.typo(key.strip())} ={rest}"
    return ground.config_case("\n".join(lines))


def odd_config_value(ground: Ground) -> Case:
    lines = ground.text.splitlines()
    n = ground.rng.choice([n for n, line in enumerate(lines) if "=" in line and not line.startswith("#")])
    value = ground.rng.choice(
        (
            "-1",
            "0",
            "1e400",
            "nan",
            "[]",
            "{}",
            '""',
            "true",
            "2026-01-01",
            "[1, 2]",
            '"\\u202e"',
            '{ kind = "x" }',
            "99999999999999999999",
        )
    )
    lines[n] = f"{lines[n].split('=', 1)[0]}= {value}"
    return ground.config_case("\n".join(lines))


def broken_toml(ground: Ground) -> Case:
    n = ground.rng.randrange(len(ground.text))
    piece = ground.rng.choice(("", '"', "[", "=", "\x00", "\t", "\r", "\u2028", "'''", "#"))
    return ground.config_case(ground.text[:n] + piece + ground.text[n + ground.rng.randrange(3) :])


def odd_encoding(ground: Ground) -> Case:
    changed = ground.rng.choice(
        (
            "\ufeff" + ground.text,
            ground.text.replace("\n", "\r\n"),
            ground.text.replace("    ", "\t"),
            ground.text.encode("utf-16"),
            ground.text.encode() + b"\xff\xfe",
            b"",
            b"\x00" * 10,
            ground.text[: ground.rng.randrange(len(ground.text))],
        )
    )
    return ground.config_case(changed)


def broken_bytes(ground: Ground) -> Case:
    def change(file: Path) -> None:
        data = bytearray(file.read_bytes())
        for _ in range(ground.rng.randrange(1, 4)):
            data[ground.rng.randrange(len(data))] ^= 1 << ground.rng.randrange(8)
        file.write_bytes(data if ground.rng.random() < 0.5 else data[: ground.rng.randrange(len(data))])

    return ground.folder_case(change)


def misplaced_file(ground: Ground) -> Case:
    def change(file: Path) -> None:
        names = (
            "part-0.csv",
            "part-0.csv.gz",
            "part-0.PARQUET",
            "part-0.txt",
            "_part.parquet",
            "part 0.parquet",
            "é.parquet",
            ".parquet",
            "part-0.tsv",
        )
        days = ("dt=2026-3-5", "day=x", "dt=", "2026", "dt=2026-02-30")
        match ground.rng.randrange(6):
            case 0:
                file.rename(file.with_name(ground.rng.choice(names)))
            case 1:
                file.unlink()
            case 2:
                file.parent.rename(file.parent.with_name(ground.rng.choice(days)))
            case 3:
                shutil.rmtree(ground.fresh)
                if ground.rng.random() < 0.5:
                    ground.fresh.write_text("x")
            case 4:
                file.unlink()
                file.mkdir()
            case _:
                file.unlink()
                file.symlink_to(file)

    return ground.folder_case(change)


def changed_column(ground: Ground) -> Case:
    def change(file: Path) -> None:
        table = pq.read_table(file)
        n = ground.rng.randrange(table.num_columns)
        name = table.column_names[n]
        other = ground.rng.choice(
            (
                pa.array([None] * len(table)),
                pa.array([[1]] * len(table)),
                pa.array([b"\xff"] * len(table)),
                pa.array(["x"] * len(table)),
                pa.array([float("nan")] * len(table)),
                pa.array([2**63 - 1] * len(table)),
                pa.array([{"a": 1}] * len(table)),
                pa.array([True] * len(table)),
            )
        )
        changed = ground.rng.choice(
            (
                lambda: table.drop_columns([name]),
                lambda: table.rename_columns([ground.typo(c) if c == name else c for c in table.column_names]),
                lambda: table.set_column(n, name, other),
                lambda: table.append_column(name, table[name]),
                lambda: table.slice(0, ground.rng.randrange(3)),
            )
        )()
        pq.write_table(changed, file)

    return ground.folder_case(change)


def equal_days(ground: Ground) -> Case:
    """The last day delivered as another one, byte for byte; seldom trained on, for that takes a second."""

    def change(file: Path) -> None:
        days = sorted(path for path in ground.fresh.glob("dt=*/part-0.parquet") if path != file)
        other = ground.rng.choice(days)
        shutil.copyfile(*ground.rng.choice(((other, file), (file, other), (days[0], days[-1]))))

    case = ground.folder_case(change)
    if ground.rng.random() < 0.05:
        dates = ["--start", min(path.name for path in ground.fresh.iterdir())[3:], "--end", ground.last]
        return Case(["backfill", *ground.model, *dates, "--set", f"data.source={ground.fresh}"], ground.home)
    return case


def odd_labels(ground: Ground) -> Case:
    def change(file: Path) -> None:
        table = pq.read_table(file)
        values = ground.rng.choice(([0], [1], [2], [None], [0, 1, None], ["yes", "no"], [0.5], [-1, 1], [0, 1, 7]))
        labels = pa.array([ground.rng.choice(values) for _ in range(len(table))])
        pq.write_table(table.set_column(table.schema.get_field_index("click"), "click", labels), file)

    return ground.folder_case(change)


def broken_csv(ground: Ground) -> Case:
    def change(file: Path) -> None:
        path = file.with_name("part-0.csv")
        pyarrow.csv.write_csv(pq.read_table(file), path)
        file.unlink()
        data = path.read_bytes()
        n = ground.rng.randrange(len(data))
        piece = ground.rng.choice((b'"', b"\n", b",", b"\xff", b"\x00", b"\r\n\r\n", b";", b"a" * 100_000))
        data = data[:n] + piece + data[n + ground.rng.randrange(30) :]
        if ground.rng.random() < 0.3:
            path.unlink()
            packed = gzip.compress(data)
            path.with_suffix(".csv.gz").write_bytes(packed[: ground.rng.randrange(len(packed))])
        else:
            path.write_bytes(data)

    return ground.folder_case(change)


KINDS: dict[str, Callable[[Ground], Case]] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        mistyped_command,
        mistyped_option,
        odd_value,
        odd_argument,
        lost_word,
        odd_date,
        odd_override,
        odd_store,
        odd_port,
        bracketed_out,
        odd_model,
        odd_version,
        odd_rows,
        mistyped_key,
        odd_config_value,
        broken_toml,
        odd_encoding,
        broken_bytes,
        misplaced_file,
        changed_column,
        equal_days,
        odd_labels,
        broken_csv,
    )
}
