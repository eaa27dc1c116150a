"""Which metrics and distances predictions have: metric functions bound to a `DataTree`.

Where the predictive distribution is known in closed form (group ``closed_form``) it is used
instead of draws. In classification distances are between predictive class probabilities; in
regression between the marginals of the latent function, noise excluded, because the common noise
would only blur them.
"""

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr

from ntkbayes.evaluation import distances, metrics
from ntkbayes.evaluation.storage import observations, pooled, probabilities

__all__ = [
    "distance_floor",
    "distance_measures",
    "gaussian_predictive",
    "measures",
    "predictive_draws",
    "predictive_interval",
]

_MOMENTS = ("mean", "variance")

Metric = Callable[[np.ndarray], np.ndarray]
"""From weights (… m) of the test points to values (…)."""


def measures(tree: xr.DataTree) -> dict[str, Metric]:
    """Metrics of one method's predictions by name, each a function of the weights alone."""
    if tree.attrs["task"] == "classification":
        return _classification_measures(tree)
    return _regression_measures(tree)


def distance_measures(tree: xr.DataTree, other: xr.DataTree) -> dict[str, Metric]:
    """Distances between two methods' predictions by name, each a function of the weights alone."""
    if tree.attrs["task"] == "classification":
        p, q = probabilities(tree).mean(axis=0), probabilities(other).mean(axis=0)
        return {
            "agreement": partial(distances.agreement, p, q),
            "total_variation": partial(distances.total_variation, p, q),
        }
    if _both_closed(tree, other):
        moments = (np.asarray(t["closed_form"][k]) for t in (tree, other) for k in _MOMENTS)
        return {"wasserstein_1": partial(distances.normal_wasserstein_1, *moments)}
    return {"wasserstein_1": partial(distances.wasserstein_1, pooled(tree), pooled(other))}


def distance_floor(tree: xr.DataTree, other: xr.DataTree) -> dict[str, float]:
    """Monte-Carlo floor of the distances that have one, by name; 0 between closed forms."""
    if tree.attrs["task"] == "classification":
        errors = (distances.mean_probability_error(t) for t in (tree, other))
        return {"total_variation": distances.total_variation_floor(*errors)}
    if _both_closed(tree, other):
        return {"wasserstein_1": 0.0}
    errors = (distances.quantile_error(t) for t in (tree, other))
    return {"wasserstein_1": distances.wasserstein_floor(*errors)}


def predictive_interval(tree: xr.DataTree, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Central interval (m c) of new observations, in closed form where there is one."""
    moments = gaussian_predictive(tree)
    if moments is not None:
        return metrics.normal_central_interval(*moments, level)
    return metrics.central_interval(predictive_draws(tree), level)


def gaussian_predictive(tree: xr.DataTree) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and variance (m c) of new observations, noise included, if known in closed form."""
    if "closed_form" not in tree.children:
        return None
    noise_variance = json.loads(tree.attrs["likelihood"])["noise_variance"]
    closed = tree["closed_form"]
    return np.asarray(closed["mean"]), np.asarray(closed["variance"]) + noise_variance


def predictive_draws(tree: xr.DataTree) -> np.ndarray:
    """Draws of new observations (s m c), noise included, also for c = 1."""
    draws = pooled(tree, "posterior_predictive/y")
    return draws.reshape(*draws.shape[:2], -1)


def _classification_measures(tree: xr.DataTree) -> dict[str, Metric]:
    draws, y = probabilities(tree), observations(tree)
    p = draws.mean(axis=0)
    return {
        "accuracy": partial(metrics.accuracy, p, y),
        "nll": partial(metrics.mixture_nll, pooled(tree, "log_likelihood/y")),
        "brier": partial(metrics.brier, p, y),
        "ece": partial(metrics.ece, p, y),
        "predictive_entropy": partial(metrics.predictive_entropy, p),
        "mutual_information": partial(metrics.mutual_information, draws),
    }


def _regression_measures(tree: xr.DataTree) -> dict[str, Metric]:
    y, moments, draws = observations(tree), gaussian_predictive(tree), predictive_draws(tree)
    if moments is not None:
        bound = {
            "rmse": partial(metrics.rmse, moments[0], y),
            "nll": partial(metrics.normal_nll, *moments, y),
            "crps": partial(metrics.normal_crps, *moments, y),
        }
    else:
        bound = {
            "rmse": partial(metrics.rmse, pooled(tree).mean(axis=0), y),
            "nll": partial(metrics.mixture_nll, pooled(tree, "log_likelihood/y")),
            "crps": partial(metrics.crps, draws, y),
        }
    for level in (50, 90, 95):
        lower, upper = predictive_interval(tree, level / 100)
        bound[f"coverage_{level}"] = partial(metrics.coverage, lower, upper, y)
        bound[f"width_{level}"] = partial(metrics.interval_width, lower, upper)
    return bound


def _both_closed(tree: xr.DataTree, other: xr.DataTree) -> bool:
    return "closed_form" in tree.children and "closed_form" in other.children
