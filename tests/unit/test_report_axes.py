"""The axes of the report's plots follow the data: nothing is squeezed into a corner, and nothing vanishes unsaid."""

import datetime as dt
import re

import pytest

from deepfm.curves import Curves, ModelCurves
from deepfm.report import plots
from deepfm.report.facts import DayFigures, RunFacts
from deepfm.report.page import render
from tests.factories import DAY, MODEL
from tests.page_reader import Page
from tests.reported_runs import curves, decision


def labels_of(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def with_scores(negatives: list[int], clicks: list[int], *, start: float = -7.0, width: float = 0.5) -> Curves:
    """Curves whose challenger's histogram is this one."""
    base = curves(models=1)
    model = base.challenger.model_copy(
        update={"negatives_by_score": tuple(negatives), "clicks_by_score": tuple(clicks)}
    )
    return base.model_copy(update={"logit_start": start, "logit_width": width, "challenger": model})


def stray() -> Curves:
    """Eight thousand scores below two per cent, and two at the other end, as models have given them."""
    negatives = [2, 1353, 5040, 1452, 378, *[0] * 13, 1, *[0] * 13, 1]
    return with_scores(negatives, [0, 5, 26, 7, 4, *[0] * 28])


def test_a_few_stray_scores_do_not_stretch_the_axis_and_are_counted():
    drawn = stray()
    assert plots.bins_shown(drawn) == plots.ScoreBins(first=1, stop=5, rows=8269, outside=4)
    svg = plots.score_histogram(drawn)
    assert "99 %" not in labels_of(svg)
    assert "1 %" in labels_of(svg)
    assert "scores from 0.15 % to 1.1 %" in svg
    text = Page(render(RunFacts(MODEL, "", DAY, None, None, decision=decision(), curves=drawn))).text
    assert "4 of 8,269 scores lie beyond the ends of the axis." in text


@pytest.mark.parametrize(
    ("negatives", "clicks", "shown"),
    [
        ([5, 5, 5], [0, 1, 2], (0, 3, 18, 0)),
        ([0, 0, 9, 9, 0], [0, 0, 1, 1, 0], (2, 4, 20, 0)),
        ([1000, 0, 0, 1], [0, 0, 0, 1], (0, 4, 1002, 0)),
        ([1000, 0, 0, 1], [0, 1, 0, 0], (0, 2, 1002, 1)),
        ([999, 0, 0, 1], [0, 1, 0, 0], (0, 2, 1001, 1)),
        ([998, 0, 0, 1], [0, 1, 0, 0], (0, 4, 1000, 0)),
        ([1, 0, 0], [1, 0, 0], (0, 1, 2, 0)),
    ],
)
def test_at_most_a_thousandth_of_either_class_is_left_out_at_an_end(negatives, clicks, shown):
    assert plots.bins_shown(with_scores(negatives, clicks)) == shown


def test_where_all_scores_are_shown_nothing_is_said_of_others():
    text = Page(
        render(RunFacts(MODEL, "", DAY, None, None, decision=decision(), curves=with_scores([5, 5], [1, 1])))
    ).text
    assert "each class adds up to 100 %." in text
    assert "beyond the ends" not in text


def with_calibration(scores: list[float], rates: list[float], reach: float) -> ModelCurves:
    base = curves(models=1).challenger
    bins = [
        base.calibration[0].model_copy(
            update={
                "mean_score": score,
                "rows": 1000,
                "clicks": round(1000 * rate),
                "low": max(0.0, rate - reach),
                "high": min(1.0, rate + reach),
            }
        )
        for score, rate in zip(scores, rates, strict=True)
    ]
    return base.model_copy(update={"calibration": tuple(bins), "roc_negatives": (0, 500), "roc_clicks": (0, 500)})


def percents(svg: str) -> list[float]:
    return [float(label.split()[0]) for label in labels_of(svg) if re.fullmatch(r"[\d.]+ %", label)]


@pytest.mark.parametrize(
    ("scores", "rates", "least", "most"),
    [
        ([0.4, 0.5, 0.6], [0.42, 0.5, 0.58], 35.0, 65.0),
        ([0.0, 0.2], [0.01, 0.22], 0.0, 30.0),
        ([0.9], [1.0], 85.0, 100.0),
    ],
)
def test_calibration_is_drawn_where_its_dots_are(scores, rates, least, most):
    model = with_calibration(scores, rates, 0.03)
    named = percents(plots.calibration(curves(models=1).model_copy(update={"challenger": model})))
    assert len(named) >= 4
    assert least <= min(named) < max(named) <= most


def test_the_edge_is_explained_where_a_bin_had_no_click():
    for rates, said in (([0.0, 0.5], True), ([0.1, 0.5], False)):
        drawn = curves(models=1).model_copy(update={"challenger": with_calibration([0.2, 0.5], rates, 0.05)})
        text = Page(render(RunFacts(MODEL, "", DAY, None, None, decision=decision(), curves=drawn))).text
        assert ("A dot on the bottom edge had no click." in text) == said


def test_a_dot_on_the_edge_is_drawn_whole():
    drawn = curves(models=1).model_copy(update={"challenger": with_calibration([0.2, 0.5], [0.0, 0.5], 0.05)})
    dots = re.findall(r"<use [^>]*challenger[^>]*>|<g clip-path[^>]*>\s*<use", plots.calibration(drawn))
    assert not [dot for dot in dots if dot.startswith("<g clip-path")]


def test_a_window_without_gaps_does_not_speak_of_them():
    days = [DayFigures(DAY, 1000, 10), DayFigures(DAY + dt.timedelta(days=1), 1000, 10, holdout=True)]
    assert 'aria-label="Click-through rate and impressions of 2 days"' in plots.window(days)


@pytest.mark.parametrize(("models", "names"), [(1, "challenger"), (2, "challenger and champion")])
def test_those_who_do_not_see_a_plot_are_told_whose_it_is(models, names):
    drawn = curves(models=models)
    assert f'aria-label="ROC on the holdout of {names};' in plots.roc(drawn)
    assert f'aria-label="Calibration of {names}:' in plots.calibration(drawn)
