"""A slice of `make evidence-log`: calls of a run that fail, or are the last before a kill, around its promotion.

The rest of the run's calls, the other seeds and the random instants are measured there.
"""

import errno
import inspect
import os
from typing import Any

import pytest
import torch

from deepfm.config import RetrainConfig
from deepfm.errors import StoreUnavailableError
from deepfm.pipeline import evaluate, export_version, train_challenger
from tests.cut_runs import (
    Point,
    Recorded,
    after_fault,
    after_kill_in,
    every_disk_fault,
    every_fault,
    every_kill,
    record,
)


@pytest.fixture(scope="module")
def recorded(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> list[Recorded]:  # noqa: ARG001
    assert torch.get_num_threads() == 1
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.mark.parametrize(("which", "stage"), [(0, "promote 1"), (1, "decide 1"), (1, "promote 1")])
def test_a_run_killed_at_any_call_around_its_promotion_promotes_once(
    recorded: list[Recorded], which: int, stage: str
) -> None:
    tried = every_kill(recorded[which], stage)
    assert tried.times >= 3
    assert tried.wrong == []


def test_a_run_killed_at_any_instant_is_finished_by_the_next_one(recorded: list[Recorded]) -> None:
    run = recorded[1]
    instants = [part / 8 * run.seconds["decide 1"] for part in range(8)]
    tried = [after_kill_in(run, "decide 1", seconds=seconds) for seconds in instants]
    assert [said for one in tried for said in one.wrong] == []
    assert sum(one.times for one in tried) >= 4


def test_any_fault_at_any_call_of_a_promotion_is_a_typed_error_or_a_success(recorded: list[Recorded]) -> None:
    tried = every_fault(recorded[1], "promote 1")
    assert tried.times >= 40
    assert tried.wrong == []


def test_a_disk_that_fails_at_any_call_of_a_promotion_changes_nothing(recorded: list[Recorded]) -> None:
    tried = every_disk_fault(recorded[1], "promote 1")
    assert tried.times >= 15
    assert tried.wrong == []


class Unreadable:
    """A workspace on a disk that does not answer."""

    @property
    def config(self) -> RetrainConfig:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("stage", [train_challenger, export_version, evaluate])
def test_a_local_file_that_cannot_be_read_is_a_typed_error(stage: Any) -> None:
    arguments = dict.fromkeys(list(inspect.signature(stage).parameters)[1:])
    with pytest.raises(StoreUnavailableError, match="Input/output error"):
        stage(Unreadable(), **arguments)


def test_a_point_that_the_run_does_not_come_to_is_said(recorded: list[Recorded]) -> None:
    point = Point("promote 1", 99, "create", "nowhere")
    assert any("did not come to it" in said for said in after_fault(recorded[1], point, "lost"))
