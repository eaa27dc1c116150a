"""Checks of predictions that were made elsewhere; each returns the checked array."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ntkbayes._arrays import one_hot
from ntkbayes._checks import (
    check_at_least,
    check_distinct,
    check_finite,
    check_not_empty,
    check_text,
    checked_texts,
)
from ntkbayes._types import AnyArray, Array, Float
from ntkbayes.evaluation.metrics.inputs import check_labels, checked_distributions
from ntkbayes.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood

__all__ = [
    "as_array",
    "check_chains",
    "checked_ids",
    "checked_inputs",
    "checked_latent",
    "checked_moments",
    "checked_names",
    "checked_probabilities",
    "checked_stats",
    "class_targets",
    "num_classes",
    "pool_chains",
    "storable",
]


def num_classes(likelihood: Likelihood) -> int:
    """Return the number of classes; 0 for a regression."""
    classes = isinstance(likelihood, Bernoulli | Categorical)
    return max(likelihood.num_outputs, 2) if classes else 0


def class_targets(likelihood: Likelihood, y: AnyArray) -> Float[Array, "m c"]:
    """Return targets (m c) of class indices (m,); other than in training one class is enough."""
    labels, c = np.asarray(y), num_classes(likelihood)
    check_not_empty("y", labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"y must hold integer class indices of shape (m,), but has shape {labels.shape} and "
            f"dtype {labels.dtype}; {_label_remedy(labels, c)}."
        )
    check_labels(labels, c)
    targets = labels[:, None] if likelihood.num_outputs == 1 else one_hot(labels, c)
    return jnp.asarray(targets, dtype=jnp.result_type(float))


def _label_remedy(labels: np.ndarray, num_classes: int) -> str:
    """Say how to make class indices of labels in another form."""
    if labels.ndim == 2 and labels.shape[1] == num_classes > 1:
        return "pass y.argmax(axis=1) if its rows are one-hot"
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "pass y[:, 0]"
    if labels.dtype.kind in "UTSO":
        return "pass np.unique(y, return_inverse=True)[1] if the classes are in sorted order"
    return "use y.astype(int) if they are class indices"


def as_array(name: str, values: Any) -> np.ndarray:
    """Return numbers as an array: of lists, and of tensors that record gradients, too."""
    detached = values.detach().cpu() if hasattr(values, "detach") else values
    try:
        array = np.asarray(detached)
    except ValueError:
        raise ValueError(f"{name} must be an array, but its rows differ in length.") from None
    if array.dtype.kind == "O":
        raise ValueError(f"{name} must hold numbers, but is a {type(values).__name__} of objects.")
    return array


def pool_chains(
    name: str, values: AnyArray, num_chains: int, *, axes: tuple[str, str]
) -> tuple[np.ndarray, int]:
    """Return draws (s m c) and their number of chains, from (s m c) or (chain draw m c)."""
    if values.ndim == 3:
        return np.asarray(values), num_chains
    if values.ndim != 4:
        raise ValueError(
            f"{name} must have shape (draws, {', '.join(axes)}), or (chains, draws, "
            f"{', '.join(axes)}), but has {tuple(values.shape)}."
        )
    if num_chains not in (1, len(values)):
        raise ValueError(
            f"num_chains must be the length of the first axis of {name}, {len(values)}, but is "
            f"{num_chains} (shape {tuple(values.shape)})."
        )
    return np.asarray(values).reshape(-1, *values.shape[2:]), len(values)


def check_chains(num_draws: int, num_chains: int) -> None:
    """Raise `ValueError` unless every chain has the same number of draws."""
    check_at_least("num_chains", num_chains, 1)
    if num_draws % num_chains:
        raise ValueError(
            f"num_draws must be a multiple of the {num_chains} chains, but is {num_draws}; "
            f"{num_draws - num_draws % num_chains or num_chains} would do."
        )


def checked_latent(latent: AnyArray, shape: tuple[int, ...]) -> np.ndarray:
    """Return draws (s m c) in single or double precision, for targets of the shape (m c)."""
    values = _real("latent", latent)
    if values.ndim != 3 or values.shape[1:] != shape:
        raise ValueError(
            f"latent must have shape (s, {shape[0]}, {shape[1]}), which is (draws, points, "
            f"outputs), but has {values.shape}."
        )
    check_not_empty("latent", values)
    check_finite("latent", values)
    return values


def checked_probabilities(values: np.ndarray) -> np.ndarray:
    """Return class probabilities (s m c), as `checked_distributions`, in the precision they have.

    Raises
    ------
    ValueError
        If there are fewer than two classes, or a row is no distribution: its sum may be off by
        1e-3, as half precision and three printed digits leave it.
    """
    p = _real("probabilities", values)
    check_not_empty("probabilities", p)
    if p.shape[-1] < 2:
        raise ValueError(
            f"probabilities must have a column for each of two or more classes, but has shape "
            f"{p.shape}; with p that of class 1, pass np.stack([1 - p, p], axis=-1)."
        )
    return checked_distributions("probabilities", p, tolerance=1e-3)


def checked_inputs(x: AnyArray, num_points: int) -> np.ndarray:
    """Return inputs as one row of features per point."""
    inputs = storable(x)
    if inputs.ndim == 0 or len(inputs) != num_points:
        raise ValueError(
            f"x must have one row for each of the {num_points} points, but has shape "
            f"{inputs.shape}."
        )
    return inputs.reshape(num_points, -1)


def checked_stats(
    stats: Mapping[str, AnyArray], num_draws: int, num_chains: int
) -> dict[str, np.ndarray]:
    """Return statistics (s,) of the draws, from (s,) or (chain draw)."""
    shapes = ((num_draws,), (num_chains, num_draws // num_chains))
    arrays = {name: storable(values) for name, values in stats.items()}
    for name, values in arrays.items():
        if values.shape not in shapes:
            raise ValueError(
                f"stats[{name!r}] must hold one number per draw, shape {shapes[0]} or {shapes[1]}, "
                f"but has shape {values.shape}."
            )
    return {name: values.reshape(-1) for name, values in arrays.items()}


def checked_moments(
    likelihood: Likelihood, mean: AnyArray, variance: AnyArray, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return mean and variance (m c) of the latent function."""
    if not isinstance(likelihood, Gaussian):
        raise ValueError(
            f"closed_form is for a Gaussian likelihood, but this is {type(likelihood).__name__}: "
            "leave it out."
        )
    moments = {name: _real(name, v) for name, v in (("mean", mean), ("variance", variance))}
    for name, values in moments.items():
        if values.shape != shape:
            raise ValueError(f"closed_form {name} must have shape {shape}, but has {values.shape}.")
        check_finite(f"closed_form {name}", values)
    smallest, largest = moments["variance"].min(), moments["variance"].max()
    # A variance of zero comes out of a subtraction with rounding of either sign.
    if smallest < -np.sqrt(np.finfo(moments["variance"].dtype).eps) * max(largest, 1):
        raise ValueError(f"closed_form variance must be nonnegative, but holds {smallest}.")
    return moments


def checked_names(names: Sequence[str] | AnyArray | None, length: int) -> list[str]:
    """Return names of classes or targets as text; none for None."""
    if names is None:
        return []
    texts = checked_texts("output_names", names, wanted="names of classes or targets")
    if len(texts) != length:
        raise ValueError(
            f"output_names must hold one name per class or target, {length}, but holds "
            f"{len(texts)}: {', '.join(texts)}."
        )
    return list(texts)


def checked_ids(ids: Sequence[Any] | AnyArray | None, num_points: int) -> np.ndarray:
    """Return identifiers of the points, whole numbers or text; row numbers for None."""
    if ids is None:
        return np.arange(num_points)
    values = np.asarray(ids)
    if values.dtype == object and all(isinstance(value, str) for value in values.flat):
        values = values.astype(str)  # text of a data frame
    if values.shape != (num_points,) or values.dtype.kind not in "iuU":
        raise ValueError(
            f"obs_ids must hold a whole number or text for each of the {num_points} points, but "
            f"has shape {values.shape} and dtype {values.dtype}."
        )
    for value in values if values.dtype.kind == "U" else ():
        check_text("obs_ids", value)
    check_distinct("obs_ids", values.tolist())
    return values


def _real(name: str, array: AnyArray) -> np.ndarray:
    """Return real numbers in single or double precision."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must hold real numbers, but has dtype {array.dtype}.")
    return storable(array)


def storable(array: AnyArray) -> np.ndarray:
    """Return an array that netCDF has a type for: half precision becomes single."""
    values = np.asarray(array)
    half = jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.itemsize < 4
    return values.astype(np.float32) if half else values
