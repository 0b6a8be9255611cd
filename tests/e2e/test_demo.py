"""The demo as a newcomer runs it: twice, in processes of its own; then the README's consumer on its store."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_demo(folder: Path) -> tuple[str, float]:
    began = time.monotonic()
    environment = {**os.environ, "DEMO_DIR": str(folder / "demo"), "COLUMNS": "160"}
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout, time.monotonic() - began


def test_clicks_become_a_champion_that_a_consumer_uses(tmp_path):
    output, first = run_demo(tmp_path)
    refused = next(line for line in output.splitlines() if "data_rejected" in line)
    for name in ("2026-03-08", "ctr of the day", "null_share of brand", "in_range of price"):
        assert name in refused
    entries = sorted((tmp_path / "demo" / "store" / "models" / "clicks" / "log").glob("*.json"))
    assert len(entries) >= 2, output
    ratio = re.search(r"sum of true probabilities ([\d.]+)", output)
    assert ratio is not None
    assert 0.9 < float(ratio[1]) < 1.1
    again, second = run_demo(tmp_path)
    assert second < first / 2
    assert sorted((tmp_path / "demo" / "store" / "models" / "clicks" / "log").glob("*.json")) == entries
    assert again.splitlines()[-3] == output.splitlines()[-3]  # the same champion, the same figures
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    block = next(text for text in blocks if "predict" in text)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
