"""How a stage becomes a Prefect task: its name, its retries by error class, nothing cached by Prefect."""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from prefect import Task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from deepfm.delegation import is_trained, request_training
from deepfm.errors import TransientError
from deepfm.manifests import Window
from deepfm.pipeline import train_challenger
from deepfm.workspace import Workspace
from flows.delegated import train_on

RETRY_DELAYS_SECONDS = [5.0, 20.0, 80.0]
"""Waits before another try, for errors that trying again can help."""

P = ParamSpec("P")
R = TypeVar("R")


class StageTasks:
    """Runs every stage as a task of the flow that is running."""

    def __init__(self, *, train_on: str = "") -> None:
        """Tasks of this process.

        Args:
            train_on: Deployment that trains, such as `train/gpu`; empty, training is a task as the others are.
        """
        self._train_on = train_on

    def call(
        self, stage: Callable[Concatenate[Workspace, P], R], workspace: Workspace, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of one task."""
        if self._train_on and stage is train_challenger:
            (window,) = args
            _task("train_elsewhere", train_elsewhere, delays=[RETRY_DELAYS_SECONDS[0]])(
                workspace, window, self._train_on
            )
        return stage_task(stage)(workspace, *args, **kwargs)

    def each(self, stage: Callable[[Workspace, Any], R], workspace: Workspace, items: Sequence[Any]) -> list[R]:
        """The results of one task per item, side by side as far as the flow's task runner allows."""
        return stage_task(stage).map(unmapped(workspace), list(items)).result()


def train_elsewhere(workspace: Workspace, window: Window, deployment: str) -> None:
    """The result of a window's training is in the store, made by a run of a training deployment.

    Raises:
        DeepFMError: what `train_on` raises.
    """
    version = request_training(workspace, window)
    if not is_trained(workspace, version):
        train_on(deployment, store=workspace.store.url, model=workspace.model, versions=[version])


def stage_task(stage: Callable[..., R]) -> Task[..., R]:
    """A task that runs a stage and retries it only where the error says that trying again can help.

    Results stay in memory: a stage keeps its own, typed and verified, in the store.
    """
    return _task(stage.__name__, stage, delays=RETRY_DELAYS_SECONDS)


def _task(name: str, call: Callable[..., R], *, delays: list[float]) -> Task[..., R]:
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
