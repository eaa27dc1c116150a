"""The flagship: on a linear-Gaussian model every method must give the same posterior."""

from functools import cache

import jax
import numpy as np
import pytest
from models import LINEAR, NETWORK, exact_gp, regression_data
from monte_carlo import assert_within_standard_errors

import ntkbayes as nb

NOISE, PRECISION = 0.05, 2.0
X, Y, X_TEST = regression_data()
LIKELIHOOD = nb.Gaussian(NOISE)


@cache
def exact(network):
    ntk = network.kernel(np.concatenate([X, X_TEST])).ntk
    return exact_gp(ntk / PRECISION, NOISE, Y, len(X))


def linearized_laplace(**settings):
    """Of the network linear in its weights, at the mode of that model."""

    def fit(network, *model, prior_precision):
        key = jax.random.key(0)
        found = nb.map_estimate(
            network, *model, prior_precision=prior_precision, key=key, tolerance=1e-8
        )
        return nb.linearized_laplace(
            network, *model, prior_precision=prior_precision, params=found.params, **settings
        )

    return fit


EXACT_METHODS = {
    "gp": nb.gp_posterior,
    "laplace": nb.laplace,
    "bayesian ensemble": lambda *args, **kwargs: nb.ntk_ensemble(
        *args, initial="ntk", perturb_targets=True, **kwargs
    ),
}


LINEAR_METHODS = EXACT_METHODS | {
    "linearized laplace, weight form": linearized_laplace(form="weight"),
    "linearized laplace, dual form": linearized_laplace(form="dual"),
    "linearized laplace, picked weights": linearized_laplace(subset_of_weights=lambda w: w),
}
"""Exact for the network linear in its weights; kron and diag are tested where they are exact."""
CASES = [(NETWORK, method) for method in EXACT_METHODS.values()]
CASES += [(LINEAR, method) for method in LINEAR_METHODS.values()]
NAMES = [*EXACT_METHODS, *(f"linear model, {name}" for name in LINEAR_METHODS)]


@pytest.fixture(scope="module")
def fitted():
    """Case → its predictor, fitted once."""

    @cache
    def fit(network, method):
        return method(network, LIKELIHOOD, X, Y, prior_precision=PRECISION)

    return fit


@pytest.mark.parametrize(("network", "method"), CASES, ids=NAMES)
def test_exact_methods_equal_the_gp_posterior(network, method, fitted):
    predictor, (mean, covariance) = fitted(network, method), exact(network)
    np.testing.assert_allclose(predictor.mean(X_TEST)[:, 0], mean, atol=1e-8)
    np.testing.assert_allclose(predictor.covariance(X_TEST)[:, 0, :, 0], covariance, atol=1e-8)


@pytest.mark.parametrize(("network", "method"), CASES, ids=NAMES)
def test_draws_have_the_moments_of_the_gp_posterior(network, method, fitted):
    num_draws = 20_000
    draws = fitted(network, method).sample(jax.random.key(1), X_TEST, num_draws=num_draws)
    assert_posterior_moments(np.asarray(draws)[:, :, 0], network)


def test_linearized_networks_on_perturbed_targets_are_draws_of_the_gp_posterior():
    num_members = 400
    ensemble = nb.linearized_ensemble(
        LINEAR, LIKELIHOOD, X, Y, prior_precision=PRECISION, num_members=num_members,
        key=jax.random.key(0), initial="ntk", perturb_targets=True,
    )  # fmt: skip
    draws = ensemble.sample(jax.random.key(1), X_TEST, num_draws=num_members)
    assert_posterior_moments(np.asarray(draws)[:, :, 0], LINEAR)


def assert_posterior_moments(draws, network):
    mean, covariance = exact(network)
    variance, num_draws = np.diag(covariance), len(draws)
    mean_error = np.sqrt(variance / num_draws)
    # var of a sample covariance of Gaussians: (Σii Σjj + Σij²) / s
    covariance_error = np.sqrt((np.outer(variance, variance) + covariance**2) / num_draws)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * mean_error)
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * covariance_error)


@pytest.mark.parametrize(("network", "space"), [(NETWORK, "function"), (LINEAR, "weight")])
def test_hmc_equals_the_gp_posterior(network, space):
    predictor = nb.hmc(
        network, LIKELIHOOD, X, Y, prior_precision=PRECISION, space=space,
        key=jax.random.key(0), num_draws=1000,
    )  # fmt: skip
    draws = predictor.sample(jax.random.key(1), X_TEST, num_draws=4000)
    chains = np.asarray(draws).reshape(4, 1000, -1)
    mean, covariance = exact(network)
    centered = chains - mean
    assert_within_standard_errors(chains, mean)
    assert_within_standard_errors(centered[..., :, None] * centered[..., None, :], covariance)
