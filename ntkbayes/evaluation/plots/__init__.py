"""Figures, one look for all.

Each function returns a figure that notebooks show and ``figure.savefig(path)`` writes; pyplot's
global state is never touched. Every method has one colour everywhere (`METHOD_COLORS`).
"""

from ntkbayes.evaluation.plots.classification import (
    grid_points,
    plot_predictive_distributions,
    plot_probability_maps,
    plot_reliability,
)
from ntkbayes.evaluation.plots.comparison import plot_distance_heatmap, plot_metric_forest
from ntkbayes.evaluation.plots.regression import plot_bands, plot_coverage
from ntkbayes.evaluation.plots.style import METHOD_COLORS

__all__ = [
    "METHOD_COLORS",
    "grid_points",
    "plot_bands",
    "plot_coverage",
    "plot_distance_heatmap",
    "plot_metric_forest",
    "plot_predictive_distributions",
    "plot_probability_maps",
    "plot_reliability",
]
