"""One Kronecker product for the GGN of each layer of a dense stack.

A layer z = s h W + β b acts on the outputs through z only. With ā = (s h, β) and δ = ∂f/∂z, its
block of the GGN is Σᵢ (āᵢ āᵢᵀ) ⊗ (δᵢᵀ Wᵢ δᵢ). It is approximated by

    G_l ≈ (1/n) (Σᵢ āᵢ āᵢᵀ) ⊗ (Σᵢ δᵢᵀ Wᵢ δᵢ),

exact where one of the factors is the same for all data. In the eigenbases of both factors
P_l = λ I + G_l is diagonal. Different layers are independent.

Joint, the bias is one more input. Separate, its block is β² Σᵢ δᵢᵀ Wᵢ δᵢ, which is exact, and it is
independent of the weights, whose block has āᵢ = s hᵢ. The first keeps more of G.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._types import Array, Float, Key
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import known_layers, known_stack
from ntkbayes.networks.stack import LayerRoute
from ntkbayes.posteriors.weights.base import WeightPosterior, rows_covariance, rows_variance
from ntkbayes.posteriors.weights.selection import SelectedWeights

__all__ = ["KroneckerWeights", "kronecker_weights"]


class _Block(eqx.Module):
    """Eigenbases of both factors of a layer, and P_l in them."""

    inputs: Float[Array, "i i"]
    outputs: Float[Array, "o o"]
    precision: Float[Array, "i o"]

    def scale(self, v: Float[Array, "*b i o"], power: float) -> Float[Array, "*b i o"]:
        """P_l^power v."""
        rotated = jnp.einsum("ij,...ik,kl->...jl", self.inputs, v, self.outputs)
        scaled = rotated * self.precision**power
        return jnp.einsum("ij,...jl,kl->...ik", self.inputs, scaled, self.outputs)


class KroneckerWeights(WeightPosterior):
    """A block for each layer with selected weights; None for a layer that is held fixed.

    Attributes
    ----------
    joint_bias
        Whether a layer's weights and bias share a block; else the layer has two, the bias' second.
    """

    weights: SelectedWeights
    log_det: Float[Array, ""]
    blocks: list[_Block | None]
    joint_bias: bool = eqx.field(static=True)

    def settings(self) -> dict[str, str]:
        """Say how biases are treated."""
        return {"kron_bias": "joint" if self.joint_bias else "separate"}

    def product(self, v: Float[Array, "b p"]) -> Float[Array, "b p"]:
        """P⁻¹ v, layer by layer."""
        return self._scale(v, -1.0)

    def draw(self, key: Key, num_draws: int) -> Float[Array, "s p"]:
        """P^−½ z with z ~ N(0, I)."""
        theta = self.weights.theta
        return self._scale(jax.random.normal(key, (num_draws, theta.size), theta.dtype), -0.5)

    def covariance(self, x: Float[Array, "m d"]) -> Float[Array, "m c m c"]:
        """J P⁻¹ Jᵀ."""
        return rows_covariance(self, x)

    def variance(self, x: Float[Array, "m d"]) -> Float[Array, "m c"]:
        """Diagonal of `covariance`."""
        return rows_variance(self, x)

    def _scale(self, v: Float[Array, "b p"], power: float) -> Float[Array, "b p"]:
        def one_vector(v: Float[Array, "p"]) -> Float[Array, "p"]:
            layers, back = jax.vjp(lambda v: _matrices(self.weights, v, self.joint_bias), v)
            scaled = [
                jnp.zeros_like(layer) if block is None else block.scale(layer, power)
                for block, layer in zip(self.blocks, layers, strict=True)
            ]
            # A layer's entries are those of v in another order: the transpose is the inverse.
            return back(scaled)[0]

        return jax.vmap(one_vector)(v)


def kronecker_weights(
    weights: SelectedWeights,
    likelihood: Likelihood,
    x: Array,
    *,
    prior_precision: float,
    joint_bias: bool = True,
) -> KroneckerWeights:
    """Factor every layer's block; time n c Σ w² + Σ w³ for layers of width w.

    Raises
    ------
    ValueError
        If the network's layers are not known, or a part of a layer is selected.
    """
    layers = known_layers(weights.network, weights.params, x)
    if layers is None:
        raise ValueError(
            'hessian_structure="kron" needs a stack of dense layers, but this '
            f"{type(weights.network).__name__} declares none: see finite_network's dense_stack."
        )
    selected = _selected_layers(weights, joint_bias)
    every_block = _blocks(weights, layers, likelihood, x, prior_precision, joint_bias)
    blocks = [
        block if chosen else None for block, chosen in zip(every_block, selected, strict=True)
    ]
    log_det = sum(
        jnp.sum(jnp.log(block.precision / prior_precision)) for block in blocks if block is not None
    )
    return KroneckerWeights(weights, jnp.asarray(log_det), blocks, joint_bias)


def _matrices(weights: SelectedWeights, v: Float[Array, "p"], joint_bias: bool) -> list[Array]:
    """Lay out a tangent vector by blocks: weights (fan-in, fan-out), and the bias as a last row."""
    stack = known_stack(weights.network, weights.embed(v))
    matrices: list[Array] = []
    for layer in () if stack is None else stack.layers:
        parts = [layer.weight] if layer.bias is None else [layer.weight, layer.bias[None]]
        matrices += [jnp.concatenate(parts)] if joint_bias else parts
    return matrices


def _selected_layers(weights: SelectedWeights, joint_bias: bool) -> list[bool]:
    ones = _matrices(weights, jnp.ones_like(weights.theta), joint_bias)
    if any(bool(jnp.any(layer != layer[0, 0])) for layer in ones):
        raise ValueError(
            'hessian_structure="kron" takes whole layers, weights and bias (with '
            'kron_bias="separate": each whole), but subset_of_weights selects a part of one.'
        )
    return [bool(layer[0, 0]) for layer in ones]


@eqx.filter_jit
def _blocks(
    weights: SelectedWeights,
    layers: LayerRoute,
    likelihood: Likelihood,
    x: Float[Array, "n d"],
    prior_precision: float,
    joint_bias: bool,
) -> list[_Block]:
    factors = layers.prepare(x)
    curvature = jax.vmap(likelihood.curvature)(weights.apply(weights.theta, x))
    eye = jnp.broadcast_to(jnp.eye(curvature.shape[1], dtype=x.dtype), curvature.shape)
    blocks = []
    for layer, h, delta in zip(
        layers.stack.layers, factors.inputs, [*factors.deltas, eye], strict=True
    ):
        parts = [layer.weight_scale * h]
        if layer.bias is not None:
            parts.append(jnp.full((len(h), 1), layer.bias_scale, h.dtype))
        outputs = jnp.linalg.eigh(jnp.einsum("nkw,nkl,nlv->wv", delta, curvature, delta))
        for inputs in [jnp.concatenate(parts, axis=1)] if joint_bias else parts:
            blocks.append(_block(inputs, outputs, prior_precision))
    return blocks


def _block(inputs: Float[Array, "n i"], outputs: Any, prior_precision: float) -> _Block:
    """(1/n) Σ ā āᵀ ⊗ the matrix of these eigenvalues and vectors, plus λ."""
    values_in, vectors_in = jnp.linalg.eigh(inputs.T @ inputs / len(inputs))
    values_out, vectors_out = outputs
    ggn = jnp.maximum(values_in, 0)[:, None] * jnp.maximum(values_out, 0)[None, :]
    return _Block(vectors_in, vectors_out, prior_precision + ggn)
