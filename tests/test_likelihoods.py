"""Every likelihood against automatic differentiation, SciPy and its own moments."""

import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.stats

import ntkbayes as nb
from ntkbayes._problem import training_set

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
    assert np.all(draws == np.round(draws))
    assert abs(draws.mean() - mean) < 5 * draws.std() / 20_000**0.5


@pytest.mark.parametrize(
    ("likelihood", "y", "message"),
    [
        (nb.Bernoulli(), [0.0, 1.2], r"between 0 and 1, but holds 1\.2\."),
        (nb.Bernoulli(), [0.3, 1.00001], r"between 0 and 1, but holds 1\.00001\."),
        (nb.Categorical(2), [[1.1, -0.1], [0.5, 0.5]], r"row 0 holds -0\.1 and sums to 1"),
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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("f", [3.0, 9.6, 9.8, 15.0, 23.0, 60.0, 85.0])
def test_counts_have_the_moments_of_their_rate_however_large(dtype, f):
    """Below and above the rate 2¹⁴ of the expansion; int32 would end at e^21.5."""
    num_draws, f = 20_000, jnp.array([f], dtype)
    keys = jax.random.split(jax.random.key(1), num_draws)
    rate = float(jnp.exp(f)[0])
    counts, noise = (
        np.asarray(jax.jit(jax.vmap(draw, (0, None)))(keys, f), float).ravel()
        for draw in (nb.Poisson().sample, nb.Poisson().score_noise)
    )
    assert np.all(counts == np.round(counts))
    z = noise / np.sqrt(rate)
    assert abs(z.mean()) < 5 / np.sqrt(num_draws)
    assert abs(z.var() - 1) < 5 * np.sqrt((2 + 1 / rate) / num_draws)
    assert abs((z**3).mean() - rate**-0.5) < 5 * np.sqrt(15 / num_draws)
    # Counts are rounded to the type.
    rounding = float(jnp.finfo(dtype).eps) * rate
    assert abs(counts.mean() - rate) < 5 * np.sqrt(rate / num_draws) + rounding
    one = np.ravel(nb.Poisson().sample(keys[0], f))[0]
    assert abs(one - rate) < 6 * np.sqrt(rate) + rounding


def test_counts_beyond_the_expansions_rate_follow_scipys_distribution():
    """By their distribution function at five places, as far as 100,000 draws tell."""
    rate, num_draws = 20_000.0, 100_000
    keys = jax.random.split(jax.random.key(2), num_draws)
    f = jnp.log(jnp.array([rate]))
    counts = np.asarray(jax.vmap(nb.Poisson().sample, (0, None))(keys, f))
    for q in (0.001, 0.1, 0.5, 0.9, 0.999):
        at = scipy.stats.poisson.ppf(q, rate)
        p = scipy.stats.poisson.cdf(at, rate)
        assert abs(np.mean(counts <= at) - p) < 5 * np.sqrt(p * (1 - p) / num_draws)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-2), (np.float64, 1e-7)])
def test_log_probabilities_of_large_counts_keep_their_digits(dtype, rtol):
    """SciPy in float64 subtracts numbers of up to 2e9, and is good to 1e-6 nats.

    In float32 log t is rounded by 1e-6 at t = 1e8, which counts t (f − log t) = 1e4 times.
    """
    for count in (15.0, 16.0, 1e3, 1e6, 1e8):
        for step in (-2.0, 0.0, 1.0):  # standard deviations
            f = dtype(np.log(count) + step / np.sqrt(count))
            ours = nb.Poisson().log_prob(jnp.array([count], dtype), jnp.array([f]))
            right = scipy.stats.poisson.logpmf(count, np.exp(float(f)))
            assert float(ours) == pytest.approx(right, rel=rtol, abs=1e-5)


def test_rates_that_overflow_are_refused_by_name():
    f = jnp.array([90.0], jnp.float32)
    for draw in (nb.Poisson().sample, nb.Poisson().score_noise):
        with pytest.raises(ValueError, match="rate exp f must be finite, but overflows float32 at"):
            draw(jax.random.key(0), f)


def test_counts_that_the_inputs_type_does_not_keep_are_refused():
    x, y = np.ones((2, 1), np.float32), np.array([1, 2**24 + 1])
    with pytest.raises(
        ValueError, match="y is computed with in float32, but holds 16777217, which"
    ):
        training_set(nb.Poisson(), x, y)
    assert training_set(nb.Poisson(), x.astype(float), y).targets[1, 0] == 2**24 + 1


def test_numbers_beyond_the_inputs_type_are_refused():
    x = np.ones((2, 1), np.float32)
    with pytest.raises(ValueError, match=r"y is computed with in float32, but holds 9\.9.*e\+39"):
        training_set(nb.Gaussian(1.0), x, np.array([1.0, 9.99e39]))


def test_probabilities_off_by_rounding_are_put_on_the_simplex():
    p = nb.Categorical(2).targets(np.array([[-2e-16, 1 + 2e-16], [0.5, 0.5]]))
    assert p.min() == 0
    np.testing.assert_array_equal(p.sum(axis=1), 1)
    np.testing.assert_array_equal(
        nb.Bernoulli().targets(np.array([-2e-16, 1 + 2e-16, 0.3])).ravel(), [0, 1, 0.3]
    )
    rows = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
        p = nb.Categorical(3).targets(rows.astype(dtype))
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-15)


def test_many_classes_take_memory_for_their_rows_only():
    """np.eye(100,000) would be 80 GB."""
    y = np.array([0, 99_999, 7])
    tracemalloc.start()
    targets = nb.Categorical(100_000).targets(y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    np.testing.assert_array_equal(np.argmax(targets, axis=1), y)
    p = np.full((3, 100_000), 1e-5)
    tracemalloc.start()
    score = nb.evaluation.metrics.brier(p, y, np.full(3, 1 / 3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert score == pytest.approx((1 - 1e-5) ** 2 + 99_999 * 1e-10)
    assert peak < 50e6
