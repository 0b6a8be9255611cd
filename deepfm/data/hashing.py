"""One stable 64-bit hash of values: equal in every process, on every machine, for any row order."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepfm.manifests import MISSING_INT64

_HASH_KEY = "deepfm-clicks-01"
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash_values(values: pa.Array, *, seed: int) -> NDArray[np.uint64]:
    """A uniform uint64 per value; equal values give equal hashes, missing ones hash like "" or `MISSING_INT64`.

    Text goes through pandas' SipHash, then every hash through the finaliser of SplitMix64 (Steele et al., 2014) with
    the seed added, so that two seeds give independent hashes.

    Args:
        values: String or int64 array of N values.
        seed: Any int; only its low 64 bits count.
    """
    if pa.types.is_integer(values.type):
        raw = pc.fill_null(values, MISSING_INT64).to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    else:
        text = pc.fill_null(values, "").to_numpy(zero_copy_only=False).astype(object)
        raw = pd.util.hash_array(text, hash_key=_HASH_KEY, categorize=False)
    return mix64(raw, seed=seed)


def hash_positions(start: int, count: int, *, seed: int) -> NDArray[np.uint64]:
    """The hash of `count` row positions from `start` on, for rows that have no event key."""
    return mix64(np.arange(start, start + count, dtype=np.uint64), seed=seed)


def mix64(values: NDArray[np.uint64], *, seed: int) -> NDArray[np.uint64]:
    """The values, uint64 [N], scrambled by SplitMix64's finaliser after adding a multiple of the seed."""
    offset = np.uint64((seed * int(_GOLDEN) + int(_GOLDEN)) % 2**64)
    mixed = values + offset
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def below_share(hashes: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Which hashes, uint64 [N], fall into the first `share` of the range; share in [0, 1]."""
    if share >= 1.0:
        return np.ones(len(hashes), dtype=np.bool_)
    return hashes < np.uint64(int(share * 2.0**64))
