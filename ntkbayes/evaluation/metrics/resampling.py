"""Weights of test points: uniform, and those of bootstrap resamples."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import scipy.stats

from ntkbayes._checks import check_at_least
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.inputs import check_weights

__all__ = [
    "bootstrap_weights",
    "error_quantile",
    "share_error",
    "spread",
    "two_sided_p_value",
    "uniform_weights",
    "weighted",
    "weighted_mean",
]

NUM_RESAMPLES = 1000


def weighted[**P, R](function: Callable[P, R]) -> Callable[..., R]:
    """Decorate a function of points and their weights: check it as `typed`, fill in weights.

    Weights that are left out, or None, are uniform over the points: over the axis that the
    signature calls by the same letter.
    """
    checked, signature = typed(function), inspect.signature(function)
    axes = {
        name: _axis_name(parameter)
        for name, parameter in signature.parameters.items()
        if name.startswith("weights")
    }
    places = {letter: _place(signature, letter) for letter in axes.values()}

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> R:
        try:
            bound = signature.bind_partial(*args, **kwargs)
        except TypeError:
            return checked(*args, **kwargs)  # which says what is wrong
        for name, letter in axes.items():
            argument, axis = places[letter]
            if bound.arguments.get(name) is None:
                shape = np.shape(bound.arguments.get(argument, ()))
                bound.arguments[name] = uniform_weights(shape[axis] if len(shape) >= -axis else 1)
        return checked(*bound.args, **bound.kwargs)

    wrapped.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=[
            parameter.replace(default=None, annotation=parameter.annotation | None)
            if name in axes
            else parameter
            for name, parameter in signature.parameters.items()
        ]
    )
    return wrapped


def _axis_name(parameter: inspect.Parameter) -> str:
    """Return the letter of the points' axis, the last one of weights such as "*b m"."""
    return parameter.annotation.dim_str.split()[-1]


def _place(signature: inspect.Signature, letter: str) -> tuple[str, int]:
    """Find the first parameter with an axis of that letter, and which it is."""
    for name, parameter in signature.parameters.items():
        dims = getattr(parameter.annotation, "dim_str", "").split()
        if letter in dims and not name.startswith("weights"):
            return name, dims.index(letter) - len(dims)
    raise TypeError(f"no parameter has an axis {letter}.")


@typed
def uniform_weights(num_points: int) -> Float[np.ndarray, "m"]:
    """Return 1/m for each of m test points."""
    return np.full(num_points, 1 / num_points)


@typed
def bootstrap_weights(
    num_points: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "b m"]:
    """Draw b weightings of m test points: how often a resample with replacement has each, over m.

    Parameters
    ----------
    num_points
        Number of test points m.
    num_resamples
        Number of bootstrap resamples b. The standard error has a relative error of 1/√(2b).
    seed
        Seed; the same seed and m give the same resamples, which pairs methods.

    Raises
    ------
    ValueError
        If there are no points or fewer than two resamples.
    """
    check_at_least("num_points", num_points, 1)
    check_at_least("num_resamples", num_resamples, 2)
    counts = np.random.default_rng(seed).multinomial(
        num_points, uniform_weights(num_points), size=num_resamples
    )
    return counts / num_points


def weighted_mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return Σ_i w_i v_i for every row of weights, which are checked."""
    check_weights(weights)
    return np.asarray(weights.astype(float, copy=False) @ values.astype(float, copy=False))


def spread(resampled: np.ndarray, num_units: int) -> float:
    """Return the standard error: deviation over bootstrap resamples (b,) of a metric.

    NaN where it rests on fewer than two independent units, whose resamples are all alike.
    Resamples in which the metric is not defined (NaN) are left out; one that is infinite leaves no
    error.
    """
    if np.isinf(resampled).any():
        return np.nan
    known = resampled[~np.isnan(resampled)]
    return float(known.std(ddof=1)) if num_units > 1 and len(known) > 1 else np.nan


def share_error(share: float, num_points: int) -> float:
    """Return the part of a share's standard error that resamples do not see, in quadrature.

    √[p̃ (1 − p̃) / (m + 4) − p (1 − p) / m]₊ with p̃ = (m p + 2) / (m + 4): what adding two of each
    kind (Agresti & Coull 1998, doi:10.1080/00031305.1998.10480550) adds to the error. 20 right
    answers of 20, whose resamples are all alike, leave 0.06, 19 of 20 leave 0.04, 10 of 20 nothing.
    """
    smoothed = (num_points * share + 2) / (num_points + 4)
    seen = max(share * (1 - share), 0.0) / num_points
    return float(np.sqrt(max(smoothed * (1 - smoothed) / (num_points + 4) - seen, 0.0)))


def error_quantile(num_units: float, *, level: float = 0.95) -> float:
    """Return how many standard errors make a two-sided interval of a level.

    Student's t with one degree of freedom less than there are independent units (points, batches
    of points, or pairs): 1.96 for many, 2.26 for ten. NaN for fewer than two.
    """
    return float(scipy.stats.t.ppf((1 + level) / 2, num_units - 1)) if num_units > 1 else np.nan


def two_sided_p_value(difference: float, error: float, num_units: int) -> float:
    """P(|T| > |difference| / error) of Student's t, degrees of freedom as in `error_quantile`.

    1 if the difference is 0 at every point; NaN where there is no error, or an error of 0 (all
    points alike) that cannot be true.
    """
    if not error > 0:
        return 1.0 if difference == 0 and error == 0 else np.nan
    return float(2 * scipy.stats.t.sf(abs(difference) / error, num_units - 1))
