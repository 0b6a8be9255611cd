"""What the report says in words: of people's acts, of information, of gaps, and of figures with their units."""

import datetime as dt
import re
from pathlib import Path

import pytest

from deepfm import layout
from deepfm.manifests import Finding, LogEntry, Operation
from deepfm.registry import Registry
from deepfm.report.facts import RunFacts, gather
from deepfm.report.lines import percent, span_lines
from deepfm.report.page import outcome_of, render
from deepfm.storage import ObjectStore, open_store
from tests import factories
from tests.factories import DAY, MODEL, VERSION
from tests.page_reader import Page
from tests.reported_runs import CHAMPION, config, curves, decision, finding, holdout, keep, keep_day, manifest

NEWS = finding(
    rule="column_used",
    column="*",
    severity="info",
    passed=False,
    observed="policy, price",
    required="columns that the configuration names",
)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(f"file://{tmp_path}/store")


def act(store: ObjectStore, sequence: int, operation: Operation, version: str, *, held: bool = False) -> LogEntry:
    """An entry of Anna's is in the log, on the third of March and on the days after it."""
    update = {"operation": operation, "version": version, "reason": "clicks of a robot", "held": held}
    update["created_utc"] = dt.datetime(2026, 3, sequence, tzinfo=dt.UTC)
    return Registry(store, MODEL).append(factories.entry(sequence, actor="anna").model_copy(update=update))


def text_of(facts: RunFacts) -> str:
    return Page(render(facts)).text


def test_a_version_that_was_rolled_back_is_told_as_that(store):
    keep(store, decision(), promoted=True)
    act(store, 3, "rollback", CHAMPION)
    facts = gather(store, config())
    text = text_of(facts)
    assert outcome_of(facts) == "rolled_back"
    assert "Rolled back: promoted on 2026-03-02, rolled back on 2026-03-03 by anna." in text
    assert "Reason given: clicks of a robot" in text
    assert "AUC 0.7000 against 0.6900 of the champion" in text
    assert "Rolled back by log entry 3, 2026-03-03 00:00 UTC, by anna" in text
    assert f"deepfm promote {VERSION} --config M.toml --reason TEXT" in text
    assert "deepfm history --config M.toml" in text
    assert "Promoted:" not in text


def test_a_champion_that_came_back_is_not_told_as_rolled_back(store):
    keep(store, decision(), promoted=True)
    act(store, 3, "rollback", CHAMPION)
    act(store, 4, "promote", VERSION)
    facts = gather(store, config())
    assert (outcome_of(facts), facts.withdrawal) == ("promoted", None)
    assert "Promoted: AUC" in text_of(facts)
    act(store, 5, "promote", f"{DAY + dt.timedelta(days=1)}-{'7' * 16}")
    assert gather(store, config()).withdrawal is None


def test_the_champion_that_a_rollback_went_back_to_was_not_rolled_back(store):
    keep(store, decision(), promoted=True)
    later = f"{DAY + dt.timedelta(days=1)}-{'7' * 16}"
    act(store, 3, "promote", later)
    act(store, 4, "rollback", VERSION)
    assert outcome_of(gather(store, config())) == "promoted"


@pytest.mark.parametrize("verdict", ["reject", "inconclusive"])
def test_a_promotion_against_the_gate_names_who_did_it(store, verdict):
    keep(store, decision(verdict=verdict), promoted=True)
    assert f"The gate said {verdict}; test promoted it on 2026-03-02 all the same." in text_of(gather(store, config()))
    act(store, 3, "rollback", CHAMPION)
    forced = " --force" if verdict == "reject" else ""
    assert f"deepfm promote {VERSION} --config M.toml --reason TEXT{forced} " in text_of(gather(store, config())) + " "


def test_a_hold_explains_why_a_cleared_version_was_not_promoted(store):
    keep(store, decision(compared_entry=2))
    act(store, 1, "promote", CHAMPION)
    act(store, 2, "hold", CHAMPION, held=True)
    text = text_of(gather(store, config()))
    assert "Cleared, not promoted: AUC" in text
    assert "Promotions have been on hold since 2026-03-02 by anna: clicks of a robot" in text


def of_findings(store: ObjectStore, *findings: Finding) -> str:
    facts = RunFacts(MODEL, store.url, DAY, None, holdout(*findings))
    return render(facts)


def test_information_is_no_rule_that_a_day_breaks(store):
    text = Page(of_findings(store, NEWS, finding())).text
    assert "Not used policy, price: not among the columns that the configuration names" in text
    assert "Every rule was kept: 1 rule" in text
    for word in ("column used", "breaks", "Warnings", "info"):
        assert word not in text


def test_other_information_has_its_name_and_column(store):
    told = finding(rule="new_values", severity="info", passed=False, observed="7 of 9")
    assert "New values item: 7 of 9" in Page(of_findings(store, told)).text
    assert "New values 7 of 9" in Page(of_findings(store, told.model_copy(update={"column": "*"}))).text


def test_broken_rules_warnings_and_kept_rules_differ_in_more_than_colour(store):
    warning = finding(rule="constant", severity="warning", passed=False)
    text = Page(of_findings(store, warning, finding())).text
    assert "Warnings, for which no day is refused" in text
    assert "at most 0.2 ! warning" in text
    assert "breaks Rule" not in text
    assert "1 rule kept Rule" in text
    assert "at most 0.2 ✓ kept" in text
    text = Page(of_findings(store, warning, finding(rule="ctr", passed=False), NEWS)).text
    assert "Rules that the day breaks Rule Observed Required Result ctr item" in text
    assert "at most 0.2 ✗ broken" in text
    assert "kept" not in text


GAPS = {0: None, 1: "The gap is crossed out.", 2: "The 2 gaps are crossed out."}


@pytest.mark.parametrize("count", GAPS)
def test_gaps_are_counted_where_there_are_any(store, count):
    window = manifest().window
    gap = window.gaps[0]
    gaps = [gap.model_copy(update={"logical_date": gap.logical_date - dt.timedelta(days=n)}) for n in range(count)]
    keep(store, decision(), drawn=curves())
    key = layout.version_manifest(MODEL, VERSION)
    window = window.model_copy(update={"gaps": tuple(gaps[::-1])})
    store.write(key, manifest().model_copy(update={"window": window}).to_bytes())
    text = text_of(gather(store, config()))
    assert (GAPS[count] or "is the holdout. Trained on") in text
    assert (" gap" in text) == bool(count)


def test_the_window_is_told_in_lines_and_its_table_is_folded(store):
    keep(store, decision(), drawn=curves())
    facts = gather(store, config())
    assert span_lines(facts) == [
        ("Trained on", "1 day, 2026-02-28: 780 impressions, 20 clicks, click-through rate 2.56 %"),
        ("Holdout", "2026-03-01: 1,000 impressions, 30 clicks, click-through rate 3.00 %"),
        ("Gaps", "1: 2026-02-27 (refused)"),
    ]
    page = render(facts)
    table = page.index('aria-label="Days of the window"')
    assert page.rindex("<details>", 0, table) > page.rindex("</details>", 0, table)
    assert "Each of the 3 days" in page


def test_of_many_gaps_the_first_are_named_and_the_others_counted(store):
    keep(store, decision())
    facts = gather(store, config())
    gap = facts.days[0]
    many = tuple(gap._replace(logical_date=DAY - dt.timedelta(days=30 - n), gap="missing") for n in range(9))
    (line,) = (value for name, value in span_lines(facts._replace(days=many)) if name == "Gaps")
    assert line.startswith("9: 2026-01-30 (missing), ")
    assert line.endswith("2026-02-04 (missing) and 3 more")


def test_a_number_and_its_unit_are_in_one_piece(store):
    keep(store, decision(reasons=("bounds at 95 % of it",)), drawn=curves())
    page = render(gather(store, config()))
    shown = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    apart = re.sub(r'<(span|td) class="(nowrap|number)">[^<]*</\1>', "", shown)
    assert '<span class="nowrap">95 %</span> of it' in shown
    assert re.findall(r"[\d.]+ %", apart.replace("one-sided at 95 %.", "").replace("95 % interval, errors", "")) == []


@pytest.mark.parametrize(
    ("share", "text"), [(0.0051, "0.510 %"), (0.5, "50.0 %"), (1.0, "100 %"), (0.0, "0.00 %"), (0.12345, "12.3 %")]
)
def test_percentages_of_a_column_have_the_same_number_of_figures(share, text):
    assert percent(share) == text


def test_the_top_of_the_page_leads_to_every_part_that_there_is(store):
    keep(store, decision(), drawn=curves(), promoted=True)
    other = DAY + dt.timedelta(days=1)
    keep_day(store, holdout(finding(passed=False), accepted=False).model_copy(update={"logical_date": other}))
    for date, parts in ((DAY, ["gate", "curves", "data", "days", "lineage", "next"]), (other, ["data", "next"])):
        tags = Page(render(gather(store, config(), logical_date=date))).tags
        assert [(attributes["href"] or "")[1:] for tag, attributes in tags if tag == "a"] == parts
        assert [attributes["id"] for tag, attributes in tags if tag == "section" and "id" in attributes] == parts


def test_a_command_breaks_between_its_words_alone(store):
    keep(store, decision())
    long = "s3://" + "x" * 60
    page = render(gather(store, config()), options=("--config", "M.toml", "--store", long))
    assert '<span class="nowrap">--reason</span> <span class="nowrap">TEXT</span>' in page
    assert f'<span class="nowrap">--store</span> {long}' in page


@pytest.mark.parametrize(("rate", "said"), [(0.5, "negatives kept at 0.5 or more"), (1.0, "every negative kept")])
def test_sampling_is_told_where_there_was_any(store, rate, said):
    keep(store, decision())
    window = manifest().window.model_copy(update={"keep_rate": rate})
    facts = gather(store, config())._replace(manifest=manifest().model_copy(update={"window": window}))
    assert f" clicks, {said} Fields" in text_of(facts)
