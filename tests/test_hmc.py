"""Function-space HMC: exact where the posterior is Gaussian, importance sampling where not."""

import subprocess
import sys

import arviz as az
import jax
import numpy as np
import pytest

from ntkbayes.likelihoods import Categorical, Gaussian
from ntkbayes.networks import dense_network
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


def assert_within_standard_errors(draws, expected, *, num_errors=5.0, min_ess=1000):
    """Compare the mean of draws (chain, draw, …) with `expected`, entry by entry."""
    draws = draws.reshape(*draws.shape[:2], -1)
    for series, value in zip(np.moveaxis(draws, 2, 0), np.ravel(expected), strict=True):
        assert az.ess(series) > min_ess
        assert abs(series.mean() - value) < num_errors * az.mcse(series, method="mean")


@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
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


def test_softmax_posterior_agrees_with_importance_sampling_from_the_prior():
    x, _ = regression_data(6)
    labels = np.array([0, 1, 0, 1, 1, 0])
    x_test = np.random.default_rng(1).normal(size=(4, 2))
    posterior = hmc(
        NETWORK,
        Categorical(2),
        x,
        labels,
        prior_precision=PRIOR_PRECISION,
        key=jax.random.key(0),
        num_warmup=300,
        num_draws=1500,
    )
    draws = posterior.draw(jax.random.key(3), x_test, num_draws=posterior.num_available)
    latent = np.asarray(draws.latent)
    predictive = 1 / (1 + np.exp(latent[..., 0] - latent[..., 1]))

    rng = np.random.default_rng(2)
    k_joint = prior(np.vstack([x, x_test]), np.vstack([x, x_test]))
    scale_tril = np.linalg.cholesky(k_joint)
    functions = np.einsum("ij,sjc->sic", scale_tril, rng.normal(size=(400_000, len(k_joint), 2)))
    margin = functions[..., 1] - functions[..., 0]
    signs = 2 * labels - 1
    weights = np.exp(-np.logaddexp(0, -signs * margin[:, : len(x)]).sum(axis=1))
    weights /= weights.sum()
    assert 1 / np.sum(weights**2) > 20_000
    proposals = 1 / (1 + np.exp(-margin[:, len(x) :]))
    expected = weights @ proposals
    importance_error = np.sqrt((weights**2) @ (proposals - expected) ** 2)

    chains = predictive.reshape(NUM_CHAINS, -1, len(x_test))
    for j in range(len(x_test)):
        series = chains[..., j]
        assert az.ess(series) > 1000
        error = np.hypot(az.mcse(series, method="mean"), importance_error[j])
        assert error < 0.01
        assert abs(series.mean() - expected[j]) < 5 * error


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
