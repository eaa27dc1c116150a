"""Metrics of a regression, in standardised target units."""

import numpy as np

from ntkbayes._types import Float, typed
from ntkbayes.evaluation import mixtures
from ntkbayes.evaluation.metrics.resampling import weighted_mean

__all__ = [
    "coverage",
    "crps",
    "interval_width",
    "rmse",
]


@typed
def rmse(
    mean: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Root of the mean squared error of the predictive mean, over points and outputs."""
    return np.asarray(np.sqrt(weighted_mean(weights, np.mean((y - mean) ** 2, axis=1))))


@typed
def crps(
    means: Float[np.ndarray, "s m c"],
    variance: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Return the mean of `mixtures.crps` over points and outputs, in target units."""
    return weighted_mean(weights, mixtures.crps(means, variance, y).mean(axis=1))


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
    return weighted_mean(weights, np.mean(central_level <= level, axis=1))


@typed
def interval_width(
    lower: Float[np.ndarray, "m c"],
    upper: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Mean width upper − lower, in target units."""
    return weighted_mean(weights, np.mean(upper - lower, axis=1))
