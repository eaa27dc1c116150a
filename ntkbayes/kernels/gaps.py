"""How far a covariance is from its largest possible value, without cancellation.

For variances r₁², r₂² and covariance k₁₂, the *gap* r₁r₂ − k₁₂ ≥ 0 vanishes where two inputs
coincide. Formed from k₁₂ it has the error eps · r₁r₂, and the angle of the pair, which is as its
square root, is known to √eps only. Here it is formed from differences of inputs, and carried from
layer to layer: angles keep the error eps.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._types import Array, Float, Int

__all__ = [
    "Affine",
    "Points",
    "affine_part",
    "angular_gaps",
    "input_gap",
    "prepare_points",
    "safe_sqrt",
]

CLOSE = 2.0**-8
"""Pairs this much nearer than the spread of the data (squared distances) are subtracted anew."""


class Points(eqx.Module):
    """Inputs x in the form that `input_gap` needs.

    ``norm`` r = ‖x‖/√d; ``offset`` x/‖x‖ − c with one common c; ``spread`` ‖offset‖²; ``index`` has
    equal entries where two points are the same one.
    """

    x: Float[Array, "n d"]
    norm: Float[Array, "n"]
    offset: Float[Array, "n d"]
    spread: Float[Array, "n"]
    index: Int[Array, "n"]


def prepare_points(
    x1: Float[Array, "n d"], x2: Float[Array, "m d"] | None
) -> tuple[Points, Points | None]:
    """Normalize inputs; the center c is the mean direction of x1."""
    center = jnp.mean(_direction(x1), axis=0, keepdims=True)
    points = _points(x1, center, jnp.arange(len(x1)))
    # Negative: a point of x2 is never the same one as a point of x1.
    return points, None if x2 is None else _points(x2, center, -1 - jnp.arange(len(x2)))


def _points(x: Array, center: Array, index: Array) -> Points:
    offset = _direction(x) - center
    unit = _power_of_two(x)
    scaled = x / unit
    norm = unit[:, 0] * safe_sqrt(jnp.sum(scaled * scaled, axis=1) / x.shape[1])
    return Points(x, norm, offset, jnp.sum(offset * offset, axis=1), index)


def _direction(x: Array) -> Array:
    """x/‖x‖ as a constant: `input_gap` has its own derivative."""
    x = jax.lax.stop_gradient(x)
    x = x / _power_of_two(x)
    length = jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    return x / jnp.where(length > 0, length, 1)


def _power_of_two(x: Float[Array, "n d"]) -> Float[Array, "n 1"]:
    """Return each row's unit in which squares stay in range; dividing by it is exact."""
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axis=1, keepdims=True)
    exponent = jnp.maximum(jnp.frexp(largest)[1] - 1, jnp.finfo(x.dtype).minexp)
    return jnp.where(largest > 0, jnp.ldexp(jnp.ones_like(largest), exponent), 1)


def safe_sqrt(x: Array) -> Array:
    """√x with derivative 0 at 0 and below."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


@jax.custom_jvp
def input_gap(one: Points, two: Points) -> Float[Array, "n m"]:
    """r₁r₂ − x₁ᵀx₂/d = r₁r₂ ‖u₁ − u₂‖²/2 for unit vectors u = x/‖x‖.

    ‖u₁ − u₂‖² = ‖v₁‖² + ‖v₂‖² − 2 v₁ᵀv₂ with v = u − c: the product is taken about the center of
    the data, so that its rounding is relative to their spread. Where even that is large beside the
    distance, and only there, the difference is formed before it is squared.
    """
    half_squares = 0.5 * (one.spread[:, None] + two.spread[None, :])
    product = jnp.matmul(one.offset, two.offset.T, precision="highest")
    half_distance = jnp.maximum(half_squares - product, 0)
    same = one.index[:, None] == two.index[None, :]
    close = (half_distance < CLOSE * half_squares) & ~same
    half_distance = _subtract_close(jnp.where(same, 0, half_distance), close, one, two)
    return one.norm[:, None] * two.norm[None, :] * half_distance


@input_gap.defjvp
def _input_gap_jvp(primals, tangents):
    (one, two), (d_one, d_two) = primals, tangents
    d_norm = d_one.norm[:, None] * two.norm[None, :] + one.norm[:, None] * d_two.norm[None, :]
    d_product = jnp.matmul(d_one.x, two.x.T, precision="highest")
    d_product = d_product + jnp.matmul(one.x, d_two.x.T, precision="highest")
    same = one.index[:, None] == two.index[None, :]
    return input_gap(one, two), jnp.where(same, 0, d_norm - d_product / one.x.shape[1])


def _subtract_close(half_distance: Array, close: Array, one: Points, two: Points) -> Array:
    """Replace ‖v₁ − v₂‖²/2 of the marked pairs, in one row with such pairs after the other."""

    def replace_row(state: tuple[Array, Array]) -> tuple[Array, Array]:
        half_distance, rows = state
        i = jnp.argmax(rows)
        difference = one.offset[i][None, :] - two.offset
        exact = 0.5 * jnp.sum(difference * difference, axis=1)
        row = jnp.where(close[i], exact, half_distance[i])
        return half_distance.at[i].set(row), rows.at[i].set(False)

    rows = jnp.any(close, axis=1)
    return jax.lax.while_loop(lambda state: jnp.any(state[1]), replace_row, (half_distance, rows))[
        0
    ]


class Affine(eqx.Module):
    """One point's part in S = w² k + b²: its unit vector (w r, b)/R, and w/R."""

    inverse: Array
    weight_part: Array
    bias_part: Array


def affine_part(r: Array, R: Array, weight_scale: Array, bias_scale: Array) -> Affine:
    """Prepare `angular_gaps`, from the standard deviations r of k and R of w² k + b²."""
    positive = R > 0
    inverse = jnp.where(positive, 1 / jnp.where(positive, R, 1), 0)
    return Affine(weight_scale * inverse, weight_scale * r * inverse, bias_scale * inverse)


def angular_gaps(
    gap: Float[Array, "n m"], mirror: Float[Array, "n m"], one: Affine, two: Affine
) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
    """Return 1 − ρ and 1 + ρ of w² k + b², from r₁r₂ − k₁₂ (`gap`) and r₁r₂ + k₁₂ (`mirror`).

    With the unit vectors (cᵢ, tᵢ) = (w rᵢ, b)/Rᵢ,

        1 ∓ ρ = w²/(R₁R₂) (r₁r₂ ∓ k₁₂) + ½ (c₁ − c₂)² + ½ (t₁ ∓ t₂)²,

    sums of positive terms. (At Rᵢ = 0 both are finite and without meaning.)
    """
    weight_square = (one.weight_part - two.weight_part) ** 2
    bias_square = (one.bias_part - two.bias_part) ** 2
    mirrored = (one.bias_part + two.bias_part) ** 2
    return (
        # One factor after the other: the product of both may leave the floating-point range.
        one.inverse * gap * two.inverse + 0.5 * (weight_square + bias_square),
        one.inverse * mirror * two.inverse + 0.5 * (weight_square + mirrored),
    )
