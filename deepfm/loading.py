"""From a log entry down to a loaded model: every byte is checked before the runtime sees it, every answer before use.

    log entry -> manifest (sha256) -> model file (size as listed, then sha256) -> structure -> session -> known answers

A read whose bytes are not what they should be is repeated once, since a body can be damaged on its way; then it is an
error.
"""

import datetime as dt
import logging
from collections.abc import Callable, Sequence
from copy import copy
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepfm import layout
from deepfm.columns import raw_columns, typed_column
from deepfm.documents import sha256_hex
from deepfm.errors import IntegrityError, UsageError
from deepfm.manifests import InputSpec, LogEntry, VersionManifest
from deepfm.onnx_file import MAX_FILE_BYTES
from deepfm.registry import Registry
from deepfm.scorer import Scorer
from deepfm.storage import ObjectStore, open_store

MAX_MANIFEST_BYTES = 64 * 1024**2
"""Largest manifest that is read: one of ten years of days takes a hundredth of it."""
GOLDEN_TOLERANCE = 1e-4
"""Largest difference of two probabilities that another processor may explain."""
_log = logging.getLogger(__name__)
_Read = TypeVar("_Read")


class VersionModel:
    """A loaded version, whose bytes were checked by `read_version`."""

    def __init__(self, manifest: VersionManifest, onnx_bytes: bytes, *, threads: int | None = None) -> None:
        """The model, ready to predict.

        Args:
            manifest: The version.
            onnx_bytes: Its model file.
            threads: Threads of one call; None lets the runtime take every core.

        Raises:
            IntegrityError: terminal; the file is not a model of this project, has other inputs, or does not give the
                probabilities that the manifest holds.
        """
        self.manifest = manifest
        self._scorer = Scorer(onnx_bytes, manifest.inputs, threads=threads)
        self._require_answers()

    @property
    def version(self) -> str:
        """Id of the version."""
        return self.manifest.version

    @property
    def logical_date(self) -> dt.date:
        """The version's holdout day; it was trained on the days before."""
        return self.manifest.logical_date

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The fields that `predict` needs, with their types."""
        return self.manifest.inputs

    def predict(self, data: object) -> NDArray[np.float32]:
        """The calibrated click probability of each row, float32 [N]; empty for no rows.

        Args:
            data: A mapping of columns (lists, numpy arrays, columns of pandas, polars or Arrow), a table of these
                libraries, or a list of rows, each a mapping. The module says what a field's values may be.

        Raises:
            UsageError: terminal; one line that names the first field which is absent or of another type or length.
        """
        if isinstance(data, Sequence) and len(data) == 0 and not isinstance(data, str | bytes):
            return np.empty(0, dtype=np.float32)
        columns = raw_columns(data, self.inputs)
        return self._scorer.probabilities(
            {field.name: typed_column(columns[field.name], field) for field in self.inputs}
        )

    def _require_answers(self) -> None:
        """A row of missing values has a probability, and the manifest's golden rows have theirs, to 1e-4."""
        nothing = {field.name: [None] for field in self.inputs}
        (probability,) = self.predict(nothing)
        self._require_close([float(probability)], [0.5], within=0.5)
        golden = self.manifest.golden
        if golden is None:
            return
        try:
            scores = self.predict(golden.rows)
        except UsageError as cause:
            raise IntegrityError("golden rows do not fit the model", observed=cause, where=self.version) from cause
        self._require_close(scores.tolist(), golden.probabilities, within=GOLDEN_TOLERANCE)

    def _require_close(self, scores: Sequence[float], expected: Sequence[float], *, within: float) -> None:
        for row, (score, target) in enumerate(zip(scores, expected, strict=True)):
            # Written so that NaN fails.
            if not abs(score - target) <= within:
                raise IntegrityError(
                    "model file answers otherwise than it should",
                    observed=f"{score:.6f} for row {row}",
                    required=f"{target:.6f} within {within:g}",
                    where=self.version,
                    next_step="Check the version of onnxruntime here; if it is another file, publish again.",
                )


class ChampionModel(VersionModel):
    """The model that the log's head named when it was opened, verified from the log entry down to the bytes."""

    def __init__(
        self, *, entry: LogEntry, manifest: VersionManifest, onnx_bytes: bytes, threads: int | None = None
    ) -> None:
        """A champion whose bytes have been checked against its manifest; `open` does that."""
        super().__init__(manifest, onnx_bytes, threads=threads)
        self.entry = entry

    @classmethod
    def open(cls, store_url: str, model: str, *, threads: int | None = None) -> Self:
        """The current champion, loaded from bytes that match every digest above them. Needs read rights only.

        Args:
            store_url: `file://` folder or `s3://bucket/prefix`.
            model: Name of the model.
            threads: Threads of one call; None lets the runtime take every core.

        Raises:
            NotFoundError: terminal; nothing has been promoted yet.
            IntegrityError: terminal; a digest, a size or the file's structure is not what it should be.
            StoreUnavailableError: transient; the store did not answer in time.
        """
        store = open_store(store_url)
        return cls.load(store, Registry(store, model).champion(), threads=threads)

    @classmethod
    def load(cls, store: ObjectStore, entry: LogEntry, *, threads: int | None = None) -> Self:
        """The version that a log entry names, verified and loaded.

        Raises:
            IntegrityError, NotFoundError, StoreUnavailableError: as `open`.
        """
        try:
            layout.checked_version(entry.version)
        except UsageError as cause:
            where = f"log entry {entry.sequence}"
            raise IntegrityError("log names a version that cannot be", observed=cause.observed, where=where) from cause
        manifest, onnx_bytes = read_version(store, entry.model, entry.version, manifest_sha256=entry.manifest_sha256)
        return cls(entry=entry, manifest=manifest, onnx_bytes=onnx_bytes, threads=threads)

    def under(self, entry: LogEntry) -> Self:
        """The same loaded model under a later log entry that names the same version."""
        later = copy(self)
        later.entry = entry
        return later

    @property
    def sequence(self) -> int:
        """Number of the log entry that made it the champion."""
        return self.entry.sequence


def read_version(
    store: ObjectStore, model: str, version: str, *, manifest_sha256: str | None = None
) -> tuple[VersionManifest, bytes]:
    """The manifest of a version and the bytes of its model file, which match every digest above them.

    Args:
        store: Where the version is.
        model: Name of the model.
        version: Id of the version.
        manifest_sha256: Digest of the manifest, where a log entry or a decision names it.

    Raises:
        NotFoundError: terminal; the version or its model file is not there.
        IntegrityError: terminal; a digest or a size is not what it should be.
        StoreUnavailableError: transient; the store did not answer in time.
    """
    key = layout.version_manifest(model, version)
    size = _listed_bytes(store, layout.version_prefix(model, version), key)
    _require_at_most("manifest", size or 0, MAX_MANIFEST_BYTES, where=key)

    def read() -> VersionManifest:
        manifest, digest = Registry(store, model).manifest(version)
        _require_equal("manifest's digest", digest, manifest_sha256 or digest, where=version)
        _require_equal("manifest's logical date", manifest.logical_date, layout.version_date(version), where=version)
        return manifest

    manifest = read_twice(read)
    return manifest, read_model(store, manifest)


def read_model(store: ObjectStore, manifest: VersionManifest) -> bytes:
    """The bytes of a version's model file, equal in size and digest to what the manifest says.

    Nothing is read of a file that is listed with another size, or that passes the 1.8 GiB of every model file.

    Args:
        store: Where the version is.
        manifest: The version.

    Raises:
        IntegrityError: terminal; the manifest names no model file, or the stored bytes are others.
        NotFoundError: terminal; the file is gone.
    """
    entry = manifest.files.get(layout.MODEL_FILE)
    if entry is None:
        raise IntegrityError(f"version {manifest.version} has no {layout.MODEL_FILE}")
    folder = _attempt_folder(manifest)
    key = layout.file_key(folder, layout.MODEL_FILE)
    _require_at_most(layout.MODEL_FILE, entry.size_bytes, MAX_FILE_BYTES, where=key)
    listed = _listed_bytes(store, folder, key)
    if listed is not None:
        _require_equal("size in bytes", listed, entry.size_bytes, where=key)

    def read() -> bytes:
        data = store.read(key)
        _require_equal("size in bytes", len(data), entry.size_bytes, where=key)
        _require_equal("digest", sha256_hex(data), entry.sha256, where=key)
        return data

    return read_twice(read)


def read_twice(read: Callable[[], _Read]) -> _Read:
    """What a call reads; if what it read was damaged, what it reads the second time.

    Raises:
        IntegrityError: terminal; it was damaged twice.
    """
    try:
        return read()
    except IntegrityError as damage:
        _log.warning("read once more: %s", damage)
    return read()


def _attempt_folder(manifest: VersionManifest) -> str:
    try:
        return layout.attempt_prefix(manifest.model, manifest.version, manifest.attempt)
    except UsageError as cause:
        raise IntegrityError("manifest names an attempt that cannot be", observed=cause) from cause


def _listed_bytes(store: ObjectStore, prefix: str, key: str) -> int | None:
    """Size of an object before it is read; None if it is not there."""
    return next((found.size_bytes for found in store.list(prefix) if found.key == key), None)


def _require_at_most(what: str, size_bytes: int, limit: int, *, where: str) -> None:
    if size_bytes > limit:
        raise IntegrityError(f"{what} is too large", observed=size_bytes, required=f"at most {limit}", where=where)


def _require_equal(what: str, observed: object, expected: object, *, where: str) -> None:
    if observed != expected:
        raise IntegrityError(f"{what} does not match", observed=observed, required=str(expected), where=where)
