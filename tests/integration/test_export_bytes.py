"""Equal weights give equal bytes in fresh processes that share nothing but the program."""

import os
import subprocess
import sys

PROGRAM = """
import hashlib
import numpy as np
import torch
from deepfm.config import NetworkConfig
from deepfm.export.graph import GraphSpec, build_onnx
from deepfm.manifests import InputSpec, Normalisation
from deepfm.model import DeepFM

torch.manual_seed(3)
torch.set_num_threads(1)
network = NetworkConfig(embedding_dim=4, hidden=(8,), batch_norm=True)
model = DeepFM(vocabulary_sizes=(51, 31), numeric_fields=1, network=network)
spec = GraphSpec(
    inputs=(
        InputSpec(name="user", kind="categorical", dtype="string"),
        InputSpec(name="item", kind="categorical", dtype="int64"),
        InputSpec(name="price", kind="numeric", dtype="float32"),
    ),
    vocabularies=(tuple(f"user {i}" for i in range(50)), np.arange(30)),
    normalisation=(Normalisation(mean=1.0, deviation=2.0),),
    focal=(0.25, 2.0),
    metadata={key: key for key in {f"key {i}" for i in range(20)}},
)
print(hashlib.sha256(build_onnx(model, spec)).hexdigest())
"""


def test_fresh_processes_write_the_same_bytes(tmp_path):
    digests = set()
    for seed, zone, locale in (("1", "UTC", "C"), ("2", "Asia/Tokyo", "C.UTF-8")):
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale},
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert len(digests.pop()) == 64
