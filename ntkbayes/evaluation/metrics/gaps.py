"""Norms of the gaps between confidence and outcome over bins, and what chance adds to them.

What debiased errors subtract, so that they average 0 for a calibrated predictor:

- L2, from each g², the unbiased variance of the mean gap, s²/n. What is left is
  Σ_{i≠j} (o_i − q_i)(o_j − q_j) / (n (n − 1)), unbiased for the squared gap of any predictor. In
  Bröcker (2012), Ferro & Fricker (2012) and Kumar, Liang & Ma (2019), whose confidences are equal
  within a bin, s² is the variance of the outcomes; where confidences differ, and are calibrated,
  that variance is too large by theirs. A bin with one point says nothing and counts 0. The result
  is the signed root, sign(v) √|v|, of the squared value v. It is v that is unbiased, and v that
  methods can be compared by (`squared_calibration_error`): its root is steepest at 0, where it
  makes chance differences between good predictors look large.
- L1, the value expected if o_i ~ Bernoulli(q_i) independently: per bin, the mean
  absolute deviation of a binomial (De Moivre's formula) of n trials and the mean confidence, times
  the ratio of Σ q_i (1 − q_i) to its variance, rooted. That is exact for equal confidences and
  for one point, and in the limit of many. It is the bias of a *calibrated* predictor: where a
  gap is large compared with its standard error there is none, and up to that expectation too
  much is subtracted, the more the flatter the confidences: of two predictors that are wrong by as
  much the less certain one has the lower value. Compare debiased L1 with 0, not two methods by it.

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


def l1_error(
    confidence: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    bins: np.ndarray,
    num_bins: int,
    debiased: bool,
) -> np.ndarray:
    """Σ_bins W |g| (…), less its expectation for a calibrated predictor if debiased."""
    difference, variance = outcome - confidence, confidence * (1 - confidence)
    if not debiased:
        (gap,) = bin_sums(weights, bins, num_bins, difference)
        return np.abs(gap).sum(axis=-1)
    values = difference, np.ones_like(confidence), confidence, variance
    gap, share, confident, variance = bin_sums(weights, bins, num_bins, *values)
    chance = _absolute_gap_by_chance(share, confident, variance, len(confidence))
    return (np.abs(gap) - chance).sum(axis=-1)


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
