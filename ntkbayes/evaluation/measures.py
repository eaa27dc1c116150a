"""Which metrics and distances predictions have: metric functions bound to a `DataTree`.

Where the predictive distribution is known in closed form (group ``closed_form``) it is used
instead of draws. In classification distances are between predictive class probabilities; in
regression between the marginals of the latent function, noise excluded, because the common noise
would only blur them.
"""

import json
from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
import xarray as xr

from ntkbayes.evaluation import distances, metrics, mixtures
from ntkbayes.evaluation.storage import observations, pooled, probabilities

__all__ = [
    "Marginals",
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


class Marginals:
    """What distances compare of one method's predictions, each part computed once, when needed."""

    def __init__(self, tree: xr.DataTree):
        self._tree = tree
        self.is_classification = tree.attrs["task"] == "classification"

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Mean class probabilities (m c)."""
        return probabilities(self._tree).mean(axis=0)

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and variance (m c) in closed form, if known."""
        if "closed_form" not in self._tree.children:
            return None
        mean, variance = (np.asarray(self._tree["closed_form"][name]) for name in _MOMENTS)
        return mean, variance

    @cached_property
    def latent(self) -> np.ndarray:
        """Draws of the latent function (s m c)."""
        return pooled(self._tree)

    @cached_property
    def error(self) -> np.ndarray:
        """Monte-Carlo error (m c) of the probabilities, or of the latent quantiles."""
        if self.is_classification:
            return distances.mean_probability_error(self._tree)
        return distances.quantile_error(self._tree)


def distance_measures(a: Marginals, b: Marginals) -> dict[str, Metric]:
    """Distances between two methods' predictions by name, each a function of the weights alone."""
    if a.is_classification:
        pair = (a.probabilities, b.probabilities)
        return {
            "agreement": partial(distances.agreement, *pair),
            "total_variation": partial(distances.total_variation, *pair),
        }
    if a.moments is not None and b.moments is not None:
        return {"wasserstein_1": partial(distances.normal_wasserstein_1, *a.moments, *b.moments)}
    return {"wasserstein_1": partial(distances.wasserstein_1, a.latent, b.latent)}


def distance_floor(a: Marginals, b: Marginals) -> dict[str, float]:
    """Monte-Carlo floor of the distances that have one, by name; 0 between closed forms."""
    if a.is_classification:
        return {"total_variation": distances.total_variation_floor(a.error, b.error)}
    if a.moments is not None and b.moments is not None:
        return {"wasserstein_1": 0.0}
    return {"wasserstein_1": distances.wasserstein_floor(a.error, b.error)}


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
