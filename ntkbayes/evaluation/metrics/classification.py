"""Metrics of class probabilities."""

import numpy as np
import scipy.special

from ntkbayes._types import Float, Int, typed
from ntkbayes.evaluation.metrics.resampling import weighted_mean

__all__ = [
    "accuracy",
    "brier",
    "mutual_information",
    "pointwise_mutual_information",
    "predictive_entropy",
]


@typed
def accuracy(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return the share of points whose most probable class is y; ties go to the lower class."""
    return weighted_mean(weights, p.argmax(axis=1) == y)


@typed
def brier(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return Σ_i w_i Σ_c (p_ic − 1[y_i = c])², from 0 to 2: the sum over classes, not halved."""
    return weighted_mean(weights, np.sum((p - np.eye(p.shape[1])[y]) ** 2, axis=1))


@typed
def predictive_entropy(
    p: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of the entropy −Σ_c p_c log p_c of the predictive probabilities, in nats."""
    return weighted_mean(weights, scipy.special.entr(p).sum(axis=-1))


@typed
def mutual_information(
    probabilities: Float[np.ndarray, "s m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of `pointwise_mutual_information`, the epistemic uncertainty, in nats."""
    return weighted_mean(weights, pointwise_mutual_information(probabilities))


@typed
def pointwise_mutual_information(
    probabilities: Float[np.ndarray, "s m c"],
) -> Float[np.ndarray, "m"]:
    """Entropy of the mean minus mean entropy over draws at each point, in nats.

    The mutual information between the label and the function: the epistemic part of the
    predictive entropy, from 0 (all draws agree) to log c.
    """
    total = scipy.special.entr(probabilities.mean(axis=0)).sum(axis=-1)
    aleatoric = scipy.special.entr(probabilities).sum(axis=-1).mean(axis=0)
    return total - aleatoric
