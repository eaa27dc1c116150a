"""What every metric of test points owes its weights, their order and their precision."""

import numpy as np
import pytest
import scipy.special

from ntkbayes.evaluation import metrics

M, C, S, K = 90, 3, 11, 70


def with_settings(metric, **settings):
    return lambda *arguments: metric(*arguments, **settings)


def every_part(p, y, weights):
    parts = metrics.brier_decomposition(p, y, weights)
    return np.stack(
        [
            parts.reliability,
            parts.resolution,
            parts.uncertainty,
            parts.within_bin_variance,
            parts.within_bin_covariance,
        ]
    )


CLASSES = {
    "accuracy": metrics.accuracy,
    "brier": metrics.brier,
    **{
        f"{metric.__name__} {norm} {debiased}": with_settings(metric, norm=norm, debiased=debiased)
        for metric in (metrics.ece, metrics.classwise_ece)
        for norm in ("l1", "l2")
        for debiased in (False, True)
    },
    "mce": metrics.mce,
    "brier_decomposition": every_part,
    "aurc": metrics.aurc,
    "excess_aurc": metrics.excess_aurc,
    "augrc": metrics.augrc,
    "smooth_ece": metrics.smooth_ece,
}
EQUAL_MASS = {
    metric.__name__: with_settings(metric, binning="mass", num_bins=6)
    for metric in (metrics.ece, metrics.classwise_ece, metrics.mce)
}
PAIRS = {
    "pav_calibration_error l1": metrics.pav_calibration_error,
    "pav_calibration_error l2": with_settings(metrics.pav_calibration_error, norm="l2"),
    "kolmogorov_smirnov_statistic": metrics.kolmogorov_smirnov_statistic,
    "kuiper_statistic": metrics.kuiper_statistic,
    "spiegelhalter_statistic": metrics.spiegelhalter_statistic,
}
DRAWS = {
    "expected_entropy": metrics.expected_entropy,
    "mutual_information": metrics.mutual_information,
    "variation_ratio": metrics.variation_ratio,
}
DETECTION = {"auroc": metrics.auroc, "aupr": metrics.aupr, "fpr95": metrics.fpr95}


def arguments(name, dtype=float):
    """Arrays whose first axis is that of the points; confidences are rounded, so many are tied."""
    generator = np.random.default_rng(0)
    draws = scipy.special.softmax(1.5 * generator.normal(size=(M, S, C)), axis=-1).astype(dtype)
    p = np.round(draws[:, 0] * 32) / 32
    p, y = p / p.sum(axis=1, keepdims=True), generator.integers(0, C, M)
    if name in PAIRS:
        return p.max(axis=1), p.argmax(axis=1) == y
    return (draws,) if name in DRAWS else (p, y)


def evaluate(metric, name, points, weights):
    """Draws come first in what metrics of draws take."""
    if name in DRAWS:
        points = (np.moveaxis(points[0], 0, 1),)
    return metric(*points, weights)


CASES = [(name, metric) for group in (CLASSES, PAIRS, DRAWS) for name, metric in group.items()]
MASS_CASES = list(EQUAL_MASS.items())
WITH_NAMES = pytest.mark.parametrize(("name", "metric"), CASES, ids=[name for name, _ in CASES])


@pytest.mark.parametrize(
    ("name", "metric"), CASES + MASS_CASES, ids=[name for name, _ in CASES] + [*EQUAL_MASS]
)
def test_the_order_of_test_points_changes_nothing(name, metric):
    points, weights = arguments(name), metrics.bootstrap_weights(M, num_resamples=4)
    order = np.random.default_rng(1).permutation(M)
    expected = evaluate(metric, name, points, weights)
    found = evaluate(metric, name, tuple(a[order] for a in points), weights[:, order])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@WITH_NAMES
def test_weights_that_are_counts_are_repeated_points(name, metric):
    points, weights = arguments(name), metrics.bootstrap_weights(M, num_resamples=4)
    found = evaluate(metric, name, points, weights)
    for b, row in enumerate(weights):
        chosen = np.repeat(np.arange(M), np.round(row * M).astype(int))
        expected = evaluate(
            metric, name, tuple(a[chosen] for a in points), metrics.uniform_weights(M)
        )
        np.testing.assert_allclose(found[..., b], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "metric"), MASS_CASES, ids=[*EQUAL_MASS])
def test_doubling_every_point_leaves_errors_over_bins_of_equal_mass_alone(name, metric):
    points = arguments(name)
    expected = metric(*points, metrics.uniform_weights(M))
    doubled = tuple(np.repeat(a, 2, axis=0) for a in points)
    assert metric(*doubled, metrics.uniform_weights(2 * M)) == pytest.approx(expected, rel=1e-10)


@WITH_NAMES
def test_float32_is_computed_in_float64(name, metric):
    single = arguments(name, np.float32)
    weights = metrics.bootstrap_weights(M, num_resamples=4).astype(np.float32)
    double = tuple(a.astype(float) if a.dtype == np.float32 else a for a in single)
    found = evaluate(metric, name, single, weights)
    expected = evaluate(metric, name, double, weights.astype(float))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("metric", DETECTION.values(), ids=DETECTION)
def test_detection_counts_weights_as_repeated_points_in_any_order(metric):
    generator = np.random.default_rng(2)
    scores = tuple(
        np.round(generator.normal(size=n) + shift, 1) for n, shift in ((M, 0.0), (K, 1.0))
    )
    weights = tuple(metrics.bootstrap_weights(n, num_resamples=4, seed=n) for n in (M, K))
    found = metric(*scores, *weights)
    orders = generator.permutation(M), generator.permutation(K)
    shuffled = metric(
        *(score[order] for score, order in zip(scores, orders, strict=True)),
        *(rows[:, order] for rows, order in zip(weights, orders, strict=True)),
    )
    np.testing.assert_allclose(shuffled, found, rtol=1e-12)
    uniform = metrics.uniform_weights(M), metrics.uniform_weights(K)
    for b, value in enumerate(found):
        repeated = (
            np.repeat(score, np.round(rows[b] * len(score)).astype(int))
            for score, rows in zip(scores, weights, strict=True)
        )
        assert value == pytest.approx(float(metric(*repeated, *uniform)), rel=1e-10)


def test_a_risk_coverage_curve_of_counts_is_that_of_repeated_points():
    (p, y), weights = arguments("curve"), metrics.bootstrap_weights(M, num_resamples=3)
    coverage, risk = metrics.risk_coverage_curve(p, y, weights)
    for b, row in enumerate(weights):
        chosen = np.repeat(np.arange(M), np.round(row * M).astype(int))
        curve = metrics.risk_coverage_curve(p[chosen], y[chosen], metrics.uniform_weights(M))
        kept = np.diff(coverage[b], prepend=0) > 1e-9
        np.testing.assert_allclose(coverage[b, kept], curve[0], rtol=1e-10)
        np.testing.assert_allclose(risk[b, kept], curve[1], rtol=1e-10, atol=1e-12)
