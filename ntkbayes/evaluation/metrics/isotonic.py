"""Calibration without bins: the isotonic regression of outcomes on confidences.

Of all non-decreasing functions the recalibrated probability r minimises Σ w_i (o_i − r(q_i))²; it
is constant over blocks that the pool-adjacent-violators algorithm finds, equal to the mean outcome
of each. It takes the place of a reliability diagram's bins and has nothing to choose.

References
----------
Dimitriadis, Gneiting & Jordan (2021), CORP, doi:10.1073/pnas.2016191118 · Busing (2022),
doi:10.18637/jss.v102.c01 (the algorithm that SciPy runs).
"""

import numpy as np
from jaxtyping import Bool
from scipy.optimize import isotonic_regression

from ntkbayes._checks import check_choice
from ntkbayes._types import Float
from ntkbayes.evaluation.metrics.gaps import NORMS
from ntkbayes.evaluation.metrics.inputs import check_weights, checked_confidence
from ntkbayes.evaluation.metrics.ordering import group_sums, over_rows, tie_groups
from ntkbayes.evaluation.metrics.resampling import weighted

__all__ = ["isotonic_fit", "pav_calibration_error", "recalibrated"]


@weighted
def pav_calibration_error(
    confidence: Float[np.ndarray, "m"],
    outcome: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    norm: str = "l1",
) -> Float[np.ndarray, "*b"]:
    """Return the distance between confidences q and their isotonic recalibration r, from 0 to 1.

    L1: Σ w_i |r(q_i) − q_i|; L2: √(Σ w_i (r(q_i) − q_i)²). Chance gives a calibrated predictor a
    positive value, of order m^(−1/3). The L2 value squared is at most the miscalibration MCB of the
    Brier score (`corp`).

    Time is that of one linear pass per row of weights.

    Parameters
    ----------
    confidence
        Predicted probability of an event at every point.
    outcome
        Whether it happened.
    weights
        See the module's docstring.
    norm
        ``l1`` or ``l2``.

    Raises
    ------
    ValueError
        If probabilities, weights or `norm` are out of range.
    """
    check_choice("norm", norm, NORMS)
    confidence = checked_confidence(confidence)
    check_weights(weights)
    order, starts = tie_groups(confidence)
    knots = confidence[order][starts]

    def distances(rows: np.ndarray) -> np.ndarray:
        shares = group_sums(rows, order, starts)
        hits = group_sums(rows * outcome, order, starts)
        gaps = [
            np.abs(recalibrated(knots, *sums) - knots) for sums in zip(shares, hits, strict=True)
        ]
        if norm == "l1":
            return np.sum(shares * gaps, axis=1)
        return np.sqrt(np.sum(shares * np.square(gaps), axis=1))

    return over_rows(distances, weights)


@weighted
def isotonic_fit(
    confidence: Float[np.ndarray, "m"],
    outcome: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
) -> tuple[Float[np.ndarray, "u"], Float[np.ndarray, "*b u"]]:
    """Distinct confidences, upwards, and the recalibrated probability r of each, for a plot.

    Where a row of weights has no point of a confidence, r is interpolated linearly between its
    neighbors, or that of the nearest one at the ends.

    Parameters
    ----------
    confidence, outcome, weights
        As in `pav_calibration_error`.

    Raises
    ------
    ValueError
        If probabilities or weights are out of range.
    """
    confidence = checked_confidence(confidence)
    check_weights(weights)
    order, starts = tie_groups(confidence)
    knots = confidence[order][starts]

    def fits(rows: np.ndarray) -> np.ndarray:
        shares = group_sums(rows, order, starts)
        hits = group_sums(rows * outcome, order, starts)
        return np.array([recalibrated(knots, *sums) for sums in zip(shares, hits, strict=True)])

    return knots, over_rows(fits, weights, trailing=knots.shape)


def recalibrated(knots: np.ndarray, shares: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Isotonic fit at every knot from the weights there, and the part of them that came true."""
    there = shares > 0
    weights = shares[there]
    return np.interp(
        knots, knots[there], isotonic_regression(hits[there] / weights, weights=weights).x
    )
