"""Datasets of one's own arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkbayes._checks import check_choice, check_not_empty, check_seed, checked_texts
from ntkbayes._types import AnyArray, typed
from ntkbayes.datasets.labels import class_indices, label_array
from ntkbayes.datasets.record import TASKS, Dataset, check_num_points
from ntkbayes.datasets.splitting import dataset_of_rows, drawn_rows
from ntkbayes.datasets.values import check_same_index, column_rounding, number_array

__all__ = ["make_dataset"]

DEFAULT_FRACTION = 0.2
"""Of the rows, for test points and for validation points where neither is given."""


@typed
def make_dataset(
    x: Any,
    y: Any,
    *,
    task: str,
    test: Any = None,
    validation: Any = None,
    name: str = "custom",
    class_names: Any = None,
    feature_names: Any = None,
    target_names: Any = None,
    image_shape: tuple[int, ...] | None = None,
    seed: int = 0,
    test_fraction: float | None = None,
    validation_fraction: float | None = None,
) -> Dataset:
    """Make a dataset of one's own arrays: check, split and standardise as `load_dataset` does.

    Classification data are split in proportion to the classes. A split that its authors have fixed
    is given as arrays, or as rows of x; whatever the test and validation points, inputs and targets
    are standardised by the training points alone. Rows of which none is drawn keep their order.

    Parameters
    ----------
    x
        Inputs, numbers in any unit: (n d) as an array, a list of rows or a data frame, or pictures
        (n h w) or (n h w k) with k channels, which become rows. Its rows and those of y belong
        together by position.
    y
        Class labels (n,), whole numbers or text; real targets (n,), or (n k) of several, for
        regression; or counts (n,), which are not standardised.
    task
        "classification", "regression" or "counts".
    test, validation
        The points of this split: a pair such as ``(x_test, y_test)``, like x and y, or an array of
        rows of x (numbers, or a mask). By default they are drawn.
    name
        Name of the dataset in tables and files.
    class_names
        Names of the classes, a list, an array or an index of text; y must then hold their indices.
        By default the sorted labels.
    feature_names
        Names of the columns of x; by default those of a data frame, else "x0", "x1", …
    target_names
        Name of y, or of each of several targets; by default those of a data frame or series.
    image_shape
        Height and width, and channels if there are several, if the rows of x are pictures; they are
        then divided by one common scale. Of pictures that come as such it is known.
    seed
        Draws the split; zero or positive.
    test_fraction, validation_fraction
        Fractions of the rows of x, each rounded to whole points; the rest is the training split. By
        default 0.2 unless the split is given. ``validation_fraction=0`` leaves out validation.

    Raises
    ------
    ValueError
        If the task is unknown, a fraction or the seed is out of range or given beside the split it
        would draw, x or y has another shape, holds NaN or infinity, is hidden in part by a mask or
        is no number or label, labels are numbers and text, their rows differ, rows are in two
        splits, a split would be empty, only one class occurs or one has no training point, names
        repeat or do not fit, class names come with a regression, or the target is constant.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> y = np.where(x[:, 0] > 0, "high", "low")
    >>> mine = nb.make_dataset(x, y, task="classification")
    >>> mine.class_names, mine.x_train.shape
    (('high', 'low'), (30, 3))
    >>> fixed = nb.make_dataset(
    ...     x[:40], y[:40], test=(x[40:], y[40:]), validation_fraction=0, task="classification"
    ... )
    >>> len(fixed.x_train), len(fixed.x_val), len(fixed.x_test)
    (40, 0, 10)
    """
    check_choice("task", task, TASKS)
    check_seed("seed", seed)
    if class_names is not None:
        if task != "classification":
            raise ValueError(f"class_names must be left out for {task}.")
        class_names = checked_texts("class_names", class_names, wanted="names of classes")
    table = _table(x, y, task, {"test": test, "validation": validation})
    targets = table.targets
    if task == "classification":
        targets, class_names = class_indices(targets, class_names)
    shape = table.image_shape
    if shape is not None and image_shape is not None and tuple(image_shape) != shape:
        raise ValueError(
            f"image_shape must be that of the pictures, {shape}, but is {image_shape}."
        )
    num_drawn = {
        split: _num_drawn(f"{split}_fraction", fraction, table.num_own, split in table.rows)
        for split, fraction in (("test", test_fraction), ("validation", validation_fraction))
    }
    generator, own = np.random.default_rng(seed), table.rows["training"]
    check_num_points("train", len(own) - sum(num_drawn.values()))
    train, val, test_rows = drawn_rows(
        generator, targets, own, task=task, num_test=num_drawn["test"],
        num_val=num_drawn["validation"],
    )  # fmt: skip
    return dataset_of_rows(
        table.inputs,
        targets,
        (train, table.rows.get("validation", val), table.rows.get("test", test_rows)),
        name=name,
        task=task,
        class_names=class_names or (),
        feature_names=_feature_names(x, feature_names),
        target_names=_target_names(y, target_names),
        image_shape=shape if image_shape is None else image_shape,
        rounding=column_rounding(x),
        target_rounding=column_rounding(y),
    )


@dataclass(frozen=True)
class _Table:
    """All rows that were given, and which of them are fixed to a split.

    `rows` holds those of "training", from which points may still be drawn, and of "test" and
    "validation" where they are given; `num_own` is the number of rows of x itself.
    """

    inputs: np.ndarray
    targets: np.ndarray
    image_shape: tuple[int, ...] | None
    rows: dict[str, np.ndarray]
    num_own: int


def _table(x: Any, y: Any, task: str, fixed: dict[str, Any]) -> _Table:
    """Check x, y and what is given of other splits, and put their rows below each other."""
    inputs, image_shape = _inputs("x", x)
    check_same_index("x", x, "y", y)
    parts = [(inputs, _targets("y", y, task, len(inputs)))]
    rows, taken, total = {}, np.zeros(len(inputs), bool), len(inputs)
    for split, given in fixed.items():
        if given is None:
            continue
        if not _is_pair(given):
            rows[split] = _row_numbers(split, given, len(inputs))
            if taken[rows[split]].any():
                raise ValueError("test and validation must have no row of x in common.")
            taken[rows[split]] = True
            continue
        more, shape = _inputs(f"x of {split}", given[0])
        check_same_index(f"x of {split}", given[0], f"y of {split}", given[1])
        _check_like_x(split, x, given[0], (inputs.shape[1], image_shape), (more.shape[1], shape))
        parts.append((more, _targets(f"y of {split}", given[1], task, len(more))))
        rows[split] = np.arange(total, total + len(more))
        total += len(more)
    for split, numbers in rows.items():
        check_num_points(split[:3] if split == "validation" else split, len(numbers))
    rows["training"] = np.flatnonzero(~taken)
    all_inputs, all_targets = (np.concatenate(each) for each in zip(*_alike(parts), strict=True))
    return _Table(all_inputs, all_targets, image_shape, rows, len(inputs))


def _is_pair(given: Any) -> bool:
    """Whether a split is given as inputs and observations, and not as rows of x."""
    return isinstance(given, tuple | list) and len(given) == 2 and np.ndim(given[0]) > 0


def _inputs(name: str, values: Any) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Return inputs (n d), and the shape of a row if they are pictures."""
    array = number_array(name, values)
    check_not_empty(name, array)
    if array.ndim not in (2, 3, 4):
        raise ValueError(
            f"{name} must have shape (n, d), or (n, h, w) or (n, h, w, k) of pictures, but has "
            f"{array.shape}."
        )
    shape = array.shape[1:] if array.ndim > 2 else None
    if array.ndim == 4 and array.shape[1] in (1, 3, 4) and array.shape[3] not in (1, 2, 3, 4):
        raise ValueError(
            f"{name} must have its channels last, (n, h, w, k), but has {array.shape}, which looks "
            "like (n, k, h, w): use np.moveaxis(x, 1, -1)."
        )
    return array.reshape(len(array), -1), shape


def _targets(name: str, values: Any, task: str, num_rows: int) -> np.ndarray:
    """Return labels (n,), counts (n,), or regression targets (n,) or (n k)."""
    y = label_array(name, values) if task == "classification" else number_array(name, values)
    several = task == "regression" and y.ndim == 2 and y.shape[1] > 1
    if y.shape[:1] != (num_rows,) or not (several or y.ndim == 1):
        column = "; flatten it" if y.size == num_rows else ""
        wanted = f"({num_rows},)" + (f" or ({num_rows}, k)" if task == "regression" else "")
        raise ValueError(
            f"{name} must have shape {wanted}, one entry per row of x, but has {y.shape}{column}."
        )
    if task != "counts":
        return y
    if y.min() < 0 or np.any(y != np.round(y)) or y.max() >= 2.0**31:
        raise ValueError(f"{name} must hold counts: whole numbers from 0 to 2³¹ − 1.")
    return y.astype(np.int64)


def _row_numbers(split: str, given: Any, num_rows: int) -> np.ndarray:
    """Return the rows of x that numbers or a mask say."""
    rows = np.asarray(given)
    if rows.ndim == 1 and rows.dtype.kind == "b" and len(rows) == num_rows:
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(
            f"{split} must be a pair (inputs, observations), or rows of x: an array of whole "
            f"numbers, or a mask of length {num_rows}; but is {type(given).__name__} of shape "
            f"{rows.shape} and dtype {rows.dtype}."
        )
    if len(rows) and not (0 <= rows.min() <= rows.max() < num_rows):
        raise ValueError(
            f"{split} must hold rows of x, 0 to {num_rows - 1}, but holds {rows.min()} to "
            f"{rows.max()}."
        )
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"{split} must hold every row of x at most once.")
    return rows.astype(np.int64)


def _check_like_x(split: str, x: Any, other: Any, shape: Any, other_shape: Any) -> None:
    """Raise `ValueError` unless inputs of a split have the columns of x."""
    if shape != other_shape:
        sizes = [f"{d} columns" if s is None else f"pictures {s}" for d, s in (shape, other_shape)]
        raise ValueError(f"x of {split} must have {sizes[0]} as x, but has {sizes[1]}.")
    if hasattr(x, "columns") and hasattr(other, "columns"):
        names, others = (list(map(str, frame.columns)) for frame in (x, other))
        if names != others:
            first = next(
                i for i, pair in enumerate(zip(names, others, strict=True)) if len(set(pair)) > 1
            )
            raise ValueError(
                f"x of {split} must have the columns of x in the same order, but column {first} is "
                f"{others[first]!r} and not {names[first]!r}."
            )


def _alike(parts: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Check that observations of all splits are of one kind: labels all text or all numbers."""
    kinds = {"text" if y.dtype.kind == "U" else "numbers" for _, y in parts}
    shapes = {y.shape[1:] for _, y in parts}
    if len(kinds) > 1:
        raise ValueError("y must hold labels of one kind, but holds text in one split only.")
    if len(shapes) > 1:
        raise ValueError(
            f"y must have the same number of targets in all splits, but has {sorted(shapes)}."
        )
    return parts


def _num_drawn(argument: str, fraction: float | None, num_rows: int, is_given: bool) -> int:
    """Return how many points to draw for a split."""
    split = argument.removesuffix("_fraction")
    if is_given:
        if fraction is not None:
            raise ValueError(f"{argument} must be left out, as {split} is given.")
        return 0
    fraction = DEFAULT_FRACTION if fraction is None else fraction
    if not 0 <= fraction < 1:
        raise ValueError(f"{argument} must lie between 0 and 1, but is {fraction}.")
    number = round(fraction * num_rows)
    if split == "test" or fraction > 0:
        check_num_points("val" if split == "validation" else split, number)
    return number


def _feature_names(x: Any, names: Sequence[str] | AnyArray | None) -> Sequence[str] | None:
    if names is None and hasattr(x, "columns"):
        names = [str(column) for column in x.columns]
    return None if names is None else checked_texts("feature_names", names, wanted="column names")


def _target_names(y: Any, names: Any) -> Sequence[str] | None:
    if names is None:
        if hasattr(y, "columns"):
            return checked_texts("target_names", list(y.columns), wanted="names of targets")
        return None if getattr(y, "name", None) is None else [str(y.name)]
    names = [names] if isinstance(names, str) else names
    return checked_texts("target_names", names, wanted="names of targets")
