"""Raw rows as the exported graph takes them: the bridge from partitions to onnxruntime."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepfm.data.vocabulary import fill_missing
from deepfm.manifests import InputSpec


def raw_columns(rows: pa.RecordBatch, inputs: Sequence[InputSpec]) -> dict[str, NDArray[Any]]:
    """Canonical rows as the graph takes them: text as objects, int64, float32; missing values in their words."""
    return {spec.name: _raw_column(rows.column(spec.name), spec) for spec in inputs}


def _raw_column(column: pa.Array, spec: InputSpec) -> NDArray[Any]:
    if spec.dtype == "float32":
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which the graph takes for missing
            return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float32)
    values = fill_missing(column).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.int64 if spec.dtype == "int64" else object)
