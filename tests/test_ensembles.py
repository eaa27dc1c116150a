import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import NETWORK, brute_force_hessian, classification_data, regression_data, softmax

import ntkbayes as nb
from ntkbayes.networks.neural_tangents import predict as nt_predict, stax


@pytest.mark.parametrize("time", [0.7, 30.0, np.inf])
def test_unregularised_moments_equal_neural_tangents(time):
    """Theory 2.2 at λ = 0 and σ² = 1 against gradient_descent_mse_ensemble."""
    x, y, x_test = regression_data()
    layers = [stax.Dense(1, 2**0.5, 0.3), stax.Relu()] * 2
    kernel_fn = stax.serial(*layers, stax.Dense(1, 1.0, 0.3))[2]
    # MSE there is a mean over the n targets: their rate 1 for time n·t is ours for time t.
    peer = nt_predict.gradient_descent_mse_ensemble(kernel_fn, x, y[:, None])
    rate = None if np.isinf(time) else time * len(x)
    expected = peer(rate, x_test, get="ntk", compute_cov=True)
    ours = nb.ntk_ensemble(NETWORK, nb.Gaussian(1.0), x, y, prior_precision=0.0, time=time)
    np.testing.assert_allclose(ours.mean(x_test), expected.mean, atol=1e-10)
    np.testing.assert_allclose(ours.covariance(x_test)[:, 0, :, 0], expected.covariance, atol=1e-10)


@pytest.mark.parametrize("initial", ["nngp", "ntk"])
@pytest.mark.parametrize("perturb", [False, True])
def test_regression_moments_equal_the_naive_formula(initial, perturb):
    x, y, x_test = regression_data()
    noise, precision = 0.2, 3.0
    joint = NETWORK.kernel(jnp.concatenate([x, x_test]))
    n = len(x)
    q = np.asarray(joint.nngp if initial == "nngp" else joint.ntk / precision)
    k = np.asarray(joint.ntk) / precision
    gain = k[n:, :n] @ np.linalg.inv(k[:n, :n] + noise * np.eye(n))
    lift = np.concatenate([-gain, np.eye(len(x_test))], axis=1)
    covariance = lift @ q @ lift.T + (noise * gain @ gain.T if perturb else 0)
    ours = nb.ntk_ensemble(
        NETWORK, nb.Gaussian(noise), x, y,
        prior_precision=precision, initial=initial, perturb_targets=perturb,
    )  # fmt: skip
    np.testing.assert_allclose(ours.mean(x_test)[:, 0], gain @ y, atol=1e-10)
    np.testing.assert_allclose(ours.covariance(x_test)[:, 0, :, 0], covariance, atol=1e-10)
    np.testing.assert_allclose(ours.variance(x_test)[:, 0], np.diag(covariance), atol=1e-10)


def test_zero_initial_function_gives_the_mode_only():
    x, y, x_test = regression_data()
    mode = nb.ntk_ensemble(NETWORK, nb.Gaussian(0.1), x, y, prior_precision=1.0, initial="zero")
    draws = mode.sample(jax.random.key(0), x_test, num_draws=3)
    np.testing.assert_array_equal(draws, jnp.stack([mode.mean(x_test)] * 3))


@pytest.mark.parametrize("initial", ["nngp", "ntk"])
@pytest.mark.parametrize("perturb", [False, True])
def test_classifier_spread_is_the_first_order_theory_for_weak_data(initial, perturb):
    """Theory 3.4: for K → 0 the map f₀ → f is (I + K W)⁻¹, and score noise restores Laplace."""
    x, y, _ = classification_data(num_train=5)
    precision, num_draws = 300.0, 40_000
    ensemble = nb.ntk_ensemble(
        NETWORK, nb.Categorical(3), x, y,
        prior_precision=precision, initial=initial, perturb_targets=perturb,
    )  # fmt: skip
    draws = np.asarray(ensemble.sample(jax.random.key(0), x, num_draws=num_draws))
    if initial == "nngp":  # not small: only the average over classes stays exactly Gaussian
        exact = np.asarray(NETWORK.kernel(x).nngp) / 3
        measured = np.cov(draws.mean(axis=2).T)
    else:
        k = np.asarray(NETWORK.kernel(x).ntk) / precision
        p = softmax(k @ np.asarray(ensemble.mode.a))
        hessian = brute_force_hessian(k, p)
        shrink = np.linalg.solve(hessian, np.linalg.inv(np.kron(k, np.eye(3))))
        exact = shrink @ np.kron(k, np.eye(3)) @ shrink.T
        if perturb:
            exact = np.linalg.inv(hessian)
        measured = np.cov(draws.reshape(num_draws, -1).T)
    variance = np.diag(exact)
    error = np.sqrt((np.outer(variance, variance) + exact**2) / num_draws)
    assert np.all(np.abs(measured - exact) < 5 * error)


@pytest.mark.parametrize("perturb", [False, True])
def test_each_classifier_satisfies_the_stationarity_equation(perturb):
    """At the training points a = K⁻¹(f − f₀) must equal target − softmax(f), so be a score."""
    x, y, _ = classification_data()
    ensemble = nb.ntk_ensemble(
        NETWORK, nb.Categorical(3), x, y, prior_precision=0.1, perturb_targets=perturb
    )
    draws = ensemble.draw(jax.random.key(0), x, num_draws=6)
    assert float(draws.stats["residual"].max()) < 1.5e-8
    again = ensemble.draw(jax.random.key(0), x, num_draws=6)
    np.testing.assert_array_equal(draws.latent, again.latent)
    # the class mean of f is never moved: it stays the class mean of f₀, a GP with covariance Q / c
    spread = np.asarray(ensemble.sample(jax.random.key(1), x, num_draws=4000)).mean(axis=2)
    exact = np.asarray(NETWORK.kernel(x).nngp) / 3
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / 4000)
    assert np.all(np.abs(np.cov(spread.T) - exact) < 5 * error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior_precision": 0.0}, "prior_precision must be positive"),
        ({"prior_precision": -1.0}, "prior_precision must be zero or positive"),
        ({"prior_precision": 1.0, "initial": "nngpp"}, "did you mean nngp"),
        ({"prior_precision": 1.0, "time": 3.0}, "time must be inf"),
        ({"prior_precision": 1.0, "y": np.zeros(7, dtype=int)}, "one class only"),
        ({"prior_precision": 1.0, "y": np.arange(6) % 3}, "as many rows"),
        ({"prior_precision": 1.0, "x": np.full((7, 2), np.nan)}, "x must be finite"),
        ({"prior_precision": 1.0, "x": np.zeros((0, 2))}, "x is empty"),
    ],
)
def test_impossible_training_is_refused(change, message):
    x, y, _ = classification_data()
    arguments = {"x": x, "y": y} | change
    with pytest.raises(ValueError, match=message):
        nb.ntk_ensemble(NETWORK, nb.Categorical(3), **arguments)
