"""The list of what works of neural-tangents, in the loader's docstring: every entry is called."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkbayes.networks import neural_tangents
from ntkbayes.networks.neural_tangents import predict, stax

X = np.random.default_rng(0).normal(size=(5, 4))
IMAGES = np.random.default_rng(1).normal(size=(2, 4, 4, 2))
ARGUMENTS = {
    "ABRelu": (0.1, 1.0), "LeakyRelu": (0.1,), "Monomial": (2,), "Polynomial": ([0.0, 1.0, 0.5],),
    "Hermite": (2,), "ElementwiseNumerical": (jnp.tanh, 15),
}  # fmt: skip
ACTIVATIONS = [
    "Relu", "ABRelu", "LeakyRelu", "Abs", "Erf", "Gelu", "Sigmoid_like", "Sin", "Cos", "Rbf",
    "Gaussian", "Exp", "ExpNormalized", "Sign", "Monomial", "Polynomial", "Hermite",
    "ElementwiseNumerical",
]  # fmt: skip


def dense():
    return stax.Dense(3, 1.2, 0.1)


def conv():
    return stax.Conv(3, (3, 3), padding="SAME")


LAYERS = {
    "ConvLocal": lambda: [stax.ConvLocal(3, (3, 3), padding="SAME"), stax.Flatten()],
    "ConvTranspose": lambda: [stax.ConvTranspose(3, (3, 3), padding="SAME"), stax.Flatten()],
    "AvgPool": lambda: [conv(), stax.AvgPool((2, 2)), stax.Flatten()],
    "SumPool": lambda: [conv(), stax.SumPool((2, 2)), stax.Flatten()],
    "GlobalAvgPool": lambda: [conv(), stax.Relu(), stax.GlobalAvgPool()],
    "GlobalSumPool": lambda: [conv(), stax.Relu(), stax.GlobalSumPool()],
    "LayerNorm": lambda: [conv(), stax.LayerNorm(axis=-1), stax.Flatten()],
    "Dropout": lambda: [conv(), stax.Dropout(0.9, mode="test"), stax.Flatten()],
    "FanInSum": lambda: [
        stax.FanOut(2), stax.parallel(conv(), conv()), stax.FanInSum(), stax.Flatten()
    ],
    "FanInConcat": lambda: [
        stax.FanOut(2), stax.parallel(conv(), conv()), stax.FanInConcat(-1), stax.Flatten()
    ],
    "GlobalSelfAttention": lambda: [
        stax.GlobalSelfAttention(
            3, n_chan_key=3, n_chan_val=3, n_heads=2, linear_scaling=True
        ),
        stax.Flatten(),
    ],
}  # fmt: skip


def kernels(layers, x):
    return stax.serial(*layers, dense())[2](x, None, ("nngp", "ntk"))


def assert_kernel(pair):
    """Positive variances, and semidefinite."""
    for k in pair:
        assert np.all(np.diag(k) > 0)
        assert np.linalg.eigvalsh(k)[0] > -1e-6 * np.trace(k)


@pytest.mark.filterwarnings("ignore::UserWarning")  # its advice
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_listed_activation_has_kernels(name):
    assert name in neural_tangents.__doc__
    activation = getattr(stax, name)(*ARGUMENTS.get(name, ()))
    assert_kernel(kernels([dense(), activation], X))


@pytest.mark.filterwarnings("ignore::UserWarning")  # its advice
@pytest.mark.parametrize("name", LAYERS)
def test_a_listed_layer_has_kernels(name):
    assert name in neural_tangents.__doc__
    assert_kernel(kernels(LAYERS[name](), IMAGES))


KERNEL_FN = stax.serial(dense(), stax.Erf(), dense())[2]
NTK, Y = np.asarray(KERNEL_FN(X, None, "ntk")), X[:, :1]


def test_the_listed_predictions_agree_where_they_must():
    """Squared error until t = 2 from zero: 1 − exp(−Θ t / n) in the eigenbasis, in three ways."""
    values, vectors = np.linalg.eigh(NTK)
    expected = vectors @ (-np.expm1(-2 * values / 5)[:, None] * (vectors.T @ Y))
    zero = jnp.zeros_like(Y)
    closed = predict.gradient_descent_mse(NTK, Y)(2.0, zero)
    np.testing.assert_allclose(closed, expected, atol=1e-8)
    by_steps = predict.gradient_descent(lambda f, y: 0.5 * jnp.mean((f - y) ** 2), NTK, Y)
    np.testing.assert_allclose(by_steps(2.0, zero), expected, atol=1e-4)
    mean = predict.gradient_descent_mse_ensemble(KERNEL_FN, X, Y)(t=2.0, get="ntk")
    np.testing.assert_allclose(mean, expected, atol=1e-8)
    kernel, cross = (KERNEL_FN(*pair, ("nngp", "ntk")) for pair in ((X, None), (X[:2], X)))
    gp = predict.gp_inference(kernel, Y, diag_reg=0.1, diag_reg_absolute_scale=True)
    ridge = np.asarray(cross.ntk) @ np.linalg.solve(NTK + 0.1 * np.eye(5), Y)
    np.testing.assert_allclose(gp(get="ntk", k_test_train=cross), ridge, atol=1e-8)


def test_what_is_listed_as_broken_is_broken():
    """Else the list is to be changed."""
    pair = kernels([dense(), stax.RectifiedMonomial(2)], X)
    assert not np.isfinite(pair.ntk).all()
    with pytest.raises(TypeError, match="eigvals"):
        predict.max_learning_rate(NTK)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        jax.vmap(lambda k: predict.gradient_descent_mse(k, Y)(1.0, jnp.zeros_like(Y)))(NTK[None])
    for module in ("empirical", "monte_carlo"):
        with pytest.raises(ImportError, match="Jaxpr"):
            importlib.import_module(f"ntkbayes.networks.neural_tangents._src.{module}")
