"""Calibration without bins, from the isotonic fit: its formula and scikit-learn."""

import numpy as np
import pytest
import sklearn.isotonic

from ntkbayes.evaluation import metrics


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_isotonic_fit_is_the_max_min_formula_and_that_of_scikit_learn(generator):
    confidence = np.round(generator.uniform(size=60), 2)
    outcome, weights = generator.uniform(size=60) < confidence, generator.dirichlet(np.ones(60))
    knots, fit = metrics.isotonic_fit(confidence, outcome, weights)
    np.testing.assert_array_equal(knots, np.unique(confidence))
    assert len(knots) < 60

    def mean_between(low, high):
        inside = (confidence >= low) & (confidence <= high)
        return np.average(outcome[inside], weights=weights[inside])

    for q, value in zip(knots, fit, strict=True):
        below, above = knots[knots <= q], knots[knots >= q]
        expected = max(min(mean_between(a, b) for b in above) for a in below)
        assert value == pytest.approx(expected, rel=1e-10, abs=1e-15)
    model = sklearn.isotonic.IsotonicRegression()
    expected = model.fit(confidence, outcome, sample_weight=weights).predict(knots)
    np.testing.assert_allclose(fit, expected, rtol=1e-10)


def test_isotonic_fit_interpolates_where_a_row_has_no_weight():
    confidence = np.array([0.1, 0.3, 0.4, 0.9])
    outcome = np.array([False, False, True, True])
    weights = np.array([[0.5, 0.0, 0.5, 0.0], [0.0, 0.5, 0.0, 0.5]])
    _, fits = metrics.isotonic_fit(confidence, outcome, weights)
    np.testing.assert_allclose(fits, [[0, 2 / 3, 1, 1], [0, 0, 1 / 6, 1]], rtol=1e-12)


@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
def test_pav_calibration_error_is_the_distance_to_the_isotonic_fit(generator, norm, power):
    confidence = np.round(generator.uniform(size=80), 2)
    outcome = generator.uniform(size=80) < confidence**2
    weights = metrics.bootstrap_weights(80, num_resamples=5)
    found = metrics.pav_calibration_error(confidence, outcome, weights, norm=norm)
    for value, row in zip(found, weights, strict=True):
        points = np.repeat(np.arange(80), np.round(row * 80).astype(int))
        q, o = confidence[points], outcome[points].astype(float)
        recalibrated = sklearn.isotonic.IsotonicRegression().fit(q, o).predict(q)
        expected = np.mean(np.abs(recalibrated - q) ** power) ** (1 / power)
        assert value == pytest.approx(expected, rel=1e-10)


def test_pav_error_squared_is_at_most_the_brier_score_that_recalibration_saves(generator):
    confidence = generator.uniform(size=200)
    outcome, weights = generator.uniform(size=200) < confidence**2, metrics.uniform_weights(200)
    knots, fit = metrics.isotonic_fit(confidence, outcome, weights)
    recalibrated = fit[np.searchsorted(knots, confidence)]
    saved = np.mean((confidence - outcome) ** 2 - (recalibrated - outcome) ** 2)
    squared = metrics.pav_calibration_error(confidence, outcome, weights, norm="l2") ** 2
    assert 0 < squared < saved


def test_pav_error_of_confidences_that_are_their_own_rates_is_zero():
    confidence = np.repeat([0.25, 0.5, 1.0], 4)
    outcome = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1], dtype=bool)
    assert metrics.pav_calibration_error(confidence, outcome, metrics.uniform_weights(12)) == 0
