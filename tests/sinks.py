"""Who hears of events in a test: functions at hand, or what the package itself declares."""

import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import NamedTuple

import pytest

from deepfm import events
from deepfm.events import Event

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


class Sink(NamedTuple):
    """An entry point whose function is at hand."""

    call: Callable[[Event], object]
    name: str = "test"
    value: str = "tests:sink"

    def load(self) -> Callable[[Event], object]:
        return self.call


@contextmanager
def found_by(search: Callable[..., Iterable[Sink | EntryPoint]]) -> Iterator[None]:
    """Within it this is how sinks are searched for."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(events, "entry_points", search)
        events._sinks.cache_clear()
        try:
            yield
        finally:
            events._sinks.cache_clear()


def only(*sinks: Sink | EntryPoint) -> AbstractContextManager[None]:
    """Within it these are all the sinks there are."""
    return found_by(lambda *, group: sinks if group == events.ENTRY_POINTS else ())


def declared() -> list[EntryPoint]:
    """Every entry point of this package, whether or not it has been installed since it was declared."""
    groups = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["entry-points"]
    return [EntryPoint(name, value, group) for group, found in groups.items() for name, value in found.items()]
