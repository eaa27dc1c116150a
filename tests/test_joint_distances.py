"""Energy distance and MMD: loops, closed forms of normals, no bias, honest errors."""

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
from joint_draws import SHAPE, normal, summarize
from markov_chains import correlated, predictions

from ntkbayes.evaluation import distances
from ntkbayes.evaluation.distances import JointDraws


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def root_mean_square(x, y):
    return np.sqrt(np.mean((x - y) ** 2))


def mean_over(kernel, pairs):
    return np.mean([kernel(x, y) for x, y in pairs])


def gaussian(x, y):
    return np.exp(-np.mean((x - y) ** 2) / (2 * 0.8**2))


def test_energy_distance_is_a_mean_over_all_pairs_of_different_draws(generator):
    a, b = normal(generator, 12), normal(generator, 9, shift=0.3)
    expected = 2 * mean_over(root_mean_square, itertools.product(a.latent, b.latent))
    for draws in (a, b):
        expected -= mean_over(root_mean_square, itertools.permutations(draws.latent, 2))
    assert distances.energy_distance(a, b).value == pytest.approx(expected, rel=1e-10)


def test_energy_distance_in_one_dimension_is_the_square_of_that_of_scipy(generator):
    a, b = normal(generator, 40, shape=(1, 1)), normal(generator, 30, 0.5, shape=(1, 1))
    squared = scipy.stats.energy_distance(a.latent.ravel(), b.latent.ravel()) ** 2
    # SciPy's includes the pairs of equal draws, at distance 0.
    for draws in (a, b):
        mean = scipy.spatial.distance.pdist(draws.latent[:, 0]).mean()
        squared -= mean / len(draws.latent)
    assert distances.energy_distance(a, b).value == pytest.approx(squared, rel=1e-10)


def test_squared_mmd_is_a_mean_over_all_pairs_of_different_draws(generator):
    a, b = normal(generator, 12), normal(generator, 9, shift=0.3)
    expected = -2 * mean_over(gaussian, itertools.product(a.latent, b.latent))
    for draws in (a, b):
        expected += mean_over(gaussian, itertools.permutations(draws.latent, 2))
    found = distances.squared_mmd(a, b, bandwidth=0.8)
    assert found.value == pytest.approx(expected, rel=1e-10)


def test_mean_distance_is_that_of_the_means_without_what_chance_adds(generator):
    a, b = normal(generator, 12), normal(generator, 9, shift=0.3)
    means = [draws.latent.mean(axis=0) for draws in (a, b)]
    variances = [draws.latent.var(axis=0, ddof=1).mean() for draws in (a, b)]
    expected = np.mean((means[0] - means[1]) ** 2) - variances[0] / 12 - variances[1] / 9
    assert distances.mean_distance(a, b).value == pytest.approx(expected / variances[1], rel=1e-10)


def test_the_default_bandwidth_is_the_median_distance_between_all_draws(generator):
    a, b = normal(generator, 12), normal(generator, 9, shift=0.3)
    pooled = np.concatenate([a.latent, b.latent]).reshape(21, -1)
    median = np.median(scipy.spatial.distance.pdist(pooled)) / np.sqrt(pooled.shape[1])
    assert distances.median_distance(a, b) == pytest.approx(median, rel=1e-12)
    expected = distances.squared_mmd(a, b, bandwidth=float(median)).value
    assert distances.squared_mmd(a, b).value == pytest.approx(expected, rel=1e-12)


def test_distances_of_shifted_normals_are_their_closed_forms(generator):
    """X ~ N(0, I) and Y ~ N(0.5, I) in ten dimensions, or in one for the energy distance."""
    a, b = normal(generator, 1000), normal(generator, 800, shift=0.5)
    h, d = 0.8, 10  # with the norm over √d, the kernel's width is h √d
    widened = 1 + 2 / (h**2 * d)
    expected = 2 * widened ** (-d / 2) * (1 - np.exp(-(0.5**2) / (2 * h**2 * widened)))
    found = distances.squared_mmd(a, b, bandwidth=h)
    assert abs(found.value - expected) < 3 * found.standard_error < 0.2 * expected
    a, b = normal(generator, 1000, shape=(1, 1)), normal(generator, 800, 0.5, shape=(1, 1))
    # X − Y is N(−0.5, 2), and E|N(μ, σ²)| the mean of a folded normal.
    expected = 2 * scipy.stats.foldnorm.mean(0.5 / np.sqrt(2), scale=np.sqrt(2))
    expected -= 2 * 2 / np.sqrt(np.pi)
    found = distances.energy_distance(a, b)
    assert abs(found.value - expected) < 3 * found.standard_error < 0.5 * expected


@pytest.mark.parametrize(
    "distance", [distances.energy_distance, distances.squared_mmd, distances.mean_distance]
)
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_joint_distances_have_no_bias_and_the_error_they_state(generator, distance, shift):
    found = [distance(normal(generator, 40), normal(generator, 25, shift)) for _ in range(300)]
    mean, error, spread, stated = summarize(found)
    many = distance(normal(generator, 1000), normal(generator, 1000, shift))
    # A median bandwidth of few draws moves the MMD by its own chance, second order in it.
    allowed = 0.03 * many.value if shift else 0
    assert abs(mean - (many.value if shift else 0)) < 4 * np.hypot(error, many.standard_error) + (
        allowed
    )
    # 300 repeats give the spread to 4 %; the larger of two estimates is too large near 0.
    assert 0.9 < stated / spread < (1.15 if shift else 1.4)


def test_between_equal_distributions_the_error_is_that_of_second_order(generator):
    """In many dimensions, where it is known well; the jackknife alone would be √2 too large."""
    shape = (50, 2)
    found = [
        distances.energy_distance(*(normal(generator, s, shape=shape) for s in (60, 40)))
        for _ in range(300)
    ]
    *_, spread, stated = summarize(found)
    assert 0.9 < stated / spread < 1.15  # 300 repeats give the spread to 4 %


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.slow
def test_correlated_chains_neither_bias_the_energy_distance_nor_its_error(generator, shift):
    rho, found, naive = 0.7, [], []
    for _ in range(200):
        chains = correlated(generator, rho, num_draws=40, shape=SHAPE)
        effective = len(chains) * (1 - rho) / (1 + rho)
        a = JointDraws(chains, num_chains=4, num_effective=effective)
        b = normal(generator, 80, shift)
        found.append(distances.energy_distance(a, b))
        naive.append(distances.energy_distance(JointDraws(chains), b))
    mean, error, spread, stated = summarize(found)
    many = distances.energy_distance(normal(generator, 1000), normal(generator, 1000, shift))
    truth = many.value if shift else 0
    assert abs(mean - truth) < 4 * np.hypot(error, many.standard_error)
    assert 0.85 < stated / spread < 1.5
    excess = np.array([n.value - f.value for n, f in zip(naive, found, strict=True)])
    assert excess.mean() > 5 * excess.std() / np.sqrt(200)
    *_, naive_spread, naive_stated = summarize(naive)
    assert naive_stated < 0.85 * naive_spread


def test_joint_distances_see_what_marginals_do_not(generator):
    """Functions that are constant over points, or independent at every point."""
    constant = JointDraws(np.tile(generator.normal(size=(400, 1, 1)), (1, 20, 1)))
    independent = normal(generator, 400, shape=(20, 1))
    found = distances.energy_distance(constant, independent)
    assert found.value > 10 * found.standard_error
    comparison = distances.covariance_comparison(constant, independent)
    # Σ_a = 1 1ᵀ and Σ_b = I: ‖Σ_a − I‖² / ‖I‖² = (400 − 20) / 20, cosine 20 / (20 √20).
    for name, expected in (("squared_distance", 19), ("alignment", 1 / np.sqrt(20))):
        estimate = getattr(comparison, name)
        assert abs(estimate.value - expected) < 3 * estimate.standard_error


def test_a_single_draw_is_a_deterministic_predictor(generator):
    a, b = normal(generator, 1), normal(generator, 1)
    expected = 2 * root_mean_square(a.latent, b.latent)
    found = distances.energy_distance(a, b)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.standard_error == 0
    found = distances.squared_mmd(a, b, bandwidth=0.8)
    assert found.value == pytest.approx(2 - 2 * gaussian(a.latent, b.latent), rel=1e-12)
    found = distances.energy_distance(a, normal(generator, 400))
    truth = distances.energy_distance(a, normal(generator, 1000))
    error = np.hypot(found.standard_error, truth.standard_error)
    assert 0 < abs(found.value - truth.value) < 3 * error


def test_gram_matrices_are_sums_over_blocks_of_points(generator, monkeypatch):
    a, b = normal(generator, 12, shift=100.0), normal(generator, 9, shift=100.3)
    whole = distances.energy_distance(a, b)
    monkeypatch.setattr("ntkbayes.evaluation.distances.draws.BLOCK", 2 * 21 * 2)
    split = distances.energy_distance(a, b)
    assert split.value == pytest.approx(whole.value, rel=1e-10)
    single = [JointDraws(draws.latent.astype(np.float32)) for draws in (a, b)]
    # Draws rounded at 100 in single precision are off by 4e-6.
    assert distances.energy_distance(*single).value == pytest.approx(whole.value, abs=1e-5)


def test_memory_of_many_points_is_a_few_blocks_and_kernel_matrices(generator):
    latent = generator.standard_normal((200, 25_000, 4), dtype=np.float32)
    a, b = JointDraws(latent[:100]), JointDraws(latent[100:])
    tracemalloc.start()
    distances.energy_distance(a, b)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The draws are 80 MB, and would be 160 MB in double precision; a block is 32 MB.
    assert peak < 120e6


def test_logits_are_compared_up_to_a_number_added_to_all(generator):
    logits = generator.normal(size=(40, 6, 3))
    moved = logits + 5 * generator.normal(size=(40, 6, 1))
    found, expected = (
        distances.joint_draws(predictions(latent, 1)).latent for latent in (moved, logits)
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found, logits - logits.mean(axis=-1, keepdims=True), atol=1e-12)


def test_single_logits_and_regressions_are_compared_as_they_are(generator):
    latent = generator.normal(size=(40, 6, 1))
    np.testing.assert_array_equal(distances.joint_draws(predictions(latent, 1)).latent, latent)
    latent = generator.normal(size=(40, 6, 2))
    tree = predictions(latent, 1, task="regression")
    np.testing.assert_array_equal(distances.joint_draws(tree).latent, latent)


def test_evenly_spaced_draws_of_every_chain_are_kept():
    latent = np.arange(24.0).reshape(24, 1, 1)
    kept = distances.joint_draws(predictions(latent, 2, task="regression"), max_draws=9)
    assert kept.num_chains == 2
    np.testing.assert_array_equal(kept.latent.ravel(), [0, 4, 7, 11, 12, 16, 19, 23])
    everything = distances.joint_draws(predictions(latent, 2, task="regression"))
    np.testing.assert_array_equal(everything.latent, latent)


def test_the_effective_number_is_that_of_the_mean_vector(generator):
    """Two coordinates: one that varies a hundred times as much, and hardly moves."""
    slow = 10 * correlated(generator, 0.9, num_draws=2000, shape=(1, 1))
    fast = correlated(generator, 0.0, num_draws=2000, shape=(1, 1))
    draws = np.concatenate([slow, fast], axis=1)
    tree = predictions(draws, 4, task="regression")
    found = distances.joint_draws(tree, max_draws=8000).num_effective
    assert found == pytest.approx(8000 * 0.1 / 1.9, rel=0.3)  # the ESS itself is estimated
    independent = predictions(fast, 1, task="regression")
    assert distances.joint_draws(independent, max_draws=8000).num_effective == 8000


def test_draws_that_do_not_fit_are_refused(generator):
    a, b = normal(generator, 50), normal(generator, 50, shape=(4, 2))
    for distance in (distances.energy_distance, distances.covariance_comparison):
        with pytest.raises(ValueError, match=r"same points and outputs.*\(50, 5, 2\) and \(50, 4"):
            distance(a, b)
    with pytest.raises(ValueError, match=r"a, b and where must be at the same points"):
        distances.variance_ratio(a, a, np.array([True, False]))
    with pytest.raises(ValueError, match=r"where must mark some of the points, but marks none of"):
        distances.variance_ratio(a, a, np.zeros(5, dtype=bool))
    far = np.arange(5) > 2
    with pytest.raises(ValueError, match="a single draw has no variance"):
        distances.variance_ratio(a, normal(generator, 1), far)
    with pytest.raises(ValueError, match="b does not vary at these points"):
        distances.variance_ratio(a, JointDraws(np.zeros((3, *SHAPE))), far)
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        distances.squared_mmd(a, a, bandwidth=0)
    with pytest.raises(ValueError, match="pass a bandwidth"):
        distances.squared_mmd(JointDraws(np.ones((9, *SHAPE))), JointDraws(np.ones((9, *SHAPE))))


@pytest.mark.parametrize(
    ("latent", "settings", "message"),
    [
        (np.zeros((3, 4)), {}, r"latent must have shape \(s, m, c\), but has \(3, 4\)"),
        (np.full((3, 4, 1), np.nan), {}, "latent must be finite"),
        (np.zeros((3, 4, 1)), {"num_chains": 2}, "chains of equal length, but has 3 draws of 2"),
        (np.zeros((3, 4, 1)), {"num_chains": 0}, "num_chains must be at least 1"),
        (np.zeros((3, 4, 1)), {"num_effective": 0.0}, "num_effective must be positive"),
    ],
)
def test_impossible_draws_are_refused(latent, settings, message):
    with pytest.raises(ValueError, match=message):
        JointDraws(latent, **settings)


def test_fewer_draws_than_chains_are_refused(generator):
    tree = predictions(generator.normal(size=(8, 3, 1)), 4)
    with pytest.raises(ValueError, match="max_draws must be at least 4, but is 3"):
        distances.joint_draws(tree, max_draws=3)
