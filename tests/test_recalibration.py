"""NLL after temperature scaling across two halves: by a grid, and for known temperatures."""

import numpy as np
import pytest
import scipy.special

from ntkbayes.evaluation import metrics


def simulated(num_points, temperature, seed=0):
    """Probabilities, and labels of probabilities at a temperature: T = 1 is calibrated."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(num_points, 3))
    truth = scipy.special.softmax(logits / temperature, axis=1).cumsum(axis=1)
    y = (truth[:, :-1] < rng.uniform(size=(num_points, 1))).sum(axis=1)
    return scipy.special.softmax(logits, axis=1), y


def test_each_half_is_scored_by_the_best_temperature_of_the_other_on_a_grid():
    p, y = simulated(60, 2.0)
    found = metrics.pointwise_scaled_nll(p, y, seed=5)
    order, expected = np.random.default_rng(5).permutation(60), np.empty(60)
    temperatures = np.exp(np.linspace(-2, 2, 4001))
    for fitted, scored in ((order[:30], order[30:]), (order[30:], order[:30])):
        losses = [
            -np.log(softened(p[fitted], t)[np.arange(30), y[fitted]]).sum() + np.log(t) ** 2 / 2
            for t in temperatures
        ]
        best = temperatures[np.argmin(losses)]
        expected[scored] = -np.log(softened(p[scored], best)[np.arange(30), y[scored]])
    np.testing.assert_allclose(found, expected, rtol=1e-2)  # grid of 0.1 % in T
    weights = metrics.uniform_weights(60)
    nll = -np.log(p[np.arange(60), y]).mean()
    assert metrics.scaled_nll(p, y, weights, seed=5) == pytest.approx(found.mean())
    assert metrics.temperature_gain(p, y, weights, seed=5) == pytest.approx(nll - found.mean())


def softened(p, temperature):
    powers = p ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_gain_is_nothing_if_calibrated_and_what_the_temperature_costs_if_not():
    weights = metrics.uniform_weights(20_000)
    p, y = simulated(20_000, 1.0)
    assert metrics.temperature_gain(p, y, weights) == pytest.approx(0, abs=1e-3)
    p, y = simulated(20_000, 2.0)
    at_truth = -np.log(softened(p, 2.0)[np.arange(20_000), y]).mean()
    assert metrics.scaled_nll(p, y, weights) == pytest.approx(at_truth, abs=1e-3)


def test_a_half_without_errors_does_not_make_the_other_infinitely_wrong():
    p, y = np.tile([0.9, 0.1], (40, 1)), np.zeros(40, int)
    y[0] = 1
    assert metrics.scaled_nll(p, y, metrics.uniform_weights(40)) < 0.4
    assert np.isfinite(metrics.scaled_nll(np.eye(2)[1 - y], y, metrics.uniform_weights(40)))
