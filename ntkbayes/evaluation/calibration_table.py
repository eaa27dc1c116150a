"""Tests of the calibration of several methods' class probabilities, side by side."""

import pandas as pd
import xarray as xr

from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.alignment import aligned
from ntkbayes.evaluation.storage import observations, probabilities

__all__ = ["calibration_table"]


def calibration_table(trees: dict[str, xr.DataTree]) -> pd.DataFrame:
    """Test for every method whether the probability of its most probable class is calibrated.

    Parameters
    ----------
    trees
        Predictions of each method at the same points; the keys name the methods.

    Returns
    -------
    DataFrame
        Columns ``dataset, split, method, test, statistic, p_value``, the tests being those of
        `ntkbayes.evaluation.metrics.calibration_tests`. A p-value is the probability of a more
        extreme statistic if the method is calibrated, not corrected for how many are looked at.

    Raises
    ------
    ValueError
        If the predictions are not comparable or not of a classification task.

    Examples
    --------
    >>> table = nb.evaluation.calibration_table(trees)
    >>> list(table["test"].unique())
    ['kolmogorov_smirnov', 'kuiper', 'spiegelhalter']
    >>> bool(table["p_value"].between(0, 1).all())
    True
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
        for name, found in metrics.calibration_tests(
            probabilities(tree).mean(axis=0), observations(tree)
        ).items()
    ]
    return pd.DataFrame(rows)
