"""What the documents promise about faults has tests: every line of docs/faults.md, and tests that exist."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = tomllib.loads((ROOT / "tests" / "faults.toml").read_text())
ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.MULTILINE)


def promises() -> list[str]:
    """The faults that the document names, in its order."""
    rows = ROW.findall((ROOT / "docs" / "faults.md").read_text())
    return [fault for fault, _ in rows if fault != "When"]


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_is_mapped_and_every_mapped_fault_is_promised():
    assert sorted(promises()) == sorted(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_tests(fault):
    assert FAULTS[fault]["tests"]
    for test in FAULTS[fault]["tests"]:
        file, _, name = test.partition("::")
        assert name.startswith("test_"), test
        assert name in functions(file), test
