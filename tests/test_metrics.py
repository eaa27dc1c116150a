"""Metrics, distances and chain diagnostics against loops, closed forms and other packages."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import scoringrules
import sklearn.metrics
from markov_chains import correlated, predictions

from ntkbayes.evaluation import distances, metrics

M, C, S = 60, 4, 25


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def draws(generator):
    return scipy.special.softmax(2 * generator.normal(size=(S, M, C)), axis=-1)


@pytest.fixture
def labels(generator):
    return generator.integers(0, C, M)


@pytest.fixture
def uniform():
    return metrics.uniform_weights(M)


def test_accuracy_and_brier_are_those_of_scikit_learn(draws, labels, uniform):
    p = draws.mean(axis=0)
    expected = sklearn.metrics.accuracy_score(labels, p.argmax(axis=1))
    assert metrics.accuracy(p, labels, uniform) == pytest.approx(expected, rel=1e-12)
    expected = sklearn.metrics.brier_score_loss(labels, p, labels=range(C), scale_by_half=False)
    assert metrics.brier(p, labels, uniform) == pytest.approx(expected, rel=1e-12)


def test_mixture_nll_is_the_log_loss_of_the_mean_probabilities(draws, labels, uniform):
    log_likelihood = np.log(draws[:, np.arange(M), labels])
    expected = sklearn.metrics.log_loss(labels, draws.mean(axis=0), labels=range(C))
    assert metrics.mixture_nll(log_likelihood, uniform) == pytest.approx(expected, rel=1e-12)
    mean_of_logs = -log_likelihood.mean()
    assert metrics.mixture_nll(log_likelihood, uniform) < mean_of_logs - 0.1
    single = log_likelihood.astype(np.float32)  # sums are in double precision
    expected = metrics.mixture_nll(single.astype(float), uniform)
    assert metrics.mixture_nll(single[::-1], uniform) == pytest.approx(expected, rel=1e-14)


def test_nll_stays_finite_where_probabilities_underflow(uniform):
    assert metrics.mixture_nll(np.full((3, M), -2000.0), uniform) == pytest.approx(2000.0)


def test_ece_is_its_definition_bin_by_bin(draws, labels, uniform):
    p = draws.mean(axis=0)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    expected = 0.0
    for b in range(15):
        inside = [i for i in range(M) if b / 15 < confidence[i] <= (b + 1) / 15]
        if inside:
            gap = np.mean(correct[inside]) - np.mean(confidence[inside])
            expected += len(inside) / M * abs(gap)
    assert metrics.ece(p, labels, uniform) == pytest.approx(expected, rel=1e-12)


def test_ece_of_a_sure_and_right_predictor_is_zero_and_of_a_wrong_one_is_one(labels, uniform):
    sure = np.eye(C)[labels]
    assert metrics.ece(sure, labels, uniform) == 0
    assert metrics.ece(sure, (labels + 1) % C, uniform) == pytest.approx(1)


def test_a_calibrated_predictor_has_the_ece_that_chance_gives_it(generator):
    confidence, m = generator.uniform(0.5, 1, 4000), 4000
    p = np.stack([1 - confidence, confidence], axis=1)
    bins = metrics.calibration_bins(p)
    # In each bin the sum of (correct − confidence) is nearly normal with the Bernoulli variances.
    variances = np.bincount(bins, confidence * (1 - confidence), minlength=15)
    expected = np.sum(np.sqrt(2 / np.pi * variances)) / m
    deviation = np.sqrt(np.sum((1 - 2 / np.pi) * variances)) / m
    labels = (generator.uniform(size=m) < confidence).astype(int)
    found = metrics.ece(p, labels, metrics.uniform_weights(m))
    assert abs(found - expected) < 3 * deviation


def test_entropy_splits_into_mutual_information_and_mean_entropy(draws, uniform):
    total = -np.sum(draws.mean(axis=0) * np.log(draws.mean(axis=0))) / M
    aleatoric = -np.sum(draws * np.log(draws)) / (S * M)
    assert metrics.predictive_entropy(draws.mean(axis=0), uniform) == pytest.approx(total)
    assert metrics.mutual_information(draws, uniform) == pytest.approx(total - aleatoric)


def test_mutual_information_is_zero_for_one_draw_and_log_c_for_sure_disagreement():
    weights = metrics.uniform_weights(1)
    one = np.array([[[0.2, 0.8]]])
    assert metrics.mutual_information(one, weights) == pytest.approx(0, abs=1e-15)
    disagreeing = np.eye(3)[:, None, :]
    assert metrics.mutual_information(disagreeing, weights) == pytest.approx(np.log(3))


def test_regression_metrics_are_those_of_scikit_learn_and_scoringrules(generator, uniform):
    y, draws = generator.normal(size=(M, 2)), generator.normal(size=(S, M, 2))
    variance = generator.uniform(0.5, 2, (M, 2))
    mse = sklearn.metrics.mean_squared_error(y, draws[0])
    assert metrics.rmse(draws[0], y, uniform) == pytest.approx(np.sqrt(mse))
    scales = np.broadcast_to(np.sqrt(variance), draws.shape)
    expected = scoringrules.crps_mixnorm(y, draws, scales, m_axis=0).mean()
    assert metrics.crps(draws, variance, y, uniform) == pytest.approx(expected)


def test_coverage_and_width_are_means_over_points_and_outputs():
    weights = np.array([0.25, 0.75])
    central_level = np.array([[0.3, 0.8], [0.5, 0.51]])
    assert metrics.coverage(central_level, 0.5, weights) == 0.25 * 0.5 + 0.75 * 0.5
    assert metrics.coverage(central_level, 0.9, weights) == 1
    lower, upper = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 3.0], [4.0, 6.0]])
    assert metrics.interval_width(lower, upper, weights) == 0.25 * 1.5 + 0.75 * 5


def test_every_metric_of_weighted_points_is_that_of_repeated_points(draws, labels, generator):
    weights = metrics.bootstrap_weights(M, num_resamples=3)
    repeated = [np.repeat(np.arange(M), np.round(row * M).astype(int)) for row in weights]
    p = draws.mean(axis=0)
    cases = [
        (metrics.accuracy, lambda i: (p[i], labels[i])),
        (metrics.brier, lambda i: (p[i], labels[i])),
        (metrics.ece, lambda i: (p[i], labels[i])),
        (metrics.mutual_information, lambda i: (draws[:, i],)),
        (metrics.rmse, lambda i: (p[i], draws[0, i])),
        (distances.total_variation, lambda i: (p[i], draws[0, i])),
    ]
    for metric, arguments in cases:
        found = metric(*arguments(slice(None)), weights)
        uniform = metrics.uniform_weights(M)
        expected = [metric(*arguments(rows), uniform) for rows in repeated]
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_bootstrap_standard_error_of_a_mean_is_the_textbook_one(generator):
    values = generator.normal(size=400)
    weights = metrics.bootstrap_weights(400, num_resamples=4000)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    # 4,000 resamples give the deviation to 1/√8000 = 1.1 %.
    assert (weights @ values).std() == pytest.approx(values.std() / np.sqrt(400), rel=0.05)


def test_bootstrap_weights_are_the_same_at_every_call():
    np.testing.assert_array_equal(metrics.bootstrap_weights(9), metrics.bootstrap_weights(9))


def test_bootstrap_refuses_no_points_and_one_resample():
    with pytest.raises(ValueError, match="num_points must be at least 1"):
        metrics.bootstrap_weights(0)
    with pytest.raises(ValueError, match="num_resamples must be at least 2"):
        metrics.bootstrap_weights(5, num_resamples=1)


def test_agreement_and_total_variation_are_their_definitions(draws, uniform):
    p, q = draws[0], draws[1]
    same, variation = 0, 0.0
    for i in range(M):
        same += p[i].argmax() == q[i].argmax()
        variation += 0.5 * sum(abs(p[i, k] - q[i, k]) for k in range(C))
    assert distances.agreement(p, q, uniform) == pytest.approx(same / M)
    assert distances.total_variation(p, q, uniform) == pytest.approx(variation / M)
    opposite = distances.total_variation(np.eye(2), np.eye(2)[::-1], metrics.uniform_weights(2))
    assert opposite == 1


@pytest.mark.parametrize("sizes", [(25, 25), (25, 40), (1, 30)])
def test_wasserstein_of_draws_is_that_of_scipy(generator, sizes):
    a, b = (generator.normal(size=(s, 5, 2)) for s in sizes)
    expected = np.mean(
        [
            scipy.stats.wasserstein_distance(a[:, i, k], b[:, i, k])
            for i in range(5)
            for k in range(2)
        ]
    )
    found = distances.wasserstein_1(a, b, metrics.uniform_weights(5))
    assert found == pytest.approx(expected, rel=1e-12)


def test_wasserstein_between_normals_is_the_integral_of_their_quantile_functions(generator):
    mean_a, mean_b = generator.normal(size=(2, 5, 1))
    variance_a, variance_b = generator.uniform(0.1, 2, size=(2, 5, 1))
    z = scipy.special.ndtri((np.arange(200_000) + 0.5) / 200_000)
    gaps = (mean_a - mean_b) + (np.sqrt(variance_a) - np.sqrt(variance_b)) * z
    found = distances.normal_wasserstein_1(
        mean_a, variance_a, mean_b, variance_b, metrics.uniform_weights(5)
    )
    assert found == pytest.approx(np.abs(gaps).mean(), rel=1e-4)  # midpoint rule in the tails


def test_wasserstein_between_equally_wide_normals_is_the_shift():
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    weights = metrics.uniform_weights(1)
    assert distances.normal_wasserstein_1(zero, one, 3 * one, one, weights) == pytest.approx(3)
    assert distances.normal_wasserstein_1(zero, zero, zero, zero, weights) == 0


def test_total_variation_of_two_halves_of_one_distribution_is_at_its_floor(generator):
    halves = [generator.normal(size=(400, 300, 3)) for _ in range(2)]
    trees = [predictions(latent, 1) for latent in halves]
    p, q = (scipy.special.softmax(latent, axis=-1).mean(axis=0) for latent in halves)
    found = distances.total_variation(p, q, metrics.uniform_weights(300))
    floor = distances.total_variation_floor(*map(distances.mean_probability_error, trees))
    assert found == pytest.approx(floor, rel=0.1)  # 300 points × 2 free classes: about 3 %


def test_wasserstein_of_two_halves_of_one_distribution_is_at_its_floor(generator):
    a, b = generator.normal(size=(400, 300, 1)), generator.normal(size=(200, 300, 1))
    trees = [predictions(latent, 1, task="regression") for latent in (a, b)]
    found = distances.wasserstein_1(a, b, metrics.uniform_weights(300))
    floor = distances.wasserstein_floor(*map(distances.quantile_error, trees))
    assert found == pytest.approx(floor, rel=0.1)  # 300 points: about 3 %


def test_a_single_predictor_adds_nothing_to_the_floor(generator):
    single = predictions(generator.normal(size=(1, 7, 3)), 1)
    assert not distances.mean_probability_error(single).any()
    assert not distances.quantile_error(single).any()


def test_correlated_chains_raise_the_floor_as_their_autocorrelation_says(generator):
    rho = 0.9
    independent = distances.quantile_error(predictions(correlated(generator, 0.0), 4))
    error = distances.quantile_error(predictions(correlated(generator, rho), 4))
    expected = np.sqrt((1 + rho) / (1 - rho))
    assert error.mean() / independent.mean() == pytest.approx(expected, rel=0.2)
