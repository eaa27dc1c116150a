"""Distances between the marginals of latent functions, noise excluded."""

import numpy as np
import scipy.special
import xarray as xr

from ntkbayes._types import Float, typed
from ntkbayes.evaluation.diagnostics import effective_sample_size
from ntkbayes.evaluation.storage import pooled

__all__ = [
    "normal_wasserstein_1",
    "quantile_error",
    "wasserstein_1",
    "wasserstein_floor",
]


@typed
def wasserstein_1(
    a: Float[np.ndarray, "s m c"],
    b: Float[np.ndarray, "t m c"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Wasserstein-1 distance between the marginals of two sets of draws, in target units.

    ∫₀¹ |F_a⁻¹(u) − F_b⁻¹(u)| du at each point and output, exact for the empirical distributions;
    mean over points and outputs. The sets may differ in size.
    """
    s, t = len(a), len(b)
    levels = np.union1d(np.arange(1, s + 1) * t, np.arange(1, t + 1) * s)  # in units of 1/(s t)
    masses = np.diff(levels, prepend=0) / (s * t)
    gaps = np.abs(np.sort(a, axis=0)[(levels - 1) // t] - np.sort(b, axis=0)[(levels - 1) // s])
    return np.asarray(weights @ np.tensordot(masses, gaps, axes=1).mean(axis=1))


@typed
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
    shift = np.abs(mean_a - mean_b)
    stretch = np.abs(np.sqrt(variance_a) - np.sqrt(variance_b))
    ratio = shift / np.maximum(stretch, np.finfo(stretch.dtype).tiny)
    ratio = np.minimum(ratio, 1e3)  # beyond, the distance is the shift to the last bit
    distance = stretch * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2)
    distance += shift * (2 * scipy.special.ndtr(ratio) - 1)
    return np.asarray(weights @ distance.mean(axis=1))


@typed
def wasserstein_floor(
    error_a: Float[np.ndarray, "m c"], error_b: Float[np.ndarray, "m c"]
) -> float:
    """Wasserstein-1 distance that finite draws of one distribution would show, mean over points.

    √(error_a² + error_b²), mean over points and outputs, with errors from `quantile_error`.
    """
    return float(np.mean(np.hypot(error_a, error_b)))


def quantile_error(tree: xr.DataTree) -> np.ndarray:
    """Mean Wasserstein-1 distance (m c) of the draws' marginals from what they were drawn from.

    √(2/π) ∫ √(F(f) (1 − F(f)) / ESS) df, with the empirical F and the bulk ESS: the mean absolute
    error of the empirical distribution function, integrated. A single draw is a deterministic
    predictor, without error.
    """
    latent = pooled(tree)
    num_draws = len(latent)
    if num_draws == 1:
        return np.zeros_like(latent[0])
    share = (np.arange(1, num_draws) / num_draws)[:, None, None]
    steps = np.diff(np.sort(latent, axis=0), axis=0)
    spread = np.sum(np.sqrt(share * (1 - share)) * steps, axis=0)
    return np.sqrt(2 / np.pi / effective_sample_size(tree, latent, kind="bulk")) * spread
