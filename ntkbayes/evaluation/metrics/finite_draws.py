"""What finitely many draws leave unknown of scores of several points at once.

−log of a mean over draws rests on the few that explain a batch best: it is too large on average,
and another s draws give another value. The jackknife leaves out each of g = 20 blocks of draws in
turn (consecutive ones, so that the draws of a chain stay together), V_1 … V_g of V:

    error² = (g − 1)/g Σ_i (V_i − V̄)² + ((g − 1) (V̄ − V))²,

its estimates of variance and squared bias. It is the length of a vector of g + 1 deviations, and of
the difference between two predictors that of the difference of their vectors, whether their draws
share random numbers or not. Where few draws carry a batch, neither is to be trusted:
the next draw might carry all of it. Simulated with known truth (classes and Gaussian targets, 50
and 200 points, 100 to 1,000 draws): with five draws or more to a batch in the median V ± 1.96
errors holds the truth in 82 to 100 %, with two or three in 65 to 83 %, with one in 15 to 80 %. Of
fewer than five the error is therefore unknown (NaN).

References
----------
Efron (1982), The Jackknife, the Bootstrap and Other Resampling Plans, doi:10.1137/1.9781611970319,
ch. 2 (bias) and 3 (variance) · Künsch (1989), doi:10.1214/aos/1176347265 (blocks).
"""

from collections.abc import Callable

import numpy as np
import scipy.special

from ntkbayes._checks import check_at_least, check_finite
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.joint_scores import dyadic_log_likelihood, normal_scores
from ntkbayes.evaluation.metrics.likelihood import (
    BATCH_SIZE,
    joint_log_likelihood,
    log_mean_exp,
)

__all__ = ["FEWEST", "dyadic_nll_deviations", "joint_nll_deviations", "normal_joint_nll_deviations"]

FEWEST = 40
"""Draws below which they are an ensemble, whose scores are exact, and no sample of anything."""
NUM_BLOCKS = 20
FEWEST_USED = 5
"""Effective number of draws of a batch, in the median, below which the error is unknown."""


@typed
def joint_nll_deviations(
    log_likelihood: Float[np.ndarray, "s m"], *, batch_size: int = BATCH_SIZE, seed: int = 0
) -> Float[np.ndarray, "g"]:
    """Deviations of `joint_nll`, in nats per point; NaN where they are unknown.

    Their length is its Monte-Carlo error.

    Parameters
    ----------
    log_likelihood, batch_size, seed
        As in `batch_joint_nll`; at least 40 draws.

    Raises
    ------
    ValueError
        As in `batch_joint_nll`, and if there are fewer than 40 draws.

    Examples
    --------
    >>> import numpy as np
    >>> log_p = np.random.default_rng(0).normal(-1, 0.1, size=(400, 20))
    >>> round(float(np.linalg.norm(nb.evaluation.metrics.joint_nll_deviations(log_p))), 4)
    0.0012
    """
    check_finite("log_likelihood", log_likelihood)
    joint = joint_log_likelihood(log_likelihood, batch_size=batch_size, seed=seed)
    return _of_mixtures(joint) / batch_size


@typed
def dyadic_nll_deviations(
    log_likelihood: Float[np.ndarray, "s m"], *, num_copies: int = BATCH_SIZE, seed: int = 0
) -> Float[np.ndarray, "g"]:
    """Deviations of `dyadic_nll`, in nats per copy; NaN where they are unknown.

    Their length is its Monte-Carlo error.

    Parameters
    ----------
    log_likelihood, num_copies, seed
        As in `dyadic_nll`; at least 40 draws.

    Raises
    ------
    ValueError
        As in `dyadic_nll`, and if there are fewer than 40 draws.
    """
    joint = dyadic_log_likelihood(log_likelihood, num_copies=num_copies, seed=seed)
    return _of_mixtures(joint) / num_copies


@typed
def normal_joint_nll_deviations(
    mean: Float[np.ndarray, "m c"],
    variance: Float[np.ndarray, "m c"],
    draws: Float[np.ndarray, "s m c"],
    noise_variance: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
    *,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Float[np.ndarray, "g"]:
    """Deviations of `normal_joint_nll`, in nats per point.

    Their length is its Monte-Carlo error.

    Parameters
    ----------
    mean, variance, draws, noise_variance, y, batch_size, seed
        As in `normal_joint_nll`; at least 40 draws. With fewer than two to each of the τ c numbers
        of a batch the deviations are NaN: correlations are unknown.

    Raises
    ------
    ValueError
        As in `normal_joint_nll`, and if there are fewer than 40 draws.
    """
    if len(draws) < 2 * batch_size * y.shape[1]:  # correlations of as many numbers
        check_at_least("the number of draws", len(draws), FEWEST)
        normal_scores(mean, variance, draws, noise_variance, y, batch_size=batch_size, seed=seed)
        return np.full(NUM_BLOCKS + 1, np.nan)

    def score(kept: np.ndarray) -> float:
        given = (mean, variance, draws[kept], noise_variance, y)
        return float(normal_scores(*given, batch_size=batch_size, seed=seed).mean())

    return _jackknife(score, len(draws))


def _of_mixtures(joint: np.ndarray) -> np.ndarray:
    """Deviations of the mean over batches of −log (1/s) Σ_s p_s, of log likelihoods (s k)."""
    first, second = (np.asarray(scipy.special.logsumexp(power * joint, axis=0)) for power in (1, 2))
    if np.median(np.exp(2 * first - second)) < FEWEST_USED:
        check_at_least("the number of draws", len(joint), FEWEST)
        return np.full(NUM_BLOCKS + 1, np.nan)

    def score(kept: np.ndarray) -> float:
        return -float(np.mean(log_mean_exp(joint[kept])))

    return _jackknife(score, len(joint))


def _jackknife(score: Callable[[np.ndarray], float], num_draws: int) -> np.ndarray:
    """Deviations (g + 1) of a score of draws by their numbers, as above."""
    check_at_least("the number of draws", num_draws, FEWEST)
    every = np.arange(num_draws)
    whole = score(every)
    left = np.array([score(np.delete(every, b)) for b in np.array_split(every, NUM_BLOCKS)])
    spread = np.sqrt((NUM_BLOCKS - 1) / NUM_BLOCKS) * (left - left.mean())
    return np.append(spread, (NUM_BLOCKS - 1) * (left.mean() - whole))
