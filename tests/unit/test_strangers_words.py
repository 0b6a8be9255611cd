"""Words that a stranger chose, wherever they come out: one line in, one line out, and nothing but to be read.

Strangers name columns and files, write values, reasons and their own names, and whoever may write to the store writes
every document in it. The tests stand at the places that all of these have to pass.
"""

import ast
import logging
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from deepfm.calendar.rows import CalendarDay
from deepfm.cli import doctor, history, pull, run, status
from deepfm.cli.app import OneLineFormatter
from deepfm.cli.init import _row
from deepfm.data.schema import check_schema
from deepfm.discovery.found import FoundColumn
from deepfm.doctor.checks import warning
from deepfm.errors import UsageError, one_line
from deepfm.manifests import InputSpec
from deepfm.registry import Registry
from deepfm.report.facts import RunFacts, gather
from deepfm.report.page import render
from deepfm.retraining import RunOutcome
from deepfm.storage.protocol import ObjectInfo
from tests.factories import DAY, MODEL, entry
from tests.fault_store import FakeStore
from tests.page_reader import Page
from tests.reported_runs import config, decision, finding, holdout, keep
from tests.tiny_days import tiny_config

TRICKS = (
    "\n", "\r\n", "\t", "\x0b", "\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\x00", "\x7f", "\x85", "\u2028", "\u2029",
    "\u202e", "\u2066", "\u200b", "\ufeff", "2026-11-25 00:00:00,000 WARNING deepfm: ", '"}\n{"version": "x"}', "| a |",
    "<script>alert(1)</script>", "&lt;", "&#106;", "<!--", "`x`", "**b**", "_i_", "~~s~~", "[a](http://b)", "![x](y)",
    "http://b.example", "www.b.example", "a@b.example", "# head", "> quote", "- ", "+ ", "1. ", "12) ", "---", "===",
    "\\", "[red]", "[/]", "\\[/]", "[link=http://b]", ":warning:", "$(id)", "'; x = (", ")", '"',
)  # fmt: skip
WORDS = st.lists(st.one_of(st.sampled_from(TRICKS), st.text(max_size=6)), min_size=1, max_size=6).map("".join)
FILE_NAMES = st.one_of(WORDS, WORDS.map(lambda words: f"{words}\udcff"))
"""What the file system may answer: a byte that is no UTF-8 becomes half of a pair."""
quick = settings(max_examples=60, deadline=None)
BROAD = 1_000
"""Columns of a terminal in which no line has to be folded."""


def one(text: str) -> bool:
    """Whether a text is a line, and shown as it is."""
    return text.isprintable()


def tags(page: str) -> list[str]:
    """Everything that a browser makes of a page but the spans, which keep dates and options in one piece."""
    return [tag for tag, _ in Page(page).tags if tag != "span"]


@pytest.fixture(scope="module")
def facts() -> RunFacts:
    """What a page is made of, without the figures, which are slow to draw and hold numbers alone."""
    store = FakeStore()
    keep(store, decision(), promoted=True)
    return gather(store, config())._replace(training=None)


def printed(console: Console, show: Any, *arguments: Any, **options: Any) -> list[str]:
    """The lines that a printer prints."""
    with console.capture() as captured:
        show(*arguments, **options)
    return captured.get().removesuffix("\n").split("\n")


class TestLines:
    @quick
    @given(FILE_NAMES)
    def test_a_line_is_printable_and_loses_no_letter(self, words: str) -> None:
        line = one_line(words)
        assert one(line)
        assert one_line(line) == line
        if "\\" not in words:
            spelled = re.sub(r"\\(?:x(..)|u(.{4})|U(.{8}))", lambda code: chr(int(code[code.lastindex or 1], 16)), line)
            assert spelled == " ".join(words.split())

    @quick
    @given(FILE_NAMES, WORDS, WORDS)
    def test_an_error_is_a_line_whatever_is_in_its_parts(self, words: str, other: str, third: str) -> None:
        assert one(str(UsageError(words, observed=other, required=third, where=words, next_step=other)))
        assert one(str(UsageError("outer", observed=UsageError(words, observed=words))))

    @quick
    @given(WORDS, WORDS)
    def test_a_finding_is_a_line_whatever_a_column_is_called(self, name: str, file: str) -> None:
        for schema in (pa.schema([(name, pa.string())]), pa.schema([("click", pa.list_(pa.field(name, pa.int8())))])):
            for found in check_schema(schema, tiny_config(), where=file):
                assert one(found.sentence)

    @quick
    @given(FILE_NAMES)
    def test_a_record_of_the_command_lines_log_is_a_line(self, words: str) -> None:
        record = logging.LogRecord(words, logging.WARNING, "p", 1, "%s and %r", (words, words), None)
        assert one(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s").format(record))

    @quick
    @given(FILE_NAMES)
    def test_a_foreign_object_in_the_log_is_warned_of_in_a_line(self, name: str) -> None:
        class Foreign(FakeStore):
            def list(self, prefix: str) -> list[ObjectInfo]:
                return [ObjectInfo(f"{prefix}/{name}", 1)]

        class Ear(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                heard.append(record.getMessage())

        heard: list[str] = []
        ear, log = Ear(), logging.getLogger("deepfm.registry")
        log.addHandler(ear)
        try:
            assert Registry(Foreign(), MODEL).entries() == []
        finally:
            log.removeHandler(ear)
        assert [one(line) for line in heard] == [True]


class TestTerminal:
    """What people read of the commands; `highlight` and colours are off where nobody watches."""

    @quick
    @given(WORDS)
    def test_reasons_of_a_run(self, words: str) -> None:
        console = Console(width=BROAD, highlight=False, emoji=False)
        outcome = RunOutcome(date=DAY, status="data_rejected", reasons=(words, words))
        _, first, second = printed(console, run.show, outcome, to=console)
        assert first == second == f"  {one_line(words)}"

    @quick
    @given(WORDS.filter(str.strip))
    def test_a_check_of_the_doctor(self, words: str) -> None:
        console = Console(width=BROAD, highlight=False, emoji=False)
        found = warning("source.reachable", words, words)
        first, second = printed(console, doctor._show, found, console, heading=False)
        assert first == f"  warning reachable: {one_line(words)}"
        assert second == f"      {one_line(words)}"

    @quick
    @given(WORDS, st.booleans())
    def test_a_remark_of_the_calendar(self, words: str, stale: bool) -> None:  # noqa: FBT001
        console = Console(width=BROAD, highlight=False, emoji=False)
        day = CalendarDay(
            date=DAY, delivered=True, valid=False, prepared=False, trained=False, stale=stale, reasons=(words,)
        )
        _, line = printed(console, lambda: console.print(status._table((day,), mark="*", width=BROAD)))
        assert line.rstrip().endswith(f"{'stale: ' if stale else ''}{one_line(words)}".rstrip())

    @quick
    @given(WORDS, WORDS)
    def test_who_wrote_an_entry_and_why(self, actor: str, reason: str) -> None:
        console = Console(width=BROAD, highlight=False, emoji=False)
        log = [entry(1).model_copy(update={"actor": actor, "reason": reason, "held": True})]
        _, line = printed(console, lambda: console.print(history._table(log, log[0], console)))
        assert one_line(f"{actor}: {reason}") in line
        assert one(history._standing([log[0].model_copy(update={"operation": "hold"})]))

    @quick
    @given(WORDS)
    def test_a_column_that_init_found(self, words: str) -> None:
        column = FoundColumn(name=words, role="left_out", note=words, distinct=1, null_share=0.0, dtype=None)
        console = Console(width=BROAD, highlight=False, emoji=False)
        (line,) = printed(console, console.print, *_row(column))
        assert line.count(one_line(words)) >= 2

    @quick
    @given(WORDS)
    def test_a_field_in_the_program_that_pull_prints_is_text_and_no_program(self, name: str) -> None:
        inputs = [InputSpec(name=called, kind="categorical", dtype="string") for called in (name, "user")]
        program, harmless = (
            ast.parse("\n".join(pull._program((first, inputs[1]), Path("m.onnx")))) for first in (inputs[0], inputs[1])
        )
        kinds = [[type(node) for node in ast.walk(tree)] for tree in (program, harmless)]
        assert kinds[0] == kinds[1]
        (rows,) = (node for node in ast.walk(program) if isinstance(node, ast.Dict))
        assert [ast.literal_eval(key) for key in rows.keys if key] == [name, "user"]


class TestPages:
    @quick
    @given(WORDS)
    def test_markdown_takes_it_for_nothing_but_text(self, words: str) -> None:
        from flows.artifacts import escaped

        text, reader = escaped(words), MarkdownIt("commonmark").enable(["table", "strikethrough"])
        assert one(text)
        for around in ("- {}", "| {} | x |\n|---|---|\n| {} | y |"):
            found = [token for token in reader.parse(around.replace("{}", text or "x")) if token.type == "inline"]
            ours = [token for token in found if token.content not in {"x", "y"}]
            for children in (token.children or [] for token in ours):
                assert {child.type for child in children} <= {"text", "text_special"}
                assert "".join(child.content for child in children).strip() == one_line(words).strip()
        # Readers of Prefect's pages also make links of bare addresses.
        assert not re.search(r"(?<!\\)(://|@)|www\.", text, re.IGNORECASE)

    @settings(quick, max_examples=20)
    @given(words=WORDS)
    def test_html_takes_it_for_nothing_but_text(self, facts: RunFacts, words: str) -> None:
        def page_of(told: str) -> str:
            by_others = facts._replace(
                decision=decision(reasons=(told,)),
                holdout=holdout(finding(column=told, passed=False, observed=told, required=told)),
                store=told,
                entry=entry(2, actor=told),
            )
            return render(by_others, options=("--config", told))

        page = page_of(words)
        assert tags(page) == tags(page_of("x"))
        assert not [c for c in page if not c.isprintable() and c != "\n"]
