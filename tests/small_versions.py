"""Published versions of a small model that really loads, with or without a decision of the gate."""

import datetime as dt
from functools import cache

import numpy as np
import torch

from deepfm import layout
from deepfm.config import NetworkConfig
from deepfm.documents import sha256_hex
from deepfm.export.graph import GraphSpec, build_onnx
from deepfm.manifests import MISSING_INT64, FileEntry, InputSpec, Normalisation, Verdict
from deepfm.model import DeepFM
from deepfm.registry import Registry
from deepfm.storage import ObjectStore
from tests import factories
from tests.factories import MODEL

INPUTS = (
    InputSpec(name="user", kind="categorical", dtype="string"),
    InputSpec(name="item", kind="categorical", dtype="int64"),
    InputSpec(name="price", kind="numeric", dtype="float32"),
)
FIRST_DAY = dt.date(2026, 3, 1)


def version_of_day(day: int) -> str:
    """The id of the version of a day, counted from 0."""
    return layout.version_id(FIRST_DAY + dt.timedelta(days=day), f"{day:016x}")


A, B, C, D = (version_of_day(day) for day in range(4))


@cache
def small_onnx() -> bytes:
    """A model file that takes `INPUTS`."""
    generator = torch.Generator().manual_seed(0)
    model = DeepFM(vocabulary_sizes=(4, 4), numeric_fields=1, network=NetworkConfig(embedding_dim=3, hidden=(4,)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    spec = GraphSpec(
        inputs=INPUTS,
        vocabularies=(("u1", "u2", ""), np.array([17, 2**62 + 1, MISSING_INT64])),
        normalisation=(Normalisation(mean=2.0, deviation=3.0),),
        metadata={},
    )
    return build_onnx(model, spec)


def publish(store: ObjectStore, *versions: str, data: bytes | None = None) -> None:
    """The versions exist, their model files too."""
    data = small_onnx() if data is None else data
    for version in versions:
        store.write(model_key(version), data)
        manifest = factories.manifest().model_copy(
            update={
                "version": version,
                "logical_date": layout.version_date(version),
                "inputs": INPUTS,
                "files": {layout.MODEL_FILE: FileEntry(sha256=sha256_hex(data), size_bytes=len(data))},
            }
        )
        Registry(store, MODEL).publish(manifest, deterministic=True)


def judge(
    store: ObjectStore,
    version: str,
    verdict: Verdict,
    *,
    against: int = 0,
    champion: str | None = None,
    gate_key: str = "c" * 16,
) -> str:
    """The gate's decision on a version is recorded; its digest."""
    registry = Registry(store, MODEL)
    base = factories.decision(compared_entry=against, gate_key=gate_key, reason=f"the gate says {verdict}")
    rival = base.challenger.model_copy(update={"version": champion, "auc": 0.6}) if champion else None
    decision = base.model_copy(
        update={
            "version": version,
            "logical_date": layout.version_date(version),
            "manifest_sha256": registry.manifest(version)[1],
            "verdict": verdict,
            "challenger": base.challenger.model_copy(update={"version": version}),
            "champion": rival,
        }
    )
    return registry.record(decision)[1]


def model_key(version: str) -> str:
    """Where a version's model file is."""
    return layout.file_key(layout.attempt_prefix(MODEL, version, "attempt"), layout.MODEL_FILE)
