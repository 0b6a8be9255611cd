"""What is at work, on stderr: the stage, its rate and the time left; nothing where nobody watches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from deepfm.workspace import Workspace

P = ParamSpec("P")
R = TypeVar("R")


class Shown:
    """Runs stages as plain calls and shows on stderr which one is at work, with rate and time left."""

    def __init__(self, console: Console, *, dates: int = 1) -> None:
        """A display for a number of logical dates; where there are several, how many are done is shown too."""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._stage = TaskID(0)
        self._dates = self._progress.add_task("dates", total=dates, figures=f"0 of {dates}", visible=dates > 1)

    def date_done(self) -> None:
        """One logical date more is done."""
        task = self._progress.tasks[0]
        self._progress.update(self._dates, advance=1, figures=f"{task.completed + 1:.0f} of {task.total:.0f}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def call(
        self, stage: Callable[Concatenate[Workspace, P], R], workspace: Workspace, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of the call."""
        with self._shown(stage, total=None):
            return stage(workspace, *args, **kwargs)

    def each(self, stage: Callable[[Workspace, Any], R], workspace: Workspace, items: Sequence[Any]) -> list[R]:
        """The results of the calls."""
        results = []
        with self._shown(stage, total=len(items)):
            for item in items:
                results.append(stage(workspace, item))
                self._progress.update(self._stage, advance=1, figures=f"{len(results)} of {len(items)}")
        return results

    def training(self, step: int, planned: int) -> None:
        """Show how far the stage at work, the training, is."""
        speed = next((task.speed for task in self._progress.tasks if task.id == self._stage), None)
        figures = f"step {step} of {planned}" + (f", {speed:.0f} a second" if speed else "")
        self._progress.update(self._stage, completed=step, total=planned, figures=figures)

    @contextmanager
    def _shown(self, stage: Callable[..., object], *, total: int | None) -> Iterator[None]:
        name = getattr(stage, "__name__", "stage").replace("_", " ")
        self._stage = self._progress.add_task(name, total=total, figures="")
        yield
        self._progress.remove_task(self._stage)
