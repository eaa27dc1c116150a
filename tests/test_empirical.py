import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_models import (
    FINITE,
    apply_equinox,
    double,
    equinox_stack,
    explicit_ntk,
    jacobian,
    make_equinox,
)

import ntkbayes as nb
from ntkbayes.kernels import memory
from ntkbayes.networks import DenseLayer, DenseStack, empirical
from ntkbayes.networks.neural_tangents import stax
from ntkbayes.networks.products import ProductRoute
from ntkbayes.networks.stack import LayerRoute

X1 = jax.random.normal(jax.random.key(0), (8, 2))
X2 = jax.random.normal(jax.random.key(1), (4, 2))
DENSE = nb.dense_network(depth=2, width=12, activation="erf", bias_scale=0.3)
NETWORKS = {"dense": DENSE, **FINITE}
BY_LAYERS = ("dense", "equinox")
CASES = [("products", name) for name in NETWORKS] + [("layers", name) for name in BY_LAYERS]


def made(network):
    return double(network.init(jax.random.key(0), num_features=2, num_outputs=3))


@pytest.fixture(scope="module")
def jacobians():
    """Of every network at X1 and X2, (n, c, p)."""
    x = jnp.concatenate([X1, X2])
    return {
        name: np.split(jacobian(network, made(network), x), [len(X1)])
        for name, network in NETWORKS.items()
    }


@pytest.mark.parametrize(("route", "name"), CASES)
def test_empirical_ntk_is_the_product_of_the_jacobians(monkeypatch, jacobians, route, name):
    for kind in (LayerRoute, ProductRoute):
        monkeypatch.setattr(kind, "block", lambda self, numbers: 4)
    network, params = NETWORKS[name], made(NETWORKS[name])
    for x2, other in ((None, jacobians[name][0]), (X2, jacobians[name][1])):
        expected = np.einsum("ikp,jlp->ikjl", jacobians[name][0], other)
        ntk = nb.empirical_ntk(network, params, X1, x2, route=route)
        trace = nb.empirical_ntk_trace(network, params, X1, x2, route=route)
        np.testing.assert_allclose(ntk, expected, atol=1e-10)
        np.testing.assert_allclose(trace, np.einsum("ikjk->ij", expected) / 3, atol=1e-10)
        if x2 is None:
            np.testing.assert_array_equal(ntk, ntk.transpose(2, 3, 0, 1))
            np.testing.assert_array_equal(trace, trace.T)


@pytest.mark.parametrize("route", ["layers", "products"])
def test_little_memory_makes_small_tiles_of_the_same_kernel(monkeypatch, jacobians, route):
    whole = nb.empirical_ntk(DENSE, made(DENSE), X1, X2, route=route)
    blocks = []
    for kind in (LayerRoute, ProductRoute):
        block = kind.block
        monkeypatch.setattr(
            kind, "block", lambda self, n, block=block: blocks.append(block(self, n)) or blocks[-1]
        )
    monkeypatch.setattr(empirical, "WORKSPACE_BYTES", 12_000)
    tiles = nb.empirical_ntk(DENSE, made(DENSE), X1, X2, route=route)
    assert 1 <= blocks[0] < 8
    np.testing.assert_allclose(tiles, whole, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_matrix_free_products_equal_those_with_the_jacobian(jacobians, name):
    network, params = NETWORKS[name], made(NETWORKS[name])
    matrix = jacobians[name][0].reshape(24, -1)
    linearization = nb.linearize(network, params, X1)
    v = jax.random.normal(jax.random.key(2), (8, 3))
    np.testing.assert_allclose(
        linearization.ntk_product(v).ravel(), matrix @ (matrix.T @ v.ravel()), atol=1e-10
    )
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(linearization.vjp(v))])
    np.testing.assert_allclose(flat, matrix.T @ v.ravel(), atol=1e-10)
    np.testing.assert_allclose(linearization.value, network.apply(params, X1), atol=1e-12)
    # From below, and after k steps from a random start in dimension 24 mostly above 24^(-1/2k).
    largest = np.linalg.eigvalsh(matrix @ matrix.T)[-1]
    assert (
        24 ** (-1 / 60) * largest
        < float(linearization.largest_ntk_eigenvalue())
        <= largest * (1 + 1e-12)
    )


def normal_parameters(network, num_outputs, num_networks):
    """Stacked N(0, 1) parameters, as both libraries parameterise dense layers."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(
        lambda key: network.init(key, num_features=2, num_outputs=num_outputs), jax.random.key(0)
    )
    return jax.tree.map(lambda leaf: rng.normal(size=(num_networks, *leaf.shape)), shapes)


def test_empirical_ntk_of_wide_networks_is_the_infinite_kernel_times_identity():
    """The relative error falls as width^-1/2: by √8 from width 64 to 512."""
    errors = []
    for width in (64, 512):
        network = nb.dense_network(depth=2, width=width, bias_scale=0.3)
        params = normal_parameters(network, 3, 16)
        kernels = jax.lax.map(lambda p, network=network: nb.empirical_ntk(network, p, X2), params)
        exact = np.einsum("ij,kl->ikjl", network.kernel(X2).ntk, np.eye(3))
        errors.append(np.mean((np.asarray(kernels) - exact) ** 2) ** 0.5 / np.mean(exact**2) ** 0.5)
    # The ratio varies by 2 % between seeds, and the next order of the error is 1 / width.
    assert abs(errors[0] / errors[1] - 8**0.5) < 0.4
    assert errors[1] < 0.15


@pytest.mark.filterwarnings("ignore:`FanIn` layers assume independent inputs")
def test_mean_empirical_ntk_of_a_residual_network_is_that_of_neural_tangents():
    """An architecture without layers known to us, within 5 standard errors plus O(1/width)."""
    width, num_networks = 32, 100
    branch = stax.serial(stax.Relu(), stax.Dense(width, 1.2, 0.3))
    residual = stax.serial(
        stax.FanOut(2), stax.parallel(branch, stax.Identity()), stax.FanInSum(), stax.Relu()
    )
    triple = stax.serial(stax.Dense(width, 1.4, 0.2), residual, stax.Dense(2, 1.0, 0.1))
    network = nb.stax_network(triple)
    params = normal_parameters(network, 2, num_networks)
    samples = jax.lax.map(lambda p: nb.empirical_ntk_trace(network, p, X2), params)
    exact = np.asarray(network.kernel(X2).ntk)
    error = samples.std(axis=0) / num_networks**0.5
    assert np.all(np.abs(samples.mean(axis=0) - exact) < 5 * error + exact.max() / width)


@pytest.mark.parametrize("route", ["layers", "products"])
def test_float32_networks_have_float32_kernels(route):
    params = DENSE.init(jax.random.key(0), num_features=2, num_outputs=3)
    expected = explicit_ntk(DENSE, params, X1, X2)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    ntk = nb.empirical_ntk(DENSE, params, *(x.astype(jnp.float32) for x in (X1, X2)), route=route)
    assert ntk.dtype == jnp.float32
    np.testing.assert_allclose(ntk, expected, rtol=1e-4, atol=1e-5)


def test_empirical_ntk_under_jit_equals_eager():
    for network in (DENSE, FINITE["equinox"]):
        params = made(network)
        jitted = jax.jit(lambda p, x, network=network: nb.empirical_ntk(network, p, x))(params, X1)
        np.testing.assert_allclose(jitted, nb.empirical_ntk(network, params, X1), atol=1e-12)


def test_a_result_too_large_is_refused_with_the_ways_out(monkeypatch):
    params = made(DENSE)
    monkeypatch.setattr(memory, "available_bytes", lambda: 15 * 15 * 8)
    with pytest.raises(ValueError, match=r"24 × 24 .* up to 15 × 15 .* empirical_ntk_trace is"):
        nb.empirical_ntk(DENSE, params, X1)
    nb.empirical_ntk(DENSE, params, X1[:5])
    nb.empirical_ntk_trace(DENSE, params, X1)
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 * 7 * 8)
    with pytest.raises(ValueError, match="multiply with it by linearize"):
        nb.empirical_ntk_trace(DENSE, params, X1)


def shared(model):
    """A claim with the right function but a layer's weights counted twice."""
    layers = equinox_stack(model).layers
    return DenseStack([layers[0], layers[1], layers[1], layers[-1]], model.activation)


def repeated(model, x):
    first, second, last = model.layers

    def one(row):
        h = model.activation(second(model.activation(first(row))))
        return last(model.activation(second(h)))

    return jax.vmap(one)(x)


def scaled(model):
    """A claim with the right function but a constant inside the weight."""
    first, *others = equinox_stack(model).layers
    half = DenseLayer(0.5 * first.weight, first.bias, weight_scale=2.0)
    return DenseStack([half, *others], model.activation)


@pytest.mark.parametrize(("apply", "claim"), [(repeated, shared), (apply_equinox, scaled)])
def test_a_wrong_claim_about_layers_is_refused(apply, claim):
    network = nb.finite_network(make_equinox, apply, dense_stack=claim)
    params = made(network)
    with pytest.raises(ValueError, match="dense_stack contradicts apply_fn"):
        nb.empirical_ntk(network, params, X1)
    with pytest.raises(eqx.EquinoxRuntimeError, match="dense_stack contradicts apply_fn"):
        eqx.filter_jit(lambda p: nb.empirical_ntk(network, p, X1))(params)
    expected = explicit_ntk(network, params, X1, X1)
    ntk = nb.empirical_ntk(network, params, X1, route="products")
    np.testing.assert_allclose(ntk, expected, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"route": "layer"}, "did you mean layers"),
        ({"route": "layers"}, "route='layers' needs a stack of dense layers"),
        ({"x1": X1.at[2, 1].set(jnp.nan)}, "x1 must be finite"),
        ({"x2": X2[:0]}, "x2 is empty"),
    ],
)
def test_impossible_kernels_are_refused(change, message):
    network = FINITE["flax linen"]
    with pytest.raises(ValueError, match=message):
        nb.empirical_ntk(network, made(network), **({"x1": X1} | change))


def test_a_kernel_that_overflows_is_refused():
    network = nb.dense_network(depth=1, width=4)
    params = network.init(jax.random.key(0), num_features=3, num_outputs=1)
    with pytest.raises(ValueError, match=r"empirical NTK at these params .*overflows float64"):
        nb.empirical_ntk(network, params, np.full((2, 3), 1e160))
