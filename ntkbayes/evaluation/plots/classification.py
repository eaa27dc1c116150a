"""Figures of class probabilities; see `plots` for what all figures have in common."""

import numpy as np
import scipy.special
import scipy.stats
import xarray as xr
from matplotlib.axes import Axes

from ntkbayes._checks import check_at_least
from ntkbayes._types import AnyArray, Float, Int, typed
from ntkbayes.datasets import Dataset
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.comparison import check_comparable
from ntkbayes.evaluation.metrics.calibration import NUM_BINS
from ntkbayes.evaluation.plots.style import (
    NotebookFigure,
    grid_shape,
    method_colors,
    new_figure,
    styled,
    two_lines,
)
from ntkbayes.evaluation.storage import observations, probabilities

__all__ = [
    "grid_points",
    "plot_predictive_distributions",
    "plot_probability_maps",
    "plot_reliability",
]

_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "<", ">")


@styled
def plot_reliability(trees: dict[str, xr.DataTree]) -> NotebookFigure:
    """Show accuracy against confidence of the top label, one panel per method.

    Points: accuracy in each of the 15 bins of the ECE that holds test points, at the bin's mean
    confidence, with a 95 % interval (Jeffreys). Below: how many test points each bin holds.

    Parameters
    ----------
    trees
        Predictions of each method at the same points.

    Raises
    ------
    ValueError
        If the predictions are not comparable or not of a classification task.
    """
    check_comparable(trees)
    colors, (rows, columns) = method_colors(trees), grid_shape(len(trees))
    figure = new_figure(0.5 + 2.0 * columns, 0.4 + 3.0 * rows)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3, 1] * rows)
    for i, (name, tree) in enumerate(trees.items()):
        row, column = divmod(i, columns)
        axes = figure.add_subplot(grid[2 * row, column], aspect="equal", title=name)
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
    return figure


@styled
def plot_predictive_distributions(
    trees: dict[str, xr.DataTree], data: Dataset, *, num_points: int = 6
) -> NotebookFigure:
    """Show test images beside the class probabilities that every method gives them.

    The first half are the points with the highest predictive entropy (mean over methods), the
    others those with the lowest. Bars: predictive probability (mean over draws); line: central
    90 % of the draws; shaded: the true class.

    Parameters
    ----------
    trees
        Predictions of each method at the same points.
    data
        Dataset with images.
    num_points
        Number of test points, at least 1; no more than there are.

    Raises
    ------
    ValueError
        If the predictions are not comparable, the data are no images, or `num_points` is below 1.
    """
    check_comparable(trees)
    check_at_least("num_points", num_points, 1)
    if data.image_shape is None:
        raise ValueError(f"{data.name} has no images to show.")
    draws, colors = (
        {name: probabilities(tree) for name, tree in trees.items()},
        method_colors(trees),
    )
    first = next(iter(trees.values()))
    y, points = observations(first), _ambiguous_and_confident(draws, num_points)
    x = np.asarray(getattr(data, f"x_{first.attrs['split']}"))[points]
    classes = [str(c) for c in np.asarray(first["posterior/output"])]
    figure = new_figure(1.2 + 1.35 * len(trees), 0.5 + 1.0 * len(points))
    panels = figure.subplots(len(points), 1 + len(trees), squeeze=False, sharey=False)
    pictures = np.asarray(data.images(x))
    for i, (row, point) in enumerate(zip(panels, points, strict=True)):
        row[0].imshow(pictures[i], cmap="gray_r")
        row[0].set(xticks=[], yticks=[], ylabel=f"true: {classes[y[point]]}")
        row[0].spines[:].set_visible(False)
        for axes, (name, p) in zip(row[1:], draws.items(), strict=True):
            _probability_bars(axes, p[:, point], int(y[point]), colors[name])
            axes.set_xticks(range(len(classes)), classes)
            axes.tick_params(
                labelbottom=i == len(points) - 1, labelleft=axes is row[1], labelsize=7
            )
    for axes, name in zip(panels[0, 1:], draws, strict=True):
        axes.set_title(two_lines(name), fontsize=8)
    panels[0, 0].set_title("image", fontsize=8)
    figure.supxlabel(
        "class  ·  bars: predictive probability, lines: central 90 % of the draws, "
        "shaded: true class",
        fontsize=8,
        color="0.35",
    )
    return figure


@typed
def grid_points(x1: Float[AnyArray, "a"], x2: Float[AnyArray, "b"]) -> Float[np.ndarray, "b*a 2"]:
    """Return the points of a grid in the order `plot_probability_maps` expects: x1 runs fastest."""
    first, second = np.meshgrid(np.asarray(x1), np.asarray(x2))
    return np.column_stack([first.ravel(), second.ravel()])


@styled
@typed
def plot_probability_maps(
    draws: dict[str, Float[AnyArray, "_ g 2"]],
    *,
    x1: Float[AnyArray, "a"],
    x2: Float[AnyArray, "b"],
    x_train: Float[AnyArray, "n 2"],
    y_train: Int[AnyArray, "n"],
) -> NotebookFigure:
    """Map the probability of class 1 and the epistemic uncertainty over a plane, per method.

    Parameters
    ----------
    draws
        Latent draws (s g c) of each method at ``grid_points(x1, x2)``, two classes.
    x1, x2
        Axes of the grid.
    x_train, y_train
        Training points, drawn on top.

    Raises
    ------
    ValueError
        If the draws are not at the points of the grid.
    """
    shape = (len(x2), len(x1))
    for name, latent in draws.items():
        if latent.shape[1] != shape[0] * shape[1]:
            raise ValueError(
                f"draws of {name} must be at {shape[0] * shape[1]} grid points, "
                f"but are at {latent.shape[1]}."
            )
    p = {k: scipy.special.softmax(np.asarray(v, dtype=float), axis=-1) for k, v in draws.items()}
    rows = {
        "mean probability\nof class 1": [v.mean(axis=0)[:, 1] for v in p.values()],
        "mutual information\n(nats)": [metrics.pointwise_mutual_information(v) for v in p.values()],
    }
    ratio = (x2[-1] - x2[0]) / (x1[-1] - x1[0])
    figure = new_figure(1.2 + 1.55 * len(p), 0.7 + 2 * 1.5 * float(ratio), compressed=True)
    panels = figure.subplots(2, len(p), squeeze=False, sharex=True, sharey=True)
    top = max(float(v.max()) for v in rows["mutual information\n(nats)"])
    looks = ({"cmap": "RdBu_r", "vmin": 0, "vmax": 1}, {"cmap": "cividis", "vmin": 0, "vmax": top})
    for row, (label, maps), look in zip(panels, rows.items(), looks, strict=True):
        images = []
        for axes, values in zip(row, maps, strict=True):
            images.append(axes.pcolormesh(x1, x2, values.reshape(shape), rasterized=True, **look))
            _class_points(axes, np.asarray(x_train), np.asarray(y_train))
            axes.set(aspect="equal", xlim=(x1[0], x1[-1]), ylim=(x2[0], x2[-1]))
        figure.colorbar(images[-1], ax=list(row), label=label)
    for axes, name in zip(panels[0], p, strict=True):
        axes.set_title(two_lines(name))
    return figure


def _reliability_panel(axes: Axes, below: Axes, tree: xr.DataTree, color: str) -> None:
    p, y = probabilities(tree).mean(axis=0), observations(tree)
    bins, confidence, correct = metrics.calibration_bins(p), p.max(axis=1), p.argmax(axis=1) == y
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=0)
    for b in np.unique(bins):
        inside = bins == b
        hits, count, where = correct[inside].sum(), inside.sum(), confidence[inside].mean()
        interval = scipy.stats.beta.ppf([0.025, 0.975], hits + 0.5, count - hits + 0.5)
        axes.plot([where, where], interval, color=color, linewidth=1, alpha=0.6)
        axes.plot(where, hits / count, "o", color=color, markersize=4)
    ece = metrics.ece(p, y, metrics.uniform_weights(len(y)))
    axes.text(0.97, 0.05, f"ECE {ece:.3f}", ha="right", fontsize=8)
    edges = np.linspace(0, 1, NUM_BINS + 1)
    below.bar(
        edges[:-1],
        np.bincount(bins, minlength=NUM_BINS),
        np.diff(edges)[0],
        align="edge",
        color=color,
        edgecolor="white",
        linewidth=0.4,
    )
    below.set_yscale("symlog", linthresh=1)
    below.set(ylim=(0, len(y)), yticks=[0, 1, 10, 100], yticklabels=["0", "1", "10", "100"])
    below.minorticks_off()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])


def _ambiguous_and_confident(draws: dict[str, np.ndarray], num_points: int) -> np.ndarray:
    """Half the points with the highest mean entropy, half with the lowest, in this order."""
    entropies = [scipy.special.entr(p.mean(axis=0)).sum(axis=-1) for p in draws.values()]
    order = np.argsort(-np.mean(entropies, axis=0), kind="stable")
    num_points = min(num_points, len(order))
    ambiguous = -(-num_points // 2)
    return np.concatenate([order[:ambiguous], order[len(order) - (num_points - ambiguous) :]])


def _probability_bars(axes: Axes, p: np.ndarray, truth: int, color: str) -> None:
    """Bars of the mean over draws of p (s c) with the central 90 % of the draws."""
    classes, (low, high) = np.arange(p.shape[1]), np.quantile(p, [0.05, 0.95], axis=0)
    axes.axvspan(truth - 0.5, truth + 0.5, color="0.88", zorder=0)
    axes.bar(classes, p.mean(axis=0), color=color, width=0.8)
    axes.vlines(classes, low, high, color="0.5", linewidth=0.9)
    axes.set(ylim=(0, 1), yticks=[0, 1], xlim=(-0.7, p.shape[1] - 0.3))


def _class_points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    for label, marker in zip(np.unique(y), _MARKERS, strict=False):
        axes.scatter(*x[y == label].T, marker=marker, s=9, color="white", edgecolor="black", lw=0.5)
