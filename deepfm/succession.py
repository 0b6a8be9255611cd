"""What a promotion log adds up to: who can be gone back to, who was taken away, and whether promotions are on hold.

The log is read as a stack. A promotion puts its version on top. A rollback takes versions off until its own is on top;
if its own is not there, it takes the place of the one on top. So rollback after rollback goes further back, and none
returns to a champion that a rollback has left, or to one whose files are removed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deepfm.manifests import LogEntry

OF_THE_VERSION = {
    "version",
    "logical_date",
    "manifest_sha256",
    "decision_sha256",
    "compared_entry",
    "challenger_auc",
    "champion_auc",
}
"""What an entry says of its version; the rest is about the act."""


class Succession(NamedTuple):
    """The champions of a model, as its log tells them."""

    champions: tuple[LogEntry, ...]
    """Entries whose versions a rollback can reach, oldest first; the last is the champion's."""
    withdrawn: Mapping[str, LogEntry]
    """Versions that were champion and that a rollback took away, each with the entry that did."""
    hold: LogEntry | None
    """The entry that put automatic promotions on hold, if they still are."""
    retired: Mapping[str, LogEntry]
    """Versions whose files are removed, each with the entry that said so."""

    @property
    def previous(self) -> LogEntry | None:
        """The champion before the current one, if there was one that no rollback took away."""
        return self.champions[-2] if len(self.champions) > 1 else None


def succession(entries: Sequence[LogEntry]) -> Succession:
    """The champions that the whole log, oldest entry first, adds up to."""
    stack: list[LogEntry] = []
    left: dict[str, LogEntry] = {}
    hold: LogEntry | None = None
    retired: dict[str, LogEntry] = {}
    for entry in entries:
        retired |= dict.fromkeys(entry.retired, entry)
        if entry.operation == "hold":
            hold = entry
        elif entry.operation == "rollback":
            gone = _above(stack, entry.version)
            left |= dict.fromkeys((champion.version for champion in stack[len(stack) - gone :]), entry)
            del stack[len(stack) - gone :]
        if not stack or stack[-1].version != entry.version:
            stack.append(entry)
    reachable = {entry.version for entry in stack}
    withdrawn = {version: entry for version, entry in left.items() if version not in reachable}
    champions = tuple(entry for entry in stack if entry.version not in retired)
    return Succession(champions, withdrawn, hold if entries and entries[-1].held else None, retired)


def _above(stack: Sequence[LogEntry], version: str) -> int:
    """How many champions a rollback to a version takes off the stack."""
    for gone, champion in enumerate(reversed(stack)):
        if champion.version == version:
            return gone
    return min(1, len(stack))
