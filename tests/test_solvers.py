from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import NETWORK, brute_force_hessian, classification_data, softmax
from scipy.optimize import root
from scipy.special import expit
from sklearn.datasets import load_digits

import ntkbayes as nb
from ntkbayes.kernels import memory
from ntkbayes.solvers import (
    default_tolerance,
    find_mode,
    hessian_at,
    preconditioner,
    require_converged,
    softmax_hessian,
    solve_stationarity,
    stationarity,
    uniform_hessian,
)
from ntkbayes.solvers.hessian import dense_hessian

X, Y, _ = classification_data()
NOISE_VARIANCE = 0.3
SCORES = {  # score of (target, f), written once more without our likelihoods
    "categorical": lambda y, f: y - softmax(f),
    "bernoulli": lambda y, f: y - expit(f),
    "poisson": lambda y, f: y - np.exp(f),
    "gaussian": lambda y, f: (y - f) / NOISE_VARIANCE,
}
LIKELIHOODS = {
    "categorical": (nb.Categorical(3), Y),
    "bernoulli": (nb.Bernoulli(), Y % 2),
    "poisson": (nb.Poisson(), Y + 1),
    "gaussian": (nb.Gaussian(NOISE_VARIANCE, 2), np.stack([Y, -0.5 * Y], axis=1) + 0.1),
}


def problem(name):
    likelihood, y = LIKELIHOODS[name]
    return likelihood, likelihood.targets(y)


def kernel(prior_precision):
    return NETWORK.kernel(X).ntk / prior_precision


def dense_solution(score, k, targets, f0, noise=0.0, start=None):
    """Theory 1.1 and 2.3 by SciPy's root finder on the unknowns a."""
    k, targets, f0 = np.asarray(k), np.asarray(targets), np.asarray(f0)

    def equation(a):
        a = a.reshape(targets.shape)
        return (a - score(targets, f0 + k @ a) - noise).ravel()

    result = root(equation, np.zeros(targets.size) if start is None else start.ravel(), tol=1e-13)
    assert np.abs(equation(result.x)).max() < 1e-9
    return result.x.reshape(targets.shape)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("prior_precision", [10.0, 1.0, 0.1])
def test_mode_equals_an_independent_dense_solve(name, prior_precision):
    likelihood, targets = problem(name)
    k = kernel(prior_precision)
    solution = find_mode(k, likelihood, targets, tolerance=1e-6)
    assert float(solution.latent_error) <= 1e-6
    expected = dense_solution(SCORES[name], k, targets, 0 * targets)
    np.testing.assert_allclose(solution.a, expected, atol=1e-8 * max(1, np.abs(expected).max()))


def test_rows_of_a_sum_to_zero_for_classes():
    likelihood, targets = problem("categorical")
    solution = find_mode(kernel(0.001), likelihood, targets, tolerance=1e-8)
    np.testing.assert_allclose(solution.a.sum(axis=1), 0, atol=1e-8)


@pytest.mark.parametrize("precondition", [hessian_at, preconditioner, uniform_hessian])
@pytest.mark.parametrize(
    ("name", "prior_precision", "scale"),
    [
        ("categorical", 1.0, 1.0),
        ("categorical", 0.01, 20.0),
        ("bernoulli", 0.01, 20.0),
        ("poisson", 1.0, 1.0),
        ("gaussian", 0.1, 5.0),
    ],
)
def test_every_draw_equals_an_independent_dense_solve(name, prior_precision, scale, precondition):
    """Five draws through two slots: each must leave its slot with its own solution."""
    likelihood, targets = problem(name)
    k = kernel(prior_precision)
    mode = find_mode(k, likelihood, targets, tolerance=1e-8)
    hessian = precondition(k, likelihood, k @ mode.a)
    root_k = jnp.linalg.cholesky(NETWORK.kernel(X).nngp)
    f0 = scale * root_k @ jax.random.normal(jax.random.key(0), (5, *targets.shape))
    noise = 0.3 * jax.random.normal(jax.random.key(1), f0.shape)
    if name == "categorical":
        noise = noise - noise.mean(axis=2, keepdims=True)
    solution = solve_stationarity(
        k, likelihood, targets, f0, noise, mode.a, hessian, tolerance=1e-8, num_slots=2
    )
    require_converged(solution, tolerance=1e-8)
    for a, xi, f in zip(solution.a, noise, f0, strict=True):
        start = np.asarray(a) + 0.01  # SciPy needs a start nearby where f₀ is large
        expected = dense_solution(SCORES[name], k, targets, f, np.asarray(xi), start)
        np.testing.assert_allclose(a, expected, atol=1e-7 * max(1, np.abs(expected).max()))


def test_preconditioner_is_single_where_rounding_cannot_break_it_and_counts_half():
    likelihood, targets = problem("categorical")
    f0 = jax.random.normal(jax.random.key(0), (3, *targets.shape))
    for prior_precision, dtype, price in ((0.1, jnp.float32, 0.5), (1e-7, jnp.float64, 1.0)):
        k = kernel(prior_precision)
        mode = find_mode(k, likelihood, targets, tolerance=1e-6)
        hessian = preconditioner(k, likelihood, k @ mode.a)
        assert hessian.inverse.dtype == dtype
        solution = solve_stationarity(
            k, likelihood, targets, f0, 0 * f0, mode.a, hessian, tolerance=1e-6, num_slots=3
        )
        require_converged(solution, tolerance=1e-6)
        # two products of a certificate in each round, and those that measure the residual
        others = (solution.gemm_equivalents - solution.iterations * (2 + 1 / 3) * price - 2) / price
        assert np.all((others > 0.99) & (np.abs(others - others.round()) < 1e-6))


@pytest.mark.parametrize("prior_precision", [1.0, 0.1, 0.01])
def test_few_iterations_suffice_whatever_the_regularisation(prior_precision):
    """Conjugate steps preconditioned at the mode: 4 to 8 were measured."""
    x, y = load_digits(return_X_y=True)
    x = (x[:100] - x[:100].mean(axis=0)) / x[:100].std()
    likelihood = nb.Categorical(10)
    k, targets = NETWORK.ntk(x) / prior_precision, likelihood.targets(y[:100])
    mode = find_mode(k, likelihood, targets, tolerance=1e-3)
    hessian = preconditioner(k, likelihood, k @ mode.a)
    root_q = jnp.linalg.cholesky(NETWORK.nngp(x))
    f0 = root_q @ jax.random.normal(jax.random.key(0), (8, *targets.shape))
    solution = solve_stationarity(
        k, likelihood, targets, f0, 0 * f0, mode.a, hessian, tolerance=1e-3, num_slots=8
    )
    require_converged(solution, tolerance=1e-3)
    assert solution.iterations.max() <= 9


def test_the_number_of_slots_changes_nothing_but_the_order_of_work():
    likelihood, targets = problem("categorical")
    k = kernel(0.1)
    mode = find_mode(k, likelihood, targets, tolerance=1e-8)
    hessian = hessian_at(k, likelihood, k @ mode.a)
    f0 = 3 * jax.random.normal(jax.random.key(0), (7, *targets.shape))
    few, many = (
        solve_stationarity(
            k, likelihood, targets, f0, 0 * f0, mode.a, hessian, tolerance=1e-8, num_slots=slots
        )
        for slots in (2, 7)
    )
    np.testing.assert_array_equal(few.iterations, many.iterations)
    np.testing.assert_allclose(few.a, many.a, atol=1e-10)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_hessian_equals_brute_force(name):
    """Solve, determinant, W v, a root of W, and the covariance at new points."""
    likelihood, targets = problem(name)
    c = targets.shape[1]
    k = np.asarray(kernel(0.5))
    f = jax.random.normal(jax.random.key(3), targets.shape)
    hessian = hessian_at(jnp.asarray(k), likelihood, f)
    W = np.zeros((targets.size, targets.size))
    for i, block in enumerate(np.asarray(jax.vmap(likelihood.curvature)(f))):
        W[i * c : (i + 1) * c, i * c : (i + 1) * c] = block
    dense = np.kron(np.linalg.inv(k), np.eye(c)) + W
    r = np.asarray(jax.random.normal(jax.random.key(4), targets.shape))
    np.testing.assert_allclose(
        hessian.solve(jnp.asarray(r)[None]).ravel(), np.linalg.solve(dense, r.ravel()), atol=1e-8
    )
    dual = W @ np.linalg.solve(np.eye(len(W)) + np.kron(k, np.eye(c)) @ W, r.ravel())
    np.testing.assert_allclose(hessian.dual(jnp.asarray(r)[None]).ravel(), dual, atol=1e-9)
    image = hessian.curvature(jnp.asarray(r)[None]).ravel()
    np.testing.assert_allclose(image, W @ r.ravel(), atol=1e-12)
    log_det = np.linalg.slogdet(np.eye(len(W)) + np.kron(k, np.eye(c)) @ W)[1]
    np.testing.assert_allclose(hessian.log_det, log_det, atol=1e-8)
    units = jnp.eye(len(W)).reshape(-1, *targets.shape)
    S = np.asarray(hessian.curvature_root(units)).reshape(len(W), -1).T
    np.testing.assert_allclose(S @ S.T, W, atol=1e-12)
    covariance = np.asarray(hessian.covariance(k, k, c)).reshape(len(W), -1)
    np.testing.assert_allclose(covariance, np.linalg.inv(dense), atol=1e-8)


def test_covariance_and_determinant_hold_for_classes_of_no_probability():
    """A logit of −1000 has probability 0 and no curvature: (K + W⁻¹)⁻¹ must not divide by it."""
    k = np.asarray(kernel(0.5))
    p = np.array(softmax(jax.random.normal(jax.random.key(3), (len(X), 3))))
    p[::2, 0], p[::2, 1] = 0, 1 - p[::2, 2]
    hessian = softmax_hessian(jnp.asarray(k), jnp.asarray(p))
    dense = brute_force_hessian(k, p)
    covariance = np.asarray(hessian.covariance(k, k, 3)).reshape(len(dense), -1)
    np.testing.assert_allclose(covariance, np.linalg.inv(dense), atol=1e-8)
    log_det = np.linalg.slogdet(dense @ np.kron(k, np.eye(3)))[1]
    np.testing.assert_allclose(hessian.log_det, log_det, atol=1e-8)
    W = dense - np.kron(np.linalg.inv(k), np.eye(3))
    v = np.asarray(jax.random.normal(jax.random.key(4), p.shape))
    expected = W @ np.linalg.solve(dense, np.linalg.solve(np.kron(k, np.eye(3)), v.ravel()))
    np.testing.assert_allclose(hessian.dual(jnp.asarray(v)[None]).ravel(), expected, atol=1e-8)


def test_a_hessian_that_does_not_fit_is_refused_before_allocation(monkeypatch):
    likelihood, targets = problem("categorical")
    k = kernel(0.5)
    monkeypatch.setattr(memory, "available_bytes", lambda: 6 * 8 * len(k) ** 2)
    with pytest.raises(ValueError, match=r"the Hessian of 7 matrices of .* would fit"):
        hessian_at(k, likelihood, 0 * targets)
    preconditioner(k, likelihood, 0 * targets)  # in float32, of half the size


@pytest.mark.parametrize(
    "fit", [partial(nb.laplace, kernel="ntk"), partial(nb.ntk_ensemble, initial="zero")]
)
@pytest.mark.parametrize("likelihood", [nb.Bernoulli(), nb.Categorical(2)])
def test_a_kernel_that_rounding_leaves_indefinite_is_refused_with_a_remedy(fit, likelihood):
    x = np.random.default_rng(0).normal(size=(200, 1)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    words = "rounding in float32 .* use float64 .*larger prior_precision or remove .* coincide"
    with pytest.raises(ValueError, match=words):
        fit(nb.dense_network(activation="erf"), likelihood, x, y, prior_precision=1e-7)


@pytest.mark.parametrize(
    "factor",
    [
        softmax_hessian,
        lambda k, weights: dense_hessian(k, jnp.eye(2)[None] * weights[:, :, None]),
        lambda k, weights: uniform_hessian(k, nb.Bernoulli(), weights[:, :1]),
    ],
)
def test_every_factorisation_of_the_hessian_names_its_failure(factor):
    k, weights = -10 * jnp.eye(4), jnp.full((4, 2), 0.5)
    with pytest.raises(ValueError, match=r"^rounding in float64 .*: take a larger prior_precision"):
        factor(k, weights)


def test_softmax_hessian_takes_weights_that_are_no_probabilities():
    k = kernel(0.5)
    weights = jax.random.uniform(jax.random.key(0), (len(X), 3), minval=0.05)
    hessian = softmax_hessian(k, weights)
    dense = np.kron(np.linalg.inv(np.asarray(k)), np.eye(3))
    for i, d in enumerate(np.asarray(weights)):
        dense[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] += np.diag(d) - np.outer(d, d) / d.sum()
    r = np.asarray(jax.random.normal(jax.random.key(4), weights.shape))
    np.testing.assert_allclose(
        hessian.solve(jnp.asarray(r)[None]).ravel(), np.linalg.solve(dense, r.ravel()), atol=1e-8
    )
    log_det = np.linalg.slogdet(dense @ np.kron(k, np.eye(3)))[1]
    np.testing.assert_allclose(hessian.log_det, log_det, atol=1e-8)


def test_brute_force_hessian_of_the_other_tests_is_ours():
    k = kernel(0.5)
    p = softmax(jax.random.normal(jax.random.key(3), (len(X), 3)))
    r = np.asarray(jax.random.normal(jax.random.key(4), p.shape))
    np.testing.assert_allclose(
        softmax_hessian(k, jnp.asarray(p)).solve(jnp.asarray(r)[None]).ravel(),
        np.linalg.solve(brute_force_hessian(k, p), r.ravel()),
        atol=1e-8,
    )


def test_a_solution_that_misses_its_tolerance_is_told_and_one_beyond_use_refused():
    likelihood, targets = problem("categorical")
    solution = find_mode(kernel(1.0), likelihood, targets, tolerance=1e-3)
    with pytest.warns(UserWarning, match=r"1 of 1 .* what rounding leaves .* prior_precision"):
        require_converged(solution, tolerance=1e-30)
    worse = eqx.tree_at(
        lambda s: (s.latent_error, s.ordinary_error), solution, (jnp.array(0.06), jnp.array(0.06))
    )
    with pytest.raises(
        ValueError, match=r"known to be below 0.06, .* take a larger prior_precision"
    ):
        require_converged(worse, tolerance=1e-3)
    single = eqx.tree_at(lambda s: s.a, worse, solution.a.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"use float64"):
        require_converged(single, tolerance=1e-3)
    require_converged(worse, tolerance=0.1)
    outlying = eqx.tree_at(lambda s: s.ordinary_error, worse, jnp.array(1e-4))
    with pytest.warns(UserWarning, match=r"below 0.06 at an outlying row of x .* below 0.0001"):
        require_converged(outlying, tolerance=1e-3)


@pytest.mark.parametrize(("error", "num_tried"), [(0.001, 8), (1.0, stationarity.MAX_UNUSABLE)])
def test_newton_gives_up_after_a_few_draws_that_stay_unusable(monkeypatch, error, num_tried):
    likelihood, targets = problem("categorical")
    one = jnp.ones(())
    f0 = jnp.zeros((8, *targets.shape))
    wanted = stationarity._Problem(kernel(1.0), likelihood, targets, f0, f0, one, 1e-30 * one)
    found = stationarity._Found(f0, *(jnp.full(8, 10.0),) * 4)
    tried = []

    def step(_, found):
        tried.append(found)
        return found._replace(error_bound=jnp.array([error]))

    monkeypatch.setattr(stationarity, "_newton_one", step)
    bound = stationarity._newton(wanted, found, tolerance=1e-30).error_bound
    assert len(tried) == num_tried
    np.testing.assert_array_equal(bound, [error] * num_tried + [10] * (8 - num_tried))


def test_a_draw_of_nan_is_never_certified():
    likelihood, targets = problem("categorical")
    k = kernel(1.0).astype(jnp.float32)
    targets = targets.astype(jnp.float32)
    hessian = uniform_hessian(k, likelihood, 0 * targets)
    f0 = jnp.full((2, *targets.shape), jnp.nan, jnp.float32)
    solution = solve_stationarity(
        k, likelihood, targets, f0, 0 * f0, 0 * targets, hessian, tolerance=1e-3, num_slots=2
    )
    with pytest.raises(ValueError, match="2 of 2 solutions are not finite"):
        require_converged(solution, tolerance=1e-3)


@pytest.mark.parametrize("prior_precision", [0.02, 0.001])
def test_the_mode_is_found_where_a_mean_curvature_says_nothing(prior_precision):
    """Iris: one class apart, two that touch; conjugate gradients fail at some precisions."""
    data = nb.load_dataset("iris", seed=0)
    k = nb.dense_network(bias_scale=0.745).ntk(data.x_train) / prior_precision
    likelihood = nb.Categorical(3)
    targets = likelihood.targets(data.y_train)
    tolerance = default_tolerance(k.dtype)
    mode = find_mode(k, likelihood, targets, tolerance=tolerance)
    error = np.abs(np.asarray(mode.a) - (np.asarray(targets) - softmax(k @ mode.a))).max()
    assert float(mode.latent_error) <= tolerance
    np.testing.assert_allclose(mode.residual, error, atol=1e-3 * tolerance)
