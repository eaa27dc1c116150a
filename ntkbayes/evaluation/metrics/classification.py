"""Metrics of class probabilities.

The uncertainty of a label splits in two: predictive entropy = expected entropy (aleatoric: what
every draw of the function still leaves open) + mutual information (epistemic: what draws disagree
about). Functions of all draws (s m c) look at a block of points at a time, in float64.

Every function raises `ValueError` for labels that are no class, and for rows that are no
distribution over classes, such as logits.
"""

from collections.abc import Callable

import numpy as np
import scipy.special

from ntkbayes._arrays import one_hot
from ntkbayes._types import Float, Int, typed
from ntkbayes.evaluation.metrics.inputs import checked_distributions, checked_predictions
from ntkbayes.evaluation.metrics.resampling import weighted, weighted_mean

__all__ = [
    "accuracy",
    "brier",
    "expected_entropy",
    "mutual_information",
    "pointwise_expected_entropy",
    "pointwise_mutual_information",
    "pointwise_predictive_entropy",
    "pointwise_variation_ratio",
    "predictive_entropy",
    "variation_ratio",
]

BLOCK = 2**21
"""Probabilities that are looked at together: 16 MB of each intermediate array."""


@weighted
def accuracy(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return the share of points whose most probable class is y; ties go to the lower class."""
    p = checked_predictions(p, y)
    return weighted_mean(weights, p.argmax(axis=1) == y)


@weighted
def brier(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return Σ_i w_i Σ_c (p_ic − 1[y_i = c])², from 0 to 2: the sum over classes, not halved."""
    p = checked_predictions(p, y)
    return weighted_mean(weights, np.sum((p - one_hot(y, p.shape[1])) ** 2, axis=1))


@weighted
def predictive_entropy(
    p: Float[np.ndarray, "m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of `pointwise_predictive_entropy`, the whole uncertainty, in nats."""
    return weighted_mean(weights, pointwise_predictive_entropy(p))


@weighted
def expected_entropy(
    probabilities: Float[np.ndarray, "s m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of `pointwise_expected_entropy`, the aleatoric uncertainty, in nats."""
    return weighted_mean(weights, pointwise_expected_entropy(probabilities))


@weighted
def mutual_information(
    probabilities: Float[np.ndarray, "s m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of `pointwise_mutual_information`, the epistemic uncertainty, in nats."""
    return weighted_mean(weights, pointwise_mutual_information(probabilities))


@weighted
def variation_ratio(
    probabilities: Float[np.ndarray, "s m c"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Mean over points of `pointwise_variation_ratio`, from 0 to 1 − 1/c."""
    return weighted_mean(weights, pointwise_variation_ratio(probabilities))


@typed
def pointwise_predictive_entropy(p: Float[np.ndarray, "m c"]) -> Float[np.ndarray, "m"]:
    """Entropy −Σ_c p_c log p_c of the predictive probabilities at each point, in nats."""
    return scipy.special.entr(checked_distributions("p", p).astype(float)).sum(axis=-1)


@typed
def pointwise_expected_entropy(
    probabilities: Float[np.ndarray, "s m c"],
) -> Float[np.ndarray, "m"]:
    """Mean over draws of the entropy at each point, in nats.

    The aleatoric part of the predictive entropy, from 0 to log c: what would be left if the
    function were known.
    """
    return _by_points(_mean_entropy, probabilities)


@typed
def pointwise_mutual_information(
    probabilities: Float[np.ndarray, "s m c"],
) -> Float[np.ndarray, "m"]:
    """Entropy of the mean minus mean entropy over draws at each point, in nats.

    The mutual information between the label and the function: the epistemic part of the
    predictive entropy, from 0 (all draws agree) to log c.
    """

    def information(block: np.ndarray) -> np.ndarray:
        total = scipy.special.entr(block.mean(axis=0)).sum(axis=-1)
        return total - _mean_entropy(block)

    return _by_points(information, probabilities)


@typed
def pointwise_variation_ratio(
    probabilities: Float[np.ndarray, "s m c"],
) -> Float[np.ndarray, "m"]:
    """Share of draws whose most probable class is not the commonest such class, at each point.

    1 − max_c #{s : argmax_k p_sk = c} / s: epistemic disagreement about the decision alone, from
    0 to 1 − 1/c. Draws that agree on a class count as sure, whatever their probabilities. Ties go
    to the lower class.

    References
    ----------
    Freeman (1965), Elementary Applied Statistics, chapter 5 · Gal (2016), Uncertainty in Deep
    Learning, section 3.3.1.
    """

    def ratio(block: np.ndarray) -> np.ndarray:
        decided = block.argmax(axis=-1)
        counts = [(decided == c).sum(axis=0) for c in range(block.shape[-1])]
        return 1 - np.max(counts, axis=0) / len(block)

    return _by_points(ratio, probabilities)


def _mean_entropy(probabilities: np.ndarray) -> np.ndarray:
    return scipy.special.entr(probabilities).sum(axis=-1).mean(axis=0)


def _by_points(
    function: Callable[[np.ndarray], np.ndarray], probabilities: np.ndarray
) -> np.ndarray:
    """Apply a function of draws (s k c) to blocks of k points: no second copy of all draws."""
    probabilities = checked_distributions("probabilities", probabilities)
    num_draws, num_points, num_classes = probabilities.shape
    size = max(1, BLOCK // (num_draws * num_classes))
    parts = [
        function(probabilities[:, i : i + size].astype(float, copy=False))
        for i in range(0, num_points, size)
    ]
    return np.concatenate(parts)
