"""Golden rows: known answers that a loader can check, and nothing of anybody's clicks."""

import numpy as np
import pytest
import torch

from deepfm.config import NetworkConfig
from deepfm.documents import sha256_hex
from deepfm.errors import IntegrityError
from deepfm.export.golden import ROWS, golden_of
from deepfm.export.graph import GraphSpec, build_onnx
from deepfm.golden import Golden
from deepfm.loading import VersionModel
from deepfm.manifests import MISSING_INT64, FileEntry, Normalisation, VersionManifest
from deepfm.model import DeepFM
from tests import factories
from tests.small_versions import INPUTS

VERSION = factories.VERSION
USERS = ("u1", "u2", "", "None")
ITEMS = (17, 2**62 + 1, MISSING_INT64)


def spec_of(users=USERS):
    return GraphSpec(
        inputs=INPUTS,
        vocabularies=(users, np.array(ITEMS)),
        normalisation=(Normalisation(mean=2.0, deviation=3.0),),
        metadata={},
    )


@pytest.fixture(scope="module")
def onnx_bytes():
    torch.manual_seed(0)
    model = DeepFM(vocabulary_sizes=(5, 4), numeric_fields=1, network=NetworkConfig(embedding_dim=3, hidden=(4,)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return build_onnx(model, spec_of())


@pytest.fixture(scope="module")
def golden(onnx_bytes):
    return golden_of(onnx_bytes, spec_of(), version=VERSION)


def manifest_with(golden, onnx_bytes):
    files = {"model.onnx": FileEntry(sha256=sha256_hex(onnx_bytes), size_bytes=len(onnx_bytes))}
    return factories.manifest().model_copy(update={"inputs": INPUTS, "files": files, "golden": golden})


def test_there_are_rows_of_missing_and_of_unseen_values(golden):
    assert len(golden.rows) == len(golden.probabilities) == ROWS
    assert golden.rows[0] == {"user": None, "item": None, "price": None}
    assert golden.rows[1]["user"] not in USERS
    assert golden.rows[1]["item"] not in ITEMS
    assert {row["user"] for row in golden.rows} & {"u1", "u2"}


def test_rows_survive_the_manifest_and_load_the_model(golden, onnx_bytes):
    data = manifest_with(golden, onnx_bytes).to_bytes()
    stored = VersionManifest.from_bytes(data, where="here")
    assert stored.golden == golden
    assert stored.to_bytes() == data
    model = VersionModel(stored, onnx_bytes, threads=1)
    np.testing.assert_array_equal(model.predict(golden.rows), np.array(golden.probabilities, dtype=np.float32))


def test_the_same_version_has_the_same_rows_and_another_one_others(golden, onnx_bytes):
    assert golden_of(onnx_bytes, spec_of(), version=VERSION) == golden
    assert golden_of(onnx_bytes, spec_of(), version=VERSION[:-1] + "b") != golden


def test_a_private_field_shows_no_value_that_training_saw(onnx_bytes):
    golden = golden_of(onnx_bytes, spec_of(), version=VERSION, private={"user", None})
    assert not {row["user"] for row in golden.rows} & {"u1", "u2"}
    assert {row["item"] for row in golden.rows} & set(ITEMS)


def test_numbers_are_made_up_around_the_mean(golden):
    numbers = [row["price"] for row in golden.rows[2:] if row["price"] is not None]
    assert len(set(numbers)) == len(numbers) > 5
    assert all(abs(float(number) - 2.0) < 3.0 * 6 for number in numbers)


def test_a_file_that_answers_otherwise_is_not_loaded(golden, onnx_bytes):
    others = (*golden.probabilities[:-1], golden.probabilities[-1] + 2e-4)
    wrong = golden.model_copy(update={"probabilities": others})
    with pytest.raises(IntegrityError, match=f"for row {ROWS - 1}, required"):
        VersionModel(manifest_with(wrong, onnx_bytes), onnx_bytes, threads=1)


def test_a_manifest_without_golden_rows_loads(onnx_bytes):
    assert VersionModel(manifest_with(None, onnx_bytes), onnx_bytes, threads=1).predict([]).shape == (0,)


@pytest.mark.parametrize("rows", [(), ({"a": 1},) * 2, ({"a": 1},) * 65])
def test_each_row_has_one_answer_and_there_are_few(rows):
    with pytest.raises(ValueError, match=r"probabilities|at least 1 item|at most 64 items"):
        Golden(rows=rows, probabilities=(0.5,))
