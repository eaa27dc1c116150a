"""Figures of regression; see `plots` for what all figures have in common."""

import numpy as np
import scipy.special
import scipy.stats
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ntkbayes._types import AnyArray, Float, typed
from ntkbayes.evaluation import metrics, mixtures
from ntkbayes.evaluation.alignment import aligned
from ntkbayes.evaluation.plots.style import (
    NotebookFigure,
    finish_panels,
    grid_shape,
    legend_below,
    method_colors,
    name_panel,
    new_figure,
    plot_others,
    styled,
)
from ntkbayes.evaluation.predictive import predictive_mixture
from ntkbayes.evaluation.storage import observations

__all__ = ["plot_bands", "plot_coverage"]

OUTER, INNER = 0.22, 0.4
"""Opacity of the 95 % and the 50 % band."""


@styled
@typed
def plot_bands(
    draws: dict[str, Float[AnyArray, "_ g"]],
    *,
    x_grid: Float[AnyArray, "g"],
    x_train: Float[AnyArray, "n"],
    y_train: Float[AnyArray, "n"],
    exact: tuple[Float[AnyArray, "g"], Float[AnyArray, "g"]] | None = None,
    gap: tuple[float, float] | None = None,
) -> NotebookFigure:
    """Show the latent function over one input: mean, 50 % and 95 % bands, one panel per method.

    The bands are central intervals of the *latent* function; observation noise is excluded.

    Parameters
    ----------
    draws
        Latent draws (s g) of each method on the grid.
    x_grid
        Inputs of the draws, increasing.
    x_train, y_train
        Training points.
    exact
        Mean and variance (g,) of the exact GP posterior, drawn as thin outlines in every panel.
    gap
        Interval of inputs without training points, hatched.

    Examples
    --------
    >>> x_grid = np.linspace(-2, 2, 200)
    >>> draws = {"GP": predictors_sine["GP"].sample(key, x_grid[:, None], num_draws=50)[:, :, 0]}
    >>> figure = nb.evaluation.plot_bands(
    ...     draws, x_grid=x_grid, x_train=sine.x_train[:, 0], y_train=sine.y_train
    ... )
    >>> figure.axes[0].get_title(), figure.get_supylabel()
    ('GP', 'latent function (noise excluded)')
    """
    colors, (rows, columns) = method_colors(draws), grid_shape(len(draws))
    figure = new_figure(0.5 + 2.3 * max(columns, 2), 0.7 + 1.75 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    x = np.asarray(x_grid)
    for axes, (name, latent) in zip(panels, draws.items(), strict=False):
        values, color = np.asarray(latent, dtype=float), colors[name]
        low, lower, upper, high = np.quantile(values, [0.025, 0.25, 0.75, 0.975], axis=0)
        if gap is not None:
            axes.axvspan(*gap, fill=False, hatch="//", ec="0.8", lw=0, zorder=0, label="no data")
        axes.fill_between(x, low, high, color=color, alpha=OUTER, lw=0, label="95 % band")
        axes.fill_between(x, lower, upper, color=color, alpha=INNER, lw=0, label="50 % band")
        axes.plot(x, values.mean(axis=0), color=color, label="mean")
        axes.plot(x_train, y_train, ".", color="0.25", ms=2.5, zorder=3, label="training data")
        if exact is not None:
            _exact_outline(axes, x, *exact)
        name_panel(axes, name)
    finish_panels(panels, len(draws), columns, xlabel="x")
    figure.supylabel("latent function (noise excluded)", fontsize=9)
    grey = {
        "95 % band": Patch(fc="0.3", alpha=OUTER),
        "50 % band": Patch(fc="0.3", alpha=1 - (1 - OUTER) * (1 - INNER)),  # it lies on the other
        "mean": Line2D([], [], color="0.3"),
    }
    legend_below(figure, panels[0], grey)
    return figure


@styled
def plot_coverage(trees: dict[str, xr.DataTree]) -> NotebookFigure:
    """Show the share of test observations inside central intervals against their nominal level.

    One panel per method, with the others in grey. Above the diagonal intervals are too wide, below
    too narrow. Shaded: where 95 % of perfectly calibrated predictors would lie at each level, given
    the number of test points.

    Parameters
    ----------
    trees
        Predictions of each method at the same points, a regression task.

    Raises
    ------
    ValueError
        If the predictions are not comparable or not of a regression task.

    Examples
    --------
    >>> figure = nb.evaluation.plot_coverage(trees_sine)
    >>> figure.axes[0].get_xlabel(), figure.get_supylabel()
    ('nominal level', 'share of test points inside')
    """
    trees = aligned(trees)
    first = next(iter(trees.values()))
    if first.attrs["task"] != "regression":
        raise ValueError(f"coverage needs a regression task, not {first.attrs['task']}.")
    y, colors = observations(first), method_colors(trees)
    levels, weights = np.linspace(0.05, 0.95, 19), metrics.uniform_weights(len(y))
    shares = {
        name: (
            levels,
            [float(metrics.coverage(central_level, float(k), weights)) for k in levels],
        )
        for name, tree in trees.items()
        for central_level in [mixtures.central_level(*predictive_mixture(tree), y)]
    }
    rows, columns = grid_shape(len(trees))
    figure = new_figure(0.6 + 1.8 * columns, 0.8 + 1.95 * rows, compressed=True)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    fine = np.linspace(0, 1, 201)
    band = scipy.stats.binom.ppf([[0.025], [0.975]], y.size, fine) / y.size
    for axes, (name, curve) in zip(panels, shares.items(), strict=False):
        axes.fill_between(fine, *band, color="0.92", lw=0, label="expected by chance (95 %)")
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        plot_others(axes, name, shares)
        axes.plot(*curve, "o-", ms=2.5, lw=1.2, color=colors[name])
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        name_panel(axes, name)
    finish_panels(panels, len(trees), columns, xlabel="nominal level")
    figure.supylabel("share of test points inside", fontsize=9)
    legend_below(figure, panels[0])
    return figure


def _exact_outline(axes: Axes, x: np.ndarray, mean: AnyArray, variance: AnyArray) -> None:
    half_width = scipy.special.ndtri(0.975) * np.sqrt(np.asarray(variance))
    for i, shift in enumerate((0, -half_width, half_width)):
        label = "exact GP: mean and 95 % band" if i == 0 else None
        axes.plot(x, np.asarray(mean) + shift, color="black", lw=0.7, ls=(0, (4, 2)), label=label)
