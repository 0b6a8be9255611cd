"""One line per claim: whether it holds, what it took, the claim, its bar and what was measured."""

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape

from deepfm.errors import DeepFMError


class Line(NamedTuple):
    """A claim that was measured, or the reason why it was not."""

    claim: str
    figure: str
    bar: str
    holds: bool | None
    """None: skipped; the figure says why."""


Measurement = Callable[[Path], Iterator[Line]]
_WORDS = {True: "holds", False: "falls short", None: "skipped"}
_STYLES = {True: "green", False: "bold red", None: "yellow"}


def measure(measurements: Iterable[tuple[str, Measurement]], folder: Path, *, console: Console) -> int:
    """Print every line as it comes; 1 if any claim falls short, else 0.

    Args:
        measurements: Names and functions; each gets a folder of its own.
        folder: Where those folders are made.
        console: Where the lines go.
    """
    began = time.monotonic()
    seen = []
    console.print(f"{'verdict':<11} {'time':>6}  {'claim':<73} {'bar':<45} figure")
    for name, measurement in measurements:
        last = time.monotonic()
        place = folder / name
        place.mkdir()
        for line in _finished(measurement(place)):
            now = time.monotonic()
            word = f"[{_STYLES[line.holds]}]{_WORDS[line.holds]:<11}[/]"
            text = escape(f"{name}: {line.claim:<{71 - len(name)}} {line.bar:<45} {line.figure}")
            console.print(f"{word} {now - last:>4.0f} s  {text}")
            seen.append(line.holds)
            last = now
    counts = ", ".join(f"{seen.count(holds)} {word}" for holds, word in _WORDS.items())
    console.print(f"{len(seen)} claims in {time.monotonic() - began:.0f} s: {counts}")
    return int(False in seen)


def _finished(lines: Iterator[Line]) -> Iterator[Line]:
    """The lines; a measurement that was cut off by an error ends in one that falls short, and the next one goes on."""
    try:
        yield from lines
    except DeepFMError as error:
        yield Line("is measured to the end", f"{type(error).__name__}: {error}", "no error", holds=False)
    except subprocess.CalledProcessError as error:
        said = str(error.stderr or error.stdout or "").strip().splitlines()[-1:]
        yield Line(
            "is measured to the end", f"exit {error.returncode}: {''.join(said)}", "no process fails", holds=False
        )
