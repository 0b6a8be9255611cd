"""The lines of the page's lists: of a day's rows, of a window, and of where a version comes from."""

import math

from deepfm import layout
from deepfm.manifests import Finding, LogEntry
from deepfm.report.facts import RunFacts

_SEVERITIES = ("critical", "warning")
"""Of rules that can be broken, the worst first; what is `info` is none."""
_GAPS_NAMED = 6
"""The table of the days has the others."""
Lines = list[tuple[str, str]]
"""What a line is about, and what it says."""


def span_lines(facts: RunFacts) -> Lines:
    """The window in a few lines; its table has every day."""
    trained = [day for day in facts.days if day.gap is None and not day.holdout]
    gaps = [day for day in facts.days if day.gap is not None]
    rows = []
    if trained:
        dates = dict.fromkeys(f"{day.logical_date}" for day in (trained[0], trained[-1]))
        together = _rate(sum(day.rows for day in trained), sum(day.clicks for day in trained))
        rows.append(("Trained on", f"{_counted(len(trained), 'day')}, {' to '.join(dates)}: {together}"))
    rows += [("Holdout", f"{day.logical_date}: {_rate(day.rows, day.clicks)}") for day in facts.days if day.holdout]
    if gaps:
        named = [f"{day.logical_date} ({(day.gap or '').partition(':')[0]})" for day in gaps[:_GAPS_NAMED]]
        more = f" and {len(gaps) - _GAPS_NAMED} more" if len(gaps) > _GAPS_NAMED else ""
        rows.append(("Gaps", f"{len(gaps)}: {', '.join(named)}{more}"))
    return rows


def broken_first(facts: RunFacts) -> list[Finding]:
    """The rules that the day breaks, critical ones first; information is no rule."""
    findings = facts.holdout.findings if facts.holdout else ()
    broken = [finding for finding in findings if not finding.passed and finding.severity in _SEVERITIES]
    return sorted(broken, key=lambda finding: _SEVERITIES.index(finding.severity))


def news_lines(facts: RunFacts) -> Lines:
    """What the validation tells without asking for anything; rows set aside have a line of their own."""
    findings = facts.holdout.findings if facts.holdout else ()
    told = [f for f in findings if not f.passed and f.severity not in _SEVERITIES and f.rule != "quarantined"]
    return [
        ("Not used", f"{f.observed}: not among the {f.required}")
        if f.rule == "column_used"
        else (words(f.rule).capitalize(), f.observed if f.column == "*" else f"{f.column}: {f.observed}")
        for f in told
    ]


def lineage_lines(facts: RunFacts) -> Lines:
    """Where the version comes from, and what became of it."""
    decision, manifest = facts.decision, facts.manifest
    if decision is None:
        return []
    against = f"{decision.champion.version}, log entry {decision.compared_entry}" if decision.champion else "no version"
    if decision.champion is None and decision.compared_entry:
        against = f"log entry {decision.compared_entry}, whose version could not be scored"
    rows = [("Version", decision.version), ("Compared with", against)]
    if facts.entry is not None:
        rows.append(("Log entry", _act(facts.entry)))
    if facts.withdrawal is not None:
        rows.append(("Rolled back by log entry", _act(facts.withdrawal)))
    if facts.head is not None:
        now = "this version" if facts.head.version == decision.version else facts.head.version
        rows.append(("Champion as this was written", f"{now}, log entry {facts.head.sequence}"))
    rows.append(("Gate and holdout", f"key {decision.gate_key}"))
    if manifest is None:
        return [*rows, ("Manifest", "no longer in the store")]
    window = manifest.window
    model_file = manifest.files.get(layout.MODEL_FILE)
    negatives = f"negatives kept at {window.keep_rate:.4g} or more" if window.keep_rate < 1.0 else "every negative kept"
    kept = f"{window.sampled_rows:,} rows, {window.clicks:,} clicks, {negatives}"
    rows += [
        ("Model file", f"{model_file.size_bytes:,} bytes, sha256 {model_file.sha256}" if model_file else "none"),
        ("Trained on", kept),
        ("Fields", ", ".join(f"{spec.name} ({_kind(spec.name, facts)})" for spec in manifest.inputs)),
        ("Prior correction", _correction(facts)),
        ("Needs", f"onnxruntime {manifest.minimum_onnxruntime} or newer"),
    ]
    return rows


def _act(entry: LogEntry) -> str:
    return f"{entry.sequence}, {entry.created_utc:%Y-%m-%d %H:%M} UTC, by {entry.actor}"


def _kind(name: str, facts: RunFacts) -> str:
    sizes = facts.manifest.window.vocabulary_sizes if facts.manifest else {}
    return f"{sizes[name]:,} ids" if name in sizes else "numeric"


def _correction(facts: RunFacts) -> str:
    if facts.manifest is None:
        return "unknown"
    w, c, focal = facts.manifest.keep_rate, facts.manifest.pos_weight, facts.manifest.focal
    shift = f"log-odds {math.log(w / c):+.4f} (keep rate {w:.4g}, weight of a click {c:.4g})"
    return f"{shift}, after the inverse of focal loss {focal[0]:g}, {focal[1]:g}" if focal else shift


def _rate(rows: int, clicks: int) -> str:
    share = f", click-through rate {percent(clicks / rows)}" if rows else ""
    return f"{rows:,} impressions, {_counted(clicks, 'click')}{share}"


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def percent(value: float) -> str:
    """Three figures of them, whichever they are: columns of percentages line up."""
    return f"{100.0 * value:#.3g}".rstrip(".") + " %"


def words(name: str) -> str:
    """A name as a person would write it."""
    return name.replace("_", " ")
