"""Posteriors: the Bayesian counterparts of the ensembles, for the same model."""

from ntkbayes.posteriors.gp import gp_posterior
from ntkbayes.posteriors.hmc import hmc
from ntkbayes.posteriors.laplace import laplace

__all__ = ["gp_posterior", "hmc", "laplace"]
