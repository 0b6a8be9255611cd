"""A store in memory, and what can happen between any store and whoever calls it.

`Faulty` stands in front of a store and asks, before each call, what is to become of it. The answer names one of the
faults below, or is a function of the call: one that kills the process, or that lets somebody else go first.
"""

import itertools
import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from deepfm.errors import AccessDeniedError, AlreadyExistsError, NoSpaceError, NotFoundError, StoreUnavailableError
from deepfm.storage import ObjectStore
from deepfm.storage.local import checked_key, disk_errors
from deepfm.storage.protocol import ObjectInfo, require_length


class FakeStore:
    """An `ObjectStore` in memory; one lock makes every call a single step."""

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        self._lock = threading.Lock()
        self._writes = itertools.count(1)
        self._objects = {key: (data, next(self._writes)) for key, data in (objects or {}).items()}

    @property
    def url(self) -> str:
        return "memory://store"

    def objects(self) -> dict[str, bytes]:
        """Everything that is stored."""
        with self._lock:
            return {key: data for key, (data, _) in self._objects.items()}

    def read(self, key: str, *, most_bytes: int | None = None) -> bytes:
        with self._lock:
            data = self._found(key)
        require_length(len(data), most_bytes, where=f"{self.url}/{key}")
        return data

    def write(self, key: str, data: bytes) -> None:
        with self._lock:
            self._objects[checked_key(key)] = (bytes(data), next(self._writes))

    def create(self, key: str, data: bytes) -> None:
        with self._lock:
            if checked_key(key) in self._objects:
                raise AlreadyExistsError("object exists already", where=f"{self.url}/{key}")
            self._objects[key] = (bytes(data), next(self._writes))

    def upload(self, key: str, path: Path) -> None:
        with disk_errors(self.url):
            data = path.read_bytes()
        self.write(key, data)

    def fetch(self, key: str, *, scratch: Path) -> Path:
        return _put_into(scratch, self.read(key))

    def list(self, prefix: str) -> list[ObjectInfo]:
        start = f"{checked_key(prefix)}/" if prefix else ""
        with self._lock:
            return sorted(
                ObjectInfo(key, len(data), tag=str(write), changed_ns=write)
                for key, (data, write) in self._objects.items()
                if key.startswith(start)
            )

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(checked_key(key), None)

    def _found(self, key: str) -> bytes:
        if checked_key(key) not in self._objects:
            raise NotFoundError("object is not there", where=f"{self.url}/{key}")
        return self._objects[key][0]


class Call(NamedTuple):
    """A call that is about to be made."""

    number: int
    """How many calls this is, counted from 1."""
    operation: str
    key: str
    store: ObjectStore
    """Whom it would reach."""
    apply: Callable[[], Any]
    """Makes it, and returns or raises what the store does."""
    data: bytes = b""
    """What it would store."""
    older: bytes | None = None
    """What the key held before it held what was last seen there."""
    scratch: Path = Path()
    """Where a fetched file would go."""


Effect = Callable[[Call], Any]
Choice = Callable[[Call], Effect | str | None]


def _lost(call: Call) -> None:
    call.apply()
    raise StoreUnavailableError("answer was lost")


def _dropped(_: Call) -> None:
    raise StoreUnavailableError("request was lost")


def _full(_: Call) -> None:
    raise NoSpaceError("disk is full")


def _denied(_: Call) -> None:
    raise AccessDeniedError("access is denied")


def _stale(call: Call) -> Any:
    """As before the last change: a listing without its newest object, an older body, or none."""
    if call.operation == "list":
        listed: list[ObjectInfo] = call.apply()
        newest = max(listed, key=lambda info: info.changed_ns, default=None)
        return [info for info in listed if info is not newest]
    if call.older is None:
        raise NotFoundError("object is not there", where=call.key)
    return call.older if call.operation == "read" else _put_into(call.scratch, call.older)


def _deleted(call: Call) -> Any:
    call.store.delete(call.key)
    return call.apply()


def _cut(call: Call) -> Any:
    return _damaged(call, lambda data: data[: len(data) // 2])


def _flipped(call: Call) -> Any:
    return _damaged(call, lambda data: data[:-1] + bytes([data[-1] ^ 1]) if data else data)


def _unconditional(call: Call) -> None:
    call.store.write(call.key, call.data)


def _damaged(call: Call, damage: Callable[[bytes], bytes]) -> Any:
    whole = call.apply()
    return damage(whole) if isinstance(whole, bytes) else _put_into(call.scratch, damage(whole.read_bytes()))


def _put_into(scratch: Path, data: bytes) -> Path:
    path = scratch / uuid4().hex
    with disk_errors(str(scratch)):
        scratch.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path


READS, CHANGES = {"read", "fetch"}, {"write", "create", "upload", "delete"}
FAULTS: dict[str, tuple[Effect, set[str]]] = {
    "lost": (_lost, CHANGES),
    "dropped": (_dropped, CHANGES),
    "silent": (_dropped, {*READS, "list"}),
    "full": (_full, CHANGES - {"delete"}),
    "denied": (_denied, {*READS, *CHANGES, "list"}),
    "stale": (_stale, {*READS, "list"}),
    "deleted": (_deleted, READS),
    "cut": (_cut, READS),
    "flipped": (_flipped, READS),
    "unconditional": (_unconditional, {"create"}),
}
"""What may befall which calls."""


def by_chance(seed: object, shares: Mapping[str, float]) -> Choice:
    """Each call meets each fault with a given probability, in the order that the seed gives."""
    chances = random.Random(str(seed))

    def choose(call: Call) -> str | None:
        drawn = chances.random()
        for fault, share in shares.items():
            if call.operation in FAULTS[fault][1]:
                drawn -= share
                if drawn < 0:
                    return fault
        return None

    return choose


def at_call(number: int, what: Effect | str) -> Choice:
    """The call of that number, counted from 1, meets something; the others pass."""
    return lambda call: what if call.number == number else None


class Faulty:
    """A store whose calls meet what a choice says; a fault that cannot befall a call lets it pass."""

    def __init__(self, store: ObjectStore, choose: Choice) -> None:
        self._store, self._choose = store, choose
        self._numbers = itertools.count(1)
        self._seen: dict[str, tuple[bytes | None, bytes]] = {}
        self.calls = 0
        self.fired: list[str] = []

    @property
    def url(self) -> str:
        return self._store.url

    def read(self, key: str, *, most_bytes: int | None = None) -> bytes:
        data: bytes = self._meet("read", key, lambda: self._store.read(key, most_bytes=most_bytes))
        self._saw(key, data)
        return data

    def write(self, key: str, data: bytes) -> None:
        self._meet("write", key, lambda: self._store.write(key, data), data)
        self._saw(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._meet("create", key, lambda: self._store.create(key, data), data)
        self._saw(key, data)

    def upload(self, key: str, path: Path) -> None:
        self._meet("upload", key, lambda: self._store.upload(key, path))

    def fetch(self, key: str, *, scratch: Path) -> Path:
        path: Path = self._meet("fetch", key, lambda: self._store.fetch(key, scratch=scratch), scratch=scratch)
        return path

    def list(self, prefix: str) -> list[ObjectInfo]:
        found: list[ObjectInfo] = self._meet("list", prefix, lambda: self._store.list(prefix))
        return found

    def delete(self, key: str) -> None:
        self._meet("delete", key, lambda: self._store.delete(key))

    def _meet(
        self, operation: str, key: str, apply: Callable[[], Any], data: bytes = b"", *, scratch: Path = Path()
    ) -> Any:
        older = self._seen.get(key, (None, b""))[0]
        self.calls = next(self._numbers)
        call = Call(self.calls, operation, key, self._store, apply, data, older, scratch)
        what = self._choose(call)
        if isinstance(what, str):
            effect, befalls = FAULTS[what]
            what = effect if operation in befalls else None
        if what is None:
            return apply()
        self.fired.append(f"{operation} {key}")
        return what(call)

    def _saw(self, key: str, data: bytes) -> None:
        last = self._seen.get(key)
        if last is None or last[1] != data:
            self._seen[key] = (last[1] if last else None, data)
