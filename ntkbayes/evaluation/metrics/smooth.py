"""Smooth calibration error: no bins, and nothing to choose.

For confidences q_i and outcomes o_i, the residuals are smoothed over the confidence by the Gaussian
kernel K_σ of the unit interval with reflecting ends,

    r_σ(t) = Σ_i w_i (o_i − q_i) K_σ(t, q_i),        smECE_σ = ∫₀¹ |r_σ(t)| dt,

and the bandwidth is the error itself: smECE is the one σ with smECE_σ = σ. It is between the
distance of the predictor from the closest calibrated one and a constant times its root, and
continuous in the predictions, which binned errors are not.

K_σ is the heat kernel of [0, 1], whose eigenfunctions are cos(kπt) with eigenvalues
exp(−(kπσ)²/2): smoothing is a product in the cosine transform. Each residual is shared between the
two nearest of `NUM_NODES` cells in proportion to its distance from their middles.

References
----------
Błasiok & Nakkiran (2023), arXiv 2309.12236, definitions 3 to 5.
"""

import numpy as np
import scipy.fft
import scipy.sparse
from jaxtyping import Bool

from ntkbayes._types import Float, Int
from ntkbayes.evaluation.metrics.inputs import (
    check_weights,
    checked_confidence,
    checked_predictions,
)
from ntkbayes.evaluation.metrics.ordering import over_rows
from ntkbayes.evaluation.metrics.resampling import weighted

__all__ = ["smooth_calibration_error", "smooth_ece"]

NUM_NODES = 512
NUM_HALVINGS = 11
"""Of the interval that holds σ; a straight line between its ends, 5e-4 apart, gives the rest."""


@weighted
def smooth_ece(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return `smooth_calibration_error` of the probability of the most probable class.

    Parameters
    ----------
    p, y, weights
        See the module's docstring.

    Raises
    ------
    ValueError
        As in `smooth_calibration_error`.

    Examples
    --------
    >>> import numpy as np
    >>> p, y = np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([0, 1])
    >>> weights = nb.evaluation.metrics.uniform_weights(2)
    >>> round(float(nb.evaluation.metrics.smooth_ece(p, y, weights)), 2)
    0.25
    """
    p = checked_predictions(p, y)
    return smooth_calibration_error(p.max(axis=1), p.argmax(axis=1) == y, weights)


@weighted
def smooth_calibration_error(
    confidence: Float[np.ndarray, "m"],
    outcome: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Return smECE, from 0 to 1, to 1e-4; see the module's docstring.

    Chance gives a calibrated predictor a positive value. Time is that of a dozen cosine transforms
    of 512 numbers per row of weights.

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
    q = checked_confidence(confidence)
    check_weights(weights)
    spread = _shared_between_nodes(outcome - q, q)
    squared = (np.pi * np.arange(NUM_NODES)) ** 2 / 2

    def errors(rows: np.ndarray) -> np.ndarray:
        residuals = np.ascontiguousarray((spread @ rows.T).T)
        coefficients = np.asarray(scipy.fft.dct(residuals, type=2, axis=1, norm="ortho"))
        low, high = np.zeros(len(rows)), np.ones(len(rows))
        above, below = np.ones(len(rows)), np.zeros(len(rows))  # error − σ at either end
        for _ in range(NUM_HALVINGS):
            sigma = (low + high) / 2
            damped = coefficients * np.exp(-(sigma[:, None] ** 2) * squared)
            smoothed = np.asarray(scipy.fft.idct(damped, type=2, axis=1, norm="ortho"))
            excess = np.abs(smoothed).sum(axis=1) - sigma
            up = excess > 0
            low, above = np.where(up, sigma, low), np.where(up, excess, above)
            high, below = np.where(up, high, sigma), np.where(up, below, excess)
        return np.where(low > 0, low + (high - low) * above / (above - below), 0)

    return over_rows(errors, weights)


def _shared_between_nodes(residuals: np.ndarray, q: np.ndarray) -> scipy.sparse.csr_array:
    """Matrix (nodes m) that shares each residual between the nodes next to its confidence."""
    position = np.clip(q * NUM_NODES - 0.5, 0, NUM_NODES - 1)
    below = np.minimum(position.astype(int), NUM_NODES - 2)
    above = position - below
    points = np.arange(len(q))
    return scipy.sparse.csr_array(
        (
            np.concatenate([residuals * (1 - above), residuals * above]),
            (np.concatenate([below, below + 1]), np.concatenate([points, points])),
        ),
        shape=(NUM_NODES, len(q)),
    )
