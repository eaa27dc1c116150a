"""Covariances and variances of two methods: loops, known covariances, no bias, honest errors."""

import itertools

import numpy as np
import pytest
from joint_draws import SHAPE, normal, summarize
from markov_chains import correlated

from ntkbayes.evaluation import distances
from ntkbayes.evaluation.distances import JointDraws
from ntkbayes.evaluation.distances.covariances import _squared_norm


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def covariance_roots(generator):
    a = np.tril(generator.normal(size=(8, 8))) / 3
    b = 1.5 * a
    b[4:] *= 0.3
    return a, b


def covariance_truth(a, b):
    a, b = a @ a.T, b @ b.T
    norms = np.linalg.norm(a), np.linalg.norm(b)
    return np.sum((a - b) ** 2) / norms[1] ** 2, np.sum(a * b) / np.prod(norms)


def with_covariance(generator, root, num_draws=100):
    return JointDraws((7 + generator.normal(size=(num_draws, 8)) @ root.T)[:, :, None])


def test_covariance_norms_are_means_over_quadruples_of_different_draws(generator):
    """The estimate of Himeno and Yamada equals the U-statistic that is free of bias by design."""
    x = generator.exponential(size=(7, 3))
    terms = [
        ((x[i] - x[j]) @ (x[k] - x[m])) ** 2 / 4
        for i, j, k, m in itertools.permutations(range(7), 4)
    ]
    assert _squared_norm(x @ x.T, [np.arange(7)]) == pytest.approx(np.mean(terms), rel=1e-10)


def test_covariance_norms_of_chains_are_inner_products_of_different_ones(generator):
    x = generator.exponential(size=(3, 6, 4))
    covariances = [np.cov(chain.T) for chain in x]
    expected = np.mean([np.sum(s * t) for s, t in itertools.combinations(covariances, 2)])
    flat, chains = x.reshape(18, 4), np.split(np.arange(18), 3)
    assert _squared_norm(flat @ flat.T, chains) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("same", [True, False])
def test_covariance_comparison_has_little_bias_and_the_error_it_states(generator, same):
    a, b = covariance_roots(generator)
    a = b if same else a
    found = [
        distances.covariance_comparison(*(with_covariance(generator, root) for root in (a, b)))
        for _ in range(60)
    ]
    truths = dict(zip(("squared_distance", "alignment"), covariance_truth(a, b), strict=True))
    for name, truth in truths.items():
        mean, error, spread, stated = summarize([getattr(one, name) for one in found])
        # What is left of the bias is of order 1/s², some terms of it.
        assert abs(mean - truth) < 4 * error + 10 / 100**2
        assert 0.8 < stated / spread < 1.8
    assert abs(summarize([one.alignment for one in found])[0] - truths["alignment"]) < 0.02


def test_sample_covariances_would_be_far_apart_without_correction(generator):
    """In 200 dimensions 50 draws know next to nothing, and say so."""
    a, b = normal(generator, 50, shape=(200, 1)), normal(generator, 50, shape=(200, 1))
    sample = [np.cov(draws.latent[:, :, 0].T) for draws in (a, b)]
    naive = np.sum((sample[0] - sample[1]) ** 2) / np.sum(sample[1] ** 2)
    assert naive > 1
    found = distances.covariance_comparison(a, b).squared_distance
    assert abs(found.value) < 3 * found.standard_error < 1


def test_covariances_of_correlated_chains_are_compared_without_bias(generator):
    rho, found = 0.7, []
    for _ in range(30):
        chains = correlated(generator, rho, num_draws=40, shape=(20, 1))
        a = JointDraws(chains, num_chains=4, num_effective=160 * (1 - rho) / (1 + rho))
        b = normal(generator, 80, shape=(20, 1))
        found.append(
            [
                distances.covariance_comparison(draws, b).squared_distance.value
                for draws in (a, JointDraws(chains))
            ]
        )
    (mean, naive), errors = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(30)
    assert abs(mean) < 4 * errors[0]
    assert naive > 4 * errors[1]


def test_a_covariance_twice_as_large_is_at_distance_one_and_aligned(generator):
    a, b = (with_covariance(generator, k * np.eye(8), 400) for k in (np.sqrt(2), 1.0))
    found = distances.covariance_comparison(a, b)
    assert abs(found.squared_distance.value - 1) < 3 * found.squared_distance.standard_error < 0.5
    assert abs(found.alignment.value - 1) < 3 * found.alignment.standard_error < 0.2


def test_points_beyond_the_median_distance_to_the_training_data_are_far(generator):
    x_test, x_train = generator.normal(size=(31, 2, 2)), generator.normal(size=(20, 2, 2))
    nearest = [min(np.sqrt(np.sum((x - z) ** 2)) for z in x_train) for x in x_test]
    found = distances.far_from_training(x_test, x_train)
    np.testing.assert_array_equal(found, np.array(nearest) > np.median(nearest))
    assert found.sum() == 15


def test_variance_ratios_of_independent_draws_are_those_of_unbiased_variances(generator):
    a, b, far = normal(generator, 5), normal(generator, 7), np.arange(5) > 2
    for where in (~far, far, None):
        at = slice(None) if where is None else where
        variances = [draws.latent[:, at].var(axis=0, ddof=1).mean() for draws in (a, b)]
        found = distances.variance_ratio(a, b, where).value
        assert found == pytest.approx(variances[0] / variances[1], rel=1e-12)


def test_variance_ratios_near_and_far_are_recovered_with_their_errors(generator):
    far, near_and_far = np.arange(10) >= 6, []
    scale = np.where(far, 3.0, 0.5)[:, None]
    for _ in range(500):
        level = generator.normal(size=(100, 1, 2))  # all points move together
        a = JointDraws(scale * level * np.ones((1, 10, 1)))
        b = normal(generator, 50, shape=(10, 2))
        near_and_far.append([distances.variance_ratio(a, b, where) for where in (~far, far)])
    for estimates, truth in zip(zip(*near_and_far, strict=True), (0.25, 9.0), strict=True):
        mean, error, spread, stated = summarize(estimates)
        # E(1/v) exceeds 1/E(v) by the relative variance of the variance of b, below 1 %.
        assert abs(mean - truth) < 4 * error + 0.01 * truth
        assert stated == pytest.approx(spread, rel=0.12)  # 500 repeats give the spread to 3 %


def test_correlated_chains_have_variances_with_larger_errors_and_no_bias(generator):
    rho, found = 0.9, []
    far = np.arange(6) >= 3
    for _ in range(40):
        chains = correlated(generator, rho, num_draws=100)
        a = JointDraws(chains, num_chains=4, num_effective=400 * (1 - rho) / (1 + rho))
        found.append(distances.variance_ratio(a, normal(generator, 400, shape=(6, 2)), far))
    mean, error, spread, stated = summarize(found)
    assert abs(mean - 1) < 4 * error
    assert 0.7 < stated / spread < 1.3
    independent = distances.variance_ratio(
        normal(generator, 400, shape=(6, 2)), normal(generator, 400, shape=(6, 2)), far
    )
    # Squared deviations have autocorrelation ρ²: (1 + ρ²) / (1 − ρ²) = 9.5 for one of two parts.
    assert stated > 1.5 * independent.standard_error


def test_too_few_draws_for_a_covariance_are_refused(generator):
    a = normal(generator, 50)
    with pytest.raises(ValueError, match=r"b must have at least 40 draws.*but has 39 of 1"):
        distances.covariance_comparison(a, normal(generator, 39))
    chains = JointDraws(normal(generator, 60).latent, num_chains=20)
    with pytest.raises(ValueError, match=r"a must have .*4 in each chain, but has 60 of 20"):
        distances.covariance_comparison(chains, a)


def test_covariances_that_cannot_be_told_from_zero_have_no_distance(generator):
    nothing = JointDraws(np.zeros((50, *SHAPE)))
    for a, b in ((normal(generator, 50), nothing), (nothing, normal(generator, 50))):
        found = distances.covariance_comparison(a, b)
        assert np.isnan([found.squared_distance.value, found.alignment.standard_error]).all()
