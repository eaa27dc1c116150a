"""Data from the prior: the truth is an ordinary draw of a posterior, and of nothing else.

All outputs of a regression share the kernel and nothing else, so one fit with many outputs is as
many repetitions of simulation and inference.
"""

import jax
import numpy as np
import pytest
from models import NETWORK
from scipy.stats import kstest

import ntkbayes as nb

NUM_TRAIN, NUM_REPETITIONS, NOISE, PRECISION = 12, 300, 0.05, 1.0
NUM_RANKED = 99
METHODS = {
    "gp": (nb.gp_posterior, {}),
    "laplace": (nb.laplace, {}),
    "bayesian ensemble": (nb.ntk_ensemble, {"initial": "ntk", "perturb_targets": True}),
    "hmc": (nb.hmc, {"key": jax.random.key(1), "num_warmup": 200, "num_draws": 100}),
    "plain ensemble": (nb.ntk_ensemble, {}),
}


@pytest.fixture(scope="module")
def simulated():
    """Inputs, targets of every repetition, and the true function at the last input."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_TRAIN + 1, 2))
    factor = np.linalg.cholesky(np.asarray(NETWORK.ntk(x)) / PRECISION)
    f = factor @ rng.normal(size=(NUM_TRAIN + 1, NUM_REPETITIONS))
    y = f[:NUM_TRAIN] + NOISE**0.5 * rng.normal(size=(NUM_TRAIN, NUM_REPETITIONS))
    return x[:NUM_TRAIN], y, x[NUM_TRAIN:], f[NUM_TRAIN]


def p_value(method, simulated):
    """Kolmogorov–Smirnov test of the ranks of the truth among draws against the uniform law."""
    x, y, x_test, truth = simulated
    function, settings = METHODS[method]
    likelihood = nb.Gaussian(NOISE, NUM_REPETITIONS)
    predictor = function(NETWORK, likelihood, x, y, prior_precision=PRECISION, **settings)
    num_draws = predictor.num_available or NUM_RANKED
    draws = np.asarray(predictor.sample(jax.random.key(2), x_test, num_draws=num_draws))[:, 0]
    draws = draws[:: num_draws // NUM_RANKED][:NUM_RANKED]
    below = np.sum(draws < truth[None], axis=0)
    ties = np.random.default_rng(3).uniform(size=NUM_REPETITIONS)
    return kstest((below + ties) / (NUM_RANKED + 1), "uniform").pvalue


@pytest.mark.parametrize(
    "method",
    ["gp", "laplace", "bayesian ensemble", pytest.param("hmc", marks=pytest.mark.slow)],
)
def test_the_truth_has_a_uniform_rank_among_draws_of_a_posterior(method, simulated):
    assert p_value(method, simulated) > 1e-3


def test_the_plain_ensemble_is_no_posterior(simulated):
    """Ordinary initial functions spread too little: the truth lies among the extreme draws."""
    assert p_value("plain ensemble", simulated) < 1e-6
