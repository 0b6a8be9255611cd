"""The click world against what it promises: determinism, its CTR, its truth, its faults and its oracle."""

import datetime as dt
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from deepfm.errors import ConfigError, DeepFMError, IntegrityError, UsageError
from deepfm.synthetic.config import PRESETS, WorldConfig, preset_world
from deepfm.synthetic.delivery import CLICKS, FIELDS, TRUTH, partition, raw_tables, write_day, write_world
from deepfm.synthetic.oracle import OracleScores, best_reachable, variance_shares
from deepfm.synthetic.world import CHUNK_ROWS, DEVIATIONS, MAX_PRICE, World, _solved_bias, add_terms, is_weekend

START = dt.date(2026, 3, 2)
SMALL = WorldConfig(
    start=START,
    days=3,
    rows_per_day=20_000,
    ctr=0.05,
    users=500,
    items=200,
    new_items_per_day=5,
    categories=8,
    brands=10,
    late_share=0.02,
    duplicate_share=0.01,
)


def on(offset: int) -> dt.date:
    return START + dt.timedelta(days=offset)


def changed(**values: object) -> WorldConfig:
    return WorldConfig.model_validate({**SMALL.model_dump(), **values})


def delivered(config: WorldConfig, offset: int) -> tuple[pa.Table, pa.Table]:
    clicks, truth = zip(*raw_tables(World(config), on(offset)), strict=True)
    return pa.concat_tables(clicks), pa.concat_tables(truth)


@pytest.fixture(scope="module")
def day_one() -> tuple[pa.Table, pa.Table]:
    return delivered(SMALL, 1)


def test_equal_configurations_deliver_equal_rows_whatever_was_generated_before(day_one):
    world = World(SMALL)
    for earlier in (0, 2):
        list(raw_tables(world, on(earlier)))
    again = pa.concat_tables([clicks for clicks, _ in raw_tables(world, on(1))])
    assert again.equals(day_one[0])


def test_seed_and_day_change_the_rows(day_one):
    other_seed, _ = delivered(changed(seed=1), 1)
    other_day, _ = delivered(SMALL, 2)
    users = day_one[0]["user_id"][:100]
    assert other_seed["user_id"][:100] != users
    assert other_day["user_id"][:100] != users


def test_rows_do_not_depend_on_how_many_days_are_written():
    assert delivered(changed(days=300), 0)[0].equals(delivered(SMALL, 0)[0])


@settings(max_examples=4, deadline=None)
@given(ctr=st.floats(0.005, 0.3), offset=st.integers(0, 40), drift=st.floats(0, 0.3))
def test_every_day_has_the_configured_ctr_in_truth_and_within_sampling_error_in_clicks(ctr, offset, drift):
    world = World(changed(ctr=ctr, drift=drift))
    (rows,) = world.impressions(world.day(on(offset)), late=False)
    mean_error = np.hypot(rows.probability.std() / np.sqrt(len(rows.click)), rows.probability.std() / 256)
    assert abs(rows.probability.mean() - ctr) < 5 * mean_error
    click_error = np.sqrt((rows.probability * (1 - rows.probability)).sum())
    assert abs(rows.click.sum() - rows.probability.sum()) < 5 * click_error


@settings(max_examples=30, deadline=None)
@given(mean=st.floats(1e-4, 0.999), deviation=st.floats(0, 5), centre=st.floats(-20, 20), seed=st.integers(0, 99))
def test_the_bias_gives_the_mean(mean, deviation, centre, seed):
    logit = centre + deviation * np.random.default_rng(seed).standard_normal(200)
    bias = _solved_bias(logit, mean)
    assert (1 / (1 + np.exp(-logit - bias))).mean() == pytest.approx(mean, rel=1e-6)


def test_truth_is_calibrated_in_every_decile_of_probability():
    clicks, truth = delivered(changed(rows_per_day=150_000, ctr=0.1), 1)
    assert clicks["impression_id"].equals(truth["impression_id"])
    probability, click = truth["probability"].to_numpy(), clicks["click"].to_numpy()
    for rows in np.array_split(np.argsort(probability), 10):
        expected = probability[rows]
        assert abs(click[rows].sum() - expected.sum()) < 5 * np.sqrt((expected * (1 - expected)).sum())


def test_probability_is_the_sigmoid_of_the_terms():
    world = World(SMALL)
    day = world.day(on(1))
    rows = next(world.impressions(day, late=False))
    terms = world.terms(day, user=rows.user, item=rows.item, hour=rows.hour)
    assert terms.keys() == DEVIATIONS.keys()
    logit = np.log(rows.probability / (1 - rows.probability))
    np.testing.assert_allclose(add_terms(day, terms), logit, rtol=1e-9)
    np.testing.assert_allclose(sum(terms.values()) + day.bias, logit, rtol=1e-9)


@pytest.mark.parametrize("name", PRESETS)
def test_a_third_of_the_variance_and_more_is_of_users_items_and_their_pairs_and_no_column_is_idle(name):
    shares = variance_shares(World(preset_world(name, overrides={"rows_per_day": 30_000})), window=[on(4), on(5)])
    assert sum(shares.values()) == pytest.approx(1.0)
    assert sum(shares[term] for term in ("user", "item", "pair", "taste")) >= 0.30
    assert all(shares[column] > 0.01 for column in ("category", "brand", "price", "hour", "weekend", "daypart"))


def test_sizes_of_the_presets():
    full = PRESETS["full"]
    assert full.users >= 20_000
    assert full.items >= 5_000
    assert full.ctr == 0.01
    assert PRESETS["demo"].days >= 10


def test_columns_are_typed_bounded_and_consistent(day_one):
    clicks, truth = day_one
    assert clicks.schema.equals(CLICKS)
    assert truth.schema.equals(TRUTH)
    assert set(FIELDS) == set(CLICKS.names) - {"impression_id", "event_time", "click"}
    for column in set(CLICKS.names) - {"price"}:
        assert clicks[column].null_count == 0
    assert 0 < clicks["price"].null_count < 0.2 * clicks.num_rows
    assert pc.min(clicks["price"]).as_py() > 0
    assert pc.max(clicks["price"]).as_py() <= MAX_PRICE
    assert pc.min(clicks["item_id"]).as_py() > 2**24
    assert pc.all(pc.equal(pc.hour(clicks["event_time"]), clicks["hour"])).as_py()


def test_an_item_has_one_category_one_brand_and_one_price(day_one):
    described = (
        day_one[0].select(["item_id", "category", "brand", "price"]).group_by(["item_id", "category", "brand", "price"])
    )
    assert described.aggregate([]).num_rows == pc.count_distinct(day_one[0]["item_id"]).as_py()


@pytest.mark.parametrize("offset", range(7))
def test_weekend_is_saturday_and_sunday(offset):
    assert is_weekend(on(offset)) == (on(offset).strftime("%a") in {"Sat", "Sun"})


def test_the_late_share_of_a_day_comes_in_the_next_partition_with_its_own_time(day_one):
    clicks, _ = day_one
    dates = pc.cast(pc.floor_temporal(clicks["event_time"], unit="day"), pa.date32()).to_numpy()
    late = clicks.filter(pa.array(dates == np.datetime64(on(0))))
    distinct_late = set(late["impression_id"].to_pylist())
    assert len(distinct_late) == 0.02 * SMALL.rows_per_day
    assert set(dates) == {np.datetime64(on(0)), np.datetime64(on(1))}
    first_day, _ = delivered(SMALL, 0)
    on_time = set(first_day["impression_id"].to_pylist())
    assert not on_time & distinct_late
    assert len(on_time | distinct_late) == SMALL.rows_per_day


def test_duplicates_are_exact_copies_in_the_declared_share(day_one):
    clicks, _ = day_one
    distinct = clicks.group_by(clicks.column_names).aggregate([])
    assert distinct.num_rows == pc.count_distinct(clicks["impression_id"]).as_py()
    assert (clicks.num_rows - distinct.num_rows) / distinct.num_rows == pytest.approx(0.01, rel=0.02)


def test_without_late_and_duplicate_rows_a_partition_is_its_day():
    clicks, _ = delivered(changed(late_share=0.0, duplicate_share=0.0), 1)
    assert clicks.num_rows == SMALL.rows_per_day
    assert pc.count_distinct(clicks["impression_id"]).as_py() == SMALL.rows_per_day


def test_a_poisoned_day_breaks_price_brand_and_label_and_leaves_the_truth_and_other_days(day_one):
    poisoned, truth = delivered(changed(poisoned_day=on(1)), 1)
    sound, sound_truth = day_one
    assert truth.equals(sound_truth)
    np.testing.assert_allclose(poisoned["price"].to_numpy(), 100 * sound["price"].to_numpy(), rtol=1e-6)
    assert pc.mean(pc.cast(pc.greater(poisoned["price"], MAX_PRICE), pa.int8())).as_py() > 0.9
    assert poisoned["brand"].null_count > 0.85 * poisoned.num_rows
    assert poisoned["click"].to_numpy().mean() > 4 * sound["click"].to_numpy().mean()
    assert set(poisoned["click"].to_pylist()) == {0, 1}
    assert delivered(changed(poisoned_day=on(1)), 2)[0].equals(delivered(SMALL, 2)[0])


def test_items_arrive_daily_and_are_shown_at_once():
    world = World(SMALL)
    seen: set[int] = set()
    for offset in range(4):
        items = {int(item) for rows in partition(world, on(offset)) for item in rows.item}
        if offset:
            arrived = set(range(200 + 5 * (offset - 1), 200 + 5 * offset))
            assert arrived <= items
            assert not arrived & seen
        seen |= items


def test_drift_moves_effects_as_far_as_it_says_and_none_keeps_them():
    still, moving = (World(changed(items=20_000, drift=drift)) for drift in (0.0, 0.1))
    first, later = (moving.day(on(offset)).item_effect[:20_000] for offset in (0, 10))
    assert np.corrcoef(first, later)[0, 1] == pytest.approx(np.exp(-((0.1 * 10) ** 2) / 2), abs=0.03)
    assert later.std() == pytest.approx(first.std(), rel=0.03)
    np.testing.assert_array_equal(still.day(on(0)).item_effect, still.day(on(10)).item_effect[:20_000])


def test_the_oracle_lies_between_columns_without_ids_and_the_truth():
    config = preset_world("demo", overrides={"start": START})
    world = World(config)
    oracle = best_reachable(world, window=[on(0), on(1)], holdout=on(2))
    nobody = best_reachable(world, window=[], holdout=on(2))
    assert nobody.best_auc + 0.02 < oracle.best_auc < oracle.true_auc
    assert 0.75 < oracle.best_auc < 0.85
    assert len(oracle.score) == config.rows_per_day - round(config.late_share * config.rows_per_day)


def test_oracle_figures_agree_with_another_implementation_of_auc():
    oracle = best_reachable(World(SMALL), window=[on(0)], holdout=on(1))
    assert oracle.best_auc == pytest.approx(roc_auc_score(oracle.label, oracle.score), abs=1e-12)
    assert oracle.true_auc == pytest.approx(roc_auc_score(oracle.label, oracle.probability), abs=1e-12)


def test_the_oracle_scores_the_truth_where_the_window_knows_everybody_and_forgets_only_what_it_cannot_know():
    world = World(changed(new_items_per_day=0, users=20, items=10))
    oracle = best_reachable(world, window=[on(0)], holdout=on(1))
    np.testing.assert_allclose(1 / (1 + np.exp(-oracle.score)), oracle.probability, rtol=1e-9)

    day = world.day(on(1))
    rows = next(world.impressions(day, late=False))
    terms = world.terms(day, user=rows.user, item=rows.item, hour=rows.hour)
    without = sum(terms[name] for name in terms.keys() - {"user", "item", "pair", "taste"}) + day.bias
    np.testing.assert_allclose(best_reachable(world, window=[], holdout=on(1)).score, without, rtol=1e-9)


def test_the_oracle_knows_an_item_of_the_holdout_day_by_its_columns_and_the_taste_for_its_category():
    world = World(changed(users=20, items=10, new_items_per_day=50))
    day = world.day(on(1))
    rows = next(world.impressions(day, late=False))
    terms = world.terms(day, user=rows.user, item=rows.item, hour=rows.hour)
    new = rows.item >= 10
    expected = sum(terms.values()) + day.bias - new * (terms["item"] + terms["pair"])
    assert 0 < new.sum() < len(new)
    np.testing.assert_allclose(best_reachable(world, window=[on(0)], holdout=on(1)).score, expected, rtol=1e-9)


def test_a_window_that_reaches_the_holdout_is_refused():
    with pytest.raises(UsageError, match=r"2026-03-03, required days before 2026-03-03"):
        best_reachable(World(SMALL), window=[on(0), on(1)], holdout=on(1))


def test_a_day_before_the_world_is_refused():
    with pytest.raises(UsageError, match="2026-03-01, required 2026-03-02 or later"):
        World(SMALL).day(on(-1))


def test_chunks_cover_a_day_of_any_size_without_a_gap():
    world = World(changed(rows_per_day=CHUNK_ROWS + 1_000, late_share=0.0))
    first, second = world.impressions(world.day(on(0)), late=False)
    numbers = np.concatenate([first.number, second.number])
    np.testing.assert_array_equal(numbers, np.arange(CHUNK_ROWS + 1_000))
    assert not np.array_equal(first.user[:1_000], second.user)


def test_write_world_leaves_checked_files_and_nothing_else(tmp_path):
    days: list[dt.date] = []
    write_world(SMALL, tmp_path, on_day=days.append)
    assert days == [on(0), on(1), on(2)]
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    parts = {f"{folder}/dt={day}/part-0.parquet" for folder in ("clicks", "truth") for day in days}
    assert files == parts | {"clicks/world.json", "truth/world.json"}
    expected, expected_truth = delivered(SMALL, 1)
    path = f"dt={on(1)}/part-0.parquet"
    read = [
        pq.ParquetFile(tmp_path / folder / path, page_checksum_verification=True).read()
        for folder in ("clicks", "truth")
    ]
    assert read[0].equals(expected)
    assert read[1].equals(expected_truth)


def test_a_flipped_bit_of_a_written_page_is_found(tmp_path):
    write_day(World(SMALL), on(0), clicks=tmp_path / "clicks", truth=tmp_path / "truth")
    path = tmp_path / "truth" / f"dt={on(0)}" / "part-0.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"(?i)crc|corrupt"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


def test_a_written_day_is_kept_and_a_half_written_one_made_whole(tmp_path):
    folders = {"clicks": tmp_path / "clicks", "truth": tmp_path / "truth"}
    world = World(SMALL)
    write_day(world, on(0), **folders)
    paths = [folder / f"dt={on(0)}" / "part-0.parquet" for folder in folders.values()]
    before = [(path.stat().st_ino, path.read_bytes()) for path in paths]
    write_day(World(changed(days=9)), on(0), **folders)
    assert [(path.stat().st_ino, path.read_bytes()) for path in paths] == before
    paths[1].unlink()
    write_day(world, on(0), **folders)
    assert [path.read_bytes() for path in paths] == [data for _, data in before]


def test_a_failed_write_leaves_no_partition(tmp_path, monkeypatch):
    def fails_late(world, logical_date):
        yield from islice(raw_tables(world, logical_date), 1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deepfm.synthetic.delivery.raw_tables", fails_late)
    with pytest.raises(ConfigError, match="No space left on device"):
        write_day(World(SMALL), on(0), clicks=tmp_path / "clicks", truth=tmp_path / "truth")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"world.json"}


def test_another_world_in_the_same_folder_is_refused_by_what_differs(tmp_path):
    folders = {"clicks": tmp_path / "clicks", "truth": tmp_path / "truth"}
    write_day(World(SMALL), on(0), **folders)
    with pytest.raises(ConfigError, match=r"different seed, ctr, required the configuration in world\.json"):
        write_day(World(changed(seed=5, ctr=0.1)), on(1), **folders)
    assert not (tmp_path / "clicks" / f"dt={on(1)}").exists()


def test_days_that_no_world_wrote_are_not_touched(tmp_path):
    (tmp_path / "clicks" / f"dt={on(0)}").mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"what no click world wrote: dt={on(0)}, required"):
        write_day(World(SMALL), on(0), clicks=tmp_path / "clicks", truth=tmp_path / "truth")


@pytest.mark.parametrize("name", ["mine.csv", "clicks/part.csv", "truth/notes.txt"])
def test_a_folder_that_holds_something_else_is_no_place_for_a_world(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        ConfigError, match=rf"no click world wrote: {Path(name).name}, .*Choose another folder\."
    ) as error:
        write_world(SMALL, tmp_path)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.rglob("*.parquet")] == []


def test_the_same_world_twice_and_what_came_beside_it_are_fine(tmp_path):
    (tmp_path / ".DS_Store").touch()
    write_world(SMALL, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "clicks.toml").write_text("made later")
    write_world(SMALL, tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_a_damaged_mark_is_refused(tmp_path):
    (tmp_path / "clicks").mkdir()
    (tmp_path / "clicks" / "world.json").write_text("{")
    with pytest.raises(IntegrityError, match="WorldManifest is damaged"):
        write_day(World(SMALL), on(0), clicks=tmp_path / "clicks", truth=tmp_path / "truth")


@pytest.mark.parametrize(
    ("name", "overrides", "error", "text"),
    [
        ("huge", {}, UsageError, "'huge', required one of demo, full"),
        ("demo", {"ctr": 0.9}, ConfigError, "click world: ctr: "),
        ("demo", {"row_per_day": 9}, ConfigError, "click world: row_per_day: "),
        ("demo", {"poisoned_day": dt.date(2020, 1, 1)}, ConfigError, "2020-01-01 lies before start"),
    ],
)
def test_a_world_that_cannot_be_is_refused_in_one_line(name, overrides, error, text):
    with pytest.raises(error, match=text) as caught:
        preset_world(name, overrides=overrides)
    assert isinstance(caught.value, DeepFMError)
    assert "\n" not in str(caught.value)


def test_overrides_replace_single_values():
    assert preset_world("demo", overrides={"seed": 7}) == PRESETS["demo"].model_copy(update={"seed": 7})
    assert preset_world("full") == PRESETS["full"]


def test_scores_without_clicks_have_no_auc():
    one_class = OracleScores(score=np.zeros(3), label=np.zeros(3, np.int8), probability=np.zeros(3))
    with pytest.raises(DeepFMError, match="AUC is undefined"):
        _ = one_class.best_auc
