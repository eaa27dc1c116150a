"""Scores and calibration of regressions, and joint likelihoods, against published values."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
import scoringrules

from ntkbayes.evaluation import metrics, mixtures
from ntkbayes.evaluation.metrics.resampling import error_quantile, two_sided_p_value

M, C, S = 60, 2, 25

UNCERTAINTY_TOOLBOX = {
    0.5: (0.19429, 0.21753, 0.19625),
    2.0: (0.20692, 0.23003, 0.20901),
    1.0: (0.00862, 0.01040, 0.00865),
}
"""Factor of the standard deviations: mean absolute and RMS calibration error, miscalibration area.

From the table in the README of Uncertainty Toolbox (Chung et al. 2021), for 650 points and seed 11.
"""


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def uniform():
    return metrics.uniform_weights(M)


@pytest.fixture(scope="module")
def sine():
    """Mean, standard deviation and observation of the heteroscedastic sine of that table."""
    x = np.linspace(0, 15, 650)
    deviation = 0.01 + np.abs(x - 5) / 10
    noise = deviation * np.random.RandomState(11).normal(size=650)
    return np.sin(x)[:, None], deviation[:, None], (np.sin(x) + noise)[:, None]


def sine_pit(sine, factor):
    mean, deviation, y = sine
    return mixtures.pit(mean[None], (factor * deviation) ** 2, y)


def repeated(weights):
    """Points as often as a row of bootstrap weights has them."""
    return np.repeat(np.arange(len(weights)), np.round(weights * len(weights)).astype(int))


def test_interval_score_is_that_of_scoringrules(generator, uniform):
    y, ends = 3 * generator.normal(size=(M, C)), generator.normal(size=(2, M, C))
    lower, upper = np.sort(ends, axis=0)
    assert np.any(y < lower)
    assert np.any(y > upper)
    for level in (0.5, 0.9):
        expected = scoringrules.interval_score(y, lower, upper, 1 - level).mean()
        found = metrics.interval_score(lower, upper, y, level, uniform)
        assert found == pytest.approx(expected, rel=1e-12)


def test_no_interval_scores_better_than_the_true_quantiles(generator):
    y, weights = generator.normal(size=(20_000, 1)), metrics.uniform_weights(20_000)
    z = scipy.stats.norm.ppf(0.95)
    scores = {
        factor: metrics.interval_score(0 * y - factor * z, 0 * y + factor * z, y, 0.9, weights)
        for factor in (0.8, 1.0, 1.25)
    }
    # ∫ of the fine: width 2 z and 2 (φ(z) − z (1 − Φ(z))) / (α / 2) for the two tails together.
    expected = 2 * z + 2 / 0.1 * 2 * (scipy.stats.norm.pdf(z) - z * 0.05)
    assert scores[1.0] == pytest.approx(expected, rel=0.02)  # standard error 0.6 %
    assert scores[1.0] < min(scores[0.8], scores[1.25])


def test_sharpness_is_the_root_of_the_mean_variance_of_the_mixture(generator, uniform):
    means, variance = generator.normal(size=(S, M, C)), generator.uniform(0.1, 1, (M, C))
    total = 0.0
    for i, k in np.ndindex(M, C):
        second = np.mean(means[:, i, k] ** 2 + variance[i, k])
        total += (second - means[:, i, k].mean() ** 2) / (M * C)
    assert metrics.sharpness(means, variance, uniform) == pytest.approx(np.sqrt(total))


def test_crps_of_draws_is_the_fair_one_of_scoringrules(generator, uniform):
    draws, y = generator.normal(size=(S, M, C)), generator.normal(size=(M, C))
    expected = scoringrules.crps_ensemble(y, draws, m_axis=0, estimator="fair").mean()
    assert metrics.draws_crps(draws, y, uniform) == pytest.approx(expected, rel=1e-12)
    pairs = itertools.combinations(draws, 2)
    spread = np.mean([np.abs(a - b) for a, b in pairs]) / 2
    assert metrics.draws_crps(draws, y, uniform) == pytest.approx(np.abs(draws - y).mean() - spread)


def test_crps_of_two_draws_is_on_average_that_of_the_distribution(generator):
    draws, y = generator.normal(size=(2, 40_000, 1)), np.full((40_000, 1), 0.4)
    weights = metrics.uniform_weights(40_000)
    distance, spread = np.abs(draws - y).mean(axis=0), np.abs(draws[0] - draws[1]) / 2
    error = (distance - spread).std() / np.sqrt(len(y))
    expected = scoringrules.crps_normal(0.4, 0.0, 1.0)
    assert abs(metrics.draws_crps(draws, y, weights) - expected) < 4 * error


def test_pit_is_the_distribution_function_of_the_mixture_at_the_observation(generator):
    means, variance = generator.normal(size=(S, M, C)), generator.uniform(0.1, 1, (M, C))
    y = generator.normal(size=(M, C))
    expected = scipy.stats.norm.cdf(y, means, np.sqrt(variance)).mean(axis=0)
    np.testing.assert_allclose(mixtures.pit(means, variance, y), expected, rtol=1e-12)


@pytest.mark.parametrize("factor", UNCERTAINTY_TOOLBOX)
def test_calibration_errors_are_those_published_with_uncertainty_toolbox(sine, factor):
    pit, weights = sine_pit(sine, factor), metrics.uniform_weights(650)
    found = [
        metrics.mean_absolute_calibration_error(pit, weights),
        metrics.rms_calibration_error(pit, weights),
        metrics.miscalibration_area(pit, weights),
    ]
    np.testing.assert_allclose(found, UNCERTAINTY_TOOLBOX[factor], atol=5e-6)  # five decimals


def test_observed_proportions_are_the_coverage_of_each_level(generator, uniform):
    pit = generator.uniform(size=(M, C)) ** 2
    found = metrics.observed_proportions(pit, uniform, num_levels=11)
    central_level = np.abs(2 * pit - 1)
    expected = [metrics.coverage(central_level, k / 10, uniform) for k in range(11)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_miscalibration_area_splits_where_the_curve_crosses_the_diagonal(generator, uniform):
    pit = 0.2 + 0.6 * generator.uniform(size=(M, C))
    pit[:20] = generator.uniform(size=(20, C)) ** 4
    p, curve = np.linspace(0, 1, 100), metrics.observed_proportions(pit, uniform)
    fine = np.linspace(0, 1, 2_000_001)
    gap = np.interp(fine, p, curve) - fine
    assert np.ptp(np.sign(gap[1:-1])) == 2
    found = metrics.miscalibration_area(pit, uniform)
    assert found == pytest.approx(np.trapezoid(np.abs(gap), fine), rel=1e-6)


def test_kolmogorov_smirnov_statistic_is_that_of_scipy(generator, uniform):
    pit = generator.uniform(size=(M, C)) ** 1.3
    expected = scipy.stats.kstest(pit.ravel(), "uniform").statistic
    assert metrics.pit_kolmogorov_smirnov(pit, uniform) == pytest.approx(expected, rel=1e-12)
    expected = scipy.stats.kstest(1 - pit.ravel(), "uniform").statistic
    assert metrics.pit_kolmogorov_smirnov(1 - pit, uniform) == pytest.approx(expected, rel=1e-12)


def test_only_the_kolmogorov_smirnov_statistic_sees_a_bias_that_cancels_between_tails(generator):
    central, weights = generator.uniform(size=(4000, 1)), metrics.uniform_weights(4000)
    always_above = 0.5 + central / 2
    # Means for uniform values; their standard deviations are below half of them.
    error = metrics.mean_absolute_calibration_error(always_above, weights)
    assert error < 3 * 0.31 / np.sqrt(4000)
    assert metrics.pit_kolmogorov_smirnov(always_above, weights) == pytest.approx(0.5, abs=0.01)


def test_chance_gives_calibrated_predictors_the_errors_that_are_stated(generator):
    m, num_repeats = 500, 400
    weights, found = metrics.uniform_weights(m), []
    for _ in range(num_repeats):
        pit = generator.uniform(size=(m, 1))
        mace = metrics.mean_absolute_calibration_error(pit, weights)
        found.append((mace, metrics.pit_kolmogorov_smirnov(pit, weights)))
    scaled = np.sqrt(m) * np.array(found)
    error = scaled.std(axis=0) / np.sqrt(num_repeats)
    # The limits √(2/π) π/8 and √(π/2) log 2 are approached as 1/√m (KS) and 1/K.
    assert np.all(np.abs(scaled.mean(axis=0) - (0.313, 0.869)) < 4 * error + (0.005, 0.02))


def test_every_metric_of_weighted_points_is_that_of_repeated_points(generator):
    weights = metrics.bootstrap_weights(M, num_resamples=4)
    draws, y = generator.normal(size=(S, M, C)), generator.normal(size=(M, C))
    variance = generator.uniform(0.1, 1, (M, C))
    pit = np.round(mixtures.pit(draws, variance, y), 2)  # with ties
    cases = [
        (metrics.draws_crps, lambda i: (draws[:, i], y[i])),
        (metrics.sharpness, lambda i: (draws[:, i], variance[i])),
        (metrics.interval_score, lambda i: (y[i] - 1, y[i] + 1, draws[0, i], 0.8)),
        (metrics.mean_absolute_calibration_error, lambda i: (pit[i],)),
        (metrics.rms_calibration_error, lambda i: (pit[i],)),
        (metrics.miscalibration_area, lambda i: (pit[i],)),
        (metrics.pit_kolmogorov_smirnov, lambda i: (pit[i],)),
    ]
    uniform = metrics.uniform_weights(M)
    for metric, arguments in cases:
        found = metric(*arguments(slice(None)), weights)
        expected = [metric(*arguments(repeated(row)), uniform) for row in weights]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_many_resamples_are_taken_in_chunks(generator, monkeypatch):
    pit, weights = generator.uniform(size=(M, C)), metrics.bootstrap_weights(M, num_resamples=10)
    expected = metrics.pit_kolmogorov_smirnov(pit, weights)
    monkeypatch.setattr("ntkbayes.evaluation.metrics.quantile_calibration.CHUNK", 3 * M * C)
    np.testing.assert_array_equal(metrics.pit_kolmogorov_smirnov(pit, weights), expected)


def test_single_precision_draws_are_scored_in_double(generator, uniform):
    draws, y = generator.normal(size=(S, M, C)) + 1e3, generator.normal(size=(M, C)) + 1e3
    single = draws.astype(np.float32), y.astype(np.float32)
    double = tuple(array.astype(float) for array in single)
    assert metrics.draws_crps(*single, uniform) == metrics.draws_crps(*double, uniform)
    noise = np.full((M, C), 0.1)
    found = metrics.sharpness(single[0], noise.astype(np.float32), uniform)
    assert found == pytest.approx(float(metrics.sharpness(double[0], noise, uniform)), rel=1e-7)


def test_impossible_intervals_draws_and_levels_are_refused(generator, uniform):
    y = generator.normal(size=(M, C))
    with pytest.raises(ValueError, match=r"level must lie between 0 and 1, but is 1\.0"):
        metrics.interval_score(y, y, y, 1.0, uniform)
    with pytest.raises(ValueError, match="lower must not exceed upper"):
        metrics.interval_score(y + 1, y, y, 0.9, uniform)
    with pytest.raises(ValueError, match="number of draws must be at least 2, but is 1"):
        metrics.draws_crps(y[None], y, uniform)
    for metric in (metrics.pit_kolmogorov_smirnov, metrics.miscalibration_area):
        with pytest.raises(ValueError, match=r"pit must lie between 0 and 1, but ranges from"):
            metric(y, uniform)
        with pytest.raises(ValueError, match=r"pit must lie between 0 and 1"):
            metric(np.full((M, C), np.nan), uniform)
    with pytest.raises(ValueError, match="num_levels must be at least 2"):
        metrics.observed_proportions(np.full((M, C), 0.5), uniform, num_levels=1)


# Joint likelihoods.


@pytest.fixture
def log_likelihood(generator):
    return -generator.exponential(size=(S, M))


def test_joint_nll_is_the_mean_over_batches_of_the_log_of_the_mean_product(log_likelihood, uniform):
    points, expected = np.random.default_rng(3).permutation(M), []
    for start in range(0, 56, 7):  # 8 batches of 7; four points are left out
        batch = points[start : start + 7]
        products = [np.prod([np.exp(row[i]) for i in batch]) for row in log_likelihood]
        expected.append(-np.log(np.mean(products)) / 7)
    settings = {"batch_size": 7, "seed": 3}
    found = metrics.batch_joint_nll(log_likelihood, **settings)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    mean = metrics.joint_nll(log_likelihood, uniform, **settings)
    assert mean == pytest.approx(np.mean(expected), rel=1e-12)


def test_joint_nll_of_single_points_is_the_pointwise_one(log_likelihood, uniform):
    weights = metrics.bootstrap_weights(M, num_resamples=5)
    pointwise = metrics.mixture_nll(log_likelihood, uniform)
    assert metrics.joint_nll(log_likelihood, uniform, batch_size=1) == pytest.approx(pointwise)
    found = metrics.joint_nll(log_likelihood, weights, batch_size=1) - pointwise
    expected = metrics.mixture_nll(log_likelihood, weights) - pointwise
    np.testing.assert_allclose(found, expected * np.sqrt(M / (M - 1)), rtol=1e-9)


def test_joint_nll_tells_methods_apart_that_agree_at_every_point(generator):
    """All points share a coin, or each has its own: P(y = 1) = ½ everywhere for both."""
    shared = np.array([0.1, 0.9])[:, None] * np.ones((2, 40))
    mixed = np.where(np.arange(40) % 2, shared, shared[::-1])
    weights, y = metrics.uniform_weights(40), np.ones(40)
    nll = {}
    for name, p in (("shared", shared), ("mixed", mixed)):
        log_p = np.log(np.where(y, p, 1 - p))
        assert metrics.mixture_nll(log_p, weights) == pytest.approx(np.log(2))
        nll[name] = metrics.joint_nll(log_p, weights)
    expected = -np.log((0.9**10 + 0.1**10) / 2) / 10
    assert nll["shared"] == pytest.approx(expected)
    assert nll["mixed"] > 2 * nll["shared"]


def test_joint_nll_of_a_linear_gaussian_model_is_the_joint_normal_density(generator):
    """f(x) = θ x with θ ~ N(0, 1) and noise 0.5: y is normal with covariance x xᵀ + 0.5 I."""
    x, num_draws = generator.normal(size=20), 100_000
    y = 0.7 * x + np.sqrt(0.5) * generator.normal(size=20)
    draws = generator.normal(size=(num_draws, 1)) * x
    log_p = scipy.stats.norm.logpdf(y, draws, np.sqrt(0.5))
    found = metrics.batch_joint_nll(log_p, batch_size=10)
    batches = np.random.default_rng(0).permutation(20).reshape(2, 10)
    for value, batch in zip(found, batches, strict=True):
        p = np.exp(log_p[:, batch].sum(axis=1))
        draws_used = p.sum() ** 2 / np.sum(p**2)
        covariance = np.outer(x[batch], x[batch]) + 0.5 * np.eye(10)
        expected = -scipy.stats.multivariate_normal.logpdf(y[batch], cov=covariance) / 10
        error = np.sqrt(1 / draws_used - 1 / num_draws) / 10
        assert abs(value - expected) < 4 * error
        assert error < 0.01 * abs(expected)


def test_bootstrap_error_of_the_joint_nll_is_that_of_a_mean_of_independent_batches(generator):
    log_likelihood = -generator.exponential(size=(30, 619))  # 30 batches; 19 points are left out
    values = metrics.batch_joint_nll(log_likelihood, batch_size=20)
    weights = metrics.bootstrap_weights(619, num_resamples=4000)
    found = metrics.joint_nll(log_likelihood, weights, batch_size=20).std()
    # 4,000 resamples give the deviation to 1/√8000 = 1.1 %.
    assert found == pytest.approx(values.std(ddof=1) / np.sqrt(30), rel=0.05)


@pytest.mark.parametrize("num_batches", [2, 4, 20])
def test_the_squared_error_of_the_joint_nll_is_without_bias_however_few_batches(num_batches):
    """Batches of single draws: the variance of a mean of k values is known."""
    generator = np.random.default_rng(3)
    weights = metrics.bootstrap_weights(10 * num_batches, num_resamples=200)
    squared = [
        metrics.joint_nll(generator.normal(size=(1, 10 * num_batches)), weights).var(ddof=1)
        for _ in range(400)
    ]
    # Ten partitions leave the variance of one batch's mean 1/10 a relative error of 0.5 or less.
    assert np.mean(squared) == pytest.approx(1 / (10 * num_batches), rel=4 * 0.5 / np.sqrt(400))


@pytest.mark.parametrize("num_points", [20, 50, 200])
def test_intervals_of_the_joint_nll_hold_the_value_of_the_population(num_points):
    generator = np.random.default_rng(0)
    shared = 0.7 * generator.normal(size=(200, 1))
    latent = shared + 0.5 * generator.normal(size=(200, 20_000))
    log_likelihood = -np.logaddexp(
        0, np.where(generator.uniform(size=20_000) < 0.6, -latent, latent)
    )
    truth = metrics.joint_nll(log_likelihood, metrics.uniform_weights(20_000))
    weights = metrics.bootstrap_weights(num_points, num_resamples=200)
    weights = np.concatenate([metrics.uniform_weights(num_points)[None], weights])
    hits = []
    for _ in range(200):
        chosen = generator.integers(0, 20_000, num_points)
        value, *resampled = metrics.joint_nll(log_likelihood[:, chosen], weights)
        half = error_quantile(num_points // 10) * np.std(resampled, ddof=1)
        hits.append(abs(value - truth) <= half)
    assert np.mean(hits) > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200)


def test_of_a_single_batch_nothing_is_known_but_its_value():
    log_likelihood = -np.random.default_rng(0).exponential(size=(30, 15))
    values = metrics.joint_nll(log_likelihood, metrics.bootstrap_weights(15, num_resamples=5))
    assert np.isnan(values).all()
    (expected,) = metrics.batch_joint_nll(log_likelihood)
    assert metrics.joint_nll(log_likelihood, metrics.uniform_weights(15)) == expected


def test_intervals_of_few_units_are_those_of_student():
    assert error_quantile(10) == pytest.approx(2.2622, abs=1e-4)  # tables of Student's t, 9 d.f.
    assert error_quantile(1e9) == pytest.approx(1.95996, abs=1e-5)
    assert two_sided_p_value(2.2622, 1.0, 10) == pytest.approx(0.05, abs=1e-5)
    assert np.isnan([error_quantile(1), two_sided_p_value(0.3, np.nan, 1)]).all()
    assert np.isnan(two_sided_p_value(0.3, 0.0, 5))
    assert two_sided_p_value(0.0, 0.0, 5) == 1


def length(deviations):
    return float(np.linalg.norm(deviations))


def latent_normals(generator, num_points, noise):
    """A function of covariance exp(−(x − x′)²), seen with noise; ten other points are known."""
    x = np.concatenate(
        [np.sort(generator.uniform(-3, 3, num_points)), generator.uniform(-3, 3, 10)]
    )
    k = np.exp(-((x[:, None] - x) ** 2)) + 1e-9 * np.eye(len(x))
    y = np.linalg.cholesky(k) @ generator.normal(size=len(x)) + noise * generator.normal(
        size=len(x)
    )
    known = slice(num_points, None)
    gain = np.linalg.solve(k[known, known] + noise**2 * np.eye(10), k[known, :num_points]).T
    covariance = k[:num_points, :num_points] - gain @ k[known, :num_points]
    return gain @ y[known], covariance, y[:num_points]


def joint_density(mean, covariance, noise, y):
    """The joint NLL of ten points at a time, by the formula."""
    batches = np.random.default_rng(0).permutation(len(y))[: len(y) // 10 * 10].reshape(-1, 10)
    noisy = covariance + noise**2 * np.eye(len(y))
    return np.mean(
        [
            -scipy.stats.multivariate_normal.logpdf(y[b], mean[b], noisy[np.ix_(b, b)]) / 10
            for b in batches
        ]
    )


@pytest.mark.parametrize("noise", [0.3, 0.03])
def test_errors_of_finite_draws_hold_the_joint_density(noise):
    generator, hits, known, mixtures = np.random.default_rng(0), [], [], []
    for _ in range(60):
        mean, covariance, y = latent_normals(generator, 50, noise)
        truth = joint_density(mean, covariance, noise, y)
        draws = generator.multivariate_normal(mean, covariance, 400, method="eigh")
        normal = (
            mean[:, None], np.diag(covariance)[:, None], draws[..., None],
            np.full((50, 1), noise**2), y[:, None],
        )  # fmt: skip
        found = metrics.normal_joint_nll(*normal, metrics.uniform_weights(50))
        error = length(metrics.normal_joint_nll_deviations(*normal))
        hits.append(abs(found - truth) < 1.96 * error)
        log_p = scipy.stats.norm.logpdf(y, draws, noise)
        mixture = metrics.joint_nll(log_p, metrics.uniform_weights(50))
        error = length(metrics.joint_nll_deviations(log_p))
        known.append(np.isfinite(error))
        mixtures.append(abs(mixture - truth) < 1.96 * error)
    assert np.mean(hits) > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 60)
    if noise == 0.3:
        assert np.mean(known) > 0.75
        assert np.mean(np.array(mixtures)[known]) > 0.8
    else:  # no draw is near all ten targets
        assert np.mean(known) < 0.1


def test_the_joint_density_of_exact_moments_and_many_draws_is_the_formula(generator):
    mean, covariance, y = latent_normals(generator, 35, 0.1)  # five points are left out
    draws = generator.multivariate_normal(mean, covariance, 200_000, method="eigh")
    found = metrics.normal_joint_nll(
        mean[:, None], np.diag(covariance)[:, None], draws[..., None], np.full((35, 1), 0.01),
        y[:, None], metrics.uniform_weights(35),
    )  # fmt: skip
    assert found == pytest.approx(joint_density(mean, covariance, 0.1, y), abs=0.005)


def test_the_joint_density_of_two_outputs_is_that_of_both_together(generator):
    draws = generator.normal(size=(50, 10, 2))
    mean, variance = generator.normal(size=(10, 2)), np.zeros((10, 2))
    noise, y = generator.uniform(0.5, 1, size=(10, 2)), generator.normal(size=(10, 2))
    found = metrics.normal_joint_nll(mean, variance, draws, noise, y, metrics.uniform_weights(10))
    expected = -scipy.stats.norm.logpdf(y, mean, np.sqrt(noise)).sum() / 10
    assert found == pytest.approx(expected, rel=1e-12)


def test_errors_of_finite_draws_are_the_spread_over_sets_of_draws(generator):
    """Bernoulli with a shared logit, observed as one: a draw has ten equal factors."""
    errors, values = [], []
    for _ in range(200):
        p = 1 / (1 + np.exp(-generator.normal(size=(400, 1)))) * np.ones((1, 20))
        log_p = np.log(p)
        found = metrics.joint_nll_deviations(log_p), metrics.dyadic_nll_deviations(log_p)
        errors.append([length(each) for each in found])
        weights = metrics.uniform_weights(20)
        values.append([metrics.joint_nll(log_p, weights), metrics.dyadic_nll(log_p, weights)])
    # A deviation of 200 values is known to 1/√400 = 5 %.
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(values, axis=0), rtol=0.2)


def test_equal_draws_leave_nothing_unknown_and_few_everything():
    assert length(metrics.joint_nll_deviations(np.full((40, 20), -1.0))) < 1e-12
    dominating = np.full((40, 20), -1.0) - 100 * (np.arange(40) > 0)[:, None]
    assert np.isnan(metrics.joint_nll_deviations(dominating)).all()
    assert np.isnan(metrics.dyadic_nll_deviations(dominating)).all()


def test_impossible_batches_and_draws_are_refused(log_likelihood, uniform):
    with pytest.raises(ValueError, match="batch_size must be at most the number of points 60"):
        metrics.joint_nll(log_likelihood, uniform, batch_size=61)
    with pytest.raises(ValueError, match="batch_size must be at least 1, but is 0"):
        metrics.batch_joint_nll(log_likelihood, batch_size=0)
    for error in (metrics.joint_nll_deviations, metrics.dyadic_nll_deviations):
        with pytest.raises(ValueError, match="number of draws must be at least 40, but is 30"):
            error(np.repeat(log_likelihood[:1], 30, axis=0))
    one, draws = np.ones((M, 1)), np.ones((2, M, 1))
    with pytest.raises(ValueError, match="noise_variance must be positive, but holds 0"):
        metrics.normal_joint_nll(one, one, draws, 0 * one, one, uniform)
    with pytest.raises(ValueError, match="log_likelihood must be finite"):
        metrics.joint_nll(np.full((2, M), -np.inf), uniform)


def test_ence_is_the_loop_over_bins_of_the_predicted_deviation(generator):
    mean, y = generator.normal(size=(2, 45, 2))
    variance = np.round(generator.gamma(2, size=(45, 2)), 1) + 0.1  # ties
    uniform = metrics.uniform_weights(45)
    flat, squared = variance.ravel(), ((y - mean) ** 2).ravel()
    at_most = (flat[:, None] >= flat).mean(axis=1)  # share of points, ties all in the upper fifth
    gaps = []
    for fifth in np.arange(5) / 5:
        inside = (at_most > fifth + 1e-9) & (at_most <= fifth + 0.2 + 1e-9)
        predicted, found = np.sqrt(flat[inside].mean()), np.sqrt(squared[inside].mean())
        gaps.append(abs(predicted - found) / predicted)
    value = metrics.ence(mean, variance, y, uniform, num_bins=5)
    assert value == pytest.approx(np.mean(gaps), rel=1e-10)


def test_ence_of_a_calibrated_predictor_is_what_its_docstring_says_chance_adds(generator):
    variance = generator.gamma(2, size=(5000, 1))
    values = [
        metrics.ence(
            np.zeros((5000, 1)),
            variance,
            np.sqrt(variance) * generator.normal(size=(5000, 1)),
            metrics.uniform_weights(5000),
        )
        for _ in range(50)
    ]
    assert np.mean(values) == pytest.approx(0.56 * np.sqrt(10 / 5000), rel=0.1)


def test_ence_refuses_a_variance_of_zero():
    zero = np.zeros((3, 1))
    with pytest.raises(ValueError, match="variance must be positive"):
        metrics.ence(zero, zero, zero, metrics.uniform_weights(3))


def test_the_pit_test_is_scipys_and_corrects_for_several_outputs(generator):
    pit = generator.beta(1.3, 1, size=(60, 2))
    tests = [scipy.stats.kstest(column, "uniform") for column in pit.T]
    found = metrics.pit_test(pit)
    assert found.statistic == max(test.statistic for test in tests)
    assert found.p_value == pytest.approx(2 * min(test.pvalue for test in tests))
    alone = metrics.pit_test(pit[:, :1])
    assert (alone.statistic, alone.p_value) == (tests[0].statistic, tests[0].pvalue)
    uniform = metrics.uniform_weights(60)
    assert alone.statistic == pytest.approx(metrics.pit_kolmogorov_smirnov(pit[:, :1], uniform))


def test_p_values_of_the_pit_test_are_uniform_if_calibrated(generator):
    p_values = [metrics.pit_test(generator.uniform(size=(25, 1))).p_value for _ in range(400)]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3
