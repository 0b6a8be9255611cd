"""`deepfm report` on real runs, and the page that a run keeps beside its decision."""

import datetime as dt
import json
import os
import re
import shlex
import stat
from pathlib import Path

import pyarrow as pa
import pytest
import typer

from deepfm import layout
from deepfm.cli.app import app as command_line
from deepfm.report.facts import gather
from deepfm.report.page import render
from deepfm.retraining import retrain
from deepfm.storage import open_store
from tests.command_line import deepfm, one_line
from tests.factories import DAY, entry
from tests.page_reader import Page
from tests.places import ROWS, YESTERDAY, Killed, Place, local_place
from tests.reported_runs import CHAMPION, config, decision, finding, holdout, keep, keep_day
from tests.tiny_days import HOLDOUT, click_day, with_column
from tests.tiny_toml import write_toml

REFUSED = HOLDOUT + dt.timedelta(days=1)


@pytest.fixture(scope="module")
def retrained(one_thread, tmp_path_factory) -> tuple[Place, Path]:  # noqa: ARG001 - asked for its effect
    """Two days that were judged, one that was refused, and the TOML."""
    place = local_place(tmp_path_factory.mktemp("retrained") / "a place")
    for back in range(5):
        place.deliver(HOLDOUT - dt.timedelta(days=back))
    day = click_day(REFUSED, rows=ROWS)
    place.deliver(REFUSED, with_column(day, "user", pa.nulls(ROWS, pa.string())))
    toml = write_toml(place.folder, source=place.source, store=place.store)
    for date in (YESTERDAY, HOLDOUT, REFUSED):
        retrain(place.workspace(), date)
    return place, toml


@pytest.fixture
def report(monkeypatch, capsys, retrained, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        return deepfm(monkeypatch, capsys, "report", "--config", str(retrained[1]), *arguments)

    return run


def test_without_a_date_the_newest_decision_is_written_here(report, retrained, tmp_path):
    code, out, err = report()
    assert (code, out, err) == (0, f"report-tiny-{HOLDOUT}.html\n", "")
    page = Path(out.strip()).read_text()
    assert f"tiny · {HOLDOUT}" in page
    assert f"--config {shlex.quote(str(retrained[1]))}" in Page(page).text
    assert page.count("<svg") == 5
    assert [path.name for path in tmp_path.iterdir()] == [out.strip()]


def test_json_says_where_the_page_is_and_what_the_verdict_was(report):
    code, out, err = report("--date", str(YESTERDAY), "--out", "page.html", "--json")
    said = json.loads(out)
    assert (code, err, set(said)) == (0, "", {"path", "version", "verdict"})
    assert (said["path"], said["verdict"]) == ("page.html", "promote")
    assert report("--version", said["version"], "--out", "again.html")[0] == 0
    assert Path("again.html").read_bytes() == Path("page.html").read_bytes()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(Path("page.html").stat().st_mode) == 0o666 & ~umask


def test_a_refused_day_has_a_page_too(report):
    code, out, err = report("--date", str(REFUSED), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"path": f"report-tiny-{REFUSED}.html", "version": None, "verdict": "refused"}
    page = Path(f"report-tiny-{REFUSED}.html").read_text()
    assert "Refused:" in page
    assert "null share" in page


@pytest.mark.parametrize("outcome", ["promoted", "rolled_back", "cleared", "reject", "inconclusive", "refused"])
def test_every_command_that_a_page_names_exists_with_its_options(outcome, tmp_path):
    store = open_store(f"file://{tmp_path}/store")
    if outcome == "refused":
        keep_day(store, holdout(finding(passed=False), accepted=False))
    else:
        verdict = "promote" if outcome in {"promoted", "rolled_back", "cleared"} else outcome
        keep(store, decision(verdict=verdict), promoted=outcome in {"promoted", "rolled_back"})
    facts = gather(store, config(), logical_date=DAY)
    if outcome == "rolled_back":
        facts = facts._replace(withdrawal=entry(3))
    heads = [facts.head, facts.head.model_copy(update={"version": CHAMPION})] if facts.head else [None]
    commands = typer.main.get_command(command_line).commands  # type: ignore[attr-defined]
    for head in heads:
        written = re.findall(r"<pre>(.*)</pre>", render(facts._replace(head=head)))
        named = [Page(command).text.removeprefix("deepfm ") for command in written]
        assert len(named) == 2
        for name, *arguments in (line.split() for line in named):
            known = {option for parameter in commands[name].params for option in parameter.opts}
            assert {argument for argument in arguments if argument.startswith("--")} <= known


MISTAKES = {
    "no such date": (["--date", "2031-01-01"], 2, "there are decisions on 2 dates from 2026-03-03 to 2026-03-04"),
    "no such version": (["--version", f"{HOLDOUT}-{'0' * 16}"], 2, f"of that date there is {HOLDOUT}-"),
    "no date": (["--date", "yesterday"], 2, "--date is not a date: yesterday"),
    "no version": (["--version", "../x"], 2, "version id is not allowed"),
    "both": (["--date", str(HOLDOUT), "--version", f"{HOLDOUT}-{'0' * 16}"], 2, "exclude each other"),
    "a folder": (["--out", "."], 2, "is a directory"),
    "below a file": (["--out", "/dev/null/page.html"], 2, "the report cannot be written: Not a directory"),
    "empty store": (["--store", "file://./."], 2, "nothing was decided on tiny: there is no decision yet"),
    "no store": (["--store", "file://./empty"], 2, "store's folder does not exist"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(report, tmp_path, name):
    arguments, expected, words = MISTAKES[name]
    code, out, err = report(*arguments)
    assert (code, out) == (expected, "")
    assert words in one_line(err)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def reports(place: Place) -> dict[str, bytes]:
    return {key: data for key, data in place.objects().items() if key.endswith(layout.REPORT_FILE)}


def test_a_run_keeps_its_page_beside_the_decision_and_a_second_run_does_not_touch_it(retrained, report):
    place, _ = retrained
    kept = reports(place)
    assert len(kept) == 2
    for key in kept:
        folder = key.rpartition("/")[0]
        names = {name for name in (layout.CURVES_FILE, layout.DECISION_FILE) if f"{folder}/{name}" in place.objects()}
        assert names == {layout.CURVES_FILE, layout.DECISION_FILE}
    changed: list[str] = []
    retrain(place.workspace(tell=lambda _, key: changed.append(key)), HOLDOUT)
    assert changed == []
    report("--out", "page.html")
    (page,) = (data.decode() for key, data in kept.items() if f"/{HOLDOUT}/" in key)
    ours, theirs = (text.partition("What to do next")[0] for text in (page, Path("page.html").read_text()))
    assert ours == theirs


def test_a_run_that_was_cut_off_before_its_page_draws_it_when_it_is_repeated(here):
    def kill(_: str, key: str) -> None:
        if key.endswith(layout.REPORT_FILE):
            raise Killed

    with pytest.raises(Killed):
        retrain(here.workspace(tell=kill), HOLDOUT)
    assert reports(here) == {}
    assert here.workspace().registry.champion().logical_date == HOLDOUT
    retrain(here.workspace(), HOLDOUT)
    (page,) = reports(here).values()
    assert b"Promoted:" in page


def test_two_runs_that_draw_at_once_keep_one_page(here):
    drawn: list[str] = []

    def let_the_twin_draw(_: str, key: str) -> None:
        if key.endswith(layout.REPORT_FILE) and not drawn:
            drawn.append(key)
            retrain(here.workspace(), HOLDOUT)

    retrain(here.workspace(tell=let_the_twin_draw), HOLDOUT)
    assert list(reports(here)) == drawn


def test_a_second_decision_on_a_version_has_a_page_of_its_own(here):
    retrain(here.workspace({"gate.min_auc": 0.97}), HOLDOUT)
    assert len(reports(here)) == 1
    retrain(here.workspace(), HOLDOUT)
    pages = list(reports(here).values())
    assert len(pages) == 2
    assert sum(b"Promoted:" in page for page in pages) == 1
    changed: list[str] = []
    retrain(here.workspace(tell=lambda _, key: changed.append(key)), HOLDOUT)
    assert changed == []


def test_a_holdout_on_which_nothing_can_be_said_has_no_page_and_no_failure(here):
    labels = [row == 0 for row in range(ROWS)]
    here.deliver(HOLDOUT, with_column(click_day(HOLDOUT, rows=ROWS), "click", pa.array(labels)))
    assert retrain(here.workspace(), HOLDOUT).verdict == "inconclusive"
    assert reports(here) == {}


def test_pages_are_kept_in_a_bucket_too(here, fresh_bucket):
    bucket = f"s3://{fresh_bucket()}/models"
    place = Place(bucket, here.source, here.folder)
    retrain(place.workspace(), HOLDOUT)
    (key,) = (found.key for found in open_store(bucket).list("models") if found.key.endswith(layout.REPORT_FILE))
    assert b"Promoted:" in open_store(bucket).read(key)
