"""`make down`: everything that `make up` started has ended; the data stays."""

from rich.console import Console

from deployments.command import run
from deployments.processes import Processes
from deployments.up import FOLDER


def main() -> None:
    """End everything below the folder."""
    processes = Processes(FOLDER)
    with processes.alone():
        stopped = processes.stop()
    told = f"ended {', '.join(stopped)}; " if stopped else "nothing ran; "
    Console(highlight=False, soft_wrap=True).print(f"{told}data, logs and addresses stay in {FOLDER}")


if __name__ == "__main__":
    run(main)
