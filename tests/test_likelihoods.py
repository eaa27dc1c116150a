"""Every likelihood against automatic differentiation, SciPy and its own moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import ntkbayes as nb

LIKELIHOODS = {
    "gaussian": (nb.Gaussian(0.3, 2), jnp.array([0.4, -1.0])),
    "categorical": (nb.Categorical(3), jnp.array([0.2, 0.5, 0.3])),
    "bernoulli": (nb.Bernoulli(), jnp.array([0.3])),
    "poisson": (nb.Poisson(), jnp.array([3.0])),
}


@pytest.fixture(params=LIKELIHOODS)
def case(request):
    likelihood, target = LIKELIHOODS[request.param]
    return likelihood, target, jax.random.normal(jax.random.key(5), target.shape)


def test_score_and_curvature_are_the_derivatives_of_log_prob(case):
    likelihood, target, f = case
    score = jax.grad(likelihood.log_prob, argnums=1)(target, f)
    curvature = -jax.hessian(likelihood.log_prob, argnums=1)(target, f)
    np.testing.assert_allclose(likelihood.score(target, f), score, rtol=1e-12)
    np.testing.assert_allclose(likelihood.curvature(f), curvature, rtol=1e-12, atol=1e-15)
    vector = jnp.arange(1.0, 1 + len(f))
    np.testing.assert_allclose(
        likelihood.curvature_product(f, vector), curvature @ vector, rtol=1e-12, atol=1e-15
    )


def test_score_noise_has_mean_zero_and_the_curvature_as_covariance(case):
    likelihood, _, f = case
    num_draws = 100_000
    keys = jax.random.split(jax.random.key(0), num_draws)
    noise = np.asarray(jax.vmap(likelihood.score_noise, in_axes=(0, None))(keys, f))
    W = np.asarray(likelihood.curvature(f))
    assert np.all(np.abs(noise.mean(axis=0)) < 5 * np.sqrt(np.diag(W) / num_draws))
    products = noise[:, :, None] * noise[:, None, :]
    error = products.std(axis=0) / num_draws**0.5
    assert np.all(np.abs(products.mean(axis=0) - W) < 5 * error + 1e-15)


def test_log_prob_is_scipys():
    f = jnp.array([0.7])
    for y in (0, 1):
        p = 1 / (1 + np.exp(-0.7))
        ours = nb.Bernoulli().log_prob(jnp.array([float(y)]), f)
        np.testing.assert_allclose(ours, scipy.stats.bernoulli.logpmf(y, p), rtol=1e-12)
    for y in (0, 1, 6):
        ours = nb.Poisson().log_prob(jnp.array([float(y)]), f)
        np.testing.assert_allclose(ours, scipy.stats.poisson.logpmf(y, np.exp(0.7)), rtol=1e-12)
    ours = nb.Gaussian(0.3).log_prob(jnp.array([1.1]), f)
    np.testing.assert_allclose(ours, scipy.stats.norm.logpdf(1.1, 0.7, 0.3**0.5), rtol=1e-12)


@pytest.mark.parametrize(
    ("likelihood", "f", "mean"),
    [(nb.Bernoulli(), 0.7, 1 / (1 + np.exp(-0.7))), (nb.Poisson(), 0.7, np.exp(0.7))],
)
def test_observations_have_the_right_mean(likelihood, f, mean):
    keys = jax.random.split(jax.random.key(1), 20_000)
    draws = np.asarray(jax.vmap(likelihood.sample, in_axes=(0, None))(keys, jnp.array([f])))
    assert np.issubdtype(draws.dtype, np.integer)
    assert abs(draws.mean() - mean) < 5 * draws.std() / 20_000**0.5


@pytest.mark.parametrize(
    ("likelihood", "y", "message"),
    [
        (nb.Bernoulli(), [0.0, 1.2], "but holds 0 to 1.2"),
        (nb.Bernoulli(), [1, 1, 1], r"one class only \(class 1\)"),
        (nb.Bernoulli(), [[0, 1]], r"shape \(n,\) or \(n, 1\), but has \(1, 2\)"),
        (nb.Poisson(), [1.5, 2.0], "whole numbers"),
        (nb.Poisson(), [-1, 2], "whole numbers"),
        (nb.Poisson(), [], "y is empty"),
        (nb.Categorical(2), [0.5, 1.0], "integer class indices"),
        (nb.Categorical(2), [0, 2], "class indices 0 to 1, but holds 0 to 2"),
        (nb.Categorical(2), [[0.5, 0.6], [0.5, 0.5]], "rows that sum to 1"),
        (nb.Gaussian(1.0, 2), [[1.0], [2.0]], r"shape \(n, 2\)"),
        (nb.Gaussian(1.0), [np.nan], "y must be finite"),
        (nb.Gaussian(1.0), [1, 0, 2], "y must hold real values with a Gaussian likelihood"),
    ],
)
def test_impossible_observations_are_refused(likelihood, y, message):
    with pytest.raises(ValueError, match=message):
        likelihood.targets(np.array(y))


def test_numbers_of_outputs_are_whole_and_belong_to_likelihoods_that_have_a_choice():
    with pytest.raises(ValueError, match=r"num_classes must be a whole number, but is 2\.5"):
        nb.Categorical(2.5)
    assert nb.Categorical(np.int64(3)).settings()["num_outputs"] == 3
    for one_output in (nb.Bernoulli, nb.Poisson):
        with pytest.raises(TypeError, match="unexpected keyword argument 'num_outputs'"):
            one_output(num_outputs=3)
