"""Rows with known answers, made up from what the model file holds, so that no impression and no user is copied."""

from collections.abc import Collection

import numpy as np

from deepfm.columns import raw_columns, typed_column
from deepfm.documents import stage_key
from deepfm.export.graph import GraphSpec, values_of
from deepfm.export.parity import unknown_value
from deepfm.golden import Golden
from deepfm.scorer import Scorer

ROWS = 16
"""Golden rows of a version: the first is missing throughout, the second unseen, the others are mixed."""
_MISSING_SHARE = 0.1
_UNSEEN_SHARE = 0.1
_SIGNIFICANT = 4

Value = str | int | float | None


def golden_of(onnx_bytes: bytes, spec: GraphSpec, *, version: str, private: Collection[str | None] = ()) -> Golden:
    """Golden rows and what the file answers to them; the same file, specification and version give the same.

    Args:
        onnx_bytes: The exported file.
        spec: What it was exported with.
        version: Id of the version, which seeds the choice.
        private: Fields whose values are people's: their columns are missing or unseen throughout.
    """
    random = np.random.default_rng(int(stage_key("golden", version), 16))
    columns = [
        *(_categories(spec, index, random=random, private=private) for index in range(len(spec.categorical))),
        *(_numbers(spec, index, random=random) for index in range(len(spec.numeric))),
    ]
    names = [field.name for field in (*spec.categorical, *spec.numeric)]
    rows = tuple(dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
    raw = raw_columns(rows, spec.inputs)
    scores = Scorer(onnx_bytes, spec.inputs, threads=1).probabilities(
        {field.name: typed_column(raw[field.name], field) for field in spec.inputs}
    )
    return Golden(rows=rows, probabilities=tuple(scores.tolist()))


def _categories(
    spec: GraphSpec, index: int, *, random: np.random.Generator, private: Collection[str | None]
) -> list[Value]:
    """One value for each row of a categorical field."""
    field, vocabulary = spec.categorical[index], spec.vocabularies[index]
    unseen = unknown_value(field, vocabulary)
    known = [unseen] if field.name in private or len(vocabulary) == 0 else values_of(vocabulary)
    column: list[Value] = [None, unseen]
    for chance, at in zip(random.random(ROWS - 2), random.integers(len(known), size=ROWS - 2), strict=True):
        if chance < _MISSING_SHARE:
            column.append(None)
        else:
            column.append(unseen if chance < _MISSING_SHARE + _UNSEEN_SHARE else known[at])
    return column


def _numbers(spec: GraphSpec, index: int, *, random: np.random.Generator) -> list[Value]:
    """One number for each row of a numeric field, in short figures; the second is far outside what training saw."""
    norm = spec.normalisation[index]
    distances = np.append(100.0, random.normal(size=ROWS - 2))
    column: list[Value] = [None, *(_short(norm.mean + norm.deviation * distance) for distance in distances)]
    return [
        None if number < _MISSING_SHARE else value for number, value in zip(random.random(ROWS), column, strict=True)
    ]


def _short(number: float) -> float:
    """The number to four significant digits: a golden row needs a value of that size, not that value."""
    return float(f"{number:.{_SIGNIFICANT}g}")
