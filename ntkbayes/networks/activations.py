"""Activations φ and their Gaussian moments, exact.

For (u, v) jointly Gaussian with mean 0, variances s₁, s₂ and covariance s₁₂, a wide network needs
E[φ(u)φ(v)] and E[φ'(u)φ'(v)]. Instead of s₁₂ = ρ √(s₁s₂), functions here take 1 − ρ and 1 + ρ, and
return the gap √(E[φ(u)²] E[φ(v)²]) − E[φ(u)φ(v)]: see `ntkbayes.kernels.gaps`.

References
----------
Cho & Saul 2009 (ReLU). Williams 1997 (erf). Tsuchida, Pearce et al. 2021, arXiv 2002.08517 (GELU).
Rahimi & Recht 2007 (sin). All derivations in the docstrings.
"""

import math
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._types import Array
from ntkbayes.kernels.angles import arccosine_kernels, arcsine
from ntkbayes.kernels.gaps import safe_sqrt

__all__ = ["ACTIVATIONS", "Activation", "Scale"]


class Scale(eqx.Module):
    """Standard deviations at one point, of u before and of φ(u) after the activation."""

    before: Array
    after: Array


class Activation(eqx.Module):
    """φ, its moments for coinciding inputs, and those for pairs.

    Parameters
    ----------
    function
        φ, elementwise.
    diagonal
        s ↦ (E[φ(u)²], E[φ'(u)²]) for u of variance s.
    pair
        (1 − ρ, 1 + ρ, scale of u, scale of v) ↦
        (√(E[φ(u)²] E[φ(v)²]) − E[φ(u)φ(v)], E[φ'(u)φ'(v)]).
    """

    function: Callable[[Array], Array]
    diagonal: Callable[[Array], tuple[Array, Array]]
    pair: Callable[[Array, Array, Scale, Scale], tuple[Array, Array]]

    def scale(self, s: Array) -> Scale:
        """Return both standard deviations for u of variance s."""
        return Scale(safe_sqrt(s), safe_sqrt(self.diagonal(s)[0]))


def _leaky_relu(slope: float) -> Activation:
    """φ(u) = max(u, 0) + α min(u, 0); ReLU is α = 0.

    With the angle θ of (u, v), κ₀ = (π − θ)/π and κ₁ = (sin θ + (π − θ) cos θ)/π,

        E[φφ] = α s₁₂ + ½ (1 − α)² √(s₁s₂) κ₁,    E[φ'φ'] = α + ½ (1 − α)² κ₀.
    """
    kink = 0.5 * (1 - slope) ** 2

    def diagonal(s: Array) -> tuple[Array, Array]:
        return (slope + kink) * s, jnp.full_like(s, slope + kink)

    def pair(q: Array, mirror: Array, one: Scale, two: Scale) -> tuple[Array, Array]:
        complement, kappa_0 = arccosine_kernels(q, mirror)
        norm = one.before * two.before
        return norm * (slope * q + kink * complement), slope + kink * kappa_0

    return Activation(partial(jax.nn.leaky_relu, negative_slope=slope), diagonal, pair)


def _smooth(
    function: Callable[[Array], Array],
    moments: Callable[[Array, Array, Array, Array], tuple[Array, Array]],
    diagonal: Callable[[Array], tuple[Array, Array]],
    lipschitz: float,
) -> Activation:
    """Make a smooth activation from its moments as functions of the gaps r₁r₂ ∓ s₁₂ and rᵢ = √sᵢ.

    Its derivative kernel is smooth in s₁₂, so the next gap g' may be formed by subtraction. The
    rounding of that is bounded by the Lipschitz constant ℓ of φ: 2 g' ≤ E(φ(u) − φ(v))² ≤
    ℓ² E(u − v)². Therefore g' is 0 where inputs coincide.
    """

    def pair(q: Array, mirror: Array, one: Scale, two: Scale) -> tuple[Array, Array]:
        norm = one.before * two.before
        value, derivative = moments(norm * q, norm * mirror, one.before, two.before)
        raw = one.after * two.after - value
        bound = lipschitz**2 * (0.5 * (one.before - two.before) ** 2 + norm * q)
        # Not jnp.clip, which halves derivatives where a bound is met, as at zero inputs.
        return jnp.where(raw > bound, bound, jnp.where(raw < 0, 0, raw)), derivative

    return Activation(function, diagonal, pair)


def _noisy_angle(c: float, gap: Array, mirror: Array, r1: Array, r2: Array) -> tuple[Array, Array]:
    """Return asin ρ and √D of (√c u + ξ, √c v + ξ'), with ξ, ξ' standard normal and independent.

    ρ = c s₁₂ / √(N₁N₂) with Nᵢ = 1 + c sᵢ, and D = N₁N₂ − c² s₁₂². Both come from
    1 − |ρ| = ((1 + c s₁ + c s₂) / (√(N₁N₂) + c r₁r₂) + c (r₁r₂ − |s₁₂|)) / √(N₁N₂), a sum
    of positive terms.
    """
    c1, c2 = c * r1**2, c * r2**2
    norm = jnp.sqrt(1 + c1) * jnp.sqrt(1 + c2)
    least = (1 + c1 + c2) / (norm + c * r1 * r2)
    complement = (least + c * jnp.maximum(jnp.minimum(gap, mirror), 0)) / norm
    root = norm * jnp.sqrt(complement * (2 - complement))
    return arcsine(0.5 * c * (mirror - gap) / norm, complement), root


def _erf_moments(gap: Array, mirror: Array, r1: Array, r2: Array) -> tuple[Array, Array]:
    """E[φφ] = 2/π asin ρ, ρ = 2 s₁₂ / √((1 + 2s₁)(1 + 2s₂)); E[φ'φ'] = 4/π / √D; c = 2."""
    angle, root = _noisy_angle(2, gap, mirror, r1, r2)
    return 2 / math.pi * angle, 4 / math.pi / root


def _erf_diagonal(s: Array) -> tuple[Array, Array]:
    root = jnp.sqrt(1 + 4 * s)
    return 2 / math.pi * jnp.arctan2(2 * s, root), 4 / math.pi / root


def _gelu_moments(gap: Array, mirror: Array, r1: Array, r2: Array) -> tuple[Array, Array]:
    """φ(u) = u Φ(u), with Stein's lemma and Φ(u)Φ(v) = P(ξ < u, ξ' < v); `_noisy_angle`, c = 1.

    With P = E[Φ(u)Φ(v)] = ¼ + asin ρ / 2π, hᵢ = sᵢ/(1 + sᵢ) and the determinant
    Δ = s₁s₂ − s₁₂² (so D = 1 + s₁ + s₂ + Δ),

        E[φφ] = s₁₂ P + (h₁h₂ (1 + D) − Δ / ((1 + s₁)(1 + s₂))) / (2π √D),
        E[φ'φ'] = P + s₁₂ (1/(1 + s₁) + 1/(1 + s₂) + 1/D) / (2π √D).
    """
    angle, root = _noisy_angle(1, gap, mirror, r1, r2)
    n1, n2 = 1 + r1**2, 1 + r2**2
    s12 = 0.5 * (mirror - gap)
    P = 0.25 + angle / (2 * math.pi)
    h12 = (r1**2 / n1) * (r2**2 / n2)
    # Neither D nor Δ is formed: they are as the square of the variances, and overflow first.
    rest = (h12 * (1 / root + root) - (gap / n1) * (mirror / n2) / root) / (2 * math.pi)
    slope = (s12 / root) * (1 / n1 + 1 / n2 + 1 / root / root) / (2 * math.pi)
    return s12 * P + rest, P + slope


def _gelu_diagonal(s: Array) -> tuple[Array, Array]:
    """`_gelu_moments` at s₁ = s₂ = s₁₂: D = 1 + 2s."""
    D = 1 + 2 * s
    root = jnp.sqrt(D)
    P = 0.25 + jnp.arctan2(s, root) / (2 * math.pi)
    h = s / (1 + s)
    value = s * P + h**2 * (1 + D) / (2 * math.pi * root)
    return value, P + s * (2 / (1 + s) + 1 / D) / (2 * math.pi * root)


def _sin_moments(gap: Array, mirror: Array, r1: Array, r2: Array) -> tuple[Array, Array]:
    """E[φφ] = ½ (e^{−E(u−v)²/2} − e^{−E(u+v)²/2}), E[φ'φ'] = the same with a plus."""
    s12 = 0.5 * (mirror - gap)
    positive = s12 >= 0
    nearer = (r1 - r2) ** 2 + 2 * jnp.where(positive, gap, mirror)
    half = 0.5 * jnp.exp(-0.5 * nearer)
    # E(u+v)² − E(u−v)² = 4 s₁₂, so that no digit is lost where both exponentials are near 1
    excess = -half * jnp.expm1(-2 * jnp.where(positive, s12, -s12))
    return jnp.where(positive, excess, -excess), 2 * half - excess


def _sin_diagonal(s: Array) -> tuple[Array, Array]:
    """E[φ²] = (1 − e^{−2s})/2, E[φ'²] = (1 + e^{−2s})/2."""
    return -0.5 * jnp.expm1(-2 * s), 0.5 * (1 + jnp.exp(-2 * s))


ACTIVATIONS = {
    "relu": _leaky_relu(0.0),
    "leaky_relu": _leaky_relu(0.01),
    "erf": _smooth(jax.lax.erf, _erf_moments, _erf_diagonal, 2 / math.pi**0.5),
    # max φ' = Φ(√2) + √2 φ(√2) = 1.1290
    "gelu": _smooth(partial(jax.nn.gelu, approximate=False), _gelu_moments, _gelu_diagonal, 1.13),
    "sin": _smooth(jnp.sin, _sin_moments, _sin_diagonal, 1.0),
}
