"""A lack of memory, said in our words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from deepfm.errors import TrainingError
from deepfm.manifests import Window

OUT_OF_MEMORY = re.compile(
    "out of memory|can('t|not) allocate memory|not enough memory|MemoryError|bad_alloc|memory allocation of .* failed",
    re.IGNORECASE,
)
"""What torch, Python, C++ and Rust say of it."""


@contextmanager
def memory_errors(window: Window) -> Iterator[None]:
    """Within it, a lack of memory is an error of ours, whoever noticed it.

    The batch is not made smaller here: its size shapes the model, so the configuration says it.

    Raises:
        TrainingError: terminal; memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as cause:
        if isinstance(cause, RuntimeError) and not OUT_OF_MEMORY.search(str(cause)):
            raise
        raise TrainingError(
            "training ran out of memory",
            where=f"window of {window.logical_date}",
            next_step="Lower training.batch_size, or give it more memory: it goes on from its last stored state.",
        ) from cause
