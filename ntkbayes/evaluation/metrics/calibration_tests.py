"""Tests of calibration that need no bins: Kolmogorov-Smirnov, Kuiper and Spiegelhalter.

For confidences q_i and outcomes o_i, sorted so that q_1 ≤ … ≤ q_m, let

    C_k = Σ_{i ≤ k} w_i (o_i − q_i),    C_0 = 0,    σ² = Σ_i w_i q_i (1 − q_i) / m.

If the predictor is calibrated, o_i ~ Bernoulli(q_i) independently, C / σ tends to Brownian motion
on [0, 1]. The Kolmogorov-Smirnov statistic is max |C_k| / σ (ECCE-MAD over σ in the source), the
Kuiper statistic (max C_k − min C_k) / σ (ECCE-R over σ), and both p-values are those of the
maximum and the range of Brownian motion. Spiegelhalter's z is the Brier score less its expectation
q (1 − q) under calibration, over the standard deviation of that difference:

    z = Σ w_i (o_i − q_i)(1 − 2 q_i) / √(Σ w_i (1 − 2 q_i)² q_i (1 − q_i) / m),

standard normal in the limit. Kolmogorov-Smirnov and Kuiper find any miscalibration if there are
points enough; z only one that the Brier score notices, and with the right sign: positive where
confidences near 0 or 1 are wrong too often.

Equal confidences have no order; C is looked at only after all points of one confidence. With many
ties the p-values of the first two are then too large (never too small).

Weights. Statistics are functions of weights as counts over m, like every metric. A p-value is
that of uniform weights: bootstrap rows are not test sets of independent points.

References
----------
Arrieta-Ibarra, Gujral, Tannen, Tygert & Xu (2022), arXiv 2205.09680, section 2 · Feller (1951),
doi:10.1214/aoms/1177729589 (range of Brownian motion) · Spiegelhalter (1986),
doi:10.1002/sim.4780050506.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool
from scipy.special import ndtr

from ntkbayes._types import Float, Int, typed
from ntkbayes.evaluation.metrics.inputs import (
    check_weights,
    checked_confidence,
    checked_predictions,
)
from ntkbayes.evaluation.metrics.ordering import group_sums, over_rows, tie_groups
from ntkbayes.evaluation.metrics.resampling import uniform_weights, weighted

__all__ = [
    "CalibrationTest",
    "calibration_tests",
    "kolmogorov_smirnov_p_value",
    "kolmogorov_smirnov_statistic",
    "kuiper_p_value",
    "kuiper_statistic",
    "spiegelhalter_p_value",
    "spiegelhalter_statistic",
]

_TERMS = np.arange(8)
"""Indices of the series of both distributions, which need six terms on their sides of a switch."""


class CalibrationTest(eqx.Module):
    """A statistic and the probability of a more extreme one if the predictor is calibrated."""

    statistic: float
    p_value: float


@typed
def calibration_tests(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"]
) -> dict[str, CalibrationTest]:
    """Test whether the probability of the most probable class is calibrated.

    The keys are ``kolmogorov_smirnov``, ``kuiper`` and ``spiegelhalter`` (two-sided).

    Parameters
    ----------
    p
        Predictive class probabilities.
    y
        Observed classes.

    Raises
    ------
    ValueError
        If there are no points, y holds no class indices or p no probabilities of them.
    """
    p = checked_predictions(p, y)
    arguments = p.max(axis=1), p.argmax(axis=1) == y, uniform_weights(len(y))
    tests = {
        "kolmogorov_smirnov": (kolmogorov_smirnov_statistic, kolmogorov_smirnov_p_value),
        "kuiper": (kuiper_statistic, kuiper_p_value),
        "spiegelhalter": (spiegelhalter_statistic, spiegelhalter_p_value),
    }
    results = {}
    for name, (statistic, p_value) in tests.items():
        value = statistic(*arguments)
        results[name] = CalibrationTest(float(value), float(p_value(value)))
    return results


@weighted
def kolmogorov_smirnov_statistic(
    confidence: Float[np.ndarray, "m"],
    outcome: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Return max_k |C_k| / σ, about 1.25 for a calibrated predictor.

    Parameters
    ----------
    confidence
        Predicted probability of an event at every point.
    outcome
        Whether it happened.
    weights
        See the module's docstring.

    Raises
    ------
    ValueError
        If probabilities or weights are out of range.
    """
    low, high, scale = _cumulative_extremes(confidence, outcome, weights)
    return _standardised(np.maximum(high, -low), scale)


@weighted
def kuiper_statistic(
    confidence: Float[np.ndarray, "m"],
    outcome: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Return (max_k C_k − min_k C_k) / σ, about 1.6 for a calibrated predictor.

    k runs from 0, as in the source; a range over k ≥ 1 is smaller where C has one sign.

    Parameters
    ----------
    confidence, outcome, weights
        As in `kolmogorov_smirnov_statistic`.

    Raises
    ------
    ValueError
        If probabilities or weights are out of range.
    """
    low, high, scale = _cumulative_extremes(confidence, outcome, weights)
    return _standardised(high - low, scale)


@weighted
def spiegelhalter_statistic(
    confidence: Float[np.ndarray, "m"],
    outcome: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Return Spiegelhalter's z; 0 if all confidences are ½, about which it says nothing.

    Parameters
    ----------
    confidence, outcome, weights
        As in `kolmogorov_smirnov_statistic`.

    Raises
    ------
    ValueError
        If probabilities or weights are out of range.
    """
    q = checked_confidence(confidence)
    check_weights(weights)
    excess = weights @ ((outcome - q) * (1 - 2 * q))
    variance = weights @ ((1 - 2 * q) ** 2 * q * (1 - q)) / len(q)
    return _standardised(np.asarray(excess), np.sqrt(variance))


@typed
def kolmogorov_smirnov_p_value(statistic: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
    """P(max |B| > x) for Brownian motion B on [0, 1], to 1e-15, relative in the far tail.

    4 Σ_k (−1)^k Φ(−(2k + 1) x) by reflection, or, for x < 1, one less the theta series that
    converges there, 4/π Σ_k (−1)^k / (2k + 1) exp(−(2k + 1)² π² / (8 x²)).
    """
    odd, sign, x = 2 * _TERMS + 1, (-1.0) ** _TERMS, statistic[..., None]
    tail = 4 * np.sum(sign * ndtr(-odd * np.maximum(x, 1)), axis=-1)
    small = np.clip(x, 1e-3, 1)
    body = 4 / np.pi * np.sum(sign / odd * np.exp(-((odd * np.pi / small) ** 2) / 8), axis=-1)
    return np.asarray(np.where(statistic < 1, 1 - body, tail))


@typed
def kuiper_p_value(statistic: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
    """P(max B − min B > x) for Brownian motion B on [0, 1], to 1e-15, relative in the far tail.

    8 Σ_{k ≥ 1} (−1)^{k−1} k Φ(−k x), the integral of Feller's density, or, for x < 2, one less
    Σ_k (8 / x² + 8 / ((2k + 1)² π²)) exp(−(2k + 1)² π² / (2 x²)).
    """
    k, sign, x = _TERMS + 1, (-1.0) ** _TERMS, statistic[..., None]
    tail = 8 * np.sum(sign * k * ndtr(-k * np.maximum(x, 2)), axis=-1)
    odd, small = (2 * _TERMS + 1) * np.pi, np.clip(x, 1e-3, 2)
    body = np.sum(8 * (1 / small**2 + 1 / odd**2) * np.exp(-((odd / small) ** 2) / 2), axis=-1)
    return np.asarray(np.where(statistic < 2, 1 - body, tail))


@typed
def spiegelhalter_p_value(statistic: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
    """P(|Z| > |z|) for a standard normal Z: two-sided."""
    return np.asarray(2 * ndtr(-np.abs(statistic)))


def _cumulative_extremes(
    confidence: np.ndarray, outcome: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smallest and largest C_k, both including C_0 = 0, and σ."""
    q = checked_confidence(confidence)
    check_weights(weights)
    order, starts = tie_groups(q)

    def extremes(rows: np.ndarray) -> np.ndarray:
        path = np.cumsum(group_sums(rows * (outcome - q), order, starts), axis=1)
        return np.stack([path.min(axis=1), path.max(axis=1)], axis=1)

    found = over_rows(extremes, weights, trailing=(2,))
    scale = np.sqrt(weights @ (q * (1 - q)) / len(q))
    return np.minimum(found[..., 0], 0), np.maximum(found[..., 1], 0), np.asarray(scale)


def _standardised(value: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Quotient; 0 / 0 is 0, because sure and right predictions are calibrated; else ±∞ over 0."""
    random = scale > 0
    certain = np.where(value == 0, 0.0, np.copysign(np.inf, value))
    return np.asarray(np.where(random, value / np.where(random, scale, 1), certain))
