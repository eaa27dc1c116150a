"""Draws to measure joint distances between, and a summary of many estimates."""

import numpy as np

from ntkbayes.evaluation.distances import JointDraws

SHAPE = (5, 2)


def normal(generator, num_draws, shift=0.0, shape=SHAPE):
    return JointDraws(shift + generator.normal(size=(num_draws, *shape)))


def summarize(estimates):
    """Mean of the values, its standard error, their spread, and the mean square of their errors."""
    values = np.array([estimate.value for estimate in estimates])
    errors = np.array([estimate.standard_error for estimate in estimates])
    spread = values.std(ddof=1)
    return values.mean(), spread / np.sqrt(len(values)), spread, np.sqrt(np.mean(errors**2))
