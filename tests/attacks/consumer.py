"""A consumer in a process of its own that meets every attack, each in a store of its own.

    python -m tests.attacks.consumer FOLDER

One JSON object is printed: for each attack, what the consumer made of it.
"""

import resource
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import onnxruntime
from pydantic_core import to_json

from deepfm.errors import DeepFMError
from deepfm.serving import ServedChampion
from deepfm.storage.local import LocalStore
from tests.attacks.documents import EVERY_ATTACK
from tests.factories import MODEL
from tests.tiny_models import put_champion

MEMORY_BYTES = 3 * 1024**3
"""Address space of the process: a bomb fails there instead of taking the machine along."""
_ROW = {"user": ["u1"], "price": [0.5]}


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """What a consumer that serves a sound champion makes of an attack in a new store."""
    store = LocalStore(folder)
    put_champion(store, 1)
    served = ServedChampion.open(store.url, MODEL, threads=1)
    before = served.predict(_ROW).tolist()
    EVERY_ATTACK[name](store)
    error, line = "none", ""
    began = time.monotonic()
    with mock.patch.object(onnxruntime, "InferenceSession", wraps=onnxruntime.InferenceSession) as session:
        try:
            served.refresh()
        except DeepFMError as refusal:
            error, line = type(refusal).__name__, str(refusal)
    return {
        "error": error,
        "line": line,
        "seconds": time.monotonic() - began,
        "sessions": session.call_count,
        "served": [served.version, served.sequence, served.predict(_ROW).tolist() == before],
    }


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    place = Path(sys.argv[1])
    outcomes = {name: outcome(place / f"store-{number}", name) for number, name in enumerate(EVERY_ATTACK)}
    sys.stdout.write(to_json(outcomes).decode())
