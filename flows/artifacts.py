"""What people read in the Prefect UI: the verdict of a run as a markdown artifact."""

import html
import re

from prefect.artifacts import create_markdown_artifact

from deepfm.retraining import RunOutcome

_SENTENCES = {
    "promoted": "is the new champion",
    "not_promoted": "was not promoted",
    "data_rejected": "was not trained: the holdout day was refused",
    "failed": "failed",
}


def publish_outcome(model: str, outcome: RunOutcome) -> None:
    """A markdown artifact `<model>-verdict` of the running flow; a newer run adds a newer version of it."""
    create_markdown_artifact(
        markdown(model, outcome), key=f"{re.sub('[^a-z0-9-]', '-', model)}-verdict", description=f"Verdict on {model}"
    )


def markdown(model: str, outcome: RunOutcome) -> str:
    """The outcome for people: one sentence, the figures, every reason; text from data is escaped."""
    lines = [
        f"## {model} {outcome.date}: {outcome.version or 'no version'} {_SENTENCES[outcome.status]}",
        "",
        "| | |",
        "|---|---|",
        f"| Verdict | {outcome.verdict or 'none'} |",
        f"| AUC of the challenger | {_figure(outcome.challenger_auc)} |",
        f"| AUC of the champion on the same rows | {_figure(outcome.champion_auc)} |",
        "",
        *(f"- {_escaped(reason)}" for reason in outcome.reasons),
    ]
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _escaped(text: str) -> str:
    plain = html.escape("".join(c if c.isprintable() else " " for c in text), quote=False)
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", plain)
