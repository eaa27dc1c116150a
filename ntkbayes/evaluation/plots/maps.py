"""Maps of a classifier over a plane; see `plots` for what all figures have in common."""

import numpy as np
import scipy.special
from matplotlib.axes import Axes

from ntkbayes._types import AnyArray, Float, Int, typed
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.plots.style import NotebookFigure, new_figure, styled, wrapped

__all__ = ["draw_classes", "grid_points", "plot_probability_maps"]

_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "<", ">")
PANEL = 1.55
"""Width of a panel, in inches."""


@typed
def grid_points(x1: Float[AnyArray, "a"], x2: Float[AnyArray, "b"]) -> Float[np.ndarray, "b*a 2"]:
    """Return the points of a grid in the order `plot_probability_maps` expects: x1 runs fastest.

    Parameters
    ----------
    x1, x2
        Axes of the grid.

    Examples
    --------
    >>> nb.evaluation.grid_points(np.array([0.0, 1.0]), np.array([5.0, 6.0])).tolist()
    [[0.0, 5.0], [1.0, 5.0], [0.0, 6.0], [1.0, 6.0]]
    """
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
    """Map the probability of class 1, the total and the epistemic uncertainty over a plane.

    One column per method. Rows: the mean probability of class 1; the entropy of the mean
    probabilities (total uncertainty); the mutual information of label and function (its epistemic
    part, zero for a single deterministic predictor).

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

    Examples
    --------
    >>> x1, x2 = np.linspace(-2, 2, 20), np.linspace(-2, 2, 15)
    >>> grid = nb.evaluation.grid_points(x1, x2)
    >>> draws = {"Laplace": predictors["Laplace"].sample(key, grid, num_draws=50)}
    >>> figure = nb.evaluation.plot_probability_maps(
    ...     draws, x1=x1, x2=x2, x_train=data.x_train, y_train=data.y_train
    ... )
    >>> figure.axes[0].get_title(), len(figure.axes)
    ('Laplace', 6)
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
        "predictive entropy\n(nats)": [
            scipy.special.entr(v.mean(axis=0)).sum(axis=-1) for v in p.values()
        ],
        "mutual information\n(nats)": [metrics.pointwise_mutual_information(v) for v in p.values()],
    }
    ratio = float((x2[-1] - x2[0]) / (x1[-1] - x1[0]))
    size = (1.6 + PANEL * len(p), 0.7 + len(rows) * 1.5 * ratio)
    figure = new_figure(*size, compressed=True)
    panels = figure.subplots(len(rows), len(p), squeeze=False, sharex=True, sharey=True)
    top = max(float(v.max()) for v in rows["mutual information\n(nats)"])
    looks = (
        {"cmap": "RdBu_r", "vmin": 0, "vmax": 1},
        {"cmap": "cividis", "vmin": 0, "vmax": np.log(2)},
        {"cmap": "cividis", "vmin": 0, "vmax": top or 1},
    )
    for row, (label, maps), look in zip(panels, rows.items(), looks, strict=True):
        images = []
        for axes, values in zip(row, maps, strict=True):
            image = axes.pcolormesh(
                x1, x2, values.reshape(shape), shading="gouraud", rasterized=True, **look
            )
            images.append(image)
            draw_classes(axes, np.asarray(x_train), np.asarray(y_train))
            axes.set(aspect="equal", xlim=(x1[0], x1[-1]), ylim=(x2[0], x2[-1]))
            axes.locator_params(nbins=3)
        figure.colorbar(images[-1], ax=list(row), label=label)
    for axes, name in zip(panels[0], p, strict=True):
        axes.set_title(wrapped(name, PANEL - 0.15))
    return figure


def draw_classes(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Draw points of two features, each class with its own marker."""
    for label, marker in zip(np.unique(y), _MARKERS, strict=False):
        axes.scatter(*x[y == label].T, marker=marker, s=9, color="white", edgecolor="black", lw=0.5)
