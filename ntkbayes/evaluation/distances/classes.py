"""Distances between predictive class probabilities."""

import numpy as np
import xarray as xr

from ntkbayes._types import Float, typed
from ntkbayes.evaluation.diagnostics import effective_sample_size
from ntkbayes.evaluation.storage import probabilities

__all__ = [
    "agreement",
    "mean_probability_error",
    "total_variation",
    "total_variation_floor",
]


@typed
def agreement(
    p: Float[np.ndarray, "m c"], q: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Share of points where p and q have the same most probable class."""
    return np.asarray(weights @ (p.argmax(axis=1) == q.argmax(axis=1)))


@typed
def total_variation(
    p: Float[np.ndarray, "m c"], q: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of ½ Σ_c |p_c − q_c|, from 0 to 1."""
    return np.asarray(weights @ (0.5 * np.abs(p - q).sum(axis=1)))


@typed
def total_variation_floor(
    error_p: Float[np.ndarray, "m c"], error_q: Float[np.ndarray, "m c"]
) -> float:
    """Total variation that finite draws of one distribution would show, mean over points.

    ½ Σ_c √(2/π) √(error_p² + error_q²): the mean absolute value of a normal difference. A single
    deterministic predictor has error 0.

    Parameters
    ----------
    error_p, error_q
        Standard errors of the mean probabilities, from `mean_probability_error`.
    """
    return float(np.mean(0.5 * np.sqrt(2 / np.pi) * np.hypot(error_p, error_q).sum(axis=1)))


def mean_probability_error(tree: xr.DataTree) -> np.ndarray:
    """Monte-Carlo standard error (m c) of the mean class probabilities, √(var / ESS).

    For several chains the ESS is ArviZ's, for means; draws of a single chain count as
    independent. A single draw is a deterministic predictor, without error.

    Raises
    ------
    ValueError
        If the task is not classification.
    """
    p = probabilities(tree)
    if len(p) == 1:
        return np.zeros_like(p[0])
    return np.sqrt(p.var(axis=0, ddof=1) / effective_sample_size(tree, p, kind="mean"))
