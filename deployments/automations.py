"""What the Prefect server does by itself: declare dead runs dead, and tell people of what nobody is looking at."""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from apprise import Apprise
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from pydantic import SecretStr

from deepfm.errors import UsageError
from flows.events import PROMOTED, STATE_NAMES, resource_of

NO_PROMOTION_DAYS = 3
"""How long nothing may be promoted before somebody is told."""
DEAD_AFTER_SECONDS = 90
"""Three missed heartbeats."""
BEGINS_WITHIN_SECONDS = 150
_BEGINNINGS = ("Running", "Scheduled", "Late", "AwaitingConcurrencySlot", "AwaitingRetry", "Cancelling")
"""What may follow Pending: the run began, or waits once more."""
_BLOCK = "deepfm-notify"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", *STATE_NAMES)
"""Events are named after the name of a state."""


def apply_automations(client: SyncPrefectClient, model: str, *, notify: str | None, days: int) -> Iterator[str]:
    """The automations are as they should be; a line for each.

    Args:
        client: Of the server.
        model: The model.
        notify: An Apprise address to tell, or None for the one that was given before.
        days: How long nothing may be promoted.

    Raises:
        UsageError: terminal; the address is none.
    """
    block = _block(notify) if notify else _known_block(client)
    for automation in wanted(model, block=block, days=days):
        _replace(client, automation)
        silent = block is None and automation.name.startswith("deepfm: tell")
        yield automation.name + (" (tells nobody yet: give --notify, or UP_NOTIFY to make up)" if silent else "")


def _replace(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """The automation is there once. One that is there already is left alone: it may be waiting for a dead run."""
    there = client.read_automations_by_name(automation.name)
    if len(there) == 1 and _said(there[0]) == _said(automation):
        return
    for old in there:
        client.delete_automation(old.id)
    client.create_automation(automation)


def _said(automation: AutomationCore) -> dict[str, Any]:
    """What an automation says, whoever stored it."""
    return AutomationCore.model_validate(automation.model_dump(include=set(AutomationCore.model_fields))).model_dump()


def wanted(model: str, *, block: UUID | None, days: int) -> list[AutomationCore]:
    """The automations of a model, and those of all."""
    return [
        _crashing(
            "dead runs",
            "A run whose heartbeat is missed three times has no process any more.",
            after="heartbeat",
            expect=("heartbeat", *_ENDS),
            within=DEAD_AFTER_SECONDS,
            message=f"no heartbeat for {DEAD_AFTER_SECONDS} s: its process or its machine is gone",
        ),
        _crashing(
            "runs that never begin",
            "A run that a worker has taken begins in seconds; if it does not, its worker is gone.",
            after="Pending",
            expect=(*_BEGINNINGS, *_ENDS),
            within=BEGINS_WITHIN_SECONDS,
            message=f"taken by a worker and not begun in {BEGINS_WITHIN_SECONDS} s: its worker is gone",
        ),
        AutomationCore(
            name="deepfm: tell of failed and crashed runs",
            trigger=EventTrigger(
                match={"prefect.resource.id": "prefect.flow-run.*"},
                expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[
                _action(
                    block,
                    subject="{{ flow_run.name }} has {{ flow_run.state.name }}",
                    body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
                )
            ],
        ),
        AutomationCore(
            name=f"deepfm: tell when {model} has had no promotion",
            description=f"No version of {model} has become champion for {days} days.",
            trigger=EventTrigger(
                match={"prefect.resource.id": resource_of(model)},
                expect={PROMOTED},
                posture=Posture.Proactive,
                threshold=1,
                within=dt.timedelta(days=days),
            ),
            actions=[
                _action(
                    block,
                    subject=f"no promotion of {model} for {days} days",
                    body="Look at the calendar: deepfm status; or at the last runs' verdicts.",
                )
            ],
        ),
    ]


def _crashing(
    what: str, description: str, *, after: str, expect: Sequence[str], within: int, message: str
) -> AutomationCore:
    """Runs are declared crashed of which nothing expected is heard within so many seconds after an event."""
    return AutomationCore(
        name=f"deepfm: {what} are crashed",
        description=description,
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            after={f"prefect.flow-run.{after}"},
            expect={f"prefect.flow-run.{event}" for event in expect},
            posture=Posture.Proactive,
            threshold=1,
            within=dt.timedelta(seconds=within),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def _action(block: UUID | None, *, subject: str, body: str) -> ActionTypes:
    if block is None:
        return DoNothing()
    return SendNotification(block_document_id=block, subject=subject, body=body)


def _known_block(client: SyncPrefectClient) -> UUID | None:
    """The address that an earlier call was given."""
    found = client.request("POST", "/block_documents/filter", json={"block_documents": {"name": {"any_": [_BLOCK]}}})
    found.raise_for_status()
    return next((UUID(block["id"]) for block in found.json()), None)


def _block(address: str) -> UUID:
    if not Apprise().add(address):
        raise UsageError(  # what was given may hold a secret
            "address to notify is none that Apprise knows",
            required="such as slack://…, mailto://…, json://…",
            next_step="Check --notify, or UP_NOTIFY of make up; github.com/caronc/apprise lists them.",
        )
    # Of Prefect's blocks this one hands any address that is not Slack's to Apprise as it is.
    made = SlackWebhook(url=SecretStr(address)).save(_BLOCK, overwrite=True)
    return UUID(str(made))
