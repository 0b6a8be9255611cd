"""Resume states: the newest whole one is in force, and one that cannot be used never stops a training."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm.documents import sha256_hex
from deepfm.errors import IntegrityError
from deepfm.manifests import FileEntry
from deepfm.storage.local import LocalStore
from deepfm.training.checkpoint import ResumePointer, ResumeStates
from deepfm.weights import pack, unpack

PREFIX = "training/tiny/2026-03-04-0123456789abcdef"
TENSORS = {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.tensor(7, dtype=torch.int64)}
PLAIN = {"step": 3, "rates": [0.1, 1e-300], "best": None, "gain": float("-inf")}


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


@pytest.fixture
def states(store):
    return ResumeStates(store, PREFIX)


def assert_same(found, tensors=TENSORS, plain=PLAIN):
    assert found is not None
    assert found[1] == plain
    assert found[0].keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[0][name], tensor)
        assert found[0][name].dtype == tensor.dtype


def names(store):
    return [info.key.removeprefix(f"{PREFIX}/") for info in store.list(PREFIX)]


def test_there_is_no_state_before_the_first(states):
    assert states.load() is None


def test_a_state_is_given_back_whole_and_replaces_the_one_before(states, store):
    states.save(3, {"a": torch.zeros(2)}, {})
    states.save(7, TENSORS, PLAIN)
    assert_same(states.load())
    assert names(store) == ["resume-7.safetensors", "resume.json"]


def test_a_kill_between_state_and_pointer_leaves_the_older_state_in_force(states, store, monkeypatch):
    states.save(3, TENSORS, PLAIN)
    write = store.write

    def killed_at_the_pointer(key, data):
        if key.endswith("resume.json"):
            raise KeyboardInterrupt
        write(key, data)

    monkeypatch.setattr(store, "write", killed_at_the_pointer)
    with pytest.raises(KeyboardInterrupt):
        states.save(7, {"a": torch.ones(1)}, {})
    assert_same(states.load())


@pytest.mark.parametrize("name", ["resume.json", "resume-3.safetensors"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_damaged_state_means_starting_again(tmp_path_factory, name, data):
    store = LocalStore(tmp_path_factory.mktemp("s"))
    states = ResumeStates(store, PREFIX)
    states.save(3, TENSORS, PLAIN)
    whole = store.read(f"{PREFIX}/{name}")
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from(
            [whole[:position], whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :], b""]
        )
    )
    store.write(f"{PREFIX}/{name}", damaged)
    found = states.load()
    if found is not None:  # the flip hit a figure of the pointer that nothing depends on
        assert name == "resume.json"
        assert_same(found)


def plant(store, data: bytes, name: str = "resume-3.safetensors") -> None:
    """A state whose pointer vouches for it."""
    store.write(f"{PREFIX}/resume-3.safetensors", data)
    pointer = ResumePointer(
        step=3, name="resume-3.safetensors", file=FileEntry(sha256=sha256_hex(data), size_bytes=len(data))
    )
    plain = json.loads(pointer.to_bytes()) | {"name": name}
    store.write(f"{PREFIX}/resume.json", json.dumps(plain).encode())


def safetensors(header: dict[str, object]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"\xff" * 64,
        safetensors({}),
        safetensors({"__metadata__": {}}),
        safetensors({"__metadata__": {"plain": "{"}}),
        pack(TENSORS, PLAIN)[:-1],
    ],
    ids=["empty", "pickle", "noise", "no header", "no values", "broken values", "short"],
)
def test_what_is_no_state_is_refused_and_never_run(states, store, data):
    plant(store, data)
    assert states.load() is None
    with pytest.raises(IntegrityError, match="not a safetensors file of this system"):
        unpack(data, where="here")


@pytest.mark.parametrize("name", ["../../../etc/passwd", "resume-3.safetensors/..", "model.onnx", ""])
def test_a_pointer_elsewhere_is_not_followed(states, store, name):
    plant(store, pack(TENSORS, PLAIN), name)
    assert states.load() is None


def test_a_state_that_is_gone_means_starting_again(states, store):
    states.save(3, TENSORS, PLAIN)
    store.delete(f"{PREFIX}/resume-3.safetensors")
    assert states.load() is None


def test_clearing_leaves_what_is_no_state(states, store):
    states.save(3, TENSORS, PLAIN)
    store.write(f"{PREFIX}/resume-9.safetensors", b"left by a kill")
    store.write(f"{PREFIX}/result.json", b"{}")
    states.clear()
    assert names(store) == ["result.json"]
    states.clear()


def test_equal_states_have_equal_bytes():
    assert pack(TENSORS, PLAIN) == pack(dict(TENSORS), dict(PLAIN))
    assert_same(unpack(pack(TENSORS, PLAIN), where="here"))
