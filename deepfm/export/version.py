"""What an export needs of a training: the network with its weights, the graph's specification, raw rows to try."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfm.config import RetrainConfig
from deepfm.data.preparing import valid_batches
from deepfm.data.raw import raw_columns
from deepfm.data.window import read_vocabulary, vocabulary_file
from deepfm.export.graph import GraphSpec, Vocabulary
from deepfm.manifests import InputSpec, TrainingResult, ValidationReport, Window
from deepfm.model import DeepFM
from deepfm.storage import LocalCache, ObjectStore
from deepfm.weights import unpack


def graph_spec(
    window: Window, result: TrainingResult, config: RetrainConfig, *, files: Mapping[str, Path]
) -> GraphSpec:
    """Inputs, vocabularies, normalisation and the distortion that the graph undoes.

    Args:
        window: The training window.
        result: The training.
        config: The model's configuration.
        files: Local vocabulary files, by name.
    """
    names = (*window.categorical, *window.numeric)
    loss = config.loss
    return GraphSpec(
        inputs=tuple(InputSpec(name=n, kind=config.fields[n].kind, dtype=config.fields[n].dtype) for n in names),
        vocabularies=tuple(
            _vocabulary(files[vocabulary_file(index)], config.fields[name].dtype)
            for index, name in enumerate(window.categorical)
        ),
        normalisation=tuple(window.normalisation[name] for name in window.numeric),
        keep_rate=window.keep_rate,
        pos_weight=result.pos_weight,
        focal=(loss.focal_alpha, loss.focal_gamma) if loss.kind == "focal" else None,
        metadata={
            "model": window.model,
            "version": result.version,
            "logical_date": window.logical_date.isoformat(),
            "window": f"{window.days[0].logical_date}..{window.days[-1].logical_date}",
        },
    )


def load_model(weights: Path, window: Window, config: RetrainConfig) -> DeepFM:
    """The trained network, on the CPU, in evaluation mode."""
    tensors, _ = unpack(weights.read_bytes(), where=weights.name)
    model = DeepFM(
        vocabulary_sizes=[window.vocabulary_sizes[name] for name in window.categorical],
        numeric_fields=len(window.numeric),
        network=config.network,
    )
    model.load_state_dict(tensors)
    return model.eval()


def sample_columns(  # noqa: PLR0913 - where the rows come from takes five of them
    source: ObjectStore,
    report: ValidationReport,
    config: RetrainConfig,
    inputs: Sequence[InputSpec],
    *,
    quarantine: Path,
    cache: LocalCache,
    rows: int,
) -> dict[str, NDArray[Any]]:
    """The first `rows` valid rows of a day as the graph's inputs take them."""
    parts: list[dict[str, NDArray[Any]]] = []
    have = 0
    for batch in valid_batches(source, report.partition, config, quarantine=quarantine, cache=cache):
        parts.append(raw_columns(batch.rows.slice(0, rows - have), inputs))
        have += min(batch.rows.num_rows, rows - have)
        if have >= rows:
            break
    return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in inputs}


def _vocabulary(path: Path, dtype: str) -> Vocabulary:
    values = read_vocabulary(path)
    return np.asarray(values.to_numpy(), dtype=np.int64) if dtype == "int64" else tuple(values.to_pylist())
