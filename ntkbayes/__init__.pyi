from . import (
    datasets,
    ensembles,
    evaluation,
    experiment,
    hyperparameters,
    likelihoods,
    methods,
    networks,
    posteriors,
    predictors,
    solvers,
)
from .datasets import DATASETS, Dataset, load_dataset, make_dataset
from .ensembles import deep_ensemble, linearized_ensemble, ntk_ensemble
from .evaluation import compare, load_predictions, predict, save_predictions
from .hyperparameters import select_hyperparameters
from .likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson, smooth_labels
from .networks import (
    Network,
    dense_network,
    empirical_ntk,
    empirical_ntk_trace,
    finite_network,
    linearize,
    stax_network,
)
from .posteriors import (
    gp_posterior,
    hmc,
    laplace,
    linearized_laplace,
    map_estimate,
    probit_probabilities,
)
from .predictors import Draws, GaussianPredictor, Predictor

__version__: str

__all__ = [
    "DATASETS",
    "Bernoulli",
    "Categorical",
    "Dataset",
    "Draws",
    "Gaussian",
    "GaussianPredictor",
    "Likelihood",
    "Network",
    "Poisson",
    "Predictor",
    "compare",
    "datasets",
    "deep_ensemble",
    "dense_network",
    "empirical_ntk",
    "empirical_ntk_trace",
    "ensembles",
    "evaluation",
    "experiment",
    "finite_network",
    "gp_posterior",
    "hmc",
    "hyperparameters",
    "laplace",
    "likelihoods",
    "linearize",
    "linearized_ensemble",
    "linearized_laplace",
    "load_dataset",
    "load_predictions",
    "make_dataset",
    "map_estimate",
    "methods",
    "networks",
    "ntk_ensemble",
    "posteriors",
    "predict",
    "predictors",
    "probit_probabilities",
    "save_predictions",
    "select_hyperparameters",
    "smooth_labels",
    "solvers",
    "stax_network",
]
