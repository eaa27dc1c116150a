"""Distances between marginals: definitions, closed forms, and what finite draws leave of them."""

import numpy as np
import pytest
import scipy.optimize
import scipy.spatial.distance
import scipy.special
import scipy.stats
from markov_chains import correlated, predictions

from ntkbayes.evaluation import distances, metrics

M, C = 60, 4


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def uniform():
    return metrics.uniform_weights(M)


def probabilities(latent):
    return scipy.special.softmax(latent, axis=-1)


def test_jensen_shannon_is_the_square_of_the_distance_of_scipy(generator, uniform):
    p, q = probabilities(3 * generator.normal(size=(2, M, C)))
    squared = scipy.spatial.distance.jensenshannon(p, q, axis=1) ** 2
    found = distances.jensen_shannon(p, q, uniform)
    assert found == pytest.approx(squared.mean(), rel=1e-10)
    assert distances.jensen_shannon(q, p, uniform) == pytest.approx(found, rel=1e-14)


def test_jensen_shannon_is_log_2_between_certainties_and_0_between_equals():
    sure, weights = np.eye(2), metrics.uniform_weights(2)
    assert distances.jensen_shannon(sure, sure[::-1], weights) == pytest.approx(np.log(2))
    p = np.array([[0.3, 0.7], [1.0, 0.0]])
    assert distances.jensen_shannon(p, p, weights) == 0
    single = p.astype(np.float32)
    assert distances.jensen_shannon(single, single, weights) == 0


def test_jensen_shannon_of_two_halves_of_one_distribution_is_at_its_floor(generator):
    found, floors = {}, {}
    for num_draws in (400, 1600):
        halves = [generator.normal(size=(num_draws, 300, 3)) for _ in range(2)]
        errors = [distances.mean_probability_error(predictions(half, 1)) for half in halves]
        p, q = (probabilities(half).mean(axis=0) for half in halves)
        found[num_draws] = distances.jensen_shannon(p, q, metrics.uniform_weights(300))
        floors[num_draws] = distances.jensen_shannon_floor(p, q, *errors)
        # 300 points × 2 free classes, χ²-distributed: √(2 / 600) = 6 %.
        assert found[num_draws] == pytest.approx(floors[num_draws], rel=0.2)
    assert floors[400] == pytest.approx(4 * floors[1600], rel=0.1)


def test_jensen_shannon_floor_of_certain_predictors_is_zero():
    p, zero = np.eye(2), np.zeros((2, 2))
    assert distances.jensen_shannon_floor(p, p, zero, zero) == 0


@pytest.mark.parametrize("sizes", [(20, 20), (20, 35), (1, 30)])
def test_wasserstein_2_is_the_optimal_transport_of_all_pairs(generator, sizes):
    """Sorting against linear programming, with every draw copied to the other set's size."""
    a, b = (generator.normal(size=(s, 3, 2)) for s in sizes)
    squared = []
    for i, k in np.ndindex(3, 2):
        left, right = np.repeat(a[:, i, k], len(b)), np.repeat(b[:, i, k], len(a))
        cost = (left[:, None] - right[None, :]) ** 2
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        squared.append(cost[rows, columns].mean())
    found = distances.wasserstein_2(a, b, metrics.uniform_weights(3))
    assert found == pytest.approx(np.sqrt(np.mean(squared)), rel=1e-10)


def test_wasserstein_2_between_normals_is_the_integral_of_their_quantile_functions(generator):
    mean_a, mean_b = generator.normal(size=(2, 5, 2))
    variance_a, variance_b = generator.uniform(0.1, 2, size=(2, 5, 2))
    z = scipy.special.ndtri((np.arange(200_000) + 0.5) / 200_000)[:, None, None]
    gaps = (mean_a - mean_b) + (np.sqrt(variance_a) - np.sqrt(variance_b)) * z
    found = distances.normal_wasserstein_2(
        mean_a, variance_a, mean_b, variance_b, metrics.uniform_weights(5)
    )
    # The midpoint rule misses 1e-4 of the variance, in the tails.
    assert found == pytest.approx(np.sqrt(np.mean(gaps**2)), rel=1e-3)


def test_wasserstein_2_of_many_draws_of_normals_is_the_closed_form(generator):
    a = generator.normal(size=(20_000, 4, 1))
    b = 0.7 + 1.5 * generator.normal(size=(20_000, 4, 1))
    weights, ones = metrics.uniform_weights(4), np.ones((4, 1))
    expected = distances.normal_wasserstein_2(0 * ones, ones, 0.7 * ones, 2.25 * ones, weights)
    assert expected == pytest.approx(np.hypot(0.7, 0.5))
    # Standard error about √((1 + 2.25) / (4 · 20,000)) = 0.006.
    assert distances.wasserstein_2(a, b, weights) == pytest.approx(float(expected), abs=0.02)


def test_wasserstein_distances_are_a_mean_and_a_root_mean_square_over_points():
    """Two points where b is shifted by 1 and by 3."""
    a, shift = np.arange(6.0).reshape(3, 2, 1), np.array([[1.0], [3.0]])
    weights = np.array([[0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(distances.wasserstein_1(a, a + shift, weights), [2, 3])
    np.testing.assert_allclose(distances.wasserstein_2(a, a + shift, weights), [np.sqrt(5), 3])


@pytest.mark.parametrize("sizes", [(400, 400), (400, 150), (400, 1)])
def test_wasserstein_2_of_draws_of_one_distribution_is_at_its_floor(generator, sizes):
    """Without an error of the second set, the distance is that to the distribution itself."""
    a, b = (generator.normal(size=(s, 600, 1)) for s in sizes)
    trees = [predictions(latent, 1, task="regression") for latent in (a, b)]
    floor = distances.wasserstein_2_floor(*map(distances.squared_quantile_error, trees))
    if len(b) == 1:
        quantiles = scipy.special.ndtri((np.arange(4000) + 0.5) / 4000)
        b = np.broadcast_to(quantiles[:, None, None], (4000, 600, 1))
    found = distances.wasserstein_2(a, b, metrics.uniform_weights(600))
    # Squared distances have a relative deviation of about 0.8: 2 % for the roots of two means.
    assert found == pytest.approx(floor, rel=0.1)


def test_wasserstein_2_floor_falls_with_the_root_of_the_draws(generator):
    floors = []
    for num_draws in (200, 3200):
        error = distances.squared_quantile_error(
            predictions(generator.uniform(size=(num_draws, 600, 1)), 1, task="regression")
        )
        floors.append(distances.wasserstein_2_floor(error, error))
        # ∫ u (1 − u) du = 1/6 for a uniform distribution.
        assert error.mean() == pytest.approx(1 / (6 * num_draws), rel=0.15)
    assert floors[0] / floors[1] == pytest.approx(4, rel=0.1)


def test_wasserstein_2_floor_of_separate_clusters_is_low_by_less_than_the_stated_factor(generator):
    a, b = (10.0 * generator.integers(0, 2, size=(400, 600, 1)) for _ in range(2))
    trees = [predictions(latent, 1, task="regression") for latent in (a, b)]
    floor = distances.wasserstein_2_floor(*map(distances.squared_quantile_error, trees))
    ratio = distances.wasserstein_2(a, b, metrics.uniform_weights(600)) / floor
    assert 1 < ratio < 1.05 * np.sqrt(2)


def test_correlated_chains_raise_the_floors_as_their_autocorrelation_says(generator):
    rho = 0.9
    independent, chains = (
        predictions(correlated(generator, r, shape=(40, 3)), 4) for r in (0.0, rho)
    )
    expected = (1 + rho) / (1 - rho)
    ratio = (
        distances.squared_quantile_error(chains).mean()
        / distances.squared_quantile_error(independent).mean()
    )
    assert ratio == pytest.approx(expected, rel=0.25)  # the ESS itself is estimated
    ratio = (
        distances.probability_quantile_error(chains).mean()
        / distances.probability_quantile_error(independent).mean()
    )
    assert ratio == pytest.approx(np.sqrt(expected), rel=0.25)


def test_distance_of_class_probabilities_is_the_mean_over_points_of_half_the_sum(generator):
    p = probabilities(generator.normal(size=(25, M, C)))
    q = probabilities(2 * generator.normal(size=(40, M, C)))
    expected = sum(
        0.5 * scipy.stats.wasserstein_distance(p[:, i, k], q[:, i, k]) / M
        for i, k in np.ndindex(M, C)
    )
    found = distances.probability_wasserstein_1(p, q, metrics.uniform_weights(M))
    assert found == pytest.approx(expected, rel=1e-12)


def test_distance_of_class_probabilities_sees_what_total_variation_does_not(generator, uniform):
    """One predictor is sure that p = ½, the other that it is 0 or 1 but not which."""
    unsure = np.full((2, M, 2), 0.5)
    torn = np.stack([np.tile([0.0, 1.0], (M, 1)), np.tile([1.0, 0.0], (M, 1))])
    means = unsure.mean(axis=0), torn.mean(axis=0)
    assert distances.total_variation(*means, uniform) == 0
    assert distances.probability_wasserstein_1(unsure, torn, uniform) == pytest.approx(0.5)
    p, q = probabilities(generator.normal(size=(2, 1, M, C)))
    found = distances.probability_wasserstein_1(p, q, uniform)
    assert found == pytest.approx(float(distances.total_variation(p[0], q[0], uniform)))


def test_distance_of_class_probabilities_of_one_distribution_is_at_its_floor(generator):
    a, b = generator.normal(size=(400, 300, 3)), generator.normal(size=(200, 300, 3))
    errors = [distances.probability_quantile_error(predictions(latent, 1)) for latent in (a, b)]
    found = distances.probability_wasserstein_1(
        probabilities(a), probabilities(b), metrics.uniform_weights(300)
    )
    floor = distances.probability_wasserstein_floor(*errors)
    assert found == pytest.approx(floor, rel=0.1)  # 300 points: about 3 %


def test_a_single_predictor_adds_nothing_to_the_floors(generator):
    single = predictions(generator.normal(size=(1, 7, 3)), 1)
    assert not distances.squared_quantile_error(single).any()
    assert not distances.probability_quantile_error(single).any()


def test_single_precision_draws_are_compared_in_double(generator, uniform):
    a, b = (1e3 + generator.normal(size=(30, M, 1)).astype(np.float32) for _ in range(2))
    for distance in (distances.wasserstein_1, distances.wasserstein_2):
        expected = distance(a.astype(float), b.astype(float), uniform)
        assert distance(a, b, uniform) == expected


def test_every_distance_of_weighted_points_is_that_of_repeated_points(generator):
    weights, uniform = metrics.bootstrap_weights(M, num_resamples=3), metrics.uniform_weights(M)
    a, b = generator.normal(size=(2, 25, M, C))
    p, q = probabilities(a), probabilities(b)
    cases = [
        (distances.jensen_shannon, lambda i: (p[0][i], q[0][i])),
        (distances.wasserstein_2, lambda i: (a[:, i], b[:, i])),
        (distances.probability_wasserstein_1, lambda i: (p[:, i], q[:, i])),
        (distances.normal_wasserstein_2, lambda i: (a[0][i], p[0][i], b[0][i], q[0][i])),
    ]
    for distance, arguments in cases:
        found = distance(*arguments(slice(None)), weights)
        rows = [np.repeat(np.arange(M), np.round(row * M).astype(int)) for row in weights]
        expected = [distance(*arguments(row), uniform) for row in rows]
        np.testing.assert_allclose(found, expected, rtol=1e-10)
