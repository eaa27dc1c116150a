"""Calibration of the predictive distributions of a regression.

All functions take ``pit`` (m c), the values F(y) of the predictive distribution functions at the
observations, from `mixtures.pit`, and pool points and outputs. The central interval of level p
holds an observation if |2 F(y) − 1| ≤ p; the share of observations that it holds, the observed
proportion p̂(p), should be p. Levels are K = 100 equally spaced ones from 0 to 1, both ends
included: p_k = k / 99. At the ends p̂ is right by construction.

Like every distance between distributions these are positive for a finite test set, however
calibrated the predictor: over m independent observations the mean over k of |p̂(p_k) − p_k| is
about 0.31 / √m and the Kolmogorov-Smirnov statistic about 0.87 / √m. Bootstrap resamples of the
points add as much again; read the standard error, not the mean over resamples.

References
----------
Kuleshov, Fenner & Ermon (2018), arXiv 1807.00263 (calibration of regressions) · Chung
et al. (2021), Uncertainty Toolbox, arXiv 2109.10254 (the three summaries, the 100 levels and
central intervals) · Levi, Gispan, Giladi & Fetaya (2022), arXiv 1905.11659, eq. 8 (ENCE) ·
Gneiting, Balabdaoui & Raftery (2007), doi:10.1111/j.1467-9868.2007.00587.x (PIT and
probabilistic calibration).
"""

import numpy as np
import scipy.stats

from ntkbayes._checks import check_at_least, check_finite
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.bins import bin_sums, confidence_bins, ratio
from ntkbayes.evaluation.metrics.calibration_tests import CalibrationTest
from ntkbayes.evaluation.metrics.inputs import check_shares, check_variance, check_weights
from ntkbayes.evaluation.metrics.resampling import weighted, weighted_mean

__all__ = [
    "ence",
    "mean_absolute_calibration_error",
    "miscalibration_area",
    "observed_proportions",
    "pit_kolmogorov_smirnov",
    "pit_test",
    "rms_calibration_error",
]

NUM_LEVELS = 100
NUM_BINS = 10
CHUNK = 2**23
"""Numbers in one temporary array, 64 MB."""


@weighted
def observed_proportions(
    pit: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_levels: int = NUM_LEVELS,
) -> Float[np.ndarray, "*b k"]:
    """Share of observations in the central interval of each level p_k = k / (K − 1).

    Raises
    ------
    ValueError
        If there are fewer than two levels, or `pit` is not from 0 to 1.
    """
    check_at_least("num_levels", num_levels, 2)
    _check_pit(pit)
    levels = np.linspace(0, 1, num_levels)
    central_level = np.abs(2 * pit.astype(float) - 1)
    inside = np.zeros((len(pit), num_levels))
    for column in central_level.T:
        inside += column[:, None] <= levels
    return weighted_mean(weights, inside / pit.shape[1])


@weighted
def mean_absolute_calibration_error(
    pit: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return (1/K) Σ_k |p̂(p_k) − p_k|, from 0 to ½: how far coverage is off, on average."""
    return np.asarray(np.abs(_deviations(pit, weights)).mean(axis=-1))


@weighted
def rms_calibration_error(
    pit: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return √((1/K) Σ_k (p̂(p_k) − p_k)²), from 0 to 1/√3 (a little more for finite K)."""
    return np.asarray(np.sqrt(np.mean(_deviations(pit, weights) ** 2, axis=-1)))


@weighted
def miscalibration_area(
    pit: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Area ∫₀¹ |p̂(p) − p| dp between the calibration curve and the diagonal, from 0 to ½.

    The curve is drawn with straight lines from level to level, so that a crossing of the diagonal
    makes two triangles. It tends to the mean absolute calibration error for many levels.
    """
    deviations = _deviations(pit, weights)
    left, right = deviations[..., :-1], deviations[..., 1:]
    heights = np.abs(left) + np.abs(right)
    crossed = np.sign(left) * np.sign(right) < 0
    # Triangles of heights a, b over bases a / (a + b) and b / (a + b).
    triangles = (left**2 + right**2) / np.where(crossed, heights, 1)
    areas = np.where(crossed, triangles, heights)
    return np.asarray(areas.sum(axis=-1) / (2 * left.shape[-1]))


@weighted
def pit_kolmogorov_smirnov(
    pit: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Kolmogorov-Smirnov statistic of the PIT values against uniformity, from 0 to 1.

    sup_u |F̂(u) − u| with F̂(u) = Σ_i w_i (1/c) Σ_c 1[pit_ic ≤ u]. Unlike the calibration of central
    intervals it also sees biases that cancel between the two tails. Time is that of one sort and
    of b m c additions; rows are taken in chunks of 64 MB.
    """
    _check_pit(pit)
    check_weights(weights)
    order = np.argsort(pit, axis=None)
    levels, points = pit.astype(float).ravel()[order], order // pit.shape[1]
    rows = weights.reshape(-1, len(pit)) / pit.shape[1]
    found = np.empty(len(rows))
    step = max(CHUNK // pit.size, 1)
    for start in range(0, len(rows), step):
        masses = rows[start : start + step, points]
        above = np.cumsum(masses, axis=1) - levels  # at the values; below: just before them
        below = masses - above
        found[start : start + step] = np.maximum(above.max(axis=1), below.max(axis=1))
    return found.reshape(weights.shape[:-1])


@typed
def pit_test(pit: Float[np.ndarray, "m c"]) -> CalibrationTest:
    """Test whether PIT values are uniform, as those of a calibrated predictor are.

    The Kolmogorov-Smirnov statistic D of independent points, with its exact p-value. Outputs of a
    point are not independent of each other: of several the largest D is given, and c times its
    p-value (Bonferroni), at most 1.

    Parameters
    ----------
    pit
        Predictive distribution functions at the observations, from `mixtures.pit`.

    Raises
    ------
    ValueError
        If `pit` is not from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> evenly = (np.arange(20)[:, None] + 0.5) / 20
    >>> found = nb.evaluation.metrics.pit_test(evenly), nb.evaluation.metrics.pit_test(evenly / 2)
    >>> [(round(test.statistic, 3), round(test.p_value, 5)) for test in found]
    [(0.025, 1.0), (0.512, 2e-05)]
    """
    _check_pit(pit)
    tests = [scipy.stats.kstest(column.astype(float), "uniform") for column in pit.T]
    worst = max(tests, key=lambda test: test.statistic)
    return CalibrationTest(float(worst.statistic), min(1.0, len(tests) * float(worst.pvalue)))


@weighted
def ence(
    mean: Float[np.ndarray, "m c"],
    variance: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_bins: int = NUM_BINS,
) -> Float[np.ndarray, "*b"]:
    """Return the expected normalised calibration error: whether errors grow with deviations.

    Points and outputs are binned by the predicted variance (equal mass, equal variances in one
    bin), and with RMV the root of the mean predicted variance of a bin, and RMSE that of the mean
    squared error there,

        ENCE = mean over bins of |RMV − RMSE| / RMV.

    From 0 on, without a unit. Chance gives a calibrated predictor a positive value, about
    0.56 √(B / m).

    Parameters
    ----------
    mean, variance
        Of the predictive distribution, noise included.
    y
        Observations.
    weights
        See `ntkbayes.evaluation.metrics`.
    num_bins
        Number of bins B.

    Raises
    ------
    ValueError
        If a number is not finite, a variance is not positive, or weights or `num_bins` are out of
        range.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([[1.0], [-1.0], [3.0], [-3.0]])
    >>> variance = np.array([[1.0], [1.0], [4.0], [4.0]])  # deviations 1 and 2, errors 1 and 3
    >>> weights = nb.evaluation.metrics.uniform_weights(4)
    >>> float(nb.evaluation.metrics.ence(np.zeros((4, 1)), variance, y, weights, num_bins=2))
    0.25
    """
    for name, values in (("mean", mean), ("y", y)):
        check_finite(name, values)
    check_variance("variance", variance)
    check_weights(weights)
    num_outputs = y.shape[1]
    ranks = scipy.stats.rankdata(variance, method="max") / variance.size
    bins = confidence_bins(ranks.ravel(), num_bins=num_bins)
    squared = ((y.astype(float) - mean) ** 2).ravel()
    rows = np.repeat(weights, num_outputs, axis=-1) / num_outputs
    values = np.ones_like(squared), variance.ravel().astype(float), squared
    share, predicted, found = bin_sums(rows, bins, num_bins, *values)
    gap = np.abs(1 - np.sqrt(ratio(found, predicted)))
    filled = share > 0
    return np.asarray(np.sum(gap * filled, axis=-1) / filled.sum(axis=-1))


def _deviations(pit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Observed minus expected proportion (… k)."""
    return observed_proportions(pit, weights) - np.linspace(0, 1, NUM_LEVELS)


def _check_pit(pit: np.ndarray) -> None:
    check_shares("pit", pit, "the predictive distribution function at the observation")
