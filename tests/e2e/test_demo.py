"""The demo as a newcomer runs it: twice, in processes of its own; then the README's consumer on its store."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_demo(folder: Path) -> tuple[str, float]:
    began = time.monotonic()
    environment = {**os.environ, "DEMO_DIR": str(folder / "demo")}
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]
    assert "Traceback" not in done.stdout
    assert "\x1b" not in done.stdout
    return done.stdout, time.monotonic() - began


def lines_with(output: str, words: str) -> list[str]:
    return [line for line in output.splitlines() if words in line]


def test_clicks_become_a_champion_that_a_consumer_uses(tmp_path):
    output, first = run_demo(tmp_path)
    log = tmp_path / "demo" / "store" / "models" / "clicks" / "log"
    entries = [json.loads(path.read_text()) for path in sorted(log.glob("*.json"))]
    assert len(entries) >= 2, output  # the champion changes hands
    for entry in entries:
        assert len(lines_with(output, entry["version"])) >= 1  # in the table, whole
    refused = output.partition("2026-03-08  data_rejected")[2].partition("2026-03-09")[0]
    for name in ("ctr of the day", "null_share of brand", "in_range of price"):
        assert name in refused
    assert all(entry["logical_date"] != "2026-03-08" for entry in entries)
    (champion,) = lines_with(output, "Champion ")
    assert entries[-1]["version"] in champion
    ratio = re.search(r"sum of true probabilities ([\d.]+)", champion)
    assert ratio is not None
    assert 0.9 < float(ratio[1]) < 1.1
    again, second = run_demo(tmp_path)
    assert second < first / 2
    assert [json.loads(path.read_text()) for path in sorted(log.glob("*.json"))] == entries
    assert lines_with(again, "Champion ") == [champion]
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    block = next(text for text in blocks if "predict" in text)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
