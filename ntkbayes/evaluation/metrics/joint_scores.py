"""Scores of predictions at several points at once, beside `joint_nll`.

Joint normals, energy score, dyads.

References
----------
Gneiting & Raftery (2007), doi:10.1198/016214506000001437, eq. 22 (energy score) · Osband et al.
(2022), Evaluating high-order predictive distributions in deep learning, arXiv 2202.13509 (dyadic
sampling).
"""

import numpy as np
import scipy.spatial.distance

from ntkbayes._checks import check_at_least, check_finite
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.batches import over_batches, random_batches
from ntkbayes.evaluation.metrics.inputs import check_variance
from ntkbayes.evaluation.metrics.likelihood import BATCH_SIZE, log_mean_exp
from ntkbayes.evaluation.metrics.resampling import weighted

__all__ = [
    "dyadic_log_likelihood",
    "dyadic_nll",
    "energy_score",
    "normal_joint_nll",
    "normal_scores",
]


@weighted
def normal_joint_nll(
    mean: Float[np.ndarray, "m c"],
    variance: Float[np.ndarray, "m c"],
    draws: Float[np.ndarray, "s m c"],
    noise_variance: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
    *,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Float[np.ndarray, "*b"]:
    """Joint NLL of targets whose latent function is Gaussian, in nats per point.

    −(1/τ) log N(y_B; μ_B, D_B R_B D_B + σ² I), mean over the batches of `joint_nll`. Means and
    variances D² are exact; only the correlations R_B come from draws. A mean over draws of the
    likelihood has the same limit and needs far more of them: of 400 posterior draws with noise a
    tenth of the prior deviation it was too large by 0.02 to 0.04 nats, and of prior draws by 8 to
    10, since no draw is near all of ten targets.

    Parameters
    ----------
    mean, variance
        Moments of the latent function at every point, noise excluded.
    draws
        Of the latent function, jointly over the points.
    noise_variance
        σ² > 0 of every observation.
    y
        Observations.
    weights
        Uniform, or from `bootstrap_weights`.
    batch_size, seed
        As in `batch_joint_nll`.

    Raises
    ------
    ValueError
        If there are fewer than two draws, a number is not finite, σ² is not positive, or
        `batch_size` is below 1 or above the number of points.

    Examples
    --------
    >>> import numpy as np
    >>> draws = np.random.default_rng(0).normal(size=(400, 20, 1))
    >>> zero, one = np.zeros((20, 1)), np.ones((20, 1))  # means and targets, variances
    >>> weights = nb.evaluation.metrics.uniform_weights(20)
    >>> found = nb.evaluation.metrics.normal_joint_nll(zero, one, draws, 0.5 * one, zero, weights)
    >>> round(float(found), 2), round(float(np.log(2 * np.pi * 1.5) / 2), 2)
    (1.12, 1.12)
    """
    _check_normal(mean, variance, draws, noise_variance, y)
    return over_batches(
        lambda batches: _normal_scores(mean, variance, draws, noise_variance, y, batches),
        weights,
        batch_size=batch_size,
        seed=seed,
    )


def normal_scores(
    mean: np.ndarray,
    variance: np.ndarray,
    draws: np.ndarray,
    noise_variance: np.ndarray,
    y: np.ndarray,
    *,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """Return the score (k) of every batch of `normal_joint_nll`, which says what is refused."""
    _check_normal(mean, variance, draws, noise_variance, y)
    batches = random_batches(len(y), batch_size, seed)
    return _normal_scores(mean, variance, draws, noise_variance, y, batches)


def _check_normal(
    mean: np.ndarray,
    variance: np.ndarray,
    draws: np.ndarray,
    noise_variance: np.ndarray,
    y: np.ndarray,
) -> None:
    check_at_least("the number of draws", len(draws), 2)
    for name, values in (("mean", mean), ("draws", draws), ("y", y)):
        check_finite(name, values)
    check_variance("variance", variance, or_zero=True)
    check_variance("noise_variance", noise_variance)


def _normal_scores(
    mean: np.ndarray,
    variance: np.ndarray,
    draws: np.ndarray,
    noise_variance: np.ndarray,
    y: np.ndarray,
    batches: np.ndarray,
) -> np.ndarray:
    found = []
    for batch in batches:
        centered = draws[:, batch].reshape(len(draws), -1).astype(float)
        centered -= centered.mean(axis=0)
        length = np.linalg.norm(centered, axis=0)
        unit = centered / np.where(length > 0, length, 1.0)
        deviation = np.sqrt(variance[batch].reshape(-1).astype(float))
        covariance = (unit * deviation).T @ (unit * deviation)
        noise = noise_variance[batch].reshape(-1).astype(float)
        np.fill_diagonal(covariance, deviation**2 + noise)
        residual = (y[batch] - mean[batch]).reshape(-1).astype(float)
        log_det = np.linalg.slogdet(covariance)[1]
        square = residual @ np.linalg.solve(covariance, residual)
        log_2_pi = len(residual) * np.log(2 * np.pi)
        found.append((square + log_det + log_2_pi) / (2 * len(batch)))
    return np.array(found)


@weighted
def energy_score(
    draws: Float[np.ndarray, "s m c"],
    y: Float[np.ndarray, "m c"],
    weights: Float[np.ndarray, "*b m"],
    *,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Float[np.ndarray, "*b"]:
    """Mean energy score of disjoint random batches of points, in target units.

    Of the vector y_B of a batch's targets, with draws Y_s of new observations *there together*,

        (1/s) Σ_s ‖Y_s − y_B‖ − Σ_{s<t} ‖Y_s − Y_t‖ / (s (s − 1)):

    the CRPS of several points at once (batches of one give `draws_crps`), a proper score of the
    joint distribution that needs no density. The estimator is the fair one, without bias for
    independent draws. Time grows with s². Batches are those of `joint_nll`, of rows in the order
    they come in, and so are their weights.

    Parameters
    ----------
    draws
        New observations, noise included, jointly over the points.
    y
        Observations.
    weights
        Uniform, or from `bootstrap_weights`.
    batch_size, seed
        As in `batch_joint_nll`.

    Raises
    ------
    ValueError
        If there are fewer than two draws, a number is not finite, or `batch_size` is below 1 or
        above the number of points.

    Examples
    --------
    >>> import numpy as np
    >>> draws = np.random.default_rng(0).normal(size=(100, 20, 1))
    >>> weights = nb.evaluation.metrics.uniform_weights(20)
    >>> score = nb.evaluation.metrics.energy_score(draws, np.zeros((20, 1)), weights)
    >>> round(float(score), 1)
    0.9
    """
    check_at_least("the number of draws", len(draws), 2)
    check_finite("draws", draws)
    check_finite("y", y)

    def scores(batches: np.ndarray) -> np.ndarray:
        found = []
        for batch in batches:
            ensemble = draws[:, batch].reshape(len(draws), -1).astype(float)
            distance = np.linalg.norm(ensemble - y[batch].reshape(-1), axis=1).mean()
            spread = scipy.spatial.distance.pdist(ensemble).mean() / 2
            found.append(distance - spread)
        return np.array(found)

    return over_batches(scores, weights, batch_size=batch_size, seed=seed)


@weighted
def dyadic_nll(
    log_likelihood: Float[np.ndarray, "s m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_copies: int = BATCH_SIZE,
    seed: int = 0,
) -> Float[np.ndarray, "*b"]:
    """Joint NLL of batches that repeat two points, in nats per copy.

    Random points say little that single ones do not (`batch_joint_nll`); copies of a point depend
    on each other. Points are paired at random, by rows like the batches of `joint_nll`, and of κ
    copies each is of either point i, j with probability ½, n of i:

        −(1/κ) log (1/s) Σ_s p(y_i | f_s)^n p(y_j | f_s)^(κ − n),    mean over pairs.

    A copy has the label that was observed, not one drawn anew: data have no second one. Where
    labels are noisy it therefore prefers predictors that hold them for certain.

    Parameters
    ----------
    log_likelihood
        As in `batch_joint_nll`.
    weights
        Uniform, or from `bootstrap_weights`; the independent units are pairs.
    num_copies
        Copies κ in a batch.
    seed
        Seed of pairs and copies.

    Raises
    ------
    ValueError
        If there are fewer than two points, no copies, or a log likelihood is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> weights = nb.evaluation.metrics.uniform_weights(4)
    >>> sure, torn = np.log(np.full((2, 4), 0.5)), np.log([[0.1] * 4, [0.9] * 4])
    >>> found = [nb.evaluation.metrics.dyadic_nll(each, weights) for each in (sure, torn)]
    >>> [round(float(each), 3) for each in found]  # at one point they are the same
    [0.693, 0.175]
    """
    _check_dyads(log_likelihood, num_copies)
    return over_batches(
        lambda pairs: -log_mean_exp(_dyads(log_likelihood, pairs, num_copies, seed)) / num_copies,
        weights,
        batch_size=2,
        seed=seed,
    )


@typed
def dyadic_log_likelihood(
    log_likelihood: Float[np.ndarray, "s m"], *, num_copies: int = BATCH_SIZE, seed: int = 0
) -> Float[np.ndarray, "s k"]:
    """Return n log p(y_i | f_s) + (κ − n) log p(y_j | f_s) of every draw and pair, in nats.

    Parameters
    ----------
    log_likelihood, num_copies, seed
        As in `dyadic_nll`.

    Raises
    ------
    ValueError
        As in `dyadic_nll`.
    """
    _check_dyads(log_likelihood, num_copies)
    pairs = random_batches(log_likelihood.shape[1], 2, seed)
    return _dyads(log_likelihood, pairs, num_copies, seed)


def _check_dyads(log_likelihood: np.ndarray, num_copies: int) -> None:
    check_at_least("num_copies", num_copies, 1)
    check_at_least("the number of points", log_likelihood.shape[1], 2)
    check_finite("log_likelihood", log_likelihood)


def _dyads(log_likelihood: np.ndarray, pairs: np.ndarray, num_copies: int, seed: int) -> np.ndarray:
    """Log likelihood (s k) of each pair's copies."""
    rng = np.random.default_rng([seed, num_copies])
    first = rng.binomial(num_copies, 0.5, size=len(pairs))
    values = log_likelihood.astype(float)
    return first * values[:, pairs[:, 0]] + (num_copies - first) * values[:, pairs[:, 1]]
