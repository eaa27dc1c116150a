"""From raw arrays to a `Dataset`: splits in proportion to the classes, and standard units."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ntkbayes._arrays import more_digits
from ntkbayes.datasets.record import Dataset, check_num_points, check_varies
from ntkbayes.datasets.values import is_constant

__all__ = ["dataset_of_rows", "drawn_rows", "split_dataset", "standardized"]


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
    rows = np.arange(len(x))
    train, val, test = drawn_rows(generator, y, rows, task=task, num_test=num_test, num_val=num_val)
    return dataset_of_rows(
        x, y, (train[:num_train], val, test), task=task, class_names=class_names, **description
    )


def drawn_rows(
    generator: np.random.Generator,
    y: np.ndarray,
    rows: np.ndarray,
    *,
    task: str,
    num_test: int,
    num_val: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw test and validation points among rows; what remains is for training.

    In proportion to the classes, if there are any. Where nothing is drawn, rows keep their order.
    """
    if num_test == num_val == 0:
        return rows, rows[:0], rows[:0]
    labels = y[rows] if task == "classification" else np.zeros(len(rows))
    order = rows[_stratified_order(generator, labels)]
    test, val, train = np.split(order, [num_test, num_test + num_val])
    return train, val, test


def dataset_of_rows(
    x: np.ndarray,
    y: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    task: str,
    class_names: Sequence[str],
    **description: Any,
) -> Dataset:
    """Standardise training, validation and test rows, if every class has a training point."""
    if task == "classification":
        labels = y[np.concatenate(rows)]
        missing = np.setdiff1d(labels, y[rows[0]])
        if len(missing) and missing[0] < len(class_names):
            raise ValueError(
                f"class {class_names[missing[0]]} has none of the {len(rows[0])} training points "
                f"and {np.sum(labels == missing[0])} of all {len(labels)}; use more points or "
                "drop it."
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
    target_names: Sequence[str] | None = None,
    noise_scale: float | None = None,
    image_shape: tuple[int, ...] | None = None,
    rounding: np.ndarray | float = 0.0,
    target_rounding: np.ndarray | float = 0.0,
) -> Dataset:
    """Return the dataset of raw (training, validation, test) arrays, in float64 up to here.

    A column that does not vary by more than rounding, which is that of the type it came in, is
    only centered.
    """
    (x_train, x_val, x_test), x_mean, x_scale = _in_standard_units(
        "x", x, rounding, one_scale=image_shape is not None
    )
    _check_units(x_mean, x_scale)
    (y_train, y_val, y_test), mean, spread = y, None, None
    if task == "regression":
        check_varies(y_train, target_rounding, target_names or _numbered(y_train))
        (y_train, y_val, y_test), mean, spread = _in_standard_units("y", y, target_rounding)
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
        class_names=class_names,
        feature_names=feature_names,
        target_names=target_names,
        target_mean=mean,
        target_scale=spread,
        noise_scale=None if noise_scale is None or spread is None else noise_scale / float(spread),
        image_shape=image_shape,
    )


def _in_standard_units(
    name: str,
    splits: Sequence[np.ndarray],
    rounding: np.ndarray | float,
    *,
    one_scale: bool = False,
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return (values − mean) / scale of all splits, mean and scale of the first.

    Constant columns have scale 1. Powers of two are taken out first, which changes no digit, so
    that squares neither overflow nor vanish.
    """
    train = splits[0]
    constant = is_constant(train, rounding)
    exponent = np.frexp(np.abs(train).max(axis=0))[1]
    if one_scale:
        constant, exponent = np.broadcast_to(constant.all(), constant.shape), exponent.max()
    small = np.ldexp(train, -exponent)
    mean = small.mean(axis=0)
    scale = np.broadcast_to((small - mean).std(), mean.shape) if one_scale else small.std(axis=0)
    scale = np.where(constant, np.ldexp(1.0, -exponent), scale)
    with np.errstate(over="ignore"):  # refused below
        standard = [(np.ldexp(values, -exponent) - mean) / scale for values in splits]
    for values in standard:
        if not np.isfinite(values).all():
            raise ValueError(
                f"{name} holds values further from the training points than float64 can tell: "
                "rescale it or drop them."
            )
    return standard, np.ldexp(mean, exponent), np.ldexp(scale, exponent)


def _numbered(y: np.ndarray) -> list[str]:
    return [f"y{i}" for i in range(y[0].size)]


def _check_units(x_mean: np.ndarray, x_scale: np.ndarray) -> None:
    """Raise `ValueError` unless JAX's floating type holds the units that inputs come in."""
    dtype = jnp.result_type(float)
    limits = jnp.finfo(dtype)
    largest, smallest = np.maximum(np.abs(x_mean), x_scale).max(), x_scale.min()
    if largest > limits.max or smallest < limits.tiny:
        extreme = largest if largest > limits.max else smallest
        raise ValueError(
            f"x has a column with values of about {extreme:.3g}, which {dtype.name} does not hold: "
            f"{more_digits(dtype)}rescale it."
        )
