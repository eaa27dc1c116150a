"""Figures of ensembles: trained networks against infinite width, and variances against Bayes.

Bars are 95 % intervals from standard errors; see `ntkbayes.evaluation.plots`.
"""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from ntkbayes.evaluation.plots.style import (
    NotebookFigure,
    check_columns,
    finish_panels,
    grid_shape,
    legend_below,
    new_figure,
    styled,
)
from ntkbayes.lazy.ensembles import ENSEMBLE_COLUMNS, ENSEMBLE_MEASURES
from ntkbayes.lazy.plots import name_widths
from ntkbayes.lazy.variances import PROFILE_COLUMNS

__all__ = ["plot_ensembles", "plot_variance_profile"]

LOOKS = {
    "nngp": ("#56B4E9", "o"),
    "nngp, perturbed": ("#009E73", "D"),
    "ntk": ("#CC79A7", "v"),
    "ntk, perturbed": ("#0072B2", "s"),
    "Laplace": ("#E69F00", "^"),
}
"""Colour and marker of each method, in Okabe & Ito's colours; those of comparisons where shared."""


@styled
def plot_ensembles(table: pd.DataFrame) -> NotebookFigure:
    """Show how far ensembles of trained networks are from infinite width, a panel per measure.

    Parameters
    ----------
    table
        What `ensemble_sweep` returned.

    Raises
    ------
    ValueError
        If the table lacks a column.

    Examples
    --------
    >>> table = nb.lazy.ensemble_sweep(
    ...     network, nb.Categorical(2), data, key=key, prior_precision=1.0, widths=(8,),
    ...     num_members=40, num_draws=100,
    ... )
    >>> figure = nb.lazy.plot_ensembles(table)
    >>> figure.axes[0].get_title()
    'squared distance of means (in variances)'
    """
    check_columns("table", table, ENSEMBLE_COLUMNS)
    measures = [name for name in ENSEMBLE_MEASURES if name in set(table["measure"])]
    rows, columns = grid_shape(len(measures), max_columns=2)
    figure = new_figure(0.6 + 3.1 * columns, 0.5 + 2.1 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    floors: dict[str, Artist] = {}
    for axes, measure in zip(panels, measures, strict=False):
        part = table.loc[table["measure"] == measure, :].sort_values("width")
        width = part["width"].to_numpy(float)
        axes.axhline(0, color="0.7", lw=0.8, zorder=0)
        value, error = (part[name].to_numpy(float) for name in ("value", "standard_error"))
        _errorbar(axes, width, value, error, "#D55E00", "o")
        floor = part["monte_carlo_floor"].to_numpy(float)
        if np.isfinite(floor).any():
            label = "what equal distributions would show"
            (dashed,) = axes.plot(width, floor, color="0.5", ls=(0, (4, 1.5)), lw=1.2)
            floors[label] = dashed
        axes.set_xscale("log")
        axes.set_title(ENSEMBLE_MEASURES[measure])
    name_widths(panels, sorted(set(table["width"])))
    finish_panels(panels, len(measures), columns, xlabel="width")
    if floors:
        legend_below(figure, panels[0], floors)
    return figure


@styled
def plot_variance_profile(table: pd.DataFrame) -> NotebookFigure:
    """Show variances over Laplace's and over HMC's, by distance from the training data.

    Markers are measured, dashed lines predicted to first order (over Laplace's only).

    Parameters
    ----------
    table
        What `variance_profile` returned.

    Raises
    ------
    ValueError
        If the table lacks a column.

    Examples
    --------
    >>> table = nb.lazy.variance_profile(
    ...     network, data, key=key, prior_precision=1.0, num_draws=4000, num_away=5, num_bins=2
    ... )
    >>> figure = nb.lazy.plot_variance_profile(table)
    >>> [axes.get_title() for axes in figure.axes]
    ['variance over Laplace’s', 'variance over HMC’s']
    """
    check_columns("table", table, PROFILE_COLUMNS)
    figure = new_figure(7.0, 3.4)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, reference in zip(panels, ("Laplace", "HMC"), strict=True):
        axes.axhline(1, color="0.7", lw=0.8, zorder=0)
        for name, part in table.groupby("method", sort=False):
            color, marker = LOOKS.get(str(name), ("#882255", "P"))
            if name == reference:
                continue
            x = part["distance"].to_numpy(float)
            ratio = f"to_{reference.lower()}"
            value, error = (part[column].to_numpy(float) for column in (ratio, f"{ratio}_error"))
            _errorbar(axes, x, value, error, color, marker, label=str(name))
            if reference == "Laplace":
                axes.plot(x, part["predicted"], color=color, ls=(0, (4, 1.5)), lw=1.0)
        axes.set(yscale="log", xlabel="distance from the training data")
        axes.set_title(f"variance over {reference}’s")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    legend_below(figure, panels[1])
    return figure


def _errorbar(
    axes: Axes,
    x: np.ndarray,
    value: np.ndarray,
    error: np.ndarray,
    color: str,
    marker: str,
    label: str | None = None,
) -> None:
    axes.errorbar(
        x, value, 1.96 * error, color=color, marker=marker, ms=4,
        lw=1.0, elinewidth=0.9, capsize=1.5, label=label,
    )  # fmt: skip
