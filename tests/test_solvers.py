import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import NETWORK, brute_force_hessian, classification_data, softmax
from scipy.optimize import root

import ntkbayes as nb
from ntkbayes.solvers import find_mode, require_converged, softmax_hessian, solve_stationarity

X, Y, _ = classification_data()
LIKELIHOOD = nb.Categorical(3)
TARGETS = LIKELIHOOD.targets(Y)


def kernel(prior_precision):
    return NETWORK.kernel(X).ntk / prior_precision


def dense_solution(k, targets, f0):
    """Theory 1.4 by SciPy's root finder on the unknowns a."""
    k, targets, f0 = np.asarray(k), np.asarray(targets), np.asarray(f0)

    def equation(a):
        a = a.reshape(targets.shape)
        return (a - targets + softmax(f0 + k @ a)).ravel()

    result = root(equation, np.zeros(targets.size), tol=1e-13)
    assert np.abs(equation(result.x)).max() < 1e-9
    return result.x.reshape(targets.shape)


@pytest.mark.parametrize("prior_precision", [10.0, 1.0, 0.1, 0.001])
def test_mode_equals_an_independent_dense_solve(prior_precision):
    k = kernel(prior_precision)
    solution = find_mode(k, LIKELIHOOD, TARGETS, tolerance=1e-8)
    np.testing.assert_allclose(solution.a, dense_solution(k, TARGETS, 0 * TARGETS), atol=1e-8)
    np.testing.assert_allclose(solution.a.sum(axis=1), 0, atol=1e-8)


@pytest.mark.parametrize("prior_precision", [1.0, 0.01])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_every_draw_equals_an_independent_dense_solve(prior_precision, scale):
    k = kernel(prior_precision)
    mode = find_mode(k, LIKELIHOOD, TARGETS, tolerance=1e-8)
    hessian = softmax_hessian(k, jax.nn.softmax(k @ mode.a))
    root_k = jnp.linalg.cholesky(NETWORK.kernel(X).nngp)
    f0 = scale * root_k @ jax.random.normal(jax.random.key(0), (5, *TARGETS.shape))
    noise = 0.3 * jax.random.normal(jax.random.key(1), f0.shape)
    noise = noise - noise.mean(axis=2, keepdims=True)
    solution = solve_stationarity(
        k, LIKELIHOOD, TARGETS, f0, noise, mode.a, hessian, tolerance=1e-8, num_slots=2
    )
    require_converged(solution, tolerance=1e-8)
    for a, xi, f in zip(solution.a, noise, f0, strict=True):
        np.testing.assert_allclose(a, dense_solution(k, TARGETS + xi, f), atol=1e-7)


def test_hessian_solve_and_determinant_equal_brute_force():
    k = kernel(0.5)
    p = softmax(jax.random.normal(jax.random.key(3), TARGETS.shape))
    hessian = softmax_hessian(k, jnp.asarray(p))
    dense = brute_force_hessian(k, p)
    r = np.asarray(jax.random.normal(jax.random.key(4), TARGETS.shape))
    np.testing.assert_allclose(
        hessian.solve(jnp.asarray(r)).ravel(), np.linalg.solve(dense, r.ravel()), atol=1e-8
    )
    log_det = np.linalg.slogdet(dense @ np.kron(k, np.eye(3)))[1]
    np.testing.assert_allclose(hessian.log_det, log_det, atol=1e-8)


def test_an_unconverged_draw_is_an_error():
    k = kernel(1.0)
    solution = find_mode(k, LIKELIHOOD, TARGETS, tolerance=1e-3)
    with pytest.raises(ValueError, match="1 of 1 draws did not converge"):
        require_converged(solution, tolerance=1e-30)
