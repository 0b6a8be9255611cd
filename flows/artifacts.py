"""What people read in the Prefect UI: the verdict of a run as a markdown artifact."""

import hashlib
import html
import re
from urllib.parse import quote

from prefect.artifacts import create_markdown_artifact

from deepfm.errors import NotFoundError, one_line
from deepfm.report.facts import RunFacts, gather
from deepfm.report.lines import broken_first
from deepfm.report.pictures import data_uri
from deepfm.report.plots import calibration, learning_curve
from deepfm.report.rules import rule_rows
from deepfm.retraining import RunOutcome
from deepfm.workspace import Workspace

_MARKDOWN = re.compile(r"[\\`*_\[\]|#~@]|:(?=//)|(?<=www)\.|^[-+=]|^[0-9]+[.)]", re.IGNORECASE)
"""Signs that mean something to markdown, anywhere or at the beginning of a text."""
_SIGNS = {"passed": "✓", "failed": "✗", "undecided": "?"}
_SENTENCES = {
    "promoted": "is the new champion",
    "not_promoted": "was not promoted",
    "data_rejected": "was not trained: the holdout day was refused",
    "not_delivered": "was not trained: the day has not been delivered",
    "failed": "failed",
}


def key_of(model: str, what: str) -> str:
    """An artifact's key, which takes small letters, digits and dashes."""
    plain = re.sub("[^a-z0-9-]", "-", model.lower())
    # Two models must not share a page: where letters were changed, a few of the name's digest tell them apart.
    mark = "" if plain == model else f"-{hashlib.sha256(model.encode()).hexdigest()[:6]}"
    return f"{plain}{mark}-{what}"


def publish_outcome(workspace: Workspace, outcome: RunOutcome) -> None:
    """A markdown artifact `<model>-verdict` of the running flow; a newer run adds a newer version of it."""
    model = workspace.model
    facts = _facts(workspace, outcome) if outcome.version else None
    create_markdown_artifact(
        markdown(model, outcome, facts), key=key_of(model, "verdict"), description=f"Verdict on {model} {outcome.date}"
    )


def markdown(model: str, outcome: RunOutcome, facts: RunFacts | None = None) -> str:
    """The outcome for people: one sentence, the figures, every reason, the pictures; text from data is escaped."""
    lines = [
        f"## {model} {outcome.date}: {outcome.version or 'no version'} {_SENTENCES[outcome.status]}",
        "",
        *(f"- {escaped(reason)}" for reason in outcome.reasons),
        "",
        "| | |",
        "|---|---|",
        f"| Verdict | {outcome.verdict or 'none'} |",
        f"| AUC of the challenger | {_figure(outcome.challenger_auc)} |",
        f"| AUC of the champion on the same rows | {_figure(outcome.champion_auc)} |",
        "",
        *(_of_run(facts) if facts is not None else ()),
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text in one line that markdown and HTML take for nothing else: no list, no link, not even a bare address."""
    return _MARKDOWN.sub(lambda sign: f"{sign[0][:-1]}\\{sign[0][-1]}", html.escape(one_line(text), quote=False))


def _facts(workspace: Workspace, outcome: RunOutcome) -> RunFacts | None:
    try:
        return gather(workspace.store, workspace.config, version=outcome.version)
    except NotFoundError:  # nothing was decided on it
        return None


def _of_run(facts: RunFacts) -> list[str]:
    lines = []
    if facts.decision is not None and facts.limits is not None:
        lines += ["### Gate", "", "| | Rule | Observed | Required |", "|---|---|---|---|"]
        lines += [
            f"| {_SIGNS[row.outcome]} | {escaped(row.name)} | {escaped(row.observed)} | {escaped(row.required)} |"
            for row in rule_rows(facts.decision, facts.limits)
        ]
    if facts.training is not None:
        lines += ["", "### Learning curve", "", _picture("learning curve", learning_curve(facts.training))]
    if facts.curves is not None:
        lines += ["", "### Calibration", "", _picture("calibration", calibration(facts.curves))]
    if facts.holdout is not None:
        broken, kept = broken_first(facts), sum(finding.passed for finding in facts.holdout.findings)
        lines += ["", "### Data checks of the holdout", "", f"{kept} kept, {len(broken)} broken", ""]
        lines += [f"- {finding.severity}: {escaped(finding.sentence)}" for finding in broken]
    lines += ["", "### Report", "", *_report(facts), ""]
    return lines


def _report(facts: RunFacts) -> list[str]:
    """Where the whole report is: a link, and the command for who sits elsewhere or has it in a bucket."""
    url = f"{facts.store}/{facts.folder}/report.html"
    command = f"deepfm report --config M.toml --date {facts.logical_date}"
    return [f"[{escaped(url)}]({quote(url, safe=':/')})", "", f"`{command}`"]


def _picture(name: str, svg: str) -> str:
    return f"![{name}]({data_uri(svg)})"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
