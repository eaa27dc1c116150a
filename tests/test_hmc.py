"""Function-space HMC: exact where the posterior is Gaussian, other samplers where it is not."""

import subprocess
import sys

import arviz as az
import jax
import numpy as np
import pytest
import scipy.special
from monte_carlo import assert_within_standard_errors, elliptical_slice, importance_average

from ntkbayes.likelihoods import Bernoulli, Categorical, Gaussian, Poisson
from ntkbayes.networks import dense_network
from ntkbayes.posteriors import function_space
from ntkbayes.posteriors.hmc import hmc

NETWORK = dense_network(depth=1)
NOISE_VARIANCE = 0.1
PRIOR_PRECISION = 0.5
NUM_CHAINS = 4


def regression_data(num_points=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_points, 2))
    return x, np.sin(2 * x[:, 0]) + 0.3 * rng.normal(size=num_points)


def run_regression(network=NETWORK, **changes):
    x, y = regression_data()
    settings = dict(prior_precision=PRIOR_PRECISION, key=jax.random.key(0), num_warmup=30)
    settings |= dict(num_draws=20, num_chains=2) | changes
    return hmc(network, Gaussian(NOISE_VARIANCE), x, y, **settings)


def prior(x1, x2, kernel="ntk"):
    return np.asarray(getattr(NETWORK.kernel(x1, x2), kernel)) / PRIOR_PRECISION


@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
@pytest.mark.slow
def test_gaussian_noise_gives_the_exact_gaussian_process(kernel):
    x, y = regression_data()
    x_test = np.vstack([x[:2], np.random.default_rng(1).normal(size=(3, 2))])
    posterior = run_regression(num_warmup=300, num_draws=1500, num_chains=NUM_CHAINS, kernel=kernel)
    draws = posterior.draw(jax.random.key(2), x_test, num_draws=posterior.num_available)

    k_cross = prior(x, x_test, kernel)
    k_noisy = prior(x, x, kernel) + NOISE_VARIANCE * np.eye(len(x))
    mean = k_cross.T @ np.linalg.solve(k_noisy, y)
    covariance = prior(x_test, x_test, kernel) - k_cross.T @ np.linalg.solve(k_noisy, k_cross)

    latent = np.asarray(draws.latent)[..., 0].reshape(NUM_CHAINS, 1500, len(x_test))
    assert_within_standard_errors(latent, mean)
    centered = latent - mean
    assert_within_standard_errors(centered[..., :, None] * centered[..., None, :], covariance)


LIKELIHOODS = {
    "bernoulli": (
        Bernoulli(),
        np.array([0, 1, 0, 1, 1, 0]),
        lambda y, f: y * f[..., 0] - np.logaddexp(0, f[..., 0]),
    ),
    "poisson": (
        Poisson(),
        np.array([0, 3, 1, 0, 2, 1]),
        lambda y, f: y * f[..., 0] - np.exp(f[..., 0]),
    ),
    "softmax": (
        Categorical(3),
        np.array([0, 1, 2, 1, 0, 2]),
        lambda y, f: f[..., np.arange(len(y)), y] - scipy.special.logsumexp(f, axis=-1),
    ),
}
"""Likelihood, observations, and log p(y | f) by the textbook, up to a constant."""


def run_likelihood(name):
    """Visited functions at four test points (chain draw m c), and the joint prior covariance."""
    likelihood, y, _ = LIKELIHOODS[name]
    x, _ = regression_data(6)
    x_test = np.random.default_rng(1).normal(size=(4, 2))
    posterior = hmc(
        NETWORK, likelihood, x, y, prior_precision=PRIOR_PRECISION, key=jax.random.key(0),
        num_warmup=300, num_draws=1500,
    )  # fmt: skip
    latent = posterior.sample(jax.random.key(3), x_test, num_draws=posterior.num_available)
    chains = np.asarray(latent).reshape(NUM_CHAINS, 1500, len(x_test), -1)
    return chains, prior(np.vstack([x, x_test]), np.vstack([x, x_test]))


@pytest.mark.parametrize("name", ["bernoulli", "poisson"])
@pytest.mark.slow
def test_posteriors_agree_with_importance_sampling_from_the_prior(name):
    latent, covariance = run_likelihood(name)
    _, y, log_prob = LIKELIHOODS[name]
    normal = np.random.default_rng(2).normal(size=(400_000, len(covariance)))
    functions = (normal @ np.linalg.cholesky(covariance).T)[..., None]
    log_weights = log_prob(y, functions[:, : len(y)]).sum(axis=1)
    for power in (1, 2):
        expected = importance_average(log_weights, functions[:, len(y) :] ** power)
        assert_within_standard_errors(latent**power, *expected)


@pytest.mark.slow
def test_the_softmax_posterior_agrees_with_elliptical_slice_sampling():
    latent, covariance = run_likelihood("softmax")
    _, y, log_prob = LIKELIHOODS["softmax"]
    visited = elliptical_slice(
        covariance,
        lambda f: log_prob(y, f[:, : len(y)]).sum(axis=1),
        3,
        np.random.default_rng(2),
        num_chains=100,
        num_steps=900,
    )
    expected = scipy.special.softmax(visited[:, 100:, len(y) :], axis=-1)
    found = scipy.special.softmax(latent, axis=-1)
    for power in (1, 2):
        axes = dict(chain_axis=0, draw_axis=1)
        assert az.ess(expected**power, **axes).min() > 1000
        error = az.mcse(expected**power, method="mean", **axes)
        assert error.max() < 0.005
        mean = (expected**power).mean(axis=(0, 1))
        assert_within_standard_errors(found**power, mean, error)


def test_same_key_gives_the_same_draws_and_another_key_does_not():
    first, again, other = (run_regression(key=jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.whitened, again.whitened)
    assert not np.any(np.asarray(first.whitened) == np.asarray(other.whitened))
    x_test = np.zeros((1, 2))
    np.testing.assert_array_equal(
        first.draw(jax.random.key(4), x_test, num_draws=10).latent,
        again.draw(jax.random.key(4), x_test, num_draws=10).latent,
    )


@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_draws_at_the_training_inputs_are_the_visited_functions(activation):
    """Up to the variance √eps · max diag K that `extend_factor` adds, within 6 deviations."""
    posterior = run_regression(dense_network(depth=1, activation=activation))
    x, _ = regression_data()
    draws = posterior.draw(jax.random.key(1), x, num_draws=posterior.num_available)
    visited = np.einsum("nm,smc->snc", posterior.factor, posterior.whitened)
    variance = np.finfo(float).eps ** 0.5 * np.max(np.sum(posterior.factor**2, axis=1))
    np.testing.assert_allclose(draws.latent, visited, rtol=0, atol=6 * variance**0.5)


def test_a_shift_of_all_logits_keeps_its_prior():
    """The softmax does not see it: the sums of z over classes stay N(0, c), whatever the labels."""
    x, y = regression_data()
    posterior = hmc(
        NETWORK,
        Categorical(3),
        x,
        (y > 0) + (y > 0.8).astype(int),
        prior_precision=PRIOR_PRECISION,
        key=jax.random.key(0),
        num_warmup=100,
        num_draws=300,
    )
    shift = np.asarray(posterior.whitened.sum(axis=-1)).reshape(NUM_CHAINS, 300, len(x))
    for power, expected in ((1, 0.0), (2, 3.0)):
        error = az.mcse(shift**power, method="mean", chain_axis=0, draw_axis=1)
        mean = (shift**power).mean(axis=(0, 1))
        np.testing.assert_array_less(np.abs(mean - expected), 5 * error)


def test_what_the_softmax_does_not_see_is_a_coordinate_of_its_own():
    """There the posterior is as wide as the prior, and the sampler may learn that."""
    x, y = regression_data()
    k, likelihood = prior(x, x), Categorical(3)
    targets = likelihood.targets((y > 0) + (y > 0.8).astype(int))
    target = function_space._target(likelihood, k, np.linalg.cholesky(k), targets)
    (unseen,) = np.flatnonzero(np.all(target.scale == 1, axis=0))
    moved = np.asarray(target.coefficients(np.ones_like(k[:, :3]) * (np.arange(3) == unseen)))
    np.testing.assert_allclose(np.abs(moved), 3**-0.5, rtol=1e-12)
    np.testing.assert_allclose(moved, moved[:, :1] * np.ones(3), rtol=1e-12)


def test_trajectories_have_many_lengths_around_their_mean():
    """Else a direction whose period they match would stand still."""
    steps = np.asarray(run_regression(num_warmup=100, num_draws=100).stats["num_steps"])
    chain = steps[:100]  # of one step size
    assert 1.6 * chain.min() < chain.mean() < 0.7 * chain.max()
    assert len(np.unique(chain)) >= 4


def test_potential_energy_belongs_to_the_visited_functions_chain_by_chain():
    posterior = run_regression()
    _, y = regression_data()
    z = np.asarray(posterior.whitened)[..., 0]
    residual = y - z @ np.asarray(posterior.factor).T
    squares = np.sum(z**2, axis=1) + np.sum(residual**2, axis=1) / NOISE_VARIANCE
    expected = 0.5 * (squares + len(y) * np.log(2 * np.pi * NOISE_VARIANCE))
    np.testing.assert_allclose(posterior.stats["potential_energy"], expected, rtol=1e-10)
    assert not np.any(posterior.stats["diverging"])


def test_single_precision_products_change_the_log_density_by_less_than_a_thousandth_of_a_nat():
    """Recomputed in double precision at what the chains visited; and the draws are in double."""
    posterior = run_regression(product_dtype="float32")
    _, y = regression_data()
    z = np.asarray(posterior.whitened)[..., 0]
    assert z.dtype == np.float64
    residual = y - z @ np.asarray(posterior.factor).T
    squares = np.sum(z**2, axis=1) + np.sum(residual**2, axis=1) / NOISE_VARIANCE
    exact = 0.5 * (squares + len(y) * np.log(2 * np.pi * NOISE_VARIANCE))
    error = np.abs(np.asarray(posterior.stats["potential_energy"]) - exact).max()
    assert 0 < error < 1e-3


def test_fewer_draws_are_evenly_spaced_in_every_chain():
    posterior = run_regression()
    x_test = np.zeros((1, 2))
    few = posterior.draw(jax.random.key(1), x_test, num_draws=8)
    every_fifth = np.asarray(posterior.stats["potential_energy"])[4::5]
    np.testing.assert_array_equal(few.stats["potential_energy"], every_fifth)
    assert few.latent.shape == (8, 1, 1)


def test_draws_come_in_the_inputs_type():
    x, y = regression_data()
    posterior = hmc(
        NETWORK,
        Gaussian(NOISE_VARIANCE),
        x.astype(np.float32),
        y,
        prior_precision=PRIOR_PRECISION,
        key=jax.random.key(0),
        num_warmup=30,
        num_draws=20,
        num_chains=2,
    )
    assert posterior.whitened.dtype == np.float32
    x_test = np.ones((2, 2))
    assert posterior.draw(jax.random.key(1), x_test, num_draws=2).latent.dtype == np.float32


def test_progress_rises_to_one_and_an_exception_in_it_stops_the_run():
    fractions = []
    run_regression(num_warmup=40, num_draws=60, progress=fractions.append)
    assert fractions == [0.25, 0.5, 0.75, 1.0]

    def interrupt(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_regression(num_warmup=40, num_draws=60, progress=interrupt)


def test_settings_record_the_run():
    settings = run_regression(kernel="nngp").settings
    expected = {
        "method": "hmc",
        "space": "function",
        "kernel": "nngp",
        "prior_precision": PRIOR_PRECISION,
        "num_warmup": 30,
    }
    assert expected.items() <= settings.items()
    assert NETWORK.settings().items() <= settings.items()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prior_precision": 0.0}, "prior_precision must be positive"),
        ({"num_warmup": 0}, "num_warmup must be at least 1"),
        ({"num_draws": 0}, "num_draws must be at least 1"),
        ({"product_dtype": "float16"}, "unknown product_dtype 'float16'"),
        ({"num_chains": 0}, "num_chains must be at least 1"),
        ({"kernel": "ntkk"}, "unknown kernel 'ntkk': did you mean ntk"),
        ({"space": "weights"}, "unknown space 'weights': did you mean weight"),
        ({"center": [0.0]}, "center has no meaning in function space"),
        ({"space": "weight", "kernel": "ntk"}, "kernel has no meaning in weight space"),
        (
            {"space": "weight", "product_dtype": "float32"},
            "product_dtype has no meaning in weight space",
        ),
    ],
)
def test_settings_out_of_range_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        run_regression(**changes)


@pytest.mark.parametrize(
    ("num_draws", "match"),
    [
        (0, "num_draws must be at least 1"),
        (3, "multiple of the 2 chains"),
        (42, "at most the 40 draws"),
    ],
)
def test_draws_that_the_chains_do_not_hold_are_refused(num_draws, match):
    with pytest.raises(ValueError, match=match):
        run_regression().draw(jax.random.key(0), np.zeros((1, 2)), num_draws=num_draws)


def test_test_inputs_with_other_features_are_refused():
    with pytest.raises(ValueError, match=r"x must have shape \(m, 2\)"):
        run_regression().draw(jax.random.key(0), np.zeros((1, 3)), num_draws=2)


MULTI_DEVICE = """
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from ntkbayes.likelihoods import Gaussian
from ntkbayes.networks import dense_network
from ntkbayes.posteriors import function_space
from ntkbayes.posteriors.hmc import hmc

rng = np.random.default_rng(0)
x = rng.normal(size=(8, 2))
runs = [
    hmc(
        dense_network(depth=1), Gaussian(0.1), x, np.sin(x[:, 0]), prior_precision=0.5,
        key=jax.random.key(0), num_warmup=300, num_draws=500,
    )
    for _ in range(2)
]
first, again = (np.asarray(run.whitened) for run in runs)
assert np.array_equal(first, again)
kernel = np.asarray(dense_network(depth=1).kernel(x).ntk) / 0.5
exact = kernel @ np.linalg.solve(kernel + 0.1 * np.eye(8), np.sin(x[:, 0]))
functions = first[..., 0] @ np.asarray(runs[0].factor).T
print(np.abs(functions.mean(axis=0) - exact).max())
"""


@pytest.mark.slow
def test_chains_shared_out_over_two_devices_are_reproducible_and_right():
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", MULTI_DEVICE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # Posterior standard deviations are at most √0.1; 5 standard errors at 1000 effective draws.
    assert float(result.stdout) < 5 * np.sqrt(0.1 / 1000)
