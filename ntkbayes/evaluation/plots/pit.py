"""Calibration of a whole predictive distribution; see `plots` for what all figures share.

References
----------
Dawid (1984), doi:10.2307/2981683: probability integral transforms · Säilynoja, Bürkner & Vehtari
(2022), doi:10.1007/s11222-022-10090-6, Algorithm 1: the simultaneous band, by simulation.
"""

import numpy as np
import scipy.stats
import xarray as xr

from ntkbayes._checks import check_fraction
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
from ntkbayes.evaluation.predictive import Predictive
from ntkbayes.evaluation.storage import observations

__all__ = ["plot_pit_ecdf"]

NUM_SIMULATIONS = 1000
MAX_POINTS = 100
"""Largest number of places at which the band is simulated."""


@styled
def plot_pit_ecdf(trees: dict[str, xr.DataTree], *, level: float = 0.95) -> NotebookFigure:
    """Show how far the probability integral transforms of the test points are from uniform.

    The transform of an observation is F(y) of its predictive distribution, noise included: uniform
    if the predictions are calibrated. Drawn is the empirical distribution function of the
    transforms minus that of the uniform, one panel per method with the others in grey. Shaded: the
    band in which it stays *as a whole* with probability `level` if they are independent and
    uniform. An S that is first above and then below says intervals too narrow, the reverse too
    wide; a single arch says biased predictions.

    Parameters
    ----------
    trees
        Predictions of each method at the same points, of a regression or counts, whose transforms
        are randomised.
    level
        Simultaneous coverage of the band, between 0 and 1.

    Raises
    ------
    ValueError
        If the predictions are not comparable or of a classification task, or `level` is not
        between 0 and 1.

    Examples
    --------
    >>> figure = nb.evaluation.plot_pit_ecdf(trees_sine)
    >>> figure.axes[0].get_xlabel(), figure.get_supylabel()
    ('PIT', 'ECDF − uniform')
    """
    trees = aligned(trees)
    first = next(iter(trees.values()))
    if first.attrs["task"] == "classification":
        raise ValueError("the PIT needs a regression task or counts, not classification.")
    check_fraction("level", level)
    places, low, high = uniform_ecdf_band(observations(first).size, level)
    curves = {name: _difference(Predictive(tree).pit.ravel()) for name, tree in trees.items()}
    colors, (rows, columns) = method_colors(trees), grid_shape(len(trees))
    figure = new_figure(0.7 + 1.9 * max(columns, 2), 0.8 + 1.75 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, name in zip(panels, curves, strict=False):
        band = f"{100 * level:g} % band if calibrated"
        axes.fill_between(places, low, high, color="0.9", lw=0, label=band)
        axes.axhline(0, color="0.6", linewidth=0.8)
        plot_others(axes, name, curves)
        axes.plot(*curves[name], color=colors[name], lw=1.4)
        axes.set(xlim=(0, 1), xticks=[0, 0.5, 1])
        name_panel(axes, name)
    finish_panels(panels, len(trees), columns, xlabel="PIT")
    figure.supylabel("ECDF − uniform", fontsize=9)
    legend_below(figure, panels[0])
    return figure


def uniform_ecdf_band(
    num_points: int, level: float, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Band that holds ECDF − identity of uniform points simultaneously with probability `level`.

    At z_k = k/K the count below z_k is Binomial(m, z_k). Among simulated samples the smallest
    two-sided tail probability over k is γ in the `level` upper ones; the band has the binomial
    quantiles γ/2 and 1 − γ/2 at every z_k. Returns 0, z_1, …, 1 with both ends there.
    """
    num_places = min(num_points, MAX_POINTS)
    places = np.arange(1, num_places) / num_places
    cells = np.random.default_rng(seed).multinomial(
        num_points, np.full(num_places, 1 / num_places), size=NUM_SIMULATIONS
    )
    counts = cells.cumsum(axis=1)[:, :-1]
    binomial = scipy.stats.binom(num_points, places)
    tails = np.minimum(binomial.cdf(counts), binomial.sf(counts - 1))
    tail = np.quantile(tails.min(axis=1, initial=0.5), 1 - level)
    low, high = (binomial.ppf(q) / num_points - places for q in (tail, 1 - tail))
    places = np.concatenate([[0], places, [1]])
    return places, np.pad(low, 1), np.pad(high, 1)


def _difference(transforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of ECDF(z) − z, which jumps up at every transform and falls in between."""
    z, m = np.sort(transforms), transforms.size
    steps = np.arange(m + 1) / m
    x = np.concatenate([[0], np.repeat(z, 2), [1]])
    return x, np.repeat(steps, 2) - x
