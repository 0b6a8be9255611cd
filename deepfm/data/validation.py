"""Great Expectations as the rule book: a suite over the profile frame of a day, mapped to our typed report.

The rows themselves are never handed to Great Expectations: it passes empty frames, all-null columns and one-class days,
and its cost grows with the rows. The frame is a few dozen figures whatever the size of the day.
"""

import json
import logging
import math
import threading
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import pandas as pd
import pyarrow as pa

from deepfm.config import RetrainConfig
from deepfm.data.profile import DAY, DayFigures
from deepfm.data.schema import check_schema, columns_of
from deepfm.manifests import Finding

Severity = Literal["critical", "warning", "info"]
_one_at_a_time = threading.Lock()
"""Great Expectations keeps the current context in a global: two threads would judge each other's frames."""


class Rule(NamedTuple):
    """One figure of the profile frame and the interval that it must lie in."""

    name: str
    column: str
    figure: str
    minimum: float | None
    maximum: float | None
    severity: Severity = "critical"
    key: str = ""
    """Configuration key that sets it."""


class Judgement(NamedTuple):
    """The rules applied, and Great Expectations' own result for people who know it."""

    findings: tuple[Finding, ...]
    native_json: bytes


def check_files(schemas: dict[str, pa.Schema], config: RetrainConfig) -> tuple[Finding, ...]:
    """What the schemas of a day's files alone tell: broken rules are critical, columns not used are news."""
    findings = [finding for key, schema in schemas.items() for finding in check_schema(schema, config, where=key)]
    used = {column.name for column in columns_of(config)}
    extra = sorted({name for schema in schemas.values() for name in schema.names} - used)
    if extra:
        observed = ", ".join(extra[:8]) + (f" and {len(extra) - 8} more" if len(extra) > 8 else "")
        findings.append(
            Finding(
                rule="column_used", column=DAY, severity="info", passed=False,
                observed=observed, required="columns that the configuration names",
            )
        )  # fmt: skip
    return tuple(findings)


def rules_of(config: RetrainConfig) -> Iterator[Rule]:
    """The rules that a configuration sets."""
    limits = config.validation
    yield Rule("min_rows", DAY, "valid_rows", limits.min_rows, None, key="validation.min_rows")
    yield Rule("both_classes", DAY, "clicks", 1, None)
    yield Rule("both_classes", DAY, "negatives", 1, None)
    yield Rule("ctr", DAY, "ctr", limits.min_ctr, limits.max_ctr, key="validation.min_ctr, validation.max_ctr")
    yield Rule("bad_share", DAY, "bad_share", None, limits.max_bad_share, key="validation.max_bad_share")
    for name, field in config.fields.items():
        nulls = limits.max_null_share if field.max_null_share is None else field.max_null_share
        yield Rule("null_share", name, "null_share", None, nulls, key=f"fields.{name}.max_null_share")
        if field.kind == "categorical":
            yield Rule("constant", name, "distinct", 2, None, "warning")
            continue
        yield Rule("finite", name, "non_finite_share", None, 0.0, "warning")
        if field.minimum is not None or field.maximum is not None:
            yield Rule("in_range", name, "out_of_range_share", None, limits.max_bad_share)


def judge(frame: pd.DataFrame, config: RetrainConfig, *, bad_rows: Mapping[str, int] | None = None) -> Judgement:
    """The findings of one Great Expectations run over a profile frame.

    The finding on the share of bad rows names the reasons and how many rows each of them set aside.

    A rule whose figure is missing, and one whose expectation raised, is broken: neither is taken for a pass.
    """
    rules = list(rules_of(config))
    with _one_at_a_time:
        results = _run_suite(frame, rules)
    why = ", ".join(f"{count} {reason}" for reason, count in (bad_rows or {}).items() if count)
    findings = tuple(
        _finding(rule, frame, result, why=f" ({why})" if why and rule.name == "bad_share" else "")
        for rule, result in zip(rules, results, strict=True)
    )
    native = [
        {"rule": rule.name, "column": rule.column, **{k: result[k] for k in ("success", "exception_info")}}
        for rule, result in zip(rules, results, strict=True)
    ]
    return Judgement(findings, json.dumps(native, indent=2, sort_keys=True).encode() + b"\n")


def explain_bad_rows(day: DayFigures) -> tuple[Finding, ...]:
    """One piece of news per reason for which rows were set aside."""
    return tuple(
        Finding(
            rule="quarantined", column=DAY, severity="info", passed=False,
            observed=f"{reason} on {count} of {day.rows} rows", required="no such row",
        )
        for reason, count in day.reasons.items()
        if count
    )  # fmt: skip


def skipped_checks(config: RetrainConfig) -> tuple[str, ...]:
    """The checks that this configuration makes impossible, with the reason."""
    data = config.data
    missing = {
        "rows outside the day": ("event_time", data.event_time),
        "duplicate impressions": ("event_key", data.event_key),
    }
    return tuple(f"{check}: skipped, data.{key} is not set" for check, (key, column) in missing.items() if not column)


def _run_suite(frame: pd.DataFrame, rules: list[Rule]) -> list[dict[str, object]]:
    """Great Expectations' result of every rule, in the order of the rules."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx

    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # sets its own to INFO
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.metadata_types import FailureSeverity
    from great_expectations.expectations.row_conditions import Column

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch_definition = (
        context.data_sources.add_pandas("profile")
        .add_dataframe_asset("day")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = gx.ExpectationSuite(name="day")
    for index, rule in enumerate(rules):
        suite.add_expectation(
            gx.expectations.ExpectColumnValuesToBeBetween(
                column=rule.figure,
                min_value=rule.minimum,
                max_value=rule.maximum,
                row_condition=Column("column") == rule.column,
                severity=FailureSeverity(rule.severity),
                description=f"{rule.name} of {rule.column}",
                meta={"index": index},
            )
        )
    batch = batch_definition.get_batch(batch_parameters={"dataframe": frame})
    outcome = batch.validate(suite, result_format="BOOLEAN_ONLY")
    ordered: dict[int, dict[str, object]] = {}
    for result in outcome.results:
        config = result.expectation_config
        index = config.meta["index"] if config is not None and config.meta else -1
        ordered[index] = {"success": bool(result.success), "exception_info": result.exception_info}
    lost = {"success": False, "exception_info": "no result"}
    return [ordered.get(index, lost) for index in range(len(rules))]


def _finding(rule: Rule, frame: pd.DataFrame, result: dict[str, object], *, why: str) -> Finding:
    value = frame.loc[frame["column"] == rule.column, rule.figure].iloc[0]
    known = bool(pd.notna(value))
    raised = _raised(result["exception_info"])
    optional = rule.severity != "critical" and not known
    passed = (bool(result["success"]) and known and not raised) or (optional and not raised)
    return Finding(
        rule=rule.name,
        column=rule.column,
        severity="critical" if raised else rule.severity,
        passed=passed,
        observed="the expectation raised" if raised else f"{rule.figure} {_number(value) if known else 'unknown'}{why}",
        required=f"{_interval(rule)} ({rule.key})" if rule.key else _interval(rule),
    )


def _raised(info: object) -> bool:
    if not isinstance(info, dict):
        return bool(info)
    nested = [value for value in info.values() if isinstance(value, dict)]
    return bool(info.get("raised_exception")) or any(bool(value.get("raised_exception")) for value in nested)


def _interval(rule: Rule) -> str:
    if rule.minimum is None:
        return f"at most {_number(rule.maximum)}"
    if rule.maximum is None:
        return f"at least {_number(rule.minimum)}"
    return f"{_number(rule.minimum)} to {_number(rule.maximum)}"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "unknown"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"
