"""The backfill form in a real browser: calendars, a refusal by the form, a week followed to its calendar."""

import datetime as dt
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Tab, find_browser, running_browser
from tests.e2e.server import Up, everything_up, wait

PICTURES = os.environ.get("UPDATE_PICTURES")
"""A folder to put pictures for the documents into."""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def up(tmp_path_factory) -> Iterator[Up]:
    with everything_up(tmp_path_factory.mktemp("up") / "here") as found:
        yield found


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    browser = find_browser()
    assert browser is not None, "Chromium is needed: apt-get install chromium"
    with running_browser(browser, online=True) as found:
        yield found


def type_date(tab: Tab, number: int, date: dt.date) -> None:
    """The date is in the form's calendar field of that number, as if somebody had typed it."""
    tab.evaluate(f"document.querySelectorAll('input[type=date]')[{number}].focus()")
    for letter in f"{date:%m%d%Y}":
        tab.call("Input.dispatchKeyEvent", type="char", text=letter)
    tab.wait_for(f"document.querySelectorAll('input[type=date]')[{number}].value === '{date}'")
    tab.evaluate("document.activeElement.blur()")


def choose(tab: Tab, option: str) -> None:
    """The list that offers an option has it chosen."""
    tab.evaluate(
        f"""(() => {{
            const has = list => [...list.options].some(offered => offered.value === '{option}');
            const list = [...document.querySelectorAll('select')].find(has);
            list.value = '{option}';
            list.dispatchEvent(new Event('change', {{bubbles: true}}));
        }})()"""
    )


def type_parallel(tab: Tab, value: int) -> None:
    """The first field for a number, which is max_parallel, holds one, as if somebody had typed it."""
    field = "document.querySelectorAll('input[type=number]')[0]"
    assert tab.evaluate(f"{field}.value") == "2"
    tab.evaluate(f"{field}.focus(); {field}.select()")
    for letter in str(value):
        tab.call("Input.dispatchKeyEvent", type="char", text=letter)
    tab.wait_for(f"{field}.value === '{value}'")
    tab.evaluate("document.activeElement.blur()")


def press(tab: Tab, words: str) -> None:
    tab.evaluate(f"[...document.querySelectorAll('button')].find(b => b.innerText.trim() === '{words}').click()")


def followed(up: Up, run: str) -> set[str]:
    """What the calendar said was at work, until the run had completed."""
    seen = set()

    def over() -> bool:
        found = [a for a in up.get("/artifacts/filter", {}) if a["key"] == "clicks-backfill"]
        page = str(found[0]["data"]) if found else ""
        seen.add(next((line for line in page.splitlines() if line.startswith("**")), ""))
        return up.state(run)["type"] in {"COMPLETED", "FAILED", "CRASHED"}

    wait(over, seconds=240)
    assert up.state(run)["type"] == "COMPLETED", up.state(run)["message"]
    return seen


def keep(tab: Tab, name: str, *, height: int = 1400) -> None:
    if PICTURES:
        tab.call("Emulation.setDeviceMetricsOverride", width=1280, height=height, deviceScaleFactor=1, mobile=False)
        tab.picture(Path(PICTURES) / name)


@pytest.fixture
def form(up, tab) -> str:
    """Address of the form, which is open and complete."""
    deployment = up.call("print(json.dumps(str(client.read_deployment_by_name('backfill/range').id)))")
    address = f"{up.url}/deployments/deployment/{deployment}/run"
    tab.open(address, width=1280, height=1400)
    tab.wait_for("document.body.innerText.includes('First logical date.')")
    for told in ("Whether a date may become champion", "Only plan", "Why; it is shown on the calendar."):
        tab.wait_for(f"document.body.innerText.includes({told!r})")
    return address


def by_hand(up: Up) -> list[dict[str, Any]]:
    return [run for run in up.runs("backfill") if not run["auto_scheduled"]]


@pytest.mark.usefixtures("form")
def test_the_form_refuses_what_cannot_be_meant(up, tab):
    press(tab, "Submit")  # without a start and an end
    tab.wait_for("document.body.innerText.includes('is a required property')")
    type_date(tab, 0, up.last)
    type_date(tab, 1, up.last)
    tab.wait_for("!document.body.innerText.includes('is a required property')")
    type_parallel(tab, 99)
    time.sleep(2)  # as below
    press(tab, "Submit")
    tab.wait_for("document.body.innerText.includes('is greater than the maximum of 8')")
    assert by_hand(up) == []


@pytest.mark.usefixtures("form")
def test_a_week_is_backfilled_from_the_form_and_followed_to_its_calendar(up, tab):
    first, last = up.last - dt.timedelta(days=6), up.last
    type_date(tab, 0, first)
    type_date(tab, 1, last)
    choose(tab, "if newer than the champion")
    keep(tab, "backfill-form.png")
    tab.wait_for("document.body.innerText.includes('Validate parameters')")
    time.sleep(2)  # the form looks at what was typed in its own time, and takes no submission meanwhile
    press(tab, "Submit")
    tab.wait_for("!location.pathname.endsWith('/run')")
    run = wait(lambda: by_hand(up), seconds=30)[0]
    assert run["parameters"]["start"] == str(first)
    assert run["parameters"]["promote"] == "if newer than the champion"
    seen = followed(up, run["id"])
    assert any(line.startswith(("**Judging", "**Preparing")) for line in seen), seen
    assert any(line.startswith("**Trained") for line in seen), seen
    artifact = next(a["id"] for a in up.get("/artifacts/filter", {}) if a["key"] == "clicks-backfill")
    tab.open(f"{up.url}/artifacts/artifact/{artifact}", width=1280, height=1100)
    tab.wait_for("document.body.innerText.includes('Done:')")
    text = tab.evaluate("document.body.innerText")
    for part in (f"Backfill of clicks, {first} to {last}", "Week", "Mon", "promoted", f"{last:%a} {last}"):
        assert part in text
    keep(tab, "backfill-calendar.png", height=1000)
    verdict = next(a["id"] for a in up.get("/artifacts/filter", {}) if a["key"] == "clicks-verdict")
    tab.open(f"{up.url}/artifacts/artifact/{verdict}", width=1280, height=1400)
    tab.wait_for("document.querySelectorAll('img').length >= 2")
    drawn = "[...document.images].every(image => image.complete && image.naturalWidth > 100)"
    tab.wait_for(drawn)
    keep(tab, "verdict.png", height=1400)
