import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_models import FINITE, explicit_ntk, linear_model
from models import classification_data, exact_gp, regression_data, softmax
from scipy.optimize import root

import ntkbayes as nb

NOISE = 0.2
KEY = jax.random.key(0)
DENSE = nb.dense_network(depth=1, width=20, activation="erf", bias_scale=0.3)
SETTINGS = [(initial, perturb) for initial in ("nngp", "ntk", "zero") for perturb in (False, True)]


def member(ensemble, i, x_test):
    """What member i is made of, densely: K over training and test points, f₀, a, f."""
    x = jnp.concatenate([ensemble.train.x, x_test])
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[i], ensemble.params)
    n, c = ensemble.train.targets.shape
    k = explicit_ntk(ensemble.network, params, x, x).reshape(len(x) * c, -1)
    k = k / ensemble.prior_precision
    a = np.asarray(ensemble.solution.a[i]).ravel()
    f = np.asarray(ensemble.sample(KEY, x, num_draws=ensemble.num_available)[i]).ravel()
    return k, f - k[:, : n * c] @ a, a, f


def solve(k, f0, score):
    """A with a = score(f₀ + K a), by SciPy."""
    n = len(k)
    solution = root(lambda a: a - score(f0[:n] + k @ a), np.zeros(n), tol=1e-12)
    assert solution.success
    return solution.x


def check_initial_function(ensemble, i, x_test, f0):
    """f₀ is the network's own, zero, or in the span of its tangents."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[i], ensemble.params)
    x = jnp.concatenate([ensemble.train.x, x_test])
    own = np.asarray(ensemble.network.apply(params, x)).ravel()
    match ensemble.initial:
        case "nngp":
            np.testing.assert_allclose(f0, own, atol=1e-8)
        case "zero":
            np.testing.assert_allclose(f0, 0, atol=1e-8)
        case _:
            assert np.abs(f0 - own).max() > 0.1


@pytest.mark.parametrize(("initial", "perturb"), SETTINGS)
def test_regression_members_are_the_closed_form_of_their_own_kernel(initial, perturb):
    """Theory 1.2: f₀ + K (K + σ² I)⁻¹ (y + ε − f₀)."""
    x, y, x_test = regression_data()
    n = len(x)
    ensemble = nb.linearized_ensemble(
        DENSE, nb.Gaussian(NOISE), x, y, prior_precision=0.5, num_members=2, key=KEY,
        initial=initial, perturb_targets=perturb,
    )  # fmt: skip
    for i in range(2):
        k, f0, a, f = member(ensemble, i, x_test)
        check_initial_function(ensemble, i, x_test, f0)
        # With the NOISE that a implies; its law is tested below.
        eps = NOISE * a - (y - f[:n]) if perturb else 0
        exact = np.linalg.solve(k[:n, :n] + NOISE * np.eye(n), y + eps - f0[:n])
        np.testing.assert_allclose(a, exact, atol=1e-7)
        np.testing.assert_allclose(f, f0 + k[:, :n] @ exact, atol=1e-8)
        if perturb:
            assert 0.1 * NOISE < np.mean(eps**2) < 4 * NOISE


@pytest.mark.parametrize(("initial", "perturb"), SETTINGS)
def test_classifiers_solve_the_stationarity_equation_of_their_own_kernel(initial, perturb):
    """Theory 1.4 and 2.3, against SciPy on the dense equations."""
    x, y, x_test = classification_data()
    likelihood = nb.Categorical(3)
    targets, size = np.asarray(likelihood.targets(y)).ravel(), 3 * len(x)
    ensemble = nb.linearized_ensemble(
        DENSE, likelihood, x, y, prior_precision=0.1, num_members=2, key=KEY,
        initial=initial, perturb_targets=perturb,
    )  # fmt: skip
    assert float(ensemble.solution.residual.max()) < 1.5e-8

    def score(f):
        return targets - softmax(f.reshape(-1, 3)).ravel()

    for i in range(2):
        k, f0, a, f = member(ensemble, i, x_test)
        check_initial_function(ensemble, i, x_test, f0)
        k_train = k[:size, :size]
        xi = np.zeros(size)
        if perturb:
            # The noise is a label resampled at the mode minus its expectation there.
            xi = a - score(f[:size])
            at_mode = k_train @ solve(k_train, np.zeros(size), score)
            labels = xi + softmax(at_mode.reshape(-1, 3)).ravel()
            np.testing.assert_allclose(labels, np.round(labels), atol=1e-6)
            np.testing.assert_allclose(labels.reshape(-1, 3).sum(axis=1), 1, atol=1e-6)
        exact = solve(k_train, f0, lambda f, xi=xi: score(f) + xi)
        np.testing.assert_allclose(f, f0 + k[:, :size] @ exact, atol=1e-6)


def test_any_log_concave_likelihood_can_be_trained():
    x, _, x_test = regression_data()
    y = np.array([0, 3, 1, 40, 0, 2, 7, 1])
    ensemble = nb.linearized_ensemble(
        DENSE, nb.Poisson(), x, y, prior_precision=0.05, num_members=2, key=KEY
    )
    for i in range(2):
        k, f0, _, f = member(ensemble, i, x_test)
        exact = solve(k[:8, :8], f0, lambda f: y - np.exp(f))
        np.testing.assert_allclose(f, f0 + k[:, :8] @ exact, atol=1e-6)


def test_repeated_inputs_and_more_targets_than_weights_are_solved():
    """K is singular there: what labels disagree about is invisible to the weights."""
    x, y, _ = classification_data()
    likelihood, x_twice = nb.Categorical(3), jnp.concatenate([x, x])
    targets = likelihood.targets(np.concatenate([y, (y + 1) % 3]))
    narrow = nb.dense_network(depth=1, width=2, activation="erf")
    ensemble = nb.linearized_ensemble(
        narrow, likelihood, x_twice, targets, prior_precision=0.1, num_members=1, key=KEY
    )
    k, f0, a, f = member(ensemble, 0, x[:1])
    assert np.linalg.matrix_rank(k) <= 15  # weights and biases, 2·2 + 2 + 2·3 + 3
    exact = solve(
        k[:42, :42], f0, lambda f: np.asarray(targets).ravel() - softmax(f.reshape(-1, 3)).ravel()
    )
    np.testing.assert_allclose(a, exact, atol=1e-7)
    np.testing.assert_allclose(f, f0 + k[:, :42] @ exact, atol=1e-6)


def test_ntk_start_with_perturbed_targets_is_the_posterior_of_a_linear_model():
    """Theory 3.2: every member is an exact draw, its kernel being the same for all."""
    x, y, x_test = regression_data()
    noise, precision, num_members, network = 0.3, 2.0, 400, linear_model()
    ensemble = nb.linearized_ensemble(
        network, nb.Gaussian(noise), x, y, prior_precision=precision, num_members=num_members,
        key=KEY, initial="ntk", perturb_targets=True,
    )  # fmt: skip
    k = nb.empirical_ntk_trace(network, jnp.ones(6), jnp.concatenate([x, x_test]))
    mean, covariance = exact_gp(k / precision, noise, y, len(x))
    draws = np.asarray(ensemble.sample(KEY, x_test, num_draws=num_members))[:, :, 0]
    variance = np.diag(covariance)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / num_members)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * np.sqrt(variance / num_members))
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * error)


@pytest.mark.slow
def test_wide_members_have_the_moments_of_the_ntk_ensemble():
    """Within 5 standard errors plus what a kernel at width w differs, O(w^-1/2) per member."""
    x, y, x_test = regression_data()
    width, num_members = 1024, 150
    network = nb.dense_network(depth=1, width=width, bias_scale=0.3)
    arguments = (network, nb.Gaussian(0.1), x, y)
    finite = nb.linearized_ensemble(
        *arguments, prior_precision=1.0, num_members=num_members, key=KEY
    )
    infinite = nb.ntk_ensemble(*arguments, prior_precision=1.0)
    draws = np.asarray(finite.sample(KEY, x_test, num_draws=num_members))[:, :, 0]
    mean = np.asarray(infinite.mean(x_test))[:, 0]
    covariance = np.asarray(infinite.covariance(x_test))[:, 0, :, 0]
    variance = np.diag(covariance)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / num_members)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * np.sqrt(variance / num_members))
    bias = 2 * variance.max() / width**0.5
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * error + bias)


@pytest.mark.parametrize("name", ["equinox", "flax linen"])
def test_members_of_other_libraries_satisfy_the_stationarity_equation(name):
    x, y, x_test = classification_data()
    ensemble = nb.linearized_ensemble(
        FINITE[name], nb.Categorical(3), x, y, prior_precision=0.3, num_members=2, key=KEY
    )
    _, f0, a, f = member(ensemble, 1, x_test)
    check_initial_function(ensemble, 1, x_test, f0)
    expected = np.asarray(ensemble.train.targets) - softmax(f[: 3 * len(x)].reshape(-1, 3))
    np.testing.assert_allclose(a.reshape(-1, 3), expected, atol=1.5e-8)


@pytest.mark.parametrize("perturb", [False, True])
def test_members_start_from_the_networks_that_the_children_of_the_key_make(perturb):
    """As those of the deep ensemble do, which is tested where it is compared with ridge."""
    x, y, _ = regression_data()
    ensemble = nb.linearized_ensemble(
        DENSE, nb.Gaussian(NOISE), x, y, prior_precision=1.0, num_members=3, key=KEY,
        perturb_targets=perturb,
    )  # fmt: skip
    for i, key in enumerate(jax.random.split(KEY, 3)):
        expected = DENSE.init(key, num_features=2, num_outputs=1)
        jax.tree.map(
            lambda own, other, i=i: np.testing.assert_allclose(own[i], other, atol=1e-12),
            ensemble.params,
            expected,
        )


def test_float32_data_give_certified_float32_members():
    x, y, x_test = classification_data()
    ensemble = nb.linearized_ensemble(
        DENSE, nb.Categorical(3), x.astype(jnp.float32), y,
        prior_precision=0.3, num_members=2, key=KEY, initial="ntk", perturb_targets=True,
    )  # fmt: skip
    draws = ensemble.draw(KEY, x_test, num_draws=2)
    assert draws.latent.dtype == jnp.float32
    assert float(draws.stats["residual"].max()) < 3.5e-4


def test_a_member_is_the_same_function_wherever_and_however_often_it_is_asked_for():
    x, y, x_test = regression_data()
    ensemble = nb.linearized_ensemble(
        DENSE, nb.Gaussian(NOISE), x, y, prior_precision=1.0, num_members=3, key=KEY,
        perturb_targets=True,
    )  # fmt: skip
    three = ensemble.sample(KEY, x_test, num_draws=3)
    two = ensemble.sample(jax.random.key(1), x_test[1:], num_draws=2)
    np.testing.assert_allclose(two, three[:2, 1:], atol=1e-12)
    with pytest.raises(ValueError, match="num_draws is 4, but the ensemble has 3 members"):
        ensemble.sample(KEY, x_test, num_draws=4)


def test_a_member_that_is_not_solved_is_an_error():
    x, y, _ = classification_data()
    broken = nb.finite_network(
        lambda key: jax.random.normal(key, (2, 3)), lambda params, x: jnp.log(-((x @ params) ** 2))
    )
    with pytest.raises(ValueError, match=r"1 of 1 solutions are not finite"):
        nb.linearized_ensemble(
            broken, nb.Categorical(3), x, y, prior_precision=1.0, num_members=1, key=KEY
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior_precision": 0.0}, "prior_precision must be positive"),
        ({"num_members": 0}, "num_members must be at least 1"),
        ({"initial": "ntkk"}, "did you mean ntk"),
        ({"likelihood": nb.Categorical(4), "y": np.arange(7) % 4}, "the likelihood needs 4"),
    ],
)
def test_impossible_ensembles_are_refused(change, message):
    x, y, _ = classification_data()
    likelihood, y = change.pop("likelihood", nb.Categorical(3)), change.pop("y", y)
    settings = {"prior_precision": 1.0, "num_members": 1, "key": KEY} | change
    with pytest.raises(ValueError, match=message):
        nb.linearized_ensemble(linear_model(), likelihood, x, y, **settings)
