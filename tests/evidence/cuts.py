"""Claims about runs in which any one call goes wrong, or is the last one before a kill."""

import logging
import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from tests.cut_runs import Recorded, Tried, after_kill_in, every_disk_fault, every_fault, every_kill, record
from tests.evidence.lines import Line

_PROCESSES = 2
_SEEDS = (0, 1, 2)
_INSTANTS = 150


def nth(folder: Path) -> Iterator[Line]:
    """Each call of a run that has a champion to beat meets each fault that can befall it; then the run starts again."""
    runs = _quietly_recorded(folder)[1:]
    yield _line("the n-th call of a run fails, for every n and kind of fault", _everywhere(every_fault, runs))
    yield _line("the n-th call of the disk fails, for every n", _everywhere(every_disk_fault, runs))


def kills(folder: Path) -> Iterator[Line]:
    """SIGKILL at each call of two runs over three sets of clicks, and at random instants; then the run starts again."""
    runs = _quietly_recorded(folder, seeds=_SEEDS)
    at_calls = _everywhere(every_kill, runs)
    yield _line("killed before every call of a run, and after every change", at_calls)
    at_instants = _at_random(runs)
    yield _line("killed at a random instant", at_instants)
    times = at_calls.times + at_instants.times
    yield Line("kills in all", str(times), "at least 1000", times >= 1000)


def _quietly_recorded(folder: Path, *, seeds: Sequence[int] = (0,)) -> list[Recorded]:
    # One thread, for a child that is forked has no others; and a fault is no news here.
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    return [run for seed in seeds for run in record(folder / str(seed), seed=seed)]


def _everywhere(what: Callable[[Recorded, str], Tried], runs: Sequence[Recorded]) -> Tried:
    """The same thing tried at every stage of every run."""
    tasks = [partial(what, run, stage) for run in runs for stage in run.pictures]
    return _together(tasks)


def _at_random(runs: Sequence[Recorded]) -> Tried:
    chances = random.Random(0)
    tasks = []
    for _ in range(_INSTANTS):
        run = chances.choice(runs)
        stage = chances.choice([*run.pictures])
        tasks.append(partial(after_kill_in, run, stage, seconds=chances.random() * run.seconds[stage]))
    return _together(tasks)


def _together(tasks: Sequence[Callable[[], Tried]]) -> Tried:
    with ProcessPoolExecutor(_PROCESSES, mp_context=multiprocessing.get_context("fork")) as pool:
        done = [pool.submit(task) for task in tasks]
        tried = [future.result() for future in done]
    return Tried(sum(one.times for one in tried), [said for one in tried for said in one.wrong])


def _line(claim: str, tried: Tried) -> Line:
    said = f"{tried.times} times, {len(tried.wrong)} wrong{': ' + tried.wrong[0] if tried.wrong else ''}"
    bar = "typed error or success; the same bucket"
    return Line(claim, said, bar, tried.times > 0 and not tried.wrong)
