"""Smooth ECE: equal to its definition with sums of cosines, and to known values."""

import numpy as np
import pytest

from ntkbayes.evaluation import metrics


def by_definition(confidence, outcome, weights):
    """Bandwidth at which the smoothed absolute residual is the bandwidth, by images of the kernel.

    The Gaussian kernel with reflecting ends is the sum of normal densities at t − q + 2j and
    t + q + 2j over whole numbers j.
    """
    t = (np.arange(2000) + 0.5) / 2000

    def error(sigma):
        shifts = 2 * np.arange(-2, 3)[:, None, None]
        distances = np.concatenate([t[:, None] - confidence, t[:, None] + confidence], axis=1)
        density = np.exp(-(((distances + shifts) / sigma) ** 2) / 2).sum(axis=0)
        density /= sigma * np.sqrt(2 * np.pi)
        density = density[:, : len(confidence)] + density[:, len(confidence) :]
        return np.abs(density @ (weights * (outcome - confidence))).mean()

    low, high = 1e-3, 1.0
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > middle else (low, middle)
    return low


@pytest.mark.parametrize("excess", [0.0, 0.1])
def test_smooth_ece_is_the_fixed_point_of_its_definition(excess):
    rng = np.random.default_rng(0)
    q = rng.beta(4, 1, size=150)
    outcome = rng.uniform(size=150) < q - excess
    weights = np.stack([metrics.uniform_weights(150), rng.dirichlet(np.ones(150))])
    found = metrics.smooth_calibration_error(q, outcome, weights)
    expected = [by_definition(q, outcome, row) for row in weights]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_smooth_ece_of_one_confidence_is_the_gap_there_for_any_kernel():
    """All residuals at one place: the smoothed ones integrate to their sum at any bandwidth."""
    outcome = np.arange(100) < 60
    found = metrics.smooth_calibration_error(
        np.full(100, 0.8), outcome, metrics.uniform_weights(100)
    )
    assert found == pytest.approx(0.2, abs=1e-4)


def test_smooth_ece_of_sure_and_right_predictions_is_zero():
    p, y = np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 2])
    assert metrics.smooth_ece(p, y, metrics.uniform_weights(4)) == 0


def test_smooth_ece_hardly_moves_with_a_confidence_that_crosses_a_bin():
    y = np.arange(300) % 3 // 2
    values = [
        [float(metric(np.tile([1 - q, q], (300, 1)), y, metrics.uniform_weights(300)))
         for metric in (metrics.smooth_ece, metrics.ece)]
        for q in (0.3333, 0.3334)
    ]  # fmt: skip
    assert abs(values[0][0] - values[1][0]) < 2e-4


def test_smooth_ece_refuses_what_are_no_probabilities():
    with pytest.raises(ValueError, match="probabilities from 0 to 1"):
        metrics.smooth_calibration_error(
            np.array([1.2]), np.array([True]), metrics.uniform_weights(1)
        )
