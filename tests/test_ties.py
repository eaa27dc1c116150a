"""Predictions with many ties: exact values by rationals, and no value that depends on the order."""

from fractions import Fraction

import jax
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes import evaluation
from ntkbayes.evaluation import METRICS, distances, metrics
from ntkbayes.evaluation.predictive import Predictive

KEY = jax.random.key(0)
NUM_BINS = 15
# Votes of committees of so many members; thirds and sevenths end in no base.
SIZES = (3, 7, 10, 25, 128)

pytestmark = pytest.mark.filterwarnings("ignore:probabilities holds")


def ballots(size, num_points=300, num_classes=4):
    """Votes (m c) of a committee that is right more often than not, and labels."""
    generator = np.random.default_rng(size)
    y = generator.integers(0, num_classes, num_points)
    chance = np.full((num_points, num_classes), 0.5 / num_classes)
    chance[np.arange(num_points), y] += 0.5
    return generator.multinomial(size, chance), y


def aurc(confidence, wrong):
    """Mean over orders within ties of the mean risk over coverages, as a fraction."""
    before = errors = 0
    total = Fraction(0)
    for level in sorted(set(confidence), reverse=True):
        tied = wrong[confidence == level]
        size, bad = len(tied), int(tied.sum())
        total += sum((errors + Fraction(j * bad, size)) / (before + j) for j in range(1, size + 1))
        before, errors = before + size, errors + bad
    return float(total / before)


def gaps(confidence, wrong, size):
    """|accuracy − confidence| of each bin (k/B, (k+1)/B] and its number of points, by integers."""
    bins = np.array([-(-int(votes) * NUM_BINS // size) - 1 for votes in confidence])
    found = []
    for k in set(bins):
        inside = bins == k
        rate = Fraction(int((~wrong[inside]).sum()), int(inside.sum()))
        mean = Fraction(int(confidence[inside].sum()), size * int(inside.sum()))
        found.append((abs(rate - mean), int(inside.sum())))
    return found


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", SIZES)
def test_votes_have_the_values_of_rational_arithmetic(size, dtype, tmp_path):
    votes, y = ballots(size)
    confidence, wrong = votes.max(axis=1), votes.argmax(axis=1) != y
    shares = votes.astype(dtype) / dtype(size)
    nb.save_predictions(
        nb.from_probabilities(shares, y, key=KEY, method="votes"), tmp_path / "votes.nc"
    )
    tree = nb.load_predictions(tmp_path / "votes.nc")
    p, uniform = Predictive(tree).classes.mean, metrics.uniform_weights(len(y))
    assert metrics.aurc(p, y, uniform) == pytest.approx(aurc(confidence, wrong), abs=1e-12)
    expected = gaps(confidence, wrong, size)
    precision = 1e-7 if dtype == np.float32 else 1e-12
    largest = float(max(gap for gap, _ in expected))
    assert metrics.mce(p, y, uniform) == pytest.approx(largest, abs=precision)
    mean = float(sum(gap * count for gap, count in expected) / len(y))
    assert metrics.ece(p, y, uniform) == pytest.approx(mean, abs=precision)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_confidences_on_a_boundary_are_in_the_lower_bin_and_those_above_it_are_not(dtype):
    for num_bins in range(2, 200):
        k = np.arange(1, num_bins + 1)
        edges = (k / num_bins).astype(dtype)
        for confidence, expected in (
            (edges, k - 1),
            (np.nextafter(edges, dtype(0)), k - 1),
            (np.nextafter(edges[:-1], dtype(1)), k[:-1]),
            (edges.astype(float), k - 1),  # single precision, kept in double
        ):
            found = metrics.confidence_bins(confidence, num_bins=num_bins)
            np.testing.assert_array_equal(found, expected)
            both = np.stack([confidence, 1 - confidence], axis=1).astype(dtype)
            upper = confidence > 0.5
            found = metrics.calibration_bins(both, num_bins=num_bins)
            np.testing.assert_array_equal(found[upper], np.asarray(expected)[upper])


def votes_of_draws(seed, num_points=120):
    generator = np.random.default_rng(seed)
    votes = generator.multinomial(4, [0.4, 0.3, 0.3], size=(6, num_points))
    return votes / 4, generator.integers(0, 3, num_points)


def rounded_regression(seed, num_points=120, num_outputs=2):
    generator = np.random.default_rng(seed)
    latent = generator.integers(-2, 3, size=(6, num_points, num_outputs)) / 2
    return latent, generator.integers(-2, 3, size=(num_points, num_outputs)) / 2


def classification(order):
    trees = {}
    for name in ("one", "other"):
        p, y = votes_of_draws(len(name))[0], votes_of_draws(0)[1]
        trees[name] = nb.from_probabilities(p[:, order], y[order], key=KEY, method=name)
    return trees


def regression(order):
    trees = {}
    for name in ("one", "other"):
        latent, y = rounded_regression(len(name))[0], rounded_regression(0)[1]
        trees[name] = nb.from_draws(
            latent[:, order], nb.Gaussian(0.25, 2), y[order], key=KEY, method=name
        )
    return trees


# Batches and halves are drawn by position: others are another estimate.
BY_POSITION = {"joint_nll", "dyadic_nll", "scaled_nll", "temperature_gain", "energy_score"}


@pytest.mark.parametrize("make", [classification, regression])
def test_the_order_of_tied_points_changes_no_metric(make):
    order = np.random.default_rng(0).permutation(120)
    straight, mixed = make(np.arange(120)), make(order)
    before, after = (nb.compare(trees, reference="one") for trees in (straight, mixed))
    before, after = (table[~table["metric"].isin(BY_POSITION)] for table in (before, after))
    assert set(before["metric"]) | BY_POSITION >= set(METRICS[make.__name__])
    for column in ("value", "monte_carlo_floor"):
        np.testing.assert_allclose(before[column], after[column], rtol=1e-10, atol=1e-12)
    joint = [evaluation.compare_joint(trees, reference="one") for trees in (straight, mixed)]
    np.testing.assert_allclose(*(table["value"] for table in joint), rtol=1e-9, atol=1e-12)


def test_the_order_of_tied_points_changes_no_calibration_of_distributions():
    generator = np.random.default_rng(0)
    pit = generator.integers(0, 5, size=(80, 2)) / 4
    order, uniform = generator.permutation(80), metrics.uniform_weights(80)
    for metric in (
        metrics.pit_kolmogorov_smirnov,
        metrics.mean_absolute_calibration_error,
        metrics.miscalibration_area,
        metrics.rms_calibration_error,
    ):
        expected = metric(pit, uniform)
        assert metric(pit[order], uniform) == pytest.approx(expected, rel=1e-12)


def test_agreement_and_draws_of_tied_points_do_not_depend_on_their_order():
    (p, _), (q, _) = votes_of_draws(1), votes_of_draws(2)
    order, uniform = np.random.default_rng(0).permutation(120), metrics.uniform_weights(120)
    for distance in (distances.agreement, distances.total_variation, distances.jensen_shannon):
        expected = distance(p[0], q[0], uniform)
        assert distance(p[0, order], q[0, order], uniform) == pytest.approx(expected, rel=1e-12)
    draws, y = rounded_regression(0)
    expected = metrics.draws_crps(draws, y, uniform)
    found = metrics.draws_crps(draws[:, order], y[order], uniform)
    assert found == pytest.approx(expected, rel=1e-12)


def test_uncertainty_that_is_equal_but_for_rounding_tells_nothing_apart():
    """The same votes for other classes are as uncertain: AUROC ½, whatever the sums round to."""
    votes, _ = ballots(10, num_points=200, num_classes=5)
    votes = np.maximum(votes, 1)
    latent = np.log(votes / votes.sum(axis=1, keepdims=True))
    for draws in (latent[None], np.stack([latent, latent[:, [1, 0, 2, 4, 3]]])):
        permuted = draws[:, ::-1][..., [3, 1, 4, 0, 2]]
        for dtype in (np.float64, np.float32):
            pair = draws.astype(dtype), permuted.astype(dtype)
            table = evaluation.detection_table({"votes": pair}).set_index(["score", "metric"])
            for score in ("predictive_entropy", "one_minus_max_probability", "mutual_information"):
                # The same scores for both kinds of points are a share of 1/2 of the pairs.
                assert table.loc[(score, "auroc"), "value"] == pytest.approx(0.5, abs=1e-12)


def test_convergence_is_drawn_from_the_probabilities_that_were_given():
    votes, y = ballots(10, num_points=60)
    p = np.stack([votes, np.roll(votes, 1, axis=1)]) / 10
    tree = nb.from_probabilities(p, y, key=KEY, method="two")
    figure = evaluation.plot_convergence({"two": tree}, "ece", num_orders=2)
    last = np.asarray(figure.axes[0].lines[-1].get_ydata())[-1]
    expected = metrics.ece(p.mean(axis=0), y, metrics.uniform_weights(60))
    assert last == pytest.approx(float(expected), abs=1e-12)
