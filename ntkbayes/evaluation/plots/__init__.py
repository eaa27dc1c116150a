"""Figures, one look for all.

Each function returns a figure that notebooks show and ``figure.savefig(path)`` writes; pyplot's
global state is never touched. Every method has one colour everywhere (`METHOD_COLORS`), and where
methods share a panel, one marker and one kind of dashes.

- classification: `plot_reliability`, `plot_confidence_histogram`, `plot_risk_coverage`,
  `plot_predictive_distributions` of images, `plot_probability_maps` (at `grid_points`).
- regression: `plot_bands`, `plot_coverage`, `plot_pit_ecdf`.
- either: `plot_metric_forest`, `plot_distance_heatmap`, `plot_convergence` in the number of draws.
- other data: `plot_ood_scores`, `plot_severity`.
- your own: `styled` around a function that fills a `new_figure`, with `method_looks` for its lines.
"""

from ntkbayes.evaluation.plots.classification import plot_predictive_distributions
from ntkbayes.evaluation.plots.comparison import plot_distance_heatmap, plot_metric_forest
from ntkbayes.evaluation.plots.convergence import plot_convergence
from ntkbayes.evaluation.plots.maps import grid_points, plot_probability_maps
from ntkbayes.evaluation.plots.pit import plot_pit_ecdf
from ntkbayes.evaluation.plots.regression import plot_bands, plot_coverage
from ntkbayes.evaluation.plots.reliability import plot_confidence_histogram, plot_reliability
from ntkbayes.evaluation.plots.selective import (
    plot_ood_scores,
    plot_risk_coverage,
    plot_severity,
)
from ntkbayes.evaluation.plots.style import METHOD_COLORS, method_looks, new_figure, styled

__all__ = [
    "METHOD_COLORS",
    "grid_points",
    "method_looks",
    "new_figure",
    "plot_bands",
    "plot_confidence_histogram",
    "plot_convergence",
    "plot_coverage",
    "plot_distance_heatmap",
    "plot_metric_forest",
    "plot_ood_scores",
    "plot_pit_ecdf",
    "plot_predictive_distributions",
    "plot_probability_maps",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_severity",
    "styled",
]
