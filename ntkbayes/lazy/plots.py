"""Figures of a sweep: measures against width, and along training; see `ntkbayes.evaluation.plots`.

Points and lines are means over seeds (of logarithms where the axis is one), bars and bands 95 %
intervals of these means.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.stats
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from ntkbayes._checks import check_choice
from ntkbayes.evaluation.plots.style import (
    NotebookFigure,
    check_columns,
    finish_panels,
    grid_shape,
    legend_below,
    new_figure,
    styled,
    wrapped,
)
from ntkbayes.lazy.conditions import CONDITIONS
from ntkbayes.lazy.dynamics import ALL_LAYERS, MEASURES
from ntkbayes.lazy.sweep import COLUMNS, at_end

__all__ = ["name_widths", "plot_against_time", "plot_against_width", "plot_layers"]

LOOKS = {
    "regularized": ("#0072B2", "o", "-"),
    "unregularized": ("#D55E00", "v", (0, (6, 1.5, 1, 1.5))),
    "smoothed": ("#009E73", "D", (0, (4, 1.5))),
    "smoothed_regularized": ("#56B4E9", "s", (0, (6, 2))),
    "decay_to_zero": ("#000000", "X", (0, (1.2, 1.2))),
    "squared_error": ("#CC79A7", "^", (0, (4, 1.5, 1, 1.5))),
}
"""Colour, marker and dashes of each condition, in Okabe & Ito's colours."""

AGAINST_WIDTH = ("ntk_change", "linearization_gap", "flow_gap", "end_gap")
AGAINST_TIME = ("ntk_change", "logit_norm", "linearization_gap", "flow_gap")
LINEAR = ("logit_norm",)
"""Measures without a logarithmic axis: they have a scale of their own."""
SPREAD = 1.04
"""Points of different conditions at one width stand this factor beside each other."""
PANEL = 1.55
"""Size of a panel of a figure of many, in inches."""
MAX_WIDTHS = 6
"""Most widths named below a panel; of more, every second, third, …"""


@styled
def plot_against_width(
    table: pd.DataFrame, *, measures: Sequence[str] = AGAINST_WIDTH
) -> NotebookFigure:
    """Show measures at the end of training against width, a panel each, one line per condition.

    The grey line has slope −½, that of the bounds: only slopes are to be compared with it.

    Parameters
    ----------
    table
        A sweep's long table.
    measures
        Names from `ntkbayes.lazy.MEASURES`.

    Raises
    ------
    ValueError
        If the table lacks a column, or a measure is unknown.

    Examples
    --------
    >>> figure = nb.lazy.plot_against_width(sweep.table, measures=["ntk_change", "flow_gap"])
    >>> figure.savefig("width.png")
    >>> [axes.get_title() for axes in figure.axes]
    ['relative change of the NTK', 'distance to infinite width, same time']
    """
    shown = at_end(_checked(table, measures))
    rows, columns = grid_shape(len(measures), max_columns=2)
    figure = new_figure(0.6 + 3.1 * columns, 0.7 + 2.4 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    conditions = list(dict.fromkeys(shown["condition"]))
    for axes, measure in zip(panels, measures, strict=False):
        axes.set(xscale="log", yscale="log")
        part = shown.loc[shown["measure"] == measure, :]
        for position, name in enumerate(conditions):
            x, mean, low, high = _mean_of_logs(part.loc[part["condition"] == name, :], "width")
            if not len(x):
                continue
            aside = SPREAD ** (position - (len(conditions) - 1) / 2)
            _errorbar(axes, name, x * aside, mean, low, high)
        _guide(axes)
        _name_values(axes)
        axes.set_title(MEASURES[measure])
    name_widths(panels, sorted(set(shown["width"])))
    finish_panels(panels, len(measures), columns, xlabel="width")
    legend_below(figure, panels[0])
    return figure


@styled
def plot_against_time(
    table: pd.DataFrame,
    *,
    measures: Sequence[str] = AGAINST_TIME,
    titles: Mapping[str, str] | None = None,
) -> NotebookFigure:
    """Show measures along training, a row each, a column per condition, one line per width.

    Parameters
    ----------
    table
        A sweep's long table.
    measures
        Names from `ntkbayes.lazy.MEASURES`.
    titles
        Of the conditions. Default: those of `CONDITIONS`.

    Raises
    ------
    ValueError
        If the table lacks a column, or a measure is unknown.

    Examples
    --------
    >>> figure = nb.lazy.plot_against_time(sweep.table, measures=["ntk_change"])
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_title()
    ('training time', 'regularised')
    """
    shown = _checked(table, measures)
    shown = shown.loc[shown["time"] > 0, :]
    names, widths = list(dict.fromkeys(shown["condition"])), sorted(set(shown["width"]))
    titles = {name: condition.title for name, condition in CONDITIONS.items()} | dict(titles or {})
    figure = new_figure(0.8 + PANEL * max(len(names), 2), 0.6 + PANEL * len(measures))
    panels = figure.subplots(len(measures), len(names), squeeze=False, sharex=True, sharey="row")
    shades = dict(zip(widths, _shades(len(widths)), strict=True))
    for row, measure in zip(panels, measures, strict=True):
        for axes, name in zip(row, names, strict=True):
            axes.set(xscale="log", yscale="linear" if measure in LINEAR else "log")
            axes.minorticks_off()
            chosen = (shown["measure"] == measure) & (shown["condition"] == name)
            part = shown.loc[chosen, :]
            for width in widths:
                x, mean, low, high = _mean_of_logs(part.loc[part["width"] == width, :], "time")
                axes.fill_between(x, low, high, color=shades[width], alpha=0.12, lw=0)
                axes.plot(x, mean, color=shades[width], lw=1.3, label=f"width {width}")
            if not (part["value"].to_numpy() > 0).any():
                axes.text(
                    0.5, 0.5, "no reference", transform=axes.transAxes, ha="center", color="0.5"
                )
        row[0].set_ylabel(wrapped(MEASURES[measure], PANEL), fontsize=8)
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(wrapped(str(titles.get(name, name)), PANEL), fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("training time")
    legend_below(figure, panels[0, 0])
    return figure


@styled
def plot_layers(table: pd.DataFrame) -> NotebookFigure:
    """Show how far each layer's weights have moved at the end of training, against width.

    Parameters
    ----------
    table
        A sweep's long table.

    Raises
    ------
    ValueError
        If the table lacks a column.

    Examples
    --------
    >>> figure = nb.lazy.plot_layers(sweep.table)
    >>> [axes.get_title() for axes in figure.axes]
    ['layer 1', 'layer 2', 'all weights']
    """
    check_columns("table", table, COLUMNS)
    shown = at_end(table.loc[table["measure"] == "weight_movement", :])
    layers = [layer for layer in dict.fromkeys(shown["layer"]) if layer != ALL_LAYERS]
    layers = [*sorted(layers), ALL_LAYERS]
    rows, columns = grid_shape(len(layers))
    figure = new_figure(0.6 + 1.8 * max(columns, 2), 0.8 + 2.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, layer in zip(panels, layers, strict=False):
        axes.set(xscale="log", yscale="log")
        part = shown.loc[shown["layer"] == layer, :]
        for name in dict.fromkeys(part["condition"]):
            _errorbar(axes, name, *_mean_of_logs(part.loc[part["condition"] == name, :], "width"))
        _guide(axes)
        axes.set_title("all weights" if layer == ALL_LAYERS else f"layer {layer}")
        axes.set_xlabel("width")
    for axes in panels[len(layers) :]:
        axes.set_visible(False)
    name_widths(panels, sorted(set(shown["width"])))
    figure.supylabel(MEASURES["weight_movement"], fontsize=9)
    legend_below(figure, panels[0])
    return figure


def _checked(table: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    check_columns("table", table, COLUMNS)
    for measure in measures:
        check_choice("measure", measure, MEASURES)
    return table.loc[(table["layer"] == ALL_LAYERS) & table["measure"].isin(measures), :]


def _mean_of_logs(
    part: pd.DataFrame, by: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return positions, geometric mean over seeds, and the ends of its 95 % interval."""
    part = part.loc[part["value"] > 0, :]
    positions, where = np.unique(part[by].to_numpy(float), return_inverse=True)
    logs = np.log(part["value"].to_numpy(float))
    groups = [logs[where == i] for i in range(len(positions))]
    center = np.array([group.mean() for group in groups])
    reach = np.array([_reach(group) for group in groups])
    return positions, np.exp(center), np.exp(center - reach), np.exp(center + reach)


def _reach(values: np.ndarray) -> float:
    """Half a 95 % interval of the mean; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values))


def _errorbar(
    axes: Axes, name: str, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    color, marker, dashes = LOOKS.get(name, ("#882255", "P", "-"))
    condition = CONDITIONS.get(name)
    axes.errorbar(
        x, mean, [mean - low, high - mean], color=color, marker=marker, ls=dashes, ms=4, lw=1.2,
        elinewidth=0.9, capsize=1.5, label=condition.title if condition else name,
    )  # fmt: skip


def _guide(axes: Axes) -> None:
    """Draw a line of slope −½ from the height of the highest point."""
    points = [np.asarray(line.get_xydata()) for line in axes.get_lines()]
    if not any(len(each) for each in points):
        return
    xs, ys = np.concatenate(points).T
    x = np.array([xs.min(), xs.max()])
    y = ys.max() * (x / x[0]) ** -0.5
    axes.plot(x, y, color="0.7", lw=2.5, zorder=0, label="slope −½")


def name_widths(panels: np.ndarray, widths: Sequence[int]) -> None:
    """Put a tick at every width, and a name at as many as there is room for."""
    step = -(-len(widths) // MAX_WIDTHS)
    names = ["" if i % step else str(width) for i, width in enumerate(widths)]
    for axes in panels:
        axes.set_xticks(widths, names)
        axes.minorticks_off()


def _name_values(axes: Axes) -> None:
    """Label 1 and 3 of every decade: these panels span few of them."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _shades(count: int) -> list[tuple[float, ...]]:
    """Pale to dark blue."""
    return [tuple(colormaps["Blues"](value)) for value in np.linspace(0.35, 1.0, count)]
