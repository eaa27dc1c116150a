"""The Brier score's parts against loops, and where some of them vanish."""

import numpy as np
import pytest
import scipy.special
from binning import points_in_bins

from ntkbayes.evaluation import metrics

M, C = 200, 4


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def p(generator):
    return scipy.special.softmax(1.5 * generator.normal(size=(M, C)), axis=1)


@pytest.fixture
def labels(generator):
    return generator.integers(0, C, M)


@pytest.fixture
def weights():
    return metrics.bootstrap_weights(M, num_resamples=4, seed=3)


@pytest.mark.parametrize(("binning", "num_bins"), [("width", 15), ("width", 2), ("mass", 6)])
def test_parts_of_the_brier_score_add_up_for_any_weights(
    p, labels, weights, generator, binning, num_bins
):
    weights = np.concatenate([weights, generator.dirichlet(np.ones(M), size=3)])
    parts = metrics.brier_decomposition(p, labels, weights, num_bins=num_bins, binning=binning)
    np.testing.assert_allclose(parts.brier, metrics.brier(p, labels, weights), rtol=1e-12)


def test_each_part_of_the_brier_score_is_its_definition(p, labels, weights):
    parts = metrics.brier_decomposition(p, labels, weights, num_bins=5)
    for b, row in enumerate(weights):
        expected = np.zeros(5)
        for c in range(C):
            q, o = p[:, c], (labels == c).astype(float)
            overall = row @ o
            expected[2] += overall * (1 - overall)
            for inside in points_in_bins(q, "width", 5):
                w = row[inside]
                if w.sum() == 0:
                    continue
                mean, rate = np.average(q[inside], weights=w), np.average(o[inside], weights=w)
                expected[0] += w.sum() * (mean - rate) ** 2
                expected[1] += w.sum() * (rate - overall) ** 2
                expected[3] += w @ (q[inside] - mean) ** 2
                expected[4] += 2 * w @ ((q[inside] - mean) * (o[inside] - rate))
        found = [
            parts.reliability[b],
            parts.resolution[b],
            parts.uncertainty[b],
            parts.within_bin_variance[b],
            parts.within_bin_covariance[b],
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)


def test_murphy_s_three_parts_are_enough_where_confidences_in_a_bin_are_equal(generator, labels):
    values = np.array([[0.1, 0.9], [0.35, 0.65], [0.8, 0.2]])
    p, y = values[generator.integers(0, 3, M)], labels % 2
    parts = metrics.brier_decomposition(p, y, metrics.uniform_weights(M), num_bins=10)
    assert parts.within_bin_variance == pytest.approx(0, abs=1e-15)
    assert parts.within_bin_covariance == pytest.approx(0, abs=1e-15)
    brier = metrics.brier(p, y, metrics.uniform_weights(M))
    assert parts.reliability - parts.resolution + parts.uncertainty == pytest.approx(brier)


def test_predicting_the_class_frequencies_leaves_the_uncertainty_alone(labels):
    weights = metrics.uniform_weights(M)
    p = np.tile(np.bincount(labels, minlength=C) / M, (M, 1))
    parts = metrics.brier_decomposition(p, labels, weights)
    assert parts.reliability == pytest.approx(0, abs=1e-15)
    assert parts.resolution == pytest.approx(0, abs=1e-15)
    assert parts.uncertainty == pytest.approx(metrics.brier(p, labels, weights), rel=1e-12)
