"""Energy score and dyadic NLL: naive formulas, scoringrules, and what they tell apart."""

import numpy as np
import pytest
import scipy.stats
import scoringrules

from ntkbayes.evaluation import metrics

RNG = np.random.default_rng(0)


def test_energy_score_is_that_of_scoringrules_over_the_batches_of_joint_nll():
    draws, y = RNG.normal(size=(40, 23, 2)), RNG.normal(size=(23, 2))
    points = np.random.default_rng(3).permutation(23)
    expected = []
    for start in (0, 7, 14):  # three batches of seven; two points are left out
        batch = points[start : start + 7]
        ensemble = draws[:, batch].reshape(40, 14)
        expected.append(scoringrules.es_ensemble(y[batch].ravel(), ensemble, estimator="fair"))
    weights = metrics.uniform_weights(23)
    found = metrics.energy_score(draws, y, weights, batch_size=7, seed=3)
    assert found == pytest.approx(np.mean(expected), rel=1e-10)


def test_energy_score_of_single_points_is_the_crps_of_the_draws():
    draws, y = RNG.normal(size=(40, 12, 1)), RNG.normal(size=(12, 1))
    weights = metrics.uniform_weights(12)
    found = metrics.energy_score(draws, y, weights, batch_size=1)
    assert found == pytest.approx(metrics.draws_crps(draws, y, weights), rel=1e-10)


def test_energy_score_prefers_the_true_correlation_among_equal_marginals():
    rng, weights, gains = np.random.default_rng(1), metrics.uniform_weights(10), []
    for _ in range(100):
        shared, noise = rng.normal(size=(2, 101, 10, 1))
        right = np.sqrt(0.9) * shared[:, :1] + np.sqrt(0.1) * noise
        scores = [metrics.energy_score(d[1:], right[0], weights) for d in (right, noise)]
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 4 * np.std(gains) / np.sqrt(100)


def test_energy_score_refuses_a_single_draw():
    with pytest.raises(ValueError, match="number of draws must be at least 2"):
        metrics.energy_score(np.zeros((1, 20, 1)), np.zeros((20, 1)), metrics.uniform_weights(20))


def test_dyadic_nll_is_the_joint_one_of_copies_of_two_points():
    log_p = -RNG.exponential(size=(9, 6))
    pairs = np.random.default_rng(4).permutation(6).reshape(3, 2)
    counts = np.random.default_rng([4, 5]).binomial(5, 0.5, size=3)
    expected = []
    for (i, j), n in zip(pairs, counts, strict=True):
        products = [np.prod([np.exp(row[i])] * n + [np.exp(row[j])] * (5 - n)) for row in log_p]
        expected.append(-np.log(np.mean(products)) / 5)
    found = metrics.dyadic_nll(log_p, metrics.uniform_weights(6), num_copies=5, seed=4)
    assert found == pytest.approx(np.mean(expected), rel=1e-10)


def test_dyads_of_one_copy_and_a_single_draw_are_the_pointwise_nll_on_average():
    log_p = -RNG.exponential(size=(1, 20_000))
    found = metrics.dyadic_nll(log_p, metrics.uniform_weights(20_000))
    assert found == pytest.approx(1.0, abs=5 / np.sqrt(20_000))


def test_intervals_of_the_dyadic_nll_hold_the_value_of_the_population():
    log_p = scipy.stats.norm.logpdf(RNG.normal(size=20_000), RNG.normal(size=(30, 1)))
    truth = np.mean(
        [metrics.dyadic_nll(log_p, metrics.uniform_weights(20_000), seed=i) for i in range(3)]
    )
    weights = np.concatenate(
        [metrics.uniform_weights(100)[None], metrics.bootstrap_weights(100, num_resamples=200)]
    )
    hits = []
    for _ in range(300):
        value, *resampled = metrics.dyadic_nll(log_p[:, RNG.integers(0, 20_000, 100)], weights)
        hits.append(abs(value - truth) <= 2.01 * np.std(resampled, ddof=1))
    assert 0.88 < np.mean(hits) < 0.99


def test_dyads_need_two_points():
    with pytest.raises(ValueError, match="the number of points must be at least 2, but is 1"):
        metrics.dyadic_nll(np.zeros((3, 1)), metrics.uniform_weights(1))
