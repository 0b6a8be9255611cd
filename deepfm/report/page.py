"""The page itself: facts become sentences, tables and plots in one HTML file that fetches nothing."""

import re
import shlex
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from deepfm.manifests import Decision
from deepfm.metrics import normal_quantile
from deepfm.report.facts import RunFacts
from deepfm.report.lines import broken_first, lineage_lines, news_lines, percent, span_lines, words
from deepfm.report.rules import rule_rows

if TYPE_CHECKING:
    from markupsafe import Markup

_BADGES = {
    "promoted": ("Promoted", "good"),
    "rolled_back": ("Rolled back", "bad"),
    "cleared": ("Cleared, not promoted", "open"),
    "reject": ("Rejected", "bad"),
    "inconclusive": ("Inconclusive", "open"),
    "refused": ("Refused", "bad"),
}


class Plot(NamedTuple):
    """One figure of the page."""

    title: str
    note: str
    svg: Any
    """Markup, or None where there is nothing to draw; the note says why."""


def outcome_of(facts: RunFacts) -> str:
    """`promoted`, `rolled_back`, `cleared` (not in the log), `reject`, `inconclusive` or `refused`."""
    if facts.decision is None:
        return "refused"
    if facts.withdrawal is not None:
        return "rolled_back"
    if facts.decision.verdict != "promote":
        return facts.decision.verdict
    return "promoted" if facts.entry is not None else "cleared"


def render(facts: RunFacts, *, options: Sequence[str] = ("--config", "M.toml")) -> str:
    """The whole page, the same for the same facts.

    Args:
        facts: What the store knows.
        options: The options that point a command at this model, such as `--config M.toml`.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_printable, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"count": "{:,}".format, "auc": "{:.4f}".format, "percent": percent}
    environment.filters |= {"words": words, "unbroken": _unbroken, "command": _command}
    template = environment.from_string(resources.files("deepfm.report").joinpath("page.html").read_text("utf-8"))
    outcome = outcome_of(facts)
    badge, tone = _BADGES[outcome]
    return template.render(
        facts=facts,
        decision=facts.decision,
        badge=badge,
        tone=tone,
        sentence=sentence_of(facts),
        story=_story(facts, outcome),
        rules=rule_rows(facts.decision, facts.limits) if facts.decision and facts.limits else (),
        learning=_learning(facts),
        on_holdout=_on_holdout(facts) if facts.decision else (),
        window=_window(facts),
        span=span_lines(facts),
        broken=broken_first(facts),
        news=news_lines(facts),
        kept=[f for f in facts.holdout.findings if f.passed] if facts.holdout else [],
        set_aside=[f for f in facts.holdout.findings if f.rule == "quarantined"] if facts.holdout else [],
        lineage=lineage_lines(facts),
        steps=_next_steps(facts, outcome, " ".join(shlex.quote(option) for option in options)),
    )


def sentence_of(facts: RunFacts) -> str:
    """What the verdict rests on, in one sentence; the word before it is the badge's."""
    if facts.withdrawal is not None:
        promoted = f"promoted on {facts.entry.created_utc:%F}, " if facts.entry else ""
        return f"{promoted}rolled back on {facts.withdrawal.created_utc:%F} by {facts.withdrawal.actor}."
    if facts.decision is not None:
        return _measured(facts.decision)
    broken = len(facts.holdout.broken) if facts.holdout else 0
    return (
        f"the clicks of {facts.logical_date} break {'1 rule' if broken == 1 else f'{broken} rules'}, so nothing was "
        "trained or judged on them and the champion stays."
    )


def _story(facts: RunFacts, outcome: str) -> list[str]:
    """What else there is to say of the verdict: what it was before, and what people did."""
    decision, entry = facts.decision, facts.entry
    told = []
    if outcome == "rolled_back" and decision is not None and facts.withdrawal is not None:
        told = [f"Reason given: {facts.withdrawal.reason}", _measured(decision)]
    if entry is not None and decision is not None and decision.verdict != "promote":
        told.append(
            f"The gate said {decision.verdict}; {entry.actor} promoted it on {entry.created_utc:%F} all the same."
        )
    if outcome == "cleared" and facts.hold is not None:
        hold = facts.hold
        told.append(f"Promotions have been on hold since {hold.created_utc:%F} by {hold.actor}: {hold.reason}")
    return told


def _measured(decision: Decision) -> str:
    z, ours = normal_quantile(0.975), decision.challenger
    rows = f"{ours.rows:,} impressions of {decision.logical_date}"
    if decision.champion is not None and decision.comparison is not None:
        difference = decision.comparison
        return (
            f"AUC {ours.auc:.4f} against {decision.champion.auc:.4f} of the champion on {rows}; "
            f"difference {difference.difference:+.4f} ± {z * difference.error:.4f}."
        )
    alone = "the champion could not be scored on them" if decision.compared_entry else "there was no champion to beat"
    return f"AUC {ours.auc:.4f} ± {z * ours.auc_error:.4f} on {rows}; {alone}."


def _learning(facts: RunFacts) -> Plot:
    from markupsafe import Markup

    from deepfm.report.plots import learning_curve

    title = "Learning curve"
    if facts.training is None:
        return Plot(title, "The record of this training is no longer in the store.", None)
    if not facts.training.curve:
        return Plot(title, "The training ended before its first check.", None)
    note = (
        f"{facts.training.steps:,} of {facts.training.planned_steps:,} planned steps of {facts.training.batch_size:,} "
        f"rows on {facts.training.device}; the dashed line marks the step whose weights were kept."
    )
    return Plot(title, note, Markup(learning_curve(facts.training)))  # noqa: S704 - drawn here; holds no text of others


def _on_holdout(facts: RunFacts) -> tuple[Plot, ...]:
    from markupsafe import Markup

    from deepfm.report import plots

    if facts.curves is None:
        return (Plot("Curves", "They were not kept when this was decided, so there is nothing to draw.", None),)
    calibration = (
        "Bins of equal counts with 95 % intervals, rows taken as independent. On the diagonal a score is what happens."
    )
    models = [model for model in (facts.curves.challenger, facts.curves.champion) if model]
    if any(not part.clicks for model in models for part in model.calibration):
        calibration += " A dot on the bottom edge had no click."
    shown = plots.bins_shown(facts.curves)
    scores = "Where the challenger's scores lie; each class adds up to 100 %."
    if shown.outside:
        scores += f" {shown.outside:,} of {shown.rows:,} scores lie beyond the ends of the axis."
    drawn = (
        ("Scores", scores, plots.score_histogram),
        ("ROC", "Exact at up to 200 thresholds. The dashed diagonal is a guess.", plots.roc),
        ("Calibration", calibration, plots.calibration),
    )
    return tuple(Plot(title, note, Markup(plot(facts.curves))) for title, note, plot in drawn)  # noqa: S704 - as above


def _window(facts: RunFacts) -> Plot | None:
    from markupsafe import Markup

    from deepfm.report.plots import window

    if not facts.days:
        return None
    gaps = sum(day.gap is not None for day in facts.days)
    crossed = {0: "", 1: " The gap is crossed out."}.get(gaps, f" The {gaps} gaps are crossed out.")
    note = f"The last day, in another colour, is the holdout.{crossed}"
    return Plot("Window and holdout", note, Markup(window(facts.days)))  # noqa: S704 - as above


def _next_steps(facts: RunFacts, outcome: str, options: str) -> list[tuple[str, str]]:
    decision, date = facts.decision, facts.logical_date
    version = decision.version if decision else ""
    is_champion = facts.head is not None and facts.head.version == version
    run = ("Run the same date again: a delivery that changed is judged anew", f"deepfm run {options} --date {date}")
    if outcome == "refused":
        return [run, ("See what the days before and after look like", f"deepfm status {options}")]
    force = " --force" if decision and decision.verdict == "reject" else ""
    promote = ("Promote it all the same", f"deepfm promote {version} {options} --reason TEXT{force}")
    if is_champion:
        return [
            ("Fetch the model file", f"deepfm pull {options}"),
            ("Go back to the champion before", f"deepfm rollback {options} --reason TEXT"),
        ]
    if outcome == "promoted":
        return [
            ("See what followed it", f"deepfm history {options}"),
            ("Go back to it", f"deepfm rollback --to {version} {options} --reason TEXT"),
        ]
    if outcome == "rolled_back":
        return [("See what followed it", f"deepfm history {options}"), ("Promote it again", promote[1])]
    return [run, promote] if outcome != "cleared" else [("Gate it again and promote it", run[1]), promote]


def _printable(value: object) -> object:
    """Text of others without control characters; what is markup already stays as it is."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return "".join(c if c.isprintable() else " " for c in value)
    return value


def _unbroken(text: str) -> "Markup":
    """The text with dates, errors and percentages in one piece: a line may not end inside them."""
    return _in_one_piece(text, r"\d{4}-\d{2}-\d{2}(?![\w-])|click-through|\S+ ± [\d.]*\d|[\d.]+ %")


def _command(text: str) -> "Markup":
    """A command whose dates and options are in one piece; what is longer than a phone is wide has to break."""
    return _in_one_piece(text, r"(?<!\S)\S{1,36}(?!\S)")


def _in_one_piece(text: str, piece: str) -> "Markup":
    from markupsafe import Markup, escape

    return Markup(re.sub(f"({piece})", r'<span class="nowrap">\1</span>', str(escape(_printable(text)))))  # noqa: S704
