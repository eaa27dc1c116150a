"""Figures for any task: distances between methods, and metrics with their errors."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ntkbayes.evaluation.catalog import metric_info, metric_title
from ntkbayes.evaluation.plots.style import (
    NotebookFigure,
    finish_panels,
    grid_shape,
    method_looks,
    new_figure,
    styled,
)
from ntkbayes.evaluation.tables import floors

__all__ = ["plot_distance_heatmap", "plot_metric_forest"]


@styled
def plot_distance_heatmap(
    matrix: pd.DataFrame, *, label: str = "total variation (mean over test points)"
) -> NotebookFigure:
    """Show the distance between every two methods, as colours and numbers.

    Parameters
    ----------
    matrix
        Symmetric, from `distance_matrix`.
    label
        What the numbers are.

    Raises
    ------
    ValueError
        If the matrix is not square.

    Examples
    --------
    >>> matrix = nb.evaluation.distance_matrix(trees)
    >>> figure = nb.evaluation.plot_distance_heatmap(matrix)
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['NTK ensemble', 'Laplace']
    """
    values, names = matrix.to_numpy(dtype=float), [str(name) for name in matrix.index]
    if values.shape[0] != values.shape[1]:
        raise ValueError(f"matrix must be square, but has shape {values.shape}.")
    size = 0.72 * len(names)
    figure = new_figure(size + 2.8, size + 1.3, compressed=True)
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="Blues", vmin=0)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    middle = 0.55 * values.max()
    for (row, column), value in np.ndenumerate(values):
        text = "0" if row == column else f"{value:.3f}"
        color = "white" if value > middle else "black"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return figure


@styled
def plot_metric_forest(
    long: pd.DataFrame, *, metrics: Sequence[str] | None = None
) -> NotebookFigure:
    """Show every metric of every method with ± 2 standard errors; one panel per metric.

    A tick marks a floor: the Monte-Carlo floor of a distance, what draws of the same distribution
    would show, or the calibration error that chance alone would show. A dashed line marks what a
    calibrated predictor has, such as the level of a coverage.

    Parameters
    ----------
    long
        From `compare`.
    metrics
        Panels to show, in this order, by name or title, of those that `long` has; None for all.

    Raises
    ------
    ValueError
        If there is nothing to show.

    Examples
    --------
    >>> table = nb.compare(trees, reference="Laplace")
    >>> figure = nb.evaluation.plot_metric_forest(table, metrics=["nll", "ece", "total_variation"])
    >>> [axes.get_title() for axes in figure.axes]
    ['NLL', 'ECE', 'total variation']
    """
    known = list(long["metric"].unique())
    titles = {metric_title(name): name for name in known}
    chosen = known if metrics is None else [titles.get(text, text) for text in metrics]
    names = [name for name in chosen if name in known]
    if not names:
        raise ValueError("long holds none of the metrics to show.")
    methods = list(long["method"].unique())
    looks, (rows, columns) = method_looks(methods), grid_shape(len(names))
    figure = new_figure(1.5 + 2.0 * columns, 0.4 + rows * (0.75 + 0.21 * len(methods)))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        part = long.loc[long["metric"] == name, :]
        series = (part["method"], part["value"], part["standard_error"], floors(part))
        for method, value, error, floor in zip(*series, strict=True):
            y, look = methods.index(method), looks[method] | {"linestyle": "none"}
            axes.errorbar(value, y, xerr=2 * error, ms=4.5, elinewidth=1.3, **look)
            if np.isfinite(floor):
                axes.plot(floor, y, "|", ms=9, mew=1.5, color="0.45")
        if (nominal := metric_info(name).nominal) is not None:
            axes.axvline(nominal, color="0.45", lw=0.8, ls="--")
        axes.set_title(metric_title(name))
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    finish_panels(panels, len(names), columns)
    legend = "bars: ± 2 standard errors over test points"
    if any(metric_info(name).nominal is not None for name in names):
        legend += "  ·  dashed: calibrated"
    if floors(long.loc[long["metric"].isin(names), :]).notna().any():
        legend += "  ·  grey tick: floor (finite draws, or chance)"
    figure.supxlabel(legend, fontsize=8, color="0.35")
    return figure
