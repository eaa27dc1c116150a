"""Tests of calibration against MAPIE's numbers, walks by hand, and what chance gives them."""

import numpy as np
import pytest
import scipy.stats

from ntkbayes.evaluation import metrics

MAPIE_CONFIDENCE = np.array([0.1, 0.9, 0.21, 0.9, 0.5])
MAPIE_OUTCOME = np.array([0, 1, 0, 1, 0], dtype=bool)
"""Data of the docstring examples in mapie.metrics.calibration, MAPIE 1.6.0."""

PATH_OUTCOME = np.array([int(o) for o in "1010010101100011100111001010110100101001"], dtype=bool)
"""Outcomes whose cumulative differences take both signs, for confidences frac(i · golden ratio)."""


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def path_confidence():
    return np.arange(1, 41) * 0.6180339887498949 % 1


def statistics(confidence, outcome):
    arguments = confidence, outcome, metrics.uniform_weights(len(confidence))
    return [
        float(statistic(*arguments))
        for statistic in (
            metrics.kolmogorov_smirnov_statistic,
            metrics.kuiper_statistic,
            metrics.spiegelhalter_statistic,
        )
    ]


def test_statistics_of_mapie_s_examples_are_mapie_s():
    smirnov, kuiper, z = statistics(MAPIE_CONFIDENCE, MAPIE_OUTCOME)
    assert smirnov == pytest.approx(0.978, abs=5e-4)  # as printed there
    assert z == pytest.approx(-0.757, abs=5e-4)
    # MAPIE gives 0.857 = 0.71 / 0.8283 here: its range leaves C_0 = 0 out, and C < 0 throughout.
    assert kuiper == pytest.approx(0.81 / np.sqrt(0.6859), rel=1e-12)


def test_statistics_of_a_path_with_both_signs_are_mapie_s():
    found = statistics(path_confidence(), PATH_OUTCOME)
    # MAPIE 1.6.0, which moves confidences by a relative 1e-8 at random to break ties.
    assert found[:2] == pytest.approx([0.3680212726647517, 0.6831954379745145], rel=1e-6)
    assert found[2] == pytest.approx(-0.27630420916533416, rel=1e-12)


@pytest.mark.parametrize(
    ("p_value", "statistic", "expected"),
    [
        (metrics.kolmogorov_smirnov_p_value, 0.832050285553564, 0.7857148517952549),
        (metrics.kolmogorov_smirnov_p_value, 0.5, 0.9908430097102392),
        (metrics.kolmogorov_smirnov_p_value, 1.0, 0.6292225702004761),
        (metrics.kolmogorov_smirnov_p_value, 2.0, 0.09100052384636614),
        (metrics.kolmogorov_smirnov_p_value, 4.0, 0.00012668496727774592),
        (metrics.kuiper_p_value, 0.9245003118693731, 0.9683880647037659),
        (metrics.kuiper_p_value, 0.5, 0.9999999122222775),
        (metrics.kuiper_p_value, 2.0, 0.18149433939418735),
        (metrics.kuiper_p_value, 3.0, 0.010799168467638398),
        # MAPIE's is the upper tail, 0.8485523523317797 of z = −1.03.
        (metrics.spiegelhalter_p_value, -1.0302443927398632, 2 * (1 - 0.8485523523317797)),
    ],
)
def test_p_values_are_mapie_s(p_value, statistic, expected):
    """The first of each are those of MAPIE's docstring examples, 0.7857, 0.9684 and 0.8486."""
    assert p_value(np.array(statistic)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(
    ("p_value", "switch"),
    [(metrics.kolmogorov_smirnov_p_value, 1.0), (metrics.kuiper_p_value, 2.0)],
)
def test_the_two_series_of_a_p_value_meet(p_value, switch):
    below, above = p_value(np.array([np.nextafter(switch, 0), switch]))
    assert below == pytest.approx(above, rel=1e-14)


def test_p_values_keep_their_digits_far_out_and_are_one_at_zero():
    far = np.array([10.0])
    assert metrics.kolmogorov_smirnov_p_value(far) == pytest.approx(
        4 * scipy.stats.norm.sf(10), rel=1e-12
    )
    assert metrics.kuiper_p_value(far) == pytest.approx(8 * scipy.stats.norm.sf(10), rel=1e-12)
    ends = np.array([0.0, np.inf])
    for p_value in (
        metrics.kolmogorov_smirnov_p_value,
        metrics.kuiper_p_value,
        metrics.spiegelhalter_p_value,
    ):
        np.testing.assert_array_equal(p_value(ends), [1, 0])


def test_equal_confidences_are_taken_together():
    confidence, outcome = np.array([0.5, 0.5, 0.5, 0.5]), np.array([True, True, False, False])
    # In this order the path would reach 0.25 and back; all four together it does not move.
    assert statistics(confidence, outcome) == [0, 0, 0]


def test_kuiper_counts_from_the_start_of_a_path_above_zero_as_of_one_below():
    confidence, outcome = np.array([0.5, 0.6, 0.75]), np.array([True, True, False])
    # The path is 0, 0.5, 0.9, 0.15 and its scale √(0.25 + 0.24 + 0.1875), all over 3.
    assert statistics(confidence, outcome)[1] == pytest.approx(0.9 / np.sqrt(0.6775), rel=1e-12)
    mirrored = statistics(1 - confidence[::-1], ~outcome[::-1])
    assert mirrored[1] == pytest.approx(0.9 / np.sqrt(0.6775), rel=1e-12)


def test_sure_predictions_are_calibrated_if_right_and_refuted_by_one_error():
    confidence = np.ones(3)
    assert statistics(confidence, np.ones(3, dtype=bool)) == [0, 0, 0]
    wrong = statistics(confidence, np.array([True, False, True]))
    assert wrong == [np.inf, np.inf, np.inf]


def test_spiegelhalter_is_the_brier_score_less_its_expectation(generator):
    confidence = generator.uniform(size=50)
    outcome = generator.uniform(size=50) < confidence
    excess = np.mean((confidence - outcome) ** 2) - np.mean(confidence * (1 - confidence))
    # The variance of (q − o)² over o ~ Bernoulli(q), by its two values.
    first, second = (1 - confidence) ** 2, confidence**2
    mean = confidence * first + (1 - confidence) * second
    variance = confidence * (first - mean) ** 2 + (1 - confidence) * (second - mean) ** 2
    expected = excess / np.sqrt(variance.sum() / 50**2)
    assert statistics(confidence, outcome)[2] == pytest.approx(expected, rel=1e-10)


def test_p_values_of_a_calibrated_predictor_are_nearly_uniform(generator):
    repeats, m = 500, 1000
    found = np.empty((repeats, 3))
    for i in range(repeats):
        confidence = generator.uniform(0.5, 1, size=m)
        correct = generator.uniform(size=m) < confidence
        p = np.stack([1 - confidence, confidence], axis=1)
        tests = metrics.calibration_tests(p, correct.astype(int))
        found[i] = [test.p_value for test in tests.values()]
    for level in (0.05, 0.2, 0.5):
        share = np.mean(found <= level, axis=0)
        # Steps of 1/σ make the walk's extremes less extreme than those of Brownian motion, by
        # 0.58 / √m of their scale, which is 2 %, or 0.02 of a level.
        error = np.sqrt(level * (1 - level) / repeats)
        np.testing.assert_array_less(np.abs(share - level), 3 * error + 0.02)


def test_overconfidence_is_found_by_every_test(generator):
    confidence = generator.uniform(0.5, 1, size=2000)
    correct = generator.uniform(size=2000) < confidence - 0.1
    p = np.stack([1 - confidence, confidence], axis=1)
    tests = metrics.calibration_tests(p, correct.astype(int))
    assert list(tests) == ["kolmogorov_smirnov", "kuiper", "spiegelhalter"]
    assert all(test.p_value < 1e-6 for test in tests.values())
    assert tests["spiegelhalter"].statistic > 0  # worse than it says


def test_calibration_tests_are_those_of_the_most_probable_class(generator):
    p = generator.dirichlet(np.ones(3), size=80)
    y = generator.integers(0, 3, 80)
    expected = statistics(p.max(axis=1), p.argmax(axis=1) == y)
    found = [test.statistic for test in metrics.calibration_tests(p, y).values()]
    assert found == expected


def test_statistics_refuse_confidences_that_are_no_probabilities():
    logits, outcome = np.array([-1.0, 2.0]), np.array([True, False])
    for statistic in (metrics.kolmogorov_smirnov_statistic, metrics.spiegelhalter_statistic):
        with pytest.raises(ValueError, match="reach from -1 to 2; apply softmax"):
            statistic(logits, outcome, metrics.uniform_weights(2))
