"""Stored documents: canonical bytes, finite figures, and a format that older readers can trust."""

import datetime as dt
import json
import math
import os
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deepfm.curves import Curves
from deepfm.delegation import TrainingRequest
from deepfm.documents import Document, Part, sha256_hex, stage_key
from deepfm.errors import IntegrityError
from deepfm.manifests import (
    Comparison,
    CurvePoint,
    Decision,
    EvaluationReport,
    Finding,
    LogEntry,
    Normalisation,
    PreparedDay,
    TrainingResult,
    ValidationReport,
    VersionManifest,
    Window,
    WindowDay,
)
from deepfm.moments import Moments
from deepfm.synthetic.delivery import WorldManifest
from deepfm.training.checkpoint import ResumePointer
from tests.factories import decision, entry, manifest

GOLDEN = Path(__file__).parents[1] / "golden" / "documents"
DOCUMENTS = [
    Curves,
    Decision,
    LogEntry,
    PreparedDay,
    ResumePointer,
    TrainingRequest,
    TrainingResult,
    ValidationReport,
    VersionManifest,
    Window,
    WorldManifest,
]
EXAMPLES: list[Document] = [decision(), entry(1), manifest(), manifest().window]


def altered(document: Document, **changes: Any) -> bytes:
    return json.dumps(json.loads(document.to_bytes()) | changes).encode()


@pytest.mark.parametrize("document", EXAMPLES, ids=lambda document: type(document).__name__)
def test_what_is_written_is_read_back(document):
    assert type(document).from_bytes(document.to_bytes(), where="here") == document


@pytest.mark.parametrize("document", EXAMPLES, ids=lambda document: type(document).__name__)
def test_bytes_are_canonical(document):
    data = document.to_bytes()
    plain = json.loads(data)
    assert data == json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    shuffled = json.dumps(dict(reversed(plain.items()))).encode()
    assert type(document).from_bytes(shuffled, where="here").to_bytes() == data


@pytest.mark.parametrize("document", EXAMPLES, ids=lambda document: type(document).__name__)
def test_an_unknown_field_is_ignored_and_a_newer_schema_refused(document):
    kind = type(document)
    assert kind.from_bytes(altered(document, later_addition={"x": 1}), where="here") == document
    with pytest.raises(IntegrityError, match="written by a newer release: schema version 2, required at most 1"):
        kind.from_bytes(altered(document, schema_version=2), where="here")


def test_a_newer_schema_is_told_from_damage_even_if_its_fields_changed():
    with pytest.raises(IntegrityError, match="newer release"):
        LogEntry.from_bytes(b'{"schema_version": 7, "sequence": "one"}', where="log")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "LogEntry is damaged"),
        (b"[]", "LogEntry is damaged"),
        (b"\xff\x00", "LogEntry is damaged"),
        (b"{}", "is damaged: model: Field required"),
        (altered(entry(1), sequence=0), "is damaged: sequence"),
        (altered(entry(1), manifest_sha256="abc"), "is damaged: manifest_sha256"),
        (altered(entry(1), operation="deploy"), "is damaged: operation"),
        (altered(entry(1), schema_version="x"), "is damaged: schema_version"),
    ],
)
def test_damage_is_named(data, words):
    with pytest.raises(IntegrityError) as caught:
        LogEntry.from_bytes(data, where="s3://bucket/log")
    assert words in str(caught.value)
    assert "s3://bucket/log" in str(caught.value)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data):
    with pytest.raises(IntegrityError):
        Decision.from_bytes(data, where="here")


def parts(root: type[Part] = Part) -> set[type[Part]]:
    return {root, *(found for child in root.__subclasses__() for found in parts(child))}


def holds_float(annotation: Any) -> bool:
    return annotation is float or any(holds_float(inner) for inner in get_args(annotation))


def float_fields() -> list[tuple[type[Part], str]]:
    return sorted(
        (
            (part, name)
            for part in parts()
            if part.__module__.startswith("deepfm.")
            for name, info in part.model_fields.items()
            if holds_float(info.annotation)
        ),
        key=lambda found: (found[0].__name__, found[1]),
    )


def test_the_search_for_figures_finds_them():
    found = {(part.__name__, name) for part, name in float_fields()}
    assert {("Comparison", "error"), ("EvaluationReport", "auc"), ("CurvePoint", "validation_loss")} <= found


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("part", "name"), float_fields(), ids=str)
def test_no_figure_is_nan_or_infinite(part, name, figure):
    with pytest.raises(ValidationError) as caught:
        part.model_validate({name: figure})
    assert (name,) in [error["loc"] for error in caught.value.errors() if error["type"] != "missing"]


@pytest.mark.parametrize(
    "part",
    [
        Comparison(difference=0.1, error=0.0),
        CurvePoint(step=1, train_loss=0.5, learning_rate=0.1),
        Moments(count=0, mean=0.0, m2=0.0),
        Normalisation(mean=0.0, deviation=1.0),
    ],
    ids=lambda part: type(part).__name__,
)
def test_parts_are_frozen(part):
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part, next(iter(type(part).model_fields)), 3)


def test_a_finding_speaks_in_one_line():
    finding = Finding(
        rule="null_share", column="brand", severity="critical", passed=False, observed="0.5", required="at most 0.2"
    )
    assert finding.sentence == "null_share of brand: 0.5, required at most 0.2"
    assert finding.model_copy(update={"column": "*"}).sentence.startswith("null_share of the day: ")


def test_a_window_weighs_negatives_as_the_loss_does():
    days = [(100, 20, 0.5), (300, 10, 0.25)]
    window = manifest().window.model_copy(
        update={
            "keep_rate": 0.25,
            "days": tuple(
                WindowDay(
                    logical_date=dt.date(2026, 3, 1 + i), key="k", sampled_rows=rows, clicks=clicks, keep_rate=rate
                )
                for i, (rows, clicks, rate) in enumerate(days)
            ),
        }
    )
    assert (window.sampled_rows, window.clicks) == (400, 30)
    assert window.weighted_negatives == pytest.approx(80 * 0.25 / 0.5 + 290 * 1.0)


def test_a_stage_key_depends_on_every_part_and_on_no_order_of_keys():
    key = stage_key(1, {"a": 1, "b": [2, 3]}, dt.date(2026, 3, 4))
    assert key == stage_key(1, {"b": [2, 3], "a": 1}, dt.date(2026, 3, 4))
    assert len(key) == 16
    assert int(key, 16) >= 0
    others = [
        stage_key(2, {"a": 1, "b": [2, 3]}, dt.date(2026, 3, 4)),
        stage_key(1, {"a": 1, "b": [3, 2]}, dt.date(2026, 3, 4)),
        stage_key(1, {"a": 1, "b": [2, 3]}, dt.date(2026, 3, 5)),
        stage_key(1, {"a": "1", "b": [2, 3]}, dt.date(2026, 3, 4)),
    ]
    assert len({key, *others}) == 5


def test_a_stage_key_tells_nan_from_a_word_of_its_own_kind():
    assert stage_key(math.nan) != stage_key(None)


def test_stage_keys_do_not_move():
    """A key that moves makes every stored day, window and version look new."""
    plain = json.dumps([1, {"a": [0.1, None], "b": "2026-03-04"}], separators=(",", ":")).encode()
    assert stage_key(1, {"b": dt.date(2026, 3, 4), "a": (0.1, None)}) == sha256_hex(plain)[:16]


def test_every_document_has_a_golden_schema():
    found = {kind for kind in parts(Document) if kind.__module__.startswith("deepfm.")} - {Document}
    assert found == set(DOCUMENTS)
    assert {path.stem for path in GOLDEN.glob("*.json")} == {kind.__name__ for kind in DOCUMENTS}


@pytest.mark.parametrize("kind", DOCUMENTS, ids=lambda kind: kind.__name__)
def test_the_schema_on_disk_is_the_golden_one(kind):
    """A change here changes what older releases read: raise SCHEMA if they cannot, then UPDATE_GOLDEN=1."""
    path = GOLDEN / f"{kind.__name__}.json"
    current = {"version": kind.SCHEMA, "schema": without_words(kind.model_json_schema())}
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(current, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == current


def without_words(schema: Any) -> Any:
    """A schema without descriptions and titles: better words are no change of format."""
    if isinstance(schema, dict):
        named = {"properties", "$defs"}
        return {
            key: {name: without_words(item) for name, item in value.items()} if key in named else without_words(value)
            for key, value in schema.items()
            if key not in {"description", "title"}
        }
    return [without_words(item) for item in schema] if isinstance(schema, list) else schema


def test_a_report_of_one_version_refuses_an_impossible_auc():
    with pytest.raises(ValidationError):
        EvaluationReport.model_validate(decision().challenger.model_dump() | {"auc": 1.5})
