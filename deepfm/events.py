"""What has happened to a model, told to whoever listens: functions that other packages offer by entry point.

The log is what counts, and it is written before anybody is told. So a sink can neither fail what it hears of nor hold
it up for long: what goes wrong with one is a line in the log, and all are waited for a bounded time. An event is told
by the call that made it true, at most once: a process that dies in between tells nobody, and whoever must miss nothing
reads the promotion log.
"""

import datetime as dt
import getpass
import logging
import os
import time
from contextvars import copy_context
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from threading import Thread
from typing import Literal

from deepfm.documents import Part
from deepfm.manifests import Decision, Finite, LogEntry, Operation

ENTRY_POINTS = "deepfm.events"
"""Functions that other packages offer, the sinks; each is called with every `Event`."""
PATIENCE_SECONDS = 15.0
"""How long all sinks of an event together are waited for; one that takes longer goes on by itself."""
_log = logging.getLogger(__name__)

Kind = Literal[Operation, "reject"]


class Event(Part):
    """Something that has happened to a model."""

    kind: Kind
    """The operation that the log has recorded, or `reject`: the gate's verdict on a challenger."""
    model: str
    """The model."""
    version: str
    """The champion from then on; of a `reject` the challenger."""
    logical_date: dt.date
    """Its holdout day."""
    sequence: int | None
    """Number of the log entry; None of a `reject`, which appends none."""
    actor: str
    """Who or what did it."""
    reasons: tuple[str, ...]
    """Why, in words."""
    challenger_auc: Finite | None
    """The version's, when the gate compared it."""
    champion_auc: Finite | None
    """That of the champion it was compared with."""
    retired: tuple[str, ...] = ()
    """Versions that a `retire` has given up."""


def current_actor() -> str:
    """Who does things to models from this process; a container's user may have a number alone."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def of_entry(entry: LogEntry) -> Event:
    """What a log entry means to somebody who does not know the log."""
    return Event(
        kind=entry.operation,
        reasons=(entry.reason,),
        **entry.model_dump(include=Event.model_fields.keys() & LogEntry.model_fields.keys()),
    )


def of_rejection(decision: Decision) -> Event:
    """The event that a decision of this process to reject is.

    Args:
        decision: Its verdict is `reject`.
    """
    return Event(
        kind="reject",
        model=decision.model,
        version=decision.version,
        logical_date=decision.logical_date,
        sequence=None,
        actor=current_actor(),
        reasons=decision.reasons,
        challenger_auc=decision.challenger.auc,
        champion_auc=decision.champion.auc if decision.champion else None,
    )


def tell(event: Event) -> None:
    """Every sink was called with the event once; one that cannot be, fails or takes too long is a warning."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    calls = [(sink, _begun(sink, event)) for sink in _sinks()]
    for sink, call in calls:
        if call is None:
            continue
        call.join(max(0.0, deadline - time.monotonic()))
        if call.is_alive():
            _warn(sink, event, f"it has taken longer than {PATIENCE_SECONDS:g} s")


@cache
def _sinks() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINTS))


def _begun(sink: EntryPoint, event: Event) -> Thread | None:
    """The sink at work: beside others, within its caller's context, and not in the way of the interpreter's exit."""
    call = Thread(target=copy_context().run, args=(_call, sink, event), name=f"event sink {sink.name}", daemon=True)
    try:
        call.start()
    except RuntimeError as refused:  # the system has no thread left, or the interpreter is on its way out
        _warn(sink, event, type(refused).__name__)
        return None
    return call


def _call(sink: EntryPoint, event: Event) -> None:
    try:
        sink.load()(event)
    except BaseException as failure:  # noqa: BLE001 - foreign code, about something that is done already
        # Not the message, which may hold a secret of the sink's.
        _warn(sink, event, type(failure).__name__)


def _warn(sink: EntryPoint, event: Event, why: str) -> None:
    _log.warning(
        "event sink %s (%s) may not have heard of %s %s: %s", sink.name, sink.value, event.kind, event.version, why
    )
