"""Claims about backfills through Prefect: nothing is left behind, little is lost on starts, kills change nothing."""

import datetime as dt
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepfm.backfilling import backfill, dates_between
from deepfm.config_file import load_config
from deepfm.layout import day_result
from deepfm.storage import open_store
from deepfm.synthetic.config import preset_world
from deepfm.synthetic.delivery import write_world
from deepfm.workspace import open_workspace
from tests.e2e.server import Up, everything_up, kill, wait
from tests.evidence.lines import Line

_FIRST = dt.date(2026, 3, 2)
_ROWS = 3_000
_DAYS, _DATES = 37, 30
_OVERHEAD_SECONDS = 3.0
"""What Prefect and the starts of processes may cost for each date of a backfill."""
_TOML = """
model = "clicks"
[data]
source = "{source}"
event_time = "event_time"
event_key = "impression_id"
group = "user_id"
[fields]
user_id = {{ kind = "categorical" }}
item_id = {{ kind = "categorical", dtype = "int64" }}
category = {{ kind = "categorical" }}
brand = {{ kind = "categorical" }}
price = {{ kind = "numeric" }}
[validation]
min_rows = 100
[window]
window_days = 7
min_days = 7
[training]
device = "cpu"
epochs = 2
[gate]
min_auc = 0.5
max_drop = 1.0
min_calibration = 0.1
max_calibration = 10.0
"""


def up_and_down_twice(folder: Path) -> Iterator[Line]:
    """Two lives of everything, each followed by silence."""
    left: list[str] = []
    for _ in range(2):
        with everything_up(folder / "up") as up:
            ports = _listening(up)
        left += [f"process {pid}" for pid in up.processes()]
        left += [f"port {port}" for port in ports if _answers(port)]
    yield Line("make up and make down, twice", ", ".join(left) or "nothing left", "no process, no port", not left)


def overhead(folder: Path) -> Iterator[Line]:
    """The same dates as plain calls, as a run of its own for each date, and as one backfill."""
    config = _world(folder)
    dates = dates_between(_FIRST + dt.timedelta(days=7), _FIRST + dt.timedelta(days=18))
    plain = _plain(config, folder / "plain", dates)
    with everything_up(folder / "up") as up:
        before = _one_by_one(up, config, folder / "before", dates[:6])
        after = _as_backfill(up, config, folder / "after", dates)
    each = plain / len(dates)
    lost_before, lost_after = before / 6 - each, after / len(dates) - each
    yield Line(
        f"fixed cost of a date in a backfill of {len(dates)} (data work {each:.1f} s)",
        f"a run and a training run for each date {lost_before:.1f} s, one backfill {lost_after:.1f} s",
        f"at most {_OVERHEAD_SECONDS:.0f} s a date",
        lost_after <= _OVERHEAD_SECONDS,
    )


def thirty_days(folder: Path) -> Iterator[Line]:
    """A backfill that is killed three times, beside one that is left in peace."""
    config = _world(folder)
    start = _FIRST + dt.timedelta(days=7)
    asked = {
        "start": start,
        "end": start + dt.timedelta(days=_DATES - 1),
        "config": str(config),
        "promote": "if newer than the champion",
    }
    with everything_up(folder / "up") as up:
        whole = up.start("backfill/range", **asked, store=(folder / "whole").as_uri())
        state = up.ended(whole, seconds=900)
        prepared = _task_runs(up, "prepare_day")
        yield Line("30 dates in one backfill", f"{state['name']}: {state['message']}", "Completed", _completed(state))
        yield Line(
            f"each of {_DAYS - 1} days is prepared once for {_DATES} windows",
            f"{prepared} preparations, {_prepared(folder / 'whole')} prepared days",
            f"{_DAYS - 1} and {_DAYS - 1}",
            prepared == _prepared(folder / "whole") == _DAYS - 1,
        )
        asked |= {"store": (folder / "killed").as_uri()}
        kills = []
        for number, moment in enumerate(("prepared", "trained", "gated"), start=1):
            run = up.start("backfill/range", **asked)
            at = wait(lambda moment=moment: _reached(folder / "killed", moment), seconds=300)  # type: ignore[misc]
            kill(*_of_run(up, run), *up.processes("deepfm.delegation"))
            kills.append(f"{number}: {at}")
            up.ended(run, seconds=60)
            wait(lambda: all(found["state_type"] != "RUNNING" for found in up.runs("train")), seconds=200)
        last = up.start("backfill/range", **asked)
        state = up.ended(last, seconds=900)
        same = _models(folder / "whole") == _models(folder / "killed")
        log = Counter(entry for entry in _promoted(folder / "killed"))
        yield Line(
            "the same, killed with SIGKILL three times",
            f"{'; '.join(kills)}; then {state['name']}; same ids and bytes: {same}; {len(log)} promoted, each once: "
            f"{set(log.values()) == {1}}",
            "the versions and bytes of the one left in peace",
            same and _completed(state) and set(log.values()) == {1} and set(log) == set(_promoted(folder / "whole")),
        )


def _world(folder: Path) -> Path:
    world = preset_world("demo", overrides={"start": _FIRST, "days": _DAYS, "rows_per_day": _ROWS})
    write_world(world, folder / "world")
    config = folder / "clicks.toml"
    config.write_text(_TOML.format(source=(folder / "world" / "clicks").as_uri()))
    return config


def _plain(config: Path, store: Path, dates: list[dt.date]) -> float:
    workspace = open_workspace(load_config(config), store_url=store.as_uri(), cache=store / "cache")
    began = time.monotonic()
    for _ in backfill(workspace, dates):
        continue
    return time.monotonic() - began


def _one_by_one(up: Up, config: Path, store: Path, dates: list[dt.date]) -> float:
    began = time.monotonic()
    for date in dates:
        run = up.start("retrain/backfill-day", logical_date=date, config=str(config), store=store.as_uri())
        assert _completed(up.ended(run, seconds=200))
    return time.monotonic() - began


def _as_backfill(up: Up, config: Path, store: Path, dates: list[dt.date]) -> float:
    began = time.monotonic()
    asked: dict[str, Any] = {"start": dates[0], "end": dates[-1], "config": str(config), "store": store.as_uri()}
    assert _completed(up.ended(up.start("backfill/range", **asked, max_parallel=1), seconds=600))
    return time.monotonic() - began


def _completed(state: dict[str, Any]) -> bool:
    return bool(state["type"] == "COMPLETED")


def _task_runs(up: Up, name: str) -> int:
    return int(up.get("/task_runs/count", {"task_runs": {"name": {"like_": name}}}))


def _prepared(store: Path) -> int:
    keys = [found.key for found in open_store(store.as_uri()).list("days")]
    days = {(day.logical_date, day.prepared) for key in keys if (day := day_result(key)) and day.prepared}
    return len(days)


def _reached(store: Path, moment: str) -> str:
    """What of a backfill is there, once it is in the middle of something."""
    prepared = len(list(store.glob("days/*/*/prepared-*/manifest.json")))
    trained = len(list(store.glob("training/*/*/result.json")))
    decided = len(list(store.glob("models/*/decisions/*/*/decision.json")))
    there = {
        "prepared": prepared >= 10,
        "trained": trained >= 8,
        "gated": decided >= 10,
    }[moment]
    return f"{prepared} prepared, {trained} trained, {decided} decided" if there else ""


def _of_run(up: Up, run: str) -> list[int]:
    return [pid for pid in up.processes("prefect.engine") if run.encode() in Path(f"/proc/{pid}/environ").read_bytes()]


def _models(store: Path) -> dict[str, bytes]:
    workspace = open_store(store.as_uri())
    keys = [found.key for found in workspace.list("models/clicks/versions") if found.key.endswith("/model.onnx")]
    return {key.split("/")[3]: workspace.read(key) for key in keys}


def _promoted(store: Path) -> list[str]:
    from deepfm.registry import Registry

    return [entry.version for entry in Registry(open_store(store.as_uri()), "clicks").entries()]


def _listening(up: Up) -> list[int]:
    import json

    ports: dict[str, int] = json.loads((up.folder / "ports.json").read_text())
    return list(ports.values())


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
