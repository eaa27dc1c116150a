"""Evaluation: from predictors to tables, figures and a report.

- predictions: `predict` makes an ArviZ `DataTree`; `from_draws`, `from_probabilities` and
  `from_normals` make one of another tool's results; `save_predictions` and `load_predictions` keep
  it on disk; `probabilities`, `observations` and `pooled` give arrays; `original_units` goes back
  to the units of the targets.
- comparison: `compare` (every metric with its standard error), `paired_differences`,
  `distance_matrix`, `compare_joint` (whole latent functions), `calibration_table` (tests);
  `METRICS` says what each metric is; `seed_table` sums up several seeds.
- tables: `wide_table`, `markdown_table`, `latex_table`, and `write_table` for files.
- leave_one_out: `leave_one_out`, the predictive density of training points left out of a posterior.
- chains: `chain_diagnostics`, R-hat, ESS and MCSE of the predictions, and what the sampler says.
- other inputs: `severity_curve` under graded shifts, `detection_table` of unseen inputs.
- conformal: `conformal_sets`, `conformal_intervals`, and `conformal_table` to compare them.
- figures: `ntkbayes.evaluation.plots` lists them.
- report: `write_report`, one HTML file, with the `verdict` in words.
- `metrics` and `distances`: the formulas, as functions of arrays and weighted test points.
  `mixtures` and `count_mixtures`: the predictive distribution of a regression or of counts,
  exactly, from draws.

Examples
--------
The examples of the functions begin with that of `ntkbayes`, and with predictions by two methods
each of a classification and a regression:

>>> predictors = {
...     "NTK ensemble": nb.ntk_ensemble(*model, prior_precision=1.0),
...     "Laplace": nb.laplace(*model, prior_precision=1.0),
... }
>>> predictors_sine = {
...     "NTK ensemble": nb.ntk_ensemble(*model_sine, prior_precision=1.0),
...     "GP": nb.gp_posterior(*model_sine, prior_precision=1.0),
... }
>>> trees = {name: nb.predict(p, data, key=key, num_draws=50) for name, p in predictors.items()}
>>> trees_sine = {
...     name: nb.predict(p, sine, key=key, num_draws=50) for name, p in predictors_sine.items()
... }
"""

from ntkbayes.evaluation import count_mixtures, distances, metrics, mixtures
from ntkbayes.evaluation.calibration_table import calibration_table
from ntkbayes.evaluation.catalog import METRICS, MetricInfo, headline_metrics
from ntkbayes.evaluation.comparison import compare, paired_differences
from ntkbayes.evaluation.conformal import conformal_intervals, conformal_sets
from ntkbayes.evaluation.conformal_table import conformal_table
from ntkbayes.evaluation.diagnostics import ChainDiagnostics, chain_diagnostics
from ntkbayes.evaluation.external import from_draws, from_normals, from_probabilities
from ntkbayes.evaluation.leave_one_out import LeaveOneOut, leave_one_out
from ntkbayes.evaluation.method_distances import compare_joint, distance_matrix
from ntkbayes.evaluation.plots import (
    METHOD_COLORS,
    grid_points,
    plot_bands,
    plot_confidence_histogram,
    plot_convergence,
    plot_coverage,
    plot_distance_heatmap,
    plot_metric_forest,
    plot_ood_scores,
    plot_pit_ecdf,
    plot_predictive_distributions,
    plot_probability_maps,
    plot_reliability,
    plot_risk_coverage,
    plot_severity,
)
from ntkbayes.evaluation.predictions import DatasetLike, predict
from ntkbayes.evaluation.report import verdict, verdict_baselines, write_report
from ntkbayes.evaluation.seeds import seed_table
from ntkbayes.evaluation.severity import detection_table, severity_curve, severity_table
from ntkbayes.evaluation.storage import (
    load_predictions,
    observations,
    pooled,
    probabilities,
    save_predictions,
)
from ntkbayes.evaluation.tables import latex_table, markdown_table, wide_table, write_table
from ntkbayes.evaluation.units import original_units

__all__ = [
    "METHOD_COLORS",
    "METRICS",
    "ChainDiagnostics",
    "DatasetLike",
    "LeaveOneOut",
    "MetricInfo",
    "calibration_table",
    "chain_diagnostics",
    "compare",
    "compare_joint",
    "conformal_intervals",
    "conformal_sets",
    "conformal_table",
    "count_mixtures",
    "detection_table",
    "distance_matrix",
    "distances",
    "from_draws",
    "from_normals",
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
    "original_units",
    "paired_differences",
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
    "pooled",
    "predict",
    "probabilities",
    "save_predictions",
    "seed_table",
    "severity_curve",
    "severity_table",
    "verdict",
    "verdict_baselines",
    "wide_table",
    "write_report",
    "write_table",
]
