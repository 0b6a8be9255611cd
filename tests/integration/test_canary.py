"""Secrets and users' ids that can be told from everything else, and a search for them in every byte that is written.

A user's id is in the clicks, and in the rows that validation has set aside, which are kept whole for whoever delivered
them. Nothing else needs it: the column that groups rows is no field here, and what a stage keeps of it is a hash. (A
user that is a field is in vocabularies and models, as its values are what the model looks up.)
"""

import datetime as dt
import io
import logging
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepfm import layout
from deepfm.errors import DeepFMError
from deepfm.serving import ServedChampion
from deepfm.storage import open_store
from tests.command_line import deepfm
from tests.places import ROWS, WORLD
from tests.seaweed import S3Server, client_of
from tests.tiny_days import HOLDOUT, click_day, with_column, write_day
from tests.tiny_toml import TEXT

PERSON, PASSWORD, TOKEN, WRONG = (f"canary-{what}-3141592653" for what in ("person", "password", "token", "secret"))
NEXT = HOLDOUT + dt.timedelta(days=1)
FIRST, LAST = ("--date", str(HOLDOUT)), ("--date", str(NEXT))
DAY_AFTER_DAY = (
    ("doctor",),
    ("run", *FIRST, "--verbose"),
    ("run", *LAST, "--json"),
    ("status",),
    ("report", *LAST, "--out", "report.html"),
    ("history", "--json"),
    ("rollback", "--reason", "try it"),
    ("pull", "--out", "pulled"),
    ("prune", "--keep", "1", "--older-than", "1"),
    ("run", "--date", str(WORLD[0] - dt.timedelta(days=30))),
)
"""A user's days, the last of them without clicks."""


def clicks(date: dt.date) -> pa.Table:
    """A day of known people; some of its rows are set aside."""
    day = click_day(date, rows=ROWS)
    day = with_column(day, "price", pa.array([-1.0, *day["price"].to_pylist()[1:]]))
    return day.append_column("person", pa.array([f"{PERSON}-{row % 20}" for row in range(ROWS)]))


class Heard:
    """Where secrets were found in what was said or written; the last of them may be in rows that were set aside."""

    def __init__(self, *secrets: str) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self.set_aside: set[bytes] = set()
        self.found: list[str] = []
        self.looked_at = 0

    def __call__(self, where: str, said: str | bytes) -> None:
        data = said.encode() if isinstance(said, str) else said
        self.looked_at += 1
        if where.endswith(f"/{layout.QUARANTINE_FILE}"):
            assert PERSON.encode() in b"".join(decoded(data)), "nothing was set aside: the test shows little"
            self.set_aside.add(data)
        for secret in self._secrets[: -1 if data in self.set_aside else None]:
            if any(secret in part for part in decoded(data)):
                self.found.append(f"{secret.decode()} in {where}")

    def folder(self, root: Path) -> None:
        for path in root.rglob("*"):
            if path.is_file():
                self(str(path), path.read_bytes())


def decoded(data: bytes) -> Iterator[bytes]:
    """The bytes themselves, and the values in them if they are compressed columns."""
    yield data
    if data[:4] == b"PAR1":
        yield repr(pq.read_table(io.BytesIO(data)).to_pydict()).encode()
    elif data[:6] == b"ARROW1":
        yield repr(pa.ipc.open_file(data).read_all().to_pydict()).encode()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """A folder for all that a machine keeps, clicks but for them; our own log is heard in full."""
    for name in ("temp", "work", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.setenv("DEEPFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    caplog.set_level(logging.DEBUG, "deepfm")
    for date in (*WORLD, NEXT):
        write_day(tmp_path / "clicks", date, clicks(date))
    return tmp_path


def toml(place: Path, store: str) -> str:
    """The configuration whose group is the person."""
    path = place / "work" / "tiny.toml"
    path.write_text(TEXT.format(source=place / "clicks", store=store).replace('group = "user"', 'group = "person"'))
    return str(path)


def test_the_search_finds_what_is_hidden_in_columns() -> None:
    for writer in (pq.write_table, lambda table, sink: pa.ipc.new_file(sink, table.schema).write_table(table)):
        heard, sink = Heard(PERSON), io.BytesIO()
        writer(clicks(HOLDOUT), sink)
        heard("a file", sink.getvalue())
        assert heard.found == [f"{PERSON} in a file"]


@pytest.mark.usefixtures("one_thread")
def test_no_secret_and_no_user_is_in_any_byte_that_days_of_work_write(
    place: Path, fresh_bucket: Callable[[], str], s3_environment: S3Server, monkeypatch, capsys, caplog
) -> None:
    bucket = fresh_bucket()
    heard = Heard(s3_environment.secret_key, PERSON)
    config = toml(place, f"s3://{bucket}/team")
    codes = []
    for command, *arguments in DAY_AFTER_DAY:
        code, out, err = deepfm(monkeypatch, capsys, command, "--config", config, *arguments)
        codes.append(code)
        heard(f"what {command} says", out + err)
    assert codes == [0] * (len(DAY_AFTER_DAY) - 1) + [75]
    served = ServedChampion.open(f"s3://{bucket}/team", "tiny", threads=1)
    served.refresh()
    heard("a consumer's status", repr(served.status))
    heard("the log", caplog.text)
    client = client_of(s3_environment)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page["Contents"]:
            heard(found["Key"], client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read())
    for name in ("temp", "cache", "work"):
        heard.folder(place / name)
    assert heard.looked_at > 60
    assert heard.found == []


@pytest.mark.parametrize(
    "changes",
    [
        {"AWS_SECRET_ACCESS_KEY": WRONG},
        {"AWS_ACCESS_KEY_ID": "unknown", "AWS_SECRET_ACCESS_KEY": WRONG, "AWS_SESSION_TOKEN": TOKEN},
        {"AWS_ENDPOINT_URL": f"http://id:{PASSWORD}@127.0.0.1:9"},
        {"AWS_ENDPOINT_URL": f"id:{PASSWORD}@nowhere"},
        {"AWS_ENDPOINT_URL": f"http://id:{PASSWORD}/2@127.0.0.1:9"},
    ],
    ids=" ".join,
)
def test_no_secret_is_in_what_is_said_of_its_refusal(
    place: Path, fresh_bucket: Callable[[], str], monkeypatch, capsys, caplog, changes: dict[str, str]
) -> None:
    store = f"s3://{fresh_bucket()}/team"
    config = toml(place, store)
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    heard = Heard(PASSWORD, TOKEN, WRONG)
    for command, *arguments in (("run", *FIRST, "-v"), ("status",), ("doctor",), ("pull",), ("hold", "--reason", "x")):
        code, out, err = deepfm(monkeypatch, capsys, command, "--config", config, *arguments)
        assert code in {75, 78}
        heard(f"what {command} says", out + err)
    with pytest.raises(DeepFMError) as refused:
        open_store(store).read("key")
    heard("its traceback, with all its causes", "".join(traceback.format_exception(refused.value)))
    heard("the log", caplog.text)
    heard.folder(place / "temp")
    assert heard.found == []
