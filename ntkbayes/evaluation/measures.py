"""Which metrics and distances predictions have: the functions of `metrics` and `distances`, bound.

In classification distances are between predictive class probabilities; in regression between the
marginals of the latent function, noise excluded, because the common noise would only blur them.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from ntkbayes.evaluation import distances, metrics, mixtures
from ntkbayes.evaluation.catalog import LEVELS
from ntkbayes.evaluation.predictive import Predictive

__all__ = ["Metric", "distance_floor", "distance_measures", "measures"]

Metric = Callable[[np.ndarray], np.ndarray]
"""From weights (… m) of the test points to values (…)."""


def measures(found: Predictive) -> dict[str, Metric]:
    """Metrics of one method's predictions by name, each a function of the weights alone."""
    if found.is_classification:
        return _classification_measures(found)
    return _regression_measures(found)


def distance_measures(a: Predictive, b: Predictive) -> dict[str, Metric]:
    """Distances between two methods' predictions by name, each a function of the weights alone."""
    if a.is_classification:
        pair = (a.classes.mean, b.classes.mean)
        return {
            "agreement": partial(distances.agreement, *pair),
            "total_variation": partial(distances.total_variation, *pair),
        }
    if a.moments is not None and b.moments is not None:
        return {"wasserstein_1": partial(distances.normal_wasserstein_1, *a.moments, *b.moments)}
    return {"wasserstein_1": partial(distances.wasserstein_1, a.latent, b.latent)}


def distance_floor(a: Predictive, b: Predictive) -> dict[str, float]:
    """Monte-Carlo floor of the distances that have one, by name; 0 between closed forms."""
    if a.is_classification:
        return {"total_variation": distances.total_variation_floor(a.error, b.error)}
    if a.moments is not None and b.moments is not None:
        return {"wasserstein_1": 0.0}
    return {"wasserstein_1": distances.wasserstein_floor(a.error, b.error)}


def _classification_measures(found: Predictive) -> dict[str, Metric]:
    p, y = found.classes.mean, found.observations
    return {
        "accuracy": partial(metrics.accuracy, p, y),
        "nll": partial(metrics.mixture_nll, found.log_likelihood),
        "brier": partial(metrics.brier, p, y),
        "ece": partial(metrics.ece, p, y),
        "predictive_entropy": partial(metrics.predictive_entropy, p),
        "mutual_information": partial(_mean, found.mutual_information),
    }


def _regression_measures(found: Predictive) -> dict[str, Metric]:
    y, mixture = found.observations, found.mixture
    log_density = mixtures.log_density(*mixture, y).sum(axis=-1)
    bound: dict[str, Metric] = {
        "rmse": partial(metrics.rmse, mixture[0].mean(axis=0), y),
        "nll": partial(metrics.mixture_nll, log_density),
        "crps": partial(metrics.crps, *mixture, y),
    }
    central_level = mixtures.central_level(*mixture, y)
    for percent in LEVELS:
        level = percent / 100
        interval = mixtures.central_interval(*mixture, level)
        bound[f"coverage_{percent}"] = partial(metrics.coverage, central_level, level)
        bound[f"width_{percent}"] = partial(metrics.interval_width, *interval)
    return bound


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over points of what is known point by point."""
    return np.asarray(weights @ values)
