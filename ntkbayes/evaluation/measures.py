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

from ntkbayes.evaluation import distances, metrics, mixtures
from ntkbayes.evaluation.storage import observations, pooled, probabilities

__all__ = [
    "distance_floor",
    "distance_measures",
    "measures",
    "predictive_mixture",
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


def predictive_mixture(tree: xr.DataTree) -> tuple[np.ndarray, np.ndarray]:
    """Means (s m c) and variance (m c), noise included, of the components of `mixtures`.

    One component where mean and variance are known in closed form, else one per draw.

    Raises
    ------
    ValueError
        If the observation noise is not Gaussian.
    """
    likelihood = json.loads(tree.attrs["likelihood"])
    if "noise_variance" not in likelihood:
        raise ValueError(
            "metrics of a regression need Gaussian noise, but the likelihood of "
            f"{tree.attrs['method']} is {likelihood['name']}."
        )
    noise_variance = likelihood["noise_variance"]
    if "closed_form" in tree.children:
        mean, variance = (np.asarray(tree["closed_form"][k], dtype=float) for k in _MOMENTS)
        return mean[None], variance + noise_variance
    latent = pooled(tree).astype(float)
    return latent, np.full(latent.shape[1:], noise_variance)


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
    y, mixture = observations(tree), predictive_mixture(tree)
    log_density = mixtures.log_density(*mixture, y).sum(axis=-1)
    bound: dict[str, Metric] = {
        "rmse": partial(metrics.rmse, mixture[0].mean(axis=0), y),
        "nll": partial(metrics.mixture_nll, log_density),
        "crps": partial(metrics.crps, *mixture, y),
    }
    central_level = mixtures.central_level(*mixture, y)
    for percent in (50, 90, 95):
        level = percent / 100
        interval = mixtures.central_interval(*mixture, level)
        bound[f"coverage_{percent}"] = partial(metrics.coverage, central_level, level)
        bound[f"width_{percent}"] = partial(metrics.interval_width, *interval)
    return bound


def _both_closed(tree: xr.DataTree, other: xr.DataTree) -> bool:
    return "closed_form" in tree.children and "closed_form" in other.children
