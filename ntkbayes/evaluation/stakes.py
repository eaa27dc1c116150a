"""What a test set with hardly a wrong answer leaves unknown of each metric.

Twenty right answers of twenty say little of how often a predictor is wrong, and nothing of what it
loses then: every resample of them looks alike, and a bootstrap error is next to 0. For the share p
of right answers Agresti & Coull add two of either kind (`share_error`). A metric that would change
by Δ_i, were point i answered the other way, inherits what they add,

    error² = [p̃ (1 − p̃) / (m + 4) − p (1 − p) / m]₊ · mean Δ²,

with the mean over the answers of the rarer kind; of none, over all points. Δ_i is what the other
outcomes make in the mean, by the predictor's own probabilities of them. It falls as 1/m² of any
share that is not 0 or 1: the resamples' spread remains. ``benchmarks/standard_errors.py`` tries it
on predictors that are nearly always right.
"""

import equinox as eqx
import numpy as np
import scipy.special
import scipy.stats

from ntkbayes._types import Bool, Float
from ntkbayes.evaluation import count_mixtures, metrics, mixtures
from ntkbayes.evaluation.catalog import LEVELS
from ntkbayes.evaluation.metrics.recalibration import scaled_probabilities
from ntkbayes.evaluation.metrics.resampling import share_error
from ntkbayes.evaluation.predictive import Predictive

__all__ = ["Stake", "distance_stakes", "stakes", "unseen_difference", "unseen_error"]


class Stake(eqx.Module):
    """An answer at each of k points, and what is at stake there.

    Parameters
    ----------
    right
        Whether it is right, or within the interval, or that of the reference.
    change
        By how much the metric of this point alone would change, were it the other way round.
    """

    right: Bool[np.ndarray, "k"]
    change: Float[np.ndarray, "k"]


def unseen_error(stake: Stake | None) -> float:
    """Return the standard error that resamples do not see, as above; NaN where it is infinite.

    It is 0 of a metric without a stake.
    """
    if stake is None:
        return 0.0
    share = float(stake.right.mean())
    if (error := share_error(share, len(stake.right))) == 0:
        return 0.0
    rare = stake.right if share < 0.5 else ~stake.right
    change = stake.change[rare] if rare.any() else stake.change
    found = error * float(np.sqrt(np.mean(change**2)))
    return found if np.isfinite(found) else np.nan


def unseen_difference(a: Stake | None, b: Stake | None) -> float:
    """Return the same of the difference of two methods: by the answers of either, the larger.

    Where both would change alike, as shares do, nothing of their difference is unseen.
    """
    if a is None or b is None or len(a.change) != len(b.change):  # pairs: they are shares
        return 0.0
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        change = np.where(a.change == b.change, 0.0, a.change - b.change)
    return float(np.max([unseen_error(Stake(each.right, change)) for each in (a, b)]))


def stakes(found: Predictive) -> dict[str, Stake]:
    """Find what is at stake of the metrics that rest on answers, by name."""
    kinds = {
        "classification": _class_stakes,
        "regression": _interval_stakes,
        "counts": _count_stakes,
    }
    return kinds[found.task](found)


def distance_stakes(found: Predictive, reference: Predictive) -> dict[str, Stake]:
    """Find the same of the distances from a reference."""
    if not found.is_classification:
        return {}
    a, b = (each.classes.mean.argmax(axis=1) for each in (found, reference))
    return {"agreement": _one_each(a == b)}


def _class_stakes(found: Predictive) -> dict[str, Stake]:
    p, y = found.classes.mean.astype(float), found.observations
    right = p.argmax(axis=1) == y
    gap = float(np.mean(p.max(axis=1) - right))
    square = np.full(len(y), 2 * abs(gap) + share_error(float(right.mean()), len(y)))
    nll = Stake(right, _surprise(p))
    at_stake = {
        **dict.fromkeys(("accuracy", "confidence_gap"), _one_each(right)),
        **dict.fromkeys(("aurc", "excess_aurc"), Stake(right, _area(p))),
        "augrc": Stake(right, _generalized_area(p)),
        **dict.fromkeys(("nll", "joint_nll", "dyadic_nll"), nll),
        "brier": Stake(right, _brier(p)),
        "ece_squared": Stake(right, square),
    }
    if len(y) > 1:
        at_stake["scaled_nll"] = Stake(right, _surprise(scaled_probabilities(p, y)))
    if len(found.log_likelihood) > 1 and 0 < right.sum() < len(y):
        share = float(metrics.error_auroc(found.classes.top_variance, ~right))
        pairs = min(right.sum(), (~right).sum())  # as many as answers of the rarer kind
        at_stake["error_auroc"] = _one_each(np.arange(pairs) < round(share * pairs))
    return at_stake


def _one_each(right: np.ndarray) -> Stake:
    return Stake(right, np.ones(len(right)))


def _surprise(p: np.ndarray) -> np.ndarray:
    """−log p in the mean over the other classes' probabilities, less that of the top class."""
    others, rest = _others(p)
    with np.errstate(divide="ignore"):
        own = np.where(rest > 0, scipy.special.entr(others).sum(axis=1) - np.log(rest), np.inf)
    return own + np.log(p.max(axis=1))


def _brier(p: np.ndarray) -> np.ndarray:
    """Squared error where another class is true, in the same mean, less that of the top class."""
    others, _ = _others(p)
    return 2 * (p.max(axis=1) - np.sum(others * p, axis=1))


def _area(p: np.ndarray) -> np.ndarray:
    """Σ_{k ≥ r} 1/k of the r-th most confident: what its error adds to the risks of all shares."""
    return _by_rank(p, np.cumsum(1 / np.arange(len(p), 0, -1))[::-1])


def _generalized_area(p: np.ndarray) -> np.ndarray:
    """Share of the shares at which the r-th most confident is accepted."""
    return _by_rank(p, np.arange(len(p), 0, -1) / len(p))


def _by_rank(p: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give points the values of their ranks, the most confident first, ties the mean of theirs."""
    _, group = np.unique(-p.max(axis=1), return_inverse=True)
    return (np.bincount(np.sort(group), weights=values) / np.bincount(group))[group]


def _others(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of classes given that the top one is not true, and that it is not."""
    others = p.copy()
    others[np.arange(len(p)), p.argmax(axis=1)] = 0.0
    rest = others.sum(axis=1)
    return np.divide(others, rest[:, None], where=rest[:, None] > 0, out=others), rest


def _interval_stakes(found: Predictive) -> dict[str, Stake]:
    """Of intervals that hold all observations, or none; of others resamples know enough."""
    level = mixtures.central_level(*found.mixture, found.observations)
    inside = {percent: (level <= percent / 100).all(axis=1) for percent in LEVELS}
    return {
        f"coverage_{percent}": _one_each(holds)
        for percent, holds in inside.items()
        if len(set(holds)) == 1
    }


def _count_stakes(found: Predictive) -> dict[str, Stake]:
    """Of the likely count, and one more: of rare events hardly any is seen."""
    rates, y = found.rates, found.observations[:, 0].astype(float)
    likely = np.floor(count_mixtures.mean(rates))
    surprise, crps = (
        score(rates, likely + 1) - score(rates, likely)
        for score in (_count_nll, count_mixtures.crps)
    )
    nll = Stake(y <= likely, surprise)
    return {"nll": nll, "joint_nll": nll, "crps": Stake(y <= likely, crps)}


def _count_nll(rates: np.ndarray, y: np.ndarray) -> np.ndarray:
    log_likelihood = scipy.stats.poisson.logpmf(y, rates)
    return np.log(len(rates)) - np.asarray(scipy.special.logsumexp(log_likelihood, axis=0))
