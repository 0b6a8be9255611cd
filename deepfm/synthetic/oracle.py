"""What no model can beat: the truth, and the best score that a training window allows."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepfm.errors import UsageError
from deepfm.metrics import auc
from deepfm.synthetic.delivery import partition
from deepfm.synthetic.world import DEVIATIONS, Bools, Floats, Impressions, World, add_terms


@dataclass(frozen=True, kw_only=True)
class OracleScores:
    """The holdout's own rows, in order of delivery, without duplicates and late rows; arrays of one length."""

    score: Floats
    """Logit of an oracle that knows every parameter of the window's users and items, and population means else."""
    label: NDArray[np.int8]
    """1 where the impression was clicked."""
    probability: Floats
    """True click probability."""

    @property
    def best_auc(self) -> float:
        """Best reachable AUC: that of the oracle's scores."""
        return auc(self.score, self.label)

    @property
    def true_auc(self) -> float:
        """AUC of the true probabilities, for which a model would have to know the unseen users and items."""
        return auc(self.probability, self.label)


def best_reachable(world: World, *, window: Sequence[dt.date], holdout: dt.date) -> OracleScores:
    """What a model trained on the window could at best say about the holdout day.

    A user or item that occurs in the window has its true parameters, as they are on the holdout day; any other has the
    population mean, which is 0. Category, brand, price and hour are known for every row. Everything is generated again
    from the seed: nothing is read.

    Args:
        world: The world.
        window: The days whose partitions train, all before the holdout; none means that nobody is known.
        holdout: The day to be predicted.

    Raises:
        UsageError: terminal; a window day is not before the holdout, or a day lies before the world.
    """
    if any(date >= holdout for date in window):
        raise UsageError("window reaches the holdout", observed=max(window), required=f"days before {holdout}")
    day = world.day(holdout)
    known_user = np.zeros(world.config.users, np.bool_)
    known_item = np.zeros(len(day.item_shares), np.bool_)
    for date in window:
        for rows in partition(world, date):
            known_user[rows.user] = True
            known_item[rows.item] = True
    chunks = list(world.impressions(day, late=False))
    return OracleScores(
        score=np.concatenate([_oracle_logit(world, rows, known_user, known_item) for rows in chunks]),
        label=np.concatenate([rows.click.astype(np.int8) for rows in chunks]),
        probability=np.concatenate([rows.probability for rows in chunks]),
    )


def variance_shares(world: World, *, window: Sequence[dt.date]) -> dict[str, float]:
    """Each term's share of the logit's variance over the window's impressions; together they are 1.

    The share is the term's covariance with the logit over the logit's variance, so that what two terms have in common
    is counted once. Up to `CHUNK_ROWS` rows of each day are used.

    Args:
        world: The world.
        window: The days, at least one.

    Raises:
        UsageError: terminal; a day lies before the world.
    """
    by_day = [_terms(world, next(world.impressions(world.day(date), late=False))) for date in window]
    terms = {name: np.concatenate([terms[name] for terms in by_day]) for name in DEVIATIONS}
    logit = np.sum(list(terms.values()), axis=0)
    centred = logit - logit.mean()
    return {name: float(term @ centred / (centred @ centred)) for name, term in terms.items()}


def _terms(world: World, rows: Impressions) -> dict[str, Floats]:
    return world.terms(rows.day, user=rows.user, item=rows.item, hour=rows.hour)


def _oracle_logit(world: World, rows: Impressions, known_user: Bools, known_item: Bools) -> Floats:
    """The logit without what the window cannot show: effects and latent vectors are drawn around a mean of 0."""
    user, item = known_user[rows.user], known_item[rows.item]
    known = {"user": user, "item": item, "pair": user & item, "taste": user}
    return add_terms(rows.day, {name: term * known.get(name, 1) for name, term in _terms(world, rows).items()})
