"""Weights of test points: uniform, and those of bootstrap resamples."""

import numpy as np

from ntkbayes._checks import check_at_least
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.inputs import check_weights

__all__ = [
    "bootstrap_weights",
    "uniform_weights",
    "weighted_mean",
]

NUM_RESAMPLES = 1000


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


def weighted_mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return Σ_i w_i v_i for every row of weights, which are checked."""
    check_weights(weights)
    return np.asarray(weights.astype(float, copy=False) @ values.astype(float, copy=False))
