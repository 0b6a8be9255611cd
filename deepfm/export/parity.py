"""Proof that the exported bytes compute what torch computes, on real rows and on the awkward ones.

The reference shares only constants with the graph: raw values become ids by a dictionary, and numbers, network and
inverses are computed by torch.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from deepfm.columns import NUMPY_TYPES
from deepfm.errors import ParityError
from deepfm.export.graph import FOCAL_LIMIT, LOGIT_RANGE, NULL_TEXTS, GraphSpec, Vocabulary, values_of
from deepfm.manifests import MISSING_INT64, InputSpec
from deepfm.model import DeepFM
from deepfm.serving import Scorer

TOLERANCE = 1e-4
"""Largest difference of two logits that rounding in float32 may explain."""
BATCH_ROWS = (1, 2, 7)
"""Batch sizes that are tried besides all rows at once."""
CHUNK_ROWS = 4096
"""Rows that torch computes at a time: bounds the memory of the reference."""


@dataclass(frozen=True, kw_only=True)
class ParityFigures:
    """How closely two implementations agreed."""

    max_logit_difference: float
    """Largest difference of the logits beyond what a float32 probability can hold."""
    rows: int
    """Different rows that were compared."""


def check_parity(
    onnx_bytes: bytes, model: DeepFM, spec: GraphSpec, *, columns: Mapping[str, NDArray[Any]]
) -> ParityFigures:
    """The exported file and the torch model gave the same logits for every row and batch size.

    To the given rows it adds rows that no vocabulary knows, one in which everything is missing, and infinite numbers.

    Args:
        onnx_bytes: The exported file.
        model: The network that was exported; it is left in evaluation mode.
        spec: What it was exported with.
        columns: Raw values by input name, one-dimensional and of equal length: object arrays of text, int64, float32.

    Raises:
        ParityError: terminal; the logits differ by more than 1e-4, or one of them is not a number.
    """
    model.eval()
    rows = _with_awkward_rows(columns, spec)
    total = len(rows[spec.inputs[0].name])
    expected = _reference(model, rows, spec)
    scorer = Scorer(onnx_bytes, spec.inputs, threads=1)
    worst = 0.0
    for size in (*BATCH_ROWS, total):
        scores = scorer.probabilities({name: column[-size:] for name, column in rows.items()})
        worst = max(worst, _difference(scores, expected[-size:], batch=size))
    return ParityFigures(max_logit_difference=worst, rows=total)


def reference_logit(model: DeepFM, ids: Tensor, numeric_raw: Tensor, spec: GraphSpec) -> Tensor:
    """The corrected logit as torch computes it in float32.

    Args:
        model: The network, in evaluation mode.
        ids: int64 [B, F], local ids.
        numeric_raw: float32 [B, D], raw numbers; NaN and infinities are missing.
        spec: Normalisation and what the loss distorted.

    Returns:
        float32 [B], within `LOGIT_RANGE`.
    """
    mean = torch.tensor([norm.mean for norm in spec.normalisation], dtype=torch.float32)
    deviation = torch.tensor([norm.deviation for norm in spec.normalisation], dtype=torch.float32)
    standardised = (torch.where(numeric_raw.isfinite(), numeric_raw, mean) - mean) / deviation
    device = model.bias.device
    with torch.inference_mode():
        logit: Tensor = model(ids.to(device), standardised.to(device)).cpu()
    if spec.focal is not None:
        logit = _focal_inverse(logit, alpha=spec.focal[0], gamma=spec.focal[1])
    return (logit + math.log(spec.keep_rate) - math.log(spec.pos_weight)).clamp(*LOGIT_RANGE)


def local_ids(values: NDArray[Any], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """int64 [N]: the id of each raw value in its field, 0 where the vocabulary does not hold it."""
    ids = {value: i for i, value in enumerate(values_of(vocabulary), start=1) if value not in NULL_TEXTS}
    return np.array([ids.get(value, 0) for value in values.tolist()], dtype=np.int64)


def _focal_inverse(logit: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Lin et al. (2017) turned round, from the logs of p and 1 - p as they stand in the derivative."""
    z = logit.clamp(-FOCAL_LIMIT, FOCAL_LIMIT)
    log_p, log_1_p = -functional.softplus(-z), -functional.softplus(z)
    numerator = torch.log(torch.exp(-log_1_p) - gamma * log_1_p * torch.exp(-log_p))
    denominator = torch.log(torch.exp(-log_p) - gamma * log_p * torch.exp(-log_1_p))
    return math.log((1 - alpha) / alpha) + gamma * (log_p - log_1_p) + numerator - denominator


def _reference(model: DeepFM, rows: Mapping[str, NDArray[Any]], spec: GraphSpec) -> NDArray[np.float64]:
    total = len(rows[spec.inputs[0].name])
    pairs = zip(spec.categorical, spec.vocabularies, strict=True)
    ids = np.stack([local_ids(rows[field.name], vocabulary) for field, vocabulary in pairs], axis=1)
    numbers = np.zeros((total, len(spec.numeric)), dtype=np.float32)
    for i, field in enumerate(spec.numeric):
        numbers[:, i] = rows[field.name]
    logits = [
        reference_logit(model, torch.from_numpy(ids[chunk]), torch.from_numpy(numbers[chunk]), spec)
        for chunk in _chunks(total)
    ]
    return torch.cat(logits).double().numpy()


def _chunks(total: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK_ROWS) for start in range(0, total, CHUNK_ROWS))


def _difference(scores: NDArray[np.float32], expected: NDArray[np.float64], *, batch: int) -> float:
    """The largest difference of logits, less what rounding the probability to float32 hides (2^-23 / (1 - p))."""
    p = scores.astype(np.float64)
    if not bool(np.all((p > 0) & (p < 1))):
        raise ParityError("exported probability is not between 0 and 1", where=f"batch of {batch}")
    difference = np.abs(np.log(p) - np.log1p(-p) - expected)
    worst = float(np.max(np.maximum(difference - 2.0**-23 / (1 - p), 0.0)))
    # Written so that NaN fails.
    if not worst <= TOLERANCE:
        raise ParityError(
            "exported file disagrees with torch",
            observed=f"logits differ by {worst:.3g}",
            required=f"at most {TOLERANCE:g}",
            where=f"batch of {batch}",
            next_step="Nothing was published; report this with the configuration.",
        )
    return worst


def _with_awkward_rows(columns: Mapping[str, NDArray[Any]], spec: GraphSpec) -> dict[str, NDArray[Any]]:
    """The given rows, then unknown, missing and infinite values in turn: enough to fill the largest small batch."""
    rows = {}
    for field, vocabulary in zip(spec.categorical, spec.vocabularies, strict=True):
        unknown, missing = unknown_value(field, vocabulary), "" if field.dtype == "string" else MISSING_INT64
        values = [unknown, missing, unknown, missing, unknown, missing, unknown]
        rows[field.name] = np.concatenate([columns[field.name], np.array(values, dtype=NUMPY_TYPES[field.dtype])])
    for field in spec.numeric:
        numbers = [0.0, math.nan, math.inf, -math.inf, math.nan, 0.0, math.nan]
        rows[field.name] = np.concatenate([columns[field.name], np.array(numbers, dtype=np.float32)])
    return rows


def unknown_value(field: InputSpec, vocabulary: Vocabulary) -> str | int:
    """A value that the vocabulary does not hold, the same for the same vocabulary."""
    known = set(values_of(vocabulary))
    candidates = (f"unknown {i}" if field.dtype == "string" else i for i in count())
    return next(value for value in candidates if value not in known)
