"""A curvature that couples outputs, declared or not, through every method that uses it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled import CorrelatedNoise, OwnSoftmax, TemperedSoftmax
from models import LINEAR

import ntkbayes as nb
from ntkbayes._problem import training_set
from ntkbayes.hyperparameters.objectives import Model, objective_and_gradient
from ntkbayes.kernels import memory
from ntkbayes.solvers import hessian_at
from ntkbayes.solvers.hessian import DenseHessian, DiagonalHessian, SoftmaxHessian

NETWORK = nb.dense_network(depth=1, activation="erf", bias_scale=0.5)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, X_TEST = RNG.normal(size=(9, 2)), RNG.normal(size=(3, 2))
Y, LABELS = RNG.normal(size=(9, 2)), np.arange(9) % 3
PRECISION = {"prior_precision": 0.2}


def correlated_gp():
    """Posterior mean and covariance, and log marginal likelihood, by dense solves."""
    noise = CorrelatedNoise().covariance
    eye = np.eye(2)
    k, cross, own = (
        np.kron(np.asarray(NETWORK.ntk(*x)) / 0.2, eye) for x in ((X,), (X_TEST, X), (X_TEST,))
    )
    total = k + np.kron(np.eye(len(X)), noise)
    gain = np.linalg.solve(total, cross.T).T
    log_det = np.linalg.slogdet(2 * np.pi * total)[1]
    evidence = -0.5 * Y.ravel() @ np.linalg.solve(total, Y.ravel()) - 0.5 * log_det
    return (gain @ Y.ravel()).reshape(-1, 2), own - gain @ cross.T, evidence


def test_laplace_with_correlated_noise_is_the_exact_gp():
    mean, covariance, evidence = correlated_gp()
    posterior = nb.laplace(NETWORK, CorrelatedNoise(), X, Y, **PRECISION)
    np.testing.assert_allclose(posterior.mean(X_TEST), mean, atol=1e-7)
    ours = np.asarray(posterior.covariance(X_TEST)).reshape(6, 6)
    np.testing.assert_allclose(ours, covariance, atol=1e-9)
    np.testing.assert_allclose(posterior.log_marginal_likelihood, evidence, atol=1e-7)
    draws = np.asarray(posterior.sample(KEY, X_TEST, num_draws=20_000)).reshape(-1, 6)
    # An entry of a sample covariance errs by √((c_ii c_jj + c_ij²)/s).
    diagonal = np.diag(covariance)
    error = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / len(draws))
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * error)


def test_bayesian_ensembles_with_correlated_noise_are_the_exact_gp():
    mean, covariance, _ = correlated_gp()
    ensemble = nb.ntk_ensemble(
        NETWORK, CorrelatedNoise(), X, Y, initial="ntk", perturb_targets=True, **PRECISION
    )
    first_order = np.asarray(ensemble.first_order_covariance(X_TEST)).reshape(6, 6)
    np.testing.assert_allclose(first_order, covariance, atol=1e-8)  # exact: all is linear
    draws = np.asarray(ensemble.sample(KEY, X_TEST, num_draws=2000)).reshape(-1, 6)
    diagonal = np.diag(covariance)
    error = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / len(draws))
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * error)
    assert np.all(np.abs(draws.mean(0) - mean.ravel()) < 5 * np.sqrt(diagonal / len(draws)))


@pytest.mark.slow
def test_chains_with_correlated_noise_visit_the_exact_gp():
    mean, covariance, _ = correlated_gp()
    chains = nb.hmc(
        NETWORK, CorrelatedNoise(), X, Y, key=KEY,
        num_warmup=150, num_draws=500, num_chains=4, **PRECISION,
    )  # fmt: skip
    draws = np.asarray(chains.sample(KEY, X_TEST, num_draws=2000)).reshape(-1, 6)
    # At least a quarter of the draws is effective: 5 standard errors of 500 independent ones.
    diagonal = np.diag(covariance)
    error = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / 500)
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * error)
    assert np.all(np.abs(draws.mean(0) - mean.ravel()) < 5 * np.sqrt(diagonal / 500))


@pytest.fixture(scope="module")
def softmaxes():
    """The same model by another route: dense matrices instead of Woodbury's identity."""
    return [
        nb.laplace(NETWORK, each, X, LABELS, **PRECISION)
        for each in (OwnSoftmax(), nb.Categorical(3))
    ]


def test_a_users_softmax_has_the_laplace_posterior_of_the_built_in_one(softmaxes):
    one, two = softmaxes
    assert isinstance(one.hessian, DenseHessian)
    assert isinstance(two.hessian, SoftmaxHessian)
    np.testing.assert_allclose(one.mean(X_TEST), two.mean(X_TEST), atol=1e-6)
    np.testing.assert_allclose(one.covariance(X_TEST), two.covariance(X_TEST), atol=1e-7)
    assert float(one.log_marginal_likelihood) == pytest.approx(
        float(two.log_marginal_likelihood), abs=1e-7
    )


@pytest.mark.slow
def test_a_users_softmax_has_the_members_and_the_variational_posterior_of_the_built_in_one():
    settings = [(NETWORK, each, X, LABELS) for each in (OwnSoftmax(), nb.Categorical(3))]
    one, two = (
        nb.ntk_ensemble(*each, initial="ntk", tolerance=1e-5, **PRECISION).draw(
            KEY, X_TEST, num_draws=20
        )
        for each in settings
    )
    np.testing.assert_allclose(one.latent, two.latent, atol=1e-4)
    one, two = (nb.gp_posterior(*each, **PRECISION) for each in settings)
    np.testing.assert_allclose(one.mean(X_TEST), two.mean(X_TEST), atol=1e-9)
    np.testing.assert_allclose(one.variance(X_TEST), two.variance(X_TEST), atol=1e-9)


def test_a_users_softmax_has_the_linearised_posterior_of_the_built_in_one():
    params = nb.map_estimate(LINEAR, nb.Categorical(3), X, LABELS, key=KEY, **PRECISION).params
    one, two = (
        nb.linearized_laplace(LINEAR, each, X, LABELS, params=params, **PRECISION)
        for each in (OwnSoftmax(), nb.Categorical(3))
    )
    np.testing.assert_allclose(one.covariance(X_TEST), two.covariance(X_TEST), atol=1e-10)


@pytest.mark.slow
def test_hyperparameters_of_a_users_softmax_have_the_gradient_of_the_built_in_one():
    """Of both objectives, through the dense Hessian."""
    train = training_set(nb.Categorical(3), X, LABELS)
    validation = training_set(nb.Categorical(3), X_TEST, np.arange(3))
    point = {"prior_precision": jnp.log(0.2)}
    for held_out in (None, validation):
        (one, d_one, _), (two, d_two, _) = (
            objective_and_gradient(point, Model(NETWORK, each, 0.2, "ntk"), train, held_out)
            for each in (OwnSoftmax(), nb.Categorical(3))
        )
        np.testing.assert_allclose(one, two, rtol=1e-9)
        np.testing.assert_allclose(d_one["prior_precision"], d_two["prior_precision"], rtol=1e-6)


def test_derivatives_of_the_dense_hessian_are_finite_differences():
    """At equal logits too, where eigenvalues of the curvature coincide and roots have none."""
    v = jnp.asarray(RNG.normal(size=(1, len(X), 3)))

    def value(scale, shift):
        f = shift * jnp.asarray(LABELS % 2, float)[:, None] * jnp.arange(3.0)[None]
        hessian = hessian_at(scale * NETWORK.ntk(X), OwnSoftmax(), f)
        return hessian.log_det + jnp.vdot(v, hessian.dual(v))

    for at in ((1.3, 0.7), (0.9, 0.0)):
        gradient = jax.grad(value, argnums=(0, 1))(*at)
        h = 1e-5
        numeric = (
            (value(at[0] + h, at[1]) - value(at[0] - h, at[1])) / (2 * h),
            (value(at[0], at[1] + h) - value(at[0], at[1] - h)) / (2 * h),
        )
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-7)


def test_a_class_that_overrides_a_curvature_is_not_taken_at_its_parents_word():
    """The tempered softmax at f is the softmax at f/2, with a prior of a quarter the variance."""
    tempered = nb.laplace(NETWORK, TemperedSoftmax(), X, LABELS, prior_precision=0.2)
    plain = nb.laplace(NETWORK, nb.Categorical(3), X, LABELS, prior_precision=0.8)
    np.testing.assert_allclose(tempered.mean(X_TEST), 2 * plain.mean(X_TEST), atol=1e-6)
    np.testing.assert_allclose(tempered.variance(X_TEST), 4 * plain.variance(X_TEST), atol=1e-7)
    assert tempered.log_marginal_likelihood == pytest.approx(plain.log_marginal_likelihood)


def test_structures_that_are_known_take_no_dense_matrix():
    k = NETWORK.ntk(X)
    for likelihood, wanted in (
        (nb.Gaussian(0.1, 2), DiagonalHessian),
        (nb.Bernoulli(), DiagonalHessian),
        (nb.Poisson(), DiagonalHessian),
        (nb.Categorical(3), SoftmaxHessian),
    ):
        f = jnp.zeros((len(X), likelihood.num_outputs))
        assert isinstance(hessian_at(k, likelihood, f), wanted)


def test_a_dense_hessian_that_does_not_fit_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 3 * 8 * (3 * len(X)) ** 2)
    with pytest.raises(ValueError, match=r"couples outputs of 4 matrices of 27 × 27 .* points, or"):
        hessian_at(NETWORK.ntk(X), OwnSoftmax(), jnp.zeros((len(X), 3)))
