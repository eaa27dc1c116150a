"""The record of a dataset, which checks itself."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from ntkbayes._checks import check_choice, check_finite
from ntkbayes._types import AnyArray, Array, Float, typed

__all__ = ["TASKS", "Dataset", "check_num_points"]

TASKS = ("classification", "regression")


def _as_float(values: AnyArray) -> Array:
    return jnp.asarray(values, dtype=jnp.result_type(float))


class Dataset(eqx.Module):
    """Data in three splits, standardised with statistics of the training split.

    Attributes
    ----------
    x_train, x_val, x_test
        Inputs (n d), one row per point, standardised.
    y_train, y_val, y_test
        Class indices (n,), or regression targets (n,) in standardised target units.
    name
        Name of the dataset.
    task
        "classification" or "regression".
    class_names
        Names of the classes, in the order of their indices; empty for regression.
    feature_names
        Names of the d input features.
    target_name
        Name of the target.
    x_mean, x_scale
        Shift and scale (d,) of the inputs: x_original = x · x_scale + x_mean.
    target_mean, target_scale
        Mean and standard deviation of the training targets in original units:
        y_original = y · target_scale + target_mean. 0 and 1 for classification.
    noise_scale
        Standard deviation of the observation noise in standardised target units, where the data
        are synthetic and it is known.
    image_shape
        Height and width (pixels) if a row of x is a picture, row by row.

    Raises
    ------
    ValueError
        If a split is empty, its arrays disagree in rows or features, a value is not finite, the
        training split holds one class only or a constant regression target, or a class index has
        no name.

    Examples
    --------
    >>> data.task, data.num_classes, data.feature_names
    ('classification', 2, ('x0', 'x1'))
    >>> np.allclose(data.x_train.mean(axis=0), 0), np.allclose(data.x_train.std(axis=0), 1)
    (True, True)
    """

    x_train: Float[Array, "n d"] = eqx.field(converter=_as_float)
    y_train: Shaped[Array, "n"] = eqx.field(converter=jnp.asarray)
    x_val: Float[Array, "v d"] = eqx.field(converter=_as_float)
    y_val: Shaped[Array, "v"] = eqx.field(converter=jnp.asarray)
    x_test: Float[Array, "m d"] = eqx.field(converter=_as_float)
    y_test: Shaped[Array, "m"] = eqx.field(converter=jnp.asarray)
    x_mean: Float[Array, "d"] = eqx.field(converter=_as_float)
    x_scale: Float[Array, "d"] = eqx.field(converter=_as_float)
    name: str = eqx.field(static=True)
    task: str = eqx.field(static=True)
    class_names: tuple[str, ...] = eqx.field(static=True)
    feature_names: tuple[str, ...] = eqx.field(static=True)
    target_name: str = eqx.field(static=True)
    target_mean: float = eqx.field(static=True, default=0.0)
    target_scale: float = eqx.field(static=True, default=1.0)
    noise_scale: float | None = eqx.field(static=True, default=None)
    image_shape: tuple[int, int] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_choice("task", self.task, TASKS)
        for split in ("train", "val", "test"):
            self._check_split(split, getattr(self, f"x_{split}"), getattr(self, f"y_{split}"))
        if self.x_mean.shape != (self.num_features,) or self.x_scale.shape != (self.num_features,):
            raise ValueError(
                f"x_mean and x_scale must have shape ({self.num_features},), "
                f"but have {self.x_mean.shape} and {self.x_scale.shape}."
            )
        check_finite("x_mean", self.x_mean)
        check_finite("x_scale", self.x_scale)
        if self.image_shape is not None and np.prod(self.image_shape) != self.num_features:
            raise ValueError(
                f"image_shape must hold {self.num_features} pixels, one per feature, "
                f"but is {self.image_shape}."
            )
        first, *others = np.unique(self.y_train)
        if not others and self.task == "classification":
            raise ValueError(
                f"y_train holds one class only ({self.class_names[first]!r}); "
                "at least two are needed."
            )
        if not others and self.task == "regression":
            raise ValueError("y_train is constant; a regression target must vary over its rows.")

    def _check_split(self, split: str, x: Array, y: Array) -> None:
        d = self.num_features
        if x.ndim != 2 or x.shape[1] != d:
            raise ValueError(
                f"x_{split} must have shape (rows, {d}), one column per feature name, "
                f"but has {tuple(x.shape)}."
            )
        if y.shape != x.shape[:1]:
            raise ValueError(
                f"y_{split} must have shape ({x.shape[0]},), one entry per row of x_{split}, "
                f"but has {tuple(y.shape)}."
            )
        check_num_points(split, len(x))
        check_finite(f"x_{split}", x)
        check_finite(f"y_{split}", y)
        integers, c = jnp.issubdtype(y.dtype, jnp.integer), len(self.class_names)
        if integers != (self.task == "classification"):
            wanted = "class indices" if self.task == "classification" else "real values"
            raise ValueError(f"y_{split} must hold {wanted} for {self.task}, but has {y.dtype}.")
        if integers and not 0 <= y.min() <= y.max() < c:
            raise ValueError(
                f"y_{split} must hold class indices 0 to {c - 1}, one per class name, "
                f"but holds {y.min()} to {y.max()}."
            )

    @property
    def num_features(self) -> int:
        """Number of input features d."""
        return len(self.feature_names)

    @property
    def num_classes(self) -> int:
        """Number of classes c.

        Raises
        ------
        ValueError
            If the task is regression.
        """
        if self.task != "classification":
            raise ValueError(f"num_classes needs classes, but {self.name!r} is regression data.")
        return len(self.class_names)

    @typed
    def original_inputs(self, x: Float[AnyArray, "m d"]) -> Float[Array, "m d"]:
        """Return standardised inputs x (m d) in their original units."""
        return _as_float(x) * self.x_scale[None, :] + self.x_mean[None, :]

    @typed
    def images(self, x: Float[AnyArray, "m d"]) -> Float[Array, "m h w"]:
        """Return standardised inputs x (m d) as pictures, in original pixel intensities.

        Raises
        ------
        ValueError
            If the rows of this dataset are not pictures.
        """
        if self.image_shape is None:
            raise ValueError(f"images needs a dataset of pictures, but {self.name!r} has none.")
        return self.original_inputs(x).reshape(-1, *self.image_shape)


def check_num_points(split: str, size: int) -> None:
    """Raise `ValueError` if `split` (train, val or test) has no points."""
    if size < 1:
        kind = {"train": "training", "val": "validation", "test": "test"}[split]
        raise ValueError(f"x_{split} has zero {kind} points; at least one is needed.")
