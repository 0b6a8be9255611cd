"""One retrain in a process of its own: `python -m tests.evidence.one_run WORLD STORE DATE [KEY=VALUE ...]`."""

import datetime as dt
import sys
from pathlib import Path

from deepfm.retraining import retrain
from tests.evidence.worlds import synthetic_workspace


def main() -> None:
    """Print the version and the digest of its model file."""
    world, store, date, *overrides = sys.argv[1:]
    workspace = synthetic_workspace(Path(world), store, overrides=overrides)
    outcome = retrain(workspace, dt.date.fromisoformat(date))
    manifest = workspace.registry.manifest(outcome.version or "")[0]
    sys.stdout.write(f"{manifest.version} {manifest.files['model.onnx'].sha256}\n")


if __name__ == "__main__":
    main()
