"""Calibration over bins: loops, points by hand, and what chance gives."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
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


def test_float32_confidences_are_put_into_bins_as_the_numbers_they_stand_for():
    boundary = np.array([0.2], dtype=np.float32)  # 0.2000000030, what float32 has for 3/15
    above = np.nextafter(boundary, np.float32(1))  # times 15 exactly 3 in float32
    for confidence, expected in ((boundary, 2), (np.array([0.2]), 2), (above, 3)):
        assert metrics.confidence_bins(confidence, num_bins=15) == [expected]


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


def folded_normal_mean(mean, scale):
    """E|mean + scale Z| by SciPy; the mean itself without scale."""
    return scipy.stats.foldnorm.mean(mean / scale, scale=scale) if scale > 0 else mean


@pytest.mark.parametrize("num_bins", [1, 4])
@pytest.mark.parametrize("binning", ["width", "mass"])
def test_debiased_l1_is_the_equal_gap_of_all_bins_that_shows_the_error_seen(
    generator, num_bins, binning
):
    """Confidences are those of few values, so that chance is the deviation of binomials."""
    settings = {"num_bins": num_bins, "binning": binning}
    for n in (5, 40, 200):
        q = np.repeat(0.6 if num_bins == 1 else [0.1, 0.4, 0.6, 0.9], n)
        outcome = generator.uniform(size=len(q)) < np.minimum(q + 0.1, 1)
        share, shown, chance = n / len(q), 0.0, []
        for value in np.unique(q):
            hits = np.arange(n + 1)
            deviation = np.abs(hits - n * value) @ scipy.stats.binom.pmf(hits, n, value) / n
            chance.append(deviation)
            shown += share * abs(outcome[q == value].mean() - value)
        arguments = q, outcome, metrics.uniform_weights(len(q))
        assert metrics.calibration_error(*arguments, **settings) == pytest.approx(shown)
        found = metrics.calibration_error(*arguments, debiased=True, **settings)
        if shown <= share * np.sum(chance):
            assert found == 0
            continue
        expected = sum(share * folded_normal_mean(found, d * np.sqrt(np.pi / 2)) for d in chance)
        assert expected == pytest.approx(shown, rel=1e-9)


def test_debiased_l1_is_zero_where_no_more_is_seen_than_chance_shows():
    """Two of three at 0.6: a gap of 0.067; a binomial's mean deviation is 0.23."""
    outcome = np.array([True, True, False])
    arguments = np.full(3, 0.6), outcome, metrics.uniform_weights(3)
    assert metrics.calibration_error(*arguments, debiased=True) == 0
    assert metrics.calibration_error(*arguments) == pytest.approx(2 / 3 - 0.6)


def test_debiased_l1_corrects_nothing_of_certain_predictions():
    confidence, outcome = np.array([0.0, 0.0, 1.0, 1.0]), np.array([False, True, True, True])
    weights = metrics.uniform_weights(4)
    assert metrics.calibration_error(confidence, outcome, weights, debiased=True) == 0.25


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("shape", [(1, 1), (20, 1)])
def test_a_calibrated_predictor_has_a_debiased_squared_error_of_zero_on_average(
    generator, binning, shape
):
    m, repeats = 150, 600
    weights, settings = metrics.uniform_weights(m), {"binning": binning, "norm": "l2"}
    plain, debiased = np.empty(repeats), np.empty(repeats)
    for i in range(repeats):
        confidence = generator.beta(*shape, size=m)
        outcome = generator.uniform(size=m) < confidence
        arguments = confidence, outcome, weights
        plain[i] = metrics.calibration_error(*arguments, **settings)
        debiased[i] = metrics.calibration_error(*arguments, debiased=True, **settings)
    plain, debiased = plain**2, np.sign(debiased) * debiased**2  # it is the square that is unbiased
    error = debiased.std() / np.sqrt(repeats)
    assert abs(debiased.mean()) < 3 * error
    assert plain.mean() > 20 * error


@pytest.mark.parametrize("excess", [0.05, 0.1])
@pytest.mark.parametrize("num_points", [300, 1000])
def test_debiased_l1_is_near_the_truth_of_predictors_that_are_off(excess, num_points):
    """Bias below a tenth of the gap, where the plain error has up to a fifth of it or more."""
    rng, repeats, weights = np.random.default_rng(4), 400, metrics.uniform_weights(num_points)
    values = np.empty((repeats, 2))
    for i in range(repeats):
        q = rng.uniform(0.55, 0.75, num_points)
        arguments = q, rng.uniform(size=num_points) < q - excess, weights
        values[i] = [metrics.calibration_error(*arguments, debiased=d) for d in (False, True)]
    plain, debiased = values.mean(axis=0) - excess
    error = values[:, 1].std() / np.sqrt(repeats)
    assert abs(debiased) < 0.1 * excess + 3 * error
    if excess * np.sqrt(num_points) < 1:
        assert plain > 0.15 * excess


def test_debiased_l1_of_many_points_is_the_plain_error_whatever_the_gaps(generator):
    q = np.repeat([0.2, 0.5, 0.8], 400_000)
    outcome = generator.uniform(size=len(q)) < q + np.repeat([0.1, -0.05, 0.0], 400_000)
    arguments = q, outcome, metrics.uniform_weights(len(q))
    plain, debiased = (metrics.calibration_error(*arguments, debiased=d) for d in (False, True))
    assert debiased == pytest.approx(0.05, abs=0.002)
    assert debiased == pytest.approx(plain, abs=0.001)


def test_debiased_l2_is_right_on_average_for_a_predictor_that_is_not_calibrated(generator):
    m, repeats = 100, 800
    confidence, weights = np.linspace(0.3, 0.9, m), metrics.uniform_weights(m)
    squares = np.empty(repeats)
    for i in range(repeats):
        outcome = generator.uniform(size=m) < confidence - 0.2
        value = metrics.calibration_error(confidence, outcome, weights, norm="l2", debiased=True)
        squares[i] = np.sign(value) * value**2
    assert abs(squares.mean() - 0.04) < 3 * squares.std() / np.sqrt(repeats)


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
        with pytest.raises(ValueError, match=r"class indices 0 to 3, but holds 1 to 4"):
            metric(p, np.arange(M) % C + 1, weights)


def test_calibration_error_refuses_no_points():
    with pytest.raises(ValueError, match="confidence is empty"):
        metrics.calibration_error(np.empty(0), np.empty(0, dtype=bool), np.empty(0))


@pytest.mark.parametrize("num_points", [8, 40])
def test_the_squared_error_is_the_square_of_the_debiased_root(num_points):
    rng = np.random.default_rng(0)
    q, uniform = rng.uniform(size=num_points), metrics.uniform_weights(num_points)
    outcome = rng.uniform(size=num_points) < 0.5
    settings = {"num_bins": 4, "binning": "mass", "norm": "l2", "debiased": True}
    root = metrics.calibration_error(q, outcome, uniform, **settings)
    found = metrics.squared_calibration_error(q, outcome, uniform, num_bins=4)
    assert found == pytest.approx(root * abs(root), rel=1e-10)


def test_weights_act_on_the_squared_error_as_leaving_out_a_point_does():
    """To first order: the jackknife's variance, (m − 1)/m Σ (v_{−i} − v̄)², with the same bins."""
    rng = np.random.default_rng(0)
    m = 300
    q = np.repeat([0.3, 0.6, 0.9], 100)
    outcome = rng.uniform(size=m) < q - 0.1
    weights = metrics.bootstrap_weights(m, num_resamples=4000)
    found = metrics.squared_calibration_error(q, outcome, weights, num_bins=3).var()
    without = []
    for i in range(m):
        rest, value = np.arange(m) != i, 0.0
        for confidence in (0.3, 0.6, 0.9):
            r = (outcome - q)[rest & (q == confidence)]
            value += (r.sum() ** 2 - np.sum(r**2)) / (len(r) - 1) / (m - 1)
        without.append(value)
    assert found == pytest.approx((m - 1) * np.var(without), rel=0.08)  # 4,000 resamples: 2 %


@pytest.mark.parametrize(("num_points", "excess"), [(50, 0.0), (500, 0.0), (100, 0.1), (500, 0.1)])
def test_the_squared_error_is_unbiased_and_its_intervals_hold_it(num_points, excess):
    rng = np.random.default_rng(0)
    weights = metrics.bootstrap_weights(num_points, num_resamples=100)
    weights = np.concatenate([metrics.uniform_weights(num_points)[None], weights])
    values, hits = [], []
    for _ in range(400):
        q = rng.uniform(0.5, 1, size=num_points)
        outcome = rng.uniform(size=num_points) < q - excess
        value, *resampled = metrics.squared_calibration_error(q, outcome, weights)
        values.append(value)
        hits.append(abs(value - excess**2) <= 1.96 * np.std(resampled, ddof=1))
    assert abs(np.mean(values) - excess**2) < 4 * np.std(values) / np.sqrt(400)
    assert 0.9 - 2 * 0.015 < np.mean(hits) < 0.98 + 2 * 0.007


@pytest.mark.parametrize("error", ["squared", "debiased"])
def test_errors_without_bias_do_not_prefer_the_less_certain_of_two_bad_predictors(error):
    """Both over-confident by 0.05 at every point; the plain error prefers the certain one."""
    rng, uniform, wins = np.random.default_rng(0), metrics.uniform_weights(300), np.zeros(2)
    for _ in range(400):
        values = []
        for low, high in ((0.93, 0.99), (0.55, 0.75)):
            q = rng.uniform(low, high, 300)
            arguments = q, rng.uniform(size=300) < q - 0.05, uniform
            if error == "squared":
                found = metrics.squared_calibration_error(*arguments)
            else:
                found = metrics.calibration_error(*arguments, debiased=True)
            values.append((found, metrics.calibration_error(*arguments)))
        wins += np.less(values[1], values[0])
    assert 0.4 < wins[0] / 400 < 0.65  # the diffuse one's values are skewed
    assert wins[1] / 400 < 0.4


@pytest.mark.parametrize("num_points", [2, 5, 12, 15, 16, 20, 30])
def test_the_squared_error_of_few_points_is_that_of_bins_with_two_or_more(num_points):
    """Every label wrong with confidences of 0.9 to 0.99: 15 bins would have single points."""
    confidence = np.linspace(0.9, 0.99, num_points)
    wrong = np.zeros(num_points, bool)
    found = metrics.squared_calibration_error(
        confidence, wrong, metrics.uniform_weights(num_points)
    )
    assert found == pytest.approx(0.945**2, abs=0.01)


@pytest.mark.parametrize("num_points", [10, 20, 24])
def test_the_squared_error_of_few_points_is_unbiased(num_points):
    rng, weights = np.random.default_rng(0), metrics.uniform_weights(num_points)
    values = []
    for _ in range(1500):
        q = rng.uniform(0.5, 1, size=num_points)
        outcome = rng.uniform(size=num_points) < q - 0.2
        values.append(metrics.squared_calibration_error(q, outcome, weights))
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - 0.04) < 3 * error
