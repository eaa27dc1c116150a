"""Draws in JAX's default precision have the variances of double, also with tiny noise."""

import warnings
from functools import partial

import equinox as eqx
import jax
import numpy as np
import pytest

import ntkbayes as nb

NETWORK = nb.dense_network()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2)).astype(np.float32)
X_TEST = (np.repeat(X, 5, axis=0) + 1e-3 * RNG.normal(size=(200, 2))).astype(np.float32)
Y = np.sin(X[:, 0])
NUM_DRAWS = 1000
METHODS = {
    "gp": nb.gp_posterior,
    "laplace": nb.laplace,
    "ensemble": lambda *model, **settings: nb.ntk_ensemble(
        *model, initial="ntk", perturb_targets=True, **settings
    ),
}


@pytest.mark.parametrize("noise", [1e-1, 1e-5])
@pytest.mark.parametrize("method", METHODS)
def test_draws_with_little_noise_have_the_variances_of_double_precision(method, noise):
    """What makes a covariance positive definite is little beside it, and nothing cancels."""

    def posterior(dtype):
        data = X.astype(dtype), Y.astype(dtype)
        return METHODS[method](NETWORK, nb.Gaussian(noise), *data, prior_precision=1.0)

    expected = np.asarray(posterior(float).variance(X_TEST.astype(float)))
    with jax.enable_x64(False):
        with warnings.catch_warnings():  # in float32 the mode is known to 0.014 σ
            warnings.filterwarnings("ignore", message=".*may be off by", category=UserWarning)
            single = posterior(np.float32)
        draws = single.draw(jax.random.key(0), X_TEST, num_draws=NUM_DRAWS).latent
    ratio = np.asarray(draws, float).var(axis=0) / expected
    np.testing.assert_allclose(ratio, 1, atol=5 * np.sqrt(2 / NUM_DRAWS))


@pytest.mark.parametrize("likelihood", [nb.Bernoulli(), nb.Categorical(3)], ids=repr)
def test_laplace_covariances_can_be_compiled_and_differentiated_without_double_precision(
    likelihood,
):
    labels = np.arange(len(X)) % max(2, likelihood.num_outputs)
    expected = nb.laplace(NETWORK, likelihood, X.astype(float), labels, prior_precision=1e-3)
    with jax.enable_x64(False):
        single = nb.laplace(NETWORK, likelihood, X, labels, prior_precision=1e-3)
        covariance = jax.jit(single.covariance)(X_TEST[:4])
        argument = eqx.filter_jit(lambda posterior, x: posterior.covariance(x))(single, X_TEST[:4])
        slope = jax.grad(lambda x: single.variance(x).sum())(X_TEST[:4])
    assert covariance.dtype == slope.dtype == np.float32
    covariance, exact = np.asarray(covariance), expected.covariance(X_TEST[:4].astype(float))
    prior = float(np.max(NETWORK.ntk(X_TEST[:4].astype(float)))) / 1e-3
    # Rounding of K, times what it is multiplied with on both sides.
    np.testing.assert_allclose(covariance, exact, atol=100 * np.finfo(np.float32).eps * prior)
    np.testing.assert_allclose(argument, exact, atol=100 * np.finfo(np.float32).eps * prior)
    assert np.all(np.isfinite(np.asarray(slope)))


@pytest.mark.parametrize("noise", [1e-3, 1e-6])
@pytest.mark.parametrize("method", ["laplace", "ensemble", "hmc", "variational"])
def test_draws_at_training_inputs_are_no_wider_than_what_is_known_there(method, noise):
    """What is known there to 1e-3 deviations of the prior is not lost in L⁻¹ K."""
    x, y, key = X[:6], Y[:6], jax.random.key(0)
    if method == "variational":  # a count that says the same of the log rate
        likelihood, y = nb.Poisson(), np.full(6, round(1 / noise))
    else:
        likelihood = nb.Gaussian(noise)
    fit = METHODS | {
        "hmc": lambda *model, **settings: nb.hmc(
            *model, **settings, key=key, num_warmup=200, num_draws=250, num_chains=4
        ),
        "variational": nb.gp_posterior,
    }
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*may be off by", category=UserWarning)
        posterior = fit[method](NETWORK, likelihood, x, y, prior_precision=1.0)
        draws = posterior.draw(key, x[[4, 0, 1]], num_draws=NUM_DRAWS).latent
    k = np.asarray(NETWORK.ntk(x.astype(float)))
    exact = np.diag(k - k @ np.linalg.solve(k + noise * np.eye(6), k))[[4, 0, 1]]
    ratio = np.asarray(draws, float)[..., 0].var(axis=0) / exact
    np.testing.assert_allclose(ratio, 1, atol=6 * np.sqrt(2 / NUM_DRAWS))


@pytest.mark.parametrize("method", ["laplace", "ensemble", "hmc", "gp"])
def test_noise_that_rounding_hides_is_told(method):
    """The warning comes before variances at training inputs are off by more than a quarter."""
    x, y = X[:20], Y[:20]
    settings = {"prior_precision": 1.0}
    short = partial(nb.hmc, key=jax.random.key(0), num_warmup=5, num_draws=5, num_chains=1)
    fit = METHODS | {"hmc": short}
    k = np.asarray(NETWORK.ntk(x.astype(float)))
    eps = float(np.finfo(np.float32).eps)
    edge = float(128 * eps * np.median(np.diag(k)))
    with jax.enable_x64(False):
        with pytest.warns(UserWarning, match="is below 128 roundings in float32"):
            fit[method](NETWORK, nb.Gaussian(0.9 * edge), x, y, **settings)
        posterior = fit[method](NETWORK, nb.Gaussian(1.1 * edge), x, y, **settings)
    if method != "hmc":
        exact = np.diag(k - k @ np.linalg.solve(k + 1.1 * edge * np.eye(len(x)), k))
        np.testing.assert_allclose(posterior.variance(x)[:, 0], exact, rtol=0.25)
