"""The report in a real browser without a network: complete, legible, and as wide as the screen."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deepfm.report.facts import gather
from deepfm.report.page import render
from deepfm.storage import open_store
from tests.browser import Tab, find_browser, running_browser
from tests.factories import DAY
from tests.reported_runs import config, curves, decision, finding, holdout, keep, keep_day

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
LEAST_PIXELS = 11.0

LABELS = """
[...document.querySelectorAll('svg.plot')].map(svg => [...svg.querySelectorAll('text')].map(text => {
  const box = text.getBoundingClientRect(), scale = svg.getScreenCTM().a
  return {svg: svg.getAttribute('aria-label'), text: text.textContent, x: box.x, y: box.y, width: box.width,
    height: box.height, pixels: parseFloat(getComputedStyle(text).fontSize) * scale}
})).flat()
"""
BOXES = """
[...document.querySelectorAll('svg.plot')].map(svg => { const box = svg.getBoundingClientRect()
  return {label: svg.getAttribute('aria-label'), left: box.left, right: box.right, width: box.width} })
"""
WIDER = """
[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5
  && !e.closest('.scroll, svg')).map(e => e.tagName + ' ' + e.textContent.slice(0, 40))
"""
PIECES = r"""
(() => { const found = [], walker = document.createTreeWalker(document.querySelector('body'), NodeFilter.SHOW_TEXT)
  const names = [...document.querySelectorAll('th[scope=row]')].map(th => th.firstChild)
  for (let node; node = walker.nextNode();) {
    if (node.parentElement.closest('svg, details:not([open]) > :not(summary)')) continue
    const piece = names.includes(node) ? /\w+/g : /[\d.]+ %|\d{4}-\d{2}-\d{2}(?![\w-])/g
    for (const match of node.textContent.matchAll(piece)) {
      const range = document.createRange()
      range.setStart(node, match.index); range.setEnd(node, match.index + match[0].length)
      found.push([match[0], new Set([...range.getClientRects()].map(box => Math.round(box.top))).size])
    } }
  return found })()
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    assert BROWSER is not None
    with running_browser(BROWSER) as tab:
        yield tab


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A promotion with long names in it, and a refused day."""
    folder = tmp_path_factory.mktemp("pages")
    store = open_store(f"file://{folder}/store")
    keep(store, decision(reasons=("A reason with a word that is long: " + "x" * 200,)), drawn=curves(), promoted=True)
    long = finding(column="c" * 120, rule="null_share", passed=False, observed="o " * 200, required="at most 0.2")
    keep_day(store, holdout(long, finding(), accepted=False).model_copy(update={"logical_date": DAY.replace(day=9)}))
    made = {}
    for name, date in (("promoted", DAY), ("refused", DAY.replace(day=9))):
        made[name] = folder / f"{name}.html"
        facts = gather(store, config(), logical_date=date)
        if facts.days:
            earlier = [facts.days[1]._replace(logical_date=DAY - dt.timedelta(days=n)) for n in range(60, 2, -1)]
            facts = facts._replace(days=(*earlier, *facts.days))
        made[name].write_text(render(facts), encoding="utf-8")
    return made


@pytest.fixture(params=[(page, size) for page in ("promoted", "refused") for size in SIZES], ids="-".join)
def opened(request, tab, pages) -> Tab:
    page, size = request.param
    tab.open(pages[page].as_uri(), width=SIZES[size][0], height=SIZES[size][1])
    assert tab.evaluate("innerWidth") == SIZES[size][0]
    return tab


def test_it_asks_for_nothing_but_itself_and_complains_of_nothing(opened, pages):
    asked = [request["request"]["url"] for request in opened.parameters_of("Network.requestWillBeSent")]
    assert len(asked) == 1
    assert asked[0] in {path.as_uri() for path in pages.values()}
    for complaint in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
        assert opened.parameters_of(complaint) == []
    assert opened.evaluate("document.compatMode") == "CSS1Compat"


def test_nothing_is_wider_than_the_screen(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.evaluate(WIDER) == []


@pytest.mark.parametrize("width", [320, 360, 390, 412, 1280])
@pytest.mark.parametrize("page", ["promoted", "refused"])
def test_no_line_ends_between_a_number_and_its_unit_nor_inside_a_date_or_the_name_of_a_rule(tab, pages, page, width):
    tab.open(pages[page].as_uri(), width=width, height=844)
    pieces = tab.evaluate(PIECES)
    assert len([text for text, _ in pieces if text.endswith("%")]) >= (4 if page == "promoted" else 1)
    assert [text for text, lines in pieces if lines != 1] == []


def test_a_phone_comes_from_the_days_to_the_lineage_without_scrolling_past_each_of_them(tab, pages):
    tab.open(pages["promoted"].as_uri(), width=390, height=844)
    place = "document.querySelector('#{}').getBoundingClientRect().top"
    assert tab.evaluate(f"{place.format('lineage')} - {place.format('days')}") < 844
    assert tab.evaluate("document.querySelectorAll('#days tbody tr').length") > 50
    tab.evaluate("document.querySelector('nav a[href=\"#lineage\"]').click()")
    assert abs(tab.evaluate(place.format("lineage"))) < 60


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The smaller side of what two boxes share, in pixels."""
    across, down = (
        min(one[at] + one[size], other[at] + other[size]) - max(one[at], other[at])
        for at, size in (("x", "width"), ("y", "height"))
    )
    return float(min(across, down))


@pytest.mark.parametrize("size", SIZES)
def test_every_label_of_a_plot_can_be_read_and_touches_no_other(tab, pages, size):
    width, height = SIZES[size]
    tab.open(pages["promoted"].as_uri(), width=width, height=height)
    labels = tab.evaluate(LABELS)
    boxes = tab.evaluate(BOXES)
    assert len(boxes) == 5
    assert all(box["left"] >= 0 and box["right"] <= width and box["width"] > 300 for box in boxes)
    assert len(labels) > 60
    assert [label for label in labels if label["pixels"] < LEAST_PIXELS] == []
    assert [label for label in labels if label["x"] < 0 or label["x"] + label["width"] > width] == []
    for index, label in enumerate(labels):
        for other in labels[index + 1 :]:
            assert label["svg"] != other["svg"] or overlap(label, other) < 2, (label, other)


def test_it_can_be_read_in_the_dark(tab, pages):
    grounds = []
    for dark in (False, True):
        tab.open(pages["promoted"].as_uri(), width=390, height=844, dark=dark)
        found = tab.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
            " getComputedStyle(document.querySelector('svg.plot text')).fill]"
        )
        ground, ink, label = (sum(map(int, colour[4:-1].split(","))) for colour in found)
        assert abs(ground - ink) > 500
        assert label == ink
        grounds.append(ground)
    assert grounds[0] > 700
    assert grounds[1] < 120


def test_what_is_closed_can_be_opened_without_a_script(tab, pages):
    tab.open(pages["promoted"].as_uri(), width=390, height=844)
    tab.evaluate("document.querySelectorAll('summary').forEach(s => s.click())")
    assert tab.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
