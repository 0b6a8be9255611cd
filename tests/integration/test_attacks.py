"""What somebody with the right to write can put before a consumer, and that none of it is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.documents import EVERY_ATTACK
from tests.tiny_models import version_of

ROOT = Path(__file__).parents[2]
SECONDS = 20.0
"""Bar of one attack on a machine that is busy; the longest takes a third of a second."""
NEEDS_THE_RUNTIME = {
    "other inputs",
    "no inputs",
    "golden rows that are not answered so",
    "golden rows of other fields",
}
"""Model files that are sound: only the loaded model shows that it is not what its manifest says."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("attacks")
    (place / "outside").mkdir()
    (place / "outside" / "secret").write_bytes(b"secret")
    return place


@pytest.fixture(scope="module")
def outcomes(place):
    """What the consumer made of every attack, in a process whose memory and time are bounded."""
    command = [sys.executable, "-m", "tests.attacks.consumer", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)
    return json.loads(done.stdout)


@pytest.mark.parametrize("attack", EVERY_ATTACK)
def test_an_attack_is_refused_in_one_line_and_the_old_model_serves_on(outcomes, attack):
    outcome = outcomes[attack]
    assert outcome["error"] == "IntegrityError"
    assert outcome["line"].isprintable()
    assert outcome["served"] == [version_of(1), 1, True]
    assert outcome["seconds"] < SECONDS


@pytest.mark.parametrize("attack", EVERY_ATTACK)
def test_the_runtime_never_sees_a_malicious_file(outcomes, attack):
    assert outcomes[attack]["sessions"] == int(attack in NEEDS_THE_RUNTIME)


def test_nothing_outside_the_stores_is_touched(outcomes, place):
    assert len(outcomes) == len(EVERY_ATTACK)
    assert [path.name for path in (place / "outside").iterdir()] == ["secret"]
    assert (place / "outside" / "secret").read_bytes() == b"secret"
    assert {path.name for path in place.iterdir()} == {"outside", *(f"store-{i}" for i in range(len(EVERY_ATTACK)))}


def test_there_are_attacks_of_every_kind():
    assert len(EVERY_ATTACK) >= 30
