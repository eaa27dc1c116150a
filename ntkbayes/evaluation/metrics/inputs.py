"""Checks of what metrics take; a message names the argument, what was wanted and what came.

Probabilities that were rounded are no mistake: half precision moves 1 − p by up to 1e-3 below 0,
and two printed digits move the sum of a row by up to 0.005 per class. They are taken, with what
lies outside of [0, 1] set to its end; logits and scores are not. Checks are linear in the size of
what is checked, once for all rows of weights.
"""

import numpy as np

from ntkbayes._checks import check_finite, check_not_empty

__all__ = [
    "check_errors",
    "check_labels",
    "check_shares",
    "check_variance",
    "check_weights",
    "checked_confidence",
    "checked_distributions",
    "checked_predictions",
]

SUM_ROUNDING = 1e-6
"""How far a sum of float32 weights may be from what it stands for."""
TOLERANCE = 1e-3 + SUM_ROUNDING
"""How far a probability may be beyond 0 or 1."""
PRINTED, LARGEST = 0.005, 0.05
"""How far a sum of probabilities may be from 1: for each class, but no more than the second."""
_AXES = {2: ("point",), 3: ("draw", "point")}
"""What the leading axes of probabilities (m c) and (s m c) count."""


def checked_predictions(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return class probabilities (m c) of points with labels y (m), as `checked_distributions`.

    Raises
    ------
    ValueError
        If a row of p is no distribution, or a label none of its classes.
    """
    p = checked_distributions("p", p)
    check_labels(y, p.shape[1])
    return p


def checked_distributions(
    name: str, p: np.ndarray, *, tolerance: float | None = None
) -> np.ndarray:
    """Return class probabilities (… m c), each within 0 and 1; they are not divided by their sum.

    Raises
    ------
    ValueError
        If there are none, one is not finite or below −1e-3, or the sum of a row is farther from 1
        than the tolerance, by default that of two printed digits.
    """
    off = min(PRINTED * p.shape[-1], LARGEST) if tolerance is None else tolerance
    check_not_empty(name, p)
    sums = p.sum(axis=-1, dtype=float)
    if not np.isfinite(sums).all():  # of draws (s m c), no array of their size is made
        check_finite(name, p)
    _check_rows(name, p, p.min(axis=-1) >= -TOLERANCE, "be nonnegative")
    near = np.abs(sums - 1) <= off + SUM_ROUNDING
    _check_rows(name, p, near, f"sum to 1 (to within {off:g})")
    return _within(p)


def checked_confidence(confidence: np.ndarray) -> np.ndarray:
    """Return probabilities of an event in double precision, each within 0 and 1.

    Raises
    ------
    ValueError
        If there are none, or one is not finite or farther than 1e-3 beyond 0 or 1.
    """
    check_not_empty("confidence", confidence)
    check_finite("confidence", confidence)
    low, high = confidence.min(), confidence.max()
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ValueError(
            f"confidence must hold probabilities from 0 to 1, but its values reach from {low:g} to "
            f"{high:g}; apply softmax to logits first."
        )
    return _within(confidence.astype(float))


def check_labels(y: np.ndarray, num_classes: int) -> None:
    """Raise `ValueError` unless every label is one of the classes 0 … num_classes − 1."""
    if y.size and (y.min() < 0 or y.max() >= num_classes):
        raise ValueError(
            f"y must hold class indices 0 to {num_classes - 1}, but holds {y.min()} to {y.max()}."
        )


def check_weights(weights: np.ndarray, name: str = "weights") -> None:
    """Raise `ValueError` unless rows are non-negative and sum to 1."""
    check_not_empty(name, weights)
    # Of rows that hold a NaN or an infinity neither comparison is true.
    sums = weights.sum(axis=-1, dtype=float)
    if not (weights.min() >= 0 and np.all(np.abs(sums - 1) <= SUM_ROUNDING)):
        raise ValueError(
            f"{name} must be non-negative with rows that sum to 1, but the smallest is "
            f"{weights.min():g} and sums reach from {sums.min():g} to {sums.max():g}; divide "
            "counts by their sum."
        )


def check_shares(name: str, values: np.ndarray, meaning: str) -> None:
    """Raise `ValueError` unless there are values, all from 0 to 1; `meaning` says what they are."""
    check_not_empty(name, values)
    if not (np.all(values >= 0) and np.all(values <= 1)):
        raise ValueError(
            f"{name} must lie between 0 and 1, but ranges from {values.min()} to {values.max()}; "
            f"it is {meaning}."
        )


def check_variance(name: str, values: np.ndarray, *, or_zero: bool = False) -> None:
    """Raise `ValueError` unless all values are finite and above 0 (or 0 with `or_zero`)."""
    check_finite(name, values)
    if values.size and (values.min() < 0 or (values.min() == 0 and not or_zero)):
        wanted = "zero or positive" if or_zero else "positive"
        raise ValueError(f"{name} must be {wanted}, but holds {values.min():g}.")


def check_errors(**errors: np.ndarray) -> None:
    """Raise `ValueError` unless all are finite and 0 or above; the keywords name them."""
    for name, values in errors.items():
        check_variance(name, values, or_zero=True)


def _check_rows(name: str, p: np.ndarray, right: np.ndarray, wanted: str) -> None:
    if not right.all():
        index = tuple(int(i) for i in np.argwhere(~right)[0])
        where = ", ".join(f"{axis} {i}" for axis, i in zip(_AXES[p.ndim], index, strict=True))
        row = np.array2string(p[index], max_line_width=10**6, threshold=8)
        raise ValueError(
            f"every row of {name} must {wanted}, but {np.sum(~right)} of {right.size} do not; the "
            f"first is that of {where}: {row}; apply softmax to logits first."
        )


def _within(values: np.ndarray) -> np.ndarray:
    """Without what rounding leaves below 0 or above 1; a copy only if there is such."""
    if values.min() < 0 or values.max() > 1:
        return np.clip(values, 0, 1)
    return values
