"""The flagship: on a linear-Gaussian model every method must give the same posterior."""

import arviz as az
import jax
import numpy as np
import pytest
from models import NETWORK, exact_gp, regression_data

import ntkbayes as nb

NOISE, PRECISION = 0.05, 2.0
X, Y, X_TEST = regression_data()
LIKELIHOOD = nb.Gaussian(NOISE)


@pytest.fixture(scope="module")
def exact():
    ntk = NETWORK.kernel(np.concatenate([X, X_TEST])).ntk
    return exact_gp(ntk / PRECISION, NOISE, Y, len(X))


EXACT_METHODS = {
    "gp": nb.gp_posterior,
    "laplace": nb.laplace,
    "bayesian ensemble": lambda *args, **kwargs: nb.ntk_ensemble(
        *args, initial="ntk", perturb_targets=True, **kwargs
    ),
}


@pytest.mark.parametrize("method", EXACT_METHODS)
def test_exact_methods_equal_the_gp_posterior(method, exact):
    predictor = EXACT_METHODS[method](NETWORK, LIKELIHOOD, X, Y, prior_precision=PRECISION)
    np.testing.assert_allclose(predictor.mean(X_TEST)[:, 0], exact[0], atol=1e-8)
    np.testing.assert_allclose(predictor.covariance(X_TEST)[:, 0, :, 0], exact[1], atol=1e-8)


@pytest.mark.parametrize("method", EXACT_METHODS)
def test_draws_have_the_moments_of_the_gp_posterior(method, exact):
    predictor = EXACT_METHODS[method](NETWORK, LIKELIHOOD, X, Y, prior_precision=PRECISION)
    num_draws = 20_000
    draws = np.asarray(predictor.sample(jax.random.key(1), X_TEST, num_draws=num_draws))[:, :, 0]
    variance = np.diag(exact[1])
    mean_error = np.sqrt(variance / num_draws)
    # var of a sample covariance of Gaussians: (Σii Σjj + Σij²) / s
    covariance_error = np.sqrt((np.outer(variance, variance) + exact[1] ** 2) / num_draws)
    assert np.all(np.abs(draws.mean(axis=0) - exact[0]) < 5 * mean_error)
    assert np.all(np.abs(np.cov(draws.T) - exact[1]) < 5 * covariance_error)


def test_hmc_equals_the_gp_posterior(exact):
    predictor = nb.hmc(
        NETWORK, LIKELIHOOD, X, Y, prior_precision=PRECISION, key=jax.random.key(0), num_draws=1000
    )
    draws = np.asarray(predictor.sample(jax.random.key(1), X_TEST, num_draws=4000))[:, :, 0]
    chains = draws.reshape(4, 1000, -1)
    centred = chains - exact[0]
    products = np.einsum("kdi,kdj->kdij", centred, centred).reshape(4, 1000, -1)
    for values, truth in ((chains, exact[0]), (products, exact[1].ravel())):
        for i in range(values.shape[2]):
            assert az.ess(values[:, :, i]) > 400
            error = az.mcse(values[:, :, i], method="mean")
            assert abs(values[:, :, i].mean() - truth[i]) < 5 * error
