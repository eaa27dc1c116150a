"""What a comparison shows: its figures, and the report that holds them all."""

from typing import Any

import numpy as np
import xarray as xr

from ntkbayes._files import atomic_path
from ntkbayes.datasets import DATASETS, Dataset
from ntkbayes.evaluation import (
    distance_matrix,
    plot_bands,
    plot_coverage,
    plot_distance_heatmap,
    plot_metric_forest,
    plot_predictive_distributions,
    plot_probability_maps,
    plot_reliability,
    pooled,
    wide_table,
    write_report,
)
from ntkbayes.experiment.comparison import Comparison
from ntkbayes.experiment.grid import grid_axes, is_plane
from ntkbayes.hyperparameters import plot_optimization_trace
from ntkbayes.methods import METHODS

__all__ = ["write_figures_and_report"]


def write_figures_and_report(comparison: Comparison) -> None:
    """Write ``figures/*.png`` and ``report.html`` into the comparison's directory."""
    figures = _figures(comparison)
    for name, (_, figure) in figures.items():
        with atomic_path(comparison.out / "figures" / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
    write_report(
        comparison.out / "report.html",
        title=f"{comparison.config.dataset}: {DATASETS[comparison.config.dataset].description}",
        table=wide_table(comparison.metrics),
        figures=dict(figures.values()),
        notes=comparison.remarks,
        settings=comparison.config.settings() | _selected(comparison),
    )


def _selected(comparison: Comparison) -> dict[str, float]:
    """Name the hyperparameters a tuned comparison used, beside those it started from."""
    values = {} if comparison.selection is None else comparison.selection.values
    return {f"{name} (chosen)": value for name, value in values.items()}


def _figures(comparison: Comparison) -> dict[str, tuple[str, Any]]:
    """File name → caption and figure."""
    trees, data = comparison.predictions, comparison.data
    figures: dict[str, tuple[str, Any]] = {}
    if is_plane(data):
        figures["maps"] = ("Mean probability and mutual information", _maps(trees, data))
    if data.image_shape is not None:
        figure = plot_predictive_distributions(trees, data)
        figures["predictive_distributions"] = ("Predictive distributions of test images", figure)
    if data.task == "classification":
        figures["reliability"] = ("Reliability of the top label", plot_reliability(trees))
        distance = "total variation (mean over test points)"
    else:
        if data.num_features == 1:
            figures["bands"] = ("The latent function and its bands", _bands(trees, data))
        figures["coverage"] = ("Coverage of central intervals", plot_coverage(trees))
        distance = "Wasserstein-1 (standardised target units)"
    found = comparison.diagnostics
    sound = {
        title: tree for title, tree in trees.items() if title not in found or found[title].reliable
    }
    if len(sound) > 1:
        heatmap = plot_distance_heatmap(distance_matrix(sound), label=distance)
        figures["distances"] = ("Distances between the methods", heatmap)
    figures["metrics"] = ("Every metric", plot_metric_forest(comparison.metrics))
    if comparison.selection is not None:
        figure = plot_optimization_trace(comparison.selection)
        figures["hyperparameters"] = ("How the hyperparameters were chosen", figure)
    return figures


def _maps(trees: dict[str, xr.DataTree], data: Dataset) -> Any:
    x1, x2 = grid_axes(data)
    return plot_probability_maps(
        {title: np.asarray(tree["grid/latent"]) for title, tree in trees.items()},
        x1=x1,
        x2=x2,
        x_train=data.x_train,
        y_train=data.y_train,
    )


def _bands(trees: dict[str, xr.DataTree], data: Dataset) -> Any:
    """Bands at the test inputs, in original units."""

    def original(y: np.ndarray) -> np.ndarray:
        return np.asarray(y) * data.target_scale + data.target_mean

    x = np.asarray(data.original_inputs(data.x_test))[:, 0]
    order = np.argsort(x)
    x_train = np.asarray(data.original_inputs(data.x_train))[:, 0]
    inside = np.sort(x_train)
    widest = int(np.argmax(np.diff(inside)))
    exact = None
    gp = trees.get(METHODS["gp"].title)
    if gp is not None and "closed_form" in gp.children:
        mean, variance = (
            np.asarray(gp["closed_form"][name])[order, 0] for name in ("mean", "variance")
        )
        exact = (original(mean), variance * data.target_scale**2)
    return plot_bands(
        {title: original(pooled(tree)[:, order, 0]) for title, tree in trees.items()},
        x_grid=x[order],
        x_train=x_train,
        y_train=original(np.asarray(data.y_train)),
        exact=exact,
        gap=(float(inside[widest]), float(inside[widest + 1])),
    )
