"""One experiment: all methods on one dataset, from data to report, resumable.

A run is a directory: ``config.toml`` (what was asked), ``environment.json`` (what it ran on),
``hyperparameters.json`` (if they are tuned), ``predictions/<method>.nc`` (one DataTree per
method), ``metrics.parquet`` (long form), ``table.md`` and ``table.tex`` (the most important
metrics), ``figures/`` and ``report.html``. Every file is written atomically. What can be read and
was made with the same settings is not computed again.
"""

from ntkbayes.experiment.comparison import Comparison
from ntkbayes.experiment.config import ComparisonConfig, preset, read_settings
from ntkbayes.experiment.loading import load_comparison
from ntkbayes.experiment.running import run_comparison

__all__ = [
    "Comparison",
    "ComparisonConfig",
    "load_comparison",
    "preset",
    "read_settings",
    "run_comparison",
]
