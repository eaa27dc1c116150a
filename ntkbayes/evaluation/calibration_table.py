"""Tests of the calibration of several methods, side by side."""

import pandas as pd
import xarray as xr

from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.alignment import aligned
from ntkbayes.evaluation.predictive import Predictive
from ntkbayes.evaluation.storage import observations, probabilities

__all__ = ["calibration_table"]


def calibration_table(trees: dict[str, xr.DataTree]) -> pd.DataFrame:
    """Test whether every method is calibrated: in its top probability, or its distributions.

    Parameters
    ----------
    trees
        Predictions of each method at the same points; the keys name the methods.

    Returns
    -------
    DataFrame
        Columns ``dataset, split, method, test, statistic, p_value``. Of classes the tests are those
        of `ntkbayes.evaluation.metrics.calibration_tests`, of the probability of the most probable
        one; of a regression ``pit``, that of `ntkbayes.evaluation.metrics.pit_test`. A p-value is
        the probability of a more extreme statistic if the method is calibrated, not corrected for
        how many are looked at. Statistics grow with the number of points and are no measure of how
        far off a method is.

    Raises
    ------
    ValueError
        If the predictions are not comparable, or the noise of a regression is not Gaussian.

    Examples
    --------
    >>> table = nb.evaluation.calibration_table(trees)
    >>> list(table["test"].unique())
    ['kolmogorov_smirnov', 'kuiper', 'spiegelhalter']
    >>> bool(table["p_value"].between(0, 1).all())
    True
    >>> nb.evaluation.calibration_table(trees_sine)["test"].unique().tolist()
    ['pit']
    """
    trees = aligned(trees)
    rows = [
        {
            "dataset": tree.attrs["dataset"],
            "split": tree.attrs["split"],
            "method": method,
            "test": name,
            "statistic": found.statistic,
            "p_value": found.p_value,
        }
        for method, tree in trees.items()
        for name, found in _tests(tree).items()
    ]
    return pd.DataFrame(rows)


def _tests(tree: xr.DataTree) -> dict[str, metrics.CalibrationTest]:
    if tree.attrs["task"] == "classification":
        y = observations(tree)
        return metrics.calibration_tests(probabilities(tree).mean(axis=0), y)
    return {"pit": metrics.pit_test(Predictive(tree).pit)}
