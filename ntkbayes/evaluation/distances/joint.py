"""Distances between the joint distributions of latent functions over all test points.

Two methods with the same marginals everywhere may differ in how function values at different
points hang together, which marginal distances do not see. Draws are vectors of m c numbers, X of
one method and Y of the other, with the norm ‖x‖ = √(Σ x² / (m c)): a root mean square over points
and outputs, in target units or logits, so that distances do not grow with the test set.

**No floor.** All distances are differences of means over pairs of *different* draws, U-statistics,
so that their expectation is the distance of the distributions themselves and 0 for equal ones;
values below 0 are chance. Pairs from the same Markov chain are left out, because neighbouring
draws are too close; several chains have pairs enough.

**Standard error.** With h the kernel of the statistic, its variance has a part of first order,
var E[h | x] / n per draw, and one of second order, which is all there is between equal
distributions. The first is estimated from the means of rows of the kernel matrix (the jackknife),
whose own noise adds twice the second; the second is estimated from the doubly centred kernel
matrix and subtracted, or taken itself where that is more. Draws count by their effective number.

References
----------
Székely & Rizzo (2013), doi:10.1016/j.jspi.2013.03.018 (energy distance) · Gretton, Borgwardt,
Rasch, Schölkopf & Smola (2012), A kernel two-sample test, JMLR 13:723-773, eq. 3 (unbiased squared
MMD) and section 8 (median heuristic) · Serfling (1980), doi:10.1002/9780470316481, section 5.2
(variance of U-statistics).
"""

import numpy as np

from ntkbayes._checks import check_positive
from ntkbayes._types import typed
from ntkbayes.evaluation.distances.draws import Estimate, JointDraws, gram_matrix
from ntkbayes.evaluation.distances.variances import mean_variance, relative_to

__all__ = ["energy_distance", "mean_distance", "median_distance", "squared_mmd"]


@typed
def energy_distance(a: JointDraws, b: JointDraws) -> Estimate:
    """Energy distance 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖, in target units or logits.

    0 only between equal distributions. This is the quantity of Székely & Rizzo, which grows with
    the square of a small shift; SciPy's function of one dimension returns its root.

    Parameters
    ----------
    a, b
        Draws from `joint_draws`, at the same points.

    Raises
    ------
    ValueError
        If the shapes of the draws differ.
    """
    return _two_samples(-np.sqrt(_squared_distances(a, b)), a, b)


@typed
def squared_mmd(a: JointDraws, b: JointDraws, *, bandwidth: float | None = None) -> Estimate:
    """Squared maximum mean discrepancy with a Gaussian kernel, from 0 to 2.

    E k(X, X′) + E k(Y, Y′) − 2 E k(X, Y) with k(x, y) = exp(−‖x − y‖² / (2 h²)).

    Parameters
    ----------
    a, b
        Draws from `joint_draws`, at the same points.
    bandwidth
        Length h in target units or logits. Default: the `median_distance` of all draws of both;
        values are then comparable between methods only roughly, since every pair of methods has
        its own h.

    Raises
    ------
    ValueError
        If the shapes of the draws differ, or the bandwidth, given or median, is not positive.
    """
    squared = _squared_distances(a, b)
    if bandwidth is None:
        bandwidth = _median(squared)
    check_positive("bandwidth", bandwidth)
    return _two_samples(np.exp(-squared / (2 * bandwidth**2)), a, b)


@typed
def mean_distance(a: JointDraws, b: JointDraws) -> Estimate:
    """Squared distance of the mean functions over the mean variance of b, without unit.

    ‖E X − E Y‖² / E‖Y − E Y‖²; at 1 the means are one standard deviation of b apart.

    Parameters
    ----------
    a, b
        Draws from `joint_draws`, at the same points.

    Raises
    ------
    ValueError
        If the shapes of the draws differ, b has a single draw, or b does not vary.
    """
    return relative_to(_two_samples(gram_matrix(a, b), a, b), mean_variance(b))


@typed
def median_distance(*draws: JointDraws) -> float:
    """Return the median of the distances between all draws: a length scale for `squared_mmd`.

    Parameters
    ----------
    draws
        One or several sets of draws from `joint_draws`, at the same points.

    Raises
    ------
    ValueError
        If the shapes of the draws differ, there are fewer than two draws, or more than half of all
        pairs are equal.
    """
    return _median(_squared_distances(*draws))


def _median(squared: np.ndarray) -> float:
    pairs = np.triu_indices(len(squared), k=1)
    median = float(np.median(np.sqrt(squared[pairs]))) if len(squared) > 1 else 0.0
    if median == 0:
        raise ValueError("more than half of all draws are equal: pass a bandwidth.")
    return median


def _squared_distances(*draws: JointDraws) -> np.ndarray:
    gram = gram_matrix(*draws)
    squares = np.diag(gram)
    squared = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
    np.fill_diagonal(squared, 0)
    return squared


def _two_samples(kernel: np.ndarray, a: JointDraws, b: JointDraws) -> Estimate:
    """E k(X, X′) + E k(Y, Y′) − 2 E k(X, Y) from the kernel matrix (s+t s+t) of all draws."""
    num_a = len(a.latent)
    cross = kernel[:num_a, num_a:]
    value, first, second = -2 * cross.mean(), 0.0, 0.0
    for draws, within, means in (
        (a, kernel[:num_a, :num_a], cross.mean(axis=1)),
        (b, kernel[num_a:, num_a:], cross.mean(axis=0)),
    ):
        pairs = _independent_pairs(draws)
        rows = (pairs * within).sum(axis=1) / pairs.sum(axis=1)
        value += rows.mean()
        if len(draws.latent) > 1:
            n = draws.num_effective
            first += 4 * np.var(rows - means, ddof=1) / n
            centered = np.mean(_doubly_centered(within)[pairs] ** 2)
            second += 2 * centered / (n**2 * pairs.mean())
    second += 4 * np.mean(_doubly_centered(cross) ** 2) / (a.num_effective * b.num_effective)
    return Estimate(float(value), float(np.sqrt(max(first - second, second))))


def _independent_pairs(draws: JointDraws) -> np.ndarray:
    """Which pairs of draws (s s) are of different chains, or different draws of a single one."""
    num_draws = len(draws.latent)
    if num_draws == 1:
        return np.ones((1, 1), dtype=bool)  # a deterministic predictor: X′ is X
    if draws.num_chains == 1:
        return ~np.eye(num_draws, dtype=bool)
    chain = np.arange(num_draws) * draws.num_chains // num_draws
    return chain[:, None] != chain[None, :]


def _doubly_centered(kernel: np.ndarray) -> np.ndarray:
    rows, columns = kernel.mean(axis=1, keepdims=True), kernel.mean(axis=0, keepdims=True)
    return kernel - rows - columns + kernel.mean()
