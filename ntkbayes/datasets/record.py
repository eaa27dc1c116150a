"""The record of a dataset, which checks itself."""

import html
import math
from collections.abc import Sequence
from numbers import Integral

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from ntkbayes._checks import (
    check_choice,
    check_finite,
    check_kept,
    check_unmasked,
    checked_texts,
)
from ntkbayes._types import AnyArray, Array, Float, typed
from ntkbayes.datasets.values import is_constant

__all__ = ["TASKS", "Dataset", "check_image_shape", "check_num_points", "check_varies"]


TASKS = ("classification", "regression", "counts")


def _as_float(name: str, values: AnyArray) -> Array:
    """Return an array in JAX's floating type, which keeps its numbers finite."""
    check_unmasked(name, values)
    dtype = jnp.result_type(float)
    if np.asarray(values).dtype.kind == "f" and np.isfinite(values).all():
        check_kept(name, values, dtype)
    return jnp.asarray(values, dtype=dtype)


class Dataset(eqx.Module):
    """Data in three splits, standardised with statistics of the training split.

    `load_dataset` and `make_dataset` make them; made by hand, arrays are taken as they are, and
    what is left out is derived from them.

    Parameters
    ----------
    x_train, x_test
        Inputs (n d), one row per point, standardised.
    y_train, y_test
        Class indices (n,), counts (n,), or regression targets (n,) or (n k) in standardised target
        units.
    task
        "classification", "regression" or "counts".
    x_val, y_val
        The validation split; by default it has no points.
    name
        Name of the dataset.
    class_names
        Names of the classes, in the order of their indices; by default the indices. Empty for
        regression and counts.
    feature_names
        Names of the d input features; by default "x0", "x1", …
    target_names
        Names of the k targets, or of the one; by default "y", or "y0", "y1", …
    x_mean, x_scale
        Shift and scale (d,) of the inputs: x_original = x · x_scale + x_mean. By default 0 and 1.
    target_mean, target_scale
        Mean and standard deviation of the training targets in original units, numbers or, of
        several targets, (k,): y_original = y · target_scale + target_mean. By default 0 and 1, as
        always for classes and counts.
    noise_scale
        Standard deviation of the observation noise in standardised target units, where the data
        are synthetic and it is known.
    image_shape
        Height and width (pixels), and channels if there are several, if a row of x is a picture,
        row by row.

    Raises
    ------
    ValueError
        If the training or the test split is empty, arrays of a split disagree in rows or features,
        a value is not finite, hidden by a mask, or too large for JAX's floating type, the training
        split holds one class only or a constant target, a class index has no name, a count is
        negative, names repeat, or a scale is not positive.

    Examples
    --------
    >>> data.task, data.num_classes, data.feature_names
    ('classification', 2, ('x0', 'x1'))
    >>> np.allclose(data.x_train.mean(axis=0), 0), np.allclose(data.x_train.std(axis=0), 1)
    (True, True)
    >>> x, y = np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 1])
    >>> mine = nb.Dataset(x_train=x, y_train=y, x_test=x, y_test=y, task="classification")
    >>> mine.class_names, len(mine.x_val)
    (('0', '1'), 0)
    """

    x_train: Float[Array, "n d"]
    y_train: Shaped[Array, "n *k"]
    x_val: Float[Array, "v d"]
    y_val: Shaped[Array, "v *k"]
    x_test: Float[Array, "m d"]
    y_test: Shaped[Array, "m *k"]
    x_mean: Float[Array, "d"]
    x_scale: Float[Array, "d"]
    target_mean: float | Float[np.ndarray, "k"]
    target_scale: float | Float[np.ndarray, "k"]
    name: str = eqx.field(static=True)
    task: str = eqx.field(static=True)
    class_names: tuple[str, ...] = eqx.field(static=True)
    feature_names: tuple[str, ...] = eqx.field(static=True)
    target_names: tuple[str, ...] = eqx.field(static=True)
    noise_scale: float | None = eqx.field(static=True)
    image_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        *,
        x_train: AnyArray,
        y_train: AnyArray,
        x_test: AnyArray,
        y_test: AnyArray,
        task: str,
        x_val: AnyArray | None = None,
        y_val: AnyArray | None = None,
        name: str = "custom",
        class_names: Sequence[str] | AnyArray | None = None,
        feature_names: Sequence[str] | AnyArray | None = None,
        target_names: Sequence[str] | AnyArray | None = None,
        x_mean: AnyArray | None = None,
        x_scale: AnyArray | None = None,
        target_mean: float | AnyArray | None = None,
        target_scale: float | AnyArray | None = None,
        noise_scale: float | None = None,
        image_shape: tuple[int, ...] | None = None,
    ):
        check_choice("task", task, TASKS)
        if (x_val is None) != (y_val is None):
            raise ValueError("x_val and y_val must be given together, or neither.")
        given = {
            "x_train": x_train, "y_train": y_train,
            "x_test": x_test, "y_test": y_test,
            "x_val": np.zeros((0, *np.shape(x_train)[1:])) if x_val is None else x_val,
            "y_val": np.asarray(y_train)[:0] if y_val is None else y_val,
        }  # fmt: skip
        for argument, values in given.items():
            is_input = argument.startswith("x")
            setattr(self, argument, (_as_float if is_input else _as_targets)(argument, values))
        self.name, self.task, self.noise_scale = name, task, noise_scale
        d = self.x_train.shape[-1] if self.x_train.ndim else 0
        self.x_mean = _as_float("x_mean", np.zeros(d) if x_mean is None else x_mean)
        self.x_scale = _as_float("x_scale", np.ones(d) if x_scale is None else x_scale)
        several = self.y_train.shape[1:]
        self.target_mean = _number_or_row(np.zeros(several) if target_mean is None else target_mean)
        self.target_scale = _number_or_row(
            np.ones(several) if target_scale is None else target_scale
        )
        self.class_names = self._class_names(class_names)
        self.feature_names = _names("feature_names", feature_names, _numbered("x", d))
        default = ("y",) if not several else _numbered("y", several[0])
        self.target_names = _names("target_names", target_names, default)
        self.image_shape = None if image_shape is None else tuple(image_shape)

    def _class_names(self, names: Sequence[str] | AnyArray | None) -> tuple[str, ...]:
        if names is not None:
            return checked_texts("class_names", names, wanted="names of classes")
        integers = [y for y in (self.y_train, self.y_val, self.y_test) if y.size]
        if self.task != "classification" or not jnp.issubdtype(self.y_train.dtype, jnp.integer):
            return ()
        return tuple(str(i) for i in range(max(int(y.max()) for y in integers) + 1))

    def __check_init__(self):
        for split in ("train", "val", "test"):
            self._check_split(split, getattr(self, f"x_{split}"), getattr(self, f"y_{split}"))
        if self.x_mean.shape != (self.num_features,) or self.x_scale.shape != (self.num_features,):
            raise ValueError(
                f"x_mean and x_scale must have shape ({self.num_features},), "
                f"but have {self.x_mean.shape} and {self.x_scale.shape}."
            )
        several = self.y_train.shape[1:]
        for argument in ("x_mean", "x_scale", "target_mean", "target_scale"):
            value = getattr(self, argument)
            check_finite(argument, value)
            if argument.endswith("scale") and not np.all(np.asarray(value) > 0):
                raise ValueError(f"{argument} must be positive, but holds {np.min(value)}.")
            if argument.startswith("target") and np.shape(value) not in ((), several):
                raise ValueError(
                    f"{argument} must be a number for each target, shape {several}, but has shape "
                    f"{np.shape(value)}."
                )
        num_targets = several[0] if several else 1
        if len(self.target_names) != num_targets:
            raise ValueError(
                f"target_names must hold one name for each of the {num_targets} targets, but holds "
                f"{len(self.target_names)}."
            )
        if self.image_shape is not None:
            check_image_shape(self.image_shape, self.num_features)
        self._check_varies()

    def _check_varies(self) -> None:
        """Raise `ValueError` if there is nothing to learn."""
        y = np.asarray(self.y_train)
        if self.task == "classification":
            first, *others = np.unique(y)
            if not others:
                raise ValueError(
                    f"y_train holds one class only ({self.class_names[first]!r}); "
                    "at least two are needed."
                )
            return
        rounding = np.finfo(y.dtype).eps if y.dtype.kind == "f" else 0.0
        check_varies(y.astype(float), rounding, self.target_names)

    def _check_split(self, split: str, x: Array, y: Array) -> None:
        d = self.num_features
        if x.ndim != 2 or x.shape[1] != d:
            raise ValueError(
                f"x_{split} must have shape (rows, {d}), one column per feature name, "
                f"but has {tuple(x.shape)}."
            )
        wanted = (x.shape[0], *(self.y_train.shape[1:] if self.task == "regression" else ()))
        if y.shape != wanted or len(wanted) > 2:
            raise ValueError(
                f"y_{split} must have shape {wanted[:2]}, one entry per row of x_{split}, "
                f"but has {tuple(y.shape)}."
            )
        if split != "val":
            check_num_points(split, len(x))
        check_finite(f"x_{split}", x)
        check_finite(f"y_{split}", y)
        integers, c = jnp.issubdtype(y.dtype, jnp.integer), len(self.class_names)
        if integers != (self.task != "regression"):
            wanted = {
                "classification": "class indices",
                "regression": "real values",
                "counts": "whole numbers",
            }
            raise ValueError(
                f"y_{split} must hold {wanted[self.task]} for {self.task}, but has {y.dtype}."
            )
        if self.task == "classification" and y.size and not 0 <= y.min() <= y.max() < c:
            raise ValueError(
                f"y_{split} must hold class indices 0 to {c - 1}, one per class name, "
                f"but holds {y.min()} to {y.max()}."
            )
        if self.task == "counts" and y.size and y.min() < 0:
            raise ValueError(f"y_{split} must hold counts, but holds {y.min()}.")

    def __repr__(self) -> str:
        """Say in a line what the data are."""
        facts = "; ".join(f"{name}: {value}" for name, value in self._facts().items())
        return f"Dataset({self.name!r}; {facts})"

    def _repr_html_(self) -> str:
        """Show the same as a table, in notebooks."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table><caption>{html.escape(self.name)}</caption>{rows}</table>"

    def _facts(self) -> dict[str, str]:
        sizes = [len(x) for x in (self.x_train, self.x_val, self.x_test)]
        words = ("training", "validation", "test")
        kind = {
            "classification": f"classification, {len(self.class_names)} classes",
            "regression": f"regression of {_few(self.target_names)}",
            "counts": f"counts, {_few(self.target_names)}",
        }
        features = f"{self.num_features} ({_few(self.feature_names)})"
        if self.image_shape is not None:
            features = f"pictures of {' × '.join(map(str, self.image_shape))}"
        return {
            "task": kind[self.task],
            **({"classes": _few(self.class_names)} if self.class_names else {}),
            "points": ", ".join(f"{n} {word}" for n, word in zip(sizes, words, strict=True)),
            "features": features,
        }

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
        return _as_float("x", x) * self.x_scale[None, :] + self.x_mean[None, :]

    def original_targets(self, y: AnyArray) -> np.ndarray:
        """Return standardised targets y, (m,) or (m k), or draws (… m k), in original units."""
        check_unmasked("y", y)
        return np.asarray(y) * self.target_scale + self.target_mean

    @typed
    def images(self, x: Float[AnyArray, "m d"]) -> Float[Array, "m h w *k"]:
        """Return standardised inputs x (m d) as pictures, in original pixel intensities.

        Raises
        ------
        ValueError
            If the rows of this dataset are not pictures.
        """
        if self.image_shape is None:
            raise ValueError(f"images needs a dataset of pictures, but {self.name!r} has none.")
        return self.original_inputs(x).reshape(-1, *self.image_shape)


def _few(names: tuple[str, ...]) -> str:
    """Up to five names, and that there are more."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def check_varies(y: np.ndarray, rounding: np.ndarray | float, names: Sequence[str]) -> None:
    """Raise `ValueError` if training targets (n,) or (n k) do not vary by more than rounding."""
    constant = np.atleast_1d(is_constant(y, rounding))
    if constant.any():
        which = f" (target {names[int(np.argmax(constant))]!r})" if y.ndim > 1 else ""
        raise ValueError(f"y_train is constant{which}; a target must vary over its rows.")


def check_image_shape(shape: tuple[int, ...], num_features: int) -> None:
    """Raise `ValueError` unless rows of that many features are pictures of the shape."""
    whole = all(isinstance(side, Integral) and side > 0 for side in shape)
    if len(shape) not in (2, 3) or not whole:
        raise ValueError(
            f"image_shape must be height and width, and channels if there are several, all "
            f"positive, but is {shape}."
        )
    if math.prod(shape) != num_features:
        raise ValueError(
            f"image_shape must hold {num_features} pixels, one per feature, but is {shape}."
        )


def _as_targets(name: str, values: AnyArray) -> Array:
    check_unmasked(name, values)
    array = np.asarray(values)
    return _as_float(name, array) if array.dtype.kind == "f" else jnp.asarray(array)


def _number_or_row(values: float | AnyArray) -> float | np.ndarray:
    return float(values) if np.ndim(values) == 0 else np.asarray(values, dtype=float)


def _names(
    name: str, values: Sequence[str] | AnyArray | None, default: tuple[str, ...]
) -> tuple[str, ...]:
    return default if values is None else checked_texts(name, values, wanted="names")


def _numbered(prefix: str, length: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i}" for i in range(length))


def check_num_points(split: str, size: int) -> None:
    """Raise `ValueError` if `split` (train, val or test) has no points."""
    if size < 1:
        kind = {"train": "training", "val": "validation", "test": "test"}[split]
        raise ValueError(f"x_{split} has zero {kind} points; at least one is needed.")
