"""The command line run inside the test's process: what a shell would see, without starting one."""

import sys

import pytest

from deepfm.cli import app as command_line


def deepfm(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["deepfm", *arguments])
    hook = sys.excepthook
    with pytest.raises(SystemExit) as left:
        command_line.main()
    sys.excepthook = hook
    out, err = capsys.readouterr()
    code = left.value.code
    return (0 if code is None else int(code)), out, err


def one_line(err: str) -> str:
    """The only line on stderr."""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]
