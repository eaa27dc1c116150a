"""Figures of confidence and abstaining: what they show."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from plotted import NAMES, draw, texts, visible
from sklearn.isotonic import IsotonicRegression

from ntkbayes.datasets import load_dataset, make_dataset
from ntkbayes.evaluation import metrics, observations, plot_reliability, probabilities
from ntkbayes.evaluation.plots import plot_confidence_histogram, plot_risk_coverage, reliability
from ntkbayes.evaluation.plots.reliability import consistency_band


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", num_train=50)


@pytest.fixture(scope="module")
def trees(digits):
    y = np.asarray(digits.y_test)
    scale = np.linspace(0, 8, len(y))[:, None]  # later points are more certain
    return {name: draw(digits, scale * np.eye(10)[y], seed) for seed, name in enumerate(NAMES)}


def test_reliability_shows_each_methods_bins_counts_and_ece(trees):
    figure = plot_reliability(trees)
    assert len(visible(figure)) == 2 * len(trees)
    for (name, tree), panel, below in zip(
        trees.items(), figure.axes[::2], figure.axes[1::2], strict=True
    ):
        p, y = probabilities(tree).mean(axis=0), observations(tree)
        ece = metrics.ece(p, y, metrics.uniform_weights(len(y)))
        assert panel.get_title() == name
        assert texts(panel) == [f"ECE {ece:.3f}"]
        heights = np.array([bar.get_height() for bar in below.patches])
        points = np.array(
            [line.get_xydata()[0] for line in panel.lines if line.get_marker() == "o"]
        )
        assert heights.sum() == len(y)
        assert len(points) == np.count_nonzero(heights)
        counts = heights[heights > 0]
        assert np.sum(counts * points[:, 0]) / len(y) == pytest.approx(p.max(axis=1).mean())
        assert np.sum(counts * np.abs(points[:, 1] - points[:, 0])) / len(y) == pytest.approx(ece)


def test_the_consistency_band_of_equal_confidences_is_that_of_a_binomial(monkeypatch):
    m, c, resamples = 400, 0.7, 5000
    monkeypatch.setattr(reliability, "NUM_RESAMPLES", resamples)
    band = consistency_band(np.full(m, c))
    ends = scipy.stats.binom.ppf([0.05, 0.95], m, c) / m
    # The error of a 5 % quantile, from the normal density there; counts are whole.
    error = np.sqrt(0.05 * 0.95 / resamples) / 0.103 * np.sqrt(c * (1 - c) / m)
    np.testing.assert_allclose(np.ravel(band), ends, atol=5 * error + 1 / m)


def test_calibrated_answers_stay_inside_the_consistency_band_and_others_leave_it():
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.5, 1, 1000)
    weights, (low, high) = metrics.uniform_weights(1000), consistency_band(confidence)
    inside = {}
    for name, truth in {"calibrated": confidence, "too sure": confidence - 0.2}.items():
        outcome = generator.random(1000) < truth
        _, fit = metrics.isotonic_fit(confidence, outcome, weights)
        inside[name] = np.mean((low <= fit) & (fit <= high))
    assert inside["calibrated"] > 0.7  # 90 % on average, with neighbours all alike
    assert inside["too sure"] < 0.2


def test_reliability_shows_the_isotonic_fit_and_its_band(trees):
    panel = plot_reliability(trees).axes[0]
    p, y = probabilities(trees["NTK ensemble"]).mean(axis=0), observations(trees["NTK ensemble"])
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    levels = np.unique(confidence)
    fit = IsotonicRegression().fit(confidence, correct).predict(levels)
    (line,) = [line for line in panel.lines if line.get_label() == "isotonic fit"]
    np.testing.assert_allclose(line.get_xydata(), np.column_stack([levels, fit]), atol=1e-12)
    vertices = panel.collections[0].get_paths()[0].vertices
    low, high = consistency_band(confidence)
    assert (vertices[:, 1].min(), vertices[:, 1].max()) == pytest.approx((low.min(), high.max()))


def test_the_confidence_histogram_counts_right_and_wrong_answers_apart(trees):
    panels = visible(plot_confidence_histogram(trees))
    for axes, (name, tree) in zip(panels, trees.items(), strict=True):
        p, y = probabilities(tree).mean(axis=0), observations(tree)
        right = p.argmax(axis=1) == y
        assert axes.get_title() == name
        assert texts(axes) == [f"{right.sum()} right, {(~right).sum()} wrong"]
        for stairs, which in zip(axes.patches, (right, ~right), strict=True):
            shares, edges, _ = stairs.get_data()
            expected = [
                np.mean((low < p.max(axis=1)[which]) & (p.max(axis=1)[which] <= high))
                for low, high in pairwise(edges)
            ]
            np.testing.assert_allclose(shares, expected)


def test_risk_is_the_error_rate_of_the_most_confident(trees):
    (axes,) = visible(plot_risk_coverage(trees))
    assert [line.get_label() for line in axes.lines] == list(trees)
    for line, tree in zip(axes.lines, trees.values(), strict=True):
        p, y = probabilities(tree).mean(axis=0), observations(tree)
        confidence, wrong = p.max(axis=1), p.argmax(axis=1) != y
        coverage, risk = line.get_xydata().T
        for k in (0, len(coverage) // 3, len(coverage) - 1):
            answered = confidence >= np.unique(confidence)[::-1][k]
            assert coverage[k] == pytest.approx(answered.mean())
            assert risk[k] == pytest.approx(wrong[answered].mean())
        assert coverage[-1] == 1


def risk_figure(wrong):
    """Curves of predictions of falling confidence, wrong at these ranks of 400."""
    x, y = np.arange(500.0)[:, None], np.arange(500) % 2
    data = make_dataset(
        x, y, task="classification", test=np.arange(100, 500), validation=np.arange(50)
    )
    tree = draw(data, np.zeros((400, 2)), 0, 2)
    right, sure = np.isin(np.arange(400), wrong, invert=True), np.linspace(9, 1, 400)
    label = np.where(right, observations(tree), 1 - observations(tree))
    latent = sure[:, None] * np.eye(2)[label]
    tree["posterior/latent"] = 0 * tree["posterior/latent"] + latent[None, None]
    (axes,) = visible(plot_risk_coverage({"HMC": tree}))
    return axes


def test_errors_among_the_first_few_answers_do_not_decide_the_height():
    axes = risk_figure([0, *range(395, 400)])  # the most confident answer is wrong: risk 1
    low, high = axes.get_ylim()
    assert axes.lines[0].get_ydata()[0] == pytest.approx(1)
    assert high < 0.1
    assert low == 0
    assert axes.get_xlim()[0] == 0


def test_risk_is_shown_from_the_first_error_on():
    axes = risk_figure(range(330, 400))  # none among 82 %
    assert axes.get_xlim()[0] == pytest.approx(0.8)
    assert 70 / 400 < axes.get_ylim()[1] < 0.2


def test_risk_that_is_large_everywhere_fills_the_height():
    axes = risk_figure([i for i in range(400) if i % 4])
    low, high = axes.get_ylim()
    assert low > 0.6
    assert high < 0.85


def test_points_of_equal_confidence_are_answered_together(digits):
    same = draw(digits, np.zeros((500, 10)), 0)
    same["posterior/latent"] = 0 * same["posterior/latent"]
    (axes,) = visible(plot_risk_coverage({"HMC": same}))
    truth = np.mean(np.asarray(digits.y_test) != 0)
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, truth]])
