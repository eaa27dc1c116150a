"""Metrics of predictions, as functions of *weighted* test points.

Every metric takes quantities per test point and ``weights`` (… m) whose rows sum to 1, and
returns one value per row. Uniform weights give the metric; the rows of `bootstrap_weights` give
its distribution over test sets, whose standard deviation is the standard error. The same rows
serve every method, so that differences between methods are paired.

Notation: p (m c) the predictive class probabilities, which are the *mean over draws* of
softmax(f); y the observations; w one row of weights. Regression is in the units of the training
targets, which are standardised.

References
----------
Gneiting & Raftery (2007), strictly proper scoring rules, doi:10.1198/016214506000001437 (NLL,
Brier, CRPS) · Guo et al. (2017), arXiv 1706.04599, eq. 3 (ECE) · Depeweg et al. (2018), arXiv
1710.07283, eq. 7 (mutual information) · Efron (1979), doi:10.1214/aos/1176344552 (bootstrap).
"""

import numpy as np
import scipy.special

from ntkbayes._checks import check_at_least
from ntkbayes._types import Float, Int, typed
from ntkbayes.evaluation import mixtures

__all__ = [
    "accuracy",
    "bootstrap_weights",
    "brier",
    "calibration_bins",
    "coverage",
    "crps",
    "ece",
    "interval_width",
    "mixture_nll",
    "mutual_information",
    "pointwise_mutual_information",
    "predictive_entropy",
    "rmse",
    "uniform_weights",
]

NUM_RESAMPLES = 1000
NUM_BINS = 15


@typed
def uniform_weights(num_points: int) -> Float[np.ndarray, "m"]:
    """Return 1/m for each of m test points."""
    return np.full(num_points, 1 / num_points)


@typed
def bootstrap_weights(
    num_points: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "b m"]:
    """Draw b weightings of m test points: how often a resample with replacement has each, over m.

    Parameters
    ----------
    num_points
        Number of test points m.
    num_resamples
        Number of bootstrap resamples b. The standard error has a relative error of 1/√(2b).
    seed
        Seed; the same seed and m give the same resamples, which pairs methods.

    Raises
    ------
    ValueError
        If there are no points or fewer than two resamples.
    """
    check_at_least("num_points", num_points, 1)
    check_at_least("num_resamples", num_resamples, 2)
    counts = np.random.default_rng(seed).multinomial(
        num_points, uniform_weights(num_points), size=num_resamples
    )
    return counts / num_points


@typed
def accuracy(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return the share of points whose most probable class is y; ties go to the lower class."""
    return _mean(weights, p.argmax(axis=1) == y)


@typed
def mixture_nll(
    log_likelihood: Float[np.ndarray, "s m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return −Σ_i w_i log (1/s) Σ_s p(y_i | f_s), in nats per point.

    The logarithm of the mean over draws, never the mean of logarithms. For classes it is −log p
    at the true class; for regression the density of the mixture of one Gaussian per draw, in
    nats for standardised targets, summed over outputs.
    """
    num_draws = log_likelihood.shape[0]
    return _mean(weights, np.log(num_draws) - scipy.special.logsumexp(log_likelihood, axis=0))


@typed
def brier(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return Σ_i w_i Σ_c (p_ic − 1[y_i = c])², from 0 to 2: the sum over classes, not halved."""
    return _mean(weights, np.sum((p - np.eye(p.shape[1])[y]) ** 2, axis=1))


@typed
def ece(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_bins: int = NUM_BINS,
) -> Float[np.ndarray, "*b"]:
    """Return the expected calibration error (ECE) of the top label.

    Σ_bins |Σ_{i in bin} w_i (1[ŷ_i = y_i] − p̂_i)|, from 0 to 1, where p̂ is the probability of
    the most probable class ŷ; the bins are equally wide and closed on the right,
    (k/B, (k+1)/B]; the norm is L1. Finite test sets bias it upwards: a perfectly calibrated
    predictor has a positive ECE of order √(B/m).

    Parameters
    ----------
    p, y, weights
        See the module's docstring.
    num_bins
        Number of bins B.
    """
    bins, gap = calibration_bins(p, num_bins=num_bins), (p.argmax(axis=1) == y) - p.max(axis=1)
    per_bin = np.eye(num_bins)[bins] * gap[:, None]
    return np.asarray(np.abs(weights @ per_bin).sum(axis=-1))


@typed
def calibration_bins(
    p: Float[np.ndarray, "m c"], *, num_bins: int = NUM_BINS
) -> Int[np.ndarray, "m"]:
    """Index of the bin (k/B, (k+1)/B] that holds the probability of the most probable class."""
    return np.clip(np.ceil(p.max(axis=1) * num_bins).astype(int) - 1, 0, num_bins - 1)


@typed
def predictive_entropy(
    p: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of the entropy −Σ_c p_c log p_c of the predictive probabilities, in nats."""
    return _mean(weights, scipy.special.entr(p).sum(axis=-1))


@typed
def mutual_information(
    probabilities: Float[np.ndarray, "s m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of `pointwise_mutual_information`, the epistemic uncertainty, in nats."""
    return _mean(weights, pointwise_mutual_information(probabilities))


@typed
def pointwise_mutual_information(
    probabilities: Float[np.ndarray, "s m c"],
) -> Float[np.ndarray, "m"]:
    """Entropy of the mean minus mean entropy over draws at each point, in nats.

    The mutual information between the label and the function: the epistemic part of the
    predictive entropy, from 0 (all draws agree) to log c.
    """
    total = scipy.special.entr(probabilities.mean(axis=0)).sum(axis=-1)
    aleatoric = scipy.special.entr(probabilities).sum(axis=-1).mean(axis=0)
    return total - aleatoric


@typed
def rmse(
    mean: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Root of the mean squared error of the predictive mean, over points and outputs."""
    return np.asarray(np.sqrt(_mean(weights, np.mean((y - mean) ** 2, axis=1))))


@typed
def crps(
    means: Float[np.ndarray, "s m c"],
    variance: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Return the mean of `mixtures.crps` over points and outputs, in target units."""
    return _mean(weights, mixtures.crps(means, variance, y).mean(axis=1))


@typed
def coverage(
    central_level: Float[np.ndarray, "m c"], level: float | int, weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Share of observations inside the central interval of a level.

    Parameters
    ----------
    central_level
        Level of the smallest central interval that holds the observation, from
        `mixtures.central_level`.
    level
        Nominal coverage, from 0 to 1.
    weights
        See the module's docstring.
    """
    return _mean(weights, np.mean(central_level <= level, axis=1))


@typed
def interval_width(
    lower: Float[np.ndarray, "m c"],
    upper: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Mean width upper − lower, in target units."""
    return _mean(weights, np.mean(upper - lower, axis=1))


def _mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(weights @ values)
