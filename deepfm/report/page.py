"""The page itself: facts become sentences, tables and plots in one HTML file that fetches nothing."""

import math
import re
import shlex
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from deepfm import layout
from deepfm.manifests import Decision, Finding
from deepfm.metrics import normal_quantile
from deepfm.report.facts import RunFacts
from deepfm.report.rules import rule_rows

if TYPE_CHECKING:
    from markupsafe import Markup

_BADGES = {
    "promoted": ("Promoted", "good"),
    "cleared": ("Cleared, not promoted", "open"),
    "reject": ("Rejected", "bad"),
    "inconclusive": ("Inconclusive", "open"),
    "refused": ("Refused", "bad"),
}
_SEVERITIES = ("critical", "warning", "info")


class Plot(NamedTuple):
    """One figure of the page."""

    title: str
    note: str
    svg: Any
    """Markup, or None where there is nothing to draw; the note says why."""


def outcome_of(facts: RunFacts) -> str:
    """`promoted`, `cleared` (not in the log), `reject`, `inconclusive` or `refused`."""
    if facts.decision is None:
        return "refused"
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
    environment.filters |= {"count": "{:,}".format, "auc": "{:.4f}".format, "percent": _percent}
    environment.filters |= {"words": _words, "unbroken": _unbroken}
    template = environment.from_string(resources.files("deepfm.report").joinpath("page.html").read_text("utf-8"))
    outcome = outcome_of(facts)
    badge, tone = _BADGES[outcome]
    return template.render(
        facts=facts,
        decision=facts.decision,
        badge=badge,
        tone=tone,
        sentence=sentence_of(facts),
        rules=rule_rows(facts.decision, facts.limits) if facts.decision and facts.limits else (),
        learning=_learning(facts),
        on_holdout=_on_holdout(facts) if facts.decision else (),
        window=_window(facts),
        broken=_broken_first(facts),
        kept=[f for f in facts.holdout.findings if f.passed] if facts.holdout else [],
        set_aside=[f for f in facts.holdout.findings if f.rule == "quarantined"] if facts.holdout else [],
        lineage=_lineage(facts) if facts.decision else (),
        steps=_next_steps(facts, outcome, " ".join(shlex.quote(option) for option in options)),
    )


def sentence_of(facts: RunFacts) -> str:
    """What the verdict rests on, in one sentence; the word before it is the badge's."""
    if facts.decision is not None:
        return _measured(facts.decision)
    broken = len(facts.holdout.broken) if facts.holdout else 0
    return (
        f"the clicks of {facts.logical_date} break {'1 rule' if broken == 1 else f'{broken} rules'}, so nothing was "
        "trained or judged on them and the champion stays."
    )


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
        "Bins of equal counts with 95 % intervals, rows taken as independent. On the diagonal a score is what happens. "
        "A dot on the bottom edge had no click."
    )
    drawn = (
        ("ROC", "Exact at up to 200 thresholds. The dashed diagonal is a guess.", plots.roc),
        ("Calibration", calibration, plots.calibration),
        ("Scores", "Where the challenger's scores lie; each class adds up to 100 %.", plots.score_histogram),
    )
    return tuple(Plot(title, note, Markup(plot(facts.curves))) for title, note, plot in drawn)  # noqa: S704 - as above


def _window(facts: RunFacts) -> Plot | None:
    from markupsafe import Markup

    from deepfm.report.plots import window

    if not facts.days:
        return None
    gaps = sum(day.gap is not None for day in facts.days)
    trained = sum(day.gap is None and not day.holdout for day in facts.days)
    crossed = "1 gap is" if gaps == 1 else f"{gaps} gaps are"
    note = f"{trained} days trained, the last one is the holdout; {crossed} crossed out."
    return Plot("Window and holdout", note, Markup(window(facts.days)))  # noqa: S704 - as above


def _broken_first(facts: RunFacts) -> list[Finding]:
    findings = facts.holdout.findings if facts.holdout else ()
    broken = [finding for finding in findings if not finding.passed and finding.rule != "quarantined"]
    return sorted(broken, key=lambda finding: _SEVERITIES.index(finding.severity))


def _lineage(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    decision, manifest = facts.decision, facts.manifest
    if decision is None:
        return ()
    against = f"{decision.champion.version}, log entry {decision.compared_entry}" if decision.champion else "no version"
    if decision.champion is None and decision.compared_entry:
        against = f"log entry {decision.compared_entry}, whose version could not be scored"
    rows = [("Version", decision.version), ("Compared with", against)]
    if facts.entry is not None:
        entry = facts.entry
        rows.append(("Log entry", f"{entry.sequence}, {entry.created_utc:%Y-%m-%d %H:%M} UTC, by {entry.actor}"))
    if facts.head is not None:
        now = "this version" if facts.head.version == decision.version else facts.head.version
        rows.append(("Champion as this was written", f"{now}, log entry {facts.head.sequence}"))
    rows.append(("Gate and holdout", f"key {decision.gate_key}"))
    if manifest is None:
        return (*rows, ("Manifest", "no longer in the store"))
    window = manifest.window
    model_file = manifest.files.get(layout.MODEL_FILE)
    kept = f"{window.sampled_rows:,} rows, {window.clicks:,} clicks, negatives kept at {window.keep_rate:.4g} or more"
    rows += [
        ("Model file", f"{model_file.size_bytes:,} bytes, sha256 {model_file.sha256}" if model_file else "none"),
        ("Trained on", kept),
        ("Fields", ", ".join(f"{spec.name} ({_kind(spec.name, facts)})" for spec in manifest.inputs)),
        ("Prior correction", _correction(facts)),
        ("Needs", f"onnxruntime {manifest.minimum_onnxruntime} or newer"),
    ]
    return tuple(rows)


def _kind(name: str, facts: RunFacts) -> str:
    sizes = facts.manifest.window.vocabulary_sizes if facts.manifest else {}
    return f"{sizes[name]:,} ids" if name in sizes else "numeric"


def _correction(facts: RunFacts) -> str:
    if facts.manifest is None:
        return "unknown"
    w, c, focal = facts.manifest.keep_rate, facts.manifest.pos_weight, facts.manifest.focal
    shift = f"log-odds {math.log(w / c):+.4f} (keep rate {w:.4g}, weight of a click {c:.4g})"
    return f"{shift}, after the inverse of focal loss {focal[0]:g}, {focal[1]:g}" if focal else shift


def _next_steps(facts: RunFacts, outcome: str, options: str) -> list[tuple[str, str]]:
    decision, date = facts.decision, facts.logical_date
    version = decision.version if decision else ""
    is_champion = facts.head is not None and facts.head.version == version
    run = ("Run the same date again: a delivery that changed is judged anew", f"deepfm run {options} --date {date}")
    if outcome == "refused":
        return [run, ("See what the days before and after look like", f"deepfm status {options}")]
    promote = ("Promote it all the same", f"deepfm promote {version} {options} --reason TEXT")
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
    if outcome == "reject":
        promote = (promote[0], f"{promote[1]} --force")
    return [run, promote] if outcome != "cleared" else [("Gate it again and promote it", run[1]), promote]


def _printable(value: object) -> object:
    """Text of others without control characters; what is markup already stays as it is."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return "".join(c if c.isprintable() else " " for c in value)
    return value


def _percent(value: float) -> str:
    return f"{100.0 * value:.3g} %"


def _unbroken(text: str) -> "Markup":
    """The text with dates and errors in one piece: a line may not end inside them."""
    from markupsafe import Markup, escape

    piece = r"\d{4}-\d{2}-\d{2}|\S+ ± [\d.]*\d"
    return Markup(re.sub(f"({piece})", r'<span class="nowrap">\1</span>', str(escape(_printable(text)))))  # noqa: S704


def _words(name: str) -> str:
    return name.replace("_", " ")
