"""Metrics of a regression, in standardised target units.

Every function raises `ValueError` for what is not finite, for weights that do not sum to 1, and for
what is out of its range: a variance, a level, an interval whose ends are swapped.
"""

import numpy as np

from ntkbayes._checks import check_at_least, check_finite, check_fraction
from ntkbayes._types import Float
from ntkbayes.evaluation import mixtures
from ntkbayes.evaluation.metrics.inputs import check_shares
from ntkbayes.evaluation.metrics.resampling import weighted, weighted_mean

__all__ = [
    "coverage",
    "crps",
    "draws_crps",
    "interval_score",
    "interval_width",
    "rmse",
    "sharpness",
]


@weighted
def rmse(
    mean: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Root of the mean squared error of the predictive mean, over points and outputs."""
    check_finite("mean", mean)
    check_finite("y", y)
    return np.asarray(np.sqrt(weighted_mean(weights, np.mean((y - mean) ** 2, axis=1))))


@weighted
def crps(
    means: Float[np.ndarray, "s m c"],
    variance: mixtures.Variance,
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Return the mean of `mixtures.crps` over points and outputs, in target units."""
    return weighted_mean(weights, mixtures.crps(means, variance, y).mean(axis=1))


@weighted
def draws_crps(
    draws: Float[np.ndarray, "s m c"],
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Mean over points and outputs of the CRPS of bare draws, in target units.

    For predictive distributions that are no mixture of normals, known only by draws Y_s of new
    observations (noise included). The fair estimator (1/s) Σ_s |Y_s − y| − Σ_{s<t} |Y_s − Y_t| /
    (s (s − 1)): over independent draws its mean is the CRPS of the distribution itself, so that
    few draws are no disadvantage; a single point may score below 0. Correlated draws have a
    smaller second term, and score too high by their E|Y − Y′| / 2 times about 1/ESS − 1/s. Time
    is that of sorting; memory two copies of the draws.

    Raises
    ------
    ValueError
        If there are fewer than two draws, or one is not finite.

    References
    ----------
    Ferro (2014), doi:10.1002/qj.2270 (fair scores) · Gneiting & Raftery (2007), eq. 21.
    """
    num_draws = len(draws)
    check_at_least("the number of draws", num_draws, 2)
    check_finite("draws", draws)
    check_finite("y", y)
    # Σ_{s<t} |Y_s − Y_t|: the k-th smallest is the larger one in k pairs, the smaller in s − 1 − k.
    signs = 2 * np.arange(num_draws) - (num_draws - 1)
    ordered = np.sort(draws.astype(float), axis=0)
    spread = np.tensordot(signs / (num_draws * (num_draws - 1)), ordered, axes=1)
    distance = np.abs(ordered - y).mean(axis=0)
    return weighted_mean(weights, (distance - spread).mean(axis=1))


@weighted
def sharpness(
    means: Float[np.ndarray, "s m c"],
    variance: mixtures.Variance,
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Root of the mean predictive variance over points and outputs, in target units.

    √Σ_i w_i (var_s f_s(x_i) + σ²), or with the mean of σ_s² over draws, noise included: what a
    calibrated predictor has as RMSE. It does not look at the observations; smaller is better only
    at equal calibration. The variance over draws is that of the mixture, divided by s.

    Parameters
    ----------
    means, variance
        Components of the predictive distribution, as in `mixtures`.
    weights
        See the module's docstring.
    """
    _, total = mixtures.moments(means, variance)
    return np.asarray(np.sqrt(weighted_mean(weights, total.mean(axis=1))))


@weighted
def coverage(
    central_level: Float[np.ndarray, "m c"], level: float, weights: Float[np.ndarray, "*b m"]
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
    check_shares("central_level", central_level, "the level of an interval")
    check_shares("level", np.asarray(level), "the level of an interval")
    return weighted_mean(weights, np.mean(central_level <= level, axis=1))


@weighted
def interval_width(
    lower: Float[np.ndarray, "m c"],
    upper: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Mean width upper − lower, in target units."""
    _check_ends(lower, upper)
    return weighted_mean(weights, np.mean(upper - lower, axis=1))


@weighted
def interval_score(
    lower: Float[np.ndarray, "m c"],
    upper: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
    level: float,
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Mean interval score (Winkler) of central intervals, in target units; smaller is better.

    (u − l) + (2/α) (l − y)₊ + (2/α) (y − u)₊ with α = 1 − level: the width, and a fine for every
    observation outside. The expected score is least for the true quantiles α/2 and 1 − α/2.

    Parameters
    ----------
    lower, upper
        Ends of the interval, from `mixtures.central_interval`.
    y, weights
        See the module's docstring.
    level
        Nominal coverage of the interval, between 0 and 1.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1, or a lower end is above its upper end.

    References
    ----------
    Gneiting & Raftery (2007), doi:10.1198/016214506000001437, eq. 43 · Winkler (1972),
    doi:10.1080/01621459.1972.10481224.
    """
    check_fraction("level", level)
    _check_ends(lower, upper)
    check_finite("y", y)
    outside = np.maximum(lower - y, 0) + np.maximum(y - upper, 0)
    score = (upper - lower) + 2 / (1 - level) * outside
    return weighted_mean(weights, score.mean(axis=1))


def _check_ends(lower: np.ndarray, upper: np.ndarray) -> None:
    check_finite("lower", lower)
    check_finite("upper", upper)
    if np.any(lower > upper):
        raise ValueError("lower must not exceed upper, but does; they may be swapped.")
