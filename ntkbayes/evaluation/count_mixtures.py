"""The predictive distribution of counts: one Poisson distribution per draw.

A new count at one point, given draws f_s of the latent function, is distributed as

    Y ~ (1/s) Σ_s Poisson(exp f_s),

the count's counterpart of `mixtures`. Every function takes the components' ``rates`` exp f_s (s m),
and counts y (m,), and treats points apart. It raises `ValueError` for rates or counts that are not
finite or below 0. Time is linear in draws × the range of likely counts, memory in blocks of it.

References
----------
Czado, Gneiting & Held (2009), doi:10.1111/j.1541-0420.2009.01191.x (scores and PIT of counts) ·
Epstein (1969), J. Appl. Meteorol. 8, 985 (ranked probability score).
"""

from collections.abc import Iterator

import numpy as np
import scipy.special

from ntkbayes._checks import check_finite
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.inputs import check_variance

__all__ = ["crps", "mean", "pit"]

BLOCK_SIZE = 100_000
"""Counts at which distribution functions are held at a time."""
WIDEST = 100_000_000
"""Number of likely counts from which on a sum over them is refused."""
REACH = 12.0
"""Deviations of the smallest and the largest rate beyond which counts are not likely."""


@typed
def mean(rates: Float[np.ndarray, "s m"]) -> Float[np.ndarray, "m"]:
    """Predictive mean: that of the rates."""
    check_variance("rates", rates, or_zero=True)
    return rates.mean(axis=0, dtype=float)


@typed
def crps(rates: Float[np.ndarray, "s m"], y: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
    """Continuous ranked probability score Σ_k (F(k) − 1[k ≥ y])², in counts.

    Summed over all counts that lie within 12 deviations of some rate; between such ranges and the
    observation F is constant. What is left out is below 1e-15.

    Raises
    ------
    ValueError
        If more than 10⁸ counts are likely at a point.
    """
    _check(rates, y)
    return np.array([_point_crps(np.sort(r), k) for r, k in zip(rates.T, y, strict=True)])


def _point_crps(rates: np.ndarray, y: float) -> float:
    ranges = _likely_ranges(rates)
    if (number := np.sum(ranges[:, 1] - ranges[:, 0])) > WIDEST:
        raise ValueError(
            f"at most {WIDEST:.0e} counts may be likely at a point, but {number:.3g} are: rates go "
            f"up to {rates[-1]:.3g}."
        )
    total = 0.0
    for counts in (block for start, stop in ranges for block in _blocks(start, stop)):
        cumulative = _distribution(rates[:, None], counts).mean(axis=0)
        total += float(np.sum((cumulative - (counts >= y)) ** 2))
    # Between the ranges, and from an observation outside of them to the nearest, F stays.
    starts = np.array([min(0.0, y), *ranges[:, 1]])
    stops = np.array([*ranges[:, 0], max(y, ranges[-1, 1])])
    below = np.searchsorted(rates, starts) / len(rates)
    not_yet = np.clip(y, starts, stops) - starts
    return total + float(np.sum(not_yet * below**2 + (stops - starts - not_yet) * (1 - below) ** 2))


def _likely_ranges(rates: np.ndarray) -> np.ndarray:
    """Disjoint ranges (r 2) of counts, the ends excluded, that hold nearly all of every rate."""
    reach = REACH * np.sqrt(rates) + REACH
    starts, stops = np.maximum(np.floor(rates - reach), 0), np.ceil(rates + reach) + 1
    apart = starts[1:] > stops[:-1]
    return np.stack(
        [starts[np.concatenate([[True], apart])], stops[np.concatenate([apart, [True]])]], axis=1
    )


def _blocks(start: float, stop: float) -> Iterator[np.ndarray]:
    for first in np.arange(start, stop, BLOCK_SIZE):
        yield np.arange(first, min(first + BLOCK_SIZE, stop))


@typed
def pit(
    rates: Float[np.ndarray, "s m"], y: Float[np.ndarray, "m"], *, seed: int = 0
) -> Float[np.ndarray, "m"]:
    """Randomised probability integral transform F(y − 1) + u (F(y) − F(y − 1)).

    With u uniform, from a fixed seed, it is uniform over points if the predictive distribution is
    calibrated; without u it would not be, as counts are discrete.
    """
    _check(rates, y)
    below, upto = (_distribution(rates, k).mean(axis=0) for k in (y - 1, y))
    return below + np.random.default_rng(seed).uniform(size=len(y)) * (upto - below)


def _distribution(rates: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """P(Poisson(rate) ≤ count), 0 below 0."""
    return np.where(counts < 0, 0.0, scipy.special.pdtr(np.maximum(counts, 0), rates))


def _check(rates: np.ndarray, y: np.ndarray) -> None:
    check_variance("rates", rates, or_zero=True)
    check_finite("y", y)
    if np.any((y < 0) | (y != np.round(y))):
        raise ValueError("y must hold counts: whole numbers, zero or positive.")
