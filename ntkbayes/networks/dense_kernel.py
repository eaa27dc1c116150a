"""The recursion of a dense network's kernels over its layers, for one tile of pairs.

With weight scale w and bias scale b, layer by layer: S = w² Q + b², Q ← E[φ(u)φ(v)] and
Θ ← (w² Θ + S) E[φ'(u)φ'(v)] for (u, v) of covariance S, starting with Q = x₁ᵀx₂/d and Θ = 0; the
readout adds Q ← Q + b², Θ ← Θ + Q. For each pair the gap √(Q₁₁Q₂₂) − Q₁₂ is carried instead of
Q₁₂ (`ntkbayes.kernels.gaps`), all that depends on one point only is computed beforehand.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._types import Array, Float
from ntkbayes.kernels.gaps import (
    Affine,
    Points,
    affine_part,
    angular_gaps,
    input_gap,
    prepare_points,
)
from ntkbayes.kernels.tiles import map_tiles
from ntkbayes.networks.activations import Activation, Scale

__all__ = ["dense_kernels"]


class _Rows(eqx.Module):
    """All that depends on one point: its part in each layer, and its kernels with itself."""

    points: Points
    layers: tuple[tuple[Affine, Scale], ...]
    diagonal: dict[str, Array]


@partial(jax.jit, static_argnames=("activation", "depth", "kinds"))
def dense_kernels(
    activation: Activation,
    depth: int,
    kinds: tuple[str, ...],
    weight_scale: Float[Array, ""],
    bias_scale: Float[Array, ""],
    x1: Float[Array, "n d"],
    x2: Float[Array, "m d"] | None,
) -> dict[str, Float[Array, "n m"]]:
    """Compute the `kinds` (of ``"nngp"``, ``"ntk"``) between rows; exactly symmetric without x2.

    Costs half the product X Xᵀ and some 60 operations per pair and layer (ReLU) without x2.
    """
    scales = weight_scale, bias_scale
    one, two = prepare_points(x1, x2)
    rows = partial(_rows, activation, depth, scales)

    def tile(one: _Rows, two: _Rows) -> dict[str, Array]:
        kernels = _pair_kernels(activation, scales, one, two)
        # A point with itself: its own formula, not the one for pairs.
        same = one.points.index[:, None] == two.points.index[None, :]
        return {k: jnp.where(same, one.diagonal[k][:, None], kernels[k]) for k in kinds}

    return map_tiles(tile, rows(one), None if two is None else rows(two))


def _rows(activation: Activation, depth: int, scales: tuple[Array, Array], points: Points) -> _Rows:
    weight_scale, bias_scale = scales
    nngp, ntk = points.norm**2, jnp.zeros_like(points.norm)
    after = points.norm
    layers = []
    for _ in range(depth):
        variance = weight_scale**2 * nngp + bias_scale**2
        scale = activation.scale(variance)
        layers.append((affine_part(after, scale.before, weight_scale, bias_scale), scale))
        nngp, derivative = activation.diagonal(variance)
        ntk = (weight_scale**2 * ntk + variance) * derivative
        after = scale.after
    nngp = nngp + bias_scale**2
    return _Rows(points, tuple(layers), {"nngp": nngp, "ntk": ntk + nngp})


def _pair_kernels(
    activation: Activation, scales: tuple[Array, Array], one: _Rows, two: _Rows
) -> dict[str, Array]:
    weight_scale, bias_scale = scales
    gap, ntk = input_gap(one.points, two.points), 0.0
    norm = one.points.norm[:, None] * two.points.norm[None, :]
    for layer1, layer2 in zip(one.layers, two.layers, strict=True):
        affine1, scale1 = jax.tree.map(lambda row: row[:, None], layer1)
        affine2, scale2 = jax.tree.map(lambda row: row[None, :], layer2)
        angular, mirror = angular_gaps(gap, 2 * norm - gap, affine1, affine2)
        covariance = scale1.before * scale2.before * (1 - angular)
        gap, derivative = activation.pair(angular, mirror, scale1, scale2)
        ntk = (weight_scale**2 * ntk + covariance) * derivative
        norm = scale1.after * scale2.after
    nngp = norm - gap + bias_scale**2
    return {"nngp": nngp, "ntk": ntk + nngp}
