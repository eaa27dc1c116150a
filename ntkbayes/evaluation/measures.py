"""Which metrics and distances predictions have: the functions of `metrics` and `distances`, bound.

In classification distances are between predictive class probabilities; in regression between the
marginals of the latent function, noise excluded, because the common noise would only blur them.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from ntkbayes.evaluation import distances, metrics, mixtures
from ntkbayes.evaluation.catalog import LEVELS
from ntkbayes.evaluation.metrics.likelihood import BATCH_SIZE
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
            "jensen_shannon": partial(distances.jensen_shannon, *pair),
            "wasserstein_1": partial(_mean, a.spread_distance(b)),
        }
    if a.moments is not None and b.moments is not None:
        moments = (*a.moments, *b.moments)
        return {
            "wasserstein_1": partial(distances.normal_wasserstein_1, *moments),
            "wasserstein_2": partial(distances.normal_wasserstein_2, *moments),
        }
    return {
        "wasserstein_1": partial(distances.wasserstein_1, a.latent, b.latent),
        "wasserstein_2": partial(distances.wasserstein_2, a.latent, b.latent),
    }


def distance_floor(a: Predictive, b: Predictive) -> dict[str, float]:
    """Monte-Carlo floor of the distances that have one, by name; 0 between closed forms."""
    if a.is_classification:
        errors = (a.error, b.error)
        pair = (a.classes.mean, b.classes.mean)
        return {
            "total_variation": distances.total_variation_floor(*errors),
            "jensen_shannon": distances.jensen_shannon_floor(*pair, *errors),
            "wasserstein_1": distances.probability_wasserstein_floor(
                a.quantile_error, b.quantile_error
            ),
        }
    if a.moments is not None and b.moments is not None:
        return {"wasserstein_1": 0.0, "wasserstein_2": 0.0}
    squared = (a.squared_quantile_error, b.squared_quantile_error)
    return {
        "wasserstein_1": distances.wasserstein_floor(a.quantile_error, b.quantile_error),
        "wasserstein_2": distances.wasserstein_2_floor(*squared),
    }


def _classification_measures(found: Predictive) -> dict[str, Metric]:
    p, y = found.classes.mean, found.observations
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    decomposition = _Once(partial(metrics.brier_decomposition, p, y))
    l2 = partial(metrics.ece, p, y, binning="mass", norm="l2")
    return {
        "accuracy": partial(metrics.accuracy, p, y),
        "nll": partial(metrics.mixture_nll, found.log_likelihood),
        **_joint(found),
        "brier": partial(metrics.brier, p, y),
        "brier_reliability": lambda weights: decomposition(weights).reliability,
        "brier_resolution": lambda weights: decomposition(weights).resolution,
        "brier_uncertainty": lambda weights: decomposition(weights).uncertainty,
        "ece": partial(metrics.ece, p, y),
        "ece_mass": partial(metrics.ece, p, y, binning="mass"),
        "ece_l2": l2,
        "ece_l2_debiased": partial(l2, debiased=True),
        "ece_debiased": partial(metrics.ece, p, y, debiased=True),
        "classwise_ece": partial(metrics.classwise_ece, p, y),
        "mce": partial(metrics.mce, p, y),
        "pav_error": partial(metrics.pav_calibration_error, confidence, right),
        "ks_calibration": partial(metrics.kolmogorov_smirnov_statistic, confidence, right),
        "confidence_gap": partial(_mean, confidence - right),
        "predictive_entropy": partial(metrics.predictive_entropy, p),
        "expected_entropy": partial(_mean, found.classes.expected_entropy),
        "mutual_information": partial(_mean, found.mutual_information),
        "variation_ratio": partial(_mean, found.classes.variation_ratio),
        "aurc": partial(metrics.aurc, p, y),
    }


def _regression_measures(found: Predictive) -> dict[str, Metric]:
    y, mixture = found.observations, found.mixture
    pit = mixtures.pit(*mixture, y)
    bound: dict[str, Metric] = {
        "rmse": partial(metrics.rmse, mixture[0].mean(axis=0), y),
        "nll": partial(metrics.mixture_nll, mixtures.log_density(*mixture, y).sum(axis=-1)),
        **_joint(found),
        "crps": partial(metrics.crps, *mixture, y),
        "sharpness": partial(metrics.sharpness, *mixture),
        "calibration_error": partial(metrics.mean_absolute_calibration_error, pit),
        "rms_calibration_error": partial(metrics.rms_calibration_error, pit),
        "miscalibration_area": partial(metrics.miscalibration_area, pit),
    }
    central_level = mixtures.central_level(*mixture, y)
    for percent in LEVELS:
        level = percent / 100
        interval = mixtures.central_interval(*mixture, level)
        bound[f"coverage_{percent}"] = partial(metrics.coverage, central_level, level)
        bound[f"width_{percent}"] = partial(metrics.interval_width, *interval)
        bound[f"interval_score_{percent}"] = partial(metrics.interval_score, *interval, y, level)
    return bound


def _joint(found: Predictive) -> dict[str, Metric]:
    """Joint NLL, from draws even where the marginals have a closed form; of ten points or more."""
    log_likelihood = found.log_likelihood
    if log_likelihood.shape[1] < BATCH_SIZE:
        return {}
    return {"joint_nll": partial(metrics.joint_nll, log_likelihood)}


class _Once:
    """A function of the weights whose last result is kept: its parts are metrics of their own."""

    def __init__(self, function: Callable[[np.ndarray], metrics.BrierDecomposition]):
        self._function, self._weights = function, None

    def __call__(self, weights: np.ndarray) -> metrics.BrierDecomposition:
        if weights is not self._weights:
            self._weights, self._result = weights, self._function(weights)
        return self._result


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over points of what is known point by point."""
    return np.asarray(weights @ values)
