import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import (
    NETWORK,
    brute_force_hessian,
    classification_data,
    regression_data,
    softmax,
)
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import Kernel

import ntkbayes as nb

X, Y, X_TEST = classification_data()
PRECISION = 0.2


@pytest.fixture(scope="module")
def posterior():
    return nb.laplace(NETWORK, nb.Categorical(3), X, Y, prior_precision=PRECISION)


def brute_force_covariance(posterior):
    """K** − K* (K + W⁻¹)⁻¹ K*ᵀ with one dense (n c) matrix: W (I + K W)⁻¹ in the middle."""
    k = np.asarray(NETWORK.kernel(np.concatenate([X, X_TEST])).ntk) / PRECISION
    n, eye = len(X), np.eye(3)
    p = softmax(k[:n, :n] @ np.asarray(posterior.a))
    dense_k = np.kron(k[:n, :n], eye)
    W = brute_force_hessian(k[:n, :n], p) - np.linalg.inv(dense_k)
    cross = np.kron(k[:n, n:], eye)
    middle = W @ np.linalg.inv(np.eye(len(W)) + dense_k @ W)
    return np.kron(k[n:, n:], eye) - cross.T @ middle @ cross


def test_covariance_equals_the_brute_force_inverse(posterior):
    covariance = np.asarray(posterior.covariance(X_TEST))
    size = covariance.shape[0] * 3
    np.testing.assert_allclose(
        covariance.reshape(size, size), brute_force_covariance(posterior), atol=1e-8
    )


def test_covariance_at_the_training_points_is_the_inverse_hessian(posterior):
    k = np.asarray(NETWORK.kernel(X).ntk) / PRECISION
    p = softmax(k @ np.asarray(posterior.a))
    covariance = np.asarray(posterior.covariance(X)).reshape(21, 21)
    np.testing.assert_allclose(covariance, np.linalg.inv(brute_force_hessian(k, p)), atol=1e-8)


def test_draws_have_the_closed_form_moments(posterior):
    num_draws = 20_000
    draws = np.asarray(posterior.sample(jax.random.key(0), X_TEST, num_draws=num_draws))
    draws = draws.reshape(num_draws, -1)
    exact = np.asarray(posterior.covariance(X_TEST)).reshape(9, 9)
    variance = np.diag(exact)
    error = np.sqrt((np.outer(variance, variance) + exact**2) / num_draws)
    assert np.all(np.abs(np.cov(draws.T) - exact) < 5 * error)
    mean_error = np.sqrt(variance / num_draws)
    difference = draws.mean(axis=0) - np.asarray(posterior.mean(X_TEST)).ravel()
    assert np.all(np.abs(difference) < 5 * mean_error)


def test_log_marginal_likelihood_equals_the_dense_formula(posterior):
    """Rasmussen & Williams eq. 3.44."""
    k = np.asarray(NETWORK.kernel(X).ntk) / PRECISION
    f = k @ np.asarray(posterior.a)
    p = softmax(f)
    log_det = np.linalg.slogdet(brute_force_hessian(k, p) @ np.kron(k, np.eye(3)))[1]
    fit = np.log(p[np.arange(len(Y)), np.asarray(Y)]).sum()
    quadratic = np.sum(f * np.linalg.solve(k, f))
    expected = fit - 0.5 * quadratic - 0.5 * log_det
    np.testing.assert_allclose(posterior.log_marginal_likelihood, expected, rtol=1e-8)


def test_permuting_the_training_data_changes_nothing(posterior):
    order = np.random.default_rng(0).permutation(len(X))
    other = nb.laplace(NETWORK, nb.Categorical(3), X[order], Y[order], prior_precision=PRECISION)
    np.testing.assert_allclose(other.covariance(X_TEST), posterior.covariance(X_TEST), atol=1e-9)


def test_non_positive_prior_precision_is_refused():
    with pytest.raises(ValueError, match="prior_precision must be positive"):
        nb.laplace(NETWORK, nb.Categorical(3), X, Y, prior_precision=0)


class Precomputed(Kernel):
    """A kernel of ours in scikit-learn's form."""

    def __init__(self):
        pass

    def __call__(self, X, Y=None, eval_gradient=False):
        return np.asarray(NETWORK.ntk(X, Y)) / PRECISION

    def diag(self, X):
        return np.diag(self(X))

    def is_stationary(self):
        return False


def test_bernoulli_equals_scikit_learns_classifier():
    """Algorithms 3.1 and 3.2 of Rasmussen & Williams: mode, evidence, predictive moments."""
    x, y, x_test = labelled_data()
    theirs = GaussianProcessClassifier(Precomputed(), optimizer=None, max_iter_predict=1000)
    theirs.fit(x, y)
    machine = theirs.base_estimator_
    ours = nb.laplace(NETWORK, nb.Bernoulli(), x, y, prior_precision=PRECISION)
    mode = np.log(machine.pi_) - np.log1p(-machine.pi_)
    np.testing.assert_allclose(ours.mean(x)[:, 0], mode, atol=1e-6)
    evidence = machine.log_marginal_likelihood_value_
    np.testing.assert_allclose(ours.log_marginal_likelihood, evidence, rtol=1e-6)
    mean, variance = theirs.latent_mean_and_variance(x_test)
    np.testing.assert_allclose(ours.mean(x_test)[:, 0], mean, atol=1e-6)
    np.testing.assert_allclose(ours.variance(x_test)[:, 0], variance, atol=1e-6)


def labelled_data():
    x, _, x_test = regression_data(num_train=20)
    return x, np.asarray(x[:, 0] * x[:, 1] > 0).astype(int), x_test


@pytest.mark.parametrize(
    ("likelihood", "y"),
    [
        (nb.Bernoulli(), np.arange(20) % 2),
        (nb.Poisson(), np.arange(20) % 5),
        (nb.Gaussian(0.3), np.linspace(-1.0, 1.0, 20)),
    ],
    ids=["bernoulli", "poisson", "gaussian"],
)
def test_one_output_likelihoods_equal_the_dense_formulas(likelihood, y):
    """SciPy finds the mode of the joint density; derivatives at it by JAX."""
    x, _, x_test = labelled_data()
    ours = nb.laplace(NETWORK, likelihood, x, y, prior_precision=PRECISION)
    k = np.asarray(NETWORK.ntk(np.concatenate([x, x_test]))) / PRECISION
    k, k_cross, k_test = k[:20, :20], k[:20, 20:], k[20:, 20:]
    targets, inverse = likelihood.targets(y), jnp.linalg.inv(k)

    def negative(f):
        log_prob = jax.vmap(likelihood.log_prob)(targets, f[:, None])
        return 0.5 * f @ inverse @ f - jnp.sum(log_prob)

    found = minimize(
        jax.value_and_grad(negative), np.zeros(20), jac=True, hess=jax.hessian(negative),
        method="trust-exact", options={"gtol": 1e-9},
    )  # fmt: skip
    np.testing.assert_allclose(ours.mean(x)[:, 0], found.x, atol=1e-6)
    hessian = np.asarray(jax.hessian(negative)(found.x))
    gain = k_cross.T @ np.asarray(inverse)
    covariance = k_test - gain @ (k - np.linalg.inv(hessian)) @ gain.T
    np.testing.assert_allclose(ours.covariance(x_test)[:, 0, :, 0], covariance, atol=1e-6)
    evidence = -found.fun - 0.5 * np.linalg.slogdet(k @ hessian)[1]
    np.testing.assert_allclose(ours.log_marginal_likelihood, evidence, rtol=1e-8)
