"""How a stage becomes a Prefect task: its name, its retries by error class, nothing cached by Prefect."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import Task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType, TaskRun
from prefect.exceptions import CancelledRun
from prefect.runtime import flow_run

from deepfm.delegation import is_trained, request_training
from deepfm.errors import TransientError
from deepfm.pipeline import promote, train_challenger
from deepfm.workspace import Workspace
from flows.delegated import train_on
from flows.logs import shown_if_possible

if TYPE_CHECKING:
    from deepfm.manifests import Window

RETRY_DELAYS_SECONDS = [5.0, 30.0]
"""Waits before another try, for errors that trying again can help: three tries in all."""

P = ParamSpec("P")
R = TypeVar("R")


class StageTasks:
    """Runs every stage as a task of the flow that is running."""

    def __init__(self, *, train_on: str = "", queue: str = "default", width: int = 1_000) -> None:
        """Tasks of this process.

        Args:
            train_on: Deployment that trains, such as `train/gpu`; empty, training is a task as the others are.
            queue: Queue of that deployment's pool; `urgent` goes before `default`.
            width: Items of a stage that may be at work at a time, if the flow's task runner allows as many.
        """
        self._train_on, self._queue, self._width = train_on, queue, width

    def call(
        self, stage: Callable[Concatenate[Workspace, P], R], workspace: Workspace, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of one task."""
        if stage is promote:
            _stop_if_cancelled()
        if self._train_on and stage is train_challenger:
            window = cast("Window", args[0])
            version = request_training(workspace, window)
            if not is_trained(workspace, version):
                training_task()(workspace, [version], self._train_on, self._queue)
        return stage_task(stage)(workspace, *args, **kwargs)

    def each(self, stage: Callable[[Workspace, Any], R], workspace: Workspace, items: Sequence[Any]) -> list[R]:
        """The results of one task per item, side by side as far as the flow's task runner allows."""
        task = stage_task(stage)
        slices = (items[i : i + self._width] for i in range(0, len(items), self._width))
        return [result for part in slices for result in task.map(unmapped(workspace), list(part)).result()]


def _stop_if_cancelled() -> None:
    """Nothing, unless a person has cancelled this run: then its process is about to be ended, and promotes nothing.

    Raises:
        CancelledRun: it was cancelled.
    """
    with shown_if_possible(), get_client(sync_client=True) as client:
        for run in {flow_run.id, flow_run.root_flow_run_id}:
            state = client.read_flow_run(UUID(str(run))).state
            if state is not None and state.type in {StateType.CANCELLING, StateType.CANCELLED}:
                raise CancelledRun("run was cancelled before its promotion; run the date again if that was not meant")


def train_elsewhere(workspace: Workspace, versions: Sequence[str], deployment: str, queue: str = "default") -> None:
    """The results of some requested trainings are in the store, made by a run of a training deployment.

    Raises:
        DeepFMError: what `train_on` raises.
    """
    train_on(deployment, store=workspace.store.url, model=workspace.model, versions=versions, queue=queue)


def training_task() -> Task[..., None]:
    """A task that trains elsewhere, and tries once more where the process was lost."""
    return _task("train_elsewhere", train_elsewhere, delays=RETRY_DELAYS_SECONDS[:1])


def stage_task(stage: Callable[..., R]) -> Task[..., R]:
    """A task that runs a stage and retries it only where the error says that trying again can help.

    Results stay in memory: a stage keeps its own, typed and verified, in the store.
    """
    return _task(stage.__name__, stage, delays=RETRY_DELAYS_SECONDS)


def _task(name: str, call: Callable[P, R], *, delays: list[float]) -> Task[P, R]:
    return Task(
        fn=call,
        name=name,
        retries=len(delays),
        retry_delay_seconds=delays,
        retry_jitter_factor=0.5,
        retry_condition_fn=_can_help,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _can_help(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether the error that failed a task is transient."""
    return isinstance(state.result(raise_on_failure=False), TransientError)
