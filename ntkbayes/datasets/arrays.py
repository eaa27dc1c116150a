"""Datasets of one's own arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ntkbayes._checks import check_at_least, check_choice, check_finite
from ntkbayes._types import typed
from ntkbayes.datasets.record import TASKS, Dataset
from ntkbayes.datasets.splitting import split_dataset

__all__ = ["make_dataset"]


@typed
def make_dataset(
    x: Any,
    y: Any,
    *,
    task: str,
    name: str = "custom",
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    target_name: str | None = None,
    image_shape: tuple[int, int] | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.2,
) -> Dataset:
    """Make a dataset of one's own arrays: check, split and standardise as `load_dataset` does.

    Classification data are split in proportion to the classes.

    Parameters
    ----------
    x
        Inputs (n d), numbers in any unit: an array, a list of rows or a data frame. Its rows and
        those of y belong together by position.
    y
        Class labels (n,) (integers or text), or real targets for regression.
    task
        "classification" or "regression".
    name
        Name of the dataset in tables and files.
    class_names
        Names of the classes; y must then hold their indices. By default the sorted labels.
    feature_names
        Names of the columns of x; by default those of a data frame, else "x0", "x1", …
    target_name
        Name of y; by default that of a data frame's column, else "y".
    image_shape
        Height and width if the rows of x are pictures; they are then divided by one common scale.
    seed
        Draws the split; zero or positive.
    test_fraction, validation_fraction
        Fractions of the rows, each rounded to whole points, at least one; the rest is the training
        split.

    Raises
    ------
    ValueError
        If the task is unknown, a fraction or the seed is out of range, x or y has another shape,
        holds NaN or infinity or is no number or label, their rows differ, a split would be empty,
        only one class occurs or one has no training point, class names do not fit the labels or
        come with a regression, or the regression target is constant.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> mine = nb.make_dataset(x, np.where(x[:, 0] > 0, "high", "low"), task="classification")
    >>> mine.class_names, mine.x_train.shape
    (('high', 'low'), (30, 3))
    """
    check_choice("task", task, TASKS)
    check_at_least("seed", seed, 0)
    if feature_names is None and hasattr(x, "columns"):
        feature_names = [str(column) for column in x.columns]
    if target_name is None:
        of_series = None if hasattr(y, "columns") else getattr(y, "name", None)
        target_name = "y" if of_series is None else str(of_series)
    inputs, y = _numbers("x", x), _array("y", y)
    if inputs.ndim != 2:
        raise ValueError(f"x must have shape (n, d), but has {inputs.shape}.")
    if y.shape != inputs.shape[:1]:
        column = "; flatten it" if y.size == len(inputs) else ""
        raise ValueError(
            f"y must have shape ({len(inputs)},), one entry per row of x, but has "
            f"{y.shape}{column}."
        )
    if task == "classification":
        targets, class_names = _class_indices(y, class_names)
    else:
        targets = _numbers("y", y)
        if class_names:
            raise ValueError("class_names must be left out for regression.")
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    for argument, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ValueError(f"{argument} must lie between 0 and 1, but is {fraction}.")
    return split_dataset(
        np.random.default_rng(seed),
        inputs,
        targets,
        num_test=round(test_fraction * len(inputs)),
        num_val=round(validation_fraction * len(inputs)),
        name=name,
        task=task,
        class_names=class_names or (),
        feature_names=feature_names,
        target_name=target_name,
        image_shape=image_shape,
    )


def _array(name: str, values: Any) -> np.ndarray:
    """Return an array, in which pandas' missing numbers are NaN."""
    if not hasattr(values, "to_numpy"):
        return np.asarray(values)
    import pandas as pd  # slow, and only needed by those who have it already

    if isinstance(values, pd.DataFrame):
        for column, dtype in values.dtypes.items():
            if not pd.api.types.is_numeric_dtype(dtype):
                raise ValueError(
                    f"{name} must hold real numbers, but its column {column!r} has dtype {dtype}."
                )
        return values.to_numpy(dtype=float, na_value=np.nan)
    if isinstance(values, pd.Series):
        values = values.infer_objects()
        if pd.api.types.is_numeric_dtype(values.dtype) and values.hasnans:
            return values.to_numpy(dtype=float, na_value=np.nan)
        return values.to_numpy(dtype=getattr(values.dtype, "numpy_dtype", None))
    return np.asarray(values)


def _numbers(name: str, values: Any) -> np.ndarray:
    array = _array(name, values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, but has dtype {array.dtype}.")
    check_finite(name, array)
    return array.astype(np.float64)


def _class_indices(
    labels: np.ndarray, class_names: Sequence[str] | None
) -> tuple[np.ndarray, Sequence[str]]:
    """Return class indices (n,) and the classes' names."""
    if labels.dtype.kind == "f":
        check_finite("y", labels)
        if np.any(labels != np.round(labels)):
            raise ValueError("y must hold class labels, but holds fractions; is it regression?")
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "O":
        import pandas as pd  # as above; its isna knows every kind of missing label

        missing = np.flatnonzero(pd.isna(labels))
        if missing.size:
            raise ValueError(f"y must hold class labels, but entry {missing[0]} is missing.")
        labels = labels.astype(str)
    if labels.dtype.kind not in "biuU":
        raise ValueError(f"y must hold class labels, but has dtype {labels.dtype}.")
    if class_names is None:
        classes, indices = np.unique(labels, return_inverse=True)
        return indices, [str(c) for c in classes]
    if labels.dtype.kind == "U":
        raise ValueError("y must hold indices of class_names, but holds text; leave one out.")
    return labels.astype(np.int64), class_names
