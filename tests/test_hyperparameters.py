"""Hyperparameters: objectives against naive evaluation, gradients, optima, and refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from models import NETWORK, classification_data, exact_gp, regression_data
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct, WhiteKernel

import ntkbayes as nb
from ntkbayes._problem import training_set
from ntkbayes.hyperparameters import objectives, plot_optimization_trace, search, selection
from ntkbayes.hyperparameters.objectives import Model, objective_and_gradient

KEY = jax.random.key(0)
X, Y_CLASS, X_VAL = classification_data(num_train=9, num_test=4)
COUNTS = np.array([0.0, 1, 3, 0, 2, 1, 5, 0, 1])
LABELS = np.array([0.0, 1, 0, 1, 1, 0, 1, 0, 0])
VALUES = np.stack([np.sin(np.arange(9)), np.cos(np.arange(9))], axis=1)
CASES = {
    "gaussian": (nb.Gaussian(0.1, num_outputs=2), VALUES, VALUES[:4] + 0.3),
    "softmax": (nb.Categorical(3), Y_CLASS, np.array([2, 0, 1, 1])),
    "bernoulli": (nb.Bernoulli(), LABELS, np.array([1.0, 0, 1, 1])),
    "poisson": (nb.Poisson(), COUNTS, np.array([0.0, 4, 1, 2])),
}
SCALES = ("prior_precision", "weight_scale", "bias_scale")


def names_of(likelihood):
    return SCALES + (("noise_variance",) if isinstance(likelihood, nb.Gaussian) else ())


def log_values(model):
    return {name: jnp.log(float(model.value(name))) for name in names_of(model.likelihood)}


def evaluate(case, point=None, *, validate=False, kernel="ntk"):
    """Value and gradient of what is minimised, at logarithms `point` or the model's own."""
    likelihood, y, y_val = CASES[case]
    model = Model(NETWORK, likelihood, 0.2, kernel)
    validation = training_set(likelihood, X_VAL, y_val) if validate else None
    train = training_set(likelihood, X, y)
    point = log_values(model) if point is None else point
    value, gradient, _ = objective_and_gradient(point, model, train, validation)
    return float(value), gradient


def laplace_at(case, point):
    """`nb.laplace` with hyperparameters given by their logarithms."""
    likelihood, y, _ = CASES[case]
    values = {name: float(jnp.exp(value)) for name, value in point.items()}
    network = nb.dense_network(
        depth=2, weight_scale=values["weight_scale"], bias_scale=values["bias_scale"]
    )
    return nb.laplace(network, likelihood, X, y, prior_precision=values["prior_precision"])


@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
def test_the_gaussian_objective_is_that_of_scikit_learn(kernel):
    """Inputs are rows of a root of K, whose dot products scikit-learn takes itself."""
    pair = NETWORK.kernel(X)
    root = np.linalg.cholesky(np.asarray(getattr(pair, kernel)) / 0.2)
    covariance = DotProduct(0.0, sigma_0_bounds="fixed") + WhiteKernel(0.1)
    reference = GaussianProcessRegressor(covariance, optimizer=None, alpha=0).fit(root, VALUES)
    value, gradient = evaluate("gaussian", kernel=kernel)
    theta = np.log([0.1])
    expected, slopes = reference.log_marginal_likelihood(theta, eval_gradient=True)
    np.testing.assert_allclose(-value, expected, rtol=1e-10)
    np.testing.assert_allclose(-gradient["noise_variance"], slopes[0], rtol=1e-8)


@pytest.mark.parametrize("case", ["softmax", "bernoulli", "poisson"])
@pytest.mark.slow
def test_the_gradient_of_the_evidence_is_the_finite_difference_of_laplaces(case):
    """Steps h leave errors h² · third derivative ≈ 1e-6, and mode error 1e-8 / h = 1e-5."""
    model = Model(NETWORK, CASES[case][0], 0.2, "ntk")
    point, h = log_values(model), 1e-3
    value, gradient = evaluate(case)
    here = laplace_at(case, point).log_marginal_likelihood
    np.testing.assert_allclose(-value, here, rtol=1e-7)
    for name in point:
        up, down = (
            laplace_at(case, point | {name: point[name] + step}).log_marginal_likelihood
            for step in (h, -h)
        )
        np.testing.assert_allclose(-gradient[name], (up - down) / (2 * h), atol=1e-4, rtol=1e-4)


def test_the_gradient_of_the_gaussian_evidence_is_its_finite_difference():
    """Errors are h² · third derivative, 1e-6."""
    point, h = log_values(Model(NETWORK, CASES["gaussian"][0], 0.2, "ntk")), 1e-3
    gradient = evaluate("gaussian")[1]
    for name in point:
        up, down = (evaluate("gaussian", point | {name: point[name] + step})[0] for step in (h, -h))
        np.testing.assert_allclose(gradient[name], (up - down) / (2 * h), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_the_gradient_of_the_validation_objective_is_its_finite_difference():
    """Errors are h² · third derivative, 1e-6."""
    case, h = "softmax", 1e-3
    point = log_values(Model(NETWORK, CASES[case][0], 0.2, "ntk"))
    _, gradient = evaluate(case, validate=True)
    for name in point:
        up, down = (
            evaluate(case, point | {name: point[name] + step}, validate=True)[0] for step in (h, -h)
        )
        np.testing.assert_allclose(gradient[name], (up - down) / (2 * h), atol=1e-5, rtol=1e-5)


def test_the_gaussian_validation_objective_is_the_closed_form():
    likelihood, y, y_val = CASES["gaussian"]
    k = np.asarray(NETWORK.kernel(np.concatenate([X, X_VAL])).ntk) / 0.2
    mean, covariance = exact_gp(k, 0.1, y, len(X))
    scale = np.sqrt(np.diag(covariance) + likelihood.noise_variance)
    expected = -norm.logpdf(y_val, mean, scale[:, None]).sum()
    np.testing.assert_allclose(evaluate("gaussian", validate=True)[0], expected, rtol=1e-9)


@pytest.mark.parametrize("case", ["softmax", "poisson"])
@pytest.mark.slow
def test_the_validation_objective_is_the_predictive_of_many_laplace_draws(case):
    """With plain Monte Carlo, from the marginal moments of `nb.laplace`."""
    likelihood, y, y_val = CASES[case]
    posterior = nb.laplace(NETWORK, likelihood, X, y, prior_precision=0.2)
    mean, full = np.asarray(posterior.mean(X_VAL)), np.asarray(posterior.covariance(X_VAL))
    rng, num_draws, total, variance = np.random.default_rng(0), 100_000, 0.0, 0.0
    targets = likelihood.targets(np.concatenate([np.asarray(y), y_val]))[len(y) :]
    for i in range(len(y_val)):
        f = rng.multivariate_normal(mean[i], full[i, :, i, :], num_draws)
        p = np.exp(np.asarray(jax.vmap(likelihood.log_prob, (None, 0))(targets[i], jnp.asarray(f))))
        total -= np.log(p.mean())
        variance += p.var() / num_draws / p.mean() ** 2
    # The quasi-Monte-Carlo mean of 256 points errs by some 1/256 of the spread of p.
    found = evaluate(case, validate=True)[0]
    assert abs(found - total) < 5 * math.sqrt(variance) + 0.01 * len(y_val)


def prior_draw(num_train=60, noise_variance=0.05, prior_precision=2.0):
    """Data of which the hyperparameters are known."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(num_train, 2))
    k = np.asarray(NETWORK.kernel(x).ntk) / prior_precision
    factor = np.linalg.cholesky(k + noise_variance * np.eye(num_train))
    return x, factor @ rng.normal(size=num_train)


@pytest.fixture(scope="module")
def found():
    x, y = prior_draw()
    return nb.select_hyperparameters(
        NETWORK, nb.Gaussian(0.5), x, y, key=KEY, num_restarts=3,
        parameters=["noise_variance", "prior_precision"],
    )  # fmt: skip


def dense_evidence(x, y, prior_precision, noise_variance):
    k = np.asarray(NETWORK.kernel(x).ntk) / prior_precision + noise_variance * np.eye(len(x))
    log_det = np.linalg.slogdet(2 * np.pi * k)[1]
    return -0.5 * y @ np.linalg.solve(k, y) - 0.5 * log_det


def test_the_optimum_is_stationary_and_above_the_truth(found):
    x, y = prior_draw()
    best = [found.prior_precision, found.likelihood.noise_variance]
    np.testing.assert_allclose(found.value, dense_evidence(x, y, *best), rtol=1e-9)
    assert found.value > dense_evidence(x, y, 2.0, 0.05)
    for i in range(2):
        slope = (
            dense_evidence(x, y, *(v * (1 + 1e-5 * (i == j)) for j, v in enumerate(best)))
            - found.value
        ) / 1e-5
        assert abs(slope) < 2 * search.STATIONARY
    assert found.at_bound == ()
    assert found.num_agreeing == len(found.restarts) == 3
    assert "3 of 3 restarts agree" in found.summary
    assert "WARNING" not in found.summary


def test_one_hyperparameter_is_that_of_a_search_over_the_dense_formula():
    x, y = prior_draw()
    found = nb.select_hyperparameters(
        NETWORK, nb.Gaussian(0.05), x, y, key=KEY, parameters=["prior_precision"], num_restarts=1
    )
    reference = scipy.optimize.minimize_scalar(
        lambda log: -dense_evidence(x, y, np.exp(log), 0.05), bracket=(-1, 1), tol=1e-10
    )
    np.testing.assert_allclose(found.value, -reference.fun, rtol=1e-9)
    # A slope of STATIONARY / 10 over a curvature of n/2 = 30.
    np.testing.assert_allclose(np.log(found.prior_precision), reference.x, atol=1e-4)
    assert list(found.trace["restart"].unique()) == [0]


def test_the_trace_holds_every_evaluation_and_its_best_is_selected(found):
    trace = found.trace
    assert len(trace) == found.restarts["num_evaluations"].sum()
    starts = trace[trace["iteration"] == 0]
    np.testing.assert_allclose(
        starts[["prior_precision", "noise_variance"]].to_numpy()[0], [1.0, 0.5]
    )
    assert starts["prior_precision"].nunique() == 3
    assert trace["value"].max() == found.value
    best = trace.loc[trace["value"].idxmax()]
    assert {n: best[n] for n in found.values} == pytest.approx(found.values, rel=1e-15)
    x, y = prior_draw()
    row = trace[~trace["accepted"]].iloc[0]
    expected = dense_evidence(x, y, row["prior_precision"], row["noise_variance"])
    np.testing.assert_allclose(row["value"], expected, rtol=1e-9)


def test_accepted_evaluations_of_a_restart_improve_on_each_other(found):
    for _, rows in found.trace[found.trace["accepted"]].groupby("restart"):
        assert len(rows) > 3
        assert np.all(np.diff(rows["value"]) >= -1e-9 * abs(found.value))


def test_the_same_key_gives_the_same_search_and_another_one_other_starts(found):
    x, y = prior_draw()

    def select(key):
        return nb.select_hyperparameters(
            NETWORK, nb.Gaussian(0.5), x, y, key=key, num_restarts=3,
            parameters=["noise_variance", "prior_precision"],
        )  # fmt: skip

    again, other = select(KEY), select(jax.random.key(1))
    assert again.trace.equals(found.trace)
    assert not np.isin(other.trace["prior_precision"][1:], found.trace["prior_precision"]).all()
    np.testing.assert_allclose(other.value, found.value, atol=1e-4)  # slope² / curvature


@pytest.mark.slow
def test_classes_are_searched_to_a_stationary_point_of_laplaces_evidence():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 2))
    y = (x[:, 0] + 0.5 * rng.normal(size=30) > 0).astype(int) + (x[:, 1] > 0.8)
    start = nb.laplace(NETWORK, nb.Categorical(3), x, y, prior_precision=1.0)
    found = nb.select_hyperparameters(
        NETWORK, nb.Categorical(3), x, y, key=KEY, num_restarts=1,
        parameters=["prior_precision", "bias_scale"],
    )  # fmt: skip
    at = [
        nb.laplace(
            found.network, found.likelihood, x, y, prior_precision=found.prior_precision * factor
        ).log_marginal_likelihood
        for factor in (1.0, 1.05, 1 / 1.05)
    ]
    np.testing.assert_allclose(found.value, at[0], rtol=1e-6)
    assert at[0] > max(at[1:])
    assert found.value > start.log_marginal_likelihood
    assert found.network.bias_scale == found.values["bias_scale"] != NETWORK.bias_scale
    assert found.network.weight_scale == NETWORK.weight_scale


def test_an_optimum_on_a_bound_is_warned_of_by_name_bound_and_remedy():
    x, y = prior_draw()
    with pytest.warns(UserWarning, match=r"noise_variance = 0.3, its lower bound; widen bounds\["):
        found = nb.select_hyperparameters(
            NETWORK, nb.Gaussian(0.5), x, y, key=KEY, num_restarts=1,
            parameters=["noise_variance"], bounds={"noise_variance": (0.3, 10)},
        )  # fmt: skip
    assert found.at_bound == ("noise_variance",)
    assert "WARNING: the optimum sits on a bound" in found.summary
    assert found.likelihood.noise_variance == pytest.approx(0.3)


def test_an_unfinished_search_is_warned_of(monkeypatch):
    x, y = prior_draw()
    monkeypatch.setattr(search, "MAX_ITERATIONS", 1)
    monkeypatch.setattr(search, "MAX_RUNS", 1)
    with pytest.warns(UserWarning, match="did not converge: a slope of"):
        nb.select_hyperparameters(NETWORK, nb.Gaussian(0.5), x, y, key=KEY, num_restarts=1)


def test_validation_data_choose_what_predicts_them_best():
    x, y = prior_draw()
    found = nb.select_hyperparameters(
        NETWORK, nb.Gaussian(0.5), x[:40], y[:40], x_val=x[40:], y_val=y[40:], key=KEY,
        objective="validation_nll", parameters=["noise_variance"], num_restarts=1,
    )  # fmt: skip

    def naive(log_noise):
        noise = np.exp(log_noise)
        mean, cov = exact_gp(np.asarray(NETWORK.kernel(x).ntk), noise, y[:40], 40)
        return -norm.logpdf(y[40:], mean, np.sqrt(np.diag(cov) + noise)).mean()

    reference = scipy.optimize.minimize_scalar(naive, bracket=(-4, -1), tol=1e-10)
    np.testing.assert_allclose(found.value, reference.fun, rtol=1e-6)
    np.testing.assert_allclose(naive(np.log(found.likelihood.noise_variance)), found.value)


def failing_above(limit, monkeypatch):
    """Let the mode be lost where the prior precision is above a limit."""
    evaluate = search.objective_and_gradient

    def wrapped(point, *arguments):
        value, gradient, residual = evaluate(point, *arguments)
        return value, gradient, jnp.where(point["prior_precision"] > np.log(limit), 1.0, residual)

    monkeypatch.setattr(search, "objective_and_gradient", wrapped)


def test_failed_evaluations_are_kept_and_the_search_goes_on(found, monkeypatch):
    """The first step from λ = 0.01 overshoots to above 50; the optimum is near 2."""
    failing_above(50, monkeypatch)
    x, y = prior_draw()
    again = nb.select_hyperparameters(
        NETWORK, nb.Gaussian(0.5), x, y, key=KEY, num_restarts=1, prior_precision=0.01,
        parameters=["noise_variance", "prior_precision"],
    )  # fmt: skip
    failed = again.trace[again.trace["failure"] != ""]
    assert len(failed) == again.restarts["num_failures"].sum() > 0
    assert failed["value"].isna().all()
    assert not failed["accepted"].any()
    assert set(failed["failure"]) == {"the mode was not found"}
    np.testing.assert_allclose(again.value, found.value, atol=1e-4)
    assert "evaluations failed" in again.summary


def test_a_mode_that_is_known_well_enough_for_laplace_is_told_of_once(monkeypatch):
    evaluate = search.objective_and_gradient

    def rounded(*arguments):
        return *evaluate(*arguments)[:2], jnp.array(0.02)

    monkeypatch.setattr(search, "objective_and_gradient", rounded)
    x, y = prior_draw(num_train=12)
    with pytest.warns(UserWarning, match="off by 0.02 latent units.*bound prior_precision") as told:
        found = nb.select_hyperparameters(
            NETWORK, nb.Gaussian(0.05), x, y, key=KEY, parameters=["noise_variance"],
            num_restarts=1,
        )  # fmt: skip
    assert len([w for w in told if "latent units" in str(w.message)]) == 1
    assert not found.restarts["num_failures"].any()


def test_a_kernel_that_rounding_leaves_indefinite_is_a_failure_and_not_an_error():
    x = np.random.default_rng(0).normal(size=(200, 1))
    y = (x[:, 0] > 0).astype(int)
    likelihood, train = nb.Bernoulli(), training_set(nb.Bernoulli(), x.astype(np.float32), y)
    model = Model(nb.dense_network(activation="erf"), likelihood, 1e-7, "ntk")
    point = {"prior_precision": math.log(1e-7)}
    assert search.evaluate(point, model, train, None)[-1] == "a matrix is not positive definite"


def test_a_search_without_any_success_is_refused_with_the_reason(monkeypatch):
    failing_above(1e-9, monkeypatch)
    x, y = prior_draw()
    with pytest.raises(ValueError, match=r"no restart succeeded \(the mode was not found\)"):
        nb.select_hyperparameters(NETWORK, nb.Gaussian(0.5), x, y, key=KEY, num_restarts=2)


def test_a_matrix_that_cannot_be_factored_is_a_failure():
    """x of 1e160 has a kernel of infinity."""
    likelihood, train = nb.Bernoulli(), training_set(nb.Bernoulli(), 1e160 * X, LABELS)
    model = Model(NETWORK, likelihood, 0.2, "ntk")
    point = {name: float(value) for name, value in log_values(model).items()}
    value, gradient, _, failure = search.evaluate(point, model, train, None)
    assert failure
    assert np.isnan([value, *gradient]).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"parameters": ["noise"]}, "unknown parameter 'noise': did you mean noise_variance"),
        ({"parameters": []}, "parameters is empty"),
        ({"parameters": ["noise_variance"]}, "a Categorical has no noise_variance"),
        ({"bounds": {"depth": (1, 2)}}, "unknown parameter in bounds 'depth'"),
        ({"bounds": {"bias_scale": (0, 2)}}, "bounds of bias_scale must be positive"),
        ({"bounds": {"bias_scale": (2, 1)}}, "in order, but are 2, 1"),
        ({"bounds": {"bias_scale": (1, 2)}}, "bias_scale starts at 0.3, outside its bounds 1 to 2"),
        ({"num_restarts": 0}, "num_restarts must be at least 1"),
        ({"prior_precision": 0}, "prior_precision must be positive"),
        ({"objective": "evidence"}, "unknown objective 'evidence'"),
        ({"kernel": "both"}, "unknown kernel 'both'"),
        ({"objective": "validation_nll"}, "needs x_val and y_val"),
        ({"x_val": X_VAL}, "count for objective 'validation_nll' only"),
        (
            {"objective": "validation_nll", "x_val": X_VAL, "y_val": Y_CLASS[:3]},
            r"one row per row of x_val \(4\)",
        ),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        nb.select_hyperparameters(NETWORK, nb.Categorical(3), X, Y_CLASS, key=KEY, **settings)


def test_scales_of_other_networks_and_scales_of_zero_are_refused():
    from ntkbayes.networks.neural_tangents import stax

    layers = stax.serial(stax.Dense(8), stax.Relu(), stax.Dense(1))
    with pytest.raises(ValueError, match="a StaxNetwork has no weight_scale"):
        nb.select_hyperparameters(
            nb.stax_network(layers), nb.Bernoulli(), X, LABELS, key=KEY, parameters=["weight_scale"]
        )
    model = Model(nb.stax_network(layers), nb.Gaussian(0.1), 1.0, "ntk")
    assert selection._names(model, None) == ["prior_precision", "noise_variance"]
    without_bias = Model(nb.dense_network(bias_scale=0.0), nb.Bernoulli(), 1.0, "ntk")
    assert selection._names(without_bias, None) == ["prior_precision", "weight_scale"]
    with pytest.raises(ValueError, match="bias_scale is 0, which has no logarithm"):
        selection._names(without_bias, ["bias_scale"])


@pytest.mark.parametrize("likelihood", [nb.Gaussian(0.1), nb.Bernoulli()], ids=["Gaussian", "0/1"])
def test_in_single_precision_the_same_is_chosen(likelihood):
    x, y, _ = regression_data()
    x, y = np.float32(x), np.float32(y)
    if isinstance(likelihood, nb.Bernoulli):
        y = (y > np.median(y)).astype(np.int32)
    chosen = []
    for is_double in (True, False):
        with jax.enable_x64(is_double):
            chosen.append(
                nb.select_hyperparameters(
                    NETWORK, likelihood, x, y, key=jax.random.key(0), num_restarts=1,
                    parameters=["prior_precision"],
                )
            )  # fmt: skip
            assert jnp.result_type(float) == (jnp.float64 if is_double else jnp.float32)
    assert chosen[0].value == pytest.approx(chosen[1].value, rel=1e-10)
    assert chosen[0].prior_precision == pytest.approx(chosen[1].prior_precision, rel=1e-6)


def test_the_figure_shows_every_restart_and_the_bounds(found):
    figure = plot_optimization_trace(found)
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == ["log marginal likelihood (nats)", "prior precision", "noise variance"]
    precision = figure.axes[1]
    lines = [np.asarray(line.get_ydata()) for line in precision.lines]
    bounds = [line[0] for line in lines if len(line) == 2 and line[0] == line[1]]
    assert bounds == list(found.bounds["prior_precision"])
    for restart, rows in found.trace[found.trace["accepted"]].groupby("restart"):
        assert any(np.array_equal(line, rows["prior_precision"]) for line in lines), restart
    rings = [line for line in lines if len(line) == 1]
    assert rings == [pytest.approx([found.prior_precision])]


def test_quasi_random_normals_have_normal_moments():
    """A Sobol' set of 256 points errs far less than the 1/16 of random ones."""
    z = np.asarray(objectives._qmc_normals(3))
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=0.06)
    np.testing.assert_array_equal(z, objectives._qmc_normals(3))
