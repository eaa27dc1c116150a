from functools import partial

import equinox as eqx
import gpjax as gpx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from models import NETWORK, classification_data, exact_gp, regression_data
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import expit, roots_hermitenorm
from scipy.stats import multivariate_normal, norm

import ntkbayes as nb
from ntkbayes._problem import prior_kernel
from ntkbayes.kernels import memory
from ntkbayes.posteriors import expectations, variational
from ntkbayes.posteriors.inducing import inducing_inputs

LAMBDA = 0.5


def count_data():
    x, y, x_test = regression_data(num_train=12)
    return x, np.round(np.exp(1 + np.asarray(y))), x_test


def problem(likelihood):
    """Data of 12 points for a likelihood, and one set of inducing points off the data."""
    if isinstance(likelihood, nb.Poisson):
        x, y, x_test = count_data()
    else:
        x, y, x_test = classification_data(12, num_classes=2 if likelihood == BERNOULLI else 3)
    return x, y, x_test, x[:5] + 0.1


def prior(x1, x2=None):
    return np.asarray(NETWORK.ntk(x1, x1 if x2 is None else x2)) / LAMBDA


BERNOULLI, CATEGORICAL, POISSON = nb.Bernoulli(), nb.Categorical(3), nb.Poisson()
BOTH = pytest.mark.parametrize("likelihood", [BERNOULLI, CATEGORICAL], ids=repr)
EACH = pytest.mark.parametrize("likelihood", [BERNOULLI, CATEGORICAL, POISSON], ids=repr)
SETTINGS = {"prior_precision": LAMBDA, "tolerance": 1e-8}


def test_regression_with_two_outputs_equals_numpy():
    x, y, x_test = regression_data()
    targets = jnp.stack([y, y**2], axis=1)
    gp = nb.gp_posterior(NETWORK, nb.Gaussian(0.1, 2), x, targets, prior_precision=0.5)
    k_joint = NETWORK.kernel(jnp.concatenate([x, x_test])).ntk / 0.5
    mean, covariance = exact_gp(k_joint, 0.1, targets, len(x))
    np.testing.assert_allclose(gp.mean(x_test), mean, atol=1e-8)
    np.testing.assert_allclose(gp.covariance(x_test)[:, 1, :, 1], covariance, atol=1e-8)
    np.testing.assert_allclose(gp.variance(x_test)[:, 1], np.diag(covariance), atol=1e-8)
    np.testing.assert_array_equal(gp.covariance(x_test)[:, 0, :, 1], 0)
    k_noisy = np.asarray(k_joint)[: len(x), : len(x)] + 0.1 * np.eye(len(x))
    evidence = multivariate_normal(cov=k_noisy).logpdf(np.asarray(targets).T).sum()
    np.testing.assert_allclose(gp.elbo, evidence, rtol=1e-10)


def test_regression_with_inducing_points_equals_the_formulas_of_titsias():
    x, y, x_test = regression_data(num_train=12)
    targets, z = jnp.stack([y, y**2], axis=1), x[:5] + 0.1
    gp = nb.gp_posterior(
        NETWORK, nb.Gaussian(0.1, 2), x, targets, prior_precision=LAMBDA, inducing=z
    )
    k_z, k_zx, k_zt = prior(z), prior(z, x), prior(z, x_test)
    sigma = np.linalg.inv(k_z + k_zx @ k_zx.T / 0.1)
    mean = k_zt.T @ sigma @ k_zx @ np.asarray(targets) / 0.1
    covariance = prior(x_test) - k_zt.T @ (np.linalg.inv(k_z) - sigma) @ k_zt
    np.testing.assert_allclose(gp.mean(x_test), mean, atol=1e-8)
    np.testing.assert_allclose(gp.covariance(x_test)[:, 1, :, 1], covariance, atol=1e-8)
    np.testing.assert_allclose(gp.variance(x_test)[:, 0], np.diag(covariance), atol=1e-8)
    nystrom = k_zx.T @ np.linalg.solve(k_z, k_zx)
    fit = multivariate_normal(cov=nystrom + 0.1 * np.eye(12)).logpdf(np.asarray(targets).T).sum()
    bound = fit - 2 * np.trace(prior(x) - nystrom) / (2 * 0.1)
    np.testing.assert_allclose(gp.elbo, bound, rtol=1e-8)
    assert gp.settings["num_inducing"] == 5
    assert gp.settings["elbo"] == float(gp.elbo)


@pytest.mark.parametrize("scale", [0.3, 3.0, 10.0])
def test_expectations_of_one_output_are_integrals(scale):
    """Against SciPy's adaptive integration; for counts also E exp f = exp(m + v / 2)."""
    mean, density = 1.3, norm(1.3, scale).pdf
    limits = {"limit": 500, "epsabs": 1e-13, "points": [0.0]}
    low, high = mean - 12 * scale, mean + 12 * scale
    moments = jnp.full((1, 1), mean), jnp.full((1, 1), scale**2)
    rule = expectations.quadrature(1, jnp.dtype(float))
    ours = expectations.expectations(BERNOULLI, jnp.ones((1, 1)), *moments, rule)
    log_prob = quad(lambda f: -np.logaddexp(0, -f) * density(f), low, high, **limits)[0]
    score = quad(lambda f: expit(-f) * density(f), low, high, **limits)[0]
    weight = quad(lambda f: expit(f) * expit(-f) * density(f), low, high, **limits)[0]
    np.testing.assert_allclose(ours.log_prob[0], log_prob, rtol=1e-9)
    np.testing.assert_allclose(ours.scores[0, 0], score, rtol=1e-9)
    np.testing.assert_allclose(ours.weights[0, 0], weight, rtol=1e-9)
    if scale <= 3:  # e^f with a wider f has its mass beyond the last of the points
        counts = expectations.expectations(POISSON, jnp.ones((1, 1)), *moments, rule)
        rate = np.exp(mean + scale**2 / 2)
        np.testing.assert_allclose(counts.weights[0, 0], rate, rtol=1e-9)
        np.testing.assert_allclose(counts.scores[0, 0], 1 - rate, rtol=1e-9)


@EACH
def test_expected_curvatures_are_the_derivatives_of_expected_scores(likelihood):
    mean, variance = jax.random.normal(jax.random.key(0), (2, 6, likelihood.num_outputs))
    targets = jnp.full_like(mean, 1 / likelihood.num_outputs)
    rule = expectations.quadrature(likelihood.num_outputs, mean.dtype)

    def scores(mean):
        return expectations.expectations(likelihood, targets, mean, variance**2, rule).scores

    derivatives = jnp.einsum("ncnd->ncd", jax.jacobian(scores)(mean))
    found = expectations.expectations(likelihood, targets, mean, variance**2, rule).curvature
    np.testing.assert_allclose(found, -derivatives, rtol=1e-10, atol=1e-14)


def test_a_wide_prior_does_not_make_the_iteration_go_in_circles():
    """Iris at the prior precision of the largest evidence, where it once did."""
    data = nb.load_dataset("iris", seed=1)
    network = nb.dense_network(bias_scale=0.86)
    model = (network, nb.Categorical(3), data.x_train, data.y_train)
    found, further = (
        nb.gp_posterior(*model, prior_precision=0.031, tolerance=tolerance)
        for tolerance in (1e-4, 1e-7)
    )
    np.testing.assert_array_less(jnp.abs(found.fit.scores - further.fit.scores), 1e-4)
    np.testing.assert_array_less(jnp.abs(found.fit.weights - further.fit.weights), 1e-4)


class Logistic(gpx.likelihoods.Bernoulli):
    """GPJax's Bernoulli likelihood with the logit link in place of the probit."""

    def link_function(self, f):
        return npd.Bernoulli(logits=f)


@pytest.mark.parametrize("likelihood", [BERNOULLI, POISSON], ids=repr)
def test_one_latent_function_maximises_the_bound_of_gpjax(likelihood):
    """The bound is concave in mean and Cholesky factor: where its gradient is zero is the best."""
    x, y, x_test, z = problem(likelihood)
    gp = nb.gp_posterior(NETWORK, likelihood, x, y, inducing=z, **SETTINGS)
    kind = Logistic if likelihood == BERNOULLI else gpx.likelihoods.Poisson
    integrator = gpx.integrators.GHQuadratureIntegrator(num_points=64)
    model = gpx.gps.Prior(
        kernel=_kernel(), mean_function=gpx.mean_functions.Zero(), jitter=1e-12
    ) * kind(integrator=integrator)
    data = gpx.Dataset(x, jnp.asarray(y, dtype=float)[:, None])

    def bound(mean, root):
        family = gpx.variational_families.VariationalGaussian(model, z, mean, root)
        return gpx.objectives.elbo(family, data)

    mean, covariances = gp.moments(z)
    at = mean, jnp.linalg.cholesky(covariances[0])
    with jax.numpy_rank_promotion("allow"):
        value, gradients = jax.jit(jax.value_and_grad(bound, argnums=(0, 1)))(*at)
    # Their Gauss–Hermite points err by up to 1e-6 of a point's share.
    np.testing.assert_allclose(gp.elbo, value, rtol=1e-7)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, 0, atol=1e-5)
    theirs = gpx.variational_families.VariationalGaussian(model, z, *at)(x_test)
    np.testing.assert_allclose(gp.mean(x_test), theirs.mean[:, None], atol=1e-6)
    np.testing.assert_allclose(gp.moments(x_test)[1][0], theirs.covariance(), atol=1e-6)


def _kernel():
    from ntkbayes.posteriors._gpjax import _NetworkKernel

    return _NetworkKernel(NETWORK, LAMBDA, "ntk", raised=False, dtype=jnp.float64)


@pytest.mark.parametrize("num_inducing", [None, 3])
@pytest.mark.slow
def test_variational_posterior_maximises_the_elbo_over_all_class_independent_gaussians(
    monkeypatch, num_inducing
):
    """Against SciPy on means and Cholesky factors, the ELBO written with dense matrices."""
    # Our update takes E[p(1−p)] by quadrature, the optimiser below its reparameterised twin: they
    # agree up to the quadrature error, which many points make small.
    monkeypatch.setattr(expectations, "NUM_POINTS", 16384)
    n = 4 if num_inducing is None else 6
    x, y, _ = classification_data(num_train=n)
    z = x if num_inducing is None else x[:num_inducing] + 0.1
    size = len(z)
    gp = nb.gp_posterior(
        NETWORK, CATEGORICAL, x, y, inducing=None if num_inducing is None else z, **SETTINGS
    )
    k, k_zx = jnp.asarray(prior(z)), jnp.asarray(prior(z, x))
    gain = jnp.linalg.solve(k, k_zx).T
    left = jnp.diagonal(prior(x)) - jnp.sum(gain * k_zx.T, axis=1)
    order = variational._ranks(gp.projection, gp.train.targets)  # of the outputs, in the rule
    points = expectations.quadrature(3, x.dtype).points[:, order]
    rows, columns = jnp.tril_indices(size)

    def unpack(theta):
        mean = theta[: 3 * size].reshape(size, 3)
        triangles = theta[3 * size :].reshape(3, -1)
        factors = jnp.zeros((3, size, size)).at[:, rows, columns].set(triangles)
        return mean, factors @ jnp.swapaxes(factors, 1, 2)

    def negative_elbo(theta):
        mean, covariances = unpack(theta)
        variance = left[:, None] + jnp.einsum("im,cml,il->ic", gain, covariances, gain)
        f = (gain @ mean)[None] + jnp.sqrt(variance)[None] * points[:, None, :]
        log_p = jax.nn.log_softmax(f)[:, jnp.arange(n), y]
        kl = 0.0
        for c in range(3):
            log_dets = jnp.linalg.slogdet(k)[1] - jnp.linalg.slogdet(covariances[c])[1]
            trace = jnp.trace(jnp.linalg.solve(k, covariances[c]))
            kl += 0.5 * (trace + mean[:, c] @ jnp.linalg.solve(k, mean[:, c]) - size + log_dets)
        return kl - log_p.mean(axis=0).sum()

    root = np.linalg.cholesky(np.asarray(k))[rows, columns]
    start = np.concatenate([np.zeros(3 * size), np.tile(root, 3)])
    best = minimize(jax.jit(jax.value_and_grad(negative_elbo)), start, jac=True, tol=1e-12)
    ours, covariances = gp.moments(z)
    mean, expected = unpack(jnp.asarray(best.x))
    np.testing.assert_allclose(gp.elbo, -best.fun, rtol=1e-5)
    np.testing.assert_allclose(ours, mean, rtol=5e-3, atol=2e-3)
    np.testing.assert_allclose(covariances, expected, rtol=5e-3, atol=2e-3)


def test_the_softmax_bound_with_inducing_points_is_its_formula():
    """Dense matrices, and 24³ Gauss–Hermite points in place of 256 of quasi-Monte-Carlo."""
    x, y, _, z = problem(CATEGORICAL)
    gp = nb.gp_posterior(NETWORK, CATEGORICAL, x, y, inducing=z, **SETTINGS)
    mean, covariances = (np.asarray(moment) for moment in gp.moments(z))
    k_z, gain = prior(z), np.linalg.solve(prior(z), prior(z, x)).T
    left = prior(x) - gain @ k_z @ gain.T
    variance = np.stack([np.diag(left + gain @ s @ gain.T) for s in covariances], axis=1)
    nodes, weights = roots_hermitenorm(24)
    grid = np.stack(np.meshgrid(nodes, nodes, nodes), axis=-1).reshape(-1, 1, 3)
    weight = np.multiply.outer(np.multiply.outer(weights, weights), weights).ravel()
    f = (gain @ mean)[None] + np.sqrt(variance)[None] * grid
    log_p = np.asarray(jax.nn.log_softmax(f))[:, np.arange(len(y)), y]
    bound = weight @ log_p.sum(axis=1) / weight.sum()
    for m, s in zip(mean.T, covariances, strict=True):
        ratio = np.linalg.solve(k_z, s)
        distance = np.trace(ratio) + m @ np.linalg.solve(k_z, m) - len(z)
        bound -= 0.5 * (distance - np.linalg.slogdet(ratio)[1])
    # Quasi-Monte-Carlo errs by some 1e-4 per point: 5e-4 of this bound.
    np.testing.assert_allclose(gp.elbo, bound, rtol=1e-3)


@EACH
@pytest.mark.slow
def test_all_training_points_as_inducing_points_change_nothing(likelihood):
    x, y, x_test, _ = problem(likelihood)
    full = nb.gp_posterior(NETWORK, likelihood, x, y, **SETTINGS)
    for inducing in (x, len(x)):
        other = nb.gp_posterior(NETWORK, likelihood, x, y, inducing=inducing, **SETTINGS)
        np.testing.assert_allclose(other.elbo, full.elbo, rtol=1e-7)
        np.testing.assert_allclose(other.mean(x_test), full.mean(x_test), atol=1e-6)
        np.testing.assert_allclose(other.covariance(x_test), full.covariance(x_test), atol=1e-6)


@BOTH
def test_the_bound_rises_with_inducing_points_to_that_of_all_training_points(likelihood):
    x, y, _, _ = problem(likelihood)
    full = nb.gp_posterior(NETWORK, likelihood, x, y, **SETTINGS)
    bounds = [
        nb.gp_posterior(NETWORK, likelihood, x, y, inducing=number, **SETTINGS).elbo
        for number in (2, 5)
    ]
    steps = np.diff([*bounds, full.elbo])
    assert np.all(steps > 1e-3)  # far above the tolerance


def test_greedy_inducing_points_are_those_of_largest_conditional_variance():
    x, _, _ = classification_data(num_train=30)
    k, chosen = prior(x), []
    for _ in range(8):
        inverse = np.linalg.inv(k[np.ix_(chosen, chosen)])
        left = np.diag(k - k[:, chosen] @ inverse @ k[chosen])
        chosen.append(int(np.argmax(left)))
    kernel = partial(prior_kernel, NETWORK, prior_precision=LAMBDA)
    np.testing.assert_array_equal(inducing_inputs(kernel, x, 8), x[np.asarray(chosen)])


def test_repeated_training_points_are_chosen_once():
    x, y, _ = classification_data(num_train=6)
    twice, labels = jnp.concatenate([x, x]), jnp.concatenate([y, y])
    gp = nb.gp_posterior(NETWORK, CATEGORICAL, twice, labels, prior_precision=1.0, inducing=12)
    assert gp.settings["num_inducing"] == 6
    full = nb.gp_posterior(NETWORK, CATEGORICAL, twice, labels, prior_precision=1.0)
    np.testing.assert_allclose(gp.elbo, full.elbo, rtol=1e-5)


@BOTH
def test_permuting_the_training_data_changes_nothing(likelihood):
    x, y, x_test, z = problem(likelihood)
    order = np.random.default_rng(0).permutation(len(x))
    for inducing in (None, z):
        a = nb.gp_posterior(NETWORK, likelihood, x, y, inducing=inducing, **SETTINGS)
        b = nb.gp_posterior(NETWORK, likelihood, x[order], y[order], inducing=inducing, **SETTINGS)
        for one, other in zip(a.moments(x_test), b.moments(x_test), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("inducing", [None, 5])
def test_draws_and_variances_have_the_moments(inducing):
    x, y, x_test, _ = problem(CATEGORICAL)
    gp = nb.gp_posterior(NETWORK, CATEGORICAL, x, y, prior_precision=LAMBDA, inducing=inducing)
    mean, covariances = gp.moments(x_test)
    np.testing.assert_allclose(gp.variance(x_test), np.einsum("cii->ic", covariances), rtol=1e-9)
    draws = np.asarray(gp.sample(jax.random.key(0), x_test, num_draws=20_000))
    variance = np.asarray(gp.variance(x_test))
    error = np.sqrt(variance / 20_000)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * error)
    flat = (draws - np.asarray(mean)).reshape(20_000, -1)
    size = flat.shape[1]
    expected = np.asarray(gp.covariance(x_test)).reshape(size, size)
    scale = np.sqrt(variance.ravel())
    # An entry of a sample covariance has standard error below √2 times the two scales / √s.
    bound = 5 * np.sqrt(2 / 20_000) * np.outer(scale, scale)
    assert np.all(np.abs(flat.T @ flat / 20_000 - expected) < bound)


def test_flat_directions_and_weak_priors_converge():
    """Two classes, for which the diagonals Λ alone are half the curvature between logits."""
    x, y, _ = classification_data(num_train=20, num_classes=2)
    model = (NETWORK, nb.Categorical(2), x, y)
    gp = nb.gp_posterior(*model, prior_precision=1e-3)
    assert gp.fit.num_iterations < 40
    np.testing.assert_allclose(gp.fit.mean.sum(axis=1), 0, atol=1e-6)


def test_large_counts_need_and_get_a_line_search():
    """From a mean of zero the full Newton step overshoots to e^1000."""
    x, _, _ = regression_data(num_train=12)
    y = np.round(np.exp(6 + np.asarray(x[:, 0])))
    gp = nb.gp_posterior(NETWORK, POISSON, x, y, prior_precision=0.1)
    spread = np.sqrt(np.asarray(gp.variance(x)))
    assert np.all(np.abs(np.asarray(gp.mean(x)) - np.log(y)[:, None]) < 4 * spread)
    # Λ = E e^f = y − α, and at the optimum μ = Φᵀ α.
    np.testing.assert_allclose(gp.fit.weights, y[:, None] - gp.fit.scores, rtol=1e-3)
    np.testing.assert_allclose(gp.fit.mean, gp.projection.features.T @ gp.fit.scores, atol=1e-3)


def test_the_nngp_kernel_is_the_covariance_of_the_prior():
    """Nearly nothing is learnt from noisy data, or by a prior of nearly no variance."""
    x, y, x_test, z = problem(BERNOULLI)
    nngp = np.asarray(NETWORK.nngp(x_test))
    for likelihood, targets, prior_precision in (
        (nb.Gaussian(1e8), y.astype(float), 1.0),
        (BERNOULLI, y, 1e6),
    ):
        gp = nb.gp_posterior(
            NETWORK, likelihood, x, targets,
            prior_precision=prior_precision, kernel="nngp", inducing=z,
        )  # fmt: skip
        covariance = gp.covariance(x_test)[:, 0, :, 0]
        np.testing.assert_allclose(covariance, nngp / prior_precision, rtol=1e-4)
    factor = gp.projection.factor
    np.testing.assert_allclose(factor @ factor.T, NETWORK.nngp(z) / prior_precision, rtol=1e-9)


def test_single_precision_agrees_with_double():
    x, y, x_test, _ = problem(CATEGORICAL)
    settings = {"prior_precision": LAMBDA, "inducing": 5}
    double = nb.gp_posterior(NETWORK, CATEGORICAL, x, y, **settings)
    single = nb.gp_posterior(NETWORK, CATEGORICAL, x.astype(jnp.float32), y, **settings)
    assert single.mean(x_test).dtype == jnp.float32
    # Kernel entries of some 10 with n · eps on the diagonal, and the tolerances.
    np.testing.assert_allclose(single.elbo, double.elbo, rtol=1e-4)
    np.testing.assert_allclose(single.mean(x_test), double.mean(x_test), atol=2e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("prior_precision", [100.0, 1.0, 0.01])
@pytest.mark.parametrize("likelihood", [CATEGORICAL, BERNOULLI, POISSON], ids=repr)
def test_means_and_deviations_are_within_the_bound_of_the_optimum(
    likelihood, prior_precision, dtype
):
    x, y, x_test, _ = problem(likelihood)
    single = [np.asarray(each, np.float32) for each in (x, x_test)]
    deviation = np.sqrt(np.diagonal(NETWORK.ntk(single[1].astype(float))) / prior_precision)

    def moments(dtype, **settings):
        gp = nb.gp_posterior(
            NETWORK, likelihood, single[0].astype(dtype), y,
            prior_precision=prior_precision, **settings,
        )  # fmt: skip
        found = gp.mean(single[1].astype(dtype)), np.sqrt(gp.variance(single[1].astype(dtype)))
        return [np.asarray(each, float) / deviation[:, None] for each in found], gp

    best, tight = moments(float, tolerance=1e-7)
    found, gp = moments(dtype)
    bound = float(gp.fit.error_bound) + float(tight.fit.error_bound)
    for ours, optimum in zip(found, best, strict=True):
        assert np.abs(ours - optimum).max() <= bound
    assert gp.fit.num_iterations < tight.fit.num_iterations
    stats = gp.draw(jax.random.key(0), single[1].astype(dtype), num_draws=3).stats
    np.testing.assert_array_equal(stats["error_bound"], gp.fit.error_bound)


@pytest.mark.filterwarnings("ignore:.*what rounding leaves in float32")
@pytest.mark.parametrize("inducing", [None, 12])
def test_the_bound_in_single_precision_knows_the_rounding_of_large_kernels(inducing):
    x = np.linspace(-2, 2, 80, dtype=np.float32)[:, None]
    x_test = np.linspace(-2.1, 2.1, 37, dtype=np.float32)[:, None]
    y = (np.sin(3 * x[:, 0]) > 0).astype(int)
    z = None if inducing is None else x[::7]

    def posterior(dtype):
        given = None if z is None else z.astype(dtype)
        return nb.gp_posterior(
            NETWORK, BERNOULLI, x.astype(dtype), y,
            prior_precision=1e-4, kernel="nngp", inducing=given,
        )  # fmt: skip

    single, double = posterior(np.float32), posterior(float)
    exact = np.asarray(double.mean(x_test.astype(float)))
    scale = np.sqrt(np.diagonal(NETWORK.nngp(x_test.astype(float))) / 1e-4)[:, None]
    error = np.abs(np.asarray(single.mean(x_test), float) - exact) / scale
    assert error.max() <= float(single.fit.error_bound)


def test_progress_ends_at_one():
    x, y, _ = classification_data()
    fractions = []
    nb.gp_posterior(NETWORK, CATEGORICAL, x, y, prior_precision=1.0, progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_an_iteration_that_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr(variational, "MAX_ITERATIONS", 2)
    x, y, _ = classification_data()
    with pytest.raises(ValueError, match=r"after 2 variational iterations; take a larger prior"):
        nb.gp_posterior(NETWORK, CATEGORICAL, x, y, prior_precision=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "ntkk"}, "unknown kernel 'ntkk': did you mean ntk"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"inducing": 0}, "inducing must be at least 1, but is 0"),
        ({"inducing": 8}, "inducing must be at most the number of training points, 7, but is 8"),
        ({"inducing": np.zeros((8, 2))}, "at most the number of training points, 7, but is 8"),
        ({"inducing": np.zeros((3, 5))}, r"or inputs of shape \(M, 2\), but has shape \(3, 5\)"),
        ({"inducing": np.zeros(2)}, r"or inputs of shape \(M, 2\), but has shape \(2,\)"),
        ({"inducing": np.zeros((0, 2))}, "inducing is empty"),
        ({"inducing": np.array([[0.0, np.nan]])}, "inducing must be finite"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    x, y, _ = classification_data()
    with pytest.raises(ValueError, match=message):
        nb.gp_posterior(NETWORK, CATEGORICAL, x, y, **{"prior_precision": 1.0} | settings)


@pytest.mark.parametrize(
    ("likelihood", "inducing", "num_bytes", "message"),
    [
        (CATEGORICAL, None, 10 * 8 * 49 - 1, r"variational GP .* use inducing points"),
        (CATEGORICAL, 3, 7 * 8 * 21 - 1, r"variational GP .* use fewer inducing points"),
        (CATEGORICAL, 3, 2 * 8 * 21 - 1, r"choice of inducing points .* choose fewer"),
        (nb.Gaussian(0.1), 3, 3 * 8 * 21 - 1, r"GP regression with .* use fewer inducing points"),
    ],
)
def test_what_does_not_fit_in_memory_is_refused(
    monkeypatch, likelihood, inducing, num_bytes, message
):
    x, y, _ = classification_data()
    y = y.astype(float) if isinstance(likelihood, nb.Gaussian) else y
    monkeypatch.setattr(memory, "available_bytes", lambda: num_bytes)
    with pytest.raises(ValueError, match=message):
        nb.gp_posterior(NETWORK, likelihood, x, y, prior_precision=1.0, inducing=inducing)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbering_the_classes_and_the_data_anew_changes_rounding_only(dtype):
    """The points of the quadrature follow the classes: by its error they would differ by 0.01."""
    rng, c = np.random.default_rng(0), 12
    x, x_test, y = rng.normal(size=(24, 2)), rng.normal(size=(5, 2)), np.arange(24) % c
    classes, rows = rng.permutation(c), rng.permutation(24)
    network = nb.dense_network(depth=1, activation="erf", bias_scale=0.5)
    one, two = (
        nb.gp_posterior(network, nb.Categorical(c), *data, prior_precision=1.0)
        for data in ((x.astype(dtype), y), (x[rows].astype(dtype), classes[y][rows]))
    )
    x_test, rounding = x_test.astype(dtype), 50 * np.finfo(dtype).eps
    for moment in ("mean", "variance"):
        ours, again = (np.asarray(getattr(each, moment)(x_test)) for each in (one, two))
        np.testing.assert_allclose(again[:, classes], ours, atol=rounding)


def test_inducing_points_that_cannot_be_factored_are_refused_by_name(monkeypatch):
    """GPJax' own error, of pages, names neither the kernel nor a remedy."""

    def fail(*arguments):
        jax.jit(lambda x: eqx.error_if(x, x > 0, "not positive definite"))(1.0)

    monkeypatch.setattr("ntkbayes.posteriors._gpjax.condition", fail)
    x, y = jnp.ones((3, 2), jnp.float32), jnp.ones(3, jnp.float32)
    message = r"the NTK covariance .* these 2 inducing points: use float64 .* or remove inputs"
    with pytest.raises(ValueError, match=message):
        nb.gp_posterior(NETWORK, nb.Gaussian(0.1), x, y, prior_precision=1.0, inducing=x[:2])


def test_rates_that_no_quadrature_resolves_end_in_an_error():
    """A rate known to a factor of e⁵⁰: expectations are infinite, from which no step is a rise."""
    model = nb.dense_network(depth=1), nb.Poisson(), np.array([[1.0, 0.5]]), np.array([0])
    with pytest.raises(ValueError, match="variational"):
        nb.gp_posterior(*model, prior_precision=1e-4)
