"""Calibration over bins and without, and the Brier score's parts: loops, oracles, chance."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.isotonic

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


def points_in_bins(confidence, binning, num_bins):
    """Lists of points: bins are found by comparing every confidence with every boundary."""
    ordered, m = sorted(confidence), len(confidence)
    edges = [k / num_bins for k in range(1, num_bins)]
    if binning == "mass":
        edges = [ordered[int(np.ceil(k * m / num_bins)) - 1] for k in range(1, num_bins)]
    bins = [sum(q > edge for edge in edges) for q in confidence]
    return [[i for i in range(m) if bins[i] == b] for b in range(num_bins)]


def error_by_loops(confidence, outcome, row, binning, norm, num_bins):
    total = 0.0
    for inside in points_in_bins(confidence, binning, num_bins):
        share = sum(row[i] for i in inside)
        if share > 0:
            gap = sum(row[i] * (outcome[i] - confidence[i]) for i in inside) / share
            total += share * (abs(gap) if norm == "l1" else gap**2)
    return total if norm == "l1" else np.sqrt(total)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize(("binning", "num_bins"), [("width", 15), ("mass", 15), ("mass", 7)])
def test_ece_is_its_definition_bin_by_bin(p, labels, weights, binning, num_bins, norm):
    found = metrics.ece(p, labels, weights, num_bins=num_bins, binning=binning, norm=norm)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    expected = [
        error_by_loops(confidence, correct, row, binning, norm, num_bins) for row in weights
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_classwise_ece_is_the_mean_over_classes_of_each_class_s_error(p, labels, weights, norm):
    found = metrics.classwise_ece(p, labels, weights, norm=norm, num_bins=10)
    expected = [
        np.mean([error_by_loops(p[:, c], labels == c, row, "width", norm, 10) for c in range(C)])
        for row in weights
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_mce_is_the_largest_gap_of_a_bin_that_holds_weight(p, labels, weights, binning):
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    bins = points_in_bins(confidence, binning, 15)
    expected = [
        max(
            abs(np.average((correct - confidence)[inside], weights=row[inside]))
            for inside in bins
            if row[inside].sum() > 0
        )
        for row in weights
    ]
    found = metrics.mce(p, labels, weights, binning=binning)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_calibration_error_of_four_points_is_what_one_finds_by_hand():
    confidence, outcome = np.array([0.2, 0.3, 0.8, 0.9]), np.array([False, True, True, True])
    weights, settings = metrics.uniform_weights(4), {"num_bins": 2}
    # Mean gaps (−0.2 + 0.7) / 2 = 0.25 and (0.2 + 0.1) / 2 = 0.15.
    l1 = metrics.calibration_error(confidence, outcome, weights, **settings)
    assert l1 == pytest.approx((0.25 + 0.15) / 2)
    l2 = metrics.calibration_error(confidence, outcome, weights, norm="l2", **settings)
    assert l2 == pytest.approx(np.sqrt((0.25**2 + 0.15**2) / 2))
    debiased = metrics.calibration_error(
        confidence, outcome, weights, norm="l2", debiased=True, **settings
    )
    # Products of the two gaps of each bin: −0.2 · 0.7 = −0.14 and 0.2 · 0.1 = 0.02.
    assert debiased == pytest.approx(-np.sqrt((0.14 - 0.02) / 2))


def test_equal_confidences_share_a_bin_of_equal_mass():
    confidence = np.array([0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.7, 0.9])
    bins = metrics.confidence_bins(confidence, num_bins=4, binning="mass")
    np.testing.assert_array_equal(bins, [0, 0, 0, 0, 0, 0, 3, 3])
    distinct = np.linspace(0.01, 0.99, 12)
    bins = metrics.confidence_bins(distinct, num_bins=4, binning="mass")
    np.testing.assert_array_equal(bins, np.repeat([0, 1, 2, 3], 3))


def test_debiased_l2_is_the_mean_product_of_gaps_of_two_different_points(p, labels, weights):
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    found = metrics.ece(p, labels, weights, norm="l2", debiased=True)
    for value, row in zip(found, weights, strict=True):
        counts = np.round(row * M).astype(int)
        squared = 0.0
        for inside in points_in_bins(confidence, "width", 15):
            gaps = np.repeat((correct - confidence)[inside], counts[inside])
            n = len(gaps)
            if n > 1:
                pairs = sum(gaps[i] * gaps[j] for i in range(n) for j in range(n) if i != j)
                squared += n / M * pairs / (n * (n - 1))
        assert value == pytest.approx(np.sign(squared) * np.sqrt(abs(squared)), rel=1e-9)


def test_debiased_l2_is_that_of_ferro_and_fricker_where_confidences_are_equal(generator):
    confidence = generator.choice([0.1, 0.4, 0.9], size=M)
    outcome = generator.uniform(size=M) < 0.5
    squared = 0.0
    for q in (0.1, 0.4, 0.9):
        rate, n = outcome[confidence == q].mean(), np.sum(confidence == q)
        squared += n / M * ((rate - q) ** 2 - rate * (1 - rate) / (n - 1))
    found = metrics.calibration_error(
        confidence, outcome, metrics.uniform_weights(M), norm="l2", debiased=True
    )
    assert found == pytest.approx(np.sqrt(squared), rel=1e-12)


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("q", [0.02, 0.5, 0.97])
def test_debiased_l1_subtracts_the_mean_deviation_of_a_binomial_for_equal_confidences(n, q):
    outcome = np.arange(n) % 2 == 0
    settings = {"weights": metrics.uniform_weights(n), "num_bins": 5}
    plain, debiased = (
        metrics.calibration_error(np.full(n, q), outcome, debiased=d, **settings)
        for d in (False, True)
    )
    hits = np.arange(n + 1)
    chance = np.sum(scipy.stats.binom.pmf(hits, n, q) * np.abs(hits - n * q)) / n
    assert plain - debiased == pytest.approx(chance, rel=1e-10)


def test_debiased_l1_subtracts_nothing_from_certain_predictions():
    confidence, outcome = np.array([0.0, 0.0, 1.0, 1.0]), np.array([False, True, True, True])
    weights = metrics.uniform_weights(4)
    assert metrics.calibration_error(confidence, outcome, weights, debiased=True) == 0.25


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("shape", [(1, 1), (20, 1)])
def test_a_calibrated_predictor_has_a_debiased_error_of_zero_on_average(
    generator, binning, norm, shape
):
    m, repeats = 150, 600
    weights, settings = metrics.uniform_weights(m), {"binning": binning, "norm": norm}
    plain, debiased = np.empty(repeats), np.empty(repeats)
    for i in range(repeats):
        confidence = generator.beta(*shape, size=m)
        outcome = generator.uniform(size=m) < confidence
        arguments = confidence, outcome, weights
        plain[i] = metrics.calibration_error(*arguments, **settings)
        debiased[i] = metrics.calibration_error(*arguments, debiased=True, **settings)
    if norm == "l2":  # it is the square that is unbiased
        plain, debiased = plain**2, np.sign(debiased) * debiased**2
    error = debiased.std() / np.sqrt(repeats)
    assert abs(debiased.mean()) < 3 * error
    assert plain.mean() > 20 * error


def test_debiased_l2_is_right_on_average_for_a_predictor_that_is_not_calibrated(generator):
    m, repeats = 100, 800
    confidence, weights = np.linspace(0.3, 0.9, m), metrics.uniform_weights(m)
    squares = np.empty(repeats)
    for i in range(repeats):
        outcome = generator.uniform(size=m) < confidence - 0.2
        value = metrics.calibration_error(confidence, outcome, weights, norm="l2", debiased=True)
        squares[i] = np.sign(value) * value**2
    assert abs(squares.mean() - 0.04) < 3 * squares.std() / np.sqrt(repeats)


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
    confidence = generator.uniform(size=M)
    outcome, weights = generator.uniform(size=M) < confidence**2, metrics.uniform_weights(M)
    knots, fit = metrics.isotonic_fit(confidence, outcome, weights)
    recalibrated = fit[np.searchsorted(knots, confidence)]
    saved = np.mean((confidence - outcome) ** 2 - (recalibrated - outcome) ** 2)
    squared = metrics.pav_calibration_error(confidence, outcome, weights, norm="l2") ** 2
    assert 0 < squared < saved


def test_pav_error_of_confidences_that_are_their_own_rates_is_zero():
    confidence = np.repeat([0.25, 0.5, 1.0], 4)
    outcome = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1], dtype=bool)
    assert metrics.pav_calibration_error(confidence, outcome, metrics.uniform_weights(12)) == 0


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_bins": 0}, "num_bins must be at least 1, but is 0"),
        ({"binning": "widht"}, "unknown binning 'widht': did you mean width"),
        ({"norm": "l3"}, "unknown norm 'l3'"),
        ({"confidence": np.array([0.5, 1.2])}, "confidence must hold probabilities from 0 to 1"),
        ({"confidence": np.array([0.5, np.nan])}, "confidence must be finite"),
        ({"weights": np.array([1.0, 1.0])}, "rows that sum to 1.*divide counts by their sum"),
        ({"weights": np.array([1.5, -0.5])}, "non-negative.*the smallest is -0.5"),
    ],
)
def test_calibration_error_refuses_what_it_cannot_use(change, message):
    arguments = {
        "confidence": np.array([0.5, 0.7]),
        "outcome": np.array([True, False]),
        "weights": metrics.uniform_weights(2),
    }
    with pytest.raises(ValueError, match=message):
        metrics.calibration_error(**(arguments | change))


def test_metrics_of_classes_refuse_labels_that_are_no_class(p, weights):
    for metric in (metrics.classwise_ece, metrics.brier_decomposition):
        with pytest.raises(ValueError, match=r"class indices from 0 to 3.*reach from 1 to 4"):
            metric(p, np.arange(M) % C + 1, weights)


def test_calibration_error_refuses_no_points():
    with pytest.raises(ValueError, match="confidence is empty"):
        metrics.calibration_error(np.empty(0), np.empty(0, dtype=bool), np.empty(0))
