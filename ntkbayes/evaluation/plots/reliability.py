"""Is the confidence in the top label justified? See `plots` for what all figures share.

References
----------
Dimitriadis, Gneiting & Jordan (2021), doi:10.1073/pnas.2016191118: the reliability diagram by
isotonic regression and its consistency bands · Guo et al. (2017), arXiv 1706.04599: bins.
"""

import numpy as np
import scipy.stats
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.alignment import aligned
from ntkbayes.evaluation.metrics.calibration import NUM_BINS
from ntkbayes.evaluation.plots.style import (
    NotebookFigure,
    finish_panels,
    grid_shape,
    legend_below,
    method_colors,
    name_panel,
    new_figure,
    styled,
)
from ntkbayes.evaluation.storage import observations, probabilities

__all__ = ["plot_confidence_histogram", "plot_reliability"]

NUM_RESAMPLES = 500
"""Resamples of the consistency band; its ends, 5 % quantiles, rest on 25 of them."""


@styled
def plot_reliability(trees: dict[str, xr.DataTree]) -> NotebookFigure:
    """Show accuracy against confidence of the top label, one panel per method.

    Points: accuracy in each of the 15 bins of the ECE that holds test points, at the bin's mean
    confidence, with a 95 % interval (Jeffreys). Line: the isotonic regression of being right on
    the confidence (pool adjacent violators), which needs no bins. Grey: its consistency band, where
    90 % of such fits lie at each confidence if right and wrong are drawn with the confidences as
    probabilities; a fit that leaves it is not calibrated. Below: test points in each bin.

    Parameters
    ----------
    trees
        Predictions of each method at the same points.

    Raises
    ------
    ValueError
        If the predictions are not comparable or not of a classification task.

    Examples
    --------
    >>> figure = nb.evaluation.plot_reliability(trees)
    >>> figure.savefig("reliability.png")
    >>> [axes.get_title() for axes in figure.axes[::2]]
    ['NTK ensemble', 'Laplace']
    """
    trees = aligned(trees)
    colors, (rows, columns) = method_colors(trees), grid_shape(len(trees))
    figure = new_figure(0.5 + 2.0 * max(columns, 2), 0.7 + 3.0 * rows)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3, 1] * rows)
    for i, (name, tree) in enumerate(trees.items()):
        row, column = divmod(i, columns)
        axes = figure.add_subplot(grid[2 * row, column], aspect="equal")
        name_panel(axes, name)
        below = figure.add_subplot(grid[2 * row + 1, column], sharex=axes)
        _reliability_panel(axes, below, tree, colors[name])
        axes.tick_params(labelbottom=False)
        if column == 0:
            axes.set_ylabel("accuracy")
            below.set_ylabel("points")
        else:
            axes.tick_params(labelleft=False)
            below.tick_params(labelleft=False)
        below.set_xlabel("confidence")
    neutral = {
        "isotonic fit": Line2D([], [], color="0.3", linewidth=1.3),
        "bin, 95 % interval": Line2D([], [], color="0.3", marker="o", ms=4, ls="none"),
    }
    legend_below(figure, figure.axes[0], neutral)
    return figure


@styled
def plot_confidence_histogram(trees: dict[str, xr.DataTree]) -> NotebookFigure:
    """Show how confident each method is where it is right, and where it is wrong.

    Filled: confidences (probability of the top label) of the test points whose label is right;
    hatched: of those whose label is wrong. Each of the two histograms sums to 1, so that few wrong
    answers are as visible as many right ones. Good uncertainty keeps the hatched bars to the left.

    Parameters
    ----------
    trees
        Predictions of each method at the same points.

    Raises
    ------
    ValueError
        If the predictions are not comparable or not of a classification task.

    Examples
    --------
    >>> figure = nb.evaluation.plot_confidence_histogram(trees)
    >>> [axes.get_title() for axes in figure.axes]
    ['NTK ensemble', 'Laplace']
    """
    trees = aligned(trees)
    colors, (rows, columns) = method_colors(trees), grid_shape(len(trees))
    figure = new_figure(0.6 + 1.9 * max(columns, 2), 0.7 + 1.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    edges = np.linspace(0, 1, NUM_BINS + 1)
    for axes, (name, tree) in zip(panels, trees.items(), strict=False):
        p, y = probabilities(tree).mean(axis=0), observations(tree)
        correct, bins = p.argmax(axis=1) == y, metrics.calibration_bins(p)
        shares = [
            np.bincount(bins[which], minlength=NUM_BINS) / max(which.sum(), 1)
            for which in (correct, ~correct)
        ]
        axes.stairs(shares[0], edges, fill=True, color=colors[name], alpha=0.75, label="right")
        axes.stairs(shares[1], edges, color="black", hatch="////", lw=0.9, label="wrong")
        counts = f"{correct.sum()} right, {(~correct).sum()} wrong"
        axes.text(0.03, 0.97, counts, transform=axes.transAxes, va="top", fontsize=7.5)
        axes.set(xlim=(0, 1), xticks=[0, 0.5, 1])
        name_panel(axes, name)
    highest = max(axes.dataLim.y1 for axes in panels[: len(trees)])
    panels[0].set_ylim(0, 1.2 * highest)  # room for the counts
    finish_panels(panels, len(trees), columns, xlabel="confidence")
    figure.supylabel("share of the right (wrong) points", fontsize=9)
    legend_below(figure, panels[0], {"right": Patch(fc="0.3", alpha=0.75)})
    return figure


def _reliability_panel(axes: Axes, below: Axes, tree: xr.DataTree, color: str) -> None:
    p, y = probabilities(tree).mean(axis=0), observations(tree)
    bins, confidence, correct = metrics.calibration_bins(p), p.max(axis=1), p.argmax(axis=1) == y
    weights = metrics.uniform_weights(len(y))
    levels, fit = metrics.isotonic_fit(confidence, correct, weights)
    low, high = consistency_band(confidence)
    axes.fill_between(levels, low, high, color="0.87", lw=0, zorder=0, label="90 % if calibrated")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=0)
    axes.plot(levels, fit, color=color, linewidth=1.3, label="isotonic fit")
    for b in np.unique(bins):
        inside = bins == b
        hits, count, where = correct[inside].sum(), inside.sum(), confidence[inside].mean()
        interval = scipy.stats.beta.ppf([0.025, 0.975], hits + 0.5, count - hits + 0.5)
        axes.plot([where, where], interval, color=color, linewidth=1, alpha=0.6)
        label = "bin, 95 % interval" if b == bins.min() else None
        axes.plot(where, hits / count, "o", color=color, markersize=4, label=label)
    ece = metrics.ece(p, y, weights)
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
    axes.text(0.97, 0.05, f"ECE {ece:.3f}", ha="right", fontsize=8, bbox=behind)
    edges, counts = np.linspace(0, 1, NUM_BINS + 1), np.bincount(bins, minlength=NUM_BINS)
    look = {"align": "edge", "color": color, "edgecolor": "white", "linewidth": 0.4}
    below.bar(edges[:-1], counts, np.diff(edges)[0], **look)
    below.set_yscale("symlog", linthresh=1)
    below.set(ylim=(0, len(y)), yticks=[0, 1, 10, 100], yticklabels=["0", "1", "10", "100"])
    below.minorticks_off()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])


def consistency_band(
    confidence: np.ndarray, *, level: float = 0.9, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends (u) between which isotonic fits lie if the confidences are right.

    At each of the u distinct confidences the central share `level` of the fits to outcomes drawn
    with the confidences (m) as probabilities.
    """
    generator, weights = np.random.default_rng(seed), metrics.uniform_weights(len(confidence))
    drawn = (generator.random(len(confidence)) < confidence for _ in range(NUM_RESAMPLES))
    fits = [metrics.isotonic_fit(confidence, outcome, weights)[1] for outcome in drawn]
    low, high = np.quantile(fits, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
