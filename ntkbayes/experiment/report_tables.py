"""Tables of a report beside that of the metrics: joint distributions, and tests of calibration."""

import equinox as eqx
import pandas as pd
import xarray as xr

from ntkbayes.evaluation import calibration_table, compare_joint, wide_table
from ntkbayes.evaluation.catalog import metric_title
from ntkbayes.evaluation.distances import far_from_training
from ntkbayes.experiment.comparison import Comparison

__all__ = ["ReportTable", "report_tables"]

_JOINT_NOTE = (
    "Latent functions (logits or targets, noise excluded) at all test points together; value ± "
    "Monte-Carlo standard error over draws, without bias, so that equal distributions have 0 on "
    "average, and alignment and variance ratios 1. The squared covariance distance is relative to "
    "the reference: (k − 1)² if all variances are k times as large. Near and far: the halves of "
    "the test points by the distance to the closest training point. The energy distance and the "
    "MMD see any difference, the covariances only those of spread."
)
_TESTS_NOTE = (
    "Tests of whether the probability of the most probable class is calibrated, without bins: "
    "statistic (p-value, not corrected for how many are looked at). Kolmogorov-Smirnov and Kuiper "
    "see any miscalibration; Spiegelhalter's z that which the Brier score sees, above 0 if too "
    "confident, and next to nothing where confidences are near one half."
)
_PIT_NOTE = (
    "Kolmogorov-Smirnov test of whether the probability integral transforms, the predictive "
    "distribution functions at the observations, are uniform, as those of a calibrated predictor "
    "are: statistic (p-value, not corrected for how many are looked at)."
)
_ERRORS_NOTE = (
    "No draw is off from the exact solution of its training problem by more than so much at any "
    "input, in standard deviations of the prior there; of an approximation, neither mean nor "
    "deviation from those of its optimum. Where training ends after a finite time, errors of "
    "the steps are estimated, and without a prior the unit is the root of the tangent kernel."
)
_TEST_TITLES = {
    "kolmogorov_smirnov": "Kolmogorov-Smirnov",
    "kuiper": "Kuiper",
    "spiegelhalter": "Spiegelhalter z",
    "pit": "PIT, Kolmogorov-Smirnov",
}

_ERROR_TITLES = {"largest": "largest bound", "median": "median bound"}


class ReportTable(eqx.Module):
    """One table.

    Parameters
    ----------
    heading
        What it shows.
    long
        All digits, in long form, for a file.
    texts
        One row per method, for a reader.
    note
        How to read it.
    """

    heading: str
    long: pd.DataFrame
    texts: pd.DataFrame
    note: str


def report_tables(
    comparison: Comparison, sound: dict[str, xr.DataTree], reference: str | None
) -> dict[str, ReportTable]:
    """File name → table.

    Parameters
    ----------
    comparison
        The comparison.
    sound
        Those of its predictions that can be compared as distributions.
    reference
        The method among them that the others are measured from; None for none.
    """
    tables = {}
    if reference is not None and len(sound) > 1:
        data = comparison.data
        far = far_from_training(data.x_test, data.x_train)
        mixed = far if far.any() else None  # all points equally far, as if all were repeated
        long = compare_joint(sound, reference=reference, far=mixed)
        texts = wide_table(long).rename(columns=metric_title)
        heading = f"Joint distributions, compared with {reference}"
        tables["joint_distances"] = ReportTable(heading, long, texts, _JOINT_NOTE)
    long = calibration_table(comparison.predictions)
    note = _TESTS_NOTE if comparison.data.task == "classification" else _PIT_NOTE
    tables["calibration_tests"] = ReportTable("Tests of calibration", long, _test_texts(long), note)
    long = _solver_errors(comparison.predictions)
    if len(long):
        texts = long.set_index("method").map("{:.1e}".format).rename(columns=_ERROR_TITLES)
        heading = "Accuracy of the solvers"
        tables["solver_errors"] = ReportTable(heading, long, texts, _ERRORS_NOTE)
    return tables


def _solver_errors(predictions: dict[str, xr.DataTree]) -> pd.DataFrame:
    """Largest and median error bound of the draws of each method that has one."""
    found = {
        method: tree["sample_stats"].ds["error_bound"]
        for method, tree in predictions.items()
        if "error_bound" in tree["sample_stats"]
    }
    rows = [
        {"method": method, "largest": float(bound.max()), "median": float(bound.median())}
        for method, bound in found.items()
    ]
    return pd.DataFrame(rows)


def _test_texts(long: pd.DataFrame) -> pd.DataFrame:
    texts = [
        f"{statistic:.2f} ({'p < 0.001' if p < 0.001 else f'p = {p:.3f}'})"
        for statistic, p in zip(long["statistic"], long["p_value"], strict=True)
    ]
    wide = long.assign(text=texts).pivot(index="method", columns="test", values="text")
    there = [name for name in _TEST_TITLES if name in wide.columns]
    return wide.loc[long["method"].unique(), there].rename(columns=_TEST_TITLES)
