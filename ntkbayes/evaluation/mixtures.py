"""The predictive distribution of a regression: one normal per draw.

A new observation at one point and output, given draws f_s of the latent function and Gaussian
noise of variance σ², is distributed as

    Y ~ (1/s) Σ_s N(f_s, σ²),

and given the means and variances of networks that predict both as (1/s) Σ_s N(f_s, σ_s²). No noise
is drawn: what is left of Monte Carlo is the choice of the f_s. It raises the expected CRPS by
∫ var Φ((x − f)/σ) dx / s, which is (√(v + σ²) − σ) / (s √π) for normal f of variance v. A closed
form is the mixture of one component, N(mean, variance + σ²). Every function takes the components'
``means`` (s m c) and their ``variance``, noise included, (m c) if it is common to all or (s m c),
in standardised target units, and treats points and outputs apart. It raises `ValueError` for means
or observations that are not finite, and for a variance that is not finite and positive.

References
----------
Grimit, Gneiting, Berrocal & Johnson (2006), doi:10.1256/qj.05.235 (CRPS of a mixture) ·
Trefethen & Weideman (2014), doi:10.1137/130932132 (the trapezoid rule on the line) · Dawid (1984),
doi:10.2307/2981683 (probability integral transform).
"""

import numpy as np
import scipy.optimize.elementwise
import scipy.special
import scipy.stats

from ntkbayes._checks import check_finite, check_fraction
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.inputs import check_variance

__all__ = [
    "central_interval",
    "central_level",
    "crps",
    "log_density",
    "moments",
    "pit",
    "quantile",
]

Variance = Float[np.ndarray, "m c"] | Float[np.ndarray, "s m c"]
"""Of all components, or of each."""

STEP, REACH = 0.6, 14
"""Nodes of the trapezoid rule: their distance in units of σ, and how many on either side of a draw.

The rule's error falls as exp(−(π / STEP)²), 1e-12; beyond REACH · STEP = 8.4 σ a normal has less
than 1e-16 of its mass.
"""
WIDEST = (2 * REACH + 1) * STEP
"""Distance of two draws, in units of σ, from which on no node is within reach of both."""


@typed
def log_density(
    means: Float[np.ndarray, "s m c"],
    variance: Variance,
    y: Float[np.ndarray, "m c"],
) -> Float[np.ndarray, "s m c"]:
    """Log N(y; f_s, σ_s²) of every component, in nats for standardised targets."""
    _check(means, variance, y)
    return scipy.stats.norm.logpdf(y, means, np.sqrt(variance))


@typed
def quantile(
    means: Float[np.ndarray, "s m c"],
    variance: Variance,
    probability: float,
) -> Float[np.ndarray, "m c"]:
    """F⁻¹(probability), to 1e-12 σ: the root of F, between the components' own quantiles.

    Where F is flat to rounding, between far clusters of draws that halve the mass just there, it
    is any point of the flat stretch. σ is the smallest there is at the point. Time and memory are
    linear in s; about ten evaluations of F.

    Raises
    ------
    ValueError
        If `probability` is not between 0 and 1, or the root is not found.
    """
    check_fraction("probability", probability)
    _check(means, variance)
    scales = np.sqrt(variance if variance.ndim == 3 else variance[None])
    unit, lowest = scales.min(axis=0), means.min(axis=0)
    centers, widths = _by_point((means - lowest) / unit), _by_point(scales / unit)
    ends = centers + scipy.special.ndtri(probability) * widths
    highest = ends.max(axis=1)
    margin = 0.01 + 4 * np.spacing(np.abs(highest))  # no bracket of zero width

    def excess(x: np.ndarray, row: np.ndarray) -> np.ndarray:
        z = (x[:, None] - centers[row]) / widths[row]
        return scipy.special.ndtr(z).mean(axis=1) - probability

    found = scipy.optimize.elementwise.find_root(
        excess,
        (ends.min(axis=1) - margin, highest + margin),
        args=(np.arange(unit.size),),
        tolerances={"xatol": 1e-12},
    )
    if not found.success.all():
        raise ValueError("variance is too small: draws lie too many σ apart to find quantiles.")
    return lowest + unit * found.x.reshape(unit.shape)


def _by_point(values: np.ndarray) -> np.ndarray:
    """Return one row of components for each point and output, from (s m c)."""
    return np.ascontiguousarray(np.moveaxis(values, 0, -1).reshape(-1, len(values)))


@typed
def central_interval(
    means: Float[np.ndarray, "s m c"], variance: Variance, level: float
) -> tuple[Float[np.ndarray, "m c"], Float[np.ndarray, "m c"]]:
    """Lower and upper end of the central interval: the quantiles (1 ∓ level) / 2."""
    return (
        quantile(means, variance, (1 - level) / 2),
        quantile(means, variance, (1 + level) / 2),
    )


@typed
def central_level(
    means: Float[np.ndarray, "s m c"],
    variance: Variance,
    y: Float[np.ndarray, "m c"],
) -> Float[np.ndarray, "m c"]:
    """Level of the smallest central interval that holds y: |2 F(y) − 1|, from 0 to 1."""
    return np.abs(2 * pit(means, variance, y) - 1)


@typed
def pit(
    means: Float[np.ndarray, "s m c"],
    variance: Variance,
    y: Float[np.ndarray, "m c"],
) -> Float[np.ndarray, "m c"]:
    """Probability integral transform F(y) = (1/s) Σ_s Φ((y − f_s)/σ), from 0 to 1.

    Uniform over points if the predictive distribution is calibrated (Dawid 1984): U-shaped if it
    is too narrow, hump-shaped if too wide, sloped if biased.
    """
    _check(means, variance, y)
    return scipy.special.ndtr((y - means) / np.sqrt(variance)).mean(axis=0)


@typed
def crps(
    means: Float[np.ndarray, "s m c"],
    variance: Variance,
    y: Float[np.ndarray, "m c"],
) -> Float[np.ndarray, "m c"]:
    """Continuous ranked probability score ∫ (F(x) − 1[x ≥ y])² dx, in target units.

    E|Y − y| − ½ E|Y − Y′|. The first term is a mean over components. Where all have one width, the
    second is ∫ F (1 − F) dx by the trapezoid rule, to 1e-12, whose error falls faster than
    exponentially with the number of nodes because F is entire; between draws too far apart to
    overlap, F is a constant share of them. Time is then that of sorting s draws and of s · 29
    nodes, and memory that of one point, wherever they lie. Where widths differ the second is the
    double sum over components (Grimit et al. 2006, eq. 5), quadratic in s.
    """
    _check(means, variance, y)
    if variance.ndim == 3 and len(variance) > 1 and np.ptp(variance, axis=0).any():
        return _crps_of_widths(means, variance, y)
    scale = np.sqrt(variance[0] if variance.ndim == 3 else variance)
    z = np.moveaxis((y - means) / scale, 0, -1)
    spread = np.apply_along_axis(_half_mean_difference, -1, z)
    return scale * (_mean_distance(z).mean(axis=-1) - spread)


def _mean_distance(z: np.ndarray) -> np.ndarray:
    """E|Z + z| of a standard normal Z: z (2 Φ(z) − 1) + 2 φ(z)."""
    return z * (2 * scipy.special.ndtr(z) - 1) + 2 * scipy.stats.norm.pdf(z)


def _crps_of_widths(means: np.ndarray, variance: np.ndarray, y: np.ndarray) -> np.ndarray:
    """CRPS of components of different widths, point by point."""
    scale = np.sqrt(variance)
    distance = (scale * _mean_distance((y - means) / scale)).mean(axis=0)
    spread = [
        (root * _mean_distance((f[:, None] - f[None]) / root)).mean()
        for f, v in zip(_by_point(means), _by_point(variance), strict=True)
        for root in [np.sqrt(v[:, None] + v[None])]
    ]
    return distance - 0.5 * np.reshape(spread, y.shape)


def _half_mean_difference(centers: np.ndarray) -> float:
    """½ E|Y − Y′| = ∫ F (1 − F) dx of the mixture of N(center, 1) over centers (s,).

    A component adds to F at the nodes within its reach, and 1 at all nodes further up. Where
    neighbors are `WIDEST` apart or more, F between them is the share of the draws below: what is
    more than that is cut out, and its integral added.
    """
    steps = np.diff(np.sort(centers))
    kept = np.minimum(steps, WIDEST)
    below = np.arange(1, len(centers)) / len(centers)
    cut_out = float(np.sum((steps - kept) * below * (1 - below)))
    centers = np.concatenate([[0.0], np.cumsum(kept)])
    lowest = np.rint(centers / STEP).astype(int)  # of a component's nodes, counted from −REACH
    nodes = lowest[:, None] + np.arange(2 * REACH + 1)
    inside = scipy.special.ndtr((nodes - REACH) * STEP - centers[:, None])
    cumulative = np.bincount(nodes.ravel(), inside.ravel())
    above = np.bincount(lowest + 2 * REACH + 1, minlength=len(cumulative)).cumsum()
    cumulative = (cumulative + above[: len(cumulative)]) / len(centers)
    return cut_out + STEP * float(np.sum(cumulative * (1 - cumulative)))


@typed
def moments(
    means: Float[np.ndarray, "s m c"], variance: Variance
) -> tuple[Float[np.ndarray, "m c"], Float[np.ndarray, "m c"]]:
    """Mean and variance of the mixture: var_s f_s + (1/s) Σ_s σ_s² is its variance.

    The variance over draws has the divisor s.
    """
    check_finite("means", means)
    check_variance("variance", variance, or_zero=True)
    own = variance if variance.ndim == 2 else variance.mean(axis=0)
    return means.mean(axis=0), means.var(axis=0, dtype=float) + own


def _check(means: np.ndarray, variance: np.ndarray, y: np.ndarray | None = None) -> None:
    check_finite("means", means)
    check_variance("variance", variance)
    if y is not None:
        check_finite("y", y)
