"""The negative log likelihood of a mixture over draws, point by point and jointly.

Two predictors with the same probabilities at every point may differ in what they believe of
several points *together*: a function draw that is wrong at one point is then wrong at others too.
The joint likelihood of τ points sees that, the likelihood of single points does not.

References
----------
Osband et al. (2022), The neural testbed: evaluating joint predictions, arXiv 2110.04629 · Wen et
al. (2022), From predictions to decisions: the importance of joint predictive distributions, arXiv
2107.09224.
"""

import numpy as np
import scipy.special

from ntkbayes._checks import check_at_least, check_finite
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.batches import over_batches, random_batches
from ntkbayes.evaluation.metrics.resampling import weighted, weighted_mean

__all__ = [
    "batch_joint_nll",
    "joint_draws_used",
    "joint_nll",
    "joint_nll_bias",
    "mixture_nll",
]

BATCH_SIZE = 10


@weighted
def mixture_nll(
    log_likelihood: Float[np.ndarray, "s m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return −Σ_i w_i log (1/s) Σ_s p(y_i | f_s), in nats per point.

    The logarithm of the mean over draws, never the mean of logarithms. For classes it is −log p
    at the true class; for regression the density of the mixture of one Gaussian per draw, in
    nats for standardised targets, summed over outputs.

    Raises
    ------
    ValueError
        If a log likelihood is NaN or +∞, or weights do not sum to 1.
    """
    values = log_likelihood.astype(float, copy=False)
    surprise = np.log(len(values)) - np.asarray(scipy.special.logsumexp(values, axis=0))
    if not np.all(surprise > -np.inf):
        point = int(np.flatnonzero(~(surprise > -np.inf))[0])
        raise ValueError(
            f"log_likelihood must hold neither NaN nor +inf, but does at point {point}."
        )
    return weighted_mean(weights, surprise)


@weighted
def joint_nll(
    log_likelihood: Float[np.ndarray, "s m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Float[np.ndarray, "*b"]:
    """Mean of `batch_joint_nll` over disjoint random batches, in nats per point.

    The independent units are the batches, not the points: `over_batches` says what bootstrap
    weights of the points give. Paired differences between methods stay paired, since a seed makes
    the same batches for all.

    Parameters
    ----------
    log_likelihood, batch_size, seed
        As in `batch_joint_nll`.
    weights
        Uniform, or from `bootstrap_weights`.

    Raises
    ------
    ValueError
        As in `batch_joint_nll`.
    """
    check_finite("log_likelihood", log_likelihood)
    return over_batches(
        lambda batches: _joint_nll(log_likelihood, batches),
        weights,
        batch_size=batch_size,
        seed=seed,
    )


@typed
def batch_joint_nll(
    log_likelihood: Float[np.ndarray, "s m"], *, batch_size: int = BATCH_SIZE, seed: int = 0
) -> Float[np.ndarray, "k"]:
    """Return −(1/τ) log (1/s) Σ_s ∏_{i in B} p(y_i | f_s) of every batch B, in nats per point.

    The points are permuted by the seed and cut into k = ⌊m/τ⌋ batches of τ; the last m − k τ are
    left out. Batches are of rows: points in another order make others, so methods are compared with
    their points in one, which `compare` gives them. It is divided by τ, unlike the joint losses of
    Osband et al.: batches of one give `mixture_nll`, and a single draw gives the mean of its log
    likelihoods whatever τ. Points drawn at random from a large input space hardly depend on each
    other under any posterior; then the joint value is near the pointwise one.

    **Bias.** −log of a mean over finitely many draws is too large on average, the more so the
    fewer draws explain a batch: `joint_nll_bias`, `joint_draws_used`.

    Parameters
    ----------
    log_likelihood
        Log p(y_i | f_s) of every draw and point, in nats.
    batch_size
        Number of points τ in a batch.
    seed
        Seed of the permutation.

    Raises
    ------
    ValueError
        If `batch_size` is below 1 or above the number of points, or a log likelihood is not
        finite.
    """
    check_finite("log_likelihood", log_likelihood)
    batches = random_batches(log_likelihood.shape[1], batch_size, seed)
    return _joint_nll(log_likelihood, batches)


@typed
def joint_draws_used(
    log_likelihood: Float[np.ndarray, "s m"], *, batch_size: int = BATCH_SIZE, seed: int = 0
) -> Float[np.ndarray, "k"]:
    """Effective number of draws (Σ_s p_s)² / Σ_s p_s² that carry each batch's likelihood, 1 to s.

    p_s = ∏_{i in B} p(y_i | f_s). Near 1, a single draw explains the batch, and its joint
    likelihood is a matter of chance, for which `joint_nll_bias` is too small.

    Parameters
    ----------
    log_likelihood, batch_size, seed
        As in `batch_joint_nll`.

    Raises
    ------
    ValueError
        As in `batch_joint_nll`.
    """
    check_finite("log_likelihood", log_likelihood)
    joint = _joint(log_likelihood, random_batches(log_likelihood.shape[1], batch_size, seed))
    first, second = (np.asarray(scipy.special.logsumexp(power * joint, axis=0)) for power in (1, 2))
    return np.exp(2 * first - second)


@typed
def joint_nll_bias(
    log_likelihood: Float[np.ndarray, "s m"],
    *,
    num_effective: float | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> float:
    """Estimate by how much finitely many draws raise `joint_nll`, in nats per point.

    By the delta method E[−log p̄] ≈ −log E p + var(p) / (2 n (E p)²), mean over batches, divided by
    τ; of order 1/n. With E_B = `joint_draws_used` the relative variance is
    (s / E_B − 1) s / (s − 1). It is an estimate for batches with E_B ≫ 1 and a lower bound in
    tendency otherwise, since s draws cannot show a relative variance above s.

    Parameters
    ----------
    log_likelihood, batch_size, seed
        As in `batch_joint_nll`.
    num_effective
        Effective number n of draws, at least 1. Default: the draws are independent, n = s.

    Raises
    ------
    ValueError
        As in `batch_joint_nll`, and if there are fewer than two draws or `num_effective` is
        below 1.
    """
    num_draws = len(log_likelihood)
    check_at_least("the number of draws", num_draws, 2)
    if num_effective is None:
        num_effective = num_draws
    if not num_effective >= 1:
        raise ValueError(f"num_effective must be at least 1, but is {num_effective}.")
    used = joint_draws_used(log_likelihood, batch_size=batch_size, seed=seed)
    variance = (num_draws / used - 1) * num_draws / (num_draws - 1)
    return float(variance.mean() / (2 * num_effective * batch_size))


def _joint_nll(log_likelihood: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """−(1/τ) log (1/s) Σ_s of each batch's likelihood (k)."""
    joint = _joint(log_likelihood, batches)
    return (np.log(len(joint)) - scipy.special.logsumexp(joint, axis=0)) / batches.shape[1]


def _joint(log_likelihood: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Log likelihood (s k) of every draw and batch."""
    return log_likelihood.astype(float)[:, batches].sum(axis=-1)
