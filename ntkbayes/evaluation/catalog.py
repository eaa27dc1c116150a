"""What each metric and distance is called, which way is better, and what it says.

One table for everything that shows metrics: names in results, words in tables and figures, the
best method in bold. The formulas are in `metrics` and `distances`.
"""

import math
from collections.abc import Iterable
from typing import Any

import equinox as eqx

from ntkbayes._checks import check_choice
from ntkbayes.evaluation.metrics.likelihood import BATCH_SIZE

__all__ = [
    "METRICS",
    "MetricInfo",
    "headline_metrics",
    "metric_info",
    "metric_name",
    "metric_title",
]

LEVELS = (50, 90, 95)
"""Central intervals of a regression, in percent."""


class MetricInfo(eqx.Module):
    """One metric.

    Parameters
    ----------
    title
        Name in tables and figures.
    description
        What it measures, with its unit, in a few words.
    better
        ``"lower"``, ``"higher"``, or None where neither is: an entropy is not good or bad.
    headline
        Whether it belongs into a table of the most important metrics; the report shows those of
        them first that are `ranked`.
    nominal
        The value a calibrated predictor has, of metrics that are better neither low nor high.
    points_per_unit
        Test points in one independent unit that the metric is a mean of.
    bounds
        What it cannot be below and above, in any task that has it: an interval ends there.
    caveat
        Why its standard error or a comparison by it is not to be trusted, and methods are not
        ranked by it; empty where simulations found nothing (``benchmarks/standard_errors.py``).

    Examples
    --------
    >>> info = nb.evaluation.METRICS["classification"]["ece"]
    >>> info.title, info.description, info.better
    ('ECE', '|accuracy − confidence| over 15 equal bins', 'lower')
    """

    title: str
    description: str
    better: str | None = "lower"
    headline: bool = False
    nominal: float | None = None
    points_per_unit: int = 1
    bounds: tuple[float, float] = (-math.inf, math.inf)
    caveat: str = ""

    @property
    def unit(self) -> str:
        """What the description ends with: "nats", "target units", or nothing."""
        return next((unit for unit in ("nats", "target units") if unit in self.description), "")

    @property
    def ranked(self) -> bool:
        """Whether methods may be ranked and compared by it: it has a direction and no caveat."""
        return (self.better is not None or self.nominal is not None) and not self.caveat


_SHARE, _POSITIVE = (0.0, 1.0), (0.0, math.inf)
"""Bounds."""
_FLOOR = (
    "chance makes it positive: read it beside its floor; ± leaves out the truth of calibrated "
    "predictors"
)
_CLIPPED = (
    "right on average for predictors that are clearly off, positive on average for calibrated "
    "ones, as it is never below 0; its ± is too small there"
)
_OVERFIT = "too large, as recalibration is fitted to the points that it is judged by"
_TAILS = "a few large counts decide it, which a resample may miss: its ± is too small"
_FEW = "with some 50 points its ± holds the truth in less than 90 % of test sets"

_SCORES = {
    "accuracy": MetricInfo("accuracy", "share of right labels", "higher", True, bounds=_SHARE),
    "nll": MetricInfo("NLL", "−log mean probability of the true class, nats", headline=True),
    "joint_nll": MetricInfo(
        "joint NLL", "the same of ten points at once, nats per point", points_per_unit=BATCH_SIZE
    ),
    "dyadic_nll": MetricInfo(
        "dyadic NLL", "the same of ten copies of two points, nats per copy", points_per_unit=2
    ),
    "scaled_nll": MetricInfo(
        "scaled NLL", "NLL after a temperature fitted to the other half of the points, nats"
    ),
    "brier": MetricInfo(
        "Brier", "squared error of the probabilities, 0 to 2", headline=True, bounds=(0.0, 2.0)
    ),
    "brier_reliability": MetricInfo(
        "Brier reliability", "its part due to miscalibration", caveat=_FLOOR, bounds=_POSITIVE
    ),
    "brier_resolution": MetricInfo(
        "Brier resolution",
        "what it gains by telling apart",
        "higher",
        caveat=_OVERFIT,
        bounds=_POSITIVE,
    ),
    "brier_uncertainty": MetricInfo(
        "Brier uncertainty",
        "its part due to the labels alone",
        None,
        caveat="its ± is too wide where classes are equally frequent",
        bounds=_POSITIVE,
    ),
}
_CALIBRATION = {
    "ece_squared": MetricInfo(
        "squared ECE", "mean (accuracy − confidence)² over bins, without bias", headline=True
    ),
    "confidence_gap": MetricInfo(
        "confidence gap",
        "confidence − accuracy: above 0, over-confident",
        None,
        True,
        nominal=0.0,
        bounds=(-1.0, 1.0),
    ),
    "temperature_gain": MetricInfo(
        "temperature gain",
        "NLL minus scaled NLL: what a wrong temperature costs, nats",
        caveat=_FEW,
    ),
    "smooth_ece": MetricInfo(
        "smooth ECE",
        "|accuracy − confidence|, smoothed, without bins",
        caveat=_FLOOR,
        bounds=_SHARE,
    ),
    "brier_miscalibration": MetricInfo(
        "Brier MCB",
        "what isotonic recalibration saves of the top label's Brier score (0 to 1)",
        caveat=_FLOOR,
        bounds=_SHARE,
    ),
    "brier_discrimination": MetricInfo(
        "Brier DSC",
        "what it gains by telling right from wrong",
        "higher",
        caveat=_OVERFIT,
        bounds=_SHARE,
    ),
    "log_miscalibration": MetricInfo(
        "log MCB",
        "what isotonic recalibration saves of the top label's log score, nats",
        caveat=_FLOOR,
        bounds=_POSITIVE,
    ),
    "log_discrimination": MetricInfo(
        "log DSC",
        "what it gains by telling right from wrong, nats",
        "higher",
        caveat=_OVERFIT,
        bounds=_POSITIVE,
    ),
    "ece": MetricInfo(
        "ECE", "|accuracy − confidence| over 15 equal bins", caveat=_FLOOR, bounds=_SHARE
    ),
    "ece_mass": MetricInfo(
        "ECE, equal mass", "the same over bins of equally many points", caveat=_FLOOR, bounds=_SHARE
    ),
    "ece_l2": MetricInfo(
        "ECE, L2", "root mean square of the same, equal mass", caveat=_FLOOR, bounds=_SHARE
    ),
    "ece_debiased": MetricInfo(
        "ECE debiased", "ECE, corrected for what chance adds to it", caveat=_CLIPPED, bounds=_SHARE
    ),
    "classwise_ece": MetricInfo(
        "class-wise ECE", "mean over classes of the error of each", caveat=_FLOOR, bounds=_SHARE
    ),
    "mce": MetricInfo(
        "MCE",
        "largest |accuracy − confidence| of a bin",
        caveat=f"{_FLOOR}, and two equally good methods differ too often",
        bounds=_SHARE,
    ),
    "pav_error": MetricInfo(
        "PAV error", "mean |confidence − isotonic fit|", caveat=_FLOOR, bounds=_SHARE
    ),
}
_UNCERTAINTY = {
    "predictive_entropy": MetricInfo(
        "entropy", "of the mean probabilities, nats", None, True, bounds=_POSITIVE
    ),
    "expected_entropy": MetricInfo(
        "aleatoric entropy", "mean entropy of the draws, nats", None, bounds=_POSITIVE
    ),
    "mutual_information": MetricInfo(
        "mutual information", "epistemic part of the entropy, nats", None, True, bounds=_POSITIVE
    ),
    "variation_ratio": MetricInfo(
        "variation ratio", "share of draws outvoted by the others", None, bounds=_SHARE
    ),
    "aurc": MetricInfo("AURC", "mean error over all shares of points rejected", bounds=_SHARE),
    "excess_aurc": MetricInfo(
        "excess AURC",
        "the same less that of the best ranking",
        caveat=_FEW,
        bounds=_SHARE,
    ),
    "augrc": MetricInfo(
        "AUGRC",
        "chance that a point is accepted and wrong, mean over shares",
        bounds=_SHARE,
    ),
    "error_auroc": MetricInfo(
        "error AUROC",
        "chance that the top probability varies more where the label is wrong",
        "higher",
        bounds=_SHARE,
    ),
}
_CLASS_DISTANCES = {
    "agreement": MetricInfo(
        "agreement",
        "share of labels as the reference's",
        "higher",
        True,
        bounds=_SHARE,
    ),
    "total_variation": MetricInfo(
        "total variation", "half the sum of |p − reference|", headline=True, bounds=_SHARE
    ),
    "jensen_shannon": MetricInfo(
        "Jensen-Shannon", "divergence from the reference, nats", bounds=_POSITIVE
    ),
    "wasserstein_1": MetricInfo(
        "Wasserstein-1", "to the reference, between draws of class probabilities", bounds=_POSITIVE
    ),
}
_REGRESSION = {
    "rmse": MetricInfo(
        "RMSE", "root mean squared error, target units", headline=True, bounds=_POSITIVE
    ),
    "nll": MetricInfo("NLL", "−log predictive density, nats", headline=True),
    "joint_nll": MetricInfo(
        "joint NLL", "the same of ten points at once, nats per point", points_per_unit=BATCH_SIZE
    ),
    "crps": MetricInfo(
        "CRPS", "continuous ranked probability score, target units", headline=True, bounds=_POSITIVE
    ),
    "energy_score": MetricInfo(
        "energy score", "CRPS of ten points at once, target units", points_per_unit=BATCH_SIZE
    ),
    "sharpness": MetricInfo(
        "sharpness", "root mean predictive variance, target units", None, bounds=_POSITIVE
    ),
    "calibration_error": MetricInfo(
        "calibration error", "mean |coverage − level| of all levels", caveat=_FLOOR, bounds=_SHARE
    ),
    "rms_calibration_error": MetricInfo(
        "RMS calibration error", "root mean square of the same", caveat=_FLOOR, bounds=_SHARE
    ),
    "miscalibration_area": MetricInfo(
        "miscalibration area", "between coverage and level", caveat=_FLOOR, bounds=_SHARE
    ),
    "ence": MetricInfo(
        "ENCE",
        "mean |1 − RMSE / predicted deviation| over ten bins of it",
        caveat=_FLOOR,
        bounds=_POSITIVE,
    ),
    **{
        name: info
        for level in LEVELS
        for name, info in (
            (
                f"coverage_{level}",
                MetricInfo(
                    f"coverage {level} %",
                    f"share of observations in the central {level} %",
                    None,
                    True,
                    level / 100,
                    bounds=_SHARE,
                ),
            ),
            (
                f"width_{level}",
                MetricInfo(f"width {level} %", "of it, target units", None, True, bounds=_POSITIVE),
            ),
            (
                f"interval_score_{level}",
                MetricInfo(
                    f"interval score {level} %",
                    "target units",
                    bounds=_POSITIVE,
                    caveat=_FEW if level >= 90 else "",
                ),
            ),
        )
    },
}
_REGRESSION_DISTANCES = {
    "wasserstein_1": MetricInfo(
        "Wasserstein-1",
        "to the reference, marginals, target units",
        headline=True,
        bounds=_POSITIVE,
    ),
    "wasserstein_2": MetricInfo(
        "Wasserstein-2", "to the reference, marginals, target units", bounds=_POSITIVE
    ),
}
_COUNTS = {
    "rmse_counts": MetricInfo(
        "RMSE of counts",
        "root mean squared error of the mean, counts",
        caveat=_TAILS,
        bounds=_POSITIVE,
    ),
    "nll": MetricInfo("NLL", "−log mean probability of the count, nats", headline=True),
    "joint_nll": _REGRESSION["joint_nll"],
    "crps": MetricInfo(
        "CRPS", "continuous ranked probability score, counts", headline=True, bounds=_POSITIVE
    ),
}
_COUNT_DISTANCES = {
    "wasserstein_1": MetricInfo(
        "Wasserstein-1", "to the reference, marginals of log rates", headline=True, bounds=_POSITIVE
    ),
    "wasserstein_2": MetricInfo(
        "Wasserstein-2", "to the reference, marginals of log rates", bounds=_POSITIVE
    ),
}

_JOINT = {
    "energy_distance": MetricInfo("energy distance", "of joint distributions, logits or targets"),
    "squared_mmd": MetricInfo("MMD²", "the same with a Gaussian kernel, 0 to 2"),
    "mean_distance": MetricInfo(
        "mean distance²", "of mean functions, in variances of the reference"
    ),
    "covariance_distance": MetricInfo("covariance distance²", "‖Σ − Σ_ref‖² / ‖Σ_ref‖²"),
    "covariance_alignment": MetricInfo("covariance alignment", "cosine of Σ and Σ_ref", "higher"),
    "variance_near": MetricInfo("variance near data", "over the reference's", None, nominal=1.0),
    "variance_far": MetricInfo("variance far from data", "over the reference's", None, nominal=1.0),
}
_DETECTION = {
    "auroc": MetricInfo(
        "AUROC", "chance that an unseen input scores above a test point", "higher", bounds=_SHARE
    ),
    "aupr": MetricInfo(
        "AUPR", "average precision, unseen inputs positive", "higher", bounds=_SHARE
    ),
    "fpr95": MetricInfo(
        "FPR at 95 % TPR", "share of test points rejected with 95 % of the unseen", bounds=_SHARE
    ),
}


class Catalog(dict[str, Any]):
    """Task → name → `MetricInfo`; a metric is found by its name or title alone, too."""

    def __missing__(self, name: str) -> MetricInfo:
        """Find a metric, in the first task that has it."""
        known = self._all()
        check_choice("metric", name, known)
        return known[name]

    def _all(self) -> dict[str, MetricInfo]:
        found: dict[str, MetricInfo] = {}
        for metrics in self.values():
            for name, info in metrics.items():
                found.setdefault(name, info)
                found.setdefault(info.title, info)
        return found


METRICS = Catalog(
    {
        "classification": _SCORES | _CALIBRATION | _UNCERTAINTY | _CLASS_DISTANCES,
        "regression": _REGRESSION | _REGRESSION_DISTANCES,
        "counts": _COUNTS | _COUNT_DISTANCES,
        "joint": _JOINT,
        "detection": _DETECTION,
    }
)
"""Task → name → `MetricInfo`, in the order of the tables; distances from the reference last.

A name or a title of a metric finds it, too: ``METRICS["nll"]``, ``METRICS["NLL"]``.
"""


def metric_name(text: str, known: Iterable[str]) -> str:
    """Return the name of a metric among `known` that is given by name or by title.

    Raises
    ------
    ValueError
        If none of them is meant.
    """
    names = list(known)
    by_title = {metric_title(name): name for name in names}
    if text not in names and text in by_title:
        return by_title[text]
    check_choice("metric", text, names)
    return text


def metric_info(name: str) -> MetricInfo:
    """Return what is known of a metric; one of another tool has its name for a title."""
    for known in METRICS.values():
        if name in known:
            return known[name]
    return MetricInfo(name.replace("_", " "), "", None)


def metric_title(column: str) -> str:
    """Turn a column of `wide_table` into words: "nll" → "NLL", "coverage_50" → "coverage 50 %"."""
    metric = column.removesuffix("_floor")
    return metric_info(metric).title + (" floor" if metric != column else "")


def headline_metrics(task: str) -> list[str]:
    """Return the names of the most important metrics of a task, in order.

    Parameters
    ----------
    task
        "classification", "regression" or "counts"; the other keys of `METRICS` have none.

    Raises
    ------
    ValueError
        If the task is unknown.

    Examples
    --------
    >>> nb.evaluation.headline_metrics("regression")[:3]
    ['rmse', 'nll', 'crps']
    """
    check_choice("task", task, METRICS)
    return [name for name, info in METRICS[task].items() if info.headline]
