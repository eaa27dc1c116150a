"""Fully connected networks: closed-form NNGP and NTK, and finite networks of the same law.

NTK parameterisation: weights and biases are N(0, 1), and a layer of fan-in w computes
``weight_scale / √w · W h + bias_scale · b``. The readout, which has a bias too, takes
``readout_scale`` in place of ``weight_scale``. The kernels' recursion is in
`ntkbayes.networks.dense_kernel`.

References
----------
Jacot, Gabriel, Hongler 2018, arXiv 1806.07572 (NTK). Lee et al. 2018, arXiv 1711.00165 (NNGP). He,
Lakshminarayanan, Teh 2020, arXiv 2007.05864 (one scale for all layers, the readout included).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._arrays import computing_dtype
from ntkbayes._checks import (
    check_at_least,
    check_choice,
    check_finite,
    check_not_empty,
    check_positive,
)
from ntkbayes._types import AnyArray, Array, Float, Key, typed
from ntkbayes.kernels.memory import check_memory
from ntkbayes.networks.activations import ACTIVATIONS
from ntkbayes.networks.base import KernelPair, WideNetwork
from ntkbayes.networks.dense_kernel import Scales, dense_kernels
from ntkbayes.networks.dense_range import check_variances

__all__ = ["DenseNetwork", "dense_network"]


class DenseNetwork(WideNetwork):
    """A fully connected network; made by `dense_network`."""

    depth: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    weight_scale: float
    bias_scale: float
    readout_scale: float = 1.0

    def kernel(
        self, x1: Float[AnyArray, "n d"], x2: Float[AnyArray, "m d"] | None = None
    ) -> KernelPair:
        """Infinite-width kernels, (n m) each; `x2` None means x1, and exactly symmetric results.

        Differentiable in all scales (which may be traced) and in the inputs. The NTK of ReLU
        networks has a kink where inputs coincide; its derivative there is taken as 0.

        Raises
        ------
        ValueError
            If an input is not finite, the shapes do not fit, the result does not fit memory, or
            what it is computed from leaves the range of its floating-point type.
        """
        return KernelPair(**self._kernels(x1, x2, ("nngp", "ntk")))

    def nngp(
        self, x1: Float[AnyArray, "n d"], x2: Float[AnyArray, "m d"] | None = None
    ) -> Float[Array, "n m"]:
        """Return the NNGP kernel of `kernel` alone."""
        return self._kernels(x1, x2, ("nngp",))["nngp"]

    def ntk(
        self, x1: Float[AnyArray, "n d"], x2: Float[AnyArray, "m d"] | None = None
    ) -> Float[Array, "n m"]:
        """Return the NTK of `kernel` alone."""
        return self._kernels(x1, x2, ("ntk",))["ntk"]

    def _kernels(
        self, x1: AnyArray, x2: AnyArray | None, kinds: tuple[str, ...]
    ) -> dict[str, Array]:
        one, two = _checked_inputs(x1, x2)
        check_memory(
            "a dense network's kernel", len(one), len(one if two is None else two), one.dtype,
            num_matrices=len(kinds),
        )  # fmt: skip
        given = self.weight_scale, self.bias_scale, self.readout_scale
        with np.errstate(over="ignore"):  # refused below
            scales = Scales(*(jnp.asarray(scale, one.dtype) for scale in given))
        activation = ACTIVATIONS[self.activation]
        kernels, *rows = dense_kernels(activation, self.depth, kinds, scales, one, two)
        for name, x, variances in zip(("x1", "x2"), (x1, x2), rows, strict=True):
            if x is not None and variances is not None:
                check_variances(
                    name, x, variances, kinds=kinds, scales=scales, settings=self.settings
                )
        return kernels

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
        return self._layer(params[-1], x, self.readout_scale)

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
            "readout_scale": float(self.readout_scale),
        }


@typed
def dense_network(
    *,
    depth: int = 2,
    width: int = 512,
    activation: str = "relu",
    weight_scale: float = 2**0.5,
    bias_scale: float = 0.1,
    readout_scale: float = 1.0,
) -> DenseNetwork:
    """Describe a fully connected network.

    Parameters
    ----------
    depth
        Number of hidden layers, ≥ 1.
    width
        Units per hidden layer of finite networks; kernels are those of infinite width.
    activation
        ``"relu"``, ``"leaky_relu"`` (slope 0.01), ``"erf"``, ``"gelu"`` (u Φ(u), not its tanh
        approximation) or ``"sin"``.
    weight_scale
        Standard deviation of a hidden layer's weights times √fan-in.
    bias_scale
        Standard deviation of all biases, also the readout's.
    readout_scale
        Standard deviation of the readout's weights times √width. With r in place of 1 and no bias,
        both kernels are r² times as large, as by a prior precision 1/r² times as large; He,
        Lakshminarayanan, Teh 2020 (arXiv 2007.05864) give all layers the same scale.

    Raises
    ------
    ValueError
        If a number is out of range or the activation unknown.

    Examples
    --------
    At the default weight scale ReLU networks neither shrink nor blow up their inputs, and every
    layer adds as much to the NTK:

    >>> deep = nb.dense_network(depth=3, bias_scale=0.0)
    >>> x = np.ones((1, 2))
    >>> round(deep.nngp(x).item(), 6), round(deep.ntk(x).item(), 6)
    (1.0, 4.0)
    """
    check_at_least("depth", depth, 1)
    check_at_least("width", width, 1)
    check_choice("activation", activation, ACTIVATIONS)
    check_positive("weight_scale", weight_scale)
    check_positive("bias_scale", bias_scale, or_zero=True)
    check_positive("readout_scale", readout_scale)
    return DenseNetwork(depth, width, activation, weight_scale, bias_scale, readout_scale)


def _checked_inputs(x1: AnyArray, x2: AnyArray | None) -> tuple[Array, Array | None]:
    """Return both inputs in their common floating dtype."""
    for name, x in (("x1", x1), ("x2", x2)):
        if not isinstance(x, jax.Array | np.ndarray | None):
            raise ValueError(f"{name} must be an array, but is a {type(x).__name__}.")
    dtype = computing_dtype(*(x for x in (x1, x2) if x is not None))
    for name, x in (("x1", x1), ("x2", x2)):
        if x is None:
            continue
        if x.ndim != 2:
            raise ValueError(f"{name} must have shape (n, d), but has {tuple(x.shape)}.")
        if x.shape[1] != x1.shape[1]:
            raise ValueError(
                f"x1 and x2 must have shapes (n, d) and (m, d), but {name} has {tuple(x.shape)} "
                f"where x1 has {tuple(x1.shape)}."
            )
        check_not_empty(name, x)
        check_finite(name, x)
    with np.errstate(over="ignore"):  # refused with the kernel
        return jnp.asarray(x1, dtype), None if x2 is None else jnp.asarray(x2, dtype)
