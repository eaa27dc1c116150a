"""Distances between predictive class probabilities.

Functions of arrays raise `ValueError` for rows that are no distribution over classes, such as
logits, for errors that are negative or not finite, and for weights that do not sum to 1.
"""

import numpy as np
import scipy.special
import xarray as xr

from ntkbayes._types import Float, typed
from ntkbayes.evaluation.distances.marginals import pointwise_class_distance
from ntkbayes.evaluation.effective_size import effective_sample_size
from ntkbayes.evaluation.metrics.inputs import check_errors, checked_distributions
from ntkbayes.evaluation.metrics.resampling import weighted, weighted_mean
from ntkbayes.evaluation.storage import probabilities

__all__ = [
    "agreement",
    "jensen_shannon",
    "jensen_shannon_floor",
    "mean_probability_error",
    "total_variation",
    "total_variation_floor",
]


@weighted
def agreement(
    p: Float[np.ndarray, "m c"], q: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Share of points where p and q have the same most probable class."""
    p, q = checked_distributions("p", p), checked_distributions("q", q)
    return weighted_mean(weights, p.argmax(axis=1) == q.argmax(axis=1))


@weighted
def total_variation(
    p: Float[np.ndarray, "m c"], q: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of ½ Σ_c |p_c − q_c|, from 0 to 1."""
    p, q = checked_distributions("p", p), checked_distributions("q", q)
    return weighted_mean(weights, pointwise_class_distance(p[None], q[None]))


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
    check_errors(error_p=error_p, error_q=error_q)
    return float(np.mean(0.5 * np.sqrt(2 / np.pi) * np.hypot(error_p, error_q).sum(axis=1)))


@weighted
def jensen_shannon(
    p: Float[np.ndarray, "m c"], q: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of the Jensen-Shannon divergence, from 0 to log 2, in nats.

    ½ KL(p ‖ r) + ½ KL(q ‖ r) with r = ½ (p + q): the divergence itself, in natural logarithms, not
    its root (which is a metric). Unlike total variation it weighs a class by the *relative*
    difference of its probabilities.

    References
    ----------
    Lin (1991), doi:10.1109/18.61115, eq. 3.6 and 4.1.
    """
    p, q = checked_distributions("p", p), checked_distributions("q", q)
    middle = (p.astype(float) + q) / 2
    divergence = scipy.special.rel_entr(p, middle) + scipy.special.rel_entr(q, middle)
    return weighted_mean(weights, np.maximum(divergence.sum(axis=1) / 2, 0))  # not −1e-17


@typed
def jensen_shannon_floor(
    p: Float[np.ndarray, "m c"],
    q: Float[np.ndarray, "m c"],
    error_p: Float[np.ndarray, "m c"],
    error_q: Float[np.ndarray, "m c"],
) -> float:
    """Jensen-Shannon divergence that finite draws of one distribution would show, mean over points.

    ⅛ Σ_c (error_p² + error_q²) / r_c with r = ½ (p + q): to second order the divergence is an
    eighth of the chi-square distance Σ_c (p_c − q_c)² / r_c. Of order 1/ESS, where the floor of
    total variation is of order 1/√ESS.

    Parameters
    ----------
    p, q
        Mean class probabilities.
    error_p, error_q
        Their standard errors, from `mean_probability_error`.
    """
    p, q = checked_distributions("p", p), checked_distributions("q", q)
    check_errors(error_p=error_p, error_q=error_q)
    middle, variance = (p + q) / 2, error_p**2 + error_q**2
    ratio = np.divide(variance, middle, out=np.zeros_like(variance), where=variance > 0)
    return float(np.mean(ratio.sum(axis=1)) / 8)


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
