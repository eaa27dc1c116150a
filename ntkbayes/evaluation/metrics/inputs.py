"""Checks of what metrics take; a message names the argument, what was wanted and what came."""

import numpy as np

from ntkbayes._checks import check_finite, check_not_empty

__all__ = ["check_labels", "check_probabilities", "check_weights"]

ROUNDING = 1e-6
"""How far a sum of float32 weights may be from 1, or a float32 probability beyond 0 or 1."""


def check_probabilities(name: str, values: np.ndarray) -> None:
    """Raise `ValueError` unless there are values, all from 0 to 1."""
    check_not_empty(name, values)
    check_finite(name, values)
    low, high = values.min(), values.max()
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"{name} must hold probabilities from 0 to 1, but its values reach from {low:g} to "
            f"{high:g}; apply softmax to logits first."
        )


def check_labels(y: np.ndarray, num_classes: int) -> None:
    """Raise `ValueError` unless every label is one of the classes 0 … num_classes − 1."""
    if y.size and (y.min() < 0 or y.max() >= num_classes):
        raise ValueError(
            f"y must hold class indices from 0 to {num_classes - 1}, but its values reach from "
            f"{y.min()} to {y.max()}."
        )


def check_weights(weights: np.ndarray, name: str = "weights") -> None:
    """Raise `ValueError` unless rows are non-negative and sum to 1."""
    check_not_empty(name, weights)
    # Of rows that hold a NaN or an infinity neither comparison is true.
    sums = weights.sum(axis=-1, dtype=float)
    if not (weights.min() >= 0 and np.all(np.abs(sums - 1) <= ROUNDING)):
        raise ValueError(
            f"{name} must be non-negative with rows that sum to 1, but the smallest is "
            f"{weights.min():g} and sums reach from {sums.min():g} to {sums.max():g}; divide "
            "counts by their sum."
        )
