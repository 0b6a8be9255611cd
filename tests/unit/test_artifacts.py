"""The verdict as markdown: figures, reasons, and nothing that data could smuggle in."""

import datetime as dt

import pytest

from deepfm.retraining import RunOutcome

DATE = dt.date(2026, 3, 4)


def markdown(**changes) -> str:
    from flows.artifacts import markdown as render

    return render("clicks", RunOutcome(date=DATE, **{"status": "not_promoted", **changes}))


def test_it_states_the_verdict_the_figures_and_every_reason():
    text = markdown(verdict="reject", version="2026-03-04-0123456789abcdef", challenger_auc=0.71, champion_auc=0.72,
                    reasons=("worse", "calibrated"))  # fmt: skip
    for part in ("was not promoted", "reject", "0.7100", "0.7200", "- worse", "- calibrated"):
        assert part in text


@pytest.mark.parametrize("hostile", ["<script>x</script>", "[a](http://b)", "a\n# head", "![x](y)", "`c` *d* _e_ |"])
def test_text_from_data_stays_text(hostile):
    (line,) = (line for line in markdown(reasons=(hostile,)).splitlines() if line.startswith("- "))
    assert "<script" not in line
    for character in "[]*`|#":
        assert line.count(character) == line.count(f"\\{character}")
