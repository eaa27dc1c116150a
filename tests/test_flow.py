"""Training until a finite time: gradient flow against closed forms, limits, other integrators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import NETWORK, classification_data, regression_data, softmax

import ntkbayes as nb
from ntkbayes.networks.neural_tangents import predict
from ntkbayes.solvers import flow, prepare_flow, solve_flow

KEY = jax.random.key(0)
BINARY, COUNTS = (np.array(values) for values in ([0, 1, 0, 1, 1, 0, 1], [0, 2, 1, 0, 5, 3, 1]))


def problem(prior_precision=0.1):
    """Three classes: the flow, and the initial function and score noise of two draws."""
    x, y, _ = classification_data()
    likelihood = nb.Categorical(3)
    parts = prepare_flow(NETWORK.ntk(x), likelihood, likelihood.targets(y), prior_precision)
    f0, noise = jax.random.normal(jax.random.key(1), (2, 2, 7, 3))
    return NETWORK.ntk(x), jax.nn.one_hot(y, 3), parts, f0, 0.1 * noise


def runge_kutta(slope, state, time, num_steps):
    """The classical method of fourth order, with equal steps."""
    h = time / num_steps
    for _ in range(num_steps):
        k1 = slope(state)
        k2 = slope(state + h / 2 * k1)
        k3 = slope(state + h / 2 * k2)
        k4 = slope(state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state


@pytest.mark.parametrize("prior_precision", [0.0, 0.1])
def test_dual_coefficients_follow_their_differential_equation(prior_precision):
    """Theory 1.7, integrated in b itself with equal steps."""
    theta, targets, parts, f0, noise = problem(prior_precision)
    theta, targets = np.asarray(theta), np.asarray(targets)
    time, tolerance = 3.0, 1e-9
    solution = solve_flow(parts, f0, noise, time=time, tolerance=tolerance)
    for draw in range(2):
        fixed = np.asarray(f0[draw]), np.asarray(noise[draw])

        def slope(b, fixed=fixed):
            return targets + fixed[1] - softmax(fixed[0] + theta @ b) - prior_precision * b

        expected = runge_kutta(slope, np.zeros((7, 3)), time, 400)
        bound = 2e-8 + int(solution.num_steps[draw]) * tolerance * np.sqrt(theta.max())
        np.testing.assert_allclose(theta @ solution.b[draw], theta @ expected, atol=bound)
        residual = np.abs(slope(np.asarray(solution.b[draw]))).max()
        np.testing.assert_allclose(solution.residual[draw], residual, rtol=1e-6)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
@pytest.mark.parametrize("time", [0.3, 30.0])
def test_errors_stay_below_the_certificate(time, tolerance):
    """Gaussian noise has a closed form (theory 1.3)."""
    x, y, _ = regression_data()
    noise, precision = 0.1, 0.5
    likelihood, theta = nb.Gaussian(noise), np.asarray(NETWORK.ntk(x))
    parts = prepare_flow(jnp.asarray(theta), likelihood, likelihood.targets(y), precision)
    f0 = jax.random.normal(KEY, (1, len(x), 1))
    solution = solve_flow(parts, f0, 0 * f0, time=time, tolerance=tolerance)
    e, v = np.linalg.eigh(theta)
    filtered = (1 - np.exp(-time * (e / noise + precision))) / (e + precision * noise)
    b = v @ (filtered[:, None] * (v.T @ (np.asarray(y)[:, None] - f0[0])))
    # ‖g‖² = bᵀ Θ b
    difference = np.asarray(solution.b[0]) - b
    error = np.sqrt(np.sum(difference * (theta @ difference)))
    assert error <= (int(solution.num_steps[0]) + flow.AT_REST) * tolerance


def test_unregularized_cross_entropy_equals_neural_tangents_at_finite_time():
    x, y, x_test = classification_data()
    f0, f0_test = (
        jax.random.normal(jax.random.key(i), (len(p), 3)) for i, p in enumerate((x, x_test))
    )

    def loss(f, targets):
        return -jnp.sum(targets * jax.nn.log_softmax(f))

    targets = jax.nn.one_hot(y, 3)
    trained = predict.gradient_descent(loss, NETWORK.ntk(x), targets)
    likelihood = nb.Categorical(3)
    parts = prepare_flow(NETWORK.ntk(x), likelihood, likelihood.targets(y), 0.0)
    for time in (0.5, 20.0):
        f_train, f_test = trained(time, f0, f0_test, NETWORK.ntk(x_test, x))
        b = solve_flow(parts, f0[None], 0 * f0[None], time=time, tolerance=1e-9).b[0]
        np.testing.assert_allclose(f0 + NETWORK.ntk(x) @ b, f_train, atol=1e-6)
        np.testing.assert_allclose(f0_test + NETWORK.ntk(x_test, x) @ b, f_test, atol=1e-6)


@pytest.mark.parametrize(
    ("likelihood", "y", "settings"),
    [
        (nb.Categorical(3), classification_data()[1], {}),
        (nb.Categorical(3), classification_data()[1], {"initial": "zero"}),
        (nb.Categorical(3), classification_data()[1], {"initial": "ntk", "perturb_targets": True}),
        (nb.Bernoulli(), BINARY, {"initial": "ntk", "perturb_targets": True}),
        (nb.Poisson(), COUNTS, {}),
    ],
)
def test_long_training_ends_where_training_to_the_end_does(likelihood, y, settings):
    """Theory 1.4 and 1.8: the same key gives the same initial functions and targets."""
    x, _, x_test = classification_data()
    limit, trained = (
        nb.ntk_ensemble(NETWORK, likelihood, x, y, prior_precision=0.5, time=time, **settings)
        for time in (np.inf, 200.0)
    )
    draws, ends = (e.draw(KEY, x_test, num_draws=3) for e in (trained, limit))
    left = np.exp(-0.5 * 200)  # of the way, by λ-strong convexity
    assert np.all(difference_in_deviations(draws, ends, x_test, 0.5) <= 1 + left)
    assert trained.num_available == limit.num_available


@pytest.mark.parametrize(
    ("time", "atol", "num_steps"),
    [
        (1e3, 1e-3, flow.EXPLICIT_STEPS),
        (1e7, 2e-4, 1_000),  # out of reach of explicit steps
    ],
)
def test_unregularized_training_on_soft_targets_approaches_their_logarithm(time, atol, num_steps):
    """Theory 1.5, for every draw the one of its own f₀."""
    x, y, x_test = classification_data(num_train=4)
    targets = nb.smooth_labels(y, num_classes=3, label_smoothing=0.5)
    limit, trained = (
        nb.ntk_ensemble(NETWORK, nb.Categorical(3), x, targets, prior_precision=0, time=time)
        for time in (np.inf, time)
    )
    draws = trained.draw(KEY, x_test, num_draws=2)
    np.testing.assert_allclose(draws.latent, limit.sample(KEY, x_test, num_draws=2), atol=atol)
    assert np.all(draws.stats["num_steps"] < num_steps)


def test_without_regularisation_the_logits_of_labels_grow_with_time():
    """Theory 1.6: finite at every finite time, diverging like log t."""
    x, y, _ = classification_data()
    margins = []
    for time in (10.0, 100.0, 1000.0):
        ensemble = nb.ntk_ensemble(
            NETWORK, nb.Categorical(3), x, y, prior_precision=0, initial="zero", time=time
        )
        margins.append(float(np.ptp(ensemble.sample(KEY, x, num_draws=1), axis=2).max()))
    assert np.all(np.diff(margins) > 1)
    assert margins[-1] < 100


def test_integration_ends_where_training_has_ended():
    _, _, parts, f0, noise = problem()
    long, longer = (solve_flow(parts, f0, noise, time=time, tolerance=1e-6) for time in (1e3, 1e6))
    np.testing.assert_array_equal(long.num_steps, longer.num_steps)
    np.testing.assert_array_equal(long.b, longer.b)


def test_members_have_certificates_and_progress_rises(monkeypatch):
    monkeypatch.setattr("ntkbayes.ensembles.flow.PART", 2)
    x, y, x_test = classification_data()
    ensemble = nb.ntk_ensemble(NETWORK, nb.Categorical(3), x, y, prior_precision=0.1, time=2.0)
    seen = []
    draws = ensemble.draw(KEY, x_test, num_draws=5, progress=seen.append)
    assert seen == [0.4, 0.8, 1.0]
    assert set(draws.stats) == {"error_bound", "residual", "num_steps", "gemm_equivalents"}
    theta = np.asarray(NETWORK.ntk(x))
    errors = draws.stats["error_bound"] * np.sqrt(np.diag(theta).max() / 0.1)
    assert 0 < errors.min() <= errors.max() <= 1e-3  # the default, in logits
    assert np.all(draws.stats["gemm_equivalents"] >= 14 * draws.stats["num_steps"])
    assert ensemble.settings["time"] == "2.0"


def difference_in_deviations(one, other, x, prior_precision):
    """Largest difference of two sets of draws at x, over the sum of their error bounds."""
    deviations = np.sqrt(np.diag(NETWORK.ntk(x)) / prior_precision)
    bounds = np.asarray(one.stats["error_bound"] + other.stats["error_bound"])
    difference = np.abs(np.asarray(one.latent, float) - np.asarray(other.latent)).max(axis=2)
    return difference / deviations / bounds[:, None]


def test_single_precision_stays_and_agrees():
    x, y, x_test = classification_data()
    # The mode has no random numbers, which differ between dtypes.
    single, double = (
        nb.ntk_ensemble(
            NETWORK, nb.Categorical(3), x.astype(dtype), y,
            prior_precision=0.1, time=5.0, initial="zero",
        ).draw(KEY, x_test, num_draws=1)
        for dtype in (jnp.float32, jnp.float64)
    )  # fmt: skip
    assert (single.latent.dtype, double.latent.dtype) == (jnp.float32, jnp.float64)
    assert np.all(difference_in_deviations(single, double, x_test, 0.1) <= 1)


@pytest.fixture
def impatient(monkeypatch):
    """Every draw turns to the implicit method after one explicit step."""
    monkeypatch.setattr(flow, "EXPLICIT_STEPS", 1)
    jax.clear_caches()
    yield monkeypatch
    jax.clear_caches()


def test_implicit_method_agrees_with_the_explicit_one(impatient):
    theta, _, parts, f0, noise = problem()
    implicit = solve_flow(parts, f0, noise, time=3.0, tolerance=1e-8)
    impatient.setattr(flow, "EXPLICIT_STEPS", 2_000)
    jax.clear_caches()
    explicit = solve_flow(parts, f0, noise, time=3.0, tolerance=1e-8)
    bound = (implicit.num_steps + explicit.num_steps).max() * 1e-8 * np.sqrt(theta.max())
    np.testing.assert_allclose(theta @ implicit.b, theta @ explicit.b, atol=bound)
    assert np.all(implicit.gemm_equivalents > explicit.gemm_equivalents)
    # Five implicit stages, each at least one slope, one quotient and one iteration.
    assert np.all(implicit.gemm_equivalents > 30 * implicit.num_steps)


def test_times_out_of_reach_are_an_error(impatient):
    impatient.setattr(flow, "IMPLICIT_STEPS", 4)
    _, _, parts, f0, noise = problem()
    with pytest.raises(ValueError, match="2 of 2 draws did not reach time 50 in 4 implicit steps"):
        solve_flow(parts, f0, noise, time=50.0, tolerance=1e-8)


def test_perturbed_targets_need_a_mode():
    x, y, _ = classification_data()
    with pytest.raises(ValueError, match="perturb_targets needs prior_precision > 0"):
        nb.ntk_ensemble(
            NETWORK, nb.Categorical(3), x, y, prior_precision=0, perturb_targets=True, time=1.0
        )


@pytest.mark.parametrize("repeated", [False, True])
def test_long_training_in_single_precision_is_that_of_double_within_the_bound_or_refused(repeated):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(11, 2)).astype(np.float32)
    x[5] = x[2] if repeated else x[5]
    y = np.where(generator.random(11) < 0.5, 0.1, 0.9).astype(np.float32)

    def draw(dtype, time):
        ensemble = nb.ntk_ensemble(
            NETWORK, nb.Bernoulli(), x.astype(dtype), y.astype(dtype),
            prior_precision=0.0, initial="zero", time=time,
        )  # fmt: skip
        return ensemble.draw(KEY, x.astype(dtype), num_draws=1)

    deviation = np.sqrt(np.diagonal(np.asarray(NETWORK.ntk(x.astype(float)))))
    for time in (10.0, 1e6):
        if repeated and time > 10:
            with pytest.raises(ValueError, match=r"singular in float32 .* shorter time"):
                draw(np.float32, time)
            continue
        single, double = draw(np.float32, time), draw(float, time)
        error = np.abs(np.asarray(single.latent - double.latent)[0, :, 0]) / deviation
        bounds = sum(float(each.stats["error_bound"][0]) for each in (single, double))
        assert error.max() <= bounds <= 0.01
