"""The plots of the report: what each of them shows, as inline SVG."""

import datetime as dt
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from deepfm.curves import CalibrationBin, Curves, ModelCurves
from deepfm.manifests import TrainingResult
from deepfm.report.drawing import BAD, CHALLENGER, CHAMPION, INK, MUTED, PAGE, draw
from deepfm.report.facts import DayFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_LOG_BELOW_RATE = 0.1
"""Click rates below it are drawn on log axes, where small ones have room."""
_TAILS = [10.0**e for e in range(-7, 0)]
_TICKS = [0.5, *_TAILS, *(1.0 - tail for tail in _TAILS), *(m * tail for m in (2, 5) for tail in _TAILS)]
"""Probabilities that a scale of scores may name, those to prefer first."""
_MAX_DATE_LABELS = 5
_STRAY_SHARE = 0.001
"""Scores at one end of the histogram that its axis may leave out, as a share of either class."""
T = TypeVar("T")


def learning_curve(training: TrainingResult) -> str:
    """Training loss above, held-back AUC below, with the step whose weights were kept."""
    steps = [point.step for point in training.curve]
    aucs = [(point.step, point.validation_auc) for point in training.curve if point.validation_auc is not None]

    def onto(figure: "Figure") -> None:
        panels = figure.subplots(2 if aucs else 1, 1, sharex=True, squeeze=False)[:, 0]
        marker = "o" if len(steps) <= 40 else None
        panels[0].plot(steps, [point.train_loss for point in training.curve], color=INK, marker=marker, markersize=3)
        panels[0].set_title("training loss", loc="left", color=INK)
        if aucs:
            panels[1].plot(*zip(*aucs, strict=True), color=CHALLENGER, marker=marker, markersize=3)
            panels[1].set_title("AUC on the held-back rows", loc="left", color=INK)
            best = dict(aucs).get(training.best_step)
            if best is not None:
                panels[1].plot([training.best_step], [best], "o", color=BAD, markersize=7, fillstyle="none")
        for panel in panels:
            panel.axvline(training.best_step, color=BAD, linewidth=1, linestyle=(0, (4, 3)))
            _few_ticks(panel.yaxis, 4)
        _few_ticks(panels[-1].xaxis, 5)
        panels[-1].set_xlabel(f"step (kept: {training.best_step:,})")

    label = f"Learning curve: training loss and held-back AUC over {training.steps} steps; kept: {training.best_step}"
    return draw("learning", label=label, height_inches=3.9 if aucs else 2.4, onto=onto)


def roc(curves: Curves) -> str:
    """Share of clicks found over share of negatives, as the threshold falls."""

    def onto(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for model, name, colour, style in _models(curves):
            x = np.array(model.roc_negatives) / model.roc_negatives[-1]
            axes.plot(x, np.array(model.roc_clicks) / model.roc_clicks[-1], style, color=colour, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        axes.set_xlabel("share of negatives at or above the threshold")
        axes.set_ylabel("share of clicks found")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_percent)
        _legend(axes)

    label = f"ROC on the holdout of {_names(curves)}; the diagonal is a guess"
    return draw("roc", label=label, height_inches=4.6, onto=onto)


def calibration(curves: Curves) -> str:
    """Click rate over mean score, bin by bin; on the diagonal a score says what happens."""
    challenger = curves.challenger
    log = challenger.roc_clicks[-1] / (challenger.roc_clicks[-1] + challenger.roc_negatives[-1]) < _LOG_BELOW_RATE
    bins = [b for model, *_ in _models(curves) for b in model.calibration]
    low, high = _ends(bins, log=log)

    def onto(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for model, name, colour, style in reversed(_models(curves)):
            _calibration_of(axes, model.calibration, name=name, colour=colour, floor=low, hollow=style != "-")
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        if log:
            _log_percent(axes)
        else:
            axes.xaxis.set_major_formatter(_percent)
            axes.yaxis.set_major_formatter(_percent)
        axes.set_xlabel("mean score")
        axes.set_ylabel("click rate")
        _legend(axes, reverse=True)

    label = f"Calibration of {_names(curves)}: click rate over mean score in bins of equal counts, with 95 % intervals"
    return draw("calibration", label=label, height_inches=4.6, onto=onto)


class ScoreBins(NamedTuple):
    """The bins of the challenger's scores that the histogram shows."""

    first: int
    """First bin shown."""
    stop: int
    """The one after the last."""
    rows: int
    """Scores in all bins."""
    outside: int
    """Scores in the bins that are not shown."""


def bins_shown(curves: Curves) -> ScoreBins:
    """The bins with nearly all scores: a few stray ones do not squeeze the others into a corner.

    At either end those are left out that together hold at most 0.1 % of each class, and where only the champion's lie.
    """
    classes = np.array([curves.challenger.negatives_by_score, curves.challenger.clicks_by_score])
    allowed = (_STRAY_SHARE * classes.sum(axis=1)).astype(int)[:, np.newaxis]
    left, right = (
        int(np.all(np.cumsum(counts, axis=1) <= allowed, axis=0).sum()) for counts in (classes, classes[:, ::-1])
    )
    stop, rows = classes.shape[1] - right, int(classes.sum())
    return ScoreBins(left, stop, rows, rows - int(classes[:, left:stop].sum()))


def score_histogram(curves: Curves) -> str:
    """Where the challenger's scores lie, for clicks and for negatives, each as a share of its class."""
    model, shown = curves.challenger, bins_shown(curves)
    edges = curves.logit_start + curves.logit_width * np.arange(shown.first, shown.stop + 1)
    classes = (("no click", model.negatives_by_score, MUTED, 0.4), ("click", model.clicks_by_score, CHALLENGER, 0.2))

    def onto(figure: "Figure") -> None:
        axes = figure.subplots()
        for name, counts, colour, alpha in classes:
            share = np.array(counts[shown.first : shown.stop]) / max(1, sum(counts))
            axes.stairs(share, edges, fill=True, color=colour, alpha=alpha, label=name)
            axes.stairs(share, edges, color=colour, linewidth=1.8 if name == "click" else 0.8)
        chances = _round_chances(edges[0], edges[-1])
        axes.set_xticks([_logit(chance) for chance in chances], [_percent(chance) for chance in chances])
        axes.yaxis.set_major_formatter(_percent)
        _few_ticks(axes.yaxis, 5)
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("score, on a scale of log-odds")
        axes.set_ylabel("share of the class")
        _legend(axes)

    ends = " to ".join(_percent(float(f"{_chance(edge):.2g}")) for edge in (edges[0], edges[-1]))
    label = f"Histogram of the challenger's scores from {ends}, for clicks and for impressions without one"
    return draw("scores", label=label, height_inches=3.9, onto=onto)


def window(days: Sequence[DayFigures]) -> str:
    """Click-through rate above, impressions below, day by day; gaps are crossed out and the holdout stands apart."""
    kept = [day for day in days if day.gap is None and day.rows]
    gaps = [day.logical_date for day in days if day.gap is not None]

    def onto(figure: "Figure") -> None:
        rates, bars = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
        rates.plot(*_run_of_rates(days), color=INK, marker="o", markersize=4)
        bars.bar(
            [_ordinal(day.logical_date) for day in kept],
            [day.rows for day in kept],
            width=0.72,
            color=[CHALLENGER if day.holdout else MUTED for day in kept],
        )
        for panel in (rates, bars):
            for date in gaps:
                panel.axvspan(_ordinal(date) - 0.5, _ordinal(date) + 0.5, color=BAD, alpha=0.16, linewidth=0)
            panel.grid(visible=False, axis="x")
            _few_ticks(panel.yaxis, 3)
        rates.set_ylim(0, 1.2 * max((day.clicks / day.rows for day in kept), default=1.0))
        for date in gaps:
            bars.plot([_ordinal(date)], [0.08], "x", color=BAD, markersize=7, transform=bars.get_xaxis_transform())
        rates.yaxis.set_major_formatter(_percent)
        bars.yaxis.set_major_formatter(_thousands)
        rates.set_title("click-through rate", loc="left", color=INK)
        bars.set_title("valid impressions", loc="left", color=INK)
        labels = _spread([day.logical_date for day in days], _MAX_DATE_LABELS)
        bars.set_xticks([_ordinal(date) for date in labels], [f"{date:%m-%d}" for date in labels])
        bars.set_xlim(_ordinal(days[0].logical_date) - 0.6, _ordinal(days[-1].logical_date) + 0.6)

    marked = "" if not gaps else ", 1 gap marked" if len(gaps) == 1 else f", {len(gaps)} gaps marked"
    label = f"Click-through rate and impressions of {len(kept)} days{marked}"
    return draw("window", label=label, height_inches=3.6, onto=onto)


def _models(curves: Curves) -> list[tuple[ModelCurves, str, str, str]]:
    found = [(curves.challenger, "challenger", CHALLENGER, "-")]
    return [*found, (curves.champion, "champion", CHAMPION, "--")] if curves.champion else found


def _names(curves: Curves) -> str:
    return " and ".join(name for _, name, *_ in _models(curves))


def _calibration_of(
    axes: "Axes", bins: Sequence[CalibrationBin], *, name: str, colour: str, floor: float, hollow: bool
) -> None:
    x = np.array([b.mean_score for b in bins])
    rates = np.maximum(floor, [b.click_rate for b in bins])
    low, high = np.maximum(floor, [b.low for b in bins]), np.array([b.high for b in bins])
    axes.vlines(x, low, high, color=colour, linewidth=1.4, alpha=0.55)
    face = PAGE if hollow else colour
    # A dot on an edge is drawn whole.
    axes.plot(x, rates, "o", color=colour, markersize=5, markerfacecolor=face, label=name, clip_on=False, zorder=3)


def _ends(bins: Sequence[CalibrationBin], *, log: bool) -> tuple[float, float]:
    """The same ends for both axes, so that the diagonal is one; on log axes a rate of 0 sits on the lower end."""
    top = max(max(b.high, b.mean_score) for b in bins)
    if not log:
        bottom = min(min(b.low, b.mean_score) for b in bins)
        room = 0.05 * max(top - bottom, 0.01)
        return max(0.0, bottom - room), min(1.0, top + room)
    positive = [value for b in bins for value in (b.mean_score, b.click_rate) if value > 0.0]
    return max(1e-7, 0.6 * min(positive)), min(1.0, 1.3 * top)


def _log_percent(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        decades = np.diff(np.log10(axis.get_view_interval()))[0]
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.2 else (1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(_percent)


def _few_ticks(axis: "Axis", most: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most))


def _legend(axes: "Axes", *, reverse: bool = False) -> None:
    above = (-0.02, 1.0)
    axes.legend(loc="lower left", bbox_to_anchor=above, ncols=3, borderaxespad=0.2, handlelength=1.6, reverse=reverse)


def _run_of_rates(days: Sequence[DayFigures]) -> tuple[list[int], list[float]]:
    """A gap breaks the line: nothing is known between its neighbours."""
    rates = [day.clicks / day.rows if day.rows else math.nan for day in days]
    return [_ordinal(day.logical_date) for day in days], rates


def _spread(values: Sequence[T], most: int) -> list[T]:
    """At most so many of the values, the last one among them, at equal steps."""
    step = math.ceil(len(values) / most) if values else 1
    return list(values[::-1][::step])[::-1]


def _round_chances(low: float, high: float) -> list[float]:
    """Probabilities to name between two log-odds, far enough apart for their labels: decades first, then 2 and 5."""
    chosen: list[float] = []
    for chance in _TICKS:
        place = _logit(chance)
        if low <= place <= high and all(abs(place - _logit(other)) > 0.14 * (high - low) for other in chosen):
            chosen.append(chance)
    return chosen or [float(f"{_chance((low + high) / 2):.3g}")]


def _ordinal(date: dt.date) -> int:
    return date.toordinal()


def _logit(chance: float) -> float:
    return math.log(chance) - math.log1p(-chance)


def _chance(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))


def _percent(value: float, _: object = None) -> str:
    return f"{100.0 * value:.6g} %"


def _thousands(value: float, _: object = None) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"
