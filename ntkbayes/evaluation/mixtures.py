"""The predictive distribution of a regression: one normal per latent draw, all of one width.

A new observation at one point and output, given draws f_s of the latent function and Gaussian
noise of variance σ², is distributed as

    Y ~ (1/s) Σ_s N(f_s, σ²).

No noise is drawn: what is left of Monte Carlo is the choice of the f_s. It raises the expected
CRPS by ∫ var Φ((x − f)/σ) dx / s, which is (√(v + σ²) − σ) / (s √π) for normal f of variance v. A
closed form is the mixture of one component, N(mean, variance + σ²). Every function takes the
components' ``means`` (s m c) and their common ``variance`` (m c), noise included, in standardised
target units, and treats points and outputs apart. It raises `ValueError` for means or observations
that are not finite, and for a variance that is not finite and positive.

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

__all__ = ["central_interval", "central_level", "crps", "log_density", "pit", "quantile"]

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
    variance: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
) -> Float[np.ndarray, "s m c"]:
    """Log N(y; f_s, σ²) of every component, in nats for standardised targets."""
    _check(means, variance, y)
    return scipy.stats.norm.logpdf(y, means, np.sqrt(variance))


@typed
def quantile(
    means: Float[np.ndarray, "s m c"],
    variance: Float[np.ndarray, "m c"],
    probability: float,
) -> Float[np.ndarray, "m c"]:
    """F⁻¹(probability), to 1e-12 σ: the root of F, between the components' own quantiles.

    Where F is flat to rounding, between far clusters of draws that halve the mass just there, it
    is any point of the flat stretch. Time and memory are linear in s; about ten evaluations of F.

    Raises
    ------
    ValueError
        If `probability` is not between 0 and 1, or the root is not found.
    """
    check_fraction("probability", probability)
    _check(means, variance)
    scale, lowest = np.sqrt(variance), means.min(axis=0)
    centers = np.moveaxis((means - lowest) / scale, 0, -1).reshape(scale.size, -1)
    centers = np.ascontiguousarray(centers)
    shift, highest = scipy.special.ndtri(probability), centers.max(axis=1)
    margin = 0.01 + 4 * np.spacing(highest)  # no bracket of zero width

    def excess(x: np.ndarray, row: np.ndarray) -> np.ndarray:
        return scipy.special.ndtr(x[:, None] - centers[row]).mean(axis=1) - probability

    found = scipy.optimize.elementwise.find_root(
        excess,
        (shift - margin, highest + shift + margin),
        args=(np.arange(scale.size),),
        tolerances={"xatol": 1e-12},
    )
    if not found.success.all():
        raise ValueError("variance is too small: draws lie too many σ apart to find quantiles.")
    return lowest + scale * found.x.reshape(scale.shape)


@typed
def central_interval(
    means: Float[np.ndarray, "s m c"], variance: Float[np.ndarray, "m c"], level: float
) -> tuple[Float[np.ndarray, "m c"], Float[np.ndarray, "m c"]]:
    """Lower and upper end of the central interval: the quantiles (1 ∓ level) / 2."""
    return (
        quantile(means, variance, (1 - level) / 2),
        quantile(means, variance, (1 + level) / 2),
    )


@typed
def central_level(
    means: Float[np.ndarray, "s m c"],
    variance: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
) -> Float[np.ndarray, "m c"]:
    """Level of the smallest central interval that holds y: |2 F(y) − 1|, from 0 to 1."""
    return np.abs(2 * pit(means, variance, y) - 1)


@typed
def pit(
    means: Float[np.ndarray, "s m c"],
    variance: Float[np.ndarray, "m c"],
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
    variance: Float[np.ndarray, "m c"],
    y: Float[np.ndarray, "m c"],
) -> Float[np.ndarray, "m c"]:
    """Continuous ranked probability score ∫ (F(x) − 1[x ≥ y])² dx, in target units.

    E|Y − y| − ½ E|Y − Y′|, exact up to 1e-12 of ½ E|Y − Y′|. The first term is a mean over
    components; the second is ∫ F (1 − F) dx by the trapezoid rule, whose error falls faster than
    exponentially with the number of nodes because F is entire; between draws too far apart to
    overlap, F is a constant share of them. Time is that of sorting s draws and of s · 29 nodes (the
    double sum over components would be quadratic), and memory that of one point, wherever they lie.
    """
    _check(means, variance, y)
    scale = np.sqrt(variance)
    z = np.moveaxis((y - means) / scale, 0, -1)
    distance = z * (2 * scipy.special.ndtr(z) - 1) + 2 * scipy.stats.norm.pdf(z)
    spread = np.apply_along_axis(_half_mean_difference, -1, z)
    return scale * (distance.mean(axis=-1) - spread)


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


def _check(means: np.ndarray, variance: np.ndarray, y: np.ndarray | None = None) -> None:
    check_finite("means", means)
    check_variance("variance", variance)
    if y is not None:
        check_finite("y", y)
