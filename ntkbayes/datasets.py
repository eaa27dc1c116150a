"""Datasets: data split into training, validation and test points, in standardised units.

Every dataset is made in the same steps: check the raw arrays, split them, standardise them with
statistics of the training split alone (the other splits stay unseen), and return a `Dataset`,
which checks itself. `load_dataset` gives the bundled and synthetic ones, `make_dataset` does the
same to a user's own arrays.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import sklearn.datasets
from jaxtyping import Shaped

from ntkbayes._checks import check_at_least, check_choice, check_finite
from ntkbayes._types import AnyArray, Array, Float, typed

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "load_dataset", "make_dataset"]

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
        _check_num_points(split, len(x))
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


class DatasetInfo(eqx.Module):
    """What is known about a dataset before it is loaded.

    Attributes
    ----------
    description
        One line: what a row is and what is to be predicted.
    task
        "classification" or "regression".
    source
        Where the data come from.
    """

    description: str = eqx.field(static=True)
    task: str = eqx.field(static=True)
    source: str = eqx.field(static=True)


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        "8 × 8 images of handwritten digits, 10 classes", "classification", "UCI, by scikit-learn"
    ),
    "breast_cancer": DatasetInfo(
        "30 measurements of cell nuclei, malignant or benign",
        "classification",
        "UCI Wisconsin diagnostic, by scikit-learn",
    ),
    "wine": DatasetInfo(
        "13 chemical measurements of wines from 3 cultivars",
        "classification",
        "UCI, by scikit-learn",
    ),
    "iris": DatasetInfo(
        "4 measurements of flowers of 3 species", "classification", "Fisher, by scikit-learn"
    ),
    "moons": DatasetInfo(
        "2-D points on two interleaved half circles", "classification", "synthetic, scikit-learn"
    ),
    "diabetes": DatasetInfo(
        "10 measurements of patients, disease progression after one year",
        "regression",
        "Efron et al., by scikit-learn",
    ),
    "sine": DatasetInfo(
        "1-D sinusoid with noise, no training inputs in the middle", "regression", "synthetic"
    ),
}
"""Names that `load_dataset` knows."""


@typed
def load_dataset(name: str, *, seed: int = 0, num_train: int | None = None) -> Dataset:
    """Load a bundled or synthetic dataset, split and standardised; nothing is downloaded.

    Bundled classification data are split in proportion to the classes. "digits" has 500 test, 297
    validation and 1,000 training points, the other bundled ones 20 % test, 20 % validation and 60 %
    training points. A smaller `num_train` takes a prefix of the training points, in proportion to
    the classes; the test and validation points, in original units, do not depend on it.

    "moons" has 100 training, 100 validation and 300 test points, coordinate noise 0.2 [1]_.
    "sine" is y = sin 2x + ε, ε ~ N(0, 0.1²), with 40 training and 40 validation inputs uniform on
    [−2, −0.75] ∪ [0.75, 2] and 200 test inputs on an even grid over [−3, 3]: data, the gap between
    them and extrapolation. Models that are certain in the gap are the failure it shows [2]_.

    Inputs are centred and divided by the standard deviation per feature (a constant feature is
    only centred). Images are centred per pixel but divided by one number, the root mean square of
    all centred training pixels: pixels at the border are nearly constant, and dividing by their own
    tiny deviation would make a rare stroke at test time larger than the rest of the picture.

    Parameters
    ----------
    name
        One of `DATASETS`.
    seed
        Draws the split, or the points of a synthetic dataset; zero or positive.
    num_train
        Number of training points; None for the dataset's own.

    Raises
    ------
    ValueError
        If the name is unknown, the seed is negative, or there cannot be `num_train` training points
        (at least two, and enough that every class has one).

    References
    ----------
    .. [1] Pedregosa et al. 2011, Scikit-learn: Machine Learning in Python, JMLR 12.
    .. [2] Foong, Li, Hernández-Lobato, Turner 2019, 'In-Between' Uncertainty in Bayesian Neural
       Networks, arXiv:1906.11537.
    """
    check_choice("dataset", name, DATASETS)
    check_at_least("seed", seed, 0)
    if num_train is not None:
        check_at_least("num_train", num_train, 2)
    if name == "moons":
        return _moons(seed, 100 if num_train is None else num_train)
    if name == "sine":
        return _sine(seed, 40 if num_train is None else num_train)
    return _bundled(name, seed, num_train)


@typed
def make_dataset(
    x: Shaped[AnyArray, "n d"],
    y: Shaped[AnyArray, " rows"],
    *,
    task: str,
    name: str = "custom",
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    target_name: str = "y",
    image_shape: tuple[int, int] | None = None,
    seed: int = 0,
    test_fraction: float | int = 0.2,
    validation_fraction: float | int = 0.2,
) -> Dataset:
    """Make a dataset of one's own arrays: check, split and standardise as `load_dataset` does.

    Classification data are split in proportion to the classes.

    Parameters
    ----------
    x
        Inputs, numbers in any unit.
    y
        Class labels (integers or text), or real targets for regression.
    task
        "classification" or "regression".
    name
        Name of the dataset in tables and files.
    class_names
        Names of the classes; y must then hold their indices. By default the sorted labels.
    feature_names
        Names of the columns of x; by default "x0", "x1", …
    target_name
        Name of y.
    image_shape
        Height and width if the rows of x are pictures; they are then divided by one common scale.
    seed
        Draws the split; zero or positive.
    test_fraction, validation_fraction
        Fractions of the rows, each rounded to whole points; the rest is the training split.

    Raises
    ------
    ValueError
        If x or y holds NaN or infinity or is no number or label, their rows differ, a split would
        be empty, only one class occurs or one has no training point, or the regression target is
        constant.
    """
    check_choice("task", task, TASKS)
    check_at_least("seed", seed, 0)
    inputs = _numbers("x", x)
    if len(inputs) != len(y):
        raise ValueError(f"y must have one entry per row of x ({len(inputs)}), but has {len(y)}.")
    if task == "classification":
        targets, class_names = _class_indices(np.asarray(y), class_names)
    else:
        targets = _numbers("y", y)
        if class_names:
            raise ValueError("class_names must be left out for regression.")
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    for argument, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ValueError(f"{argument} must lie between 0 and 1, but is {fraction}.")
    return _split_dataset(
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


def _bundled(name: str, seed: int, num_train: int | None) -> Dataset:
    # In original units where scikit-learn offers them: its scaled diabetes data saw the test rows.
    options = {"scaled": False} if name == "diabetes" else {}
    bunch: Any = getattr(sklearn.datasets, f"load_{name}")(**options)
    n, task = len(bunch.data), DATASETS[name].task
    classes = bunch.target_names if task == "classification" else ()
    return _split_dataset(
        np.random.default_rng(seed),
        bunch.data,
        bunch.target,
        num_test=500 if name == "digits" else round(0.2 * n),
        num_val=297 if name == "digits" else round(0.2 * n),
        num_train=num_train,
        name=name,
        task=task,
        class_names=[str(c) for c in classes],
        feature_names=[str(f) for f in bunch.feature_names],
        target_name="progression" if name == "diabetes" else "class",
        image_shape=(8, 8) if name == "digits" else None,
    )


def _moons(seed: int, num_train: int) -> Dataset:
    # One stream per split: the test points stay the same whatever num_train is.
    states = np.random.SeedSequence(seed).generate_state(3)
    splits = [
        sklearn.datasets.make_moons(size, noise=0.2, random_state=int(state))
        for size, state in zip((num_train, 100, 300), states, strict=True)
    ]
    return _standardized(
        [np.asarray(x) for x, _ in splits],
        [np.asarray(y) for _, y in splits],
        name="moons",
        task="classification",
        class_names=("upper", "lower"),
        target_name="moon",
    )


def _sine(seed: int, num_train: int) -> Dataset:
    generators = np.random.default_rng(seed).spawn(3)
    x_train, x_val = (
        generator.choice([-1, 1], size=size) * generator.uniform(0.75, 2.0, size=size)
        for generator, size in zip(generators[:2], (num_train, 40), strict=True)
    )
    x = [x_train, x_val, np.linspace(-3.0, 3.0, 200)]
    noise_scale = 0.1
    return _standardized(
        [values[:, None] for values in x],
        [
            np.sin(2 * values) + noise_scale * generator.standard_normal(len(values))
            for generator, values in zip(generators, x, strict=True)
        ],
        name="sine",
        task="regression",
        noise_scale=noise_scale,
    )


def _numbers(name: str, values: AnyArray) -> np.ndarray:
    array = np.asarray(values)
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
        # NaN is the one value that differs from itself.
        missing = [i for i, label in enumerate(labels) if label is None or label != label]
        if missing:
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


def _split_dataset(
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
        _check_num_points(split, size)
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
    return _standardized(
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


def _standardized(
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


def _check_num_points(split: str, size: int) -> None:
    if size < 1:
        kind = {"train": "training", "val": "validation", "test": "test"}[split]
        raise ValueError(f"x_{split} has zero {kind} points; at least one is needed.")
