"""What the documents point at exists: files, headings, make targets and the version."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(p for d in ("docs", "deployments", "infra") for p in (ROOT / d).rglob("*.md"))]
)
PLACES_OF_COMMANDS = [*DOCUMENTS, ROOT / ".ci/run", ROOT / ".pre-commit-config.yaml", ROOT / "pyproject.toml"]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
MAKE = re.compile(r"(?:^|[`\s])make((?: +[A-Za-z_][\w.=/~-]*)+)", re.MULTILINE)
TARGET = re.compile(r"^([a-z][a-z0-9-]*):", re.MULTILINE)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def code_of(text: str) -> str:
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    unfenced = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]*)`", unfenced)])


def relative_links(text: str) -> list[str]:
    targets = [first or second for first, second in LINK.findall(without_code(text))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The fragment of every heading, as the usual renderers make it."""
    headings = re.findall(
        r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def make_targets_named(text: str) -> set[str]:
    return {word for words in MAKE.findall(text) for word in words.split() if "=" not in word}


def broken_links(document: Path, *, root: Path) -> list[str]:
    return [link for link in relative_links(document.read_text(encoding="utf-8")) if not leads(link, document, root)]


def leads(link: str, document: Path, root: Path) -> bool:
    path, _, fragment = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    if not target.is_relative_to(root) or not target.exists():
        return False
    return not fragment or target.suffix != ".md" or fragment in anchors(target.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(document: Path):
    assert broken_links(document, root=ROOT) == []


@pytest.mark.parametrize("place", PLACES_OF_COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_make_target_that_is_named_exists(place: Path):
    text = place.read_text(encoding="utf-8")
    named = make_targets_named(code_of(text) if place.suffix == ".md" else text)
    assert named - set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8"))) == set()


def test_every_make_target_is_explained_and_phony():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(TARGET.findall(makefile))
    assert targets == set(re.findall(r"^([a-z][a-z0-9-]*):.*## \S", makefile, re.MULTILINE))
    assert targets == set(re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split())


def test_the_changelog_begins_with_the_package_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    headings = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == version


def test_every_decision_record_has_its_four_parts_and_its_number():
    records = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "What would change our mind"], path.name


def test_the_patterns_find_what_they_look_for(tmp_path: Path):
    text = "See [a](b.md), ![c](d.png), [w](https://x.org), `[no](e)`.\n\n```\nmake lint types X=1\n```\n\n# A `b`: c\n"
    assert relative_links(text) == ["b.md", "d.png"]
    assert make_targets_named(code_of(text)) == {"lint", "types"}
    assert anchors(text) == {"a-b-c"}
    document = tmp_path / "page.md"
    document.write_text("# Top\n[gone](gone.md) [fine](#top) [nowhere](#below) [outside](../)", encoding="utf-8")
    assert broken_links(document, root=tmp_path) == ["gone.md", "#below", "../"]
