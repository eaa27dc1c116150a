"""Classes that a model never saw in training."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ntkbayes._checks import check_choice
from ntkbayes._types import Array, Float, typed
from ntkbayes.datasets.record import Dataset
from ntkbayes.datasets.splitting import standardized

__all__ = ["hold_out_classes"]


@typed
def hold_out_classes(data: Dataset, classes: Sequence[str]) -> tuple[Dataset, Float[Array, "k d"]]:
    """Leave classes out of all splits, and return their test inputs apart.

    A model of the remaining classes can only be wrong about the others; a useful uncertainty tells
    the two sets of inputs apart, which `ntkbayes.evaluation.detection_table` measures. Inputs are
    standardised again, with the remaining training points alone: the held-out classes stay unseen
    there too.

    Parameters
    ----------
    data
        Classification data.
    classes
        Names of the classes to hold out, such as ["5", "6", "7", "8", "9"] of "digits".

    Returns
    -------
    data
        The remaining classes, renumbered in their order, named such as "digits/without-5-6-7-8-9".
    x_unseen
        Test inputs (k d) of the held-out classes, in the new dataset's standardised units.

    Raises
    ------
    ValueError
        If the task is regression, `classes` is empty or holds an unknown name, fewer than two
        classes remain, a split has no point of those, or the held-out classes have no test points.

    Examples
    --------
    >>> digits = nb.load_dataset("digits", num_train=100)
    >>> without, x_unseen = nb.hold_out_classes(digits, ["8", "9"])
    >>> without.name, without.num_classes, x_unseen.shape
    ('digits/without-8-9', 8, (99, 64))
    """
    held_out = _class_indices(data, classes)
    kept = np.setdiff1d(np.arange(data.num_classes), held_out)
    if len(kept) < 2:
        raise ValueError(
            f"classes must leave at least two of the {data.num_classes} classes of {data.name!r}, "
            f"but leaves {len(kept)}."
        )
    rows = [_original_rows(data, split) for split in ("train", "val", "test")]
    remains = [np.isin(y, kept) for _, y in rows]
    x_test, unseen = rows[2][0], ~remains[2]
    names = [data.class_names[i] for i in held_out]
    if not unseen.any():
        raise ValueError(f"x_test has no points of the held-out classes {', '.join(names)}.")
    changed = standardized(
        [x[mask] for (x, _), mask in zip(rows, remains, strict=True)],
        [np.searchsorted(kept, y[mask]) for (_, y), mask in zip(rows, remains, strict=True)],
        name=f"{data.name}/without-{'-'.join(names)}",
        task=data.task,
        class_names=[data.class_names[i] for i in kept],
        feature_names=data.feature_names,
        target_names=data.target_names,
        image_shape=data.image_shape,
    )
    x_unseen = (x_test[unseen] - np.asarray(changed.x_mean)) / np.asarray(changed.x_scale)
    return changed, jnp.asarray(x_unseen, dtype=changed.x_test.dtype)


def _class_indices(data: Dataset, classes: Sequence[str]) -> list[int]:
    """Return the indices of classes by their names, sorted."""
    if data.task != "classification":
        raise ValueError(f"hold_out_classes needs classes, but {data.name!r} is {data.task} data.")
    if isinstance(classes, str) or not classes:
        raise ValueError(f"classes must be a list of class names, but is {classes!r}.")
    for name in classes:
        check_choice("class", name, data.class_names)
    return sorted({data.class_names.index(name) for name in classes})


def _original_rows(data: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one split's inputs in original units, in float64, and its class indices."""
    x = np.asarray(getattr(data, f"x_{split}"), dtype=float)
    y = np.asarray(getattr(data, f"y_{split}"))
    return x * np.asarray(data.x_scale) + np.asarray(data.x_mean), y
