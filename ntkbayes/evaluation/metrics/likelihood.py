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

from ntkbayes._checks import check_finite
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.batches import over_batches, random_batches
from ntkbayes.evaluation.metrics.resampling import weighted, weighted_mean

__all__ = [
    "batch_joint_nll",
    "joint_log_likelihood",
    "joint_nll",
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
    fewer draws explain a batch: `joint_nll_deviations`.

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
def joint_log_likelihood(
    log_likelihood: Float[np.ndarray, "s m"], *, batch_size: int = BATCH_SIZE, seed: int = 0
) -> Float[np.ndarray, "s k"]:
    """Return Σ_{i in B} log p(y_i | f_s) of every draw and batch of `batch_joint_nll`, in nats.

    Parameters
    ----------
    log_likelihood, batch_size, seed
        As in `batch_joint_nll`.

    Raises
    ------
    ValueError
        If `batch_size` is below 1 or above the number of points.
    """
    return _joint(log_likelihood, random_batches(log_likelihood.shape[1], batch_size, seed))


def _joint_nll(log_likelihood: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """−(1/τ) log (1/s) Σ_s of each batch's likelihood (k)."""
    joint = _joint(log_likelihood, batches)
    return -log_mean_exp(joint) / batches.shape[1]


def log_mean_exp(joint: np.ndarray) -> np.ndarray:
    """Log of the mean over draws (k) of what has these logarithms (s k)."""
    return np.asarray(scipy.special.logsumexp(joint, axis=0)) - np.log(len(joint))


def _joint(log_likelihood: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Log likelihood (s k) of every draw and batch."""
    return log_likelihood.astype(float)[:, batches].sum(axis=-1)
