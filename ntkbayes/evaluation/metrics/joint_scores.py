"""Scores of predictions at several points at once, beside `joint_nll`: energy score, dyads.

References
----------
Gneiting & Raftery (2007), doi:10.1198/016214506000001437, eq. 22 (energy score) · Osband et al.
(2022), Evaluating high-order predictive distributions in deep learning, arXiv 2202.13509 (dyadic
sampling).
"""

import numpy as np
import scipy.spatial.distance
import scipy.special

from ntkbayes._checks import check_at_least, check_finite
from ntkbayes._types import Float
from ntkbayes.evaluation.metrics.batches import over_batches
from ntkbayes.evaluation.metrics.likelihood import BATCH_SIZE
from ntkbayes.evaluation.metrics.resampling import weighted

__all__ = ["dyadic_nll", "energy_score"]


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
    check_at_least("num_copies", num_copies, 1)
    check_at_least("the number of points", log_likelihood.shape[1], 2)
    check_finite("log_likelihood", log_likelihood)
    values = log_likelihood.astype(float)

    def nll(pairs: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([seed, num_copies])
        first = rng.binomial(num_copies, 0.5, size=len(pairs))
        joint = first * values[:, pairs[:, 0]] + (num_copies - first) * values[:, pairs[:, 1]]
        return (np.log(len(joint)) - scipy.special.logsumexp(joint, axis=0)) / num_copies

    return over_batches(nll, weights, batch_size=2, seed=seed)
