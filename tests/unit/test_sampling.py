"""Which rows are kept: every click, a hashed share of the negatives, and never by the order of rows."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm.config import SamplingConfig
from deepfm.data import partitions
from deepfm.data.hashing import below_share, hash_positions, hash_values, mix64
from deepfm.data.partitions import RawBatch
from deepfm.data.preparing import ROWS_FILE
from deepfm.data.sampling import group_hashes, keep_rate, row_hashes, sampled
from deepfm.data.shards import open_shard
from deepfm.manifests import MISSING_INT64
from tests.tiny_days import HOLDOUT, click_day, prepared, tiny_config, write_day

CONFIG = tiny_config({"sampling.keep_rate": 0.3})
U64 = st.integers(0, 2**64 - 1)


def kept_rows(folder, table_parts, config=CONFIG) -> set[tuple[int, int]]:
    """Label and impression hash of every sampled row, from the shard of the prepared day."""
    write_day(folder / "raw", HOLDOUT, *table_parts)
    _, files = prepared(folder / "raw", config, HOLDOUT, scratch=folder)
    chunks = open_shard(files[ROWS_FILE], fields=len(config.categorical), numeric=len(config.numeric))
    rows = [pair for chunk in chunks for pair in zip(chunk.labels.tolist(), chunk.rows.tolist(), strict=True)]
    assert len(rows) == len(set(rows))
    return set(rows)


@given(st.lists(st.tuples(st.booleans(), U64), max_size=50), st.floats(1e-9, 1.0), st.integers(-(2**70), 2**70))
def test_every_click_is_kept(rows, rate, seed):
    labels = np.array([label for label, _ in rows], dtype=np.uint8)
    hashes = np.array([value for _, value in rows], dtype=np.uint64)
    kept = sampled(labels, hashes, rate=rate, seed=seed)
    assert kept[labels == 1].all()
    if rate == 1.0:
        assert kept.all()


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.9])
def test_negatives_are_kept_at_the_rate_asked_for(rate):
    count = 200_000
    kept = sampled(np.zeros(count, np.uint8), hash_positions(0, count, seed=3), rate=rate, seed=1).sum()
    assert abs(kept - rate * count) < 5 * math.sqrt(count * rate * (1 - rate))


def test_a_kept_row_stays_kept_when_the_rate_rises():
    hashes = hash_positions(0, 5000, seed=0)
    labels = np.zeros(5000, np.uint8)
    few, many = (sampled(labels, hashes, rate=rate, seed=4) for rate in (0.1, 0.4))
    assert few.sum() > 0
    assert not (few & ~many).any()


@given(st.floats(0.0, 1.0), st.lists(U64, min_size=1, max_size=20))
def test_a_share_is_a_prefix_of_the_range(share, hashes):
    chosen = below_share(np.array(hashes, dtype=np.uint64), share)
    assert chosen.tolist() == [share >= 1.0 or value < int(share * 2.0**64) for value in hashes]


@pytest.mark.parametrize(
    ("config", "rows", "clicks", "expected"),
    [
        (SamplingConfig(), 1000, 10, 1.0),
        (SamplingConfig(keep_rate=0.25), 1000, 10, 0.25),
        (SamplingConfig(negatives_per_positive=4), 1000, 10, 40 / 990),
        (SamplingConfig(negatives_per_positive=0.5), 100, 50, 0.5),
        (SamplingConfig(negatives_per_positive=99), 1000, 10, 1.0),
        (SamplingConfig(negatives_per_positive=1e6), 1000, 10, 1.0),
        (SamplingConfig(negatives_per_positive=4), 10, 10, 1.0),
        (SamplingConfig(negatives_per_positive=4), 10, 0, 1.0),
        (SamplingConfig(negatives_per_positive=4), 0, 0, 1.0),
    ],
)
def test_the_keep_rate_of_a_day(config, rows, clicks, expected):
    assert keep_rate(config, rows=rows, clicks=clicks) == pytest.approx(expected)


def test_weighted_rows_have_the_natural_click_through_rate():
    """E[sum of y] / E[sum of weights], negatives weighing 1 / w, over many seeds."""
    rng = np.random.default_rng(0)
    labels = (rng.random(4000) < 0.05).astype(np.uint8)
    hashes = hash_positions(0, 4000, seed=0)
    clicks = int(labels.sum())
    rate = keep_rate(SamplingConfig(negatives_per_positive=4), rows=4000, clicks=clicks)
    found = []
    for seed in range(200):
        kept = sampled(labels, hashes, rate=rate, seed=seed)
        found.append((kept & (labels == 0)).sum() / rate)
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - (4000 - clicks)) < 4 * error
    assert clicks / (clicks + np.mean(found)) == pytest.approx(labels.mean(), rel=0.02)


def test_the_same_impressions_give_the_same_sample_in_any_order_and_files(tmp_path, monkeypatch):
    monkeypatch.setattr(partitions, "BATCH_ROWS", 16)
    table = click_day(HOLDOUT, rows=90)
    order = np.random.default_rng(1).permutation(90)
    expected = kept_rows(tmp_path / "a", [table])
    assert kept_rows(tmp_path / "b", [table.take(pa.array(order))]) == expected
    assert kept_rows(tmp_path / "c", [table.slice(50), table.slice(0, 50)]) == expected
    assert len(expected) < 80


def test_another_seed_keeps_other_negatives_and_the_same_clicks(tmp_path):
    table = click_day(HOLDOUT, rows=90)
    first = kept_rows(tmp_path / "a", [table])
    second = kept_rows(tmp_path / "b", [table], tiny_config({"sampling.keep_rate": 0.3, "sampling.seed": 1}))
    assert first != second
    assert {row for row in first if row[0]} == {row for row in second if row[0]}
    assert sum(table["click"].to_pylist()) == sum(label for label, _ in first)


def test_without_an_event_key_position_and_day_stand_for_the_impression(tmp_path, monkeypatch):
    config = tiny_config({"sampling.keep_rate": 0.3, "data.event_key": None})
    table = click_day(HOLDOUT, rows=90)
    whole = kept_rows(tmp_path / "a", [table], config)
    monkeypatch.setattr(partitions, "BATCH_ROWS", 7)
    assert kept_rows(tmp_path / "b", [table], config) == whole
    batch = RawBatch(40, table.slice(40).to_batches()[0])
    today, tomorrow = (row_hashes(batch, config, day_ordinal=HOLDOUT.toordinal() + day) for day in (0, 1))
    assert not set(today) & set(tomorrow)


def test_rows_of_one_user_share_a_group_and_rows_without_groups_are_their_own():
    batch = RawBatch(0, click_day(HOLDOUT, rows=60).to_batches()[0])
    rows = row_hashes(batch, CONFIG, day_ordinal=1)
    groups = group_hashes(batch, CONFIG, rows=rows)
    users = batch.rows.column("user").to_pylist()
    assert len(set(zip(users, groups.tolist(), strict=True))) == len(set(users)) == len(set(groups.tolist()))
    alone = group_hashes(batch, tiny_config({"data.group": None}), rows=rows)
    assert alone.tolist() == rows.tolist()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20), st.integers())
def test_text_hashes_by_value_alone(texts, seed):
    whole = hash_values(pa.array(texts, pa.string()), seed=seed)
    single = [hash_values(pa.array([text], pa.string()), seed=seed)[0] for text in texts]
    assert whole.tolist() == single
    assert len(set(whole.tolist())) == len(set(texts))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_integers_hash_by_value_alone(values):
    hashes = hash_values(pa.array(values, pa.int64()), seed=0)
    assert len(set(hashes.tolist())) == len(set(values))


def test_missing_values_hash_like_their_own_word():
    text = hash_values(pa.array([None, ""], pa.string()), seed=2)
    number = hash_values(pa.array([None, MISSING_INT64], pa.int64()), seed=2)
    assert text[0] == text[1]
    assert number[0] == number[1]


def splitmix(value: int, seed: int) -> int:
    """SplitMix64's finaliser with Python's own integers."""
    value = (value + (seed + 1) * 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


@given(st.lists(U64, min_size=1, max_size=10), st.integers(-(2**65), 2**65))
def test_mixing_is_splitmix64(values, seed):
    assert mix64(np.array(values, dtype=np.uint64), seed=seed).tolist() == [splitmix(v, seed) for v in values]


def test_hashes_of_text_do_not_move():
    """The sample of a day, and who is held back, must be the same on every machine and in every later release."""
    assert hash_values(pa.array(["u1", "", "🦊"]), seed=0).tolist() == [
        0x3E2313EBA055A84F,
        0x4FEEA9C6FA5BB525,
        0x1A27990E107F903C,
    ]


def test_two_seeds_are_independent():
    hashes = hash_positions(0, 20_000, seed=5)
    first, second = (below_share(mix64(hashes, seed=seed), 0.5) for seed in (1, 2))
    assert abs((first & second).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 20_000)


def test_rows_of_an_unknown_user_are_no_group():
    table = click_day(HOLDOUT, rows=60)
    index = table.schema.get_field_index("user")
    users = pa.array([None if n % 2 else value for n, value in enumerate(table["user"].to_pylist())], pa.string())
    batch = RawBatch(0, table.set_column(index, "user", users).to_batches()[0])
    rows = row_hashes(batch, CONFIG, day_ordinal=1)
    groups = group_hashes(batch, CONFIG, rows=rows)
    assert groups[1::2].tolist() == rows[1::2].tolist()
    assert len(set(groups[::2].tolist())) < 30
