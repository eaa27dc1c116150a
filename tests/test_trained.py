import jax
import numpy as np
import pytest
from models import classification_data, regression_data

import ntkbayes as nb
from ntkbayes.solvers import find_mode, softmax_hessian, solve_stationarity

NETWORK = nb.dense_network(depth=2, width=512, bias_scale=0.3)


def test_wide_regression_networks_end_at_the_closed_form():
    """Theory 1.2 with the member's own f₀; the distance is O(width^-1/2)."""
    x, y, x_test = regression_data()
    noise, precision, key = 0.3, 1.0, jax.random.key(0)
    ensemble = nb.deep_ensemble(
        NETWORK, nb.Gaussian(noise), x, y, prior_precision=precision, key=key, num_members=3
    )
    assert float(ensemble.gradient_norm.max()) <= 2e-2  # 0.004 to 0.011 was measured
    draws = ensemble.sample(key, x_test, num_draws=3)
    k = np.asarray(NETWORK.kernel(np.concatenate([x, x_test])).ntk) / precision
    n = len(x)
    for key_member, trained in zip(jax.random.split(key, 3), draws, strict=True):
        params = NETWORK.init(key_member, num_features=2, num_outputs=1)
        f0, f0_test = NETWORK.apply(params, x)[:, 0], NETWORK.apply(params, x_test)[:, 0]
        a = np.linalg.solve(k[:n, :n] + noise * np.eye(n), y - f0)
        moved = k[n:, :n] @ a
        error = np.linalg.norm(trained[:, 0] - f0_test - moved) / np.linalg.norm(moved)
        assert error < 4 / 512**0.5


def test_wide_classifiers_end_at_the_stationary_point():
    """Theory 1.4 with the member's own f₀."""
    x, y, _ = classification_data()
    likelihood, key = nb.Categorical(3), jax.random.key(1)
    ensemble = nb.deep_ensemble(
        NETWORK, likelihood, x, y, prior_precision=0.5, key=key, num_members=2
    )
    k, targets = NETWORK.kernel(x).ntk / 0.5, likelihood.targets(y)
    mode = find_mode(k, likelihood, targets, tolerance=1e-8).a
    hessian = softmax_hessian(k, jax.nn.softmax(k @ mode))
    for key_member, trained in zip(
        jax.random.split(key, 2), ensemble.sample(key, x, num_draws=2), strict=True
    ):
        params = NETWORK.init(key_member, num_features=2, num_outputs=3)
        f0 = NETWORK.apply(params, x)
        solution = solve_stationarity(
            k,
            likelihood,
            targets,
            f0[None],
            0 * f0[None],
            mode,
            hessian,
            tolerance=1e-8,
            num_slots=1,
        )
        moved = k @ solution.a[0]
        error = np.linalg.norm(trained - f0 - moved) / np.linalg.norm(moved)
        assert error < 4 / 512**0.5


def test_more_draws_than_members_are_refused():
    x, y, _ = regression_data()
    network = nb.dense_network(width=8)
    ensemble = nb.deep_ensemble(
        network, nb.Gaussian(1.0), x, y, prior_precision=1.0, key=jax.random.key(0), max_steps=1
    )
    with pytest.raises(ValueError, match="num_draws is 6, but the ensemble has 5 members"):
        ensemble.sample(jax.random.key(0), x, num_draws=6)
