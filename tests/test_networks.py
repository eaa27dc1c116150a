import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.kernels import tiles
from ntkbayes.networks import DenseNetwork
from ntkbayes.networks.activations import ACTIVATIONS
from ntkbayes.networks.neural_tangents import stax

X1 = jax.random.normal(jax.random.key(0), (6, 3))
X2 = jax.random.normal(jax.random.key(1), (4, 3))
STAX = {
    "relu": stax.Relu,
    "leaky_relu": lambda: stax.LeakyRelu(0.01),
    "erf": stax.Erf,
    "gelu": stax.Gelu,
    "sin": stax.Sin,
}


def stax_twin(activation, depth=3, readout_scale=1.0):
    layers = [stax.Dense(1, 1.3, 0.2), STAX[activation]()] * depth
    return nb.stax_network(stax.serial(*layers, stax.Dense(2, readout_scale, 0.2)))


def own(activation, depth=3, bias_scale=0.2, weight_scale=1.3, readout_scale=1.0):
    return nb.dense_network(
        depth=depth, activation=activation, weight_scale=weight_scale, bias_scale=bias_scale,
        readout_scale=readout_scale,
    )  # fmt: skip


@pytest.mark.parametrize(("depth", "readout_scale"), [(1, 1.0), (3, 1.0), (2, 1.5)])
@pytest.mark.parametrize("activation", STAX)
def test_kernels_equal_neural_tangents(activation, depth, readout_scale):
    """Cross and symmetric. Its ReLU angles are known to √eps only where inputs coincide."""
    ours, other = (
        make(activation, depth, readout_scale=readout_scale) for make in (own, stax_twin)
    )
    symmetric, cross, reference = ours.kernel(X1), ours.kernel(X1, X2), other.kernel(X1, X2)
    np.testing.assert_allclose(cross.nngp, reference.nngp, atol=1e-10)
    np.testing.assert_allclose(cross.ntk, reference.ntk, atol=1e-10)
    reference = other.kernel(X1)
    coincide = np.eye(6) if activation.endswith("relu") else np.zeros((6, 6))
    np.testing.assert_allclose(symmetric.nngp, reference.nngp, atol=1e-10)
    error = np.abs(symmetric.ntk - reference.ntk)
    assert np.all(error < 1e-10 + 1e-6 * coincide)


@pytest.mark.parametrize("network", [own("gelu"), stax_twin("gelu")])
@pytest.mark.parametrize("x2", [None, X2])
def test_single_kernels_equal_those_of_the_pair(network, x2):
    pair = network.kernel(X1, x2)
    np.testing.assert_allclose(network.nngp(X1, x2), pair.nngp, rtol=1e-13)
    np.testing.assert_allclose(network.ntk(X1, x2), pair.ntk, rtol=1e-13)


def gaussian_mean(function, s12, s1, s2):
    """E[function(u, v)] by Gauss-Legendre on panels that end where u or v changes sign."""
    nodes, weights = np.polynomial.legendre.leggauss(90)

    def panel(low, high):
        half = 0.5 * (high - low)
        return half[..., None] * nodes + 0.5 * (high + low)[..., None], half[..., None] * weights

    def normal(z):
        return np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)

    total, limit, rest = 0.0, np.array(9.0), np.sqrt(s2 - s12**2 / s1)
    for low, high in ((-limit, 0 * limit), (0 * limit, limit)):
        z1, w1 = panel(low, high)
        kink = np.clip(-s12 / s1**0.5 * z1 / rest, -limit, limit)
        for low2, high2 in ((np.full_like(kink, -limit), kink), (kink, np.full_like(kink, limit))):
            z2, w2 = panel(low2, high2)
            u = s1**0.5 * z1[:, None] + 0 * z2
            v = s12 / s1**0.5 * z1[:, None] + rest * z2
            weight = (w1 * normal(z1))[:, None] * w2 * normal(z2)
            total += np.sum(weight * function(u, v))
    return total


def expectations(phi, rho, s1, s2):
    """E[φφ] and E[φ'φ'] from the gap that an activation returns."""
    one, two = phi.scale(jnp.asarray(s1)), phi.scale(jnp.asarray(s2))
    gap, derivative = phi.pair(jnp.asarray(1 - rho), jnp.asarray(1 + rho), one, two)
    return one.after * two.after - gap, derivative


@pytest.mark.parametrize("rho", [-0.95, -0.3, 0.0, 0.6, 0.99])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_expectations_equal_the_integrals_that_define_them(activation, rho):
    phi = ACTIVATIONS[activation]
    slope = jax.vmap(jax.vmap(jax.grad(phi.function)))
    s1, s2 = 0.7, 2.3
    s12 = rho * np.sqrt(s1 * s2)
    ours = expectations(phi, rho, s1, s2)
    for value, function in zip(ours, (phi.function, slope), strict=True):
        exact = gaussian_mean(lambda u, v, f=function: np.asarray(f(u) * f(v)), s12, s1, s2)
        np.testing.assert_allclose(value, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_diagonal_is_the_limit_of_coinciding_inputs(activation):
    s = jnp.array([1e-9, 0.3, 5.0, 1e5])
    phi = ACTIVATIONS[activation]
    for own_formula, limit in zip(phi.diagonal(s), expectations(phi, 1.0, s, s), strict=True):
        np.testing.assert_allclose(own_formula, limit, rtol=1e-10)


def test_a_wide_finite_network_has_the_kernels_of_its_readout_scale():
    """He et al.'s: 1.5 in every layer. Means within 5 standard errors plus O(1/width)."""
    scales = {"weight_scale": 1.5, "bias_scale": 0.05, "readout_scale": 1.5}
    network = nb.dense_network(depth=1, width=1024, activation="erf", **scales)
    kernel = network.kernel(X1[:3])

    @jax.jit
    def one_network(key):
        params = network.init(key, num_features=3, num_outputs=4)
        f = network.apply(params, X1[:3])
        return f @ f.T / 4, nb.empirical_ntk_trace(network, params, X1[:3])

    samples = jax.lax.map(one_network, jax.random.split(jax.random.key(3), 300))
    for values, exact in zip(samples, (kernel.nngp, kernel.ntk), strict=True):
        error = values.std(axis=0) / np.sqrt(len(values))
        width_bias = 2 / 1024 * np.asarray(exact).max()
        assert np.all(np.abs(values.mean(axis=0) - exact) < 5 * error + width_bias)
    # The standard errors tell it from a readout of scale 1.
    assert np.all(5 * error + width_bias < 0.2 * np.diag(np.asarray(kernel.ntk)).min())
    assert network.settings()["readout_scale"] == 1.5


@pytest.mark.parametrize("activation", ["leaky_relu", "gelu"])
@pytest.mark.slow
def test_kernels_are_the_moments_of_finite_networks(activation):
    """Mean over random networks of f fᵀ and of J Jᵀ, within 5 standard errors plus O(1/width)."""
    network = nb.dense_network(depth=2, width=256, activation=activation, bias_scale=0.4)

    def one_network(key):
        params = network.init(key, num_features=3, num_outputs=1)
        f = network.apply(params, X1)[:, 0]
        jacobian = jax.jacobian(lambda p: network.apply(p, X1)[:, 0])(params)
        flat = jnp.concatenate([leaf.reshape(6, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
        return jnp.outer(f, f), flat @ flat.T

    covariances, tangents = jax.lax.map(one_network, jax.random.split(jax.random.key(2), 600))
    kernel = network.kernel(X1)
    for samples, exact in ((covariances, kernel.nngp), (tangents, kernel.ntk)):
        error = samples.std(axis=0) / np.sqrt(len(samples))
        width_bias = 2 / 256 * np.asarray(exact).max()
        assert np.all(np.abs(samples.mean(axis=0) - exact) < 5 * error + width_bias)


def difficult_inputs(dtype):
    """Repeated, nearly repeated, opposite and collinear inputs, zeros, and norms 1e-6 to 1e6."""
    unit = np.asarray(X1 / jnp.linalg.norm(X1, axis=1, keepdims=True))
    near = unit + 1e-5 * np.asarray(X1)
    parts = [unit, unit[:2], near, -unit[:2], 2 * unit[:2], np.zeros((2, 3)), 1e-6 * unit]
    return np.concatenate([*parts, 1e6 * unit, 1e6 * unit[:2]]).astype(np.float32).astype(dtype)


@pytest.mark.parametrize("bias_scale", [0.0, 0.2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.slow
def test_kernels_of_difficult_inputs_keep_their_accuracy(activation, bias_scale):
    """Symmetric, semidefinite, equal to the cross kernel, and float32 close to float64.

    All relative to √(K₁₁K₂₂). Opposite inputs are known to √eps only without a bias. Inputs of
    norm r are known to r eps, and a smooth activation sees the square of that. Without the fused
    multiply-adds that optimised code has, errors are ten times as large.
    """
    network = own(activation, depth=2, bias_scale=bias_scale)
    kernel = jax.jit(network.kernel, compiler_options={"xla_backend_optimization_level": 3})
    exact = kernel(difficult_inputs(np.float64))
    for dtype in (np.float32, np.float64):
        x, eps = difficult_inputs(dtype), np.finfo(dtype).eps
        r = np.linalg.norm(x.astype(float), axis=1)
        seen = 0 if activation.endswith("relu") else eps**2 * np.outer(r, r)
        symmetric, cross = kernel(x), kernel(x, x)
        for name in ("nngp", "ntk"):
            k = np.asarray(getattr(symmetric, name))
            assert k.dtype == dtype
            np.testing.assert_array_equal(k, k.T)
            scale = np.sqrt(np.diag(k).astype(float))
            scale = np.where(scale > 0, scale, 1)
            unit = k / np.outer(scale, scale)
            assert np.linalg.eigvalsh(unit)[0] > -len(x) * eps
            error = np.asarray(getattr(cross, name)) / np.outer(scale, scale) - unit
            assert np.all(np.abs(error) < 8 * eps + seen)
            error = np.asarray(getattr(exact, name)) / np.outer(scale, scale) - unit
            opposite = (x[:, None] == -x[None]).all(axis=2)
            assert np.all(np.abs(error) < np.where(opposite, eps**0.5, 32 * eps) + seen)


@pytest.mark.parametrize(
    ("activation", "bias_scale"),
    [*((name, 0.2) for name in ACTIVATIONS), ("relu", 0.0), ("gelu", 0.0)],
)
@pytest.mark.slow
def test_derivatives_by_the_scales_equal_finite_differences(activation, bias_scale):
    """Also where inputs repeat or vanish; without a bias by its scale from b = 0, one-sided."""
    x = jnp.concatenate([X1, X1[:2], jnp.zeros((1, 3)), 1e-3 * X1])

    def total(scales):
        network = DenseNetwork(2, 1, activation, scales[0], scales[1])
        pair = network.kernel(x, jnp.concatenate([x[:3], X2]))
        return jnp.sum(network.ntk(x)) + jnp.sum(pair.ntk * pair.nngp)

    scales, h = jnp.array([1.3, bias_scale]), 1e-5
    gradient = jax.grad(total)(scales)
    for i, step in enumerate(h * jnp.eye(2)):
        if scales[i] > 0:
            difference = (total(scales + step) - total(scales - step)) / (2 * h)
            np.testing.assert_allclose(gradient[i], difference, rtol=2e-7)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.slow
def test_derivatives_by_the_inputs_equal_finite_differences(activation):
    """Also at a zero input, where the norm has none but the kernel has."""
    x1 = jnp.concatenate([X1[:2], jnp.zeros((1, 3))])
    weights = jax.random.normal(jax.random.key(3), (3, 4))
    network = own(activation, depth=2)

    def total(x):
        return jnp.sum(weights * network.ntk(x, X2)) + jnp.sum(network.nngp(x)[0])

    gradient, h = jax.grad(total)(x1), 1e-6
    for index in np.ndindex(x1.shape):
        step = jnp.zeros_like(x1).at[index].set(h)
        difference = (total(x1 + step) - total(x1 - step)) / (2 * h)
        np.testing.assert_allclose(gradient[index], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.slow
def test_derivatives_by_inputs_that_coincide_are_finite(activation):
    x = jnp.concatenate([X1, X1[:2], jnp.zeros((2, 3))])
    network = own(activation, depth=2, bias_scale=0.0)
    gradient = jax.grad(lambda x: jnp.sum(network.ntk(x)) + jnp.sum(network.ntk(x, X1)))(x)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("x2", [None, X2])
@pytest.mark.slow
def test_tiles_under_jit_vmap_and_grad_equal_the_plain_kernel(x2, monkeypatch):
    """With tiles of 16 rows; over a stack of two sets of inputs."""
    network = own("relu", depth=2)
    stack = jax.random.normal(jax.random.key(4), (2, 37, 3))

    def total(x):
        return jnp.sum(network.ntk(x, x2) ** 2)

    plain = [network.ntk(x, x2) for x in stack], jax.grad(total)(stack[0])
    monkeypatch.setattr(tiles, "largest_tile", lambda: 16)
    jax.clear_caches()
    tiled = jax.jit(jax.vmap(lambda x: network.ntk(x, x2)))(stack), jax.grad(total)(stack[0])
    np.testing.assert_allclose(tiled[0], jnp.stack(plain[0]), rtol=1e-13)
    np.testing.assert_allclose(tiled[1], plain[1], rtol=1e-11, atol=1e-12)
    jax.clear_caches()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth must be at least 1"),
        ({"activation": "rleu"}, "did you mean relu"),
        ({"weight_scale": -1.0}, "weight_scale must be positive"),
        ({"readout_scale": 0.0}, "readout_scale must be positive"),
    ],
)
def test_impossible_networks_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        nb.dense_network(**settings)


@pytest.mark.parametrize(
    ("x1", "x2", "message"),
    [
        (X1.at[2, 1].set(jnp.nan), None, "x1 must be finite"),
        (X1, X2.at[0, 0].set(jnp.inf), "x2 must be finite"),
        (X1, X2[:, :2], r"x2 has \(4, 2\) where x1 has \(6, 3\)"),
        (X1[0], None, r"x1 must have shape \(n, d\), but has \(3,\)"),
        (X1, X2[:0], "x2 is empty"),
        (X1, X2.tolist(), "x2 must be an array, but is a list"),
    ],
)
def test_kernels_refuse_impossible_inputs(x1, x2, message):
    with pytest.raises(ValueError, match=message):
        nb.dense_network().kernel(x1, x2)


def test_stax_network_with_other_outputs_than_the_likelihood_is_refused():
    with pytest.raises(ValueError, match="has 2 outputs, but the likelihood needs 5"):
        stax_twin("relu").init(jax.random.key(0), num_features=3, num_outputs=5)


WIDE_X = np.random.default_rng(3).normal(size=(5, 50))
SCALE_DOWN, SCALE_UP = "scale the inputs down, such as by st", "scale the inputs up, such as by st"


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize(
    ("settings", "factor", "dtype", "message"),
    [
        ({}, 1e19, "float32", rf"x1 makes .*overflow in float32.*: use float64 .*or {SCALE_DOWN}"),
        ({}, 1e160, "float64", rf"x1 makes .*overflow in float64.*{SCALE_DOWN}andardising them\.$"),
        ({"activation": "erf"}, 1e30, "float32", rf"overflow in float32.*{SCALE_DOWN}"),
        ({"bias_scale": 0.0}, 1e-25, "float32", rf"x1 makes .*underflow in float32.*{SCALE_UP}"),
        ({"bias_scale": 0.0}, 1e-160, "float64", rf"underflow in float64.*{SCALE_UP}"),
        ({"weight_scale": 100.0, "depth": 20}, 1.0, "float32", "choose other scales .*depth 20"),
        ({"weight_scale": 1e200}, 1.0, "float32", r"choose other scales .*weight_scale 1e\+200"),
        ({"bias_scale": 1e20}, 1.0, "float32", r"choose other scales .*bias_scale 1e\+20"),
        ({"readout_scale": 1e20}, 1.0, "float32", r"choose other scales .*readout_scale 1e\+20"),
        (
            {"weight_scale": 1e-9, "bias_scale": 0.0},
            1.0,
            "float32",
            r"underflow.*weight_scale 1e-09",
        ),
    ],
)
def test_kernels_that_leave_the_range_of_their_type_are_refused(
    settings, factor, dtype, message, kind
):
    x = (factor * WIDE_X).astype(dtype)
    network = nb.dense_network(**settings)
    with pytest.raises(ValueError, match=message):
        getattr(network, kind)(x)
    with pytest.raises(ValueError, match=message.replace("x1", "x2")):
        getattr(network, kind)(WIDE_X.astype(dtype) if factor != 1 else x, x)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("factor", [1e-30, 1e-10, 1e8, 1e15])
def test_a_float32_kernel_of_large_or_small_inputs_is_that_of_float64(activation, factor):
    """Squares of single entries or products of variances overflow and underflow on the way."""
    x = (factor * WIDE_X).astype(np.float32)
    network = own(activation, depth=2)
    exact = network.kernel(x.astype(float))
    for name in ("nngp", "ntk"):
        k, reference = (np.asarray(getattr(pair, name)) for pair in (network.kernel(x), exact))
        scale = np.sqrt(np.diag(reference))
        np.testing.assert_allclose(k / np.outer(scale, scale), reference / np.outer(scale, scale),
                                   atol=1e-5)  # fmt: skip


def test_a_relu_kernel_grows_as_the_square_of_its_inputs_up_to_the_largest_number():
    """‖x‖² overflows where ‖x‖²/d does not; powers of two change no digit."""
    network, x = own("relu", bias_scale=0.0), WIDE_X.astype(np.float32)
    x[1] = 0
    kernel = network.ntk(x)
    for power in (2.0**-45, 2.0**58):
        np.testing.assert_array_equal(network.ntk(np.float32(power) * x), power**2 * kernel)


def test_nothing_is_checked_while_kernels_are_traced():
    """jit and vmap return what comes of it; derivatives are those of the kernel."""
    network, large = own("relu"), 1e25 * jnp.asarray(WIDE_X, jnp.float32)
    assert not np.isfinite(jax.jit(network.ntk)(large)).all()
    assert not np.isfinite(jax.vmap(network.ntk)(large[None])).all()
    small = own("relu", bias_scale=0.0)
    x = 1e-12 * jnp.asarray(WIDE_X, jnp.float32)
    # Euler: x · ∂K/∂x = 2 K for a kernel that grows as the square
    moved = jax.jvp(lambda x: small.ntk(x), (x,), (x,))[1]
    np.testing.assert_allclose(moved, 2 * small.ntk(x), rtol=1e-4)


@pytest.mark.parametrize(
    ("factor", "dtype", "message"),
    [
        (
            1e25,
            "float32",
            r"stax network at x1, with entries up to .*overflows float32.*; use float64",
        ),
        (1e160, "float64", r"overflows float64.*change the layers' W_std or b_std\.$"),
        (
            1e-25,
            "float32",
            r"x1 makes .* underflow in float32 at row 0, .*: use float64 .*or scale the in",
        ),
        (
            np.array([[1], [1], [1e-90], [1], [1]]),
            "float64",
            "underflow in float64 at row 2.*tiny ones to zero",
        ),
    ],
)
def test_kernels_of_stax_that_leave_the_range_of_their_type_are_refused(factor, dtype, message):
    layers = stax.Dense(1, 1.4), stax.Relu(), stax.Dense(1)
    network = nb.stax_network(stax.serial(*layers))
    with pytest.raises(ValueError, match=message):
        network.ntk((factor * WIDE_X).astype(dtype))
    np.testing.assert_array_equal(network.ntk(0 * WIDE_X), np.zeros((5, 5)))


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_stax_kernel_may_be_zero(kind, dtype):
    """Zero inputs without bias, and orthogonal inputs of a linear network."""
    relu = nb.stax_network(stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1)))
    x, zeros = np.ones((1, 2), dtype), np.zeros((1, 2), dtype)
    kernel = getattr(relu, kind)
    assert kernel(x, zeros) == kernel(zeros, x) == kernel(zeros, zeros) == 0
    linear = nb.stax_network(stax.serial(stax.Dense(1)))
    e = np.eye(2, dtype=dtype)
    assert getattr(linear, kind)(e[:1], e[1:]) == 0


@pytest.mark.parametrize(("weight_scale", "named", "row"), [(1.0, "x2", 2), (1e-15, "x1", 0)])
def test_a_cross_kernel_of_stax_is_judged_by_both_arguments(weight_scale, named, row):
    """Each row by its own variance, although those of the other argument may have digits."""
    layers = stax.Dense(1, weight_scale), stax.Relu(), stax.Dense(1)
    kernel = nb.stax_network(stax.serial(*layers)).ntk
    x = WIDE_X.astype(np.float32)
    small = np.array([[1], [1], [1e-12], [1], [1]], np.float32) * x
    with pytest.raises(ValueError, match=rf"x1 .*underflow in float32 at row {row}"):
        kernel(small, x)
    with pytest.raises(ValueError, match=rf"{named} .*underflow in float32 at row {row}"):
        kernel(x, small)


@pytest.mark.parametrize(
    ("precision", "dtype", "message"),
    [
        (1e-310, "float64", "kernel over prior_precision = 1e-310, overflows float64"),
        (
            1e-40,
            "float32",
            "kernel over prior_precision = 1e-40, overflows float32.*use float64 .*or choose",
        ),
        (1e45, "float32", r"kernel over prior_precision = 1e\+45, underflows float32"),
    ],
)
@pytest.mark.parametrize("method", [nb.laplace, nb.gp_posterior])
def test_a_prior_precision_that_takes_the_kernel_out_of_range_is_named(
    method, precision, dtype, message
):
    x = WIDE_X.astype(dtype)
    with pytest.raises(ValueError, match=message):
        method(own("relu"), nb.Gaussian(1.0), x, x[:, 0], prior_precision=precision)
