"""Weight-space HMC against importance sampling and exact cases; `test_agreement` has the GP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_models import FINITE, linear_model
from models import classification_data, regression_data
from monte_carlo import assert_within_standard_errors, importance_average

import ntkbayes as nb
from ntkbayes.kernels import memory
from ntkbayes.networks import KernelPair, WideNetwork

NOISE, PRECISION, NUM_CHAINS, NUM_DRAWS = 0.3, 2.0, 4, 1500
X, Y, X_TEST = regression_data()
LINEAR, GAUSSIAN = linear_model(), nb.Gaussian(NOISE)


def run(network, likelihood, x, y, **changes):
    settings = dict(prior_precision=PRECISION, key=jax.random.key(0), space="weight")
    settings |= dict(num_warmup=300, num_draws=NUM_DRAWS, num_chains=NUM_CHAINS)
    return nb.hmc(network, likelihood, x, y, **settings | changes)


def short_run(network=LINEAR, likelihood=GAUSSIAN, x=X, y=Y, **changes):
    return run(
        network, likelihood, x, y, **dict(num_warmup=5, num_draws=10, num_chains=2) | changes
    )


def all_draws(posterior, x=X_TEST):
    latent = posterior.sample(jax.random.key(1), x, num_draws=posterior.num_available)
    return np.asarray(latent).reshape(NUM_CHAINS, -1, len(x), latent.shape[-1])


def assert_moments(latent, mean, covariance):
    """Compare draws (chain draw m 1) with the mean and covariance of a Gaussian."""
    assert_within_standard_errors(latent[..., 0], mean)
    centered = latent[..., 0] - mean
    assert_within_standard_errors(centered[..., :, None] * centered[..., None, :], covariance)


def test_without_information_the_posterior_is_the_prior_around_the_center():
    center = 3 * jax.random.normal(jax.random.key(7), (6,))
    posterior = run(LINEAR, nb.Gaussian(1e8), X, Y, center=center)
    k = nb.empirical_ntk_trace(LINEAR, jnp.zeros(6), X_TEST) / PRECISION
    assert_moments(
        all_draws(posterior), np.asarray(LINEAR.apply(center, X_TEST))[:, 0], np.asarray(k)
    )


class LinearModel(WideNetwork):
    """Fixed random features times more weights than points, so that its kernel has full rank."""

    features: jax.Array

    def init(self, key, *, num_features, num_outputs):
        return jax.random.normal(key, (self.features.shape[1], num_outputs))

    def apply(self, params, x):
        return jnp.tanh(x @ self.features) @ params

    def ntk(self, x1, x2=None):
        return self.apply(
            self.apply(jnp.eye(self.features.shape[1]), x1 if x2 is None else x2).T, x1
        )

    nngp = ntk

    def kernel(self, x1, x2=None):
        return KernelPair(self.ntk(x1, x2), self.ntk(x1, x2))

    def settings(self):
        return {"network": "linear"}


@pytest.mark.slow
def test_weight_space_and_function_space_agree_on_a_linear_classifier():
    x, y, x_test = classification_data(num_classes=2)
    network = LinearModel(2 * jax.random.normal(jax.random.key(5), (2, 30)))
    weights, functions = (
        all_draws(run(network, nb.Bernoulli(), x, y, space=space, num_draws=800), x_test)
        for space in ("weight", "function")
    )
    for power in (1, 2):
        a, b = weights**power, functions**power
        # The difference of independent chains has both errors.
        assert_within_standard_errors(a - b, 0.0)


def small_network():
    """One input, two hidden units, six weights; in NTK parameterisation."""

    def apply(params, x):
        hidden = jnp.tanh(x @ params["in"] + params["bias"][None, :])
        return hidden @ params["out"] / 2**0.5

    def init(key):
        key_in, key_bias, key_out = jax.random.split(key, 3)
        return {
            "in": jax.random.normal(key_in, (1, 2)),
            "bias": jax.random.normal(key_bias, (2,)),
            "out": jax.random.normal(key_out, (2, 1)),
        }

    return nb.finite_network(init, apply)


def test_the_posterior_of_a_small_network_agrees_with_importance_sampling_from_the_prior():
    x, y, x_test = (
        np.array([[-1.0], [0.2], [1.5]]),
        np.array([-0.6, 0.4, 0.9]),
        np.array([[2.5], [0.0]]),
    )
    posterior = run(small_network(), nb.Gaussian(NOISE), x, y)
    weights = np.random.default_rng(3).normal(size=(400_000, 6)) / PRECISION**0.5
    slopes, biases, readout = weights[:, :2], weights[:, 2:4], weights[:, 4:]

    def evaluate(x):
        hidden = np.tanh(x[:, None, :] * slopes[None] + biases[None])
        return np.sum(hidden * readout[None], axis=-1).T / 2**0.5

    log_weights = -0.5 * np.sum((y - evaluate(x)) ** 2, axis=1) / NOISE
    latent = all_draws(posterior, x_test)[..., 0]
    for power in (1, 2):
        expected = importance_average(log_weights, evaluate(x_test) ** power)
        assert_within_standard_errors(latent**power, *expected)
    visited = jax.vmap(posterior.weights)(jnp.arange(posterior.num_available))
    readout_squared = np.asarray(visited["out"][:, :, 0] ** 2).reshape(NUM_CHAINS, NUM_DRAWS, 2)
    expected = importance_average(log_weights, readout**2)
    assert_within_standard_errors(readout_squared, *expected, min_ess=400)


def test_draws_are_the_visited_networks():
    x, y, x_test = classification_data()
    network = FINITE["equinox"]
    center = network.init(jax.random.key(2), num_features=2, num_outputs=3)
    posterior = short_run(network, nb.Categorical(3), x, y, center=center)
    draws = posterior.draw(jax.random.key(1), x_test, num_draws=4)
    for draw, index in zip(draws.latent, (4, 9, 14, 19), strict=True):
        expected = network.apply(posterior.weights(index), x_test)
        np.testing.assert_allclose(draw, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(draws.stats["energy"], posterior.stats["energy"][4::5])
    assert posterior.settings["center"] == "given"
    assert posterior.settings["num_weights"] == network.num_parameters


def test_potential_energy_belongs_to_the_visited_weights():
    """With θ = θ̄ + z / √λ, ½ ‖z‖² = ½ λ ‖θ − θ̄‖²."""
    center = np.linspace(-1, 1, 6)
    posterior = short_run(center=center)
    for index in (0, 19):
        theta = posterior.weights(index)
        squares = PRECISION * np.sum((theta - center) ** 2)
        squares += np.sum((Y - LINEAR.apply(theta, X)[:, 0]) ** 2) / NOISE
        expected = 0.5 * (squares + len(Y) * np.log(2 * np.pi * NOISE))
        found = posterior.stats["potential_energy"][index]
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_weights_and_draws_come_in_the_inputs_type():
    posterior = short_run(x=X.astype(np.float32))
    assert posterior.weights(0).dtype == np.float32
    assert posterior.sample(jax.random.key(1), X_TEST, num_draws=2).dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"center": np.zeros(5)},
            r"center must be laid out .* shapes \[\(6,\)\], but has .*\(5,\)",
        ),
        ({"center": [np.zeros(6)]}, r"shapes \[\(6,\)\] in another structure"),
        ({"center": np.full(6, np.nan)}, "center must be finite"),
        ({"likelihood": nb.Categorical(3), "y": np.arange(8) % 3}, "returns 1 outputs, but .* 3"),
    ],
)
def test_centers_and_networks_that_do_not_fit_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        short_run(**changes)


def test_weights_that_do_not_fit_into_memory_are_refused_before_sampling(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * 2 * 10 * 6 * 8 - 1)
    with pytest.raises(ValueError, match=r"20 × 6 numbers in float64.* ask for fewer draws"):
        short_run(progress=lambda fraction: pytest.fail("sampled"))
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * 2 * 10 * 6 * 8)
    assert short_run().num_available == 20
