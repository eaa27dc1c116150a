"""What a comparison shows: its figures, and the report that holds them all."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ntkbayes._checks import check_choice
from ntkbayes._files import atomic_path
from ntkbayes.datasets import DATASETS, Dataset
from ntkbayes.evaluation import (
    distance_matrix,
    paired_differences,
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
    write_table,
)
from ntkbayes.evaluation.plots import (
    plot_confidence_histogram,
    plot_convergence,
    plot_pit_ecdf,
    plot_risk_coverage,
)
from ntkbayes.evaluation.report import verdict, verdict_baselines
from ntkbayes.experiment.comparison import Comparison
from ntkbayes.experiment.description import facts, methods_table, reproduce, versions
from ntkbayes.experiment.directory import write_text
from ntkbayes.experiment.grid import grid_axes, is_plane
from ntkbayes.experiment.report_tables import report_tables
from ntkbayes.hyperparameters import plot_optimization_trace
from ntkbayes.methods import METHODS, REFERENCE

__all__ = ["FIGURE_FORMATS", "write_figures_and_report"]

FIGURE_FORMATS = ("png", "pdf", "svg")


def write_figures_and_report(comparison: Comparison, *, figure_format: str = "png") -> None:
    """Write figures, ``table.md``, ``table.tex`` and ``report.html`` into its directory.

    Raises
    ------
    ValueError
        If the format of the figures' files is none of `FIGURE_FORMATS`.
    """
    check_choice("figure_format", figure_format, FIGURE_FORMATS)
    for suffix in ("md", "tex"):
        write_table(
            comparison.metrics, comparison.out / f"table.{suffix}", metrics=comparison.headlines
        )
    sound = _sound(comparison)
    distances = distance_matrix(sound) if len(sound) > 1 else None
    reference = METHODS[REFERENCE].title if METHODS[REFERENCE].title in sound else None
    tables = report_tables(comparison, sound, reference)
    for name, further in tables.items():
        write_text(comparison.out / f"{name}.csv", further.long.to_csv(index=False))
    figures = _figures(comparison, distances)
    if len(sound) > 1:
        figures["energy_distances"] = _energy_heatmap(sound, comparison.data)
    for name, (_, figure) in figures.items():
        path = comparison.out / "figures" / f"{name}.{figure_format}"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=figure_format)
    write_report(
        comparison.out / "report.html",
        title=f"{comparison.config.dataset}: {DATASETS[comparison.config.dataset].description}",
        table=wide_table(comparison.metrics),
        verdict=_verdict(comparison, distances),
        facts=facts(comparison),
        methods=methods_table(comparison),
        tables={each.heading: (each.texts, each.note) for each in tables.values()},
        figures=dict(figures.values()),
        notes=comparison.remarks,
        settings=comparison.config.settings() | _selected(comparison),
        versions=versions(comparison.out),
        reproduce=reproduce(comparison),
    )


def _sound(comparison: Comparison) -> dict[str, xr.DataTree]:
    """Return the predictions of all methods but those whose Markov chains are not reliable."""
    found = comparison.diagnostics
    return {
        title: tree
        for title, tree in comparison.predictions.items()
        if title not in found or found[title].reliable
    }


def _verdict(comparison: Comparison, distances: pd.DataFrame | None) -> list[str]:
    reference: str | None = METHODS[REFERENCE].title
    if reference not in comparison.predictions:
        reference = None
    measured = bool(comparison.metrics["monte_carlo_floor"].notna().to_numpy().any())
    differences = paired_differences(
        comparison.predictions,
        baseline=verdict_baselines(comparison.metrics),
        reference=reference if measured else None,
        require_reliable=False,
    )
    return verdict(
        comparison.metrics,
        num_points=len(comparison.data.x_test),
        reference=reference,
        diagnostics=comparison.diagnostics,
        differences=differences,
        distances=distances,
    )


def _selected(comparison: Comparison) -> dict[str, float]:
    """Name the hyperparameters a tuned comparison used, beside those it started from."""
    values = {} if comparison.selection is None else comparison.selection.values
    return {f"{name} (chosen)": value for name, value in values.items()}


def _figures(comparison: Comparison, distances: pd.DataFrame | None) -> dict[str, tuple[str, Any]]:
    """File name → caption and figure."""
    trees, data = comparison.predictions, comparison.data
    figures: dict[str, tuple[str, Any]] = {}
    if data.task == "classification":
        figures |= _classification_figures(trees, data)
        unit = "total variation (mean over test points)"
    else:
        figures |= _regression_figures(trees, data)
        unit = "Wasserstein-1 (standardised target units)"
    if distances is not None:
        heatmap = plot_distance_heatmap(distances, label=unit)
        figures["distances"] = ("Distances between the methods", heatmap)
    if any(len(pooled(tree)) > 1 for tree in trees.values()):
        figures["convergence"] = (
            "NLL against the number of draws it is computed from: mean over random orders of the "
            "draws, with ± 2 standard deviations",
            plot_convergence(trees, "nll"),
        )
    forest = plot_metric_forest(comparison.metrics, metrics=comparison.headlines)
    figures["metrics"] = ("The most important metrics", forest)
    if comparison.selection is not None:
        figure = plot_optimization_trace(comparison.selection)
        figures["hyperparameters"] = ("How the hyperparameters were chosen", figure)
    return figures


def _energy_heatmap(sound: dict[str, xr.DataTree], data: Dataset) -> tuple[str, Any]:
    unit = "logits" if data.task == "classification" else "standardised target units"
    matrix = distance_matrix(sound, measure="energy_distance")
    return (
        "Energy distances between the methods, as distributions of the latent function at all test "
        "points together",
        plot_distance_heatmap(matrix, label=f"energy distance ({unit})"),
    )


def _classification_figures(
    trees: dict[str, xr.DataTree], data: Dataset
) -> dict[str, tuple[str, Any]]:
    figures: dict[str, tuple[str, Any]] = {}
    if is_plane(data):
        figures["maps"] = (
            "Mean probability, its entropy (total uncertainty) and mutual information (the "
            "epistemic part)",
            _maps(trees, data),
        )
    if data.image_shape is not None:
        figure = plot_predictive_distributions(trees, data)
        figures["predictive_distributions"] = ("Predictive distributions of test images", figure)
    figures["reliability"] = (
        "Reliability of the top label: bins, and an isotonic fit with its 90 % consistency band",
        plot_reliability(trees),
    )
    figures["confidence"] = (
        "Confidence where the label is right, and where it is wrong",
        plot_confidence_histogram(trees),
    )
    figures["risk_coverage"] = (
        "Error rate if only the most confident points are answered",
        plot_risk_coverage(trees),
    )
    return figures


def _regression_figures(trees: dict[str, xr.DataTree], data: Dataset) -> dict[str, tuple[str, Any]]:
    figures: dict[str, tuple[str, Any]] = {}
    if data.num_features == 1:
        figures["bands"] = ("The latent function and its bands", _bands(trees, data))
    figures["coverage"] = ("Coverage of central intervals", plot_coverage(trees))
    figures["pit"] = (
        "Probability integral transforms: distribution function minus the uniform one, which "
        "calibrated predictions keep inside the band",
        plot_pit_ecdf(trees),
    )
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
    original = data.original_targets
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
