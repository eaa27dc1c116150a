import jax
import numpy as np
import pytest
from models import NETWORK, brute_force_hessian, classification_data, softmax

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
