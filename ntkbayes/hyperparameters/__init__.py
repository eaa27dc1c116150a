"""Hyperparameters: chosen once, shared by every method, so that a comparison isolates inference.

`select_hyperparameters` maximises the log marginal likelihood, exact for regression and Laplace's
otherwise, or minimises the negative log predictive probability of validation points, over
``prior_precision``, ``noise_variance`` of a Gaussian likelihood, and ``weight_scale`` and
``bias_scale`` of a dense network. What it returns, a `HyperparameterSelection`, keeps every
evaluation; `plot_optimization_trace` shows them.
"""

from ntkbayes.hyperparameters.record import HyperparameterSelection, plot_optimization_trace
from ntkbayes.hyperparameters.selection import select_hyperparameters

__all__ = ["HyperparameterSelection", "plot_optimization_trace", "select_hyperparameters"]
