"""A downstream service: resolve the champion, verify it, predict. Needs the `serving` extra alone.

python examples/consume.py STORE MODEL ROWS.csv SCORES.json
"""

import csv
import json
import sys
from pathlib import Path

from deepfm.serving import ChampionModel

NOT_NEEDED = {"torch", "prefect", "pandas", "pyarrow", "great_expectations"}


def main(store: str, model: str, rows: str, scores: str) -> None:
    """Write the champion's click probability of every row of a CSV file with a header."""
    champion = ChampionModel.open(store, model)
    with Path(rows).open(newline="") as stream:
        columns = parse(list(csv.DictReader(stream)), champion)
    answer = {
        "version": champion.version,
        "entry": champion.sequence,
        "probabilities": champion.predict(columns).tolist(),
    }
    Path(scores).write_text(json.dumps(answer))
    if loaded := NOT_NEEDED & set(sys.modules):
        sys.exit(f"a consumer loaded {', '.join(sorted(loaded))}")


def parse(rows: list[dict[str, str]], champion: ChampionModel) -> dict[str, list[object]]:
    """CSV text as the types that the champion's inputs declare; an empty cell is a missing value."""
    convert = {"string": str, "int64": int, "float32": float}
    return {
        spec.name: [convert[spec.dtype](row[spec.name]) if row[spec.name] else None for row in rows]
        for spec in champion.inputs
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
