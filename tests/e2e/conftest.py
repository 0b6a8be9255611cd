"""A database server for those tests that live long with a Prefect server."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.seaweed import free_ports

PASSWORD = "not-for-the-log"


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Address of a database server of our own on loopback, which asks for a password."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(str(shutil.which("initdb"))).parent]
    # It does not run for root, and whoever it runs for has to reach its folder.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="deepfm-postgres-"))
    (folder / "password").write_text(PASSWORD)
    if user:
        shutil.chown(folder, user)
        shutil.chown(folder / "password", user)
    port = free_ports(1)[0]

    def call(program: str, *words: str) -> None:
        command = [str(found[-1] / program), "-D", str(folder / "data"), *words]
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    call("initdb", "-U", "deepfm", "-A", "scram-sha-256", "--pwfile", str(folder / "password"))
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}"
    call("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", options)
    yield f"postgresql+asyncpg://deepfm:{PASSWORD}@127.0.0.1:{port}/postgres"
    call("pg_ctl", "stop", "-m", "immediate")
    shutil.rmtree(folder)
