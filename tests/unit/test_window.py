"""A window: one vocabulary over its days, counted on the rows that train, and no row copied to get there."""

import datetime as dt
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepfm.data.preparing import ROWS_FILE, RunningMoments, numeric_matrix
from deepfm.data.shards import ShardRows, ShardWriter, open_shard
from deepfm.data.window import (
    calendar_days,
    check_window,
    held_back,
    read_vocabulary,
    remap_file,
    vocabulary_file,
)
from deepfm.errors import WindowError
from deepfm.manifests import Gap
from deepfm.training.loop import new_model
from deepfm.training.losses import row_losses
from tests.tiny_days import CPU, DAYS, HOLDOUT, click_day, tiny_config, tiny_window, with_column


def training_values(window, name: str) -> Counter:
    """How often the rows that train hold each value of a field, through codes and the day's own dictionary."""
    index = window.config.categorical.index(name)
    counts: Counter = Counter()
    for date in window.days:
        values = pq.read_table(window.files[date][f"values-{index}.parquet"])["value"].to_pylist()
        for chunk in shards(window, date):
            train = ~held_back(chunk, window.config, logical_date=HOLDOUT)
            counts.update(values[code] for code in chunk.codes[train, index])
    return counts


def shards(window, date: dt.date) -> list[ShardRows]:
    return open_shard(
        window.files[date][ROWS_FILE], fields=len(window.config.categorical), numeric=len(window.config.numeric)
    )


def rare_days() -> dict[dt.date, pa.Table]:
    """Days on which most users are seen once or twice."""
    rng = np.random.default_rng(3)
    days = {}
    for date in DAYS:
        users = [f"u{user}" for user in rng.zipf(1.6, 120) % 500]
        days[date] = with_column(click_day(date, rows=120), "user", pa.array(users))
    return days


def test_a_value_has_an_id_if_enough_training_rows_hold_it(tmp_path):
    config = tiny_config({"training.validation_share": 0.3, "training.validation_by": "row"})
    window = tiny_window(tmp_path, config, tables=rare_days())
    some = window.files[DAYS[0]]
    for index, name in enumerate(config.categorical):
        counts = training_values(window, name)
        known = read_vocabulary(some[vocabulary_file(index)]).to_pylist()
        assert known == sorted(value for value, count in counts.items() if count >= 2)
        assert window.window.vocabulary_sizes[name] == len(known) + 1
        assert all(count > 0 for value, count in counts.items() if value in known)
    seen = Counter(user for table in rare_days().values() for user in table["user"].to_pylist())
    enough = {user for user, count in seen.items() if count >= 2}
    assert enough - set(read_vocabulary(some[vocabulary_file(0)]).to_pylist()), "held-back rows would have counted"


def test_remap_arrays_lead_every_code_to_its_id(tmp_path):
    window = tiny_window(tmp_path, tiny_config(), tables=rare_days())
    for date, day in window.days.items():
        remap = np.load(window.files[date][remap_file(date)])
        assert remap.dtype == np.int32
        start = 0
        for index, name in enumerate(window.config.categorical):
            known = read_vocabulary(window.files[date][vocabulary_file(index)]).to_pylist()
            values = pq.read_table(window.files[date][f"values-{index}.parquet"])["value"].to_pylist()
            expected = [known.index(value) + 1 if value in known else 0 for value in values]
            assert remap[start : start + day.dictionary_sizes[name]].tolist() == expected
            start += day.dictionary_sizes[name]
        assert start == len(remap)


@pytest.mark.parametrize("by", ["row", "group"])
def test_every_row_of_the_table_gets_gradients_in_one_epoch(tmp_path, by):
    """The OOV row too: what is rare shares it, and a few look-ups are replaced by it."""
    config = tiny_config({"training.validation_by": by, "training.validation_share": 0.2, "training.batch_size": 1})
    window = tiny_window(tmp_path, config, tables=rare_days())
    model = new_model(window.window, config)
    for batch in window.rows().epoch(0, batch_size=1, device=CPU):
        losses = row_losses(model(batch.ids, batch.numeric), batch.labels, config=config.loss, pos_weight=1.0)
        losses.sum().backward()
    for table in (model.first_order, model.embedding):
        assert table.weight.grad is not None
        touched = (table.weight.grad != 0).any(dim=1)
        assert touched.all()
    assert sum(window.window.vocabulary_sizes.values()) == len(model.embedding.weight)


def test_the_oov_row_learns_where_every_value_is_frequent(tmp_path):
    config = tiny_config({"vocabulary.oov_rate": 0.05})
    window = tiny_window(tmp_path, config)
    ids = torch.cat([batch.ids for batch in window.rows().epoch(0, batch_size=8, device=CPU)])
    share = (ids == 0).double().mean().item()
    assert 0.02 < share < 0.09
    never = tiny_window(tmp_path / "never", tiny_config({"vocabulary.oov_rate": 0.0}))
    assert all((batch.ids > 0).all() for batch in never.rows().epoch(0, batch_size=8, device=CPU))


def mapped_ranges(path: Path) -> list[tuple[int, int]]:
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    bounds = [line.split()[0].split("-") for line in lines]
    return [(int(start, 16), int(stop, 16)) for start, stop in bounds]


def test_no_row_is_copied(tmp_path):
    window = tiny_window(tmp_path, tiny_config())
    for date in DAYS:
        chunks = shards(window, date)
        ranges = mapped_ranges(window.files[date][ROWS_FILE])
        assert ranges
        for chunk in chunks:
            for column in chunk:
                address = column.__array_interface__["data"][0]
                assert any(start <= address < stop for start, stop in ranges)
                assert not column.flags.owndata
                assert not column.flags.writeable


def test_a_window_adds_vocabularies_and_remaps_and_no_file_of_rows(tmp_path):
    window = tiny_window(tmp_path, tiny_config())
    names = set(window.files[DAYS[0]]) - set(window.days[DAYS[0]].files)
    assert names == {vocabulary_file(0), vocabulary_file(1), *(remap_file(date) for date in DAYS)}


def test_normalisation_is_that_of_all_sampled_rows(tmp_path):
    rng = np.random.default_rng(0)
    tables = {
        date: with_column(
            click_day(date, rows=90), "price", pa.array([None, np.nan, np.inf, *rng.normal(50 + shift, 3, 87)])
        )
        for shift, date in enumerate(DAYS)
    }
    window = tiny_window(tmp_path, tiny_config(), tables=tables)
    values = np.concatenate([chunk.numeric[:, 0] for date in DAYS for chunk in shards(window, date)])
    finite = values[np.isfinite(values)].astype(np.float64)
    assert len(values) == 270
    assert len(finite) == 261
    found = window.window.normalisation["price"]
    assert found.mean == pytest.approx(finite.mean(), rel=1e-12)
    assert found.deviation == pytest.approx(finite.std(), rel=1e-9)


@pytest.mark.parametrize("value", [0.1, 1e-30, 123456.789, 0.0, None])
def test_a_constant_or_empty_column_has_deviation_one(tmp_path, value):
    tables = {
        date: with_column(click_day(date, rows=50 + 7 * n), "price", pa.array([value] * (50 + 7 * n), pa.float64()))
        for n, date in enumerate(DAYS)
    }
    window = tiny_window(tmp_path, tiny_config(), tables=tables)
    found = window.window.normalisation["price"]
    assert found.deviation == 1.0
    assert found.mean == pytest.approx(np.float32(value or 0.0))
    batch = next(window.rows().epoch(0, batch_size=16, device=CPU))
    assert batch.numeric.abs().max() < 1e-6


def test_a_spread_that_float32_cannot_divide_by_is_none(tmp_path):
    tables = {
        date: with_column(click_day(date, rows=40), "price", pa.array([1e-42, 3e-42] * 20, pa.float64()))
        for date in DAYS
    }
    window = tiny_window(tmp_path, tiny_config(), tables=tables)
    assert window.window.normalisation["price"].deviation == 1.0
    assert all(torch.isfinite(batch.numeric).all() for batch in window.rows().epoch(0, batch_size=16, device=CPU))


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=20), max_size=5))
def test_moments_merge_to_those_of_all_values(parts):
    running = RunningMoments()
    for part in parts:
        one = RunningMoments()
        one.add(np.array([*part, np.nan], dtype=np.float32))
        running.merge(one.freeze())
    values = np.array([value for part in parts for value in part], dtype=np.float64)
    assert running.count == len(values)
    if len(values):
        assert running.mean == pytest.approx(values.mean(), abs=1e-6)
        assert running.m2 == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-6, abs=1e-3)


def test_numbers_beyond_float32_are_missing_and_raise_no_alarm():
    rows = with_column(click_day(HOLDOUT, rows=5), "price", pa.array([1e308, -1e308, np.inf, 5e-324, -0.0]))
    matrix = numeric_matrix(rows.to_batches()[0], tiny_config())
    assert np.isnan(matrix[:3]).all()
    assert matrix[3:].tolist() == [[0.0], [0.0]]


@given(st.integers(0, 3), st.integers(0, 3), st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_a_shard_gives_back_what_was_written(tmp_path_factory, fields, numeric, lengths):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("shard") / "rows.arrow"
    fields = max(fields, 1)
    written = [
        ShardRows(
            codes=rng.integers(0, 2**31 - 1, (n, fields), dtype=np.int32),
            numeric=rng.normal(size=(n, numeric)).astype(np.float32),
            labels=rng.integers(0, 2, n).astype(np.uint8),
            groups=rng.integers(0, 2**64, n, dtype=np.uint64),
            rows=rng.integers(0, 2**64, n, dtype=np.uint64),
        )
        for n in lengths
    ]
    with ShardWriter(path, fields=fields, numeric=numeric) as writer:
        for rows in written:
            writer.write(rows)
    read = open_shard(path, fields=fields, numeric=numeric)
    assert len(read) == sum(n > 0 for n in lengths)
    for name in ShardRows._fields:
        whole = [getattr(rows, name) for rows in written if len(rows)]
        for expected, found in zip(whole, [getattr(rows, name) for rows in read], strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype


def test_held_back_users_are_whole_and_change_with_the_date(tmp_path):
    config = tiny_config({"training.validation_share": 0.4})
    window = tiny_window(tmp_path, config)
    chosen = []
    for date in (HOLDOUT, HOLDOUT + dt.timedelta(days=1)):
        by_group: dict[int, set[bool]] = {}
        for day in DAYS:
            for chunk in shards(window, day):
                mask = held_back(chunk, config, logical_date=date)
                for group, held in zip(chunk.groups.tolist(), mask.tolist(), strict=True):
                    by_group.setdefault(group, set()).add(held)
        assert all(len(held) == 1 for held in by_group.values())
        chosen.append({group for group, held in by_group.items() if held == {True}})
    assert 0 < len(chosen[0]) < 12
    assert chosen[0] != chosen[1]


def test_the_calendar_ends_the_day_before():
    days = calendar_days(tiny_config({"window.window_days": 3}), dt.date(2024, 3, 2))
    assert days == [dt.date(2024, 2, 28), dt.date(2024, 2, 29), dt.date(2024, 3, 1)]


def test_a_window_that_is_too_small_names_its_gaps():
    config = tiny_config({"window.window_days": 8, "window.min_days": 2, "window.max_missing_share": 0.5})
    gaps = [Gap(logical_date=HOLDOUT - dt.timedelta(days=n), reason=f"reason {n}") for n in range(1, 8)]
    with pytest.raises(WindowError) as caught:
        check_window(config, accepted=1, gaps=gaps, logical_date=HOLDOUT)
    text = str(caught.value)
    assert "window before 2026-03-04 is too small: 1 accepted days, 88% missing" in text
    assert "2026-03-03 (reason 1)" in text
    assert "and 2 more" in text
    assert "at least 2 days and at most 50% missing" in text
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("accepted", "missing", "fits"), [(4, 4, True), (3, 5, False), (1, 0, False), (2, 4, True)])
def test_both_rules_of_a_window_count(accepted, missing, fits):
    config = tiny_config({"window.window_days": 8, "window.min_days": 2, "window.max_missing_share": 0.5})
    gaps = [Gap(logical_date=HOLDOUT - dt.timedelta(days=n + 1), reason="missing") for n in range(missing)]
    if fits:
        check_window(config, accepted=accepted, gaps=gaps, logical_date=HOLDOUT)
    else:
        with pytest.raises(WindowError):
            check_window(config, accepted=accepted, gaps=gaps, logical_date=HOLDOUT)
