"""Ensembles: the distribution of trained predictors over random initialisations."""

from ntkbayes.ensembles.deep import deep_ensemble
from ntkbayes.ensembles.linearized import linearized_ensemble
from ntkbayes.ensembles.ntk import ntk_ensemble

__all__ = ["deep_ensemble", "linearized_ensemble", "ntk_ensemble"]
