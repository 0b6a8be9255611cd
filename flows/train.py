"""The flow `train`: holds the device, trains what was asked for, and nothing else."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from deepfm.delegation import KEEP_SECONDS, STALL_SECONDS, train_watched
from deepfm.errors import DeepFMError, TrainingError, TrainingLostError
from flows.delegated import name_of_training
from flows.logs import let_library_speak, shown_if_possible

if TYPE_CHECKING:
    from uuid import UUID

_SHOWN_EVERY_PERCENT = 5.0


def _name_of_run() -> str:
    given = flow_run.parameters
    return name_of_training(str(given["model"]), [str(version) for version in given["versions"]])


@flow(name="train", flow_run_name=_name_of_run, persist_result=False, validate_parameters=True)
def train(
    store: str,
    model: str,
    versions: list[str],
    stall_seconds: float = STALL_SECONDS,
    keep_seconds: float = KEEP_SECONDS,
) -> State[Any]:
    """Train versions that were asked for, one after the other, in a watched process of their own.

    What is to be trained, and what comes of it, is in the store: only names travel.

    Args:
        store: URL of the store that holds the requests and takes the results.
        model: Name of the model.
        versions: Ids of the versions, such as 2026-11-01-0123456789abcdef.
        stall_seconds: A training that makes no step for so long is taken for hung, ended and tried once more.
        keep_seconds: After so long no further version is begun: others get the device, and whoever asked asks again.
    """
    let_library_speak()
    shown = _Shown(len(versions))

    def attempt() -> dict[str, DeepFMError]:
        return train_watched(
            store, model, versions, stall_seconds=stall_seconds, keep_seconds=keep_seconds, told=shown.step
        )

    try:
        try:
            failed = attempt()
        except TrainingLostError as lost:
            # It goes on from its last stored state.
            get_run_logger().warning("%s; trying once more", lost)
            failed = _last(attempt)
    except DeepFMError as error:
        return Failed(message=_line(error))
    for version, reason in failed.items():
        get_run_logger().error("%s: %s", version, reason)
    if failed:
        return Failed(message=_line(next(iter(failed.values()))))
    return Completed(message=f"{shown.begun} of {len(versions)} trained")


def _last(attempt: Callable[[], dict[str, DeepFMError]]) -> dict[str, DeepFMError]:
    """The second attempt; what has been lost twice is not tried a third time by whoever asked for it.

    Raises:
        TrainingError: terminal.
    """
    try:
        return attempt()
    except TrainingLostError as lost:
        raise TrainingError(f"twice: {lost}") from lost


def _line(error: DeepFMError) -> str:
    """What a run that waits for this one makes the same error of."""
    return f"{type(error).__name__}: {error}"


class _Shown:
    """How far the trainings are, as one progress artifact."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._begun: list[str] = []
        self._percent = 0.0
        # Outside of an event loop these calls are plain ones.
        self._artifact: UUID | None = None
        with shown_if_possible():
            self._artifact = cast("UUID", create_progress_artifact(0.0, description="training steps done"))

    @property
    def begun(self) -> int:
        """Versions of which a step was heard."""
        return len(self._begun)

    def step(self, version: str, done: int, planned: int) -> None:
        if version not in self._begun:
            self._begun.append(version)
        percent = 100.0 * (len(self._begun) - 1 + done / max(planned, 1)) / self._count
        if self._artifact is not None and percent - self._percent >= _SHOWN_EVERY_PERCENT:
            self._percent = percent
            with shown_if_possible():
                update_progress_artifact(self._artifact, min(percent, 100.0))
