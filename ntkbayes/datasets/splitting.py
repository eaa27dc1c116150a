"""From raw arrays to a `Dataset`: splits in proportion to the classes, and standard units."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ntkbayes.datasets.record import Dataset, check_num_points

__all__ = ["split_dataset", "standardized"]


def split_dataset(
    generator: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    *,
    num_test: int,
    num_val: int,
    num_train: int | None = None,
    task: str,
    class_names: Sequence[str],
    **description: Any,
) -> Dataset:
    """Split rows into test, validation and training points, and standardise."""
    held_out = num_test + num_val
    available = len(x) - held_out
    for split, size in (("test", num_test), ("val", num_val), ("train", available)):
        check_num_points(split, size)
    if num_train is not None and num_train > available:
        raise ValueError(
            f"num_train must be at most {available}, but is {num_train}; "
            f"the other {held_out} of {len(x)} rows are for validation and test."
        )
    order = _stratified_order(generator, y if task == "classification" else np.zeros(len(y)))
    test, val, train = np.split(order, [num_test, held_out])
    rows = [train[:num_train], val, test]
    if task == "classification":
        missing = np.setdiff1d(y, y[rows[0]])
        if len(missing):
            raise ValueError(
                f"class {missing[0]} has none of the {len(rows[0])} training points "
                f"and {np.sum(y == missing[0])} of all {len(y)}; use more points or drop it."
            )
    return standardized(
        [x[i] for i in rows],
        [y[i] for i in rows],
        task=task,
        class_names=class_names,
        **description,
    )


def _stratified_order(generator: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Return a random order of the rows in which every prefix has each class in proportion.

    The members of a class, shuffled, are spread evenly over (0, 1) with jitter, and rows are sorted
    by that position. Any split sizes work, also with classes of one or two members (for which
    scikit-learn's stratified split raises), and shorter training sets are prefixes of longer ones.
    """
    shuffled = generator.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        jitter = generator.uniform(size=len(members))
        position[members] = (np.arange(len(members)) + jitter) / len(members)
    return np.argsort(position)


def standardized(
    x: Sequence[np.ndarray],
    y: Sequence[np.ndarray],
    *,
    name: str,
    task: str,
    class_names: Sequence[str] = (),
    feature_names: Sequence[str] | None = None,
    target_name: str = "y",
    noise_scale: float | None = None,
    image_shape: tuple[int, int] | None = None,
) -> Dataset:
    """Return the dataset of raw (training, validation, test) arrays, in float64 up to here."""
    d = x[0].shape[1]
    x_mean, varies = x[0].mean(axis=0), np.ptp(x[0], axis=0) > 0
    x_scale = x[0].std(axis=0)
    if image_shape is not None:
        x_scale, varies = np.full(d, (x[0] - x_mean).std()), np.full(d, varies.any())
    x_scale = np.where(varies, x_scale, 1.0)
    x_train, x_val, x_test = ((values - x_mean) / x_scale for values in x)
    y_train, y_val, y_test = y
    mean, spread = 0.0, 1.0
    if task == "regression":
        # A constant target keeps scale 1: the Dataset refuses it with its own message.
        mean, spread = float(y_train.mean()), float(y_train.std()) if np.ptp(y_train) > 0 else 1.0
        y_train, y_val, y_test = ((values - mean) / spread for values in y)
    return Dataset(
        x_train=x_train,
        y_train=y_train,
        x_val=x_val,
        y_val=y_val,
        x_test=x_test,
        y_test=y_test,
        x_mean=x_mean,
        x_scale=x_scale,
        name=name,
        task=task,
        class_names=tuple(class_names),
        feature_names=tuple(feature_names or (f"x{i}" for i in range(d))),
        target_name=target_name,
        target_mean=mean,
        target_scale=spread,
        noise_scale=None if noise_scale is None else noise_scale / spread,
        image_shape=image_shape,
    )
