import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import NETWORK

import ntkbayes as nb
from ntkbayes import _linalg
from ntkbayes._problem import kernel_name
from ntkbayes.kernels import memory
from ntkbayes.kernels.angles import arccosine_kernels, arcsine
from ntkbayes.kernels.gaps import affine_part, angular_gaps, input_gap, prepare_points
from ntkbayes.kernels.tiles import map_tiles
from ntkbayes.networks.neural_tangents import stax

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arccosine_kernels_keep_all_digits_at_every_angle(dtype):
    """Against NumPy in extended precision, from θ = 0 to π; q = 2 sin²(θ/2)."""
    theta = np.concatenate([10.0 ** np.arange(-12, 0), np.linspace(0, np.pi, 999)])
    theta = np.concatenate([theta, np.pi - theta]).astype(np.longdouble)
    q, mirror = ((2 * f(theta / 2) ** 2).astype(dtype) for f in (np.sin, np.cos))
    value, kappa_0 = arccosine_kernels(jnp.asarray(q), jnp.asarray(mirror))
    assert value.dtype == dtype
    pi = np.longdouble(np.pi)
    exact = 1 - (np.sin(theta) + (pi - theta) * np.cos(theta)) / pi
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(kappa_0, (1 - theta / pi).astype(float), rtol=4 * eps, atol=eps / 2)
    np.testing.assert_allclose(value, exact.astype(float), rtol=4 * eps, atol=1e-19)
    # Of the same size as itself even where κ₀ is small: angles near π.
    small = kappa_0[-12:]
    np.testing.assert_allclose(small, (1 - theta[-12:] / pi).astype(float), rtol=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arcsine_keeps_all_digits_at_both_ends(dtype):
    angle = np.concatenate([10.0 ** np.arange(-12, 0), np.linspace(-1.57, 1.57, 999)])
    x = np.sin(angle).astype(dtype)
    gap = (2 * np.sin((np.pi / 2 - np.abs(angle)) / 2) ** 2).astype(dtype)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(arcsine(jnp.asarray(x), jnp.asarray(gap)), angle, rtol=4 * eps)


@pytest.mark.parametrize("function", [lambda q: arccosine_kernels(q, 2 - q), arcsine])
def test_derivatives_of_angles_equal_finite_differences(function):
    def of_q(q):
        return function(q) if function is not arcsine else arcsine(1 - q, q)

    q, h = jnp.linspace(0.01, 0.99, 13), 1e-6
    _, slope = jax.jvp(of_q, (q,), (jnp.ones_like(q),))
    difference = jax.tree.map(lambda a, b: (a - b) / (2 * h), of_q(q + h), of_q(q - h))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7), slope, difference)


def exact_gap(x1, x2):
    x1, x2 = (np.asarray(x, dtype=np.longdouble) for x in (x1, x2))
    norms = [np.sqrt(np.sum(x**2, axis=1)) for x in (x1, x2)]
    units = [x / np.where(r > 0, r, 1)[:, None] for x, r in zip((x1, x2), norms, strict=True)]
    squares = np.sum((units[0][:, None] - units[1][None]) ** 2, axis=2)
    norm = np.outer(*norms) / x1.shape[1]
    return norm.astype(float), (norm * squares / 2).astype(float)


CLOUDS = {
    "spread": RNG.normal(size=(40, 6)),
    "in one direction": 100 + RNG.normal(size=(40, 6)),
    "in clusters": np.repeat(RNG.normal(size=(4, 6)), 10, 0) + 1e-4 * RNG.normal(size=(40, 6)),
    "with all points on a line": RNG.normal(size=(40, 1)),
    "with zeros": np.concatenate([RNG.normal(size=(30, 6)), np.zeros((10, 6))]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_input_gaps_give_angles_to_rounding_near_and_at_coincidence(cloud, dtype):
    """The error of √gap, which is the angle, is a few eps of the norm; not √eps."""
    x = CLOUDS[cloud].astype(dtype)
    x = np.concatenate([x, x[:5], (x[5:10] * 1.5).astype(dtype), x[:5] * dtype(1 + 1e-5)])
    one, two = prepare_points(jnp.asarray(x), jnp.asarray(x[::-1]))
    norm, exact = exact_gap(x, x[::-1])
    error = np.abs(np.sqrt(input_gap(one, two)) - np.sqrt(exact))
    assert np.all(error <= 32 * np.finfo(dtype).eps * np.sqrt(norm))


def test_angular_gaps_are_those_of_the_covariance_with_bias():
    k = np.cov(RNG.normal(size=(2, 9)))
    r, norm = np.sqrt(np.diag(k)), np.sqrt(k[0, 0] * k[1, 1])
    w, b = 1.3, 0.4
    S = w**2 * k + b**2
    rho = S[0, 1] / np.sqrt(S[0, 0] * S[1, 1])
    parts = [affine_part(r[i], np.sqrt(S[i, i]), w, b) for i in (0, 1)]
    gaps = angular_gaps(norm - k[0, 1], norm + k[0, 1], *parts)
    np.testing.assert_allclose(gaps, (1 - rho, 1 + rho), rtol=1e-13)


def pair_function(one, two):
    product = one @ two.T
    return {"sum": product + 1.0, "gap": jnp.sin(product)}


@pytest.mark.parametrize("rows", [40, 61, 96])
@pytest.mark.parametrize("columns", [None, 7, 33, 70])
def test_tiles_make_the_matrix_that_one_plain_call_makes(rows, columns):
    x1 = jnp.asarray(RNG.normal(size=(rows, 3)))
    x2 = None if columns is None else jnp.asarray(RNG.normal(size=(columns, 3)))
    tiled = jax.jit(lambda a, b: map_tiles(pair_function, a, b, size=16))(x1, x2)
    plain = pair_function(x1, x1 if x2 is None else x2)
    for name in plain:
        np.testing.assert_allclose(tiled[name], plain[name], rtol=1e-13, atol=1e-14)
        if x2 is None:
            np.testing.assert_array_equal(tiled[name], tiled[name].T)


@pytest.mark.parametrize("columns", [None, 33])
def test_derivatives_through_tiles_are_those_of_one_plain_call(columns):
    x1 = jnp.asarray(RNG.normal(size=(40, 3)))
    x2 = None if columns is None else jnp.asarray(RNG.normal(size=(columns, 3)))

    def total(size):
        return lambda x: jnp.sum(map_tiles(pair_function, x, x2, size=size)["gap"] ** 3)

    np.testing.assert_allclose(
        jax.jit(jax.grad(total(16)))(x1), jax.grad(total(1000))(x1), rtol=1e-11, atol=1e-13
    )


def test_a_symmetric_kernel_computes_half_of_the_tiles():
    """Of 4 × 4 tiles, ten: counted as they are computed."""
    computed = []

    def counted(one, two):
        jax.debug.callback(computed.append, 1)
        return one @ two.T

    jax.block_until_ready(map_tiles(counted, jnp.zeros((64, 3)), size=16))
    jax.effects_barrier()
    assert len(computed) == 10


@pytest.mark.parametrize("method", ["kernel", "nngp", "ntk"])
@pytest.mark.parametrize("network", [NETWORK, nb.stax_network(stax.serial(stax.Dense(1)))])
def test_kernels_that_do_not_fit_are_refused_before_allocation(monkeypatch, method, network):
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 * 100**2 * 2)
    x = np.zeros((200, 2))
    fitting = {"kernel": 100, "nngp": 141, "ntk": 141}[method]
    message = f"200 × 200 numbers in float64 needs .* up to {fitting} × {fitting} .* would fit"
    with pytest.raises(ValueError, match=message):
        getattr(network, method)(x)


def test_a_kernel_beyond_this_machine_is_refused():
    with pytest.raises(ValueError, match=r"needs 4e.* GB, but .* GB are available"):
        memory.check_memory("a kernel", 10**10, 10**10, jnp.float32)


def test_an_indefinite_kernel_is_refused_with_network_and_smallest_eigenvalue():
    k = np.array(NETWORK.ntk(RNG.normal(size=(5, 2))))
    k[0, 1] = k[1, 0] = 2 * k.max()
    roots = np.sqrt(np.diag(k))
    smallest = np.linalg.eigvalsh(k / np.outer(roots, roots))[0]
    name = kernel_name(NETWORK, "ntk")
    message = f"NTK covariance of the network .*depth 2.*smallest eigenvalue is {smallest:.3g}"
    for check in (_linalg.covariance_factor, _linalg.check_positive_semidefinite):
        with pytest.raises(ValueError, match=message):
            check(jnp.asarray(k), name=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("features", [2, 50])
def test_conditional_variance_of_repeated_inputs_is_rounding(dtype, features):
    """With the raised diagonals of both factors: 2 (n + m) eps max K, once √eps max K."""
    x = RNG.normal(size=(60, features)).astype(dtype)
    test = np.concatenate([x[:20], x[:5] * dtype(1 + 1e-6)])
    k = NETWORK.ntk(x)
    factor = _linalg.covariance_factor(k, name="K")
    none = np.full(25, -1)
    cross, rest = _linalg.extend_factor(
        factor, NETWORK.ntk(x, test), NETWORK.ntk(test), known=none, name="K"
    )
    variance = np.sum(np.asarray(rest)[:20] ** 2, axis=1)
    assert variance.max() < 2 * 85 * np.finfo(dtype).eps * k.max()
    np.testing.assert_allclose(cross[:20], factor[:20], atol=(60 * np.finfo(dtype).eps) ** 0.5)


def test_repeated_inputs_of_a_stax_network_can_still_be_factored():
    """Whose ReLU kernels know coincidence to √eps only."""
    network = nb.stax_network(stax.serial(stax.Dense(1, 1.4, 0.1), stax.Relu(), stax.Dense(1)))
    x = RNG.normal(size=(60, 30))
    k = network.ntk(x)
    factor = _linalg.covariance_factor(k, name="K")
    k_cross, k_test = network.ntk(x, x[:20]), network.ntk(x[:20])
    none = np.full(20, -1)
    cross, rest = _linalg.extend_factor(factor, k_cross, k_test, known=none, name="K")
    assert np.all(np.isfinite(rest))
    error = cross @ cross.T + rest @ rest.T - k_test
    assert np.abs(error).max() < 1.01 * np.finfo(float).eps ** 0.5 * k_test.max()


def test_repeated_rows_are_found_in_any_order():
    x = RNG.normal(size=(5, 3))
    x[3] = 0.0
    test = np.stack([x[4], x[0] + 1e-9, -x[3], x[1], x[4]])
    np.testing.assert_array_equal(_linalg.repeated_rows(x, test), [4, -1, 3, 1, 4])
    np.testing.assert_array_equal(_linalg.repeated_rows(x[[2, 2]], x[[2, 1]]), [0, -1])


@pytest.mark.parametrize("bias_scale", [0.0, 0.3])
def test_compiled_gradients_of_kernels_know_repeated_inputs(bias_scale):
    """Where the derivative of an angle is 0 / 0, of which compiled code may leave 1e-17 / 1e-16."""
    x = RNG.normal(size=(8, 2))
    x = jnp.asarray(np.r_[x, x])
    network = nb.dense_network(depth=2, weight_scale=1.3, bias_scale=bias_scale)

    def total(scale):
        scaled = eqx.tree_at(lambda n: n.weight_scale, network, scale)
        return jnp.sum(jnp.cos(jnp.arange(256.0)).reshape(16, 16) * scaled.ntk(x))

    step = 1e-5
    for at in (0.3, 0.7, 1.3):
        slope = (total(at + step) - total(at - step)) / (2 * step)
        for gradient in (jax.grad(total)(at), jax.jit(jax.grad(total))(at)):
            np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-6)
