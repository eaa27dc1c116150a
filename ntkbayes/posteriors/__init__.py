"""Posteriors: the Bayesian counterparts of the ensembles, for the same model."""

from ntkbayes.posteriors.gp import gp_posterior
from ntkbayes.posteriors.hmc import hmc
from ntkbayes.posteriors.laplace import laplace
from ntkbayes.posteriors.linearized import linearized_laplace
from ntkbayes.posteriors.map_estimate import map_estimate
from ntkbayes.posteriors.probit import probit_probabilities

__all__ = [
    "gp_posterior",
    "hmc",
    "laplace",
    "linearized_laplace",
    "map_estimate",
    "probit_probabilities",
]
