"""How fast measures fall with width: slopes in log-log, with intervals.

A power law, value = A · width^s, is a line of slope s in logarithms. It is fitted by least squares
to all seeds at all widths, log value = a + s log width + ε, and the interval is that of Student's
t with N − 2 degrees of freedom. The logarithms of a measure scatter over seeds about equally at all
widths, as least squares assumes. The interval is one of the line's slope over the widths given; it
does not know how the law would bend beyond them, or bends within.
"""

import math

import numpy as np
import pandas as pd
import scipy.stats

from ntkbayes._checks import check_fraction
from ntkbayes.evaluation.plots.style import check_columns
from ntkbayes.lazy.sweep import COLUMNS, at_end

__all__ = ["fit_slopes"]

NOT_POWERS = ("objective", "logit_norm")
"""Measures that are no distance."""


def fit_slopes(table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Fit the slope of every measure at the end of training against width, in log-log.

    Parameters
    ----------
    table
        A sweep's long table.
    level
        Of the intervals, between 0 and 1.

    Returns
    -------
    DataFrame
        One row per condition, measure and layer: ``slope``, ``lower`` and ``upper`` end of its
        interval, the geometric mean over seeds at the widest network (``at_widest``),
        ``num_widths`` and ``num_values``. Values that are not positive or not finite are left out,
        and so are measures that are no distance (``objective``, ``logit_norm``) or have fewer than
        two widths or three values left.

    Raises
    ------
    ValueError
        If the table lacks a column, or the level is not between 0 and 1.

    Examples
    --------
    >>> slopes = nb.lazy.fit_slopes(sweep.table)
    >>> slopes.loc[slopes["measure"] == "ntk_change", ["condition", "slope", "num_values"]].round(1)
         condition  slope  num_values
    0  regularized   -0.5           4
    """
    check_columns("table", table, COLUMNS)
    check_fraction("level", level)
    last = at_end(table)
    usable = (last["value"] > 0) & (last["value"] < np.inf) & ~last["measure"].isin(NOT_POWERS)
    last = last.loc[usable, :]
    rows = [
        {"condition": names[0], "measure": names[1], "layer": names[2]} | _fit(group, level)
        for names, group in last.groupby(["condition", "measure", "layer"], sort=False)
        if group["width"].nunique() >= 2 and len(group) >= 3
    ]
    return pd.DataFrame(
        rows,
        columns=[
            "condition", "measure", "layer", "slope", "lower", "upper", "at_widest", "num_widths",
            "num_values",
        ],
    )  # fmt: skip


def _fit(group: pd.DataFrame, level: float) -> dict[str, float]:
    width = group["width"].to_numpy(float)
    x, y = np.log(width), np.log(group["value"].to_numpy(float))
    centered = x - x.mean()
    slope = float(centered @ y / (centered @ centered))
    residual = y - y.mean() - slope * centered
    freedom = len(x) - 2
    error = math.sqrt(residual @ residual / freedom / (centered @ centered))
    reach = float(scipy.stats.t.ppf(0.5 + level / 2, freedom)) * error
    return {
        "slope": slope,
        "lower": slope - reach,
        "upper": slope + reach,
        "at_widest": float(np.exp(y[width == width.max()].mean())),
        "num_widths": len(np.unique(width)),
        "num_values": len(group),
    }
