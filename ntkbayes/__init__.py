"""Is the spread of wide networks over initialisations a usable uncertainty? NTK against Bayes.

Data flows one way:

    data → network and likelihood → method → predictor → predictions → evaluation → report

- ``datasets``     `load_dataset`, `make_dataset`, the `Dataset` record
- ``networks``     `dense_network`, `stax_network`: kernels at infinite, functions at finite width;
                   `finite_network`: any other; `empirical_ntk`, `linearize`
- ``likelihoods``  `Gaussian`, `Categorical`
- ``ensembles``    `ntk_ensemble` (closed form), `linearized_ensemble` (finite networks in their
                   tangent spaces), `deep_ensemble` (really trained)
- ``posteriors``   `laplace`, `gp_posterior`, `hmc`
- ``evaluation``   `predict` → ArviZ DataTree → `compare`, plots, report
- ``experiment``   `run_comparison`: all methods on one data set, resumable; ``cli`` calls it

Losses are sums over data, so ``prior_precision`` means the same in training and in Bayes.
Importing this package changes no JAX setting; enable float64 yourself where you want it.
"""

from ntkbayes.datasets import DATASETS, Dataset, load_dataset, make_dataset
from ntkbayes.ensembles import deep_ensemble, linearized_ensemble, ntk_ensemble
from ntkbayes.evaluation import compare, load_predictions, predict, save_predictions
from ntkbayes.likelihoods import Categorical, Gaussian, Likelihood
from ntkbayes.networks import (
    Network,
    dense_network,
    empirical_ntk,
    empirical_ntk_trace,
    finite_network,
    linearize,
    stax_network,
)
from ntkbayes.posteriors import gp_posterior, hmc, laplace
from ntkbayes.predictors import Draws, GaussianPredictor, Predictor

__version__ = "0.1.0"

__all__ = [
    "DATASETS",
    "Categorical",
    "Dataset",
    "Draws",
    "Gaussian",
    "GaussianPredictor",
    "Likelihood",
    "Network",
    "Predictor",
    "compare",
    "deep_ensemble",
    "dense_network",
    "empirical_ntk",
    "empirical_ntk_trace",
    "finite_network",
    "gp_posterior",
    "hmc",
    "laplace",
    "linearize",
    "linearized_ensemble",
    "load_dataset",
    "load_predictions",
    "make_dataset",
    "ntk_ensemble",
    "predict",
    "save_predictions",
    "stax_network",
]
