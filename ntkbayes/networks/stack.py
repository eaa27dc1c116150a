"""The empirical NTK of a stack of dense layers, without its Jacobian.

Layer l computes z_l = s_l h_{l−1} W_l + β_l b_l and h_l = φ(z_l). Its weights act on an output
only through z_l, so with δ_l(x, k) = ∂f_k/∂z_l at x,

    Θ(x, k; x', k') = Σ_l (s_l² h_{l−1}(x)·h_{l−1}(x') + β_l²) δ_l(x, k)·δ_l(x', k').

For n and m points, c outputs and widths w that is Σ_l n m w (1 + c²) operations and memory for
the δ, against n m c p operations by Jacobian–vector products.

References
----------
Novak, Sohl-Dickstein, Schoenholz 2022, arXiv 2206.08720 (structured derivatives).
"""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._types import Array, Float

__all__ = ["DenseLayer", "DenseStack", "LayerRoute"]


class DenseLayer(eqx.Module):
    """One layer, ``weight_scale · h @ weight + bias_scale · bias``.

    Parameters
    ----------
    weight, bias
        Each one whole parameter, transposed or not, used nowhere else; no bias: None.
    weight_scale, bias_scale
        Constants that multiply them.
    """

    weight: Float[Array, "fan_in fan_out"]
    bias: Float[Array, "fan_out"] | None
    weight_scale: float | Array = 1.0
    bias_scale: float | Array = 1.0

    def __call__(self, h: Float[Array, "n fan_in"]) -> Float[Array, "n fan_out"]:
        """Evaluate the layer at each row of h."""
        z = self.weight_scale * (h @ self.weight)
        return z if self.bias is None else z + self.bias_scale * self.bias[None, :]


class DenseStack(eqx.Module):
    """Dense layers with the same elementwise `activation` between them, none after the last."""

    layers: Sequence[DenseLayer]
    activation: Callable[[Array], Array]


class LayerRoute(eqx.Module):
    """Tiles of Θ from the factors of a stack's layers."""

    stack: DenseStack

    @property
    def num_outputs(self) -> int:
        """Number of outputs c."""
        return self.stack.layers[-1].weight.shape[1]

    def block(self, numbers: int) -> int:
        """Points of a square tile that needs no more than about `numbers` numbers."""
        fan_in = [layer.weight.shape[0] for layer in self.stack.layers]
        linear = 3 * (fan_in[0] + sum(fan_in[1:]) * (1 + self.num_outputs))  # factors, one spare
        square = 3 * self.num_outputs**2  # the tile and what is added to it
        root = math.hypot(linear, 2 * math.sqrt(square * numbers))
        return max(1, int((root - linear) / (2 * square)))

    def prepare(self, x: Float[Array, "n d"]) -> "_Factors":
        """One pass forward, and one backward with all c outputs at once."""
        inputs, slopes = [x], []
        for layer in self.stack.layers[:-1]:
            z = layer(inputs[-1])
            h, slope = jax.jvp(self.stack.activation, (z,), (jnp.ones_like(z),))
            inputs.append(h)
            slopes.append(slope)
        last = self.stack.layers[-1]
        back = (last.weight_scale * last.weight).T[None]
        deltas: list[Array] = []
        for layer, slope in zip(self.stack.layers[-2::-1], slopes[::-1], strict=True):
            deltas.insert(0, back * slope[:, None, :])
            back = layer.weight_scale * (deltas[0] @ layer.weight.T)
        return _Factors(inputs, deltas)

    def tile(self, one: "_Factors", x: Float[Array, "m d"]) -> Float[Array, "n c m c"]:
        """Θ between the points of `one` and x."""
        two = self.prepare(x)
        *grams, last = self._grams(one, two)
        ntk = jnp.einsum("ij,kl->ikjl", last, jnp.eye(self.num_outputs, dtype=last.dtype))
        for gram, delta, other in zip(grams, one.deltas, two.deltas, strict=True):
            ntk = ntk + gram[:, None, :, None] * jnp.einsum("ikw,jlw->ikjl", delta, other)
        return ntk

    def trace_tile(self, one: "_Factors", x: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """(1/c) Σ_k Θ(x, k; x', k) between the points of `one` and x."""
        two = self.prepare(x)
        *grams, ntk = self._grams(one, two)
        for gram, delta, other in zip(grams, one.deltas, two.deltas, strict=True):
            ntk = ntk + gram * jnp.einsum("ikw,jkw->ij", delta, other) / self.num_outputs
        return ntk

    def _grams(self, one: "_Factors", two: "_Factors") -> list[Float[Array, "n m"]]:
        """s² h·h' + β² of each layer: its own parameters' part."""
        return [
            layer.weight_scale**2 * (h @ other.T)
            + (0 if layer.bias is None else layer.bias_scale**2)
            for layer, h, other in zip(self.stack.layers, one.inputs, two.inputs, strict=True)
        ]


class _Factors(eqx.Module):
    """Each layer's inputs, and δ of all but the last, whose δ is the identity."""

    inputs: list[Float[Array, "n _"]]
    deltas: list[Float[Array, "n c _"]]
