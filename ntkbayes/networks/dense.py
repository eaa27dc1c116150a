"""Fully connected networks: closed-form NNGP and NTK, and finite networks of the same law.

NTK parameterisation: weights and biases are N(0, 1), and a layer of fan-in w computes
``weight_scale / √w · W h + bias_scale · b``. The readout has weight scale 1 and the same bias
scale. With S = weight_scale² · (kernel of the layer's input) + bias_scale², and φ applied to
jointly Gaussian (u, v) of covariance S,

    E[φ(u)φ(v)]   the kernel of the next layer's input,
    E[φ'(u)φ'(v)] the factor by which older parameters' tangent kernel is multiplied.

References
----------
Jacot, Gabriel, Hongler 2018, arXiv 1806.07572 (NTK). Cho & Saul 2009 (ReLU). Williams 1997 (erf).
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from ntkbayes._checks import check_at_least, check_choice, check_finite, check_positive
from ntkbayes._types import AnyArray, Array, Float, Key, typed
from ntkbayes.networks.base import KernelPair, WideNetwork

__all__ = ["ACTIVATIONS", "DenseNetwork", "dense_network"]


class DenseNetwork(WideNetwork):
    """A fully connected network; made by `dense_network`."""

    depth: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    weight_scale: float
    bias_scale: float

    def kernel(
        self, x1: Float[AnyArray, "n d"], x2: Float[AnyArray, "m d"] | None = None
    ) -> KernelPair:
        """Infinite-width kernels, (n m) each; `x2` None means x1.

        The symmetric case takes the diagonal from its own formula, exact for ρ = 1.

        Raises
        ------
        ValueError
            If an input is not finite.
        """
        for name, x in (("x1", x1), ("x2", x2)):
            if x is not None and not isinstance(x, Tracer):
                check_finite(name, x)
        return _kernel(self, jnp.asarray(x1), None if x2 is None else jnp.asarray(x2))

    def init(self, key: Key, *, num_features: int, num_outputs: int) -> list[dict[str, Array]]:
        """Draw standard normal weights and biases, one dictionary per layer."""
        sizes = [num_features, *[self.width] * self.depth, num_outputs]
        params = []
        for key_layer, fan_in, fan_out in zip(
            jax.random.split(key, self.depth + 1), sizes[:-1], sizes[1:], strict=True
        ):
            key_weight, key_bias = jax.random.split(key_layer)
            weight = jax.random.normal(key_weight, (fan_in, fan_out))
            params.append({"weight": weight, "bias": jax.random.normal(key_bias, (fan_out,))})
        return params

    def apply(self, params: list[dict[str, Array]], x: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Evaluate the finite network at each row of x."""
        function = ACTIVATIONS[self.activation].function
        for layer in params[:-1]:
            x = function(self._layer(layer, x, self.weight_scale))
        return self._layer(params[-1], x, 1.0)

    def _layer(self, layer: dict[str, Array], x: Array, weight_scale: float | Array) -> Array:
        fan_in = layer["weight"].shape[0]
        product = weight_scale / math.sqrt(fan_in) * (x @ layer["weight"])
        return product + self.bias_scale * layer["bias"][None, :]

    def settings(self) -> dict[str, Any]:
        """Architecture and scales."""
        return {
            "network": "dense",
            "depth": self.depth,
            "width": self.width,
            "activation": self.activation,
            "weight_scale": float(self.weight_scale),
            "bias_scale": float(self.bias_scale),
        }


@typed
def dense_network(
    *,
    depth: int = 2,
    width: int = 512,
    activation: str = "relu",
    weight_scale: float = 2**0.5,
    bias_scale: float = 0.1,
) -> DenseNetwork:
    """Describe a fully connected network.

    Parameters
    ----------
    depth
        Number of hidden layers, ≥ 1.
    width
        Units per hidden layer of finite networks; kernels are those of infinite width.
    activation
        ``"relu"`` or ``"erf"``.
    weight_scale
        Standard deviation of a hidden layer's weights times √fan-in; the readout's is 1.
    bias_scale
        Standard deviation of all biases.

    Raises
    ------
    ValueError
        If a number is out of range or the activation unknown.
    """
    check_at_least("depth", depth, 1)
    check_at_least("width", width, 1)
    check_choice("activation", activation, ACTIVATIONS)
    check_positive("weight_scale", weight_scale)
    check_positive("bias_scale", bias_scale, or_zero=True)
    return DenseNetwork(depth, width, activation, weight_scale, bias_scale)


class _Activation(eqx.Module):
    """φ and its two Gaussian expectations given variances s1, s2 and covariance s12 of (u, v)."""

    function: Callable[[Array], Array]
    expectations: Callable[[Array, Array, Array], tuple[Array, Array]]
    diagonal: Callable[[Array], tuple[Array, Array]]


def _relu_expectations(s12: Array, s1: Array, s2: Array) -> tuple[Array, Array]:
    norm = jnp.sqrt(s1 * s2)
    positive = norm > 0
    cosine = jnp.clip(jnp.where(positive, s12 / jnp.where(positive, norm, 1), 0), -1, 1)
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    angle = jnp.arctan2(sine, cosine)
    derivative = (math.pi - angle) / (2 * math.pi)
    return norm * sine / (2 * math.pi) + s12 * derivative, derivative


def _relu_diagonal(s: Array) -> tuple[Array, Array]:
    return s / 2, jnp.full_like(s, 0.5)


def _erf_expectations(s12: Array, s1: Array, s2: Array) -> tuple[Array, Array]:
    norm = (1 + 2 * s1) * (1 + 2 * s2)
    value = 2 / math.pi * jnp.arcsin(2 * s12 / jnp.sqrt(norm))
    return value, 4 / math.pi / jnp.sqrt(norm - 4 * s12**2)


def _erf_diagonal(s: Array) -> tuple[Array, Array]:
    return _erf_expectations(s, s, s)


ACTIVATIONS = {
    "relu": _Activation(jax.nn.relu, _relu_expectations, _relu_diagonal),
    "erf": _Activation(jax.lax.erf, _erf_expectations, _erf_diagonal),
}


@eqx.filter_jit
def _kernel(network: DenseNetwork, x1: Array, x2: Array | None) -> KernelPair:
    activation = ACTIVATIONS[network.activation]
    symmetric = x2 is None
    other = x1 if x2 is None else x2
    num_features = x1.shape[1]

    nngp = x1 @ other.T / num_features
    ntk = jnp.zeros_like(nngp)
    v1 = jnp.sum(x1**2, axis=1) / num_features
    v2 = v1 if symmetric else jnp.sum(other**2, axis=1) / num_features
    v_ntk = jnp.zeros_like(v1)
    for _ in range(network.depth):
        nngp, v1, v2 = (_affine(network, k, network.weight_scale) for k in (nngp, v1, v2))
        ntk, v_ntk = (network.weight_scale**2 * k for k in (ntk, v_ntk))
        ntk, v_ntk = ntk + nngp, v_ntk + v1
        nngp, derivative = activation.expectations(nngp, v1[:, None], v2[None, :])
        v1, v_derivative = activation.diagonal(v1)
        v2 = activation.diagonal(v2)[0]
        ntk, v_ntk = ntk * derivative, v_ntk * v_derivative
    nngp, v1 = _affine(network, nngp, 1.0), _affine(network, v1, 1.0)
    ntk, v_ntk = ntk + nngp, v_ntk + v1
    if symmetric:
        nngp = _with_diagonal(nngp, v1)
        ntk = _with_diagonal(ntk, v_ntk)
    return KernelPair(nngp, ntk)


def _affine(network: DenseNetwork, kernel: Array, weight_scale: float | Array) -> Array:
    return weight_scale**2 * kernel + network.bias_scale**2


def _with_diagonal(kernel: Array, diagonal: Array) -> Array:
    kernel = 0.5 * (kernel + kernel.T)
    return jnp.fill_diagonal(kernel, diagonal, inplace=False)
