"""`deepfm` and `python -m deepfm`."""

import importlib.util
import sys


def main() -> None:
    """Run the command line; where only the consumer is installed, one line says what it needs."""
    lacking = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if lacking:
        sys.stderr.write(
            f"deepfm: the command line needs {' and '.join(lacking)}, which the serving extra leaves out. "
            'Run: pip install "deepfm-retrain[train]"; or use deepfm.serving from Python.\n'
        )
        sys.exit(78)
    try:
        from deepfm.cli.app import main as command_line

        command_line()
    except KeyboardInterrupt:  # while Python still imports; later ones are the command line's own
        sys.stderr.write("deepfm: interrupted; run the same command again to go on\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
