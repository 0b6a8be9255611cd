"""A small window that many tests train on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.tiny_days import DAYS, TinyWindow, click_day, tiny_config, tiny_window

ROWS = 100


@pytest.fixture
def one_thread():
    """One torch thread: sums come in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def windows(tmp_path_factory) -> Callable[..., TinyWindow]:
    """The same small window under any training configuration; only the held-back share is part of its files."""
    made: dict[tuple[float, str], TinyWindow] = {}

    def with_settings(changes: dict[str, Any] | None = None) -> TinyWindow:
        config = tiny_config({"training.validation_by": "row", **(changes or {})})
        key = (config.training.validation_share, config.training.validation_by)
        if key not in made:
            tables = {date: click_day(date, rows=ROWS) for date in DAYS}
            made[key] = tiny_window(tmp_path_factory.mktemp("window"), config, tables=tables)
        return made[key]._replace(config=config)

    return with_settings
