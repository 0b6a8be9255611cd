"""The library's log, in the run's."""

import logging


def let_library_speak() -> None:
    """The library logs at PREFECT_LOGGING_LEVEL: Prefect gives an extra logger its handlers, but not its level."""
    library = logging.getLogger("deepfm")
    if library.level == logging.NOTSET:
        library.setLevel(logging.getLogger("prefect.extra").level)
