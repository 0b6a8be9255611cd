"""The page of a backfill in the Prefect UI: a calendar of the range, what is done with it, and what came of it."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.runtime import flow_run

from deepfm.planning import Plan
from deepfm.retraining import RunOutcome
from flows.artifacts import escaped, key_of
from flows.logs import shown_if_possible

_MARKS = {
    "to be retrained": "○",
    "trained": "◐",
    "champion": "★",
    "promoted": "✓",
    "cleared": "✓",
    "rejected": "✗",
    "inconclusive": "?",
    "undecided": "…",
    "stale": "↻",
    "refused": "!",
    "failed": "!!",
    "window too small": "-",
    "not delivered": "∅",
    "delivered": "·",
    "valid": "·",
    "prepared": "·",
}
"""Signs that every font has: the page may be read where there are no emoji."""
_WITHOUT_REASON = {"champion", "promoted", "to be retrained", "trained", "not delivered", "cleared"}


class BackfillPage:
    """An artifact `<model>-backfill` of the running flow that is written over as the work goes on."""

    def __init__(self, model: str, plan: Plan, *, heading: str, notes: tuple[str, ...] = ()) -> None:
        """The page is there.

        Args:
            model: The model.
            plan: What will be done.
            heading: One line on top.
            notes: Lines that stay as they are: what was asked for, and how long it may take.
        """
        self._plan, self._heading, self._notes = plan, heading, notes
        self._outcomes: dict[dt.date, RunOutcome] = {}
        self.trained: set[dt.date] = set()
        """Dates whose versions are trained and not gated yet."""
        self._key = key_of(model, "backfill")
        self._id: UUID | None = None
        with shown_if_possible():
            create_markdown_artifact(self._markdown("Planned."), key=self._key, description=f"Backfill of {model}")
            self._id = self._created()

    def show(self, now: str, outcomes: Mapping[dt.date, RunOutcome] | None = None) -> None:
        """The page says what is at work now, and what has come of the dates so far."""
        self._outcomes |= outcomes or {}
        if self._id is not None:
            with shown_if_possible(), get_client(sync_client=True) as client:
                client.update_artifact(self._id, ArtifactUpdate(data=self._markdown(now)))

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Within it, the work; where that ends before it is done, by an error or a cancellation, the page says so."""
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self.show("Ended before it was done: the run's state says why. The same request goes on from here.")

    def _created(self) -> UUID | None:
        wanted = ArtifactFilter(
            key=ArtifactFilterKey(any_=[self._key]),
            flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(str(flow_run.id))]),
        )
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(artifact_filter=wanted)
        return found[0].id if found else None

    def _markdown(self, now: str) -> str:
        words = {day.date: self._word(day.date, day.word, chosen=day.chosen) for day in self._plan.days}
        counts = Counter(words.values())
        legend = [f"{_MARKS[word]} {word}: {count}" for word, count in sorted(counts.items())]
        lines = [f"## {escaped(self._heading)}", "", f"**{escaped(now)}**", ""]
        lines += [f"- {escaped(note)}" for note in self._notes]
        if self._plan.source_problem:
            lines.append(f"- Delivered is not known: {escaped(self._plan.source_problem)}")
        lines += ["", *_grid(words), "", " · ".join(legend), "", *self._table(words)]
        return "\n".join(lines) + "\n"

    def _word(self, date: dt.date, planned: str, *, chosen: bool) -> str:
        outcome = self._outcomes.get(date)
        if outcome is None and date in self.trained:
            return "trained"
        if outcome is None:
            return "to be retrained" if chosen else planned
        if outcome.status == "not_promoted":
            return {"reject": "rejected", "inconclusive": "inconclusive"}.get(outcome.verdict or "", "cleared")
        known = {"promoted": "promoted", "data_rejected": "refused", "not_delivered": "not delivered"}
        return known.get(outcome.status, "failed")

    def _table(self, words: Mapping[dt.date, str]) -> list[str]:
        """The days with their figures, then why some did not come to a promotion."""
        lines = ["| Day | | AUC | Champion's |", "|---|---|---|---|"]
        why = []
        for day in self._plan.days:
            outcome, word = self._outcomes.get(day.date), words[day.date]
            row = outcome or day.row
            now = f", now {day.word}" if word == "to be retrained" else ""
            figures = f"{_figure(row.challenger_auc)} | {_figure(row.champion_auc)}"
            lines.append(f"| {day.date:%a} {day.date} | {_MARKS[word]} {word}{now} | {figures} |")
            if row.reasons and word not in _WITHOUT_REASON:
                why.append(f"- **{day.date}** {escaped(row.reasons[0])}")
        return [*lines, "", *why]


def _grid(words: Mapping[dt.date, str]) -> list[str]:
    """Weeks as rows of a table, Monday first."""
    first, last = min(words), max(words)
    monday = first - dt.timedelta(days=first.weekday())
    lines = ["| Week | Mon | Tue | Wed | Thu | Fri | Sat | Sun |", "|---" * 8 + "|"]
    while monday <= last:
        week = [monday + dt.timedelta(days=n) for n in range(7)]
        cells = [f"{_MARKS[words[day]]} {day.day}" if day in words else "" for day in week]
        lines.append(f"| {monday:%d %b %Y} | " + " | ".join(cells) + " |")
        monday += dt.timedelta(days=7)
    return lines


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
