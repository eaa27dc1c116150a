"""Class labels out of whatever users hold them in, and their indices."""

import math
import numbers
import reprlib
from typing import Any

import numpy as np

from ntkbayes._checks import check_finite, check_unmasked
from ntkbayes.datasets.values import is_missing, kind_of_dtype, plain_array

__all__ = ["class_indices", "label_array"]


def class_indices(
    labels: np.ndarray, class_names: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class indices (n,) of labels, and the names of the classes.

    Without names the labels name the classes, sorted as numbers or as text; with names the labels
    are their indices.

    Raises
    ------
    ValueError
        If names come with text.
    """
    if class_names is None:
        classes, indices = np.unique(labels, return_inverse=True)
        return indices, tuple(str(c) for c in classes)
    if labels.dtype.kind == "U":
        raise ValueError("y must hold indices of class_names, but holds text; leave one out.")
    return labels.astype(np.int64), class_names


def label_array(name: str, values: Any) -> np.ndarray:
    """Return class labels as integers, booleans or text, so that sorting them is their order.

    Whole numbers stay numbers in whatever type they come (floating, object, nullable).

    Raises
    ------
    ValueError
        If labels are missing, hidden by a mask, fractions, neither numbers nor text, or both.
    """
    check_unmasked(name, values)
    labels = plain_array(name, values)
    if labels.dtype.kind == "O":
        labels = _unboxed_labels(name, labels)
    if labels.dtype.kind == "f":
        check_finite(name, labels)
        if np.any(labels != np.round(labels)):
            raise ValueError(f"{name} must hold class labels, but holds fractions; regression?")
        if np.abs(labels).max(initial=0) >= 2**63:
            raise ValueError(f"{name} must hold class labels, but holds {labels.max():g}.")
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "biuU":
        what = kind_of_dtype(labels.dtype)
        raise ValueError(
            f"{name} must hold class labels, whole numbers or text, but holds {what}: "
            "pass them with .astype(str)."
        )
    return labels


def _unboxed_labels(name: str, labels: np.ndarray) -> np.ndarray:
    """Return an object array of labels as numbers, booleans or text, of which it may hold one."""
    examples: dict[str, Any] = {}
    for i, value in enumerate(labels.flat):
        if is_missing(value):
            raise ValueError(f"{name} must hold class labels, but entry {i} is missing.")
        kind = _label_kind(value)
        if kind is None:
            raise ValueError(
                f"{name} must hold class labels, whole numbers or text, but entry {i} is "
                f"{value!r} ({type(value).__name__}): pass them with .astype(str)."
            )
        examples.setdefault(kind, value)
    if len(examples) > 1:
        (first, one), (second, other) = list(examples.items())[:2]
        raise ValueError(
            f"{name} must hold class labels of one kind, but holds {first} ({one!r}) and {second} "
            f"({other!r}): if {one!r} and {str(one)!r} are one class, pass them with .astype(str)."
        )
    kind = next(iter(examples), "text")
    if kind == "text":
        return labels.astype(str)
    return labels.astype(bool) if kind == "booleans" else _whole_numbers(name, labels)


def _whole_numbers(name: str, labels: np.ndarray) -> np.ndarray:
    """Return an object array of numbers as integers; as floats if there are fractions."""
    flat = list(labels.flat)
    whole = all(isinstance(v, numbers.Integral) or (math.isfinite(v) and v == int(v)) for v in flat)
    try:
        if not whole:
            return labels.astype(float)
        return np.array([int(value) for value in flat], dtype=np.int64).reshape(labels.shape)
    except OverflowError:
        raise ValueError(
            f"{name} must hold class labels, but holds {reprlib.repr(max(flat, key=abs))}: "
            "pass them with .astype(str)."
        ) from None


def _label_kind(value: Any) -> str | None:
    if isinstance(value, bool | np.bool_):
        return "booleans"
    if isinstance(value, numbers.Real):
        return "numbers"
    return "text" if isinstance(value, str) else None
