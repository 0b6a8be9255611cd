"""One line per claim: what was claimed, what was measured, the bar, and whether it holds."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console


class Line(NamedTuple):
    """A claim that was measured, or the reason why it was not."""

    claim: str
    figure: str
    bar: str
    holds: bool | None
    """None: skipped; the figure says why."""


Measurement = Callable[[Path], Iterator[Line]]
_WORDS = {True: "[green]holds[/]", False: "[bold red]falls short[/]", None: "[yellow]skipped[/]"}


def measure(measurements: Iterable[tuple[str, Measurement]], folder: Path, *, console: Console) -> int:
    """Print every line as it comes; 1 if any claim falls short, else 0.

    Args:
        measurements: Names and functions; each gets a folder of its own.
        folder: Where those folders are made.
        console: Where the lines go.
    """
    short = 0
    for name, measurement in measurements:
        began = time.monotonic()
        place = folder / name
        place.mkdir()
        for line in measurement(place):
            seconds = time.monotonic() - began
            word, took = _WORDS[line.holds], f"{seconds:.0f} s"
            console.print(f"{word} [bold]{name}[/] {line.claim}: {line.figure} | bar: {line.bar} | {took}")
            short += line.holds is False
    console.print(f"{short} claims fall short")
    return min(short, 1)
