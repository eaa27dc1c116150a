import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from models import NETWORK, brute_force_hessian, classification_data, regression_data, softmax

import ntkbayes as nb
from ntkbayes.networks.neural_tangents import predict as nt_predict, stax


@pytest.mark.parametrize("time", [0.7, 30.0, np.inf])
def test_unregularised_moments_equal_neural_tangents(time):
    """Theory 2.2 at λ = 0 and σ² = 1 against gradient_descent_mse_ensemble."""
    x, y, x_test = regression_data()
    layers = [stax.Dense(1, 2**0.5, 0.3), stax.Relu()] * 2
    kernel_fn = stax.serial(*layers, stax.Dense(1, 1.0, 0.3))[2]
    # MSE there is a mean over the n targets: their rate 1 for time n·t is ours for time t.
    peer = nt_predict.gradient_descent_mse_ensemble(kernel_fn, x, y[:, None])
    rate = None if np.isinf(time) else time * len(x)
    expected = peer(rate, x_test, get="ntk", compute_cov=True)
    ours = nb.ntk_ensemble(NETWORK, nb.Gaussian(1.0), x, y, prior_precision=0.0, time=time)
    np.testing.assert_allclose(ours.mean(x_test), expected.mean, atol=1e-10)
    np.testing.assert_allclose(ours.covariance(x_test)[:, 0, :, 0], expected.covariance, atol=1e-10)


@pytest.mark.parametrize("initial", ["nngp", "ntk"])
@pytest.mark.parametrize("perturb", [False, True])
def test_regression_moments_equal_the_naive_formula(initial, perturb):
    x, y, x_test = regression_data()
    noise, precision = 0.2, 3.0
    joint = NETWORK.kernel(jnp.concatenate([x, x_test]))
    n = len(x)
    q = np.asarray(joint.nngp if initial == "nngp" else joint.ntk / precision)
    k = np.asarray(joint.ntk) / precision
    gain = k[n:, :n] @ np.linalg.inv(k[:n, :n] + noise * np.eye(n))
    lift = np.concatenate([-gain, np.eye(len(x_test))], axis=1)
    covariance = lift @ q @ lift.T + (noise * gain @ gain.T if perturb else 0)
    ours = nb.ntk_ensemble(
        NETWORK, nb.Gaussian(noise), x, y,
        prior_precision=precision, initial=initial, perturb_targets=perturb,
    )  # fmt: skip
    np.testing.assert_allclose(ours.mean(x_test)[:, 0], gain @ y, atol=1e-10)
    np.testing.assert_allclose(ours.covariance(x_test)[:, 0, :, 0], covariance, atol=1e-10)
    np.testing.assert_allclose(ours.variance(x_test)[:, 0], np.diag(covariance), atol=1e-10)


def test_zero_initial_function_gives_the_mode_only():
    x, y, x_test = regression_data()
    mode = nb.ntk_ensemble(NETWORK, nb.Gaussian(0.1), x, y, prior_precision=1.0, initial="zero")
    draws = mode.sample(jax.random.key(0), x_test, num_draws=3)
    np.testing.assert_allclose(draws, jnp.stack([mode.mean(x_test)] * 3), atol=1e-14)


@pytest.mark.parametrize("initial", ["nngp", "ntk"])
@pytest.mark.parametrize("perturb", [False, True])
@pytest.mark.slow
def test_classifier_spread_is_the_first_order_theory_for_weak_data(initial, perturb):
    """Theory 3.4: for K → 0 the map f₀ → f is (I + K W)⁻¹, and score noise restores Laplace."""
    x, y, _ = classification_data(num_train=5)
    precision, num_draws = 300.0, 40_000
    ensemble = nb.ntk_ensemble(
        NETWORK, nb.Categorical(3), x, y,
        prior_precision=precision, initial=initial, perturb_targets=perturb,
    )  # fmt: skip
    draws = np.asarray(ensemble.sample(jax.random.key(0), x, num_draws=num_draws))
    if initial == "nngp":  # not small: only the average over classes stays exactly Gaussian
        exact = np.asarray(NETWORK.kernel(x).nngp) / 3
        measured = np.cov(draws.mean(axis=2).T)
    else:
        k = np.asarray(NETWORK.kernel(x).ntk) / precision
        p = softmax(k @ np.asarray(ensemble.mode.a))
        hessian = brute_force_hessian(k, p)
        shrink = np.linalg.solve(hessian, np.linalg.inv(np.kron(k, np.eye(3))))
        exact = shrink @ np.kron(k, np.eye(3)) @ shrink.T
        if perturb:
            exact = np.linalg.inv(hessian)
        measured = np.cov(draws.reshape(num_draws, -1).T)
    variance = np.diag(exact)
    error = np.sqrt((np.outer(variance, variance) + exact**2) / num_draws)
    assert np.all(np.abs(measured - exact) < 5 * error)


@pytest.mark.slow
def test_without_score_noise_the_spread_near_data_is_laplace_times_the_theorys_factor():
    """Theory 3.4 to first order in f₀: cov = Laplace · (I + W K)⁻¹, by central differences."""
    x, y, _ = classification_data(num_train=5)
    model, precision, h = (NETWORK, nb.Categorical(3), x, y), 0.5, 1e-3
    ensemble = nb.ntk_ensemble(*model, prior_precision=precision, initial="ntk", tolerance=1e-10)
    directions = h * jnp.eye(15).reshape(15, 5, 3)
    f0 = jnp.concatenate([directions, -directions])
    b, _ = ensemble._train(f0, 0 * f0)
    f = np.asarray(f0 + precision * ensemble.k_train @ b).reshape(2, 15, 15)
    slope = ((f[0] - f[1]) / (2 * h)).T
    k = np.kron(np.asarray(ensemble.k_train), np.eye(3))
    p = softmax(ensemble.k_train @ ensemble.mode.a)
    W = brute_force_hessian(np.eye(5), p) - np.eye(15)
    laplace = np.asarray(nb.laplace(*model, prior_precision=precision).covariance(x))
    laplace = laplace.reshape(15, 15)
    spread = slope @ k @ slope.T
    np.testing.assert_allclose(spread, laplace @ np.linalg.inv(np.eye(15) + W @ k), atol=1e-5)
    assert np.max(np.diag(spread) / np.diag(laplace)) < 0.9


@pytest.mark.parametrize("perturb", [False, True])
@pytest.mark.parametrize("initial", ["nngp", "ntk", "zero"])
def test_first_order_covariance_is_that_of_the_derivative_of_training(initial, perturb):
    """Theory 3.4 at test points: f₀ and score noise through the derivative, in full matrices."""
    x, y, x_test = classification_data(num_train=5, num_test=3)
    precision, h = 0.5, 1e-3
    ensemble = nb.ntk_ensemble(
        NETWORK, nb.Categorical(3), x, y, prior_precision=precision, initial=initial,
        perturb_targets=perturb, tolerance=1e-10,
    )  # fmt: skip
    n, m = len(x), len(x_test)
    kernel = NETWORK.kernel(jnp.concatenate([x, x_test]))
    k = np.asarray(kernel.ntk) / precision
    q = {"nngp": kernel.nngp, "ntk": k, "zero": 0 * k}[initial]
    mode = nb.ntk_ensemble(
        NETWORK, nb.Categorical(3), x, y, prior_precision=precision, tolerance=1e-10
    )
    steps = h * np.eye(3 * n).reshape(3 * n, n, 3)
    b, _ = mode._train(jnp.concatenate([steps, -steps]), jnp.zeros((6 * n, n, 3)))
    moved = np.asarray(b).reshape(2, 3 * n, 3 * n)
    slope = ((moved[0] - moved[1]) / (2 * h)).T  # ∂b / ∂f₀
    gain = precision * np.kron(k[n:, :n], np.eye(3)) @ slope
    lift = np.concatenate([gain, np.eye(3 * m)], axis=1)
    expected = lift @ np.kron(np.asarray(q), np.eye(3)) @ lift.T
    if perturb:  # score noise, of covariance W, acts as f₀ does, through (I + W K)⁻¹
        p = softmax(k[:n, :n] @ mode.mode.a)
        W = brute_force_hessian(np.eye(n), p) - np.eye(3 * n)
        through = np.linalg.inv(np.eye(3 * n) + W @ np.kron(k[:n, :n], np.eye(3)))
        half = np.kron(k[n:, :n], np.eye(3)) @ through
        expected = expected + half @ W @ half.T
    found = np.asarray(ensemble.first_order_covariance(x_test)).reshape(3 * m, 3 * m)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "poisson"])
def test_first_order_covariance_of_the_bayesian_ensemble_is_that_of_laplace(name):
    """Theory 3.4: Q₀ = K and perturbed targets."""
    num_classes = 3 if name == "categorical" else 2
    x, y, x_test = classification_data(num_classes=num_classes)
    likelihood = {
        "categorical": nb.Categorical(3), "bernoulli": nb.Bernoulli(), "poisson": nb.Poisson(),
    }[name]  # fmt: skip
    model = (NETWORK, likelihood, x, y)
    ensemble = nb.ntk_ensemble(*model, prior_precision=0.3, initial="ntk", perturb_targets=True)
    laplace = nb.laplace(*model, prior_precision=0.3)
    np.testing.assert_allclose(
        ensemble.first_order_covariance(x_test),
        laplace.covariance(x_test),
        atol=1e-5,  # modes to 1e-6
    )


@pytest.mark.parametrize("initial", ["nngp", "zero"])
def test_unregularised_classifiers_on_smooth_labels_are_gaussian_in_closed_form(initial):
    """Theory 1.5, evaluated naively with the full (n c) matrices."""
    x, y, x_test = classification_data()
    soft = nb.smooth_labels(y, 3, label_smoothing=0.2)
    joint = NETWORK.kernel(jnp.concatenate([x, x_test]))
    n, m = len(x), len(x_test)
    eye, P = np.eye(3), np.eye(3) - 1 / 3
    gain = np.asarray(joint.ntk)[n:, :n] @ np.linalg.inv(np.asarray(joint.ntk)[:n, :n])
    lift = np.concatenate([-np.kron(gain, P), np.kron(np.eye(m), eye)], axis=1)
    covariance = lift @ np.kron(np.asarray(joint.nngp) * (initial == "nngp"), eye) @ lift.T
    ours = nb.ntk_ensemble(
        NETWORK, nb.Categorical(3), x, soft, prior_precision=0.0, initial=initial
    )
    np.testing.assert_allclose(ours.mean(x_test), gain @ np.log(soft) @ P, atol=1e-10)
    np.testing.assert_allclose(
        ours.covariance(x_test).reshape(3 * m, 3 * m), covariance, atol=1e-10
    )
    np.testing.assert_allclose(ours.variance(x_test).ravel(), np.diag(covariance), atol=1e-10)
    draws = np.asarray(ours.sample(jax.random.key(0), x_test, num_draws=20_000))
    draws = draws.reshape(-1, 3 * m)
    variance = np.diag(covariance)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / len(draws))
    assert np.all(np.abs(np.cov(draws.T) - covariance) <= 5 * error + 1e-12)


def test_a_vanishing_regulariser_leads_to_the_closed_form():
    """Theory 1.4 at λ → 0 ends in 1.5 for the same initial function (here zero)."""
    x, y, x_test = classification_data()
    soft = nb.smooth_labels(y, 3, label_smoothing=0.2)
    model = (NETWORK, nb.Categorical(3), x, soft)
    limit = nb.ntk_ensemble(*model, prior_precision=0.0, initial="zero").mean(x_test)
    errors = []
    for precision in (2e-4, 1e-4):
        near = nb.ntk_ensemble(*model, prior_precision=precision, initial="zero")
        draws = near.sample(jax.random.key(0), x_test, num_draws=1)
        errors.append(float(jnp.abs(draws[0] - limit).max()))
    assert errors[1] < 0.01
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.03)  # first order in λ


@pytest.mark.parametrize(
    ("likelihood", "y", "expected"),
    [
        (nb.Bernoulli(), np.array([0.2, 0.9, 0.5, 0.3, 0.6, 0.1, 0.8]), scipy.special.logit),
        (nb.Poisson(), np.array([1, 4, 2, 7, 3, 1, 2]), np.log),
    ],
)
def test_unregularised_training_reproduces_the_targets(likelihood, y, expected):
    x, _, _ = classification_data()
    ensemble = nb.ntk_ensemble(NETWORK, likelihood, x, y, prior_precision=0.0)
    np.testing.assert_allclose(ensemble.mean(x)[:, 0], expected(y), atol=1e-10)
    np.testing.assert_allclose(ensemble.variance(x), 0, atol=1e-10)


def test_closed_form_members_certify_how_far_training_has_come():
    """Theory 1.2, 1.3 and 1.5: the residual is rounding at the end, and what is left before."""
    x, y, _ = regression_data()
    settings = {"prior_precision": 0.7, "perturb_targets": True, "initial": "ntk"}
    trained = nb.ntk_ensemble(NETWORK, nb.Gaussian(0.2), x, y, **settings)
    residual = trained.draw(jax.random.key(0), x, num_draws=3).stats["residual"]
    assert residual.max() < 1e-10
    on_the_way = nb.ntk_ensemble(NETWORK, nb.Gaussian(0.2), x, y, prior_precision=0.7, time=0.3)
    members = on_the_way.members(jax.random.key(0), num_members=3)
    f = members.evaluate(x)[0]
    left = (y[None, :, None] - f) / 0.2 - 0.7 * members.coefficients
    expected = jnp.abs(left).max(axis=(1, 2))
    # f at the training points is drawn anew, with the conditional variance of a rounded kernel
    np.testing.assert_allclose(members.stats["residual"], expected, rtol=1e-4)
    assert expected.min() > 0.1
    x, y, _ = classification_data(num_train=4)
    targets = nb.smooth_labels(y, num_classes=3, label_smoothing=0.5)
    soft = nb.ntk_ensemble(NETWORK, nb.Categorical(3), x, targets, prior_precision=0)
    assert soft.members(jax.random.key(0), num_members=3).stats["residual"].max() < 1e-9


def test_two_softmax_logits_are_one_logistic_logit_with_twice_the_kernel():
    x, y, x_test = classification_data(num_classes=2)
    settings = {"initial": "zero", "tolerance": 1e-9}
    two = nb.ntk_ensemble(NETWORK, nb.Categorical(2), x, y, prior_precision=0.4, **settings)
    one = nb.ntk_ensemble(NETWORK, nb.Bernoulli(), x, y, prior_precision=0.2, **settings)
    key = jax.random.key(0)
    logits = two.sample(key, x_test, num_draws=1)
    logit = one.sample(key, x_test, num_draws=1)
    np.testing.assert_allclose(logits[..., 1] - logits[..., 0], logit[..., 0], atol=1e-7)


@pytest.mark.parametrize("name", ["bernoulli", "poisson"])
@pytest.mark.slow
def test_score_noise_restores_laplace_to_first_order_for_one_output(name):
    """Theory 3.4: with K small, ntk + perturbed targets has the Laplace covariance."""
    x, y, _ = classification_data(num_train=5, num_classes=2)
    likelihood = {"bernoulli": nb.Bernoulli(), "poisson": nb.Poisson()}[name]
    precision, num_draws = 300.0, 40_000
    model = (NETWORK, likelihood, x, y)
    exact = nb.laplace(*model, prior_precision=precision).covariance(x)[:, 0, :, 0]
    ensemble = nb.ntk_ensemble(
        *model, prior_precision=precision, initial="ntk", perturb_targets=True
    )
    draws = np.asarray(ensemble.sample(jax.random.key(0), x, num_draws=num_draws))[:, :, 0]
    variance = np.diag(exact)
    error = np.sqrt((np.outer(variance, variance) + np.asarray(exact) ** 2) / num_draws)
    assert np.all(np.abs(np.cov(draws.T) - exact) < 5 * error)


ENSEMBLES = {
    "regression": (nb.Gaussian(0.2), 2.0),
    "classification": (nb.Categorical(3), 0.5),
    "interpolation": (nb.Categorical(3), 0.0),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_members_are_the_same_functions_at_all_points_at_once_or_in_blocks(name):
    """Also at training points asked for again, up to the variance that the factor adds."""
    likelihood, precision = ENSEMBLES[name]
    x, y, x_test = classification_data(num_test=5)
    targets = {
        "regression": y.astype(float),
        "classification": y,
        "interpolation": nb.smooth_labels(y, 3, label_smoothing=0.1),
    }[name]
    ensemble = nb.ntk_ensemble(
        NETWORK, likelihood, x, targets, prior_precision=precision, perturb_targets=precision > 0
    )
    key = jax.random.key(3)
    together = ensemble.sample(key, x_test, num_draws=4)
    members = ensemble.members(key, num_members=4)
    first, members = members.evaluate(x_test[:2])
    second, members = members.evaluate(x_test[2:])
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), together, atol=1e-6)
    again, _ = members.evaluate(x_test[:2])
    added = np.finfo(float).eps ** 0.5 * float(NETWORK.kernel(x).nngp.max())
    np.testing.assert_allclose(again, first, atol=10 * added**0.5)


@pytest.mark.slow
def test_network_initial_functions_have_the_law_of_the_wide_network():
    """Mean and covariance of members trained from finite networks approach the closed form."""
    x, y, x_test = regression_data()
    wide = nb.dense_network(depth=2, width=256, bias_scale=0.3)
    for initial in ("nngp", "ntk"):
        settings = {"prior_precision": 1.5, "initial": initial}
        exact = nb.ntk_ensemble(wide, nb.Gaussian(0.2), x, y, **settings)
        real = nb.ntk_ensemble(
            wide, nb.Gaussian(0.2), x, y, **settings, initial_functions="networks"
        )
        num_draws = 300
        draws = np.asarray(real.sample(jax.random.key(0), x_test, num_draws=num_draws))[..., 0]
        covariance = np.asarray(exact.covariance(x_test))[:, 0, :, 0]
        variance = np.diag(covariance)
        mean_error = np.sqrt(variance / num_draws)
        assert np.all(np.abs(draws.mean(axis=0) - exact.mean(x_test)[:, 0]) < 5 * mean_error)
        error = np.sqrt((np.outer(variance, variance) + covariance**2) / num_draws)
        assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * error)
        assert real.settings["initial_functions"] == "networks"
        with pytest.raises(ValueError, match="use initial_functions='exact'"):
            real.covariance(x_test)


@pytest.mark.parametrize("perturb", [False, True])
def test_each_classifier_satisfies_the_stationarity_equation(perturb):
    """At the training points a = K⁻¹(f − f₀) must equal target − softmax(f), so be a score."""
    x, y, _ = classification_data()
    ensemble = nb.ntk_ensemble(
        NETWORK, nb.Categorical(3), x, y, prior_precision=0.1, perturb_targets=perturb
    )
    draws = ensemble.draw(jax.random.key(0), x, num_draws=6)
    assert float(draws.stats["error_bound"].max()) < 1e-3
    again = ensemble.draw(jax.random.key(0), x, num_draws=6)
    np.testing.assert_array_equal(draws.latent, again.latent)
    # the class mean of f is never moved: it stays the class mean of f₀, a GP with covariance Q / c
    spread = np.asarray(ensemble.sample(jax.random.key(1), x, num_draws=4000)).mean(axis=2)
    exact = np.asarray(NETWORK.kernel(x).nngp) / 3
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / 4000)
    assert np.all(np.abs(np.cov(spread.T) - exact) < 5 * error)


def test_targets_are_perturbed_with_the_curvature_at_the_mode():
    """Theory 2.3, where the mode is far from zero: mean 0 and covariance W(f̂)."""
    x, y, _ = classification_data()
    model = (NETWORK, nb.Categorical(3), x, y)
    ensemble = nb.ntk_ensemble(*model, prior_precision=0.05, initial="ntk", perturb_targets=True)
    mode = nb.ntk_ensemble(*model, prior_precision=0.05, initial="zero")
    p = softmax(mode.sample(jax.random.key(0), x, num_draws=1)[0])
    W = np.apply_along_axis(np.diag, 1, p) - p[:, :, None] * p[:, None, :]
    assert np.trace(W, axis1=1, axis2=2).mean() < 0.5  # 2/3 at f = 0
    num_draws = 20_000
    noise = ensemble._score_noise(jax.random.key(0), jnp.zeros((num_draws, *p.shape)))
    noise = np.asarray(noise)
    products = noise[:, :, :, None] * noise[:, :, None, :]
    for sample, exact in ((noise, 0), (products, W)):
        error = sample.std(axis=0) / num_draws**0.5
        assert np.all(np.abs(sample.mean(axis=0) - exact) < 5 * error + 1e-12)


@pytest.mark.parametrize("initial", ["zero", "nngp", "ntk"])
@pytest.mark.slow
def test_classifiers_in_single_precision_are_stationary_in_double(initial):
    """Theory 1.4 at the functions that come out: the members' own certificate, in float64."""
    x, y, _ = classification_data(num_train=12)
    likelihood, single = nb.Categorical(3), np.float32
    ensemble = nb.ntk_ensemble(
        NETWORK, likelihood, np.asarray(x, single), y, prior_precision=0.5, initial=initial
    )
    members = ensemble.members(jax.random.key(0), num_members=3)
    b = members.coefficients
    assert b.dtype == single
    f = np.asarray(ensemble.k_train, float) @ (0.5 * np.asarray(b, float))
    if initial != "zero":
        f = f + np.einsum("ij,sjc->sic", members.functions.factor, members.functions.z)
    score = np.asarray(likelihood.targets(y)) - softmax(f)
    rho = score - 0.5 * np.asarray(b, float)
    length = np.sqrt(np.einsum("sic,ij,sjc->s", rho, np.asarray(ensemble.k_train, float), rho))
    bound = np.asarray(members.stats["error_bound"])
    assert np.all(length <= bound)
    assert np.all(bound * np.sqrt(ensemble.k_train.max()) < 1e-2)
    if initial == "zero":
        double = nb.ntk_ensemble(NETWORK, likelihood, x, y, prior_precision=0.5, initial=initial)
        expected = double.sample(jax.random.key(0), x, num_draws=3)
        np.testing.assert_allclose(f, expected, atol=1e-2)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float32", "in float32 .* use float64 .*a shorter time"),
        ("float64", "in float64 .*how much: use a shorter"),
    ],
)
def test_a_time_too_long_for_a_singular_kernel_is_refused_with_the_type(dtype, words):
    x = np.zeros((3, 2), dtype)
    with pytest.raises(ValueError, match=rf"singular {words}.*larger prior_precision"):
        nb.ntk_ensemble(
            NETWORK, nb.Gaussian(0.1), x, np.arange(3.0), prior_precision=0.0, time=1e20
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior_precision": 0.0}, "prior_precision > 0, label smoothing .*, or a finite time"),
        (
            {"prior_precision": 0.0, "y": np.full((7, 3), 1 / 3), "perturb_targets": True},
            "perturb_targets needs prior_precision > 0",
        ),
        ({"prior_precision": -1.0}, "prior_precision must be zero or positive"),
        ({"prior_precision": 1.0, "initial": "nngpp"}, "did you mean nngp"),
        ({"prior_precision": 1.0, "time": 0.0}, "time must be positive"),
        ({"prior_precision": 1.0, "y": np.zeros(7, dtype=int)}, "one class only"),
        ({"prior_precision": 1.0, "y": np.arange(6) % 3}, "as many rows"),
        ({"prior_precision": 1.0, "x": np.full((7, 2), np.nan)}, "x must be finite"),
        ({"prior_precision": 1.0, "x": np.zeros((0, 2))}, "x is empty"),
    ],
)
def test_impossible_training_is_refused(change, message):
    x, y, _ = classification_data()
    arguments = {"x": x, "y": y} | change
    with pytest.raises(ValueError, match=message):
        nb.ntk_ensemble(NETWORK, nb.Categorical(3), **arguments)
