"""Covariances over all test points and outputs.

Covariances (m c)² are never formed. For draws as the rows of X_a and X_b, centred, with Gram blocks
K_ab = X_a X_bᵀ, the inner product is tr(S_a S_b) = ‖K_ab‖² / ((s − 1)(t − 1)): unbiased for
independent sets, but tr(S_a²) is too large for tr(Σ_a²) by as much as noise has a norm of its own.
A single chain of independent draws is corrected exactly (Himeno & Yamada); of several Markov
chains, each pair counts as two independent sets, whatever the correlation inside.

References
----------
Himeno & Yamada (2014), doi:10.1016/j.jmva.2014.04.020 (unbiased estimate of tr Σ² for any
distribution) · Künsch (1989), doi:10.1214/aos/1176347265 (the jackknife of blocks).
"""

import itertools
from collections.abc import Callable

import equinox as eqx
import numpy as np

from ntkbayes._types import typed
from ntkbayes.evaluation.distances.draws import Estimate, JointDraws, gram_matrix

__all__ = ["CovarianceComparison", "covariance_comparison", "enough_for_covariance"]

NUM_BLOCKS = 20
MIN_DRAWS = 2 * NUM_BLOCKS


class CovarianceComparison(eqx.Module):
    """How two covariance matrices Σ_a and Σ_b over all points and outputs differ.

    Parameters
    ----------
    squared_distance
        ‖Σ_a − Σ_b‖² / ‖Σ_b‖² in the Frobenius norm: the square of the relative distance from b. It
        is 0 for equal covariances, (k − 1)² for Σ_a = k Σ_b; below 0 by chance.
    alignment
        tr(Σ_a Σ_b) / (‖Σ_a‖ ‖Σ_b‖), the cosine of the angle between them: 1 for covariances that
        differ by a factor, 0 for those that vary in orthogonal directions; above 1 by chance.
    """

    squared_distance: Estimate
    alignment: Estimate


@typed
def covariance_comparison(a: JointDraws, b: JointDraws) -> CovarianceComparison:
    """Compare the covariances of two methods over all test points and outputs.

    The norms and the inner product of independent draws are without bias. The bias of their
    ratios, and of the variances inside a Markov chain, which is of order 1/ESS, is corrected by
    the jackknife of 20 blocks of successive draws of each method. It also gives the standard
    errors; between equal covariances, where only terms of second order are left, these are too
    large, by √2 for many draws. Where the norm of a covariance cannot be told from 0 with these
    draws, everything is NaN. Time is 20 (s² + t² + 2 s t) beside that of the Gram matrix.

    Parameters
    ----------
    a, b
        Draws from `joint_draws`, at the same points; distances are relative to b.

    Raises
    ------
    ValueError
        If the shapes of the draws differ, or there are fewer than 40 draws or fewer than 4 in a
        chain.
    """
    gram = gram_matrix(a, b)
    for name, draws in (("a", a), ("b", b)):
        if not enough_for_covariance(draws):
            raise ValueError(
                f"{name} must have at least {MIN_DRAWS} draws, and 4 in each chain, but has "
                f"{len(draws.latent)} of {draws.num_chains} chain(s)."
            )
    chains_a, chains_b = a.chains, [chain + len(a.latent) for chain in b.chains]
    norm_a, norm_b = _squared_norm(gram, chains_a), _squared_norm(gram, chains_b)

    def without_some_of_a(kept: list[np.ndarray]) -> np.ndarray:
        inner = _inner_product(gram, kept, chains_b)
        return _comparison(_squared_norm(gram, kept), inner, norm_b)

    def without_some_of_b(kept: list[np.ndarray]) -> np.ndarray:
        inner = _inner_product(gram, chains_a, kept)
        return _comparison(norm_a, inner, _squared_norm(gram, kept))

    values = _comparison(norm_a, _inner_product(gram, chains_a, chains_b), norm_b)
    bias_a, variance_a = _jackknife(values, chains_a, without_some_of_a)
    bias_b, variance_b = _jackknife(values, chains_b, without_some_of_b)
    values, errors = values - bias_a - bias_b, np.sqrt(variance_a + variance_b)
    return CovarianceComparison(*map(Estimate, values.tolist(), errors.tolist()))


def enough_for_covariance(draws: JointDraws) -> bool:
    """Whether `covariance_comparison` takes these draws."""
    return len(draws.latent) >= max(MIN_DRAWS, 4 * draws.num_chains)


def _comparison(norm_a: float, inner: float, norm_b: float) -> np.ndarray:
    """Squared distance relative to b, and alignment, from ‖Σ_a‖², tr(Σ_a Σ_b) and ‖Σ_b‖²."""
    if not min(norm_a, norm_b) > 0:
        return np.array([np.nan, np.nan])
    return np.array([(norm_a - 2 * inner + norm_b) / norm_b, inner / np.sqrt(norm_a * norm_b)])


def _squared_norm(gram: np.ndarray, chains: list[np.ndarray]) -> float:
    """Estimate ‖Σ‖² = tr Σ²."""
    if len(chains) > 1:
        pairs = itertools.combinations(chains, 2)
        return float(np.mean([_inner_product(gram, [c], [d]) for c, d in pairs]))
    centered = _centered(gram, chains[0], chains[0])
    s, squares = len(centered), np.diag(centered)
    trace_of_square = np.sum(centered**2) / (s - 1) ** 2
    trace, fourth = squares.sum() / (s - 1), np.sum(squares**2) / (s - 1)
    corrected = (s - 1) * (s - 2) * trace_of_square + trace**2 - s * fourth
    return (s - 1) / (s * (s - 2) * (s - 3)) * corrected


def _inner_product(
    gram: np.ndarray, chains_a: list[np.ndarray], chains_b: list[np.ndarray]
) -> float:
    """Estimate tr(Σ_a Σ_b) of independent sets: the mean over pairs of their chains."""
    found = [
        np.sum(_centered(gram, c, d) ** 2) / ((len(c) - 1) * (len(d) - 1))
        for c, d in itertools.product(chains_a, chains_b)
    ]
    return float(np.mean(found))


def _centered(gram: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Inner products of two sets of draws, each centred by its own mean."""
    block = gram[np.ix_(rows, columns)]
    return block - block.mean(axis=0) - block.mean(axis=1, keepdims=True) + block.mean()


def _jackknife(
    values: np.ndarray,
    chains: list[np.ndarray],
    statistics: Callable[[list[np.ndarray]], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Bias and variance of the values of statistics of chains, by leaving out successive draws."""
    found, per_chain = [], -(-NUM_BLOCKS // len(chains))
    for k, chain in enumerate(chains):
        for block in np.array_split(np.arange(len(chain)), min(per_chain, len(chain) // 2)):
            kept = np.delete(chain, block)
            found.append(statistics([*chains[:k], kept, *chains[k + 1 :]]))
    mean, spread = np.mean(found, axis=0), np.var(found, axis=0)
    return (len(found) - 1) * (mean - values), (len(found) - 1) * spread
