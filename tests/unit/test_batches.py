"""Batches: every training row once an epoch, no held-back row ever, in an order that seed and epoch alone decide."""

import datetime as dt
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch

from deepfm.data import partitions
from deepfm.data.preparing import ROWS_FILE
from deepfm.data.shards import ShardRows, ShardWriter, open_shard
from deepfm.data.window import held_back, remap_file
from deepfm.training import batches
from deepfm.training.batches import Batch, WindowRows, resolve_batch_size
from tests.tiny_days import (
    CPU,
    DAYS,
    HOLDOUT,
    TinyWindow,
    click_day,
    prepared,
    tiny_config,
    tiny_window,
    with_column,
    write_day,
)
from tests.tiny_days import assembled as assembled_window

# No look-up is replaced by OOV: rows stay recognisable by their price, of which no two are equal.
PLAIN = {"vocabulary.oov_rate": 0.0, "training.validation_share": 0.2, "training.validation_by": "row"}


@pytest.fixture
def window(tmp_path) -> TinyWindow:
    return tiny_window(tmp_path, tiny_config(PLAIN))


def stacked(found: list[Batch]) -> Batch:
    return Batch(*(torch.cat(columns) for columns in zip(*found, strict=True)))


def epoch(window: TinyWindow, number: int = 0, *, size: int = 32, skip: int = 0) -> list[Batch]:
    return list(window.rows().epoch(number, batch_size=size, device=CPU, skip=skip))


def prices(found: list[Batch]) -> list[float]:
    return stacked(found).numeric[:, 0].tolist()


def expected_prices(window: TinyWindow, *, held: bool) -> list[float]:
    """Standardised prices of the rows that train (or are held back), straight from the shards."""
    scale = window.window.normalisation["price"]
    found = []
    for date in window.days:
        for chunk in open_shard(window.files[date][ROWS_FILE], fields=2, numeric=1):
            chosen = held_back(chunk, window.config, logical_date=HOLDOUT) == held
            found += ((chunk.numeric[chosen, 0] - np.float32(scale.mean)) / np.float32(scale.deviation)).tolist()
    return found


@pytest.mark.parametrize("size", [1, 7, 32, 100])
def test_every_training_row_once_an_epoch_but_for_the_tail(window, size):
    found, expected = epoch(window, size=size), expected_prices(window, held=False)
    assert all(len(batch.labels) == size for batch in found)
    assert len(found) == len(expected) // size
    assert window.rows().training_rows == len(expected)
    assert Counter(prices(found)) <= Counter(expected)
    assert max(Counter(expected).values()) == 1


def test_what_one_epoch_leaves_over_another_one_takes(window):
    seen = {price for number in range(4) for price in prices(epoch(window, number, size=100))}
    assert seen == set(expected_prices(window, held=False))


def test_held_back_rows_are_in_the_slice_and_nowhere_else(window):
    held = expected_prices(window, held=True)
    found = window.rows().validation_slice(device=CPU)
    assert found.batch.numeric[:, 0].tolist() == held
    assert len(found.labels) == len(found.groups) == len(held) > 0
    assert found.batch.labels.tolist() == found.labels.tolist()
    assert not set(held) & set(prices(epoch(window)))


def test_a_large_slice_is_thinned_by_hash(window, monkeypatch):
    whole = len(window.rows().validation_slice(device=CPU).labels)
    monkeypatch.setattr(batches, "MAX_SLICE_ROWS", whole // 2)
    first, second = (window.rows().validation_slice(device=CPU) for _ in range(2))
    assert 0.5 * whole / 2 < len(first.labels) < 1.5 * whole / 2
    assert first.groups.tolist() == second.groups.tolist()


def test_seed_and_epoch_decide_the_order(window):
    first = prices(epoch(window, 0))
    assert prices(epoch(window, 0)) == first
    assert prices(epoch(window, 1)) != first
    reseeded = window._replace(config=tiny_config(PLAIN | {"training.seed": 1}))
    assert prices(epoch(reseeded, 0)) != first
    in_file_order = expected_prices(window, held=False)
    assert first != in_file_order[: len(first)]


@pytest.mark.parametrize("skip", [0, 1, 5, 100])
def test_skipping_batches_equals_dropping_them(window, skip):
    whole, rest = epoch(window), epoch(window, skip=skip)
    assert len(rest) == max(0, len(whole) - skip)
    for ours, theirs in zip(rest, whole[skip:], strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_rows_carry_their_own_label_ids_and_numbers(tmp_path):
    """Price names the row, so that label, user and item can be followed from the delivery into the batch."""
    window = tiny_window(tmp_path, tiny_config(PLAIN | {"training.validation_share": 0.0}))
    scale = window.window.normalisation["price"]
    delivered = {}
    for date in DAYS:
        for row in click_day(date).to_pylist():
            delivered[np.float32((np.float32(row["price"]) - np.float32(scale.mean)) / np.float32(scale.deviation))] = (
                row
            )
    users = ["u0", "u1", "u10", "u11", *(f"u{n}" for n in range(2, 10))]
    rows = stacked(epoch(window, size=16))
    for ids, numeric, label in zip(rows.ids.tolist(), rows.numeric[:, 0], rows.labels.tolist(), strict=True):
        row = delivered[np.float32(numeric)]
        assert label == float(row["click"])
        assert ids == [users.index(row["user"]) + 1, row["item"] // 1000 + 1]
    assert rows.ids.dtype == torch.int64
    assert rows.numeric.dtype == rows.labels.dtype == rows.weights.dtype == torch.float32


def test_missing_numbers_are_the_mean(tmp_path):
    tables = {
        date: with_column(click_day(date, rows=60), "price", pa.array([None, np.nan, np.inf] + [5.0, 7.0] * 28 + [6.0]))
        for date in DAYS
    }
    window = tiny_window(tmp_path, tiny_config(PLAIN | {"training.validation_share": 0.0}), tables=tables)
    values = Counter(stacked(epoch(window, size=1)).numeric[:, 0].tolist())
    assert values[0.0] == 3 * (3 + 1)
    assert len(values) == 3


def test_negatives_weigh_as_if_every_day_were_sampled_at_the_lowest_rate(tmp_path):
    config = tiny_config(PLAIN | {"sampling.negatives_per_positive": 1.0})
    tables = {date: click_day(date, rows=rows) for date, rows in zip(DAYS, (120, 200, 300), strict=True)}
    window = tiny_window(tmp_path, config, tables=tables)
    rates = [day.keep_rate for day in window.window.days]
    assert len(set(rates)) == 3
    assert window.window.keep_rate == min(rates)
    rows = stacked(epoch(window, size=1))
    assert set(rows.weights[rows.labels == 1].tolist()) == {1.0}
    weights = set(rows.weights[rows.labels == 0].tolist())
    assert sorted(weights) == pytest.approx(sorted(min(rates) / rate for rate in rates))
    slice_ = window.rows().validation_slice(device=CPU)
    assert set(slice_.batch.weights.tolist()) <= weights | {1.0}


def wide_window(folder, rows: int) -> TinyWindow:
    """A window whose remap array reaches ids above 2^24, without a vocabulary of that size on disk."""
    config = tiny_config({"fields": {"item": {"kind": "categorical", "dtype": "int64"}}, "data.group": None} | PLAIN)
    write_day(folder / "clicks", DAYS[0], click_day(DAYS[0], rows=rows))
    day, files = prepared(folder / "clicks", config, DAYS[0], scratch=folder)
    window = assembled_window(folder, config, [day], {DAYS[0]: files})
    path = window.files[DAYS[0]][remap_file(DAYS[0])]
    np.save(path, np.load(path) + np.int32(2**24))
    return window


def test_ids_above_two_to_the_24_stay_exact(tmp_path):
    ids = stacked(epoch(wide_window(tmp_path, 200), size=8)).ids
    assert set(ids.flatten().tolist()) == {2**24 + n for n in range(1, 9)}


def test_codes_above_two_to_the_24_stay_exact(tmp_path):
    """Codes of the second field lie behind those of the first one in the remap array: offsets are int64."""
    first = 2**24 + 1
    window = tiny_window(tmp_path, tiny_config(PLAIN | {"training.validation_share": 0.0}))
    date = DAYS[0]
    codes = np.array([[first - 1, 0], [first - 2, 1], [0, 0]], dtype=np.int32)
    with ShardWriter(tmp_path / "wide.arrow", fields=2, numeric=1) as writer:
        zeros = np.zeros(3, dtype=np.uint64)
        writer.write(ShardRows(codes, np.zeros((3, 1), np.float32), np.zeros(3, np.uint8), zeros, zeros))
    remap = np.zeros(first + 2, dtype=np.int32)
    remap[[0, first - 2, first - 1, first, first + 1]] = [5, 6, 7, 8, 9]
    np.save(tmp_path / "wide.npy", remap)
    day = window.days[date].model_copy(update={"dictionary_sizes": {"user": first, "item": 2}})
    one_day = window.window.model_copy(update={"days": window.window.days[:1]})
    files = {date: {ROWS_FILE: tmp_path / "wide.arrow", remap_file(date): tmp_path / "wide.npy"}}
    rows = WindowRows(one_day, {date: day}, files, window.config)
    ids = stacked(list(rows.epoch(0, batch_size=1, device=CPU))).ids
    assert sorted(ids.tolist()) == [[5, 8], [6, 9], [7, 8]]


def test_rows_in_memory_are_bounded_by_the_shuffle_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(partitions, "BATCH_ROWS", 1000)
    monkeypatch.setattr(batches, "BLOCK_ROWS", 512)
    config = tiny_config(PLAIN | {"training.shuffle_rows": 4096})
    window = tiny_window(tmp_path, config, tables={date: click_day(date, rows=5000) for date in DAYS})
    held = []
    original = batches._concatenated

    def counted(parts):
        held.append(sum(len(part.labels) for part in parts))
        return original(parts)

    monkeypatch.setattr(batches, "_concatenated", counted)
    found = epoch(window, size=256)
    assert max(held) <= 4096 + 256
    assert len(found) == window.rows().training_rows // 256
    assert len(set(prices(found))) == 256 * len(found)


def test_a_window_larger_than_the_buffer_is_still_mixed_over_its_days(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "BLOCK_ROWS", 64)
    config = tiny_config(PLAIN | {"training.shuffle_rows": 4096, "training.validation_share": 0.0})
    tables = {
        date: with_column(click_day(date, rows=4000), "price", pa.array(np.full(4000, 10.0 * n) + np.arange(4000) % 2))
        for n, date in enumerate(DAYS)
    }
    window = tiny_window(tmp_path, config, tables=tables)
    first = np.array(prices(epoch(window, size=1000)[:1]))
    shares = np.histogram(first, bins=[-2, -0.6, 0.6, 2])[0] / len(first)
    assert shares.min() > 0.1


@pytest.mark.parametrize(
    ("wanted", "rows", "expected"),
    [
        (64, 1000, 64),
        (64, 10, 10),
        (64, 0, 1),
        ("auto", 1, 1),
        ("auto", 1000, 32),
        ("auto", 100_000, 256),
        ("auto", 10_000_000, 4096),
    ],
)
def test_the_size_of_a_batch(wanted, rows, expected):
    config = tiny_config({"training.batch_size": wanted})
    assert resolve_batch_size(config, rows=rows) == expected


@pytest.mark.parametrize("rows", [9_000, 64_000, 500_000, 1_048_575, 1_048_576, 3_000_000])
def test_auto_leaves_several_hundred_steps(rows):
    size = resolve_batch_size(tiny_config({"training.batch_size": "auto"}), rows=rows)
    assert size & (size - 1) == 0
    assert rows / size >= 250
    assert size == 4096 or rows / (2 * size) < 250


def test_days_in_a_window_keep_their_order_of_dates(window):
    assert [day.logical_date for day in window.window.days] == sorted(DAYS)
    assert all(isinstance(day, dt.date) for day in window.days)


def test_an_id_counts_the_rows_of_an_epoch_that_are_expected_to_hold_it(tmp_path):
    window = tiny_window(tmp_path, tiny_config({**PLAIN, "vocabulary.oov_rate": 0.1}))
    found = 1.0 / window.rows().inverse_counts().numpy()
    plain = tiny_window(tmp_path / "plain", tiny_config(PLAIN))
    ids = stacked(epoch(plain, size=1)).ids.numpy()
    start = 0
    for column, name in enumerate(plain.window.categorical):
        size = plain.window.vocabulary_sizes[name]
        seen = np.bincount(ids[:, column], minlength=size).astype(float)
        expected = seen * 0.9
        expected[0] = seen[0] + 0.1 * seen[1:].sum()
        np.testing.assert_allclose(found[start : start + size], np.maximum(expected, 1.0), rtol=1e-5)
        start += size
    assert found[0] > 1.0  # the OOV id of a field without rare values is no single row
