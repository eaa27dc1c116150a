"""The recursion of a dense network's kernels over its layers, for one tile of pairs.

With weight scale w and bias scale b, layer by layer: S = w² Q + b², Q ← E[φ(u)φ(v)] and
Θ ← (w² Θ + S) E[φ'(u)φ'(v)] for (u, v) of covariance S, starting with Q = x₁ᵀx₂/d and Θ = 0; the
readout, of weight scale r, ends with Q ← r² Q + b², Θ ← r² Θ + Q. For each pair the gap
√(Q₁₁Q₂₂) − Q₁₂ is carried instead of Q₁₂ (`ntkbayes.kernels.gaps`), all that depends on one point
only is computed beforehand.
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

__all__ = ["Scales", "Variances", "dense_kernels"]


class Scales(eqx.Module):
    """w of the hidden layers, b of all layers, r of the readout's weights."""

    weight: Float[Array, ""]
    bias: Float[Array, ""]
    readout: Float[Array, ""]


class Variances(eqx.Module):
    """What each point's kernels with itself are made of, layer by layer, the readout the last.

    ``inputs`` are the Q that come into a layer, ``outputs`` its S; ``diagonal`` are the kernels.
    """

    inputs: tuple[Float[Array, "n"], ...]
    outputs: tuple[Float[Array, "n"], ...]
    diagonal: dict[str, Float[Array, "n"]]


class _Rows(eqx.Module):
    """All that depends on one point: its part in each layer, and its kernels with itself."""

    points: Points
    layers: tuple[tuple[Affine, Scale], ...]
    variances: Variances


@partial(jax.jit, static_argnames=("activation", "depth", "kinds"))
def dense_kernels(
    activation: Activation,
    depth: int,
    kinds: tuple[str, ...],
    scales: Scales,
    x1: Float[Array, "n d"],
    x2: Float[Array, "m d"] | None,
) -> tuple[dict[str, Float[Array, "n m"]], Variances, Variances | None]:
    """Compute the `kinds` (of ``"nngp"``, ``"ntk"``) between rows; exactly symmetric without x2.

    Returns them with the variances of the points of x1 and of x2. Costs half the product X Xᵀ and
    some 60 operations per pair and layer (ReLU) without x2.
    """
    points1, points2 = prepare_points(x1, x2)
    one = _rows(activation, depth, scales, points1)
    two = None if points2 is None else _rows(activation, depth, scales, points2)

    def tile(one: _Rows, two: _Rows) -> dict[str, Array]:
        kernels = _pair_kernels(activation, scales, one, two)
        # A point with itself: its own formula, not the one for pairs.
        same = one.points.index[:, None] == two.points.index[None, :]
        diagonal = one.variances.diagonal
        return {k: jnp.where(same, diagonal[k][:, None], kernels[k]) for k in kinds}

    kernels = map_tiles(tile, one, two)
    return kernels, one.variances, None if two is None else two.variances


def _rows(activation: Activation, depth: int, scales: Scales, points: Points) -> _Rows:
    nngp, ntk = points.norm**2, jnp.zeros_like(points.norm)
    after = points.norm
    layers, inputs, outputs = [], [], []
    for _ in range(depth):
        variance = scales.weight**2 * nngp + scales.bias**2
        inputs.append(nngp)
        outputs.append(variance)
        scale = activation.scale(variance)
        layers.append((affine_part(after, scale.before, scales.weight, scales.bias), scale))
        nngp, derivative = activation.diagonal(variance)
        ntk = (scales.weight**2 * ntk + variance) * derivative
        after = scale.after
    inputs.append(nngp)
    nngp = scales.readout**2 * nngp + scales.bias**2
    outputs.append(nngp)
    diagonal = {"nngp": nngp, "ntk": scales.readout**2 * ntk + nngp}
    return _Rows(points, tuple(layers), Variances(tuple(inputs), tuple(outputs), diagonal))


def _pair_kernels(
    activation: Activation, scales: Scales, one: _Rows, two: _Rows
) -> dict[str, Array]:
    gap, ntk = input_gap(one.points, two.points), 0.0
    norm = one.points.norm[:, None] * two.points.norm[None, :]
    for layer1, layer2 in zip(one.layers, two.layers, strict=True):
        affine1, scale1 = jax.tree.map(lambda row: row[:, None], layer1)
        affine2, scale2 = jax.tree.map(lambda row: row[None, :], layer2)
        angular, mirror = angular_gaps(gap, 2 * norm - gap, affine1, affine2)
        covariance = scale1.before * scale2.before * (1 - angular)
        gap, derivative = activation.pair(angular, mirror, scale1, scale2)
        ntk = (scales.weight**2 * ntk + covariance) * derivative
        norm = scale1.after * scale2.after
    nngp = scales.readout**2 * (norm - gap) + scales.bias**2
    return {"nngp": nngp, "ntk": scales.readout**2 * ntk + nngp}
