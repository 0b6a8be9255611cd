"""The evidence command can fail: a claim that falls short is exit 1, a skipped one is not."""

import io

import pytest
from rich.console import Console

from tests.evidence.lines import Line, measure


@pytest.mark.parametrize(("holds", "code"), [([True, True], 0), ([True, False], 1), ([None], 0), ([None, False], 1)])
def test_a_claim_that_falls_short_fails_the_command(tmp_path, holds, code):
    written = io.StringIO()
    console = Console(file=written, width=200)

    def measurement(folder):
        assert folder.is_dir()
        yield from (Line("a claim", "3", "at least 2", value) for value in holds)

    assert measure([("some", measurement)], tmp_path, console=console) == code
    text = written.getvalue()
    assert text.count("a claim: 3 | bar: at least 2") == len(holds)
    assert f"{holds.count(False)} claims fall short" in text
