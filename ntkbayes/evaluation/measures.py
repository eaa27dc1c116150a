"""Which metrics and distances predictions have: the functions of `metrics` and `distances`, bound.

In classification distances are between predictive class probabilities; in regression and of counts
between the marginals of the latent function, noise excluded, because the common noise would only
blur them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ntkbayes.evaluation import count_mixtures, distances, metrics, mixtures
from ntkbayes.evaluation.catalog import LEVELS, METRICS
from ntkbayes.evaluation.metrics.finite_draws import FEWEST
from ntkbayes.evaluation.metrics.likelihood import BATCH_SIZE
from ntkbayes.evaluation.predictive import Predictive

__all__ = [
    "Metric",
    "calibration_floor",
    "distance_floor",
    "distance_measures",
    "draws_deviations",
    "measures",
]

Metric = Callable[[np.ndarray], np.ndarray]
"""From weights (… m) of the test points to values (…)."""

NUM_SIMULATIONS = 50
"""Sets of observations that the floor of a calibration error is the mean over."""


def measures(found: Predictive) -> dict[str, Metric]:
    """Metrics of one method's predictions by name, each a function of the weights alone."""
    kinds = {
        "classification": _classification_measures,
        "regression": _regression_measures,
        "counts": _count_measures,
    }
    return kinds[found.task](found)


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


def calibration_floor(found: Predictive) -> dict[str, float]:
    """Return the calibration errors of a calibrated method with these predictions, by name.

    The mean over `NUM_SIMULATIONS` sets of observations drawn from the predictions themselves.
    """
    rng = np.random.default_rng(0)
    weights = metrics.uniform_weights(len(found.observations))
    if found.task == "counts":  # none of their metrics is an error of calibration
        return {}
    simulate = _simulated_classes if found.is_classification else _simulated_targets
    simulated = [
        {name: float(metric(weights)) for name, metric in simulate(found, rng).items()}
        for _ in range(NUM_SIMULATIONS)
    ]
    return {name: float(np.mean([each[name] for each in simulated])) for name in simulated[0]}


def _simulated_classes(found: Predictive, rng: np.random.Generator) -> dict[str, Metric]:
    cumulative = found.classes.mean.cumsum(axis=1)
    u = rng.uniform(size=(len(cumulative), 1)) * cumulative[:, -1:]
    p, y = found.classes.mean, (cumulative[:, :-1] <= u).sum(axis=1)
    return _class_calibration(p, y, *_decompositions(p, y))


def _simulated_targets(found: Predictive, rng: np.random.Generator) -> dict[str, Metric]:
    means, variance = found.mixture
    some = rng.integers(0, len(means), size=(1, *means.shape[1:]))
    mean, own = (
        np.take_along_axis(np.broadcast_to(v, means.shape), some, axis=0)[0]
        for v in (means, variance)
    )
    y = mean + np.sqrt(own) * rng.normal(size=mean.shape)
    # A calibrated predictor has uniform PIT values, whatever it predicts.
    return _quantile_calibration(rng.uniform(size=y.shape)) | _ence(found.mixture, y)


def _classification_measures(found: Predictive) -> dict[str, Metric]:
    p, y = found.classes.mean, found.observations
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    brier, corp = _decompositions(p, y)
    bound: dict[str, Metric] = {
        "accuracy": partial(metrics.accuracy, p, y),
        "nll": partial(metrics.mixture_nll, found.log_likelihood),
        **_joint(found),
        **_scaled(p, y),
        "brier": partial(metrics.brier, p, y),
        "brier_resolution": lambda weights: brier(weights).resolution,
        "brier_uncertainty": lambda weights: brier(weights).uncertainty,
        "brier_discrimination": lambda weights: corp(weights).brier_discrimination,
        "log_discrimination": lambda weights: corp(weights).log_discrimination,
        "ece_squared": partial(metrics.squared_ece, p, y),
        "ece_debiased": partial(metrics.ece, p, y, debiased=True),
        "confidence_gap": partial(_mean, confidence - right),
        **_class_calibration(p, y, brier, corp),
        "predictive_entropy": partial(metrics.predictive_entropy, p),
        "expected_entropy": partial(_mean, found.classes.expected_entropy),
        "mutual_information": partial(_mean, found.mutual_information),
        "variation_ratio": partial(_mean, found.classes.variation_ratio),
        "aurc": partial(metrics.aurc, p, y),
        "excess_aurc": partial(metrics.excess_aurc, p, y),
        "augrc": partial(metrics.augrc, p, y),
    }
    if len(found.log_likelihood) > 1:  # one draw has no variance
        bound["error_auroc"] = partial(metrics.error_auroc, found.classes.top_variance, ~right)
    return {name: bound[name] for name in METRICS["classification"] if name in bound}


def _decompositions(p: np.ndarray, y: np.ndarray) -> tuple["_Once", "_Once"]:
    """Parts of the Brier score, and those of the top label's scores."""
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    return (
        _Once(partial(metrics.brier_decomposition, p, y)),
        _Once(partial(metrics.corp_decomposition, confidence, right)),
    )


def _class_calibration(
    p: np.ndarray, y: np.ndarray, brier: "_Once", corp: "_Once"
) -> dict[str, Metric]:
    """Calibration errors that chance alone makes positive."""
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    return {
        "brier_reliability": lambda weights: brier(weights).reliability,
        "brier_miscalibration": lambda weights: corp(weights).brier_miscalibration,
        "log_miscalibration": lambda weights: corp(weights).log_miscalibration,
        "smooth_ece": partial(metrics.smooth_calibration_error, confidence, right),
        "ece": partial(metrics.ece, p, y),
        "ece_mass": partial(metrics.ece, p, y, binning="mass"),
        "ece_l2": partial(metrics.ece, p, y, binning="mass", norm="l2"),
        "classwise_ece": partial(metrics.classwise_ece, p, y),
        "mce": partial(metrics.mce, p, y),
        "pav_error": partial(metrics.pav_calibration_error, confidence, right),
    }


def _scaled(p: np.ndarray, y: np.ndarray) -> dict[str, Metric]:
    """NLL after a temperature, and what it gains; of two points or more."""
    if len(y) < 2:
        return {}
    scaled = metrics.pointwise_scaled_nll(p, y)
    return {
        "scaled_nll": partial(_mean, scaled),
        "temperature_gain": partial(metrics.temperature_gain, p, y),
    }


def _regression_measures(found: Predictive) -> dict[str, Metric]:
    y, mixture = found.observations, found.mixture
    bound: dict[str, Metric] = {
        "rmse": partial(metrics.rmse, mixture[0].mean(axis=0), y),
        "nll": partial(metrics.mixture_nll, mixtures.log_density(*mixture, y).sum(axis=-1)),
        **_joint(found),
        "crps": partial(metrics.crps, *mixture, y),
        "sharpness": partial(metrics.sharpness, *mixture),
        **_quantile_calibration(found.pit),
        **_ence(mixture, y),
    }
    if len(y) >= BATCH_SIZE:
        bound["energy_score"] = partial(metrics.energy_score, found.new_observations, y)
    central_level = mixtures.central_level(*mixture, y)
    for percent in LEVELS:
        level = percent / 100
        interval = mixtures.central_interval(*mixture, level)
        bound[f"coverage_{percent}"] = partial(metrics.coverage, central_level, level)
        bound[f"width_{percent}"] = partial(metrics.interval_width, *interval)
        bound[f"interval_score_{percent}"] = partial(metrics.interval_score, *interval, y, level)
    return {name: bound[name] for name in METRICS["regression"] if name in bound}


def _quantile_calibration(pit: np.ndarray) -> dict[str, Metric]:
    return {
        "calibration_error": partial(metrics.mean_absolute_calibration_error, pit),
        "rms_calibration_error": partial(metrics.rms_calibration_error, pit),
        "miscalibration_area": partial(metrics.miscalibration_area, pit),
    }


def _ence(mixture: tuple[np.ndarray, np.ndarray], y: np.ndarray) -> dict[str, Metric]:
    return {"ence": partial(metrics.ence, *mixtures.moments(*mixture), y)}


def _count_measures(found: Predictive) -> dict[str, Metric]:
    rates, y = found.rates, found.observations.astype(float)
    return {
        "rmse_counts": partial(metrics.rmse, count_mixtures.mean(rates)[:, None], y),
        "nll": partial(metrics.mixture_nll, found.log_likelihood),
        **_joint(found),
        "crps": partial(_mean, count_mixtures.crps(rates, y[:, 0])),
    }


def _joint(found: Predictive) -> dict[str, Metric]:
    """Joint NLLs of points enough; of Gaussian functions, correlations need draws enough."""
    log_likelihood = found.log_likelihood
    bound: dict[str, Metric] = {}
    if log_likelihood.shape[1] >= BATCH_SIZE:
        if found.normal is None:
            bound["joint_nll"] = partial(metrics.joint_nll, log_likelihood)
        elif len(log_likelihood) >= FEWEST:
            bound["joint_nll"] = partial(metrics.normal_joint_nll, *found.normal)
    if found.is_classification and log_likelihood.shape[1] >= 2:
        bound["dyadic_nll"] = partial(metrics.dyadic_nll, log_likelihood)
    return bound


def draws_deviations(found: Predictive) -> dict[str, np.ndarray]:
    """Return deviations, whose length is the Monte-Carlo error, of metrics that have them.

    Fewer than `FEWEST` draws are members of an ensemble, which is the predictor itself.
    """
    num_draws, num_points = found.log_likelihood.shape
    if num_draws < FEWEST:
        return {}
    deviations: dict[str, np.ndarray] = {}
    if num_points >= BATCH_SIZE:
        deviations["joint_nll"] = (
            metrics.joint_nll_deviations(found.log_likelihood)
            if found.normal is None
            else metrics.normal_joint_nll_deviations(*found.normal)
        )
    if found.is_classification and num_points >= 2:
        deviations["dyadic_nll"] = metrics.dyadic_nll_deviations(found.log_likelihood)
    return deviations


class _Once:
    """A function of the weights whose last result is kept: its parts are metrics of their own."""

    def __init__(self, function: Callable[[np.ndarray], Any]):
        self._function, self._weights = function, None

    def __call__(self, weights: np.ndarray) -> Any:
        if weights is not self._weights:
            self._weights, self._result = weights, self._function(weights)
        return self._result


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over points of what is known point by point."""
    return np.asarray(weights @ values)
