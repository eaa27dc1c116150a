"""How many draws are enough; see `plots` for what all figures share."""

import numpy as np
import xarray as xr

from ntkbayes._checks import check_at_least, check_choice
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.alignment import aligned
from ntkbayes.evaluation.catalog import metric_name, metric_title
from ntkbayes.evaluation.measures import Metric, distance_measures, measures
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
from ntkbayes.evaluation.predictive import Predictive
from ntkbayes.evaluation.storage import observations, pooled

__all__ = ["plot_convergence"]

_DRAWN = ("posterior/latent", "log_likelihood/y", "probabilities/p")


@styled
def plot_convergence(
    trees: dict[str, xr.DataTree],
    metric: str,
    *,
    reference: str | None = None,
    num_orders: int = 10,
    seed: int = 0,
) -> NotebookFigure:
    """Show a metric at the test points against the number of draws (members) it is computed from.

    All draws of a method are put into a random order, chains mixed, and the first 1, 2, 4, … taken.
    Line: mean over `num_orders` orders; band: ± 2 standard deviations over orders, widened by
    1/√(1 − k/S) because subsets of k of the S draws overlap; no band beyond S/2, where they share
    most. The last point is all S draws. A method with one draw is a level line. One
    panel per method, with the others in grey. Where a metric is
    known in closed form, the draws are used here all the same.

    Parameters
    ----------
    trees
        Predictions of each method at the same points.
    metric
        Name of a metric in the table of `compare`; a distance needs `reference`.
    reference
        Method to measure distances from, with all its draws; it gets no line.
    num_orders
        Number of random orders, at least 2.
    seed
        Seed of the orders.

    Raises
    ------
    ValueError
        If the predictions are not comparable, the metric or the reference is unknown, or
        `num_orders` is below 2.

    Examples
    --------
    >>> figure = nb.evaluation.plot_convergence(trees, "nll")
    >>> figure.axes[0].get_xlabel(), figure.get_supylabel()
    ('number of draws', 'NLL')
    """
    trees = aligned(trees)
    check_at_least("num_orders", num_orders, 2)
    if reference is not None:
        check_choice("reference", reference, trees)
    fixed = None if reference is None else Predictive(trees[reference])
    curves = {
        name: _curve(tree, metric, fixed, num_orders, seed)
        for name, tree in trees.items()
        if name != reference
    }
    colors, (rows, columns) = method_colors(curves), grid_shape(len(curves))
    figure = new_figure(0.7 + 1.9 * max(columns, 2), 0.7 + 1.75 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    panels[0].set_xscale("log", base=2)
    panels[0].xaxis.set_major_formatter("{x:.0f}")
    for axes, (name, (sizes, mean, spread)) in zip(panels, curves.items(), strict=False):
        plot_others(axes, name, curves)
        half = sizes <= sizes[-1] / 2
        ends = (mean[half] - 2 * spread[half], mean[half] + 2 * spread[half])
        axes.fill_between(sizes[half], *ends, color=colors[name], alpha=0.22, lw=0)
        axes.plot(sizes, mean, "o-", color=colors[name], ms=3.5, lw=1.3)
        if len(sizes) == 1:  # one draw says the same at every number
            axes.axhline(mean[0], color=colors[name], lw=1.3)
        name_panel(axes, name)
    finish_panels(panels, len(curves), columns, xlabel="number of draws")
    figure.supylabel(metric_title(metric), fontsize=9)
    if len(curves) > 1:
        legend_below(figure, panels[0])
    return figure


def _curve(
    tree: xr.DataTree, metric: str, reference: Predictive | None, num_orders: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of draws 1, 2, 4, …, S; mean and spread of the metric over orders at each."""
    draws = {path: pooled(tree, path) for path in _DRAWN if path.split("/")[0] in tree.children}
    total = len(draws[_DRAWN[0]])
    sizes = np.unique(np.append(2 ** np.arange(int(np.log2(total)) + 1), total))
    generator = np.random.default_rng(seed)
    values = np.empty((num_orders, len(sizes)))
    for order in range(num_orders):
        permutation = generator.permutation(total)
        for i, size in enumerate(sizes):
            first = {path: v[permutation[:size]] for path, v in draws.items()}
            values[order, i] = _value(tree, first, metric, reference)
    overlap = np.sqrt(np.maximum(1 - sizes / total, 1 / total))
    return sizes, values.mean(axis=0), values.std(axis=0, ddof=1) / overlap


def _with_draws(tree: xr.DataTree, draws: dict[str, np.ndarray]) -> xr.DataTree:
    """Predictions with other draws, of one chain, and without a closed form that needs none."""
    dims = ("chain", "draw", "obs_id", "output")
    groups = {"/": xr.Dataset(attrs=tree.attrs), "observed_data": tree["observed_data"].dataset}
    for path, values in draws.items():
        group, name = path.split("/")
        groups[group] = xr.Dataset({name: (dims[: values.ndim + 1], values[None])})
    return xr.DataTree.from_dict(groups)


def _value(
    tree: xr.DataTree, draws: dict[str, np.ndarray], metric: str, reference: Predictive | None
) -> float:
    weights = metrics.uniform_weights(len(observations(tree)))
    if metric == "nll":  # without binding all the others, some of them slow
        return float(metrics.mixture_nll(draws["log_likelihood/y"], weights))
    subset = _with_draws(tree, draws)
    bound: dict[str, Metric] = measures(Predictive(subset))
    if reference is not None:
        bound |= distance_measures(Predictive(subset), reference)
    return float(bound[metric_name(metric, bound)](weights))
