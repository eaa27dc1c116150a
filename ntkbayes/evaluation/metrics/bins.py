"""Bins of a confidence, closed on the right, and weighted sums over them.

``width``: equally wide, (k/B, (k+1)/B]; a confidence that is k/B rounded to single precision counts
as k/B, in arrays of double precision too. ``mass``: about as many test points in each; the
boundaries are the order statistics number ⌈k m / B⌉ of the confidences, equal confidences stay in
one bin, and weights do not move the boundaries, so that bootstrap rows share them.

References
----------
Nguyen & O'Connor (2015), arXiv 1508.05154 (equal mass).
"""

import numpy as np

from ntkbayes._arrays import one_hot
from ntkbayes._checks import check_at_least, check_choice
from ntkbayes._types import Float, Int, typed
from ntkbayes.evaluation.metrics.inputs import checked_confidence, checked_distributions

__all__ = ["bin_sums", "calibration_bins", "confidence_bins", "ratio"]

NUM_BINS = 15
BINNINGS = ("width", "mass")


@typed
def calibration_bins(
    p: Float[np.ndarray, "m c"], *, num_bins: int = NUM_BINS, binning: str = "width"
) -> Int[np.ndarray, "m"]:
    """Index of the bin that holds the probability of the most probable class.

    Raises
    ------
    ValueError
        If rows of p are no distributions, or there is no bin.
    """
    p = checked_distributions("p", p)
    return confidence_bins(p.max(axis=1), num_bins=num_bins, binning=binning)


@typed
def confidence_bins(
    confidence: Float[np.ndarray, "m"], *, num_bins: int = NUM_BINS, binning: str = "width"
) -> Int[np.ndarray, "m"]:
    """Index of each confidence's bin, closed on the right; the module says how they are made.

    Raises
    ------
    ValueError
        If there are no confidences, if they are not from 0 to 1, or if there is no bin.
    """
    check_at_least("num_bins", num_bins, 1)
    check_choice("binning", binning, BINNINGS)
    confidence = checked_confidence(confidence)
    if binning == "width":
        return _bins_of_width(confidence, num_bins)
    # Integer division: ⌈k m / B⌉ − 1 counts from 0.
    ranks = -(-np.arange(1, num_bins) * len(confidence) // num_bins) - 1
    return np.searchsorted(np.sort(confidence)[ranks], confidence, side="left")


def _bins_of_width(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """Count the inner boundaries k/B below each confidence; ⌈B q⌉ − 1 would round B q.

    Votes of ten trees in single precision are 0.6000000238, which is what single precision has for
    the boundary 9/15, and not above it.
    """
    edges = np.arange(1, num_bins) / num_bins
    bins = np.searchsorted(edges, confidence, side="left")
    single = np.append(np.nan, edges.astype(np.float32))
    return bins - (confidence == single[bins])


def bin_sums(
    weights: np.ndarray, bins: np.ndarray, num_bins: int, *values: np.ndarray
) -> list[np.ndarray]:
    """Return the sums (… B) over each bin of w_i v_i, for every array of values (m)."""
    inside, weights = one_hot(bins, num_bins), weights.astype(float, copy=False)
    # One product for all values costs hardly more than one each: the weights are read once.
    sums = weights @ np.hstack([inside * v[:, None] for v in values])
    return np.split(sums, len(values), axis=-1)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, and 0 where the denominator is 0: empty bins and certain events."""
    positive = denominator > 0
    return np.where(positive, numerator, 0) / np.where(positive, denominator, 1)
