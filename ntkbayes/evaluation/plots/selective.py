"""What uncertainty is for: abstaining, and noticing other data; see `plots` for what all share.

References
----------
Geifman & El-Yaniv (2017), arXiv 1705.08500: risk against coverage · Hendrycks & Gimpel (2017),
arXiv 1610.02136: scores of inputs in and out of distribution, and their AUROC · Ovadia et al.
(2019), arXiv 1906.02530: metrics against the severity of a shift.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from sklearn.metrics import roc_auc_score

from ntkbayes._checks import check_finite, check_not_empty
from ntkbayes._types import AnyArray, Float, typed
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.alignment import aligned
from ntkbayes.evaluation.catalog import metric_title
from ntkbayes.evaluation.plots.style import (
    NotebookFigure,
    check_columns,
    finish_panels,
    grid_shape,
    legend_below,
    method_colors,
    method_looks,
    name_panel,
    new_figure,
    styled,
    two_errors,
)
from ntkbayes.evaluation.storage import observations, probabilities

__all__ = ["plot_ood_scores", "plot_risk_coverage", "plot_severity"]

NUM_SCORE_BINS = 30
FEW = 20
"""Error rates of fewer answers are too noisy to decide what a figure shows."""


@styled
def plot_risk_coverage(trees: dict[str, xr.DataTree]) -> NotebookFigure:
    """Show the error rate among the most confident test points against how many those are.

    Coverage k/m: the k points with the highest confidence (probability of the top label) are
    answered, the others left; risk: the share of wrong labels among the k. Points of equal
    confidence are answered together. A curve that falls to the left earns from its uncertainty;
    at coverage 1 is the error rate. Shown is where the curves are: to the left of it no method
    errs, and the rates of the first twenty answers, too few to tell, may leave the axes.

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
    >>> figure = nb.evaluation.plot_risk_coverage(trees)
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('share answered (coverage)', 'error rate of the answers (risk)')
    """
    trees = aligned(trees)
    curves = {
        name: metrics.risk_coverage_curve(p, y, metrics.uniform_weights(len(y)))
        for name, tree in trees.items()
        for p, y in [(probabilities(tree).mean(axis=0), observations(tree))]
    }
    figure = new_figure(5.0, 3.4)
    axes = figure.add_subplot()
    for name, look in method_looks(trees).items():
        marked = np.linspace(0.1, 1, 7) * (len(curves[name][0]) - 1)  # the last is the error rate
        axes.plot(*curves[name], **look, lw=1.4, ms=4.5, markevery=marked.astype(int), label=name)
    _crop(axes, curves, len(observations(next(iter(trees.values())))))
    axes.set_xlabel("share answered (coverage)")
    axes.set_ylabel("error rate of the answers (risk)")
    legend_below(figure, axes)
    return figure


@styled
@typed
def plot_ood_scores(
    scores: dict[str, tuple[Float[AnyArray, "_"], Float[AnyArray, "_"]]],
    *,
    label: str = "predictive entropy (nats)",
) -> NotebookFigure:
    """Show the uncertainty each method gives to data like its training data, and to other data.

    Filled: in distribution; hatched: out of distribution; each sums to 1. Written: the AUROC, the
    probability that an input from outside has the higher score (½ if the score says nothing).

    Parameters
    ----------
    scores
        Method → scores of the points in, and of those out of distribution; higher is more
        uncertain.
    label
        What the scores are.

    Raises
    ------
    ValueError
        If there are no scores, or a score is not finite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = {"Laplace": (rng.uniform(0, 0.5, size=300), rng.uniform(0.6, 0.7, size=100))}
    >>> figure = nb.evaluation.plot_ood_scores(scores)
    >>> figure.axes[0].texts[0].get_text()
    'AUROC 1.000'
    """
    if not scores:
        raise ValueError("scores is empty: at least one method's scores are needed.")
    arrays = {
        name: tuple(np.asarray(values, dtype=float) for values in pair)
        for name, pair in scores.items()
    }
    for name, pair in arrays.items():
        for which, values in zip(("in", "out of"), pair, strict=True):
            check_not_empty(f"scores[{name!r}] {which} distribution", values)
            check_finite(f"scores[{name!r}] {which} distribution", values)
    everything = np.concatenate([values for pair in arrays.values() for values in pair])
    edges = np.histogram_bin_edges(everything, bins=NUM_SCORE_BINS)
    colors, (rows, columns) = method_colors(arrays), grid_shape(len(arrays))
    figure = new_figure(0.6 + 2.0 * max(columns, 2), 0.7 + 1.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (name, (inside, outside)) in zip(panels, arrays.items(), strict=False):
        shares = [np.histogram(v, edges)[0] / v.size for v in (inside, outside)]
        filled = {"fill": True, "color": colors[name], "alpha": 0.75}
        axes.stairs(shares[0], edges, **filled, label="in distribution")
        axes.stairs(shares[1], edges, color="black", hatch="////", lw=0.9, label="out of it")
        auroc = roc_auc_score(
            np.repeat([0, 1], [inside.size, outside.size]), np.r_[inside, outside]
        )
        where = {"transform": axes.transAxes, "ha": "right", "va": "top", "fontsize": 8}
        axes.text(0.97, 0.97, f"AUROC {auroc:.3f}", **where)
        name_panel(axes, name)
    panels[0].set_ylim(0, 1.15 * max(axes.dataLim.y1 for axes in panels[: len(arrays)]))
    finish_panels(panels, len(arrays), columns, xlabel=label)
    figure.supylabel("share of the points", fontsize=9)
    legend_below(figure, panels[0], {"in distribution": Patch(fc="0.3", alpha=0.75)})
    return figure


@styled
def plot_severity(table: pd.DataFrame) -> NotebookFigure:
    """Show metrics of every method against the severity of a shift, with ± 2 standard errors.

    The bars end where a metric does: none says that an accuracy could be above 1. Methods stand
    a little beside each other, so that their error bars can be told apart.

    Parameters
    ----------
    table
        Columns ``severity, method, metric, value, standard_error``; severity 0 is no shift.

    Raises
    ------
    ValueError
        If the table is empty, lacks a column, or holds a value twice.

    Examples
    --------
    >>> table = nb.evaluation.severity_curve(
    ...     predictors, data, "feature-noise", (0, 5), key=key, num_draws=50
    ... )
    >>> shown = table.loc[table["metric"].isin(["accuracy", "nll"])]
    >>> figure = nb.evaluation.plot_severity(shown)
    >>> [axes.get_title() for axes in figure.axes]
    ['accuracy', 'NLL']
    """
    check_columns("table", table, ("severity", "method", "metric", "value", "standard_error"))
    if table.duplicated(["severity", "method", "metric"]).any():
        raise ValueError("table holds a metric of a method twice at one severity; average first.")
    names, methods = list(table["metric"].unique()), list(table["method"].unique())
    looks, (rows, columns) = method_looks(methods), grid_shape(len(names), max_columns=3)
    figure = new_figure(0.6 + 2.5 * max(columns, 2), 0.9 + 2.1 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    spacing = np.diff(np.unique(table["severity"])).min(initial=1.0)
    for axes, name in zip(panels, names, strict=False):
        for method in methods:
            part = table.loc[(table["metric"] == name) & (table["method"] == method)]
            part = part.sort_values("severity")
            aside = 0.35 * spacing * (methods.index(method) / len(methods) - 0.5)
            axes.errorbar(
                part["severity"] + aside,
                part["value"],
                yerr=two_errors(name, part),
                **looks[method],
                ms=4.5,
                lw=1.3,
                elinewidth=0.9,
                label=method,
            )
        axes.set_title(metric_title(name))
        axes.locator_params(axis="x", integer=True)
    finish_panels(panels, len(names), columns, xlabel="severity of the shift")
    legend_below(figure, panels[0])
    return figure


def _crop(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], num_points: int) -> None:
    """Show from the first error on, at a height that does not follow the first few answers."""
    first = min(coverage[risk > 0].min(initial=1.0) for coverage, risk in curves.values())
    left = min(np.floor(10 * first) / 10, 0.9)
    enough = max(left, min(FEW / num_points, 1.0))
    seen = np.concatenate([risk[coverage >= enough] for coverage, risk in curves.values()])
    margin = max(0.05 * np.ptp(seen), 0.005)
    axes.set_xlim(left, 1 + 0.02 * (1 - left))
    axes.set_ylim(max(seen.min() - margin, 0), seen.max() + margin)
