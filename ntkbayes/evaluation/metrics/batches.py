"""Batches of test points, the independent units of scores of several points at once."""

from collections.abc import Callable

import numpy as np

from ntkbayes._checks import check_at_least
from ntkbayes.evaluation.metrics.resampling import weighted_mean

__all__ = ["FEW", "over_batches", "random_batches"]

FEW = 30
"""Batches below which their variance is estimated from several partitions of the points."""


def random_batches(num_points: int, batch_size: int, seed: int) -> np.ndarray:
    """Points (k τ) of k = ⌊m/τ⌋ disjoint random batches; the last m − k τ are left out.

    Raises
    ------
    ValueError
        If `batch_size` is below 1 or above the number of points.
    """
    check_at_least("batch_size", batch_size, 1)
    if batch_size > num_points:
        raise ValueError(
            f"batch_size must be at most the number of points {num_points}, but is {batch_size}."
        )
    return _partition(num_points, batch_size, np.random.default_rng(seed))


def over_batches(
    score: Callable[[np.ndarray], np.ndarray], weights: np.ndarray, *, batch_size: int, seed: int
) -> np.ndarray:
    """Mean of a score over disjoint batches, as a function (…) of weights (… m) of the *points*.

    Uniform weights give the mean L̄ of the scores L_B of k batches. Bootstrap weights of the points
    only serve as random numbers: with deviations d_i of one batch each,

        L̄ + √(k / (k − 1)) √τ (m / k τ) Σ_i w_i d_i,

    whose variance over resamples is Σ_B (L_B − L̄)² / (k (k − 1)), the unbiased one of a mean of k
    independent scores. Where batches are few (k < 30) their spread is a matter of chance, often far
    too small as the scores are skewed; then the τ points of a batch carry the deviations of τ
    different partitions, and the variance is the mean over these, unbiased too and less random. It
    is linear in the scores, so that paired differences between methods stay paired.

    Of a single batch nothing is known about the spread, and weights that are not uniform give NaN.
    Weights that single out points have no meaning here.

    Parameters
    ----------
    score
        From batches of points (k τ) to a value of each.
    weights
        Uniform, or from `bootstrap_weights`.
    batch_size, seed
        As in `random_batches`.
    """
    num_points = weights.shape[-1]
    batches = random_batches(num_points, batch_size, seed)
    k, values = len(batches), score(batches)
    mean = values.mean()
    if k == 1:
        uniform = np.ptp(weights, axis=-1) * num_points < 0.5  # counts differ by whole numbers
        return np.asarray(np.where(uniform, mean, np.nan))
    spread = np.repeat((values - mean)[:, None], batch_size, axis=1)
    for i in range(1, batch_size if k < FEW else 1):
        others = score(_partition(num_points, batch_size, np.random.default_rng([seed, i])))
        spread[:, i] = others - others.mean()
    deviations = np.zeros(num_points)
    deviations[batches] = spread * np.sqrt(batch_size * k / (k - 1))
    return np.asarray(mean + weighted_mean(weights, deviations) * (num_points / (k * batch_size)))


def _partition(num_points: int, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(num_points)
    return order[: num_points - num_points % batch_size].reshape(-1, batch_size)
