"""Draws in JAX's default precision have the variances of double, also with tiny noise."""

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
