"""Calibration of class probabilities."""

import numpy as np

from ntkbayes._types import Float, Int, typed

__all__ = [
    "calibration_bins",
    "ece",
]

NUM_BINS = 15


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
