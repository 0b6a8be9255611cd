"""The library's log, in the run's."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

logger = logging.getLogger("deepfm.flows")


@contextmanager
def shown_if_possible() -> Iterator[None]:
    """Within it, a server that does not answer costs a page, and not the work that the page is about."""
    try:
        yield
    except httpx.HTTPError as away:
        logger.warning("the Prefect server does not show it: %s", away)


def let_library_speak() -> None:
    """The library logs at PREFECT_LOGGING_LEVEL: Prefect gives an extra logger its handlers, but not its level."""
    library = logging.getLogger("deepfm")
    if library.level == logging.NOTSET:
        library.setLevel(logging.getLogger("prefect.extra").level)
