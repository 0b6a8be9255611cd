"""Between the cells of a CSV: found in its header line."""

import gzip
import zlib
from pathlib import Path

from deepfm.data.files import corrupt

_KNOWN = (",", ";", "\t", "|")
_HEADER_BYTES = 1 << 16


def delimiter_of(path: Path, *, key: str) -> str | None:
    """The delimiter that the header holds most of, where that is not the usual one of such a file; else None.

    Args:
        path: Where the bytes are.
        key: Name of the file in its source; it says whether the file is compressed and what is usual.

    Raises:
        DataCorruptError: terminal; the file cannot be read.
    """
    try:
        with gzip.open(path) if key.lower().endswith(".gz") else path.open("rb") as stream:
            header = stream.readline(_HEADER_BYTES).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError, zlib.error) as cause:
        raise corrupt(key, cause) from cause
    usual = "\t" if ".tsv" in key.lower() else ","
    best = max(_KNOWN, key=header.count)
    return best if header.count(best) > header.count(usual) else None
