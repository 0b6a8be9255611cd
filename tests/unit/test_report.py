"""The report: what it says of every kind of run, that it fetches nothing, and that nobody's text becomes markup."""

import datetime as dt
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm import layout
from deepfm.config import GateConfig
from deepfm.errors import IntegrityError, NotFoundError
from deepfm.evaluation.gate import judge
from deepfm.manifests import Comparison, CurvePoint, Decision
from deepfm.report import plots
from deepfm.report.facts import DayFigures, RunFacts, gather
from deepfm.report.page import outcome_of, render
from deepfm.report.rules import rule_rows
from deepfm.storage import ObjectStore, open_store
from tests import factories
from tests.factories import DAY, MODEL, VERSION
from tests.page_reader import Page
from tests.reported_runs import CHAMPION, config, curves, decision, finding, holdout, keep, keep_day, training

HOSTILE = '<script>alert(1)</script><img src=x onerror="x">\x1b[31m\u202e'


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(f"file://{tmp_path}/store")


def facts_of(store: ObjectStore, made: Decision, **kept) -> RunFacts:
    keep(store, made, **kept)
    return gather(store, config())


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_a_promotion_is_told_in_the_order_that_questions_come(store):
    page = render(facts_of(store, decision(), drawn=curves(), promoted=True), options=("--config", "a b.toml"))
    text = Page(page).text
    assert "Promoted: AUC 0.7000 against 0.6900 of the champion on 1,000 impressions of 2026-03-01" in text
    assert "difference +0.0100 ± 0.0078" in text
    assert headings(page) == [
        "Gate",
        "Reasons",
        "Training and holdout",
        "Figures on the holdout",
        f"Data of {DAY}",
        "Days",
        "Lineage",
        "What to do next",
    ]
    for words in (
        "Not significantly worse gate.confidence upper bound of the difference +0.0166 at least 0 ✓ passed",
        "Reasons first run Training and holdout",
        "Compared with 2026-02-28-9999999999999999, log entry 1",
        "Log entry 2, 2026-03-02 04:05 UTC, by test",
        "Champion as this was written this version, log entry 2",
        "1,020 rows in 1 file",
        "refused ctr of the day: ctr 0.9",
        "log-odds -0.6931 (keep rate 0.5, weight of a click 1)",
        "deepfm rollback --config 'a b.toml' --reason TEXT",
    ):
        assert words in text
    labels = [attributes["aria-label"] for tag, attributes in Page(page).tags if tag == "svg"]
    assert len(labels) == 5
    assert all(labels)


def test_a_page_fetches_nothing_and_runs_nothing(store):
    page = render(facts_of(store, decision(), drawn=curves(), promoted=True))
    parsed = Page(page)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "image"}
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"@import|url\((?!#)", page)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        if (target := attributes.get("href") or "#").startswith("#"):
            assert target == "#" or target[1:] in ids
        else:
            pytest.fail(f"a link leads to {target}")


def test_the_same_facts_are_the_same_bytes(store):
    facts = facts_of(store, decision(), drawn=curves(), promoted=True)
    assert render(facts) == render(facts)


def test_nobody_writes_markup_or_control_characters_into_a_page(store):
    report = holdout(finding(column=HOSTILE, passed=False, observed=HOSTILE), finding(column=HOSTILE, required=HOSTILE))
    facts = facts_of(store, decision(reasons=(HOSTILE,)), drawn=curves(), promoted=True)
    assert facts.entry is not None
    facts = facts._replace(holdout=report, store=HOSTILE, entry=facts.entry.model_copy(update={"actor": HOSTILE}))
    page = render(facts, options=("--config", HOSTILE))
    parsed = Page(page)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert "img" not in {tag for tag, _ in parsed.tags}
    assert parsed.text.count("<script>alert(1)</script>") >= 6
    assert not [c for c in page if not c.isprintable() and c != "\n"]


def test_a_rejection_names_the_rule_and_the_way_round_it(store):
    made = decision(verdict="reject", comparison=Comparison(difference=-0.02, error=0.004))
    facts = facts_of(store, made, drawn=curves())
    text = Page(render(facts)).text
    assert outcome_of(facts) == "reject"
    assert "Rejected: AUC" in text
    assert "difference -0.0200 at least -0.0050 ✗ failed" in text
    assert f"deepfm promote {VERSION} --config M.toml --reason TEXT --force" in text


def test_a_first_run_has_no_champion_to_show(store):
    made = factories.decision().model_copy(update={"verdict": "inconclusive", "gate_key": decision().gate_key})
    page = render(facts_of(store, made, drawn=curves(models=1)))
    text = Page(page).text
    assert "Inconclusive: AUC 0.7000 ± 0.0196 on 1,000 impressions of 2026-03-01; there was no champion" in text
    assert "Compared with no version" in text
    assert ">champion<" not in page


def test_a_champion_that_could_not_be_scored_leaves_the_comparison_open(store):
    made = decision(verdict="inconclusive", champion=None, comparison=None)
    text = Page(render(facts_of(store, made, drawn=curves(models=1)))).text
    assert "the champion could not be scored on them" in text
    assert "the champion of log entry 1 could not be scored on this day" in text
    assert "? cannot tell" in text


def test_a_cleared_version_that_is_not_in_the_log_does_not_pass_for_promoted(store):
    facts = facts_of(store, decision(), drawn=curves())
    assert outcome_of(facts) == "cleared"
    assert "Cleared, not promoted: AUC" in Page(render(facts)).text


def test_a_promotion_that_was_followed_by_another_says_who_is_champion(store):
    facts = facts_of(store, decision(), promoted=True)
    facts = facts._replace(head=factories.entry(3).model_copy(update={"version": CHAMPION}))
    text = Page(render(facts)).text
    assert f"Champion as this was written {CHAMPION}, log entry 3" in text
    assert f"deepfm rollback --to {VERSION}" in text


def test_a_decision_from_before_curves_were_kept_is_otherwise_whole(store):
    page = render(facts_of(store, decision(), promoted=True))
    text = Page(page).text
    assert "They were not kept when this was decided" in text
    assert "✓ passed" in text
    assert "1,020 rows in 1 file" in text
    assert [tag for tag, _ in Page(page).tags].count("svg") == 2


def test_under_another_gate_the_limits_of_an_old_decision_are_not_made_up(store):
    keep(store, decision(gate_key="0" * 16))
    facts = gather(store, config())
    text = Page(render(facts)).text
    assert (facts.limits, facts.holdout) == (None, None)
    assert "its limits were not kept then" in text
    assert "Which delivery of the day was judged is no longer known" in text


def test_the_limits_that_decided_are_shown_whatever_the_configuration_is_now(store):
    keep(store, decision(gate_key="0" * 16), drawn=curves())
    facts = gather(store, config())
    assert facts.limits == config().gate
    assert facts.holdout is not None


def test_limits_of_another_release_are_told_from_ours(store):
    strange = curves().model_copy(update={"gate": {"policy": "lenient", "invented": 1.0}})
    assert facts_of(store, decision(), drawn=strange).limits is None


def test_what_has_been_cleared_away_is_said_and_the_rest_is_shown(store):
    keep(store, decision(), drawn=curves(), whole=False)
    text = Page(render(gather(store, config()))).text
    assert "The record of this training is no longer in the store." in text
    assert "Manifest no longer in the store" in text


def test_a_refused_day_has_a_report_of_the_rules_that_it_broke(store):
    keep(store, decision())
    other = DAY + dt.timedelta(days=1)
    broken = finding(passed=False, observed="null_share 0.9")
    news = broken.model_copy(
        update={"rule": "quarantined", "column": "*", "severity": "info", "observed": "x on 20 rows"}
    )
    report = holdout(finding(rule="constant", severity="warning", passed=False), broken, news, accepted=False)
    keep_day(store, report.model_copy(update={"logical_date": other}))
    facts = gather(store, config(), logical_date=other)
    page = render(facts)
    text = Page(page).text
    assert "Refused: the clicks of 2026-03-02 break 1 rule, so nothing was trained" in text
    assert text.index("null_share 0.9") < text.index("constant")
    assert "20 rows: x on 20 rows" in text
    assert headings(page) == [f"Data of {other}", "What to do next"]
    assert gather(store, config()).logical_date == DAY


def test_a_day_that_was_accepted_in_the_end_is_not_shown_as_refused(store):
    keep_day(store, holdout(accepted=False).model_copy(update={"key": "0" * 16}))
    keep_day(store, holdout())
    with pytest.raises(NotFoundError, match="nothing was decided on 2026-03-01: there is no decision yet"):
        gather(store, config(), logical_date=DAY)


def test_of_several_decisions_the_one_that_was_promoted_counts_then_the_present_gate(store):
    keep(store, decision(gate_key="f" * 16, compared_entry=7))
    assert gather(store, config()).decision == decision(gate_key="f" * 16, compared_entry=7)
    keep(store, decision(compared_entry=3))
    assert gather(store, config()).decision == decision(compared_entry=3)
    keep(store, decision(gate_key="a" * 16), promoted=True)
    assert gather(store, config()).decision == decision(gate_key="a" * 16)


def test_without_a_date_the_newest_decision_is_meant(store):
    older = f"{DAY - dt.timedelta(days=3)}-{'8' * 16}"
    keep(store, decision())
    made = decision(version=older, logical_date=layout.version_date(older), compared_entry=9)
    keep(store, made, whole=False)
    assert gather(store, config()).logical_date == DAY
    assert gather(store, config(), version=older).decision == made
    assert gather(store, config(), logical_date=layout.version_date(older)).decision == made


def test_what_is_not_there_is_answered_by_what_is(store):
    with pytest.raises(NotFoundError, match="nothing was decided on clicks: there is no decision yet"):
        gather(store, config())
    keep(store, decision())
    with pytest.raises(NotFoundError, match="on 2031-01-01: there is one on 2026-03-01"):
        gather(store, config(), logical_date=dt.date(2031, 1, 1))
    with pytest.raises(NotFoundError, match=f"of that date there is {VERSION}"):
        gather(store, config(), version=f"{DAY}-{'0' * 16}")


def test_a_damaged_document_is_named_and_not_left_out(store):
    keep(store, decision(), drawn=curves())
    (key,) = (found.key for found in store.list(layout.model_prefix(MODEL)) if found.key.endswith(layout.CURVES_FILE))
    store.write(key, b"{}")
    with pytest.raises(IntegrityError, match=r"Curves is damaged.*curves\.json"):
        gather(store, config())


around_the_floor = st.floats(0.5, 0.6)
small = st.floats(0, 0.03)
ratios = st.just(1.0) | st.floats(0.5, 2)


@settings(max_examples=300)
@given(
    figures=st.fixed_dictionaries(
        {
            "auc": around_the_floor,
            "auc_error": small,
            "clicks": st.integers(1, 25),
            "calibration_ratio": st.floats(0.5, 2),
        }
    ),
    ahead=st.none() | st.integers(-12, 4).map(lambda thousandths: thousandths / 1000),
    error=st.sampled_from([0.0, 0.001, 0.003, 0.02]),
    obstacle=st.booleans(),
)
def test_the_rows_of_the_table_say_what_the_gate_decides(figures, ahead, error, obstacle):
    limits = GateConfig()
    challenger = decision().challenger.model_copy(update=figures | {"rows": 100})
    champion = challenger.model_copy(update={"auc": challenger.auc - ahead}) if ahead is not None else None
    comparison = Comparison(difference=ahead, error=error) if ahead is not None else None
    stopped = "It cannot be compared." if obstacle and champion is None else None
    result = judge(challenger=challenger, champion=champion, comparison=comparison, config=limits, obstacle=stopped)
    made = decision(
        challenger=challenger, champion=champion, comparison=comparison, compared_entry=1 if champion or stopped else 0
    )
    outcomes = {row.outcome for row in rule_rows(made, limits)}
    expected = "reject" if "failed" in outcomes else "inconclusive" if "undecided" in outcomes else "promote"
    assert result.verdict == expected


def days(count: int) -> list[DayFigures]:
    first = dt.date(2025, 12, 1)
    return [DayFigures(first + dt.timedelta(days=n), 1000, 10, holdout=n == count - 1) for n in range(count)]


def labels_of(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize("count", [1, 2, 8, 366])
def test_a_window_of_any_length_has_few_date_labels_and_the_holdout_among_them(count):
    labels = [label for label in labels_of(plots.window(days(count))) if re.fullmatch(r"\d\d-\d\d", label)]
    assert 1 <= len(labels) <= 5
    assert labels[-1] == f"{days(count)[-1].logical_date:%m-%d}"


def test_a_window_of_gaps_alone_can_be_drawn():
    gap = DayFigures(DAY, 0, 0, gap="missing")
    assert "1 gap marked" in plots.window([gap, DayFigures(DAY + dt.timedelta(days=1), 0, 0, holdout=True)])


def test_a_training_without_held_back_rows_shows_its_loss_alone():
    svg = plots.learning_curve(training(CurvePoint(step=20, train_loss=0.5, learning_rate=0.1)))
    assert "training loss" in svg
    assert "held-back rows" not in labels_of(svg)
    assert "AUC on the held-back rows" in labels_of(plots.learning_curve(training()))


def test_small_click_rates_are_drawn_on_log_axes_and_large_ones_are_not():
    small = curves()
    assert "1 %" in labels_of(plots.calibration(small))
    clicked = small.challenger.model_copy(update={"roc_negatives": (0, 30), "roc_clicks": (0, 970)})
    assert "0 %" in labels_of(plots.calibration(small.model_copy(update={"challenger": clicked})))


@pytest.mark.parametrize(
    ("low", "high", "fewest"), [(-9, -2, 3), (-7.8, -2.4, 3), (-3, 3, 3), (-16, 16, 4), (-5, -4.5, 1), (-4.7, -4.69, 1)]
)
def test_scores_of_any_range_have_round_labels_with_room_between_them(low, high, fewest):
    model = curves(models=1)
    width = (high - low) / len(model.challenger.clicks_by_score)
    svg = plots.score_histogram(model.model_copy(update={"logit_start": low, "logit_width": width}))
    places = [float(x) for x in re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>[\d.]+ %</text>', svg.partition("ytick")[0])]
    assert len(places) >= fewest
    assert all(after - before > 36 for before, after in zip(sorted(places), sorted(places)[1:], strict=False))


def test_plots_take_their_colours_and_fonts_from_the_page():
    svg = plots.roc(curves())
    assert not re.search(r"#[0-9a-f]{6}", svg)
    assert "font-family" not in svg
    assert "stroke: var(--champion)" in svg


@pytest.mark.parametrize("home", [None, "/proc/nowhere", "/dev/null"])
def test_a_user_without_a_home_gets_plots_and_no_warning(home):
    code = (
        "import os, logging; logging.basicConfig()\n"
        "import datetime as dt; from deepfm.report.facts import DayFigures; from deepfm.report.plots import window\n"
        "print(len(window([DayFigures(dt.date(2026, 3, 1), 9, 1)])) > 5000, 'MPLCONFIGDIR' in os.environ)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"HOME", "MPLCONFIGDIR"}}
    environment |= {} if home is None else {"HOME": home}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True False\n", "")
