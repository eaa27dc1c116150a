"""Leave-one-out: the closed form against refits, PSIS against the closed form."""

from functools import cache

import arviz as az
import gpjax as gpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from models import exact_gp

import ntkbayes as nb
from ntkbayes.evaluation import LeaveOneOut, from_draws, leave_one_out

NOISE, PRECISION, N = 0.5, 10.0, 15
NETWORK = nb.dense_network(depth=1, width=16, activation="erf", bias_scale=0.3)
DATA = nb.load_dataset("sine", num_train=N)
X, Y = np.asarray(DATA.x_train), np.asarray(DATA.y_train)
K = np.asarray(NETWORK.kernel(X).ntk) / PRECISION
KEY = jax.random.key(0)
METHODS = {
    "gp": nb.gp_posterior,
    "laplace": nb.laplace,
    "ensemble": lambda *model, **settings: nb.ntk_ensemble(
        *model, initial="ntk", perturb_targets=True, **settings
    ),
}


@cache
def fitted(method):
    return METHODS[method](NETWORK, nb.Gaussian(NOISE), X, Y, prior_precision=PRECISION)


def posterior(method="laplace", num_draws=1, key=KEY):
    return nb.predict(fitted(method), DATA, key=key, num_draws=num_draws, split="train")


@pytest.fixture(scope="module")
def tree():
    return posterior()


def refitted(y):
    """Log density of each point given the posterior of all others."""
    values = []
    for i in range(N):
        order = [j for j in range(N) if j != i] + [i]
        mean, covariance = exact_gp(K[np.ix_(order, order)], NOISE, y[order[:-1]], N - 1)
        values.append(scipy.stats.norm.logpdf(y[i], mean[0], np.sqrt(covariance[0, 0] + NOISE)))
    return np.array(values)


@pytest.mark.parametrize("method", METHODS)
def test_the_closed_form_is_that_of_refits_without_each_point(method):
    found = leave_one_out(posterior(method))
    assert found.closed_form
    assert found.num_unreliable == 0
    # Posterior variances carry rounding and jitter of about 1e-8 of the prior's.
    np.testing.assert_allclose(found.pointwise, refitted(Y), rtol=1e-6)


def test_the_closed_form_is_that_of_rasmussen_and_williams(tree):
    inverse = np.linalg.inv(K + NOISE * np.eye(N))
    variance = 1 / np.diag(inverse)
    mean = Y - inverse @ Y * variance
    expected = scipy.stats.norm.logpdf(Y, mean, np.sqrt(variance))
    np.testing.assert_allclose(leave_one_out(tree).pointwise, expected, rtol=1e-6)


def test_the_closed_form_is_that_of_gpjax():
    kernel, mean = gpx.kernels.RBF(), gpx.mean_functions.Zero()
    likelihood = gpx.likelihoods.Gaussian(obs_stddev=jnp.asarray(NOISE**0.5))
    # Its jitter is added to predictions only, and would tell them from `loo`.
    prior = gpx.Prior(mean_function=mean, kernel=kernel, jitter=1e-12)
    gp = (prior * likelihood).condition(gpx.Dataset(jnp.asarray(X), jnp.asarray(Y)[:, None]))
    prediction = gp(jnp.asarray(X), covariance="diagonal")
    tree = from_draws(
        np.zeros((1, N, 1)), nb.Gaussian(NOISE), Y, key=KEY, method="GPJax", split="train",
        closed_form=(prediction.mean.reshape(-1, 1), prediction.variance.reshape(-1, 1)),
        is_posterior=True,
    )  # fmt: skip
    np.testing.assert_allclose(leave_one_out(tree).pointwise, gp.loo(), rtol=1e-9)


def test_outputs_that_share_the_kernel_add_up(tree):
    y = np.stack([Y, np.cos(3 * X[:, 0])], axis=1)
    gp = nb.gp_posterior(NETWORK, nb.Gaussian(NOISE, 2), X, y, prior_precision=PRECISION)
    both = from_draws(
        np.zeros((1, N, 2)), nb.Gaussian(NOISE, 2), y, key=KEY, method="two", split="train",
        closed_form=(gp.mean(X), gp.variance(X)), is_posterior=True,
    )  # fmt: skip
    both["closed_form"].attrs["independent_outputs"] = 1
    expected = refitted(Y) + refitted(y[:, 1])
    np.testing.assert_allclose(leave_one_out(both).pointwise, expected, rtol=1e-6)


def test_the_closed_form_is_importance_sampling_with_infinitely_many_draws():
    rng = np.random.default_rng(0)
    y, mean = rng.normal(size=(2, 6))
    variance = rng.uniform(0.01, 0.5, size=6) * NOISE
    tree = from_draws(
        np.zeros((1, 6, 1)), nb.Gaussian(NOISE), y, key=KEY, method="approximate", split="train",
        closed_form=(mean[:, None], variance[:, None]), is_posterior=True,
    )  # fmt: skip
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    f = mean[:, None] + np.sqrt(variance)[:, None] * nodes
    inverse = -scipy.stats.norm.logpdf(y[:, None], f, np.sqrt(NOISE))
    weights = np.log(weights / weights.sum())
    expected = -scipy.special.logsumexp(inverse + weights, axis=1)
    found = leave_one_out(tree)
    np.testing.assert_allclose(found.pointwise, expected, rtol=1e-8)
    fitted = scipy.special.logsumexp(-inverse + weights, axis=1)
    assert found.p_loo == pytest.approx(np.sum(fitted - expected), rel=1e-8)


def test_psis_estimates_the_closed_form_within_its_error(tree):
    exact, found = leave_one_out(tree), []
    for key in jax.random.split(jax.random.key(1), 8):
        sampled = posterior(num_draws=1000, key=key).drop_nodes("closed_form")
        found.append(leave_one_out(sampled))
    assert not any(each.closed_form or each.num_unreliable for each in found)
    for name in ("elpd", "p_loo"):
        values = np.array([getattr(each, name) for each in found])
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert error < 0.05  # nats; a test that any number passes is none
        assert abs(values.mean() - getattr(exact, name)) < 5 * error
    assert found[0].standard_error == pytest.approx(exact.standard_error, rel=0.05)


def test_psis_is_that_of_arviz_with_its_standard_error():
    iris = nb.load_dataset("iris", num_train=30)
    fitted = nb.laplace(
        NETWORK, nb.Categorical(3), iris.x_train, iris.y_train, prior_precision=PRECISION
    )
    tree = nb.predict(fitted, iris, key=KEY, num_draws=400, split="train")
    found, expected = leave_one_out(tree), az.loo(tree, pointwise=True)
    assert found.elpd == pytest.approx(float(expected.elpd))
    assert found.standard_error == pytest.approx(float(expected.se))
    assert found.p_loo == pytest.approx(float(expected.p))
    assert found.good_k == pytest.approx(1 - 1 / np.log10(400))
    np.testing.assert_array_equal(found.pareto_k, expected.pareto_k)
    np.testing.assert_array_equal(found.obs_ids, np.arange(30))


def test_correlated_outputs_are_left_to_psis():
    y = jnp.stack([Y, jnp.cos(3 * X[:, 0])], axis=1)
    model = (NETWORK, nb.Gaussian(NOISE, 2), X, y)
    params = nb.map_estimate(*model, prior_precision=PRECISION, key=KEY).params
    fitted = nb.linearized_laplace(*model, prior_precision=PRECISION, params=params)
    latent = fitted.sample(KEY, X, num_draws=2000)
    tree = from_draws(
        latent, nb.Gaussian(NOISE, 2), y, key=KEY, method="Laplace", split="train",
        closed_form=(fitted.mean(X), fitted.variance(X)), is_posterior=True,
    )  # fmt: skip
    found = leave_one_out(tree)
    assert not found.closed_form
    # The cavity of both outputs of a point together: N(f | m, V) / N(y | f, σ² I).
    mean, covariance = np.asarray(fitted.mean(X)), np.asarray(fitted.covariance(X))
    expected = []
    for i in range(N):
        left = np.eye(2) - covariance[i, :, i] / NOISE
        residual = np.linalg.solve(left, np.asarray(y)[i] - mean[i])
        expected.append(
            scipy.stats.multivariate_normal(cov=NOISE * np.linalg.inv(left)).logpdf(residual)
        )
    good = found.pareto_k < found.good_k
    assert good.sum() > N / 2
    # Smoothed weights of 2,000 draws: some hundredths of a nat per point.
    np.testing.assert_allclose(found.pointwise[good], np.array(expected)[good], atol=0.1)


def synthetic(y, noise=NOISE, num_draws=500, **settings):
    latent = np.random.default_rng(0).normal(size=(num_draws, len(y), 1))
    settings = {"split": "train", "is_posterior": True, "method": "theirs"} | settings
    return from_draws(latent, nb.Gaussian(noise), np.asarray(y), key=KEY, **settings)


def test_points_whose_weights_are_not_reliable_are_counted_and_warned_of():
    with pytest.warns(UserWarning, match="shape parameter of Pareto"):
        found = leave_one_out(synthetic([0.0, 4.0], noise=0.05))
    assert found.num_unreliable == np.sum(found.pareto_k > found.good_k) > 0


def test_sums_and_standard_error_are_those_of_the_points():
    found = LeaveOneOut(np.array([-1.0, -2.0, -6.0]), 1.0, None, None, np.arange(3))
    assert found.elpd == -9
    assert found.standard_error == pytest.approx(np.sqrt(3 * 14 / 2))


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of the sampled one: 500 draws
def test_one_point_has_a_density_and_no_standard_error():
    """The cavity of a posterior of one point is the prior: N(0, v) with 1/v = 1/v₁ − 1/σ²."""
    moments = (np.full((1, 1), 0.3), np.full((1, 1), 0.2))
    exact = leave_one_out(synthetic([1.0], closed_form=moments))
    prior = 1 / (1 / 0.2 - 1 / NOISE)
    mean = prior * (0.3 / 0.2 - 1.0 / NOISE)
    assert exact.elpd == pytest.approx(scipy.stats.norm.logpdf(1.0, mean, np.sqrt(prior + NOISE)))
    assert np.isnan(exact.standard_error)
    sampled = leave_one_out(synthetic([0.1], noise=5.0))
    assert np.isfinite(sampled.elpd)
    assert np.isnan(sampled.standard_error)


def classified(latent, y, **settings):
    settings = {"key": KEY, "method": "theirs", "split": "train", "is_posterior": True} | settings
    return from_draws(latent, nb.Categorical(latent.shape[-1]), y, **settings)


SURE = {"one": [2], "first and last": [0, 4], "all but one": [0, 1, 2, 4]}


@pytest.mark.filterwarnings("ignore:Estimated shape")
@pytest.mark.parametrize("chains", [1, 4])
@pytest.mark.parametrize("sure", SURE.values(), ids=SURE)
def test_points_that_every_draw_is_sure_of_leave_the_others_as_they_are(sure, chains):
    latent, y = np.random.default_rng(0).normal(size=(400, 5, 2)), np.array([0, 1, 0, 1, 0])
    latent[:, sure, y[sure]] += 60.0  # log p is 0 in float64
    found = leave_one_out(classified(latent, y, num_chains=chains))
    rest = [i for i in range(5) if i not in sure]
    without = leave_one_out(classified(latent[:, rest], y[rest], num_chains=chains))
    np.testing.assert_array_equal(found.pointwise[sure], 0)
    np.testing.assert_array_equal(found.pareto_k[sure], -np.inf)
    np.testing.assert_array_equal(found.pointwise[rest], without.pointwise)
    np.testing.assert_array_equal(found.pareto_k[rest], without.pareto_k)
    assert found.p_loo == pytest.approx(without.p_loo, abs=1e-12)
    assert found.num_unreliable == without.num_unreliable


def test_all_points_may_have_one_log_probability_each():
    latent = np.broadcast_to(np.log([0.2, 0.3, 0.5]), (100, 3, 3)).copy()
    found = leave_one_out(classified(latent, np.array([0, 1, 2])))
    np.testing.assert_allclose(found.pointwise, np.log([0.2, 0.3, 0.5]), rtol=1e-14)
    assert (found.p_loo, found.num_unreliable) == (pytest.approx(0, abs=1e-14), 0)


def test_weights_of_few_values_are_taken_as_they_are():
    """1 / mean(1/p) of votes; reliable unless few draws carry it: 20, 1 and 12 of 400."""
    p = np.tile([[0.9], [0.9], [0.9]], (1, 400))
    p[0, ::2], p[1, 0], p[2, :12] = 0.1, 1e-9, 1e-9
    draws = np.stack([p, 1 - p], axis=-1).transpose(1, 0, 2)
    tree = nb.from_probabilities(
        draws, np.zeros(3, int), key=KEY, method="forest", split="train", is_posterior=True
    )
    with pytest.warns(UserWarning, match="for 1 of 3 points of forest: their value is not reli"):
        found = leave_one_out(tree)
    np.testing.assert_allclose(found.pointwise, -np.log(np.mean(1 / p, axis=1)), rtol=1e-12)
    np.testing.assert_array_equal(found.pareto_k, [-np.inf, np.inf, -np.inf])
    assert found.num_unreliable == 1


def test_a_draw_without_finite_log_probability_is_refused_by_name():
    tree = classified(np.zeros((100, 2, 2)), np.array([0, 1]), obs_ids=["a", "b"])
    for value in (-np.inf, np.nan):
        log_likelihood = np.zeros((1, 100, 2))
        log_likelihood[0, :3, 1] = value
        tree["log_likelihood/y"].values = log_likelihood
        with pytest.raises(ValueError, match=r"log_likelihood of theirs .* at b .* 3 of 100 draws"):
            leave_one_out(tree)


VARIANCE = (np.zeros((2, 1)), np.full((2, 1), 0.7))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"is_posterior": False}, "reweights draws of a posterior, but theirs is none"),
        ({"split": "test"}, r'at the test split: use predict\(\.\.\., split="train"\)'),
        ({"num_draws": 99}, "PSIS needs 100 draws or more .* but theirs has 99"),
        ({"closed_form": VARIANCE, "obs_ids": ["a", "b"]}, "at a it is 0.7 and the noise variance"),
    ],
)
def test_what_cannot_be_left_out_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        leave_one_out(synthetic([0.0, 0.1], **settings))


def test_an_ensemble_is_refused():
    ensemble = nb.ntk_ensemble(NETWORK, nb.Gaussian(NOISE), X, Y, prior_precision=PRECISION)
    tree = nb.predict(ensemble, DATA, key=KEY, num_draws=200, split="train", method="Ensemble")
    with pytest.raises(ValueError, match="but Ensemble is none: refit without each point"):
        leave_one_out(tree)
