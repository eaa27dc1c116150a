"""Uncertainty of draws, selective risk and detection: loops, enumeration and scikit-learn."""

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from ntkbayes.evaluation import metrics

M, C, S, K = 60, 4, 25, 45


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
def scores(generator):
    """Scores of in- and out-of-distribution points with ties within and between them."""
    return np.round(generator.normal(size=M), 1), np.round(generator.normal(size=K) + 1, 1)


@pytest.fixture
def pair_of_weights():
    return (
        metrics.bootstrap_weights(M, num_resamples=4),
        metrics.bootstrap_weights(K, num_resamples=4, seed=1),
    )


def test_predictive_entropy_is_expected_entropy_plus_mutual_information(draws):
    weights = metrics.bootstrap_weights(M, num_resamples=3)
    total = metrics.predictive_entropy(draws.mean(axis=0), weights)
    parts = metrics.expected_entropy(draws, weights), metrics.mutual_information(draws, weights)
    np.testing.assert_allclose(sum(parts), total, rtol=1e-12)
    expected = [np.mean([scipy.stats.entropy(draws[s, i]) for s in range(S)]) for i in range(M)]
    np.testing.assert_allclose(metrics.pointwise_expected_entropy(draws), expected, rtol=1e-12)
    np.testing.assert_allclose(parts[0], weights @ expected, rtol=1e-12)


def test_variation_ratio_is_the_share_of_draws_outside_the_modal_class(draws):
    decisions = draws.argmax(axis=-1)
    expected = 1 - scipy.stats.mode(decisions, axis=0).count / S
    np.testing.assert_allclose(metrics.pointwise_variation_ratio(draws), expected, atol=1e-15)
    weights = metrics.bootstrap_weights(M, num_resamples=3)
    found = metrics.variation_ratio(draws, weights)
    np.testing.assert_allclose(found, weights @ expected, rtol=1e-12)


def test_variation_ratio_is_zero_if_draws_agree_and_one_less_one_over_c_if_they_spread():
    agreeing = np.array([[[0.4, 0.6]], [[0.1, 0.9]], [[0.3, 0.7]]])
    assert metrics.pointwise_variation_ratio(agreeing) == [0]
    np.testing.assert_allclose(metrics.pointwise_variation_ratio(np.eye(3)[:, None]), [2 / 3])


@pytest.mark.parametrize(
    "metric",
    [
        metrics.pointwise_expected_entropy,
        metrics.pointwise_mutual_information,
        metrics.pointwise_variation_ratio,
    ],
)
def test_metrics_of_draws_hold_no_second_copy_of_them(generator, metric):
    draws = generator.dirichlet(np.ones(8), size=(250, 8000)).astype(np.float32)  # 64 MB
    metric(draws[:, :2])
    tracemalloc.start()
    found = metric(draws)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # three blocks of 16 MB; a float64 copy would take 128 MB
    chosen = np.array([0, 4321, 7999])
    np.testing.assert_allclose(found[chosen], metric(draws[:, chosen]), rtol=1e-10)


def expected_aurc(confidence, wrong):
    """Mean over all orders that keep confidences falling of the mean risk of the first j points."""
    orders = [
        order
        for order in itertools.permutations(range(len(wrong)))
        if np.all(np.diff(confidence[list(order)]) <= 0)
    ]
    sizes = np.arange(1, len(wrong) + 1)
    return np.mean([np.cumsum(wrong[list(order)]) / sizes for order in orders])


@pytest.mark.parametrize("confidence", [[3, 2, 2, 2, 1, 1], [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1]])
def test_aurc_is_the_mean_risk_over_all_orders_of_equal_confidences(confidence):
    confidence = np.array(confidence, dtype=float)
    y, p = np.array([0, 1, 0, 0, 1, 0]), np.tile([0.7, 0.3], (6, 1))
    found = metrics.aurc(p, y, metrics.uniform_weights(6), confidence=confidence)
    assert found == pytest.approx(expected_aurc(confidence, y == 1), rel=1e-12)


def test_risk_coverage_curve_is_its_definition(draws, labels):
    p = np.round(draws.mean(axis=0), 2)
    weights = metrics.bootstrap_weights(M, num_resamples=3)
    coverage, risk = metrics.risk_coverage_curve(p, labels, weights)
    confidence, wrong = p.max(axis=1), p.argmax(axis=1) != labels
    thresholds = np.unique(confidence)[::-1]
    assert coverage.shape == (3, len(thresholds))
    for b, row in enumerate(weights):
        for k, threshold in enumerate(thresholds):
            accepted = confidence >= threshold
            assert coverage[b, k] == pytest.approx(row[accepted].sum(), abs=1e-15)
            if coverage[b, k] > 0:
                expected = np.average(wrong[accepted], weights=row[accepted])
                assert risk[b, k] == pytest.approx(expected, abs=1e-14)
    np.testing.assert_allclose(coverage[:, -1], 1)
    np.testing.assert_allclose(risk[:, -1], 1 - metrics.accuracy(p, labels, weights))


def test_risk_before_the_first_weight_is_that_of_the_first_points_accepted():
    p, y = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]), np.array([0, 1, 0])
    coverage, risk = metrics.risk_coverage_curve(p, y, np.array([0.0, 0.5, 0.5]))
    np.testing.assert_array_equal(coverage, [0, 0.5, 1])
    np.testing.assert_array_equal(risk, [1, 1, 0.5])


def test_selective_risk_ranks_by_the_largest_probability_unless_told_otherwise(draws, labels):
    p, weights = draws.mean(axis=0), metrics.uniform_weights(M)
    same = metrics.aurc(p, labels, weights, confidence=p.max(axis=1))
    assert metrics.aurc(p, labels, weights) == same
    assert metrics.aurc(p, labels, weights, confidence=-p.max(axis=1)) != same


def test_excess_aurc_is_zero_for_errors_last_and_the_rest_of_the_area_otherwise(generator):
    m, errors = 50, 12
    p, weights = np.tile([0.7, 0.3], (m, 1)), metrics.uniform_weights(m)
    y = generator.permutation(np.arange(m) < errors).astype(int)
    noise = generator.uniform(size=m)
    best, worst = ({"confidence": noise + sign * y} for sign in (-1.0, 1.0))
    assert metrics.excess_aurc(p, y, weights, **best) == pytest.approx(0, abs=1e-15)
    area = np.mean(np.maximum(np.arange(1, m + 1) - (m - errors), 0) / np.arange(1, m + 1))
    assert metrics.aurc(p, y, weights, **best) == pytest.approx(area, rel=1e-12)
    # About r + (1 − r) log(1 − r), to a term of order 1/m.
    rate = errors / m
    assert area == pytest.approx(rate + (1 - rate) * np.log(1 - rate), abs=1 / m)
    excess = metrics.excess_aurc(p, y, weights, **worst)
    assert excess == pytest.approx(metrics.aurc(p, y, weights, **worst) - area, rel=1e-12)


def against_scikit_learn(metric, scores, pair_of_weights, oracle):
    """Compare each row with an oracle of (is out, score, counts of points)."""
    is_out = np.repeat([0, 1], [M, K])
    uniform = metrics.uniform_weights(M)[None], metrics.uniform_weights(K)[None]
    for weights in (pair_of_weights, uniform):
        found = metric(*scores, *weights)
        counts = np.hstack([weights[0] * M, weights[1] * K])
        expected = [oracle(is_out, np.concatenate(scores), row) for row in counts]
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_auroc_is_that_of_scikit_learn_with_ties_and_weights(scores, pair_of_weights):
    def oracle(is_out, score, counts):
        return sklearn.metrics.roc_auc_score(is_out, score, sample_weight=counts)

    against_scikit_learn(metrics.auroc, scores, pair_of_weights, oracle)


def test_aupr_is_the_average_precision_of_scikit_learn(scores, pair_of_weights):
    def oracle(is_out, score, counts):
        return sklearn.metrics.average_precision_score(is_out, score, sample_weight=counts)

    against_scikit_learn(metrics.aupr, scores, pair_of_weights, oracle)


def test_fpr95_is_read_off_the_curve_of_scikit_learn(scores, pair_of_weights):
    def oracle(is_out, score, counts):
        false, true, _ = sklearn.metrics.roc_curve(
            is_out, score, sample_weight=counts, drop_intermediate=False
        )
        return false[np.flatnonzero(true >= 0.95 - 1e-9)[0]]

    against_scikit_learn(metrics.fpr95, scores, pair_of_weights, oracle)


def test_auroc_is_the_probability_of_the_right_order_with_half_for_ties(scores):
    score_in, score_out = scores
    wins = np.mean(score_out[:, None] > score_in) + np.mean(score_out[:, None] == score_in) / 2
    weights = metrics.uniform_weights(M), metrics.uniform_weights(K)
    assert metrics.auroc(score_in, score_out, *weights) == pytest.approx(wins, rel=1e-12)
    swapped = metrics.auroc(score_out, score_in, *weights[::-1])
    assert swapped == pytest.approx(1 - wins, rel=1e-12)


def test_detection_of_separate_scores_is_perfect_and_of_equal_scores_is_chance():
    weights = metrics.uniform_weights(3), metrics.uniform_weights(2)
    apart = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.4])
    assert metrics.auroc(*apart, *weights) == pytest.approx(1)
    assert metrics.aupr(*apart, *weights) == pytest.approx(1)
    assert metrics.fpr95(*apart, *weights) == 0
    equal = np.zeros(3), np.zeros(2)
    assert metrics.auroc(*equal, *weights) == pytest.approx(0.5)
    assert metrics.aupr(*equal, *weights) == pytest.approx(2 / 5)
    assert metrics.fpr95(*equal, *weights) == pytest.approx(1)


def test_fpr95_counts_nineteen_of_twenty_as_95_percent():
    score_out = np.concatenate([[0.0], np.linspace(1, 2, 19)])
    score_in = np.array([-1.0, 0.5, 0.5, 1.5])
    weights = metrics.uniform_weights(4), metrics.uniform_weights(20)
    assert metrics.fpr95(score_in, score_out, *weights) == pytest.approx(1 / 4)


def test_fpr95_is_the_same_by_weights_in_single_precision():
    """Of 100 weights 0.01 in single precision 95 sum to less than 0.95."""
    score_in, score_out = np.array([4.5]), np.arange(100.0)
    for dtype in (float, np.float32):
        weights = np.ones(1, dtype), metrics.uniform_weights(100).astype(dtype)
        assert metrics.fpr95(score_in, score_out, *weights) == 0


def test_selective_risk_and_detection_refuse_what_cannot_be_ranked(draws, labels, scores):
    p, weights = draws.mean(axis=0), metrics.uniform_weights(M)
    with pytest.raises(ValueError, match=r"confidence must be finite.*first at index"):
        metrics.aurc(p, labels, weights, confidence=np.full(M, np.nan))
    with pytest.raises(ValueError, match="weights must be non-negative with rows that sum to 1"):
        metrics.risk_coverage_curve(p, labels, np.ones(M))
    pair = metrics.uniform_weights(M), metrics.uniform_weights(K)
    with pytest.raises(ValueError, match="score_out must be finite"):
        metrics.auroc(scores[0], np.full(K, np.inf), *pair)
    with pytest.raises(ValueError, match="score_in is empty"):
        metrics.aupr(np.empty(0), scores[1], np.empty(0), pair[1])
    with pytest.raises(ValueError, match="weights_out must be non-negative"):
        metrics.fpr95(*scores, pair[0], 2 * pair[1])


def test_augrc_is_the_formula_of_accuracy_and_auroc_by_scikit_learn(generator):
    p = generator.multinomial(10, generator.dirichlet(np.ones(3), size=80)) / 10  # ties
    y, weights = generator.integers(0, 3, 80), generator.dirichlet(np.ones(80), size=2)
    right = p.argmax(axis=1) == y
    for row, found in zip(weights, metrics.augrc(p, y, weights), strict=True):
        accuracy = row @ right
        auroc = sklearn.metrics.roc_auc_score(right, p.max(axis=1), sample_weight=row)
        expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
        assert found == pytest.approx(expected, rel=1e-10)


def test_error_auroc_is_that_of_scikit_learn_and_undefined_without_errors(generator):
    score, wrong = generator.integers(0, 6, 80).astype(float), generator.uniform(size=80) < 0.3
    weights = generator.dirichlet(np.ones(80), size=2)
    found = metrics.error_auroc(score, wrong, weights)
    expected = [sklearn.metrics.roc_auc_score(wrong, score, sample_weight=row) for row in weights]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    none = np.zeros(80, bool)
    assert np.isnan(metrics.error_auroc(score, none, weights)).all()
    assert np.isnan(metrics.error_auroc(score, ~none, weights)).all()
