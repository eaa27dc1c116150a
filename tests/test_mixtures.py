"""The predictive distribution of draws and noise against integration, sampling and closed forms."""

import tracemalloc

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import scoringrules

from ntkbayes.evaluation import mixtures

PROBABILITIES = (0.025, 0.25, 0.5, 0.95)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def mixture(generator):
    """Five components at three points with two outputs, narrower and wider than their spread."""
    return generator.normal(size=(5, 3, 2)), np.array([[0.01, 0.1], [0.3, 1.0], [4.0, 0.05]])


def density(means, variance):
    return lambda x: scipy.stats.norm.pdf(x, means, np.sqrt(variance)).mean()


def cdf(means, variance):
    return lambda x: scipy.stats.norm.cdf(x, means, np.sqrt(variance)).mean()


def columns(means, variance):
    """The components (s,) and the variance of every point and output."""
    return [(i, means[:, *i], variance[i]) for i in np.ndindex(variance.shape)]


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_quantiles_invert_the_integral_of_the_density(mixture, probability):
    found = mixtures.quantile(*mixture, probability)
    for i, means, variance in columns(*mixture):
        below = means.min() - 40 * np.sqrt(variance)
        mass, _ = scipy.integrate.quad(
            density(means, variance), below, found[i], points=np.sort(means), limit=400
        )
        assert mass == pytest.approx(probability, abs=1e-8)  # quad's own tolerance


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_quantiles_are_those_of_many_samples(mixture, probability, generator):
    found, num_samples = mixtures.quantile(*mixture, probability), 200_000
    for i, means, variance in columns(*mixture):
        members = generator.choice(means, num_samples)
        samples = members + np.sqrt(variance) * generator.normal(size=num_samples)
        # The asymptotic standard error of a quantile, √(p (1 − p) / N) over the density there.
        error = np.sqrt(probability * (1 - probability) / num_samples)
        error /= density(means, variance)(found[i])
        assert abs(np.quantile(samples, probability) - found[i]) < 5 * error


def test_one_component_is_the_normal_in_closed_form(generator):
    mean, y = generator.normal(size=(2, 7, 2))
    variance = generator.uniform(1e-4, 9, (7, 2))
    normal, one = scipy.stats.norm(mean, np.sqrt(variance)), (mean[None], variance)
    exact = {"rtol": 0, "atol": 1e-10}
    for level in (0.5, 0.95, 0.999):
        ends = mixtures.central_interval(*one, level)
        np.testing.assert_allclose(ends, normal.interval(level), **exact)
    expected = np.abs(normal.cdf(y) - normal.sf(y))
    np.testing.assert_allclose(mixtures.central_level(*one, y), expected, **exact)
    expected = scoringrules.crps_normal(y, mean, np.sqrt(variance))
    np.testing.assert_allclose(mixtures.crps(*one, y), expected, **exact)
    np.testing.assert_allclose(mixtures.log_density(*one, y)[0], normal.logpdf(y), rtol=1e-12)


def test_crps_is_the_integral_of_the_squared_difference_of_distribution_functions(mixture):
    y = np.array([[0.2, -1.0], [30.0, 0.0], [-0.4, 0.7]])
    found = mixtures.crps(*mixture, y)
    for i, means, variance in columns(*mixture):
        F, reach = cdf(means, variance), 12 * np.sqrt(variance)
        ends = min(means.min(), y[i]) - reach, max(means.max(), y[i]) + reach
        settings = {"points": np.sort(means), "limit": 400, "epsabs": 1e-11}
        below, _ = scipy.integrate.quad(lambda x, F=F: F(x) ** 2, ends[0], y[i], **settings)
        above, _ = scipy.integrate.quad(lambda x, F=F: (F(x) - 1) ** 2, y[i], ends[1], **settings)
        assert found[i] == pytest.approx(below + above, abs=1e-8)


@pytest.mark.parametrize("spread", [0.0, 0.3, 5.0, 1000.0])
def test_crps_is_the_double_sum_over_components(generator, spread):
    means, y = spread * generator.normal(size=(200, 4, 1)), generator.normal(size=(4, 1))
    variance = np.full((4, 1), 0.7)
    scales = np.broadcast_to(np.sqrt(variance), means.shape)
    expected = scoringrules.crps_mixnorm(y, means, scales, m_axis=0)
    np.testing.assert_allclose(mixtures.crps(means, variance, y), expected, rtol=1e-11)


def crps_by_pairs(f, variance, y):
    """E|Y − y| − ½ E|Y − Y′| of one mixture, pair by pair, in extended precision."""
    f = f.astype(np.longdouble)

    def mean_absolute(m, v):
        z = (m / np.sqrt(v)).astype(float)
        normal = scipy.stats.norm
        return m * (2 * normal.cdf(z) - 1) + 2 * np.sqrt(v) * normal.pdf(z)

    pairs = mean_absolute(f[:, None] - f[None], np.longdouble(2 * variance))
    return float(mean_absolute(y - f, np.longdouble(variance)).mean() - pairs.mean() / 2)


@pytest.mark.parametrize("outlier", [None, 1e3, 1e6, 1e8, -1e15])
@pytest.mark.parametrize("num_draws", [1, 2, 17, 200])
def test_crps_is_that_of_all_pairs_wherever_draws_lie(generator, num_draws, outlier):
    spread = 10.0 ** np.array([-8, -0.5, 0.5, 2, 8])
    means = np.repeat(spread * generator.normal(size=(num_draws, 5)), 2, axis=0)  # duplicates
    if outlier is not None:
        means[0] = outlier
    for variance in (1e-30, 1e-4, 1.0, 1e10, np.array([1e-30, 1e20, 1e-6, 1.0, 1e-2])):
        variances, y = np.broadcast_to(variance, 5).astype(float), generator.normal(size=5)
        found = mixtures.crps(means[:, None], variances[None], y[None])[0]
        for i in range(5):
            expected = crps_by_pairs(means[:, i], variances[i], y[i])
            # Both terms are of this size, and their difference is known to its rounding.
            size = np.abs(means[:, i] - y[i]).mean() + np.sqrt(variances[i])
            assert abs(found[i] - expected) < 1e-12 * size


def test_one_far_draw_costs_no_more_memory_than_a_near_one(generator):
    means = generator.normal(size=(300, 1, 1))
    peaks = []
    for far in (0.0, 1e6, 1e12):
        means[0] = far
        tracemalloc.start()
        mixtures.crps(means, np.full((1, 1), 0.01), np.zeros((1, 1)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 1.5 * peaks[0]


def test_few_draws_raise_the_expected_crps_by_the_stated_amount(generator):
    num_draws, variance, noise, y = 5, 0.5, 0.3, np.full((4000, 1), 0.4)
    draws = np.sqrt(variance) * generator.normal(size=(num_draws, *y.shape))
    scores = mixtures.crps(draws, np.full(y.shape, noise), y)
    excess = (np.sqrt(variance + noise) - np.sqrt(noise)) / (num_draws * np.sqrt(np.pi))
    expected = scoringrules.crps_normal(0.4, 0.0, np.sqrt(variance + noise)) + excess
    assert abs(scores.mean() - expected) < 5 * scores.std() / np.sqrt(y.size)
    assert excess > 10 * scores.std() / np.sqrt(y.size)


def test_the_central_level_is_that_of_the_interval_that_ends_at_the_observation(mixture):
    for level in (0.1, 0.5, 0.99):
        for end in mixtures.central_interval(*mixture, level):
            np.testing.assert_allclose(mixtures.central_level(*mixture, end), level, rtol=1e-10)


def test_far_clusters_of_draws_leave_intervals_that_reach_both():
    means, variance = np.array([-1e4, 1e4, 1e4]).reshape(3, 1, 1), np.ones((1, 1))
    lower, upper = mixtures.central_interval(means, variance, 0.9)
    # P(Y < lower) = ⅓ Φ(lower + 10⁴) and P(Y > upper) = ⅔ Φ(10⁴ − upper).
    assert lower.item() == pytest.approx(-1e4 + scipy.stats.norm.ppf(0.15), rel=1e-12)
    assert upper.item() == pytest.approx(1e4 - scipy.stats.norm.ppf(0.075), rel=1e-12)


def test_quantiles_of_tiny_noise_are_those_of_the_draws():
    means, variance = np.array([3.0, 1e6, 1e6 + 1]).reshape(3, 1, 1), np.full((1, 1), 1e-30)
    found = [mixtures.quantile(means, variance, p).item() for p in (0.1, 0.5, 0.9)]
    assert found == pytest.approx([3, 1e6, 1e6 + 1], rel=1e-12)
    same = np.full((4, 1, 1), 1e9)
    assert mixtures.quantile(same, variance, 0.9).item() == pytest.approx(1e9, rel=1e-15)


def test_memory_is_a_few_copies_of_the_draws(generator):
    means, variance = generator.normal(size=(4000, 50, 1)), np.full((50, 1), 0.1)
    tracemalloc.start()
    mixtures.central_interval(means, variance, 0.95)
    mixtures.crps(means, variance, np.zeros((50, 1)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 4,000 draws at 500 points, ten times these, then stay below 500 MB.
    assert peak < 50e6


def test_impossible_requests_are_refused(mixture):
    with pytest.raises(ValueError, match=r"probability must lie between 0 and 1, but is 1\.0"):
        mixtures.quantile(*mixture, 1.0)
    one = np.ones((1, 1))
    for function in (mixtures.crps, mixtures.pit, mixtures.central_level, mixtures.log_density):
        with pytest.raises(ValueError, match="variance must be positive, but holds 0"):
            function(one[None], 0 * one, one)
        with pytest.raises(ValueError, match="y must be finite"):
            function(one[None], one, np.nan * one)
    with pytest.raises(ValueError, match="means must be finite"):
        mixtures.quantile(np.full((2, 1, 1), np.nan), np.ones((1, 1)), 0.5)


# Components of different widths


@pytest.fixture
def widths(generator):
    """Four components of widths that differ by 50, some of them far from the others."""
    return 3 * generator.normal(size=(4, 3, 2)), np.exp(generator.uniform(-4, 4, size=(4, 3, 2)))


def each(means, variance):
    return [(i, means[:, *i], np.sqrt(variance[:, *i])) for i in np.ndindex(means.shape[1:])]


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_quantiles_of_different_widths_invert_the_mean_distribution_function(widths, probability):
    found = mixtures.quantile(*widths, probability)
    for i, means, scales in each(*widths):
        assert scipy.stats.norm.cdf(found[i], means, scales).mean() == pytest.approx(
            probability, abs=1e-11
        )


def test_scores_of_different_widths_are_their_definitions(widths, generator):
    y = 3 * generator.normal(size=(3, 2))
    crps, pit, log_density = (
        function(*widths, y) for function in (mixtures.crps, mixtures.pit, mixtures.log_density)
    )
    mean, variance = mixtures.moments(*widths)
    for i, means, scales in each(*widths):

        def squared(x, means=means, scales=scales, target=y[i]):
            return (scipy.stats.norm.cdf(x, means, scales).mean() - (x >= target)) ** 2

        ends = [np.min(means - 10 * scales), np.max(means + 10 * scales)]
        points = np.sort([*means, y[i]])
        low, high = min(ends[0], y[i]), max(ends[1], y[i])
        expected, _ = scipy.integrate.quad(squared, low, high, points=points, limit=800)
        assert crps[i] == pytest.approx(expected, rel=1e-7)
        assert pit[i] == pytest.approx(scipy.stats.norm.cdf(y[i], means, scales).mean(), abs=1e-14)
        np.testing.assert_allclose(
            log_density[:, *i], scipy.stats.norm.logpdf(y[i], means, scales), rtol=1e-12
        )
        samples = generator.choice(len(means), 400_000)
        samples = means[samples] + scales[samples] * generator.normal(size=400_000)
        assert mean[i] == pytest.approx(samples.mean(), abs=5 * samples.std() / 632)
        assert variance[i] == pytest.approx(samples.var(), rel=0.02)


@pytest.mark.parametrize("function", ["crps", "pit", "quantile"])
def test_equal_widths_given_one_by_one_are_one_width(mixture, function, generator):
    means, variance = mixture
    last = 0.4 if function == "quantile" else generator.normal(size=(3, 2))
    found, expected = (
        getattr(mixtures, function)(means, v, last)
        for v in (np.broadcast_to(variance, means.shape).copy(), variance)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    nearly = np.broadcast_to(variance, means.shape) * (1 + 1e-12 * np.arange(5)[:, None, None])
    found = getattr(mixtures, function)(means, nearly, last)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
