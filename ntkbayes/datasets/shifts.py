"""Test inputs that are not like the training inputs, at five severities.

A shift changes the test inputs x and leaves the training and validation points as they are. Five
severities from mild to hard, and the model trained on clean data alone, are the convention of
Hendrycks & Dietterich (2019); Ovadia et al. (2019) measure by it what uncertainty is worth. Their
levels are for pictures of 32 or more pixels a side; those of `SHIFTS` were chosen by looking at
8 × 8 digits, and are in units that carry over to larger pictures. What is random is drawn once and
scaled by the severity, so that a curve over severities follows the same points.

Pictures are shifted in original intensities, clipped to the range that the training pictures have,
and standardised again with the statistics of the training split. What enters from outside a
turned or moved picture has the lowest intensity of that range.

References
----------
Hendrycks & Dietterich (2019), arXiv 1903.12261, section 4 (corruptions at five severities) · Ovadia
et al. (2019), arXiv 1906.02530 (uncertainty under dataset shift) · Hein, Andriushchenko &
Bitterwolf (2019), arXiv 1812.05720 (certainty far from the data).
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from ntkbayes._checks import check_at_least, check_choice, check_seed
from ntkbayes._types import Array, Float, typed
from ntkbayes.datasets.catalog import SHIFTS
from ntkbayes.datasets.loading import sine_function
from ntkbayes.datasets.record import Dataset

__all__ = ["away_inputs", "shift"]

NUM_SEVERITIES = 5

Bounds = tuple[float, float]
"""Lowest and highest intensity."""


@typed
def shift(data: Dataset, kind: str, severity: int, *, seed: int = 0) -> Dataset:
    """Return the dataset with its test points shifted; the other splits stay.

    Labels and targets stay with their points: a turned digit is the same digit, and a patient
    measured by a drifted instrument is the same patient. Only "away" makes points of its own, with
    targets from the true function plus noise, because no label there can be had otherwise; for
    data without a known function see `away_inputs`.

    Parameters
    ----------
    data
        The dataset.
    kind
        One of `SHIFTS`, which says what the data must be and how far each severity goes.
    severity
        1 (mild) to 5 (hard); 0 returns `data` as it is.
    seed
        Draws directions and noise; zero or positive. The same at all severities.

    Returns
    -------
    Dataset
        Named such as "digits/rotation-3".

    Raises
    ------
    ValueError
        If the kind is unknown or does not fit the data, or severity or seed is out of range.

    Examples
    --------
    >>> noisy = nb.shift(data, "feature-noise", 3)
    >>> noisy.name
    'moons/feature-noise-3'
    >>> np.array_equal(noisy.x_train, data.x_train), np.array_equal(noisy.x_test, data.x_test)
    (True, False)
    """
    check_choice("shift", kind, SHIFTS)
    _check_severity(severity, minimum=0)
    check_seed("seed", seed)
    _check_fits(data, kind)
    if severity == 0:
        return data
    generator = np.random.default_rng(seed)
    name, level = f"{data.name}/{kind}-{severity}", SHIFTS[kind].levels[severity - 1]
    if kind == "away":
        x = away_inputs(data, severity, num_points=len(data.x_test), seed=seed)
        y = _sine_targets(data, x, *generator.spawn(1))
        return dataclasses.replace(data, x_test=x, y_test=y, name=name)
    if SHIFTS[kind].needs == "pictures":
        x = _shifted_pictures(data, _PICTURES[kind], level, generator)
    else:
        x = _FEATURES[kind](data, level, generator)
    return dataclasses.replace(data, x_test=x, name=name)


@typed
def away_inputs(
    data: Dataset, severity: int, *, num_points: int = 300, seed: int = 0
) -> Float[Array, "m d"]:
    """Return inputs (m d) in a shell around the training inputs, standardised and without labels.

    Points r R u, where R is the largest distance of a training input from their mean, u is uniform
    on the unit sphere and r uniform between the levels of "away" in `SHIFTS` at the last severity
    (1 before the first) and at this one. So every point is at least (r − 1) R from every training
    input. Nobody knows the labels there; that a model is uncertain is all that can be asked, with
    `ntkbayes.evaluation.detection_table`.

    Parameters
    ----------
    data
        Any dataset but pictures, whose neighbourhood in this sense holds no pictures.
    severity
        1 (near) to 5 (far).
    num_points
        Number of points m.
    seed
        Draws directions and radii; zero or positive. The same at all severities.

    Raises
    ------
    ValueError
        If the data are pictures, or severity, num_points or seed is out of range.

    Examples
    --------
    >>> x_away = nb.away_inputs(data, 5, num_points=100)
    >>> largest = np.linalg.norm(data.x_train, axis=1).max()
    >>> x_away.shape, bool((np.linalg.norm(x_away, axis=1) > 2 * largest).all())
    ((100, 2), True)
    """
    _check_severity(severity, minimum=1)
    check_at_least("num_points", num_points, 1)
    check_seed("seed", seed)
    if data.image_shape is not None:
        raise ValueError(
            f"away_inputs needs data that are no pictures, but {data.name!r} is; "
            "use hold_out_classes or shift."
        )
    generator = np.random.default_rng(seed)
    normal = generator.standard_normal((num_points, data.num_features))
    direction = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    inner, outer = (1.0, *SHIFTS["away"].levels)[severity - 1 : severity + 1]
    radius = inner + (outer - inner) * generator.uniform(size=(num_points, 1))
    largest = np.linalg.norm(np.asarray(data.x_train, dtype=float), axis=1).max()
    return jnp.asarray(largest * radius * direction, dtype=data.x_train.dtype)


def _check_severity(severity: int, *, minimum: int) -> None:
    if not minimum <= severity <= NUM_SEVERITIES:
        raise ValueError(
            f"severity must lie between {minimum} and {NUM_SEVERITIES}, but is {severity}."
        )


def _check_fits(data: Dataset, kind: str) -> None:
    needs = SHIFTS[kind].needs
    # Only synthetic data know their noise, so nobody's own data named "sine" pass for them.
    is_sine = data.name == "sine" and data.noise_scale is not None
    fits = {
        "pictures": data.image_shape is not None,
        "features": data.image_shape is None,
        "sine": is_sine,
    }
    if fits[needs]:
        return
    if needs == "sine":
        raise ValueError(
            f"shift {kind!r} needs the true function, which is known of 'sine' alone, but the data "
            f"are {data.name!r}; away_inputs gives such points without targets."
        )
    others = [name for name, info in SHIFTS.items() if fits[info.needs]]
    wanted = "pictures" if needs == "pictures" else "data that are no pictures"
    raise ValueError(
        f"shift {kind!r} needs {wanted}, but {data.name!r} is not that; "
        f"choose from {', '.join(others)}."
    )


def _shifted_pictures(
    data: Dataset,
    shifted: Callable[[np.ndarray, float, Bounds, np.random.Generator], np.ndarray],
    level: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Shift the test pictures in original intensities, clip, and standardise again."""
    x_mean, x_scale = (np.asarray(v, dtype=float) for v in (data.x_mean, data.x_scale))
    train, test = (
        np.asarray(x, dtype=float) * x_scale + x_mean for x in (data.x_train, data.x_test)
    )
    bounds = (float(train.min()), float(train.max()))
    pictures = shifted(test.reshape(-1, *(data.image_shape or ())), level, bounds, generator)
    return (np.clip(pictures, *bounds).reshape(test.shape) - x_mean) / x_scale


def _rotated(
    pictures: np.ndarray, level: float, bounds: Bounds, generator: np.random.Generator
) -> np.ndarray:
    return scipy.ndimage.rotate(
        pictures, level, axes=(1, 2), reshape=False, mode="grid-constant", cval=bounds[0]
    )


def _translated(
    pictures: np.ndarray, level: float, bounds: Bounds, generator: np.random.Generator
) -> np.ndarray:
    angles = generator.uniform(0, 2 * np.pi, len(pictures))
    distance = level * min(pictures.shape[1:3])
    offsets = distance * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    offsets = np.pad(offsets, [(0, 0), (0, pictures.ndim - 3)])  # channels stay
    moved = [
        scipy.ndimage.shift(picture, offset, mode="grid-constant", cval=bounds[0])
        for picture, offset in zip(pictures, offsets, strict=True)
    ]
    return np.stack(moved)


def _blurred(
    pictures: np.ndarray, level: float, bounds: Bounds, generator: np.random.Generator
) -> np.ndarray:
    width = level * min(pictures.shape[1:3])
    return scipy.ndimage.gaussian_filter(pictures, width, axes=(1, 2), mode="nearest")


def _noisy(
    pictures: np.ndarray, level: float, bounds: Bounds, generator: np.random.Generator
) -> np.ndarray:
    noise = generator.standard_normal(pictures.shape)
    return pictures + level * (bounds[1] - bounds[0]) * noise


def _inverted(
    pictures: np.ndarray, level: float, bounds: Bounds, generator: np.random.Generator
) -> np.ndarray:
    return (1 - level) * pictures + level * (sum(bounds) - pictures)


def _moved_features(data: Dataset, level: float, generator: np.random.Generator) -> np.ndarray:
    sign = generator.choice([-1.0, 1.0], size=data.num_features)
    return np.asarray(data.x_test) + level * sign * _deviations(data)


def _noisy_features(data: Dataset, level: float, generator: np.random.Generator) -> np.ndarray:
    noise = generator.standard_normal(data.x_test.shape)
    return np.asarray(data.x_test) + level * noise * _deviations(data)


def _deviations(data: Dataset) -> np.ndarray:
    """Training standard deviations (d,): 1, but 0 where a feature is constant."""
    return np.std(np.asarray(data.x_train, dtype=float), axis=0)


def _sine_targets(data: Dataset, x: Array, generator: np.random.Generator) -> np.ndarray:
    true = sine_function(np.asarray(data.original_inputs(x))[:, 0])
    noise = (data.noise_scale or 0.0) * generator.standard_normal(len(x))
    return (true - data.target_mean) / data.target_scale + noise


_PICTURES = {
    "rotation": _rotated,
    "translation": _translated,
    "blur": _blurred,
    "noise": _noisy,
    "inversion": _inverted,
}
_FEATURES = {"feature-shift": _moved_features, "feature-noise": _noisy_features}
