"""How a stage becomes a Prefect task: its name, its retries by error class, nothing cached by Prefect."""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from prefect import Task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from deepfm.errors import TransientError
from deepfm.workspace import Workspace

RETRY_DELAYS_SECONDS = [5.0, 20.0, 80.0]
"""Waits before another try, for errors that trying again can help."""

P = ParamSpec("P")
R = TypeVar("R")


class StageTasks:
    """Runs every stage as a task of the flow that is running."""

    def call(
        self, stage: Callable[Concatenate[Workspace, P], R], workspace: Workspace, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of one task."""
        return stage_task(stage)(workspace, *args, **kwargs)

    def each(self, stage: Callable[[Workspace, Any], R], workspace: Workspace, items: Sequence[Any]) -> list[R]:
        """The results of one task per item, side by side as far as the flow's task runner allows."""
        return stage_task(stage).map(unmapped(workspace), list(items)).result()


def stage_task(stage: Callable[..., R]) -> Task[..., R]:
    """A task that runs a stage and retries it only where the error says that trying again can help.

    Results stay in memory: a stage keeps its own, typed and verified, in the store.
    """
    return Task(
        fn=stage,
        name=stage.__name__,
        retries=len(RETRY_DELAYS_SECONDS),
        retry_delay_seconds=RETRY_DELAYS_SECONDS,
        retry_jitter_factor=0.5,
        retry_condition_fn=_can_help,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _can_help(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether the error that failed a task is transient."""
    return isinstance(state.result(raise_on_failure=False), TransientError)
