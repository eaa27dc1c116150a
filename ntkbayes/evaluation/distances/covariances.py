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

__all__ = [
    "CovarianceComparison",
    "covariance_comparison",
]

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

    The norms and the inner product are without bias (up to 1/ESS of a chain, if there are several
    chains). Their ratios are corrected by the jackknife of 20 blocks of successive draws of each
    method, which also gives the standard errors; between equal covariances, where only terms of
    second order are left, these are too large, by √2 for many draws. Time is 20 (s² + t² + 2 s t)
    beside that of the Gram matrix.

    Parameters
    ----------
    a, b
        Draws from `joint_draws`, at the same points; distances are relative to b.

    Raises
    ------
    ValueError
        If the shapes of the draws differ, there are fewer than 40 draws, fewer than 4 in a chain,
        or chains with less than two effective draws each, or if the norm of a covariance is not
        distinguishable from 0.
    """
    gram = gram_matrix(a, b)
    for name, draws in (("a", a), ("b", b)):
        _check_draws(name, draws)
    chains_a, chains_b = a.chains, [chain + len(a.latent) for chain in b.chains]
    share_a, share_b = _independent_share(a), _independent_share(b)
    norm_a = _squared_norm(gram, chains_a, share_a)
    norm_b = _squared_norm(gram, chains_b, share_b)

    def without_some_of_a(kept: list[np.ndarray]) -> np.ndarray:
        inner = _inner_product(gram, kept, chains_b, share_a, share_b)
        return _comparison(_squared_norm(gram, kept, share_a), inner, norm_b)

    def without_some_of_b(kept: list[np.ndarray]) -> np.ndarray:
        inner = _inner_product(gram, chains_a, kept, share_a, share_b)
        return _comparison(norm_a, inner, _squared_norm(gram, kept, share_b))

    inner = _inner_product(gram, chains_a, chains_b, share_a, share_b)
    values = _comparison(norm_a, inner, norm_b)
    bias_a, variance_a = _jackknife(values, chains_a, without_some_of_a)
    bias_b, variance_b = _jackknife(values, chains_b, without_some_of_b)
    values, errors = values - bias_a - bias_b, np.sqrt(variance_a + variance_b)
    return CovarianceComparison(*map(Estimate, values.tolist(), errors.tolist()))


def _check_draws(name: str, draws: JointDraws) -> None:
    num_draws = len(draws.latent)
    if num_draws < max(MIN_DRAWS, 4 * draws.num_chains):
        raise ValueError(
            f"{name} must have at least {MIN_DRAWS} draws, and 4 in each chain, but has "
            f"{num_draws} of {draws.num_chains} chain(s)."
        )
    if draws.num_effective < 2 * draws.num_chains:
        raise ValueError(
            f"{name} must have at least 2 effective draws in each chain, but has "
            f"{draws.num_effective:.1f} of {draws.num_chains} chain(s)."
        )


def _comparison(norm_a: float, inner: float, norm_b: float) -> np.ndarray:
    """Squared distance relative to b, and alignment, from ‖Σ_a‖², tr(Σ_a Σ_b) and ‖Σ_b‖²."""
    if not min(norm_a, norm_b) > 0:
        raise ValueError(
            "the norm of a covariance cannot be told from 0 with these draws: draw more."
        )
    return np.array([(norm_a - 2 * inner + norm_b) / norm_b, inner / np.sqrt(norm_a * norm_b)])


def _independent_share(draws: JointDraws) -> float:
    """Effective number of draws over their number; independent draws have 1."""
    return draws.num_effective / len(draws.latent) if draws.num_chains > 1 else 1.0


def _squared_norm(gram: np.ndarray, chains: list[np.ndarray], share: float) -> float:
    """Estimate ‖Σ‖² = tr Σ²."""
    if len(chains) > 1:
        pairs = itertools.combinations(chains, 2)
        return float(np.mean([_inner_product(gram, [c], [d], share, share) for c, d in pairs]))
    centered = _centered(gram, chains[0], chains[0])
    s, squares = len(centered), np.diag(centered)
    trace_of_square = np.sum(centered**2) / (s - 1) ** 2
    trace, fourth = squares.sum() / (s - 1), np.sum(squares**2) / (s - 1)
    corrected = (s - 1) * (s - 2) * trace_of_square + trace**2 - s * fourth
    return (s - 1) / (s * (s - 2) * (s - 3)) * corrected


def _inner_product(
    gram: np.ndarray,
    chains_a: list[np.ndarray],
    chains_b: list[np.ndarray],
    share_a: float,
    share_b: float,
) -> float:
    """Estimate tr(Σ_a Σ_b) of independent sets: the mean over pairs of their chains.

    The squared deviations of s draws, n of them effective, add up to s (1 − 1/n) variances.
    """
    found = [
        np.sum(_centered(gram, c, d) ** 2) / ((len(c) - 1 / share_a) * (len(d) - 1 / share_b))
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
