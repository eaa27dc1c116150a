"""Metrics of predictions, as functions of *weighted* test points.

Every metric takes quantities per test point and ``weights`` (… m) whose rows sum to 1, and
returns one value per row. Uniform weights give the metric; the rows of `bootstrap_weights` give
its distribution over test sets, whose standard deviation is the standard error. The same rows
serve every method, so that differences between methods are paired. What is no probability, label,
finite number or row of weights is refused; probabilities may be off by rounding (`inputs`).

Notation: p (m c) the predictive class probabilities, which are the *mean over draws* of
softmax(f); y the observations; w one row of weights. Regression is in the units of the training
targets, which are standardised.

References
----------
Gneiting & Raftery (2007), strictly proper scoring rules, doi:10.1198/016214506000001437 (NLL,
Brier, CRPS) · Guo et al. (2017), arXiv 1706.04599, eq. 3 (ECE) · Depeweg et al. (2018), arXiv
1710.07283, eq. 7 (mutual information) · Efron (1979), doi:10.1214/aos/1176344552 (bootstrap).
"""

from ntkbayes.evaluation.metrics.bins import (
    calibration_bins,
    confidence_bins,
)
from ntkbayes.evaluation.metrics.calibration import (
    calibration_error,
    classwise_ece,
    ece,
    mce,
    squared_calibration_error,
    squared_ece,
)
from ntkbayes.evaluation.metrics.calibration_tests import (
    CalibrationTest,
    calibration_tests,
    kolmogorov_smirnov_p_value,
    kolmogorov_smirnov_statistic,
    kuiper_p_value,
    kuiper_statistic,
    spiegelhalter_p_value,
    spiegelhalter_statistic,
)
from ntkbayes.evaluation.metrics.classification import (
    accuracy,
    brier,
    expected_entropy,
    mutual_information,
    pointwise_expected_entropy,
    pointwise_mutual_information,
    pointwise_predictive_entropy,
    pointwise_variation_ratio,
    predictive_entropy,
    variation_ratio,
)
from ntkbayes.evaluation.metrics.corp import (
    CorpDecomposition,
    corp_decomposition,
)
from ntkbayes.evaluation.metrics.decomposition import (
    BrierDecomposition,
    brier_decomposition,
)
from ntkbayes.evaluation.metrics.detection import (
    aupr,
    auroc,
    fpr95,
)
from ntkbayes.evaluation.metrics.finite_draws import (
    dyadic_nll_deviations,
    joint_nll_deviations,
    normal_joint_nll_deviations,
)
from ntkbayes.evaluation.metrics.isotonic import (
    isotonic_fit,
    pav_calibration_error,
)
from ntkbayes.evaluation.metrics.joint_scores import (
    dyadic_nll,
    energy_score,
    normal_joint_nll,
)
from ntkbayes.evaluation.metrics.likelihood import (
    batch_joint_nll,
    joint_nll,
    mixture_nll,
)
from ntkbayes.evaluation.metrics.quantile_calibration import (
    ence,
    mean_absolute_calibration_error,
    miscalibration_area,
    observed_proportions,
    pit_kolmogorov_smirnov,
    pit_test,
    rms_calibration_error,
)
from ntkbayes.evaluation.metrics.recalibration import (
    pointwise_scaled_nll,
    scaled_nll,
    temperature_gain,
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
from ntkbayes.evaluation.metrics.resampling import (
    bootstrap_weights,
    uniform_weights,
)
from ntkbayes.evaluation.metrics.selective import (
    augrc,
    aurc,
    error_auroc,
    excess_aurc,
    risk_coverage_curve,
)
from ntkbayes.evaluation.metrics.smooth import (
    smooth_calibration_error,
    smooth_ece,
)

__all__ = [
    "BrierDecomposition",
    "CalibrationTest",
    "CorpDecomposition",
    "accuracy",
    "augrc",
    "aupr",
    "aurc",
    "auroc",
    "batch_joint_nll",
    "bootstrap_weights",
    "brier",
    "brier_decomposition",
    "calibration_bins",
    "calibration_error",
    "calibration_tests",
    "classwise_ece",
    "confidence_bins",
    "corp_decomposition",
    "coverage",
    "crps",
    "draws_crps",
    "dyadic_nll",
    "dyadic_nll_deviations",
    "ece",
    "ence",
    "energy_score",
    "error_auroc",
    "excess_aurc",
    "expected_entropy",
    "fpr95",
    "interval_score",
    "interval_width",
    "isotonic_fit",
    "joint_nll",
    "joint_nll_deviations",
    "kolmogorov_smirnov_p_value",
    "kolmogorov_smirnov_statistic",
    "kuiper_p_value",
    "kuiper_statistic",
    "mce",
    "mean_absolute_calibration_error",
    "miscalibration_area",
    "mixture_nll",
    "mutual_information",
    "normal_joint_nll",
    "normal_joint_nll_deviations",
    "observed_proportions",
    "pav_calibration_error",
    "pit_kolmogorov_smirnov",
    "pit_test",
    "pointwise_expected_entropy",
    "pointwise_mutual_information",
    "pointwise_predictive_entropy",
    "pointwise_scaled_nll",
    "pointwise_variation_ratio",
    "predictive_entropy",
    "risk_coverage_curve",
    "rms_calibration_error",
    "rmse",
    "scaled_nll",
    "sharpness",
    "smooth_calibration_error",
    "smooth_ece",
    "spiegelhalter_p_value",
    "spiegelhalter_statistic",
    "squared_calibration_error",
    "squared_ece",
    "temperature_gain",
    "uniform_weights",
    "variation_ratio",
]
