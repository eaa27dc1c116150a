"""Laplace of finite networks: naive formulas, exact special cases, laplace-torch, statsmodels."""

import json
from functools import cache
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from finite_models import (
    FINITE,
    apply_equinox,
    double,
    equinox_stack,
    jacobian,
    linear_model,
)
from models import classification_data, regression_data, softmax

import ntkbayes as nb
from ntkbayes.networks import DenseLayer, DenseStack

X, _, X_TEST = classification_data(num_train=9)
Y = jnp.argmax(X @ jnp.array([[1.0, -1.0, 0.0], [0.0, 0.3, -1.0]]), axis=1)
SMOOTH = nb.dense_network(depth=2, width=7, activation="erf", bias_scale=0.3)
EQUINOX = nb.finite_network(
    lambda key: eqx.nn.MLP(2, 3, width_size=6, depth=2, activation=jnp.tanh, key=key),
    apply_equinox,
    dense_stack=equinox_stack,
)
PRECISION = 0.05
REFERENCE = json.loads((Path(__file__).parent / "references/laplace_torch.json").read_text())


@pytest.fixture(scope="module")
def trained():
    """Network → its parameters: one at a mode, one at random."""
    model, key = (nb.Categorical(3), X, Y), jax.random.key(0)
    found = nb.map_estimate(SMOOTH, *model, prior_precision=PRECISION, key=key, tolerance=1e-6)
    # Not the trivial mode, where all weights are zero.
    assert np.all(np.argmax(SMOOTH.apply(found.params, X), axis=1) == np.asarray(Y))
    return {SMOOTH: found.params, EQUINOX: EQUINOX.init(key, num_features=2, num_outputs=3)}


def fit(network, params, **settings):
    accepted = 0.5 if network is SMOOTH else np.inf
    settings = {"prior_precision": PRECISION, "max_newton_decrement": accepted} | settings
    settings |= {"params": params}
    return nb.linearized_laplace(network, nb.Categorical(3), X, Y, **settings)


@pytest.fixture(scope="module")
def smooth(trained):
    """Settings → posterior of the dense network, each fitted once."""

    @cache
    def fitted(**settings):
        return fit(SMOOTH, trained[SMOOTH], **settings)

    return fitted


def ggn(network, params, x=X, selected=slice(None)):
    """Jᵢ (n c p) and Σᵢ Jᵢᵀ Wᵢ Jᵢ by loops over the data."""
    rows = jacobian(network, params, x)[:, :, selected]
    total = np.zeros((rows.shape[2], rows.shape[2]))
    for row, p in zip(rows, softmax(network.apply(params, jnp.asarray(x))), strict=True):
        total += row.T @ (np.diag(p) - np.outer(p, p)) @ row
    return rows, total


def last_layer_size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params[-1]))


def naive_covariance(precision, rows):
    return np.einsum("icp,pq,jdq->icjd", rows, np.linalg.inv(precision), rows)


@pytest.mark.parametrize("form", ["weight", "dual"])
@pytest.mark.parametrize("network", [SMOOTH, EQUINOX], ids=["dense", "equinox"])
def test_the_full_structure_equals_the_dense_formula(network, form, trained):
    params = trained[network]
    posterior = fit(network, params, form=form)
    precision = ggn(network, params)[1] + PRECISION * np.eye(ggn(network, params)[1].shape[0])
    test_rows = jacobian(network, params, X_TEST)
    expected = naive_covariance(precision, test_rows)
    np.testing.assert_allclose(posterior.covariance(X_TEST), expected, atol=1e-8)
    np.testing.assert_allclose(
        posterior.variance(X_TEST), np.einsum("icic->ic", expected), atol=1e-8
    )
    log_det = np.linalg.slogdet(precision / PRECISION)[1]
    np.testing.assert_allclose(posterior.posterior.log_det, log_det, rtol=1e-8)
    np.testing.assert_allclose(posterior.mean(X_TEST), network.apply(params, X_TEST), rtol=1e-12)


@pytest.mark.parametrize("subset", ["all", "last_layer"])
def test_the_weight_and_the_dual_form_are_the_same_posterior(subset, trained):
    one, other = (
        fit(SMOOTH, trained[SMOOTH], form=form, subset_of_weights=subset)
        for form in ("weight", "dual")
    )
    for name in ("covariance", "variance"):
        np.testing.assert_allclose(
            getattr(one, name)(X_TEST), getattr(other, name)(X_TEST), atol=1e-8
        )
    np.testing.assert_allclose(
        one.log_marginal_likelihood, other.log_marginal_likelihood, rtol=1e-8
    )
    v = jax.random.normal(jax.random.key(1), (2, one.posterior.weights.theta.size))
    np.testing.assert_allclose(one.posterior.product(v), other.posterior.product(v), atol=1e-8)


def test_the_log_marginal_likelihood_is_the_joint_density_less_half_the_log_determinant(trained):
    params = trained[SMOOTH]
    p = softmax(SMOOTH.apply(params, X))
    fit_term = np.log(p[np.arange(len(Y)), np.asarray(Y)]).sum()
    squares = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(params))
    total = ggn(SMOOTH, params)[1]
    log_det = np.linalg.slogdet(np.eye(len(total)) + total / PRECISION)[1]
    expected = fit_term - 0.5 * PRECISION * squares - 0.5 * log_det
    found = fit(SMOOTH, params).log_marginal_likelihood
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_last_layer_posterior_holds_the_other_weights_fixed(trained):
    params = trained[SMOOTH]
    last = slice(-last_layer_size(params), None)
    _, total = ggn(SMOOTH, params, selected=last)
    precision = total + PRECISION * np.eye(len(total))
    posterior = fit(SMOOTH, params, subset_of_weights="last_layer")
    rows = jacobian(SMOOTH, params, X_TEST)[:, :, last]
    np.testing.assert_allclose(
        posterior.covariance(X_TEST), naive_covariance(precision, rows), atol=1e-8
    )
    squares = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(params[-1]))
    p = softmax(SMOOTH.apply(params, X))
    fit_term = np.log(p[np.arange(len(Y)), np.asarray(Y)]).sum()
    log_det = np.linalg.slogdet(precision / PRECISION)[1]
    expected = fit_term - 0.5 * PRECISION * squares - 0.5 * log_det
    np.testing.assert_allclose(posterior.log_marginal_likelihood, expected, rtol=1e-10)


def test_the_diagonal_structure_inverts_the_diagonal(trained):
    params = trained[SMOOTH]
    precision = np.diag(np.diag(ggn(SMOOTH, params)[1]) + PRECISION)
    rows = jacobian(SMOOTH, params, X_TEST)
    posterior = fit(SMOOTH, params, hessian_structure="diag")
    np.testing.assert_allclose(
        posterior.covariance(X_TEST), naive_covariance(precision, rows), atol=1e-8
    )
    log_det = np.linalg.slogdet(precision / PRECISION)[1]
    np.testing.assert_allclose(posterior.posterior.log_det, log_det, rtol=1e-8)


@pytest.mark.parametrize("kron_bias", ["joint", "separate"])
@pytest.mark.parametrize("network", [SMOOTH, EQUINOX], ids=["dense", "equinox"])
def test_the_kronecker_structure_equals_its_factors_put_together(network, kron_bias, trained):
    """Blocks (1/n) Σ ā āᵀ ⊗ Σ δᵀ W δ, from Jacobians of each layer's preactivations.

    A bias of its own has ā = β: the block β² Σ δᵀ W δ.
    """
    params = trained[network]
    layers = (
        [(layer["weight"], layer["bias"]) for layer in params]
        if network is SMOOTH
        else [(layer.weight.T, layer.bias) for layer in params.layers]
    )
    scales = [2**0.5 / 2**0.5, 2**0.5 / 7**0.5, 1 / 7**0.5] if network is SMOOTH else [1.0] * 3
    bias = 0.3 if network is SMOOTH else 1.0
    function = jax.scipy.special.erf if network is SMOOTH else jnp.tanh

    def forward(shifts, x):
        inputs, h = [], x
        for index, (weight, b) in enumerate(layers):
            inputs.append(jnp.append(scales[index] * h, bias))
            z = scales[index] * h @ weight + bias * b + shifts[index]
            h = function(z)
        return z, inputs

    zeros = [jnp.zeros(weight.shape[1]) for weight, _ in layers]
    at_zero = jax.jit(
        lambda x: (jax.jacobian(lambda s: forward(s, x)[0])(zeros), forward(zeros, x))
    )
    inner = [0] * 3
    outer = [0] * 3
    for x in X:
        deltas, (f, inputs) = at_zero(x)
        p = softmax(f)
        for index in range(3):
            inner[index] += np.outer(inputs[index], inputs[index]) / len(X)
            delta = np.asarray(deltas[index])
            outer[index] += delta.T @ (np.diag(p) - np.outer(p, p)) @ delta
    deltas, (_, inputs) = at_zero(X_TEST[0])
    expected, log_det = 0, 0
    whole = [slice(None)] if kron_bias == "joint" else [slice(None, -1), slice(-1, None)]
    for a, g, delta, h in zip(inner, outer, deltas, inputs, strict=True):
        for part in whole:
            block = np.kron(a[part, part], g)
            block = block + PRECISION * np.eye(len(block))
            rows = np.einsum("i,co->cio", h[part], delta).reshape(3, -1)
            expected += rows @ np.linalg.solve(block, rows.T)
            log_det += np.linalg.slogdet(block / PRECISION)[1]
    posterior = fit(network, params, hessian_structure="kron", kron_bias=kron_bias)
    assert posterior.settings["kron_bias"] == kron_bias
    np.testing.assert_allclose(posterior.covariance(X_TEST)[0, :, 0], expected, atol=1e-8)
    np.testing.assert_allclose(posterior.posterior.log_det, log_det, rtol=1e-8)


def test_the_kronecker_structure_of_the_last_layer_is_its_block_alone(trained):
    params = trained[SMOOTH]
    every = fit(SMOOTH, params, hessian_structure="kron").posterior
    last = fit(SMOOTH, params, hessian_structure="kron", subset_of_weights="last_layer").posterior
    assert [block is None for block in last.blocks] == [True, True, False]
    np.testing.assert_array_equal(last.blocks[2].precision, every.blocks[2].precision)
    v = jnp.zeros(every.weights.theta.size).at[-5:].set(1.0)
    size = last.weights.theta.size
    np.testing.assert_allclose(
        last.product(v[None, -size:])[0], every.product(v[None])[0, -size:], atol=1e-12
    )


STRUCTURES = {
    "weight": {"form": "weight"},
    "dual": {"form": "dual"},
    "kron": {"hessian_structure": "kron"},
    "diag": {"hessian_structure": "diag"},
    "last layer": {"subset_of_weights": "last_layer"},
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_draws_have_the_closed_form_moments(structure, smooth):
    posterior = smooth(**STRUCTURES[structure])
    num_draws = 20_000
    draws = np.asarray(posterior.sample(jax.random.key(0), X_TEST, num_draws=num_draws))
    draws = draws.reshape(num_draws, -1)
    exact = np.asarray(posterior.covariance(X_TEST)).reshape(9, 9)
    variance = np.diag(exact)
    error = np.sqrt((np.outer(variance, variance) + exact**2) / num_draws)
    assert np.all(np.abs(np.cov(draws.T) - exact) < 5 * error)
    difference = draws.mean(axis=0) - np.asarray(posterior.mean(X_TEST)).ravel()
    assert np.all(np.abs(difference) < 5 * np.sqrt(variance / num_draws))


def orthogonal_features(num_points=12, num_features=3):
    """Inputs whose second moments are a multiple of the identity."""
    x = np.random.default_rng(1).normal(size=(num_points, num_features))
    return np.linalg.svd(x, full_matrices=False)[0] * 3


LINEAR = nb.finite_network(
    lambda key: {"readout": jax.random.normal(key, (3, 2))},
    lambda params, x: x @ params["readout"],
    dense_stack=lambda params: DenseStack([DenseLayer(params["readout"], None)], jax.nn.relu),
)
EXACT = STRUCTURES | {"last layer": {"subset_of_weights": lambda params: params["readout"]}}


@pytest.mark.parametrize("structure", EXACT)
def test_every_structure_is_the_exact_posterior_of_linear_regression_where_it_can_be(structure):
    """Two outputs share the Gram matrix of the features, which is diagonal: all are exact."""
    x = orthogonal_features()
    y = np.random.default_rng(2).normal(size=(12, 2))
    model, noise, precision = (LINEAR, nb.Gaussian(0.3, 2), x, y), 0.3, 0.7
    found = nb.map_estimate(
        *model, prior_precision=precision, key=jax.random.key(0), tolerance=1e-9
    )
    posterior = nb.linearized_laplace(
        *model, prior_precision=precision, params=found.params, **EXACT[structure]
    )
    k, k_cross, k_test = (a @ b.T / precision for a, b in ((x, x), (x, x[:4]), (x[:4], x[:4])))
    noisy = k + noise * np.eye(12)
    covariance = k_test - k_cross.T @ np.linalg.solve(noisy, k_cross)
    np.testing.assert_allclose(
        posterior.mean(x[:4]), k_cross.T @ np.linalg.solve(noisy, y), atol=1e-8
    )
    for output in range(2):
        np.testing.assert_allclose(
            posterior.covariance(x[:4])[:, output, :, output], covariance, atol=1e-10
        )
    evidence = sum(
        -0.5 * (t @ np.linalg.solve(noisy, t) + np.linalg.slogdet(2 * np.pi * noisy)[1])
        for t in y.T
    )
    np.testing.assert_allclose(posterior.log_marginal_likelihood, evidence, rtol=1e-10)


def readout(params):
    return params[4:]


@cache
def torch_network(num_outputs):
    def apply(params, x):
        for weight, bias in zip(params[0:4:2], params[1:4:2], strict=True):
            x = jnp.tanh(x @ weight.T + bias[None])
        return x @ params[4].T + params[5][None]

    def stack(params):
        layers = zip(params[0::2], params[1::2], strict=True)
        return DenseStack([DenseLayer(weight.T, bias) for weight, bias in layers], jnp.tanh)

    shapes = [(8, 2), (8,), (6, 8), (6,), (num_outputs, 6), (num_outputs,)]
    return nb.finite_network(
        lambda key: [jnp.zeros(shape) for shape in shapes], apply, dense_stack=stack
    )


@pytest.mark.parametrize("structure", ["full", "diag", "kron"])
@pytest.mark.parametrize("subset", ["all", "last_layer"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_laplace_torch_gives_the_same_posterior(task, subset, structure):
    """Stored numbers of tests/references/laplace_torch.py, with its versions."""
    stored = REFERENCE[task]
    expected = stored["posteriors"][f"{subset} {structure}"]
    x, y = np.asarray(stored["x"]), np.asarray(stored["y"])
    likelihood = (
        nb.Categorical(3) if task == "classification"
        else nb.Gaussian(REFERENCE["noise_variance"], 2)
    )  # fmt: skip
    posterior = nb.linearized_laplace(
        torch_network(likelihood.num_outputs),
        likelihood,
        x[:30],
        y[:30],
        prior_precision=REFERENCE["prior_precision"],
        params=[jnp.asarray(leaf) for leaf in stored["params"]],
        hessian_structure=structure,
        subset_of_weights="all" if subset == "all" else readout,
        form="weight" if structure == "full" else "auto",
        kron_bias="separate" if structure == "kron" else "joint",
    )
    np.testing.assert_allclose(posterior.mean(x[30:]), expected["mean"], atol=1e-6)
    covariance = np.einsum("icid->icd", np.asarray(posterior.covariance(x[30:])))
    np.testing.assert_allclose(covariance, expected["covariance"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        posterior.log_marginal_likelihood, expected["log_marginal_likelihood"], rtol=1e-5
    )
    if task == "classification":
        probabilities = nb.probit_probabilities(posterior, x[30:])
        np.testing.assert_allclose(probabilities, expected["probit"], atol=1e-6)


def test_with_a_vanishing_prior_it_is_statsmodels_logit():
    """Spector & Mazzeo 1980: coefficients, standard errors and log likelihood."""
    spector = sm.datasets.spector.load_pandas()
    x = sm.add_constant(spector.exog.to_numpy(), prepend=True)
    y = spector.endog.to_numpy().astype(int)
    network = nb.finite_network(lambda key: jnp.zeros(4), lambda w, x: x @ w[:, None])
    model, precision = (network, nb.Bernoulli(), x, y), 1e-9
    found = nb.map_estimate(
        *model, prior_precision=precision, key=jax.random.key(0), tolerance=1e-1
    )
    posterior = nb.linearized_laplace(*model, prior_precision=precision, params=found.params)
    np.testing.assert_allclose(found.params, [-13.021, 2.826, 0.095, 2.379], atol=1e-3)
    errors = np.sqrt(posterior.variance(np.eye(4))[:, 0])
    np.testing.assert_allclose(errors, [4.931, 1.263, 0.142, 1.065], atol=1e-3)
    np.testing.assert_allclose(-found.value, -12.890, atol=1e-3)
    logit = sm.Logit(y, x).fit(disp=False)
    np.testing.assert_allclose(found.params, logit.params, rtol=1e-5)
    np.testing.assert_allclose(errors, logit.bse, rtol=1e-5)
    np.testing.assert_allclose(-found.value, logit.llf, rtol=1e-7)


def test_a_longer_training_leads_to_a_mode_and_a_shorter_one_is_refused():
    model = (SMOOTH, nb.Categorical(3), X, Y)
    settings = {"prior_precision": PRECISION, "key": jax.random.key(0)}
    with pytest.warns(UserWarning, match="still in training after 2 steps"):
        short = nb.map_estimate(*model, max_steps=2, **settings)
    assert not short.converged
    with pytest.raises(ValueError, match=r"no mode of the posterior.*Train further"):
        fit(SMOOTH, short.params)
    accepted = fit(SMOOTH, short.params, max_newton_decrement=np.inf)
    assert accepted.newton_decrement > 0.5
    long = nb.map_estimate(*model, tolerance=1e-6, **settings)
    assert long.converged
    assert fit(SMOOTH, long.params).newton_decrement < 1e-4


def test_the_newton_decrement_is_the_dense_formula(trained):
    params = jax.tree.map(lambda leaf: 1.02 * leaf, trained[SMOOTH])
    f = SMOOTH.apply(params, X)
    rows, total = ggn(SMOOTH, params)
    theta = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    score = np.eye(3)[np.asarray(Y)] - softmax(f)
    gradient = PRECISION * theta - np.einsum("icp,ic->p", rows, score)
    precision = total + PRECISION * np.eye(len(theta))
    expected = np.sqrt(gradient @ np.linalg.solve(precision, gradient))
    posterior = fit(SMOOTH, params, max_newton_decrement=np.inf)
    np.testing.assert_allclose(posterior.newton_decrement, expected, rtol=1e-8)


def test_the_prior_center_moves_the_mode_and_the_evidence(trained):
    model, key = (SMOOTH, nb.Categorical(3), X, Y), jax.random.key(3)
    found = nb.map_estimate(*model, prior_precision=1e4, key=key, center="initial")
    start = SMOOTH.init(key, num_features=2, num_outputs=3)
    jax.tree.map(np.testing.assert_array_equal, found.center, start)
    # So strong a prior leaves the function where it was.
    np.testing.assert_allclose(SMOOTH.apply(found.params, X), SMOOTH.apply(start, X), atol=0.02)
    posterior = nb.linearized_laplace(
        *model, prior_precision=1e4, params=found.params, center=found.center
    )
    p = softmax(SMOOTH.apply(start, X))
    expected = np.log(p[np.arange(len(Y)), np.asarray(Y)]).sum()
    np.testing.assert_allclose(posterior.log_marginal_likelihood, expected, atol=0.1)


def test_the_map_of_a_wide_network_is_the_mode_of_its_empirical_kernel():
    """Linear in its weights: the mode of the Gaussian process with kernel J Jᵀ / λ."""
    network = linear_model()
    x, _, _ = regression_data(num_train=10)
    labels = np.arange(10) % 2
    found = nb.map_estimate(
        network,
        nb.Bernoulli(),
        x,
        labels,
        prior_precision=0.5,
        key=jax.random.key(0),
        tolerance=1e-8,
    )
    k = np.asarray(nb.empirical_ntk(network, found.params, x))[:, 0, :, 0] / 0.5
    f = np.asarray(network.apply(found.params, x))[:, 0]
    np.testing.assert_allclose(f, k @ (labels - 1 / (1 + np.exp(-f))), atol=1e-6)


def test_single_precision_inputs_give_a_single_precision_posterior(trained, smooth):
    x = X.astype(np.float32)
    posterior = nb.linearized_laplace(
        SMOOTH, nb.Categorical(3), x, Y, prior_precision=PRECISION, params=trained[SMOOTH],
        form="weight",
    )  # fmt: skip
    double_precision = smooth(form="weight")
    covariance = posterior.covariance(X_TEST)
    assert covariance.dtype == np.float32
    np.testing.assert_allclose(
        covariance, double_precision.covariance(X_TEST), rtol=1e-3, atol=1e-4
    )


def test_probit_is_close_to_the_mean_over_draws(smooth):
    posterior = smooth(form="weight")
    draws = posterior.sample(jax.random.key(0), X_TEST, num_draws=50_000)
    monte_carlo = softmax(draws).mean(axis=0)
    error = np.abs(nb.probit_probabilities(posterior, X_TEST) - monte_carlo).max()
    # Off by some hundredths, where ignoring the variance is off by more than twice as much.
    assert 2 * error < np.abs(softmax(posterior.mean(X_TEST)) - monte_carlo).max()


@pytest.mark.parametrize(
    ("network", "changes", "match"),
    [
        (SMOOTH, {"prior_precision": 0.0}, "prior_precision must be positive"),
        (SMOOTH, {"hessian_structure": "fulll"}, "unknown hessian_structure 'fulll'"),
        (SMOOTH, {"subset_of_weights": "first"}, "unknown subset_of_weights 'first'"),
        (SMOOTH, {"subset_of_weights": lambda params: ()}, "selects no parameter"),
        (SMOOTH, {"form": "primal"}, "unknown form 'primal'"),
        (SMOOTH, {"form": "dual", "hessian_structure": "diag"}, "form='dual' goes with"),
        (
            SMOOTH,
            {
                "subset_of_weights": lambda params: params[-1]["weight"],
                "hessian_structure": "kron",
            },
            "takes whole layers",
        ),
        (SMOOTH, {"kron_bias": "none", "hessian_structure": "kron"}, "unknown kron_bias 'none'"),
        (SMOOTH, {"kron_bias": "separate"}, "kron_bias='separate' goes with"),
        (SMOOTH, {"center": [jnp.zeros(3)]}, "center must be laid out like the network's param"),
    ],
)
def test_bad_settings_are_refused(network, changes, match, trained):
    with pytest.raises(ValueError, match=match):
        fit(network, trained[network], **changes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda leaf: leaf[:1], "center must be laid out like .*, but has shapes"),
        (lambda leaf: jnp.nan * leaf, "center must be finite"),
    ],
)
def test_centers_that_do_not_fit_are_refused(change, match, trained):
    center = jax.tree.map(change, trained[EQUINOX])
    with pytest.raises(ValueError, match=match):
        fit(EQUINOX, trained[EQUINOX], center=center)


def test_params_that_are_not_finite_are_refused(trained):
    params = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), trained[SMOOTH])
    with pytest.raises(ValueError, match="params must be finite"):
        fit(SMOOTH, params)


@pytest.mark.parametrize("structure", ["full", "kron", "diag"])
def test_the_last_layer_of_a_declared_stack_is_the_one_that_a_function_picks(structure, trained):
    settings = {"hessian_structure": structure}
    named, picked = (
        fit(EQUINOX, trained[EQUINOX], subset_of_weights=subset, **settings)
        for subset in ("last_layer", lambda model: (model.layers[-1].weight, model.layers[-1].bias))
    )
    assert named.posterior.weights.theta.size == 3 * 6 + 3
    np.testing.assert_allclose(named.covariance(X_TEST), picked.covariance(X_TEST), atol=1e-12)
    np.testing.assert_allclose(
        named.log_marginal_likelihood, picked.log_marginal_likelihood, rtol=1e-12
    )


def test_the_last_layer_needs_a_declared_stack_and_a_true_one(trained):
    undeclared = FINITE["flax linen"]
    params = double(undeclared.init(jax.random.key(0), num_features=2, num_outputs=3))
    with pytest.raises(ValueError, match=r"last layer of a FiniteNetwork is not known: .*dense_st"):
        fit(undeclared, params, subset_of_weights="last_layer", max_newton_decrement=np.inf)
    wrong = nb.finite_network(
        EQUINOX.init_fn, apply_equinox,
        dense_stack=lambda model: DenseStack(equinox_stack(model).layers, jax.nn.relu),
    )  # fmt: skip
    with pytest.raises(ValueError, match="dense_stack contradicts apply_fn"):
        fit(wrong, trained[EQUINOX], subset_of_weights="last_layer")


def test_kron_needs_known_layers():
    network = FINITE["flax linen"]
    params = double(network.init(jax.random.key(0), num_features=2, num_outputs=3))
    with pytest.raises(ValueError, match="needs a stack of dense layers"):
        fit(network, params, hessian_structure="kron", max_newton_decrement=np.inf)


@pytest.mark.parametrize(
    ("form", "match"),
    [("weight", "the posterior precision of 3 matrices"), ("dual", "the dual Hessian of 4 matri")],
)
def test_matrices_that_do_not_fit_are_refused_before_they_are_allocated(
    form, match, trained, monkeypatch
):
    monkeypatch.setattr("ntkbayes.kernels.memory.available_bytes", lambda: 10_000)
    with pytest.raises(ValueError, match=match):
        fit(SMOOTH, trained[SMOOTH], form=form)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prior_precision": -1.0}, "prior_precision must be positive"),
        ({"center": "middle"}, "unknown center 'middle'"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
    ],
)
def test_bad_settings_of_the_training_are_refused(changes, match):
    settings = {"prior_precision": 1.0, "key": jax.random.key(0)} | changes
    with pytest.raises(ValueError, match=match):
        nb.map_estimate(SMOOTH, nb.Categorical(3), X, Y, **settings)


def test_progress_of_the_training_rises_to_one_and_an_interrupt_ends_it():
    fractions = []
    settings = {"prior_precision": PRECISION, "key": jax.random.key(0)}
    nb.map_estimate(SMOOTH, nb.Categorical(3), X, Y, progress=fractions.append, **settings)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0

    def interrupt(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nb.map_estimate(SMOOTH, nb.Categorical(3), X, Y, progress=interrupt, **settings)


def test_a_prior_variance_that_overflows_is_named():
    network = nb.finite_network(lambda key: jax.random.normal(key, (2, 1)), lambda w, x: x @ w)
    x, y, _ = regression_data()
    posterior = nb.linearized_laplace(
        network, nb.Gaussian(1.0), x, y, prior_precision=0.01, params=jnp.zeros((2, 1)),
        form="dual", max_newton_decrement=np.inf,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"kernel over prior_precision = 0\.01, overflows float64"):
        posterior.variance(np.full((1, 2), 5e153))
