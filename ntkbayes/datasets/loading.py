"""The bundled and the synthetic datasets; nothing is downloaded."""

from typing import Any

import numpy as np
import sklearn.datasets

from ntkbayes._checks import check_at_least, check_choice, check_seed
from ntkbayes._types import typed
from ntkbayes.datasets.catalog import DATASETS
from ntkbayes.datasets.record import Dataset
from ntkbayes.datasets.splitting import split_dataset, standardized
from ntkbayes.kernels.memory import check_bytes

__all__ = ["load_dataset", "sine_function"]


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

    Examples
    --------
    >>> data = nb.load_dataset("moons", num_train=20)
    >>> data.x_train.shape, data.x_val.shape, data.x_test.shape
    ((20, 2), (100, 2), (300, 2))
    >>> data.class_names
    ('upper', 'lower')
    """
    check_choice("dataset", name, DATASETS)
    check_seed("seed", seed)
    if num_train is not None:
        check_at_least("num_train", num_train, 2)
        if name in ("moons", "sine"):  # of which there are as many as one likes
            copies = 4 * 8 * num_train  # of two coordinates
            check_bytes("num_train points", copies, remedy="choose a smaller num_train")
    if name == "moons":
        return _moons(seed, 100 if num_train is None else num_train)
    if name == "sine":
        return _sine(seed, 40 if num_train is None else num_train)
    return _bundled(name, seed, num_train)


def _bundled(name: str, seed: int, num_train: int | None) -> Dataset:
    # In original units where scikit-learn offers them: its scaled diabetes data saw the test rows.
    options = {"scaled": False} if name == "diabetes" else {}
    bunch: Any = getattr(sklearn.datasets, f"load_{name}")(**options)
    n, task = len(bunch.data), DATASETS[name].task
    classes = bunch.target_names if task == "classification" else ()
    return split_dataset(
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
        target_names=["progression" if name == "diabetes" else "class"],
        image_shape=(8, 8) if name == "digits" else None,
    )


def _moons(seed: int, num_train: int) -> Dataset:
    # One stream per split: the test points stay the same whatever num_train is.
    states = np.random.SeedSequence(seed).generate_state(3)
    splits = [
        sklearn.datasets.make_moons(size, noise=0.2, random_state=int(state))
        for size, state in zip((num_train, 100, 300), states, strict=True)
    ]
    return standardized(
        [np.asarray(x) for x, _ in splits],
        [np.asarray(y) for _, y in splits],
        name="moons",
        task="classification",
        class_names=("upper", "lower"),
        target_names=["moon"],
    )


def _sine(seed: int, num_train: int) -> Dataset:
    generators = np.random.default_rng(seed).spawn(3)
    x_train, x_val = (
        generator.choice([-1, 1], size=size) * generator.uniform(0.75, 2.0, size=size)
        for generator, size in zip(generators[:2], (num_train, 40), strict=True)
    )
    x = [x_train, x_val, np.linspace(-3.0, 3.0, 200)]
    noise_scale = 0.1
    return standardized(
        [values[:, None] for values in x],
        [
            sine_function(values) + noise_scale * generator.standard_normal(len(values))
            for generator, values in zip(generators, x, strict=True)
        ],
        name="sine",
        task="regression",
        noise_scale=noise_scale,
    )


def sine_function(x: np.ndarray) -> np.ndarray:
    """Return sin 2x, the true function of "sine", in original units."""
    return np.sin(2 * x)
