"""Days that must not train or judge a model, each refused by the name of the rule that it breaks."""

import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from deepfm.config import RetrainConfig
from deepfm.data.judging import Judged, judge_partition
from deepfm.data.partitions import find_partition, iterate_rows, not_delivered, read_schemas
from deepfm.data.profile import DAY
from deepfm.data.validation import check_files, judge, rules_of, skipped_checks
from deepfm.errors import ConfigError, DataNotReadyError, DataRejectedError
from deepfm.storage import LocalCache, open_store
from tests.tiny_days import DAYS, HOLDOUT, click_day, tiny_config, with_column, write_day

CONFIG = tiny_config()
Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module", autouse=True)
def great_expectations():
    """Loaded once, before the clock of any test runs."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations

    return great_expectations


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Judged]:
    def run(*, config: RetrainConfig = CONFIG) -> Judged:
        source, scratch = open_store(str(tmp_path / "raw")), tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        partition = find_partition(source, config, HOLDOUT, cache=LocalCache(tmp_path / "c", 2**30))
        assert partition is not None
        return judge_partition(source, partition, config, cache=LocalCache(tmp_path / "c", 2**30), scratch=scratch)

    return run


def broken(judged: Judged) -> list[tuple[str, str]]:
    return [(f.rule, f.column) for f in judged.findings if not f.passed and f.severity == "critical"]


def file_of(root: Path) -> Path:
    return root / "raw" / f"dt={HOLDOUT}" / "part-0.parquet"


def nulls(table: pa.Table, name: str, share: float) -> pa.Table:
    column = table[name].combine_chunks()
    mask = np.arange(len(column)) < share * len(column)
    return with_column(table, name, pa.array(column.to_pylist(), column.type, mask=mask))


def constant(name: str, value: object) -> Change:
    return lambda table: with_column(table, name, pa.array([value] * len(table)))


def test_a_good_day_is_accepted_and_every_rule_has_spoken(tmp_path, judged):
    write_day(tmp_path / "raw", HOLDOUT, click_day(HOLDOUT))
    result = judged()
    assert result.accepted
    assert broken(result) == []
    assert {(rule.name, rule.column) for rule in rules_of(CONFIG)} <= {(f.rule, f.column) for f in result.findings}
    assert all(finding.passed for finding in result.findings)
    assert result.day.valid_rows == 240
    assert sorted(result.files) == ["great_expectations.json", "profile.parquet", "quarantine.parquet"]
    assert len(pq.read_table(result.files["profile.parquet"])) == 1 + len(CONFIG.fields)


@pytest.mark.parametrize(
    ("change", "settings", "rules"),
    [
        pytest.param(
            lambda table: table.slice(0, 0),
            {},
            [("min_rows", DAY), ("both_classes", DAY), ("both_classes", DAY), ("ctr", DAY), ("bad_share", DAY)],
            id="empty",
        ),
        pytest.param(constant("click", 0), {}, [("both_classes", DAY)], id="no click"),
        pytest.param(constant("click", 1), {}, [("both_classes", DAY)], id="clicks only"),
        pytest.param(lambda table: nulls(table, "item", 1.0), {}, [("null_share", "item")], id="a column of nulls"),
        pytest.param(constant("price", np.inf), {}, [("null_share", "price")], id="a column of infinities"),
        pytest.param(constant("price", np.nan), {}, [("null_share", "price")], id="a column of NaN"),
        pytest.param(lambda table: nulls(table, "user", 0.3), {}, [("null_share", "user")], id="many nulls"),
        pytest.param(lambda table: table, {"validation.max_ctr": 0.01}, [("ctr", DAY)], id="too many clicks"),
        pytest.param(lambda table: table, {"validation.min_ctr": 0.9}, [("ctr", DAY)], id="too few clicks"),
        pytest.param(lambda table: table.slice(0, 9), {}, [("min_rows", DAY)], id="small"),
        pytest.param(
            constant("price", -1.0),
            {"validation.max_bad_share": 0.5},
            [("min_rows", DAY), ("both_classes", DAY), ("both_classes", DAY), ("ctr", DAY), ("bad_share", DAY),
             ("in_range", "price")],
            id="out of range",
        ),
    ],
)  # fmt: skip
def test_a_bad_day_is_refused_by_name(tmp_path, judged, change, settings, rules):
    write_day(tmp_path / "raw", HOLDOUT, change(click_day(HOLDOUT, rows=60)))
    result = judged(config=tiny_config(settings))
    assert not result.accepted
    assert broken(result) == rules


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda table: with_column(table, "price", pa.array([np.inf] + [1.0] * 59)), ("finite", "price")),
        (constant("item", 7), ("constant", "item")),
    ],
    ids=["one infinity", "constant"],
)
def test_what_a_model_can_live_with_is_a_warning_by_name(tmp_path, judged, change, warning):
    write_day(tmp_path / "raw", HOLDOUT, change(click_day(HOLDOUT, rows=60)))
    result = judged()
    assert result.accepted
    assert [(f.rule, f.column) for f in result.findings if not f.passed and f.severity == "warning"] == [warning]


def test_a_field_may_have_a_limit_of_its_own(tmp_path, judged):
    write_day(tmp_path / "raw", HOLDOUT, nulls(click_day(HOLDOUT, rows=60), "user", 0.3))
    assert judged(config=tiny_config({"fields.user.max_null_share": 0.5})).accepted


def test_missing_and_mistyped_columns_are_all_named_before_a_row_is_read(tmp_path, judged):
    table = click_day(HOLDOUT, rows=20).drop_columns(["item"])
    write_day(tmp_path / "raw", HOLDOUT, with_column(table, "price", pa.array(["1"] * 20)))
    result = judged()
    assert sorted(broken(result)) == [("column_present", "item"), ("column_type", "price")]
    assert result.files == {}


def test_one_bad_file_among_good_ones_refuses_the_day(tmp_path, judged):
    good = click_day(HOLDOUT, rows=30)
    write_day(tmp_path / "raw", HOLDOUT, good, good.drop_columns(["click"]))
    result = judged()
    assert broken(result) == [("column_present", "click")]
    assert "part-1.parquet" in result.findings[0].observed


def test_a_column_that_nobody_uses_is_news(tmp_path, judged):
    table = click_day(HOLDOUT).append_column("extra", pa.array([1] * 240))
    write_day(tmp_path / "raw", HOLDOUT, table)
    result = judged()
    assert result.accepted
    assert [(f.severity, f.observed) for f in result.findings if f.rule == "column_used"] == [("info", "extra")]


def test_rows_set_aside_are_news_with_their_number(tmp_path, judged):
    table = with_column(click_day(HOLDOUT), "price", pa.array([-1.0] * 3 + [1.0] * 237))
    write_day(tmp_path / "raw", HOLDOUT, table)
    result = judged()
    assert result.accepted
    (news,) = [f for f in result.findings if f.rule == "quarantined"]
    assert news.observed == "price_out_of_range on 3 of 240 rows"


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    pq.write_table(click_day(HOLDOUT, rows=60), sink, write_page_checksum=True)
    return sink.getvalue()


def csv_bytes() -> bytes:
    sink = io.BytesIO()
    pa.csv.write_csv(click_day(HOLDOUT, rows=60), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"PAR1" * 3, id="magic only"),
        pytest.param(parquet_bytes()[:-20], id="without its end"),
        pytest.param(parquet_bytes()[200:], id="without its beginning"),
        pytest.param(csv_bytes(), id="CSV"),
        pytest.param(b"\x1f\x8b" + parquet_bytes(), id="compressed"),
    ],
)
def test_a_file_that_is_not_parquet_refuses_the_day_and_is_named(tmp_path, judged, content):
    write_day(tmp_path / "raw", HOLDOUT, click_day(HOLDOUT))
    file_of(tmp_path).write_bytes(content)
    result = judged()
    assert broken(result) == [("readable", DAY)]
    assert f"dt={HOLDOUT}/part-0.parquet is not readable as Parquet" in result.findings[0].observed
    assert result.files == {}


def test_flipped_bits_are_refused_or_change_nothing(tmp_path):
    """Page checksums catch what a flip does to data; the footer has none, and may only fail in our own words."""
    whole = parquet_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    rng = np.random.default_rng(5)
    write_day(tmp_path / "raw", HOLDOUT, click_day(HOLDOUT))
    path, source, cache = file_of(tmp_path), open_store(str(tmp_path / "raw")), LocalCache(tmp_path / "c", 2**30)

    def rows() -> pa.Table | None:
        partition = find_partition(source, CONFIG, HOLDOUT, cache=cache)
        assert partition is not None
        try:
            if check_files(read_schemas(source, partition, CONFIG, cache=cache), CONFIG):
                return None
            batches = [batch.rows for batch in iterate_rows(source, partition, CONFIG, cache=cache)]
        except DataRejectedError:
            return None
        return pa.Table.from_batches(batches)

    path.write_bytes(whole)
    expected = rows()
    assert expected is not None
    refused = 0
    for bit in rng.integers(4 * 8, (len(whole) - 8) * 8, 120):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        found = rows()
        refused += found is None
        assert found is None or bit // 8 >= footer or found.equals(expected)
    assert refused > 60


def test_an_expectation_that_raises_is_critical_even_where_breaking_it_is_a_warning(monkeypatch, great_expectations):
    frame = pd.DataFrame([{"column": name, **figures(name)} for name in (DAY, *CONFIG.fields)])
    assert all(finding.passed for finding in judge(frame, CONFIG).findings)
    expectation = great_expectations.expectations.ExpectColumnValuesToBeBetween
    original = expectation._validate

    def raises_on_one(self, *args, **kwargs):
        if self.description == "constant of item":
            raise RuntimeError("broken inside")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(expectation, "_validate", raises_on_one)
    (finding,) = [finding for finding in judge(frame, CONFIG).findings if not finding.passed]
    assert (finding.rule, finding.column, finding.severity) == ("constant", "item", "critical")
    assert finding.observed == "the expectation raised"


def figures(name: str) -> dict[str, float]:
    day = {"valid_rows": 100.0, "clicks": 20.0, "negatives": 80.0, "ctr": 0.2, "bad_share": 0.0}
    field = {"null_share": 0.0, "non_finite_share": 0.0, "out_of_range_share": 0.0, "distinct": 3.0}
    return day if name == DAY else field


@pytest.mark.parametrize("figure", ["clicks", "ctr", "bad_share"])
def test_a_figure_that_is_missing_is_no_pass(figure):
    rows = [{"column": name, **figures(name)} for name in (DAY, *CONFIG.fields)]
    rows[0][figure] = np.nan
    assert [f.observed for f in judge(pd.DataFrame(rows), CONFIG).findings if not f.passed] == [f"{figure} unknown"]


def test_checks_that_are_not_possible_say_so():
    assert skipped_checks(CONFIG) == ()
    bare = tiny_config({"data.event_time": None, "data.event_key": None})
    assert skipped_checks(bare) == (
        "rows outside the day: skipped, data.event_time is not set",
        "duplicate impressions: skipped, data.event_key is not set",
    )


def test_a_day_that_was_not_delivered_names_the_days_that_were(tmp_path):
    source = open_store(str(tmp_path / "raw"))
    empty = not_delivered(source, CONFIG, HOLDOUT)
    assert isinstance(empty, ConfigError)  # waiting would not help
    assert "no partition at all, required Parquet or CSV files by the name dt={date}" in str(empty)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "clicks-20260304.csv").touch()
    assert "1 data files of other names, such as clicks-20260304.csv" in str(not_delivered(source, CONFIG, HOLDOUT))
    for day in DAYS:
        write_day(tmp_path / "raw", day, click_day(day, rows=3))
    (tmp_path / "raw" / f"dt={HOLDOUT}").mkdir()
    (tmp_path / "raw" / f"dt={HOLDOUT}" / "_SUCCESS").touch()
    assert find_partition(source, CONFIG, HOLDOUT, cache=LocalCache(tmp_path / "c", 2**30)) is None
    late = not_delivered(source, CONFIG, HOLDOUT)
    assert isinstance(late, DataNotReadyError)
    assert f"{DAYS[0]} to {DAYS[-1]}, 3 days" in str(late)


def test_a_partition_is_known_by_its_content_alone(tmp_path):
    def fingerprint(root: str, rows: int, prefix: str = "dt={date}") -> str:
        config = tiny_config({"data.partition": prefix})
        folder = tmp_path / root / Path(prefix.format(date=HOLDOUT)).parent
        write_day(folder, HOLDOUT, click_day(HOLDOUT, rows=rows))
        cache = LocalCache(tmp_path / "c", 2**30)
        partition = find_partition(open_store(str(tmp_path / root)), config, HOLDOUT, cache=cache)
        assert partition is not None
        return partition.fingerprint

    assert fingerprint("a", 5) == fingerprint("b", 5) == fingerprint("c", 5, "deep/dt={date}")
    assert fingerprint("a", 5) != fingerprint("b", 6)


def test_a_share_of_bad_rows_comes_with_its_reasons(tmp_path):
    table = click_day(HOLDOUT, rows=100)
    labels = [int(label) for label in table["click"].to_pylist()]
    labels[:20] = [7] * 20
    index = table.schema.get_field_index("click")
    write_day(tmp_path / "raw", HOLDOUT, table.set_column(index, "click", pa.array(labels, pa.int64())))
    source = open_store(str(tmp_path / "raw"))
    cache = LocalCache(tmp_path / "cache", 2**20)
    partition = find_partition(source, CONFIG, HOLDOUT, cache=cache)
    assert partition is not None
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    judged = judge_partition(source, partition, CONFIG, cache=cache, scratch=scratch)
    (broken,) = [finding for finding in judged.findings if finding.rule == "bad_share"]
    assert broken.sentence == (
        "bad_share of the day: bad_share 0.2 (20 label), required at most 0.05 (validation.max_bad_share)"
    )
