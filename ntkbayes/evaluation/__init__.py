"""Evaluation: from predictors to tables, figures and a report.

- predictions: `predict` makes an ArviZ `DataTree`, `from_draws` and `from_probabilities` make one
  of another tool's results; `save_predictions` and `load_predictions` keep it on disk;
  `probabilities`, `observations` and `pooled` give arrays.
- comparison: `compare` (every metric with its standard error), `paired_differences`,
  `distance_matrix`; `METRICS` says what each is.
- tables: `wide_table`, `markdown_table`, `latex_table`, and `write_table` for files.
- leave_one_out: `leave_one_out`, the predictive density of training points left out of a posterior.
- chains: `chain_diagnostics`, R-hat, ESS and MCSE of the predictions, and what the sampler says.
- figures: `plot_reliability`, `plot_predictive_distributions`, `plot_probability_maps` (at
  `grid_points`), `plot_bands`, `plot_coverage`, `plot_distance_heatmap`, `plot_metric_forest`.
- report: `write_report`, one HTML file.
- `metrics` and `distances`: the formulas, as functions of arrays and weighted test points.
  `mixtures`: the predictive distribution of a regression, exactly, from draws and noise.
"""

from ntkbayes.evaluation import distances, metrics, mixtures
from ntkbayes.evaluation.catalog import METRICS, MetricInfo, headline_metrics
from ntkbayes.evaluation.comparison import compare, distance_matrix, paired_differences
from ntkbayes.evaluation.diagnostics import ChainDiagnostics, chain_diagnostics
from ntkbayes.evaluation.external import from_draws, from_probabilities
from ntkbayes.evaluation.leave_one_out import LeaveOneOut, leave_one_out
from ntkbayes.evaluation.plots import (
    METHOD_COLORS,
    grid_points,
    plot_bands,
    plot_coverage,
    plot_distance_heatmap,
    plot_metric_forest,
    plot_predictive_distributions,
    plot_probability_maps,
    plot_reliability,
)
from ntkbayes.evaluation.predictions import predict
from ntkbayes.evaluation.report import write_report
from ntkbayes.evaluation.storage import (
    load_predictions,
    observations,
    pooled,
    probabilities,
    save_predictions,
)
from ntkbayes.evaluation.tables import latex_table, markdown_table, wide_table, write_table

__all__ = [
    "METHOD_COLORS",
    "METRICS",
    "ChainDiagnostics",
    "LeaveOneOut",
    "MetricInfo",
    "chain_diagnostics",
    "compare",
    "distance_matrix",
    "distances",
    "from_draws",
    "from_probabilities",
    "grid_points",
    "headline_metrics",
    "latex_table",
    "leave_one_out",
    "load_predictions",
    "markdown_table",
    "metrics",
    "mixtures",
    "observations",
    "paired_differences",
    "plot_bands",
    "plot_coverage",
    "plot_distance_heatmap",
    "plot_metric_forest",
    "plot_predictive_distributions",
    "plot_probability_maps",
    "plot_reliability",
    "pooled",
    "predict",
    "probabilities",
    "save_predictions",
    "wide_table",
    "write_report",
    "write_table",
]
