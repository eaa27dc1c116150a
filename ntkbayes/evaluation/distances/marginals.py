"""Distances between marginals: of latent functions, noise excluded, or of class probabilities.

Every point and output is compared by itself; what the draws say of several points together is for
`joint`. Draws may be in single precision; sums are in double.

Functions of arrays raise `ValueError` for what is not finite, for negative variances and errors,
for rows of class probabilities that are no distribution, and for weights that do not sum to 1.
"""

import numpy as np
import scipy.special
import xarray as xr

from ntkbayes._checks import check_finite
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.effective_size import effective_sample_size
from ntkbayes.evaluation.metrics.inputs import (
    check_errors,
    check_variance,
    checked_distributions,
)
from ntkbayes.evaluation.metrics.resampling import weighted, weighted_mean
from ntkbayes.evaluation.storage import pooled, probabilities

__all__ = [
    "normal_wasserstein_1",
    "normal_wasserstein_2",
    "pointwise_class_distance",
    "probability_quantile_error",
    "probability_wasserstein_1",
    "probability_wasserstein_floor",
    "quantile_error",
    "squared_quantile_error",
    "wasserstein_1",
    "wasserstein_2",
    "wasserstein_2_floor",
    "wasserstein_floor",
]


@weighted
def wasserstein_1(
    a: Float[np.ndarray, "s m c"],
    b: Float[np.ndarray, "t m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Wasserstein-1 distance between the marginals of two sets of draws, in target units.

    ∫₀¹ |F_a⁻¹(u) − F_b⁻¹(u)| du at each point and output, exact for the empirical distributions;
    mean over points and outputs. The sets may differ in size.
    """
    _check_draws(a, b)
    return weighted_mean(weights, _quantile_distance(a, b, power=1).mean(axis=1))


@weighted
def wasserstein_2(
    a: Float[np.ndarray, "s m c"],
    b: Float[np.ndarray, "t m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Wasserstein-2 distance between the marginals of two sets of draws, in target units.

    √ of the mean over points and outputs of ∫₀¹ (F_a⁻¹(u) − F_b⁻¹(u))² du, exact for the empirical
    distributions: a root mean square over points, at least `wasserstein_1`, which is a mean. With
    uniform weights it is, times √(m c), the Wasserstein-2 distance between the products of the
    marginals, and so at most that between the joint distributions. The sets may differ in size.
    """
    _check_draws(a, b)
    squared = _quantile_distance(a, b, power=2).mean(axis=1)
    return np.asarray(np.sqrt(weighted_mean(weights, squared)))


@weighted
def normal_wasserstein_1(
    mean_a: Float[np.ndarray, "m c"],
    variance_a: Float[np.ndarray, "m c"],
    mean_b: Float[np.ndarray, "m c"],
    variance_b: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Wasserstein-1 distance between normal marginals in closed form, in target units.

    The quantile functions differ by δ + τ z with δ the difference of the means and τ that of the
    standard deviations, so the distance is the mean of a folded normal,
    τ √(2/π) exp(−δ²/2τ²) + δ (2 Φ(δ/τ) − 1); mean over points and outputs.
    """
    _check_moments(mean_a, variance_a, mean_b, variance_b)
    shift = np.abs(mean_a - mean_b)
    stretch = np.abs(np.sqrt(variance_a) - np.sqrt(variance_b))
    ratio = shift / np.maximum(stretch, np.finfo(stretch.dtype).tiny)
    ratio = np.minimum(ratio, 1e3)  # beyond, the distance is the shift to the last bit
    distance = stretch * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2)
    distance += shift * (2 * scipy.special.ndtr(ratio) - 1)
    return weighted_mean(weights, distance.mean(axis=1))


@weighted
def normal_wasserstein_2(
    mean_a: Float[np.ndarray, "m c"],
    variance_a: Float[np.ndarray, "m c"],
    mean_b: Float[np.ndarray, "m c"],
    variance_b: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Wasserstein-2 distance between normal marginals in closed form, in target units.

    √ of the mean over points and outputs of (μ_a − μ_b)² + (σ_a − σ_b)².

    References
    ----------
    Dowson & Landau (1982), doi:10.1016/0047-259X(82)90077-X.
    """
    _check_moments(mean_a, variance_a, mean_b, variance_b)
    squared = (mean_a - mean_b) ** 2 + (np.sqrt(variance_a) - np.sqrt(variance_b)) ** 2
    return np.asarray(np.sqrt(weighted_mean(weights, squared.mean(axis=1))))


@weighted
def probability_wasserstein_1(
    p: Float[np.ndarray, "s m c"],
    q: Float[np.ndarray, "t m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Wasserstein-1 distance between the distributions of class probabilities, from 0 to 1.

    Mean over points of ½ Σ_c ∫₀¹ |F_p⁻¹(u) − F_q⁻¹(u)| du over *draws* of the probability of class
    c. It is at least `total_variation` of the mean probabilities, and equal to it for single
    draws; the excess is disagreement about the epistemic part, which the mean probabilities do
    not show.
    """
    p, q = checked_distributions("p", p), checked_distributions("q", q)
    return weighted_mean(weights, pointwise_class_distance(p, q))


def pointwise_class_distance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """½ Σ_c ∫₀¹ |F_p⁻¹(u) − F_q⁻¹(u)| du at each point (m,), of draws (s m c) and (t m c)."""
    return 0.5 * _quantile_distance(p, q, power=1).sum(axis=1)


@typed
def wasserstein_floor(
    error_a: Float[np.ndarray, "m c"], error_b: Float[np.ndarray, "m c"]
) -> float:
    """Wasserstein-1 distance that finite draws of one distribution would show, mean over points.

    √(error_a² + error_b²), mean over points and outputs, with errors from `quantile_error`.
    """
    check_errors(error_a=error_a, error_b=error_b)
    return float(np.mean(np.hypot(error_a, error_b)))


@typed
def wasserstein_2_floor(
    error_a: Float[np.ndarray, "m c"], error_b: Float[np.ndarray, "m c"]
) -> float:
    """Wasserstein-2 distance that finite draws of one distribution would show.

    √ of the mean over points and outputs of the sum of the *squared* errors of both sets, from
    `squared_quantile_error`.
    """
    check_errors(error_a=error_a, error_b=error_b)
    return float(np.sqrt(np.mean(error_a + error_b)))


@typed
def probability_wasserstein_floor(
    error_p: Float[np.ndarray, "m c"], error_q: Float[np.ndarray, "m c"]
) -> float:
    """`probability_wasserstein_1` that finite draws of one distribution would show.

    Mean over points of ½ Σ_c √(error_p² + error_q²), with errors from `probability_quantile_error`.
    """
    check_errors(error_p=error_p, error_q=error_q)
    return float(np.mean(0.5 * np.hypot(error_p, error_q).sum(axis=1)))


def quantile_error(tree: xr.DataTree) -> np.ndarray:
    """Mean Wasserstein-1 distance (m c) of the draws' marginals from what they were drawn from.

    √(2/π) ∫ √(F(f) (1 − F(f)) / ESS) df, with the empirical F and the bulk ESS: the mean absolute
    error of the empirical distribution function, integrated. A single draw is a deterministic
    predictor, without error.
    """
    return _quantile_error(tree, pooled(tree))


def probability_quantile_error(tree: xr.DataTree) -> np.ndarray:
    """Return what `quantile_error` is for the draws of the class probabilities (m c).

    Raises
    ------
    ValueError
        If the task is not classification.
    """
    return _quantile_error(tree, probabilities(tree))


def squared_quantile_error(tree: xr.DataTree) -> np.ndarray:
    """Mean squared Wasserstein-2 distance (m c) of the draws' marginals from their distribution.

    For a smooth distribution it is C/s for s independent draws, in squared target units, and
    C (1/s + 1/t) between two sets. A random half of the draws against the other half shows C, and
    C/ESS with the bulk ESS is the result. It is noisy at a single point; its mean over points is
    not. Between far clusters of draws the mean is of order 1/√s instead, and the result up to
    √2 times too small in `wasserstein_2_floor`. A single draw is a deterministic predictor,
    without error.

    References
    ----------
    Bobkov & Ledoux (2019), doi:10.1090/memo/1259 (rates in one dimension).
    """
    latent = pooled(tree)
    num_draws = len(latent)
    if num_draws == 1:
        return np.zeros(latent.shape[1:])
    order, half = np.random.default_rng(0).permutation(num_draws), num_draws // 2
    squared = _quantile_distance(latent[order[:half]], latent[order[half:]], power=2)
    constant = squared / (1 / half + 1 / (num_draws - half))
    return constant / effective_sample_size(tree, latent, kind="bulk")


def _check_draws(a: np.ndarray, b: np.ndarray) -> None:
    check_finite("a", a)
    check_finite("b", b)


def _check_moments(
    mean_a: np.ndarray, variance_a: np.ndarray, mean_b: np.ndarray, variance_b: np.ndarray
) -> None:
    for name, mean, variance in (("a", mean_a, variance_a), ("b", mean_b, variance_b)):
        check_finite(f"mean_{name}", mean)
        check_variance(f"variance_{name}", variance, or_zero=True)


def _quantile_error(tree: xr.DataTree, draws: np.ndarray) -> np.ndarray:
    if len(draws) == 1:
        return np.zeros_like(draws[0])
    num_draws = len(draws)
    share = (np.arange(1, num_draws) / num_draws)[:, None, None]
    steps = np.diff(np.sort(draws.astype(float), axis=0), axis=0)
    spread = np.sum(np.sqrt(share * (1 - share)) * steps, axis=0)
    return np.sqrt(2 / np.pi / effective_sample_size(tree, draws, kind="bulk")) * spread


def _quantile_distance(a: np.ndarray, b: np.ndarray, *, power: int) -> np.ndarray:
    """∫₀¹ |F_a⁻¹(u) − F_b⁻¹(u)|^power du of the empirical distributions at each point, (m c)."""
    s, t = len(a), len(b)
    levels = np.union1d(np.arange(1, s + 1) * t, np.arange(1, t + 1) * s)  # in units of 1/(s t)
    masses = np.diff(levels, prepend=0) / (s * t)
    ordered_a, ordered_b = (np.sort(draws.astype(float), axis=0) for draws in (a, b))
    gaps = np.abs(ordered_a[(levels - 1) // t] - ordered_b[(levels - 1) // s])
    return np.tensordot(masses, gaps**power, axes=1)
