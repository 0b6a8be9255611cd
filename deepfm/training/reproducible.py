"""What has to hold around a training so that the same inputs give the same bytes, at a good speed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_BATCH_ROWS = 512
"""Steps up to this size are too short to share between threads: measured, two threads gain nothing on idle cores and
are five to ten times slower on busy ones, where each waits for the other at every operator."""


@contextmanager
def reproducible(*, batch_size: int) -> Iterator[None]:
    """Deterministic algorithms, and one thread for small batches; what was set before is set again after."""
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)  # noqa: FBT003 - torch's own signature
    torch.set_num_threads(1 if batch_size <= SMALL_BATCH_ROWS else threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
