"""Norms of the gaps between confidence and outcome over bins, and what chance adds to them.

How debiased errors correct for it:

- L2: from each g² the unbiased variance of the mean gap, s²/n, is subtracted. What is left is
  Σ_{i≠j} (o_i − q_i)(o_j − q_j) / (n (n − 1)), unbiased for the squared gap of any predictor. In
  Bröcker (2012), Ferro & Fricker (2012) and Kumar, Liang & Ma (2019), whose confidences are equal
  within a bin, s² is the variance of the outcomes; where confidences differ, and are calibrated,
  that variance is too large by theirs. A bin with one point says nothing and counts 0. The result
  is the signed root, sign(v) √|v|, of the squared value v. It is v that is unbiased, and v that
  methods can be compared by (`squared_calibration_error`): its root is steepest at 0, where it
  makes chance differences between good predictors look large.
- L1: no unbiased estimate of an absolute value exists, and chance adds less the larger the gap:
  subtracting what it adds to a *calibrated* predictor would take too much from all others, the
  more the flatter their confidences. The value is the gap δ ≥ 0 at which the error, if every bin
  were off by δ, is on average the one seen,

      Σ_bins W E|δ + s Z| = Σ_bins W |g|,   Z ~ N(0, 1),   s √(2/π) = E|g| by chance,

  and 0 where no more is seen than a calibrated predictor shows on average. What it shows, E|g| if
  o_i ~ Bernoulli(q_i) independently, is the mean absolute deviation of a binomial (De Moivre's
  formula) of n trials and the mean confidence, times the ratio of Σ q_i (1 − q_i) to its
  variance, rooted: exact for equal confidences and for one point, and in the limit of many. With
  many points s is 0 and δ is the plain error, whatever the gaps of the bins.

Both take n = m W for the number of points in a bin: weights times m are counts, as in a bootstrap
resample. A resample adds its own variance to that of the test set, so values of bootstrap rows
scatter around more than the value of the test set; use their deviation, not their mean.

References
----------
Kumar, Liang & Ma (2019), arXiv 1909.10155, section 5 · Bröcker (2012),
doi:10.1007/s00382-011-1191-1 · Ferro & Fricker (2012), doi:10.1002/qj.1924 · Diaconis & Zabell
(1991), doi:10.1214/ss/1177011699 (De Moivre's formula).
"""

import numpy as np
import scipy.special

from ntkbayes.evaluation.metrics.bins import bin_sums, ratio

__all__ = ["NORMS", "l1_error", "l2_error", "linear_squared_error"]

NORMS = ("l1", "l2")
_HALVINGS = 60
"""Of an interval no longer than 1: to 1e-18."""


def l1_error(
    confidence: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    bins: np.ndarray,
    num_bins: int,
    debiased: bool,
) -> np.ndarray:
    """Σ_bins W |g| (…), or the equal gap of all bins that shows it on average if debiased."""
    difference, variance = outcome - confidence, confidence * (1 - confidence)
    if not debiased:
        (gap,) = bin_sums(weights, bins, num_bins, difference)
        return np.abs(gap).sum(axis=-1)
    values = difference, np.ones_like(confidence), confidence, variance
    gap, share, confident, variance = bin_sums(weights, bins, num_bins, *values)
    chance = _absolute_gap_by_chance(share, confident, variance, len(confidence))
    return _equal_gap(np.abs(gap).sum(axis=-1), share, chance)


def _equal_gap(error: np.ndarray, share: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Return δ with Σ_bins W E|δ + s Z| = error, from W and W E|g| by chance; 0 without one.

    The left side is increasing and at least δ, so that the root lies between 0 and the error.
    """
    scale = chance * np.sqrt(np.pi / 2)
    low, high = np.zeros_like(error), error.copy()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = _folded_normal_mean(middle[..., None] * share, scale).sum(axis=-1) > error
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(error > chance.sum(axis=-1), high, 0.0)


def _folded_normal_mean(mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """E|mean + scale Z| = scale √(2/π) exp(−t²) + mean erf(t), t = mean / (√2 scale)."""
    t = ratio(mean, np.sqrt(2) * scale)
    certain = scale == 0
    spread = scale * np.sqrt(2 / np.pi) * np.exp(-(t**2))
    return np.where(certain, mean, spread + mean * scipy.special.erf(t))


def _absolute_gap_by_chance(
    share: np.ndarray, confident: np.ndarray, variance: np.ndarray, num_points: int
) -> np.ndarray:
    """E |Σ w_i (o_i − q_i)| of a bin, from its sums of w, w q and w q (1 − q)."""
    n, mean = num_points * share, np.clip(ratio(confident, share), 0, 1)
    k = np.floor(n * mean)
    log_deviation = (
        np.log(2 * (k + 1))
        + scipy.special.gammaln(n + 1)
        - scipy.special.gammaln(k + 2)
        - scipy.special.gammaln(np.where(n > k, n - k, 1))
        + scipy.special.xlogy(k + 1, mean)
        + scipy.special.xlog1py(n - k, -mean)
    )
    spread = np.sqrt(np.clip(ratio(variance, share * mean * (1 - mean)), 0, 1))
    return np.exp(log_deviation) * spread / num_points


def l2_error(
    confidence: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    bins: np.ndarray,
    num_bins: int,
    debiased: bool,
) -> np.ndarray:
    """√(Σ_bins W g²) (…), or the signed root of its unbiased square."""
    difference = outcome - confidence
    values = np.ones_like(difference), difference, difference**2
    share, gap, square = bin_sums(weights, bins, num_bins, *values)
    squared = ratio(gap**2, share)
    if not debiased:
        return np.sqrt(squared.sum(axis=-1))
    n = len(confidence) * share
    several = n > 1.5  # counts of 2 and more, whatever their rounding
    chance = (square - squared) / np.where(several, n - 1, 1)
    squared = np.where(several, squared - chance, 0).sum(axis=-1)
    return np.sign(squared) * np.sqrt(np.abs(squared))


def linear_squared_error(
    confidence: np.ndarray, outcome: np.ndarray, weights: np.ndarray, bins: np.ndarray
) -> np.ndarray:
    """Unbiased Σ_bins W g² of the points, and to first order what weights make of it (…)."""
    residual = outcome - confidence
    count, total, square = (
        np.bincount(bins, values) for values in (np.ones_like(residual), residual, residual**2)
    )
    others = np.maximum(count - 1, 1)
    pairs = ratio(total**2 - square, count * others)  # mean of r_i r_j over i ≠ j; 0 of one point
    value = np.sum(count * pairs) / len(residual)
    first_order = 2 * residual * (total[bins] - residual) / others[bins] - pairs[bins]
    return np.asarray(value + weights @ (first_order - value))
