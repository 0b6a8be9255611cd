"""The world itself: who is shown what, and how probable the click is.

    logit = bias(day) + user + item(day) + category(day) + brand + price + hour
            + user . item + user . category + category . hour + category x weekend

Every pair is of low rank, as a factorisation machine has it (Rendle, 2010); a logistic regression on the columns sees
none of them. The bias of a day is solved so that its mean probability is the configured CTR. Whatever is drawn comes
from a generator seeded by (seed, purpose, day, ...): no day depends on which others were generated.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfm.errors import UsageError
from deepfm.synthetic.config import WorldConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CHUNK_ROWS = 262_144
"""Rows drawn at a time: bounds memory, and is part of what the seed means."""
DEVIATIONS = {
    "user": 0.45,
    "item": 0.45,
    "category": 0.45,
    "brand": 0.40,
    "price": 0.35,
    "hour": 0.35,
    "pair": 0.25,
    "taste": 0.35,
    "daypart": 0.60,
    "weekend": 0.35,
}
"""Standard deviation over impressions of each term of the logit (`pair` is user . item, `taste` user . category,
`daypart` category . hour): 1.3 together, so that the true AUC is near 0.82."""
RANK = 3
"""Dimension of the latent vectors."""
MEDIAN_PRICE, PRICE_DEVIATION, MIN_PRICE, MAX_PRICE = 20.0, 0.6, 1.0, 500.0
"""Prices are log-normal; the deviation is that of the logarithm."""
POPULARITY_DEVIATION = 0.5
"""Standard deviation of the wandering part of an item's log popularity."""
LAUNCH_BOOST, LAUNCH_DAYS = 8.0, 3.0
"""How much more a new item is shown at first, and after how many days a third of that is left."""
WEEKEND_SHARE = 2 / 7
CALIBRATION_ROWS = 65_536
"""Impressions that a day's bias is solved on; they are none of the day's rows."""
_HOURS = np.arange(24)
HOUR_SHARES: Floats = (1.0 + 0.7 * np.sin(2 * np.pi * (_HOURS - 11) / 24)) / 24
"""Share of the day's impressions in each hour: most in the late afternoon, fewest before dawn."""


class Purpose(IntEnum):
    """What a generator is for; streams of different purposes never meet."""

    TABLES = 0
    ITEMS = 1
    CALIBRATION = 2
    IMPRESSIONS = 3
    DELIVERY = 4


@dataclass(frozen=True, kw_only=True)
class Items:
    """What never changes about the items, oldest first; arrays of one row per item."""

    birth: Ints
    """Day index on which the item arrived; 0 for the first ones too."""
    category: Ints
    brand: Ints
    price: Floats
    """NaN where nobody knows it."""
    weight: Floats
    """Popularity before drift and launch."""
    wander: Floats
    """Normal deviates [items, 5]: effect and popularity, two phases each, and speed."""
    latent: Floats
    """[items, RANK]."""


@dataclass(frozen=True, kw_only=True)
class Day:
    """One day's items as they are then, and the bias that gives the day its CTR."""

    date: dt.date
    index: int
    items: Items
    item_shares: Floats
    """Probability that an impression shows the item."""
    item_effect: Floats
    """Deviate of each item, before its factor in `DEVIATIONS`."""
    category_effect: Floats
    """Deviate of each category."""
    bias: float
    """What the day's logits share."""


@dataclass(frozen=True, kw_only=True)
class Impressions:
    """Rows that happened on one day; arrays of one length."""

    day: Day
    number: Ints
    """Position in the day, unique."""
    user: Ints
    item: Ints
    hour: Ints
    microsecond: Ints
    """Within the hour."""
    probability: Floats
    click: Bools


class World:
    """A click world: users, items, and every impression's true click probability."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        rng = self.generator(Purpose.TABLES)
        self.user_shares = _zipf(rng.permutation(config.users), shift=50.0, exponent=1.5)
        self._user_effect = _standardised(rng.standard_normal(config.users), self.user_shares)
        self._user_latent = _standardised(rng.standard_normal((config.users, RANK)), self.user_shares)
        self._category_shares = _zipf(np.arange(config.categories), shift=5.0, exponent=1.0)
        self._category_wander: Floats = rng.standard_normal((config.categories, 3))
        self._category_wander[:, :2] = _standardised(self._category_wander[:, :2], self._category_shares)
        self._category_latent = self._category_table(rng, RANK)
        self._weekend_effect = self._category_table(rng, 1)[:, 0]
        waves = np.stack([np.cos(2 * np.pi * _HOURS / 24), np.sin(2 * np.pi * _HOURS / 24)])
        self._daypart_effect = self._category_table(rng, 2) @ (waves - (waves @ HOUR_SHARES)[:, None])
        self._brand_shares = _zipf(np.arange(config.brands), shift=5.0, exponent=1.0)
        self._brand_effect = _standardised(rng.standard_normal(config.brands), self._brand_shares)
        self._hour_effect = _standardised(np.cos(2 * np.pi * (_HOURS - 21) / 24), HOUR_SHARES)

    def generator(self, purpose: Purpose, *path: int) -> np.random.Generator:
        """A generator that depends on the seed, the purpose and the path only."""
        return np.random.default_rng(np.random.SeedSequence([self.config.seed, purpose, *path]))

    def day(self, date: dt.date) -> Day:
        """The items, effects and bias of a day.

        Raises:
            UsageError: terminal; the world begins later.
        """
        index = (date - self.config.start).days
        if index < 0:
            raise UsageError("day lies before the click world", observed=date, required=f"{self.config.start} or later")
        items = self._items(index)
        angle = self.config.drift * index
        launch = np.where(items.birth > 0, LAUNCH_BOOST * np.exp((items.birth - index) / LAUNCH_DAYS), 0.0)
        popularity = np.exp(POPULARITY_DEVIATION * _turned(items.wander[:, 2:4], angle * items.wander[:, 4]))
        day = Day(
            date=date,
            index=index,
            items=items,
            item_shares=_normalised(items.weight * popularity * (1.0 + launch)),
            item_effect=_turned(items.wander[:, :2], angle * items.wander[:, 4]),
            category_effect=_turned(self._category_wander[:, :2], angle * self._category_wander[:, 2]),
            bias=0.0,
        )
        rng = self.generator(Purpose.CALIBRATION, index)
        shown = self._shown(day, rng, CALIBRATION_ROWS)
        return replace(day, bias=_solved_bias(self._logit(day, **shown), self.config.ctr))

    def impressions(self, day: Day, *, late: bool) -> Iterator[Impressions]:
        """The day's rows that are delivered on the day itself, or else those that come a day later, in chunks."""
        on_time = self.config.rows_per_day - round(self.config.late_share * self.config.rows_per_day)
        first, stop = (on_time, self.config.rows_per_day) if late else (0, on_time)
        for begin in range(first, stop, CHUNK_ROWS):
            rows = min(CHUNK_ROWS, stop - begin)
            rng = self.generator(Purpose.IMPRESSIONS, day.index, begin)
            shown = self._shown(day, rng, rows)
            probability = _sigmoid(self._logit(day, **shown))
            yield Impressions(
                day=day,
                number=np.arange(begin, begin + rows),
                **shown,
                microsecond=rng.integers(0, 3_600_000_000, rows),
                probability=probability,
                click=rng.random(rows) < probability,
            )

    def terms(self, day: Day, *, user: Ints, item: Ints, hour: Ints) -> dict[str, Floats]:
        """Every term of the rows' logits by name, as in `DEVIATIONS`; with the day's bias they add up to the logit.

        Args:
            day: The day on which the rows happened.
            user: Indices of users, int64 [rows].
            item: Indices of items, int64 [rows].
            hour: 0 to 23, int64 [rows].
        """
        category = day.items.category[item]
        log_price = np.nan_to_num(np.log(day.items.price / MEDIAN_PRICE) / PRICE_DEVIATION)
        weekend = (is_weekend(day.date) - WEEKEND_SHARE) / np.sqrt(WEEKEND_SHARE * (1 - WEEKEND_SHARE))
        latent = self._user_latent[user]
        standard = {
            "user": self._user_effect[user],
            "item": day.item_effect[item],
            "category": day.category_effect[category],
            "brand": self._brand_effect[day.items.brand[item]],
            "price": -log_price[item],
            "hour": self._hour_effect[hour],
            "pair": np.vecdot(latent, day.items.latent[item]) / np.sqrt(RANK),
            "taste": np.vecdot(latent, self._category_latent[category]) / np.sqrt(RANK),
            "daypart": self._daypart_effect[category, hour],
            "weekend": weekend * self._weekend_effect[category],
        }
        return {name: DEVIATIONS[name] * term for name, term in standard.items()}

    def _logit(self, day: Day, **shown: Ints) -> Floats:
        return add_terms(day, self.terms(day, **shown))

    def _category_table(self, rng: np.random.Generator, columns: int) -> Floats:
        return _standardised(rng.standard_normal((self.config.categories, columns)), self._category_shares)

    def _shown(self, day: Day, rng: np.random.Generator, rows: int) -> dict[str, Any]:
        return {
            "user": _drawn(rng, self.user_shares, rows),
            "item": _drawn(rng, day.item_shares, rows),
            "hour": _drawn(rng, HOUR_SHARES, rows),
        }

    def _items(self, index: int) -> Items:
        counts = [self.config.items] + [self.config.new_items_per_day] * index
        arrivals = [self._arrivals(birth, count) for birth, count in enumerate(counts)]
        return Items(**{name: np.concatenate([a[name] for a in arrivals]) for name in arrivals[0]})

    def _arrivals(self, birth: int, count: int) -> dict[str, Any]:
        rng = self.generator(Purpose.ITEMS, birth)
        price = MEDIAN_PRICE * np.exp(PRICE_DEVIATION * rng.standard_normal(count))
        missing = rng.random(count) < self.config.missing_price_share
        # Not among the most popular at once: with the boost, one new item could take a fifth of the day.
        later_rank = rng.integers(self.config.items // 20, self.config.items, count)
        rank = rng.permutation(count) if birth == 0 else later_rank
        return {
            "birth": np.full(count, birth),
            "category": _drawn(rng, self._category_shares, count),
            "brand": _drawn(rng, self._brand_shares, count),
            "price": np.where(missing, np.nan, np.clip(price, MIN_PRICE, MAX_PRICE).round(2)),
            "weight": 1.0 / (rank + 10.0),
            "wander": rng.standard_normal((count, 5)),
            "latent": rng.standard_normal((count, RANK)),
        }


def add_terms(day: Day, terms: Mapping[str, Floats]) -> Floats:
    """The logits [rows] whose terms these are."""
    logit: Floats = np.sum([*terms.values()], axis=0)
    return logit + day.bias


def is_weekend(date: dt.date) -> bool:
    """Whether the day is a Saturday or a Sunday."""
    return date.weekday() >= 5


def _turned(phases: Floats, angle: Floats) -> Floats:
    """Two independent deviates mixed by an angle: the variance stays, the value wanders."""
    return np.cos(angle) * phases[:, 0] + np.sin(angle) * phases[:, 1]


def _drawn(rng: np.random.Generator, shares: Floats, rows: int) -> Ints:
    cumulative = np.cumsum(shares)
    return np.searchsorted(cumulative / cumulative[-1], rng.random(rows), side="right")


def _zipf(rank: Ints, *, shift: float, exponent: float) -> Floats:
    """Zipf-Mandelbrot shares; the shift keeps the first ranks from taking everything."""
    return _normalised(np.power(rank + shift, -exponent, dtype=np.float64))


def _normalised(weights: Floats) -> Floats:
    shares: Floats = weights / weights.sum()
    return shares


def _standardised(values: Floats, shares: Floats) -> Floats:
    """Mean 0 and deviation 1 under the shares; a table of one value becomes 0."""
    centred = values - np.average(values, axis=0, weights=shares)
    deviation = np.sqrt(np.average(centred**2, axis=0, weights=shares))
    standard: Floats = centred / np.where(deviation > 0, deviation, 1.0)
    return standard


def _sigmoid(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logit))


def _solved_bias(logit: Floats, mean: float) -> float:
    """The number that, added to every logit, gives this mean probability.

    Newton's method on the log of the mean, from below: mean sigmoid(b + x) <= exp(b) mean exp(x). Where logits spread
    widely a step may pass the solution; the next one comes back.
    """
    bias = float(np.log(mean / np.exp(logit).mean()))
    for _ in range(100):
        probability = _sigmoid(logit + bias)
        reached = probability.mean()
        step = float(np.log(mean / reached) * reached / (probability - probability**2).mean())
        bias += step
        if abs(step) < 1e-10:
            break
    return bias
