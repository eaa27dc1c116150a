"""Figures for any task: distances between methods, and metrics with their errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ntkbayes.evaluation.catalog import metric_info, metric_title
from ntkbayes.evaluation.plots.style import (
    CHARACTER,
    LINE,
    NotebookFigure,
    check_columns,
    finish_panels,
    grid_shape,
    method_looks,
    new_figure,
    note_below,
    styled,
    two_errors,
    wrapped,
)
from ntkbayes.evaluation.tables import floors, rows_by_metric

__all__ = ["plot_distance_heatmap", "plot_metric_forest"]

NAME = 1.9
"""Width of a method's name beside a panel, in inches; what is longer goes over several lines."""


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
    values = matrix.to_numpy(dtype=float)
    names = [wrapped(str(name), NAME) for name in matrix.index]
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
        text = "0" if row == column else f"{value:z.3f}".replace("-", "−")
        color = "white" if value > middle else "black"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, ax=axes, label=wrapped(label, size), shrink=0.8)
    return figure


@styled
def plot_metric_forest(
    long: pd.DataFrame, *, metrics: Sequence[str] | None = None
) -> NotebookFigure:
    """Show every metric of every method with ± 2 standard errors; one panel per metric.

    The bars end where a metric does: none says that an accuracy could be above 1. A tick marks
    a floor: the Monte-Carlo floor of a distance, what draws of the same distribution would
    show, or the calibration error that chance alone would show. A dashed line marks what a
    calibrated predictor has, such as the level of a coverage.

    Parameters
    ----------
    long
        From `compare`.
    metrics
        Panels to show, in this order, by name or title; None for all.

    Raises
    ------
    ValueError
        If `long` lacks a column or is empty, or a metric is not in it.

    Examples
    --------
    >>> table = nb.compare(trees, reference="Laplace")
    >>> figure = nb.evaluation.plot_metric_forest(table, metrics=["nll", "ece", "total_variation"])
    >>> [axes.get_title() for axes in figure.axes]
    ['NLL', 'ECE', 'total variation']
    """
    check_columns("long", long, ("method", "metric", "value", "standard_error"))
    shown = rows_by_metric(long, metrics)
    methods = list(long["method"].unique())
    names = [wrapped(str(method), NAME) for method in methods]
    lines = [name.splitlines() for name in names]
    height = 0.75 + len(methods) * (0.06 + LINE * max(map(len, lines)))
    width = 0.4 + CHARACTER * max(len(line) for name in lines for line in name)
    rows, columns = grid_shape(len(shown))
    figure = new_figure(width + 2.0 * columns, 0.4 + rows * height)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, (metric, part) in zip(panels, shown, strict=False):
        _forest_panel(axes, metric, part, methods)
        axes.set_yticks(range(len(methods)), names)
        axes.set_ylim(len(methods) - 0.5, -0.5)
    finish_panels(panels, len(shown), columns)
    note = "bars: ± 2 standard errors over test points"
    if any(metric_info(metric).nominal is not None for metric, _ in shown):
        note += "  ·  dashed: calibrated"
    if any(floors(part).notna().any() for _, part in shown):
        note += "  ·  grey tick: floor (finite draws, or chance)"
    note_below(figure, note)
    return figure


def _forest_panel(axes: Axes, metric: str, part: pd.DataFrame, methods: list[str]) -> None:
    """Draw one metric, and around it no more than what it can be."""
    looks, info = method_looks(methods), metric_info(metric)
    reach = two_errors(metric, part).T
    series = (part["method"], part["value"], reach, floors(part))
    for method, value, ends, floor in zip(*series, strict=True):
        y, look = methods.index(method), dict[str, Any](looks[method], linestyle="none")
        axes.errorbar(value, y, xerr=ends[:, None], ms=4.5, elinewidth=1.3, **look)
        if np.isfinite(floor):
            axes.plot(floor, y, "|", ms=9, mew=1.5, color="0.45")
    if info.nominal is not None:
        axes.axvline(info.nominal, color="0.45", lw=0.8, ls="--")
    low, high = axes.get_xlim()
    room = 0.04 * (high - low)  # for a marker at the end of what the metric can be
    axes.set_xlim(max(low, info.bounds[0] - room), min(high, info.bounds[1] + room))
    axes.set_title(metric_title(metric))
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
