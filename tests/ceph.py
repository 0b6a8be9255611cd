"""A second real S3 server for tests: Ceph's gateway in front of one monitor and one disk, all on loopback.

`python -m tests.ceph` says in one line what is not installed, and then ends with 2. Ceph is no Python package, so a
test that asks for it needs Debian's; nothing is installed by itself.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from deployments.seaweed import free_ports
from tests.seaweed import S3Server, process_of, wait_until_ready

PACKAGES = ("radosgw", "ceph-mon", "ceph-osd")
_PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_CALL_SECONDS = 60
# One disk, so one copy of everything. Without sockets for administration, a folder's path may be of any length.
_CONFIGURATION = """\
[global]
fsid = {cluster}
mon host = v2:127.0.0.1:{monitor_port}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
admin socket =
run dir = {folder}
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block size = 10737418240
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
rgw frontends = beast endpoint=127.0.0.1:{gateway_port}
"""
_KEY = """\
[{name}]
key = {key}
caps mon = "allow *"
caps osd = "allow *"
"""


def missing() -> str:
    """One line about what Ceph lacks on this machine; empty if it lacks nothing."""
    absent = [program for program in _PROGRAMS if shutil.which(program) is None]
    if not absent:
        return ""
    return f"Ceph is not installed ({', '.join(absent)}): apt-get install --no-install-recommends {' '.join(PACKAGES)}"


@contextmanager
def running_ceph(folder: Path) -> Iterator[S3Server]:
    """A Ceph cluster of one with an S3 gateway, its data in a folder; gone when the block ends.

    Raises:
        RuntimeError: terminal; Ceph is not installed, or one of its programs failed.
    """
    if absent := missing():
        raise RuntimeError(absent)
    monitor_port, gateway_port = free_ports(2)
    server = S3Server(f"http://127.0.0.1:{gateway_port}", "test-access-key", f"secret-{uuid4().hex}")
    environment = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}
    with ExitStack() as running:

        def call(*command: str) -> str:
            return _output_of(command, folder, environment)

        def start(name: str, *command: str) -> subprocess.Popen[bytes]:
            log = folder / f"{name}.out"
            return running.enter_context(process_of(list(command), folder, environment=environment, log=log))

        _lay_out(folder, call("ceph-authtool", "--gen-print-key"), monitor_port=monitor_port, gateway_port=gateway_port)
        call("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{monitor_port}]", "monmap")
        call("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap")
        start("monitor", "ceph-mon", "-f", "-i", "a")
        disk = str(uuid4())
        call("ceph", "osd", "new", disk)
        call("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", disk)
        start("disk", "ceph-osd", "-f", "-i", "0")
        keys = ("--access-key", server.access_key, "--secret-key", server.secret_key)
        call("radosgw-admin", "user", "create", "--uid", "test", "--display-name", "test", *keys)
        gateway = start("gateway", "radosgw", "-f", "-n", "client.admin")
        wait_until_ready(server, gateway, log=folder / "gateway.out")
        yield server


def _lay_out(folder: Path, key: str, *, monitor_port: int, gateway_port: int) -> None:
    """Configuration, keys and empty folders are in place."""
    for name in ("mon", "osd"):
        (folder / name).mkdir()
    settings = _CONFIGURATION.format(
        cluster=uuid4(), folder=folder, monitor_port=monitor_port, gateway_port=gateway_port
    )
    (folder / "ceph.conf").write_text(settings)
    names = ("mon.", "osd.0", "client.admin")
    (folder / "keyring").write_text("".join(_KEY.format(name=name, key=key.strip()) for name in names))


def _output_of(command: tuple[str, ...], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=_CALL_SECONDS
    )
    if done.returncode != 0:
        msg = f"{' '.join(command[:2])} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        raise RuntimeError(msg)
    return done.stdout


if __name__ == "__main__":
    if absent := missing():
        sys.stderr.write(f"{absent}\n")
        sys.exit(2)
