"""Test images and their class probabilities; see `plots` for what all figures share."""

import numpy as np
import scipy.special
import xarray as xr
from matplotlib.axes import Axes

from ntkbayes._checks import check_at_least
from ntkbayes.datasets import Dataset
from ntkbayes.evaluation.alignment import aligned_with
from ntkbayes.evaluation.plots.style import (
    NotebookFigure,
    method_colors,
    new_figure,
    note_below,
    styled,
    wrapped,
)
from ntkbayes.evaluation.schema import output_names
from ntkbayes.evaluation.storage import observations, probabilities

__all__ = ["plot_predictive_distributions"]

ROW, COLUMN = 1.0, 1.35
"""Height and width of a panel, in inches."""
MAX_NAMES = 10
"""Most classes named below a panel; of more, every second, third, …"""


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
        If the predictions are not comparable or not those of the data, the data are no images, or
        `num_points` is below 1.

    Examples
    --------
    >>> digits = nb.load_dataset("digits", num_train=100)
    >>> p = np.full((500, 10), 0.1)
    >>> tree = nb.from_probabilities(p, digits.y_test, key=key, method="uniform", dataset="digits")
    >>> figure = nb.evaluation.plot_predictive_distributions(
    ...     {"uniform": tree}, digits, num_points=2
    ... )
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['image', 'uniform']
    """
    check_at_least("num_points", num_points, 1)
    if data.image_shape is None:
        raise ValueError(f"{data.name} has no images to show.")
    trees, rows = aligned_with(trees, data)
    draws, colors = (
        {name: probabilities(tree) for name, tree in trees.items()},
        method_colors(trees),
    )
    first = next(iter(trees.values()))
    y, points = observations(first), _ambiguous_and_confident(draws, num_points)
    x = np.asarray(getattr(data, f"x_{first.attrs['split']}"))[rows[points]]
    classes = [name or f"output_{i}" for i, name in enumerate(output_names(first))]
    named = range(0, len(classes), -(-len(classes) // MAX_NAMES))
    slant = 90 if max(map(len, classes)) > 2 else 0
    figure = new_figure(1.2 + COLUMN * len(trees), 0.5 + ROW * len(points))
    panels = figure.subplots(len(points), 1 + len(trees), squeeze=False, sharey=False)
    pictures = _shown(np.asarray(data.images(x)), np.asarray(data.images(data.x_train)))
    for i, (row, point) in enumerate(zip(panels, points, strict=True)):
        row[0].imshow(pictures[i], cmap="gray_r")
        truth = wrapped(f"true: {classes[y[point]]}", ROW)
        row[0].set(xticks=[], yticks=[], ylabel=truth)
        row[0].spines[:].set_visible(False)
        for axes, (name, p) in zip(row[1:], draws.items(), strict=True):
            _probability_bars(axes, p[:, point], int(y[point]), colors[name])
            axes.set_xticks(named, [wrapped(classes[c], ROW) for c in named], rotation=slant)
            axes.tick_params(
                labelbottom=i == len(points) - 1, labelleft=axes is row[1], labelsize=7
            )
    for axes, name in zip(panels[0, 1:], draws, strict=True):
        axes.set_title(wrapped(name, COLUMN), fontsize=8)
    panels[0, 0].set_title("image", fontsize=8)
    note_below(
        figure,
        "class  ·  bars: predictive probability, lines: central 90 % of the draws, "
        "shaded: true class",
    )
    return figure


def _shown(pictures: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return pictures (m h w) of one channel as they are, in color with intensities from 0 to 1.

    Of two channels, or more than four, the mean over channels is shown.
    """
    if pictures.ndim == 3 or pictures.shape[-1] not in (3, 4):
        return pictures if pictures.ndim == 3 else pictures.mean(axis=-1)
    low, high = train.min(), train.max()
    return np.clip((pictures - low) / (high - low), 0, 1)


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
