"""What solutions say of their own error, against solutions in 60 digits.

Newton's method in multiple precision on the kernel as it is in memory, so that the only errors are
those of our solvers, and of rounding in products with that kernel.
"""

import warnings

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.integrate
from models import NETWORK, classification_data

import ntkbayes as nb
from ntkbayes.solvers import default_tolerance, find_mode

KEY = jax.random.key(0)
X, XT = np.random.default_rng(0).normal(size=(12, 2)), np.random.default_rng(1).normal(size=(4, 2))
LABELS = {
    "random": np.arange(12) % 3,
    "separable": np.argsort(np.argsort(X[:, 0])) // 4,
}


def exact_coefficients(k, targets, f0, noise, start):
    """a = y − softmax(f₀ + K a) + ξ by Newton's method with 60 digits, damped by the objective."""
    mpmath.mp.dps = 60
    n, c = np.shape(targets)
    k, targets, f0, noise, a = (
        mpmath.matrix(np.asarray(v, float).tolist()) for v in (k, targets, f0, noise, start)
    )

    def parts(a):
        u = k * a
        f = u + f0
        value, p = mpmath.mpf(0), mpmath.matrix(n, c)
        for i in range(n):
            top = max(f[i, j] for j in range(c))
            odds = [mpmath.exp(f[i, j] - top) for j in range(c)]
            log_total = top + mpmath.log(sum(odds))
            for j in range(c):
                p[i, j] = odds[j] / sum(odds)
                value += a[i, j] * u[i, j] / 2 - targets[i, j] * (f[i, j] - log_total)
                value -= noise[i, j] * f[i, j]
        return value, p, targets - p + noise - a

    for _ in range(200):
        value, p, residual = parts(a)
        jacobian = mpmath.eye(n * c)
        for i in range(n):
            for j in range(c):
                for m in range(c):
                    w = (p[i, j] if j == m else 0) - p[i, j] * p[i, m]
                    for other in range(n):
                        jacobian[i * c + j, other * c + m] += w * k[i, other]
        flat = mpmath.matrix([residual[i, j] for i in range(n) for j in range(c)])
        step = mpmath.lu_solve(jacobian, flat)
        step = mpmath.matrix([[step[i * c + j] for j in range(c)] for i in range(n)])
        if max(abs(v) for v in step) < mpmath.mpf(10) ** -30:
            break
        size = mpmath.mpf(1)
        while parts(a + size * step)[0] > value and size > 1e-12:
            size /= 2
        a = a + size * step
    return a


def times(k, a):
    """K a in multiple precision, rounded to float64."""
    return np.array((mpmath.matrix(np.asarray(k, float).tolist()) * a).tolist(), float)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("scale", "prior_precision"),
    [(1.0, 1e8), (1.0, 1e-2), (1.0, 1e-4), (1.0, 1e-8), (1e-8, 1e-4), (1e3, 1.0), (1e8, 1e8)],
)
def test_the_bound_of_modes_holds_at_new_inputs(labels, dtype, scale, prior_precision):
    """Theory 1.9, over sixteen decades of λ and of inputs."""
    x, x_test = (scale * X).astype(dtype), (scale * XT).astype(dtype)
    network, likelihood = nb.dense_network(depth=2), nb.Categorical(3)
    k = network.ntk(x) / dtype(prior_precision)
    targets = likelihood.targets(LABELS[labels]).astype(dtype)
    mode = find_mode(k, likelihood, targets, tolerance=default_tolerance(dtype))
    zero = np.zeros(targets.shape)
    a = exact_coefficients(k, targets, zero, zero, mode.a)
    k_test = network.ntk(x_test, x) / dtype(prior_precision)
    deviations = np.sqrt(np.diag(network.ntk(x_test)).astype(float) / prior_precision)
    error = np.abs(np.asarray(k_test @ mode.a, float) - times(k_test, a)).max(axis=1)
    assert np.all(error <= float(mode.error_bound) * deviations)
    if scale <= 1e3:  # usable, that is; beyond it float32 is refused
        assert float(mode.latent_error) <= 0.05


@pytest.mark.parametrize("prior_precision", [1.0, 1e-3])
def test_members_are_as_near_to_their_exact_solutions_as_they_say(prior_precision):
    network, likelihood, y = nb.dense_network(depth=2), nb.Categorical(3), LABELS["random"]
    ensemble = nb.ntk_ensemble(
        network, likelihood, X, y, prior_precision=prior_precision,
        initial="ntk", perturb_targets=True,
    )  # fmt: skip
    members = ensemble.members(KEY, num_members=2)
    f0 = np.einsum("ij,sjc->sic", members.functions.factor, members.functions.z)
    noise = ensemble._score_noise(jax.random.split(KEY)[1], jnp.asarray(f0))
    k_test = network.ntk(XT, X) / prior_precision
    deviations = np.sqrt(np.diag(network.ntk(XT)) / prior_precision)
    for draw in range(2):
        ours = members.coefficients[draw] * prior_precision
        exact = exact_coefficients(
            ensemble.k_train, likelihood.targets(y), f0[draw], noise[draw], ours
        )
        error = np.abs(np.asarray(k_test @ ours) - times(k_test, exact)).max(axis=1)
        bound = float(members.stats["error_bound"][draw])
        assert np.all(error <= bound * deviations)
        assert bound * np.sqrt(np.diag(ensemble.k_train).max()) <= 1e-3


def test_the_bound_is_the_length_of_the_gradient():
    """√tr ρᵀ K ρ with ρ = y − softmax(K a) − a, evaluated naively."""
    x, y, _ = classification_data()
    likelihood = nb.Categorical(3)
    posterior = nb.laplace(NETWORK, likelihood, x, y, prior_precision=0.5)
    k, a = np.asarray(NETWORK.ntk(x)) / 0.5, np.asarray(posterior.a)
    odds = np.exp(k @ a)
    rho = np.asarray(likelihood.targets(y)) - odds / odds.sum(axis=1, keepdims=True) - a
    length = np.sqrt(np.trace(rho.T @ k @ rho))
    np.testing.assert_allclose(posterior.error_bound, length, rtol=1e-3, atol=1e-13)
    stats = posterior.draw(KEY, x, num_draws=3).stats
    np.testing.assert_array_equal(stats["error_bound"], np.repeat(posterior.error_bound, 3))


@pytest.mark.parametrize("prior_precision", [0.1, 0.0])
def test_flows_are_as_near_to_the_exact_flow_as_they_say(prior_precision):
    """SciPy's integrator at a thousandth of the tolerance, on db/dt = y − softmax(Θ b) − λ b."""
    x, y, x_test = classification_data()
    likelihood = nb.Categorical(3)
    theta, targets = np.asarray(NETWORK.ntk(x)), np.asarray(likelihood.targets(y))
    flow = nb.ntk_ensemble(
        NETWORK, likelihood, x, y, prior_precision=prior_precision, initial="zero", time=4.0
    )
    draws = flow.draw(KEY, x_test, num_draws=1)

    def slope(t, b):
        b = b.reshape(targets.shape)
        odds = np.exp(theta @ b)
        return (targets - odds / odds.sum(axis=1, keepdims=True) - prior_precision * b).ravel()

    found = scipy.integrate.solve_ivp(
        slope, (0, 4.0), np.zeros(targets.size), method="DOP853", rtol=1e-11, atol=1e-11
    )
    k_test = np.asarray(NETWORK.ntk(x_test, x))
    exact = k_test @ found.y[:, -1].reshape(targets.shape)
    deviations = np.sqrt(np.diag(NETWORK.ntk(x_test)) / (prior_precision or 1.0))
    error = np.abs(np.asarray(draws.latent[0]) - exact).max(axis=1)
    assert np.all(error <= float(draws.stats["error_bound"][0]) * deviations)
    assert float(draws.stats["error_bound"][0]) * np.sqrt(
        np.diag(theta).max() / (prior_precision or 1.0)
    ) <= 1e-3  # fmt: skip


@pytest.mark.parametrize("noise_variance", [1.0, 1e-4, 1e-8])
def test_small_noise_needs_no_larger_tolerance(noise_variance):
    """K (K + σ² I)⁻¹ y by a direct solve: Laplace is exact, and knows it."""
    rng = np.random.default_rng(0)
    x, x_test = rng.normal(size=(16, 3)), rng.normal(size=(4, 3))
    network = nb.dense_network(depth=1, activation="erf", bias_scale=1.0)
    y = np.r_[rng.normal(size=15), 1.0]
    for scale in (1.0, 1e-6, 1e6):  # of the targets: tolerances are relative to the noise
        likelihood = nb.Gaussian(noise_variance * scale**2)
        posterior = nb.laplace(network, likelihood, x, scale * y, prior_precision=1 / scale**2)
        k = np.asarray(network.ntk(x)) + noise_variance * np.eye(16)
        expected = np.asarray(network.ntk(x_test, x)) @ np.linalg.solve(k, y)
        error = np.abs(np.asarray(posterior.mean(x_test))[:, 0] / scale - expected).max()
        condition = np.linalg.cond(k)
        assert error <= 10 * np.finfo(float).eps * condition
        assert float(posterior.error_bound) * np.sqrt(k.max()) <= 1e-3 * noise_variance**0.5


@pytest.mark.parametrize("likelihood", [nb.Categorical(2), nb.Bernoulli(), nb.Poisson()])
@pytest.mark.parametrize("prior_precision", [1e-2, 1e-4])
def test_members_are_found_where_an_input_repeats_with_another_label(likelihood, prior_precision):
    """K is singular, and members start far from the mode: Newton's method takes over."""
    rng = np.random.default_rng(0)
    network = nb.dense_network(depth=1, activation="erf", bias_scale=1.0)
    x = np.repeat(rng.normal(size=(8, 3)), 2, axis=0)
    ensemble = nb.ntk_ensemble(
        network, likelihood, x, np.tile([0, 1], 8), prior_precision=prior_precision,
        initial="ntk", perturb_targets=True,
    )  # fmt: skip
    members = ensemble.members(KEY, num_members=8)
    if isinstance(likelihood, nb.Categorical):
        assert np.all(members.stats["residual"] < 2e-6)
    errors = members.stats["error_bound"] * np.sqrt(np.diag(ensemble.k_train).max())
    assert np.all(errors <= 1e-3)


def test_linearized_members_bound_their_error_in_their_own_prior():
    """Against the same members solved ten million times more accurately."""
    x, y, x_test = classification_data(num_train=9)
    network = nb.dense_network(width=32)
    settings = {"prior_precision": 0.1, "num_members": 2, "key": KEY}
    ensemble = nb.linearized_ensemble(network, nb.Categorical(3), x, y, **settings)
    bounds = ensemble.draw(KEY, x_test, num_draws=2).stats["error_bound"]
    for member in range(2):
        params = jax.tree.map(lambda leaf, member=member: leaf[member], ensemble.params)
        points = jnp.concatenate([x, x_test])
        ntk = np.asarray(nb.empirical_ntk(network, params, points)).transpose(1, 0, 3, 2)
        ntk = ntk.transpose(1, 0, 3, 2).reshape(len(points) * 3, -1) / 0.1
        n = len(x) * 3
        f0 = np.asarray(network.apply(params, points)).ravel()
        targets, a = np.asarray(nb.Categorical(3).targets(y)), np.zeros(n)
        for _ in range(50):  # Newton's method on a = y − softmax(f₀ + K a)
            odds = np.exp((f0[:n] + ntk[:n, :n] @ a).reshape(-1, 3))
            p = odds / odds.sum(axis=1, keepdims=True)
            W = np.zeros((n, n))
            for i, row in enumerate(p):
                block = slice(3 * i, 3 * i + 3)
                W[block, block] = np.diag(row) - np.outer(row, row)
            a += np.linalg.solve(np.eye(n) + W @ ntk[:n, :n], (targets - p).ravel() - a)
        exact = f0[n:] + ntk[n:, :n] @ a
        ours = np.asarray(ensemble.sample(KEY, x_test, num_draws=2)[member]).ravel()
        deviations = np.sqrt(np.diag(ntk)[n:])
        assert np.all(np.abs(ours - exact) <= float(bounds[member]) * deviations + 1e-12)
        at_training_points = float(bounds[member]) * np.sqrt(np.diag(ntk)[:n].max())
        assert at_training_points < 1e-3
        latent_error = ensemble.solution.latent_error[member]
        np.testing.assert_allclose(latent_error, at_training_points, rtol=1e-10)


def test_a_large_count_is_not_refused_for_rounding_that_the_solution_damps():
    """One count of 1e9 at λ = 1e-3, against Newton's method in 60 digits: W K is 1e13."""
    x = np.linspace(-1, 1, 12)[:, None] + 0.3
    y = np.ones(12, int)
    y[6] = 10**9
    network = nb.dense_network(depth=1)
    with pytest.warns(UserWarning, match="more than the tolerance"):
        posterior = nb.laplace(network, nb.Poisson(), x, y, prior_precision=1e-3)
    mpmath.mp.dps = 60
    k = mpmath.matrix((np.asarray(network.ntk(x)) / 1e-3).tolist())
    a = mpmath.matrix(np.asarray(posterior.a)[:, 0].tolist())
    for _ in range(50):
        f = k * a
        rate = mpmath.diag([mpmath.exp(value) for value in f])
        residual = mpmath.matrix([int(c) for c in y]) - rate * mpmath.ones(12, 1) - a
        a += mpmath.lu_solve(mpmath.eye(12) + rate * k, residual)
    x_test = np.linspace(-3, 3, 9)[:, None]
    exact = times(network.ntk(x_test, x) / 1e-3, a)
    error = np.abs(np.asarray(posterior.mean(x_test)) - exact)[:, 0]
    deviations = np.sqrt(np.diag(network.ntk(x_test)) / 1e-3)
    assert np.all(error <= float(posterior.error_bound) * deviations)
    assert float(posterior.error_bound) * np.sqrt(float(max(k[i, i] for i in range(12)))) < 0.05


@pytest.mark.parametrize("outlier", [1.0, 1e3])
@pytest.mark.parametrize(
    ("prior_precision", "noise_variance"), [(1.0, 1e-2), (1e-2, 1e-2), (1e-4, 1.0), (1e-4, 1e-6)]
)
def test_linearized_regressions_in_single_precision_bound_their_error(
    outlier, prior_precision, noise_variance
):
    """Against a direct solve in float64; some are told to be rough: no NaN with a bound of 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 2)).astype(np.float32)
    y = (np.sin(x[:, 0]) + 0.1 * rng.normal(size=12)).astype(np.float32)
    x[0] *= np.float32(outlier)
    network, likelihood = nb.dense_network(depth=1, width=32), nb.Gaussian(noise_variance)
    settings = {"prior_precision": prior_precision, "num_members": 1, "key": KEY}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*solutions may be off", category=UserWarning)
        ensemble = nb.linearized_ensemble(network, likelihood, x, y, **settings)
    points = np.concatenate([x, rng.normal(size=(4, 2)).astype(np.float32)])
    draws = ensemble.draw(KEY, points, num_draws=1)
    params = jax.tree.map(lambda leaf: np.asarray(leaf[0], float), ensemble.params)
    jacobian = jax.jacobian(lambda p: network.apply(p, points.astype(float))[:, 0])(params)
    flat = np.concatenate([leaf.reshape(16, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    k = flat @ flat.T / prior_precision
    f0 = np.asarray(network.apply(params, points.astype(float)))[:, 0]
    a = np.linalg.solve(k[:12, :12] + noise_variance * np.eye(12), y - f0[:12])
    error = np.abs(np.asarray(draws.latent[0, :, 0], float) - f0 - k[:, :12] @ a)
    rounding = 10 * np.finfo(np.float32).eps * np.abs(f0)  # of the sum
    bound = float(draws.stats["error_bound"][0])
    assert np.all(error <= bound * np.sqrt(np.diag(k)) + rounding)
    assert bound > 0
