"""Metrics of predictions, as functions of *weighted* test points.

Every metric takes quantities per test point and ``weights`` (… m) whose rows sum to 1, and
returns one value per row. Uniform weights give the metric; the rows of `bootstrap_weights` give
its distribution over test sets, whose standard deviation is the standard error. The same rows
serve every method, so that differences between methods are paired.

Notation: p (m c) the predictive class probabilities, which are the *mean over draws* of
softmax(f); y the observations; w one row of weights. Regression is in the units of the training
targets, which are standardised.

References
----------
Gneiting & Raftery (2007), strictly proper scoring rules, doi:10.1198/016214506000001437 (NLL,
Brier, CRPS) · Guo et al. (2017), arXiv 1706.04599, eq. 3 (ECE) · Depeweg et al. (2018), arXiv
1710.07283, eq. 7 (mutual information) · Efron (1979), doi:10.1214/aos/1176344552 (bootstrap).
"""

from ntkbayes.evaluation.metrics.calibration import calibration_bins, ece
from ntkbayes.evaluation.metrics.classification import (
    accuracy,
    brier,
    mutual_information,
    pointwise_mutual_information,
    predictive_entropy,
)
from ntkbayes.evaluation.metrics.likelihood import (
    batch_joint_nll,
    joint_draws_used,
    joint_nll,
    joint_nll_bias,
    mixture_nll,
)
from ntkbayes.evaluation.metrics.quantile_calibration import (
    mean_absolute_calibration_error,
    miscalibration_area,
    observed_proportions,
    pit_kolmogorov_smirnov,
    rms_calibration_error,
)
from ntkbayes.evaluation.metrics.regression import (
    coverage,
    crps,
    draws_crps,
    interval_score,
    interval_width,
    rmse,
    sharpness,
)
from ntkbayes.evaluation.metrics.resampling import bootstrap_weights, uniform_weights

__all__ = [
    "accuracy",
    "batch_joint_nll",
    "bootstrap_weights",
    "brier",
    "calibration_bins",
    "coverage",
    "crps",
    "draws_crps",
    "ece",
    "interval_score",
    "interval_width",
    "joint_draws_used",
    "joint_nll",
    "joint_nll_bias",
    "mean_absolute_calibration_error",
    "miscalibration_area",
    "mixture_nll",
    "mutual_information",
    "observed_proportions",
    "pit_kolmogorov_smirnov",
    "pointwise_mutual_information",
    "predictive_entropy",
    "rms_calibration_error",
    "rmse",
    "sharpness",
    "uniform_weights",
]
