"""Angles from 1 − cos θ, by polynomials that vectorize.

An angle near 0 cannot be had from its cosine, which is 1 up to θ²/2: half the digits are lost. From
q = 1 − cos θ nothing is lost. With z = q/2,

    θ = 2 asin √z = 2 √z S(z),             S(z) = Σ_k s_k zᵏ,    s_k = C(2k, k) / (4ᵏ (2k + 1)),
    sin θ − θ cos θ = 2 z^{3/2} T(z),      T(z) = Σ_k 2 s_k / (k + 3/2) zᵏ,

the second because its derivative by q is θ. On 0 ≤ z ≤ 1/2 both are polynomials to rounding: their
Chebyshev series are cut where the rest is below eps/4 (degree 7 in float32, 18 in float64). For
θ > π/2 they are taken of the angle π − θ, whose q is 2 − q.

References
----------
Abramowitz & Stegun 1964, 4.4.40 (series of asin). Trefethen 2013, Approximation Theory and
Approximation Practice, ch. 4 and 8 (geometric convergence of Chebyshev interpolants).
"""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial, chebyshev

from ntkbayes._types import Array

__all__ = ["arccosine_kernels", "arcsine"]


@jax.custom_jvp
def arccosine_kernels(q: Array, mirror: Array) -> tuple[Array, Array]:
    """Return 1 − κ₁ and κ₀ of the angle with q = 1 − cos θ and mirror = 1 + cos θ; elementwise.

    κ₀ = (π − θ)/π and κ₁ = (sin θ + (π − θ) cos θ)/π. The derivative of 1 − κ₁ by q is κ₀; that of
    κ₀, −1/(π sin θ), is infinite at θ = 0 and π and taken as 0 there: up to 4 eps, below which
    compiled code may leave an angle to inputs that are the same.

    References
    ----------
    Cho & Saul 2009 (arc-cosine kernels of order 0 and 1).
    """
    z = 0.5 * jnp.maximum(jnp.minimum(q, mirror), 0)
    root = 2 / math.pi * jnp.sqrt(z)
    angle = root * _evaluate("S", z)  # both in units of π
    remainder = root * z * _evaluate("T", z)
    return jnp.minimum(q, 1) - remainder, jnp.where(q > 1, angle, 1 - angle)


@arccosine_kernels.defjvp
def _arccosine_kernels_jvp(primals, tangents):
    (q, mirror), (dq, _) = primals, tangents
    value, kappa_0 = arccosine_kernels(q, mirror)
    sine_squared = q * mirror
    inside = sine_squared > (4 * float(jnp.finfo(sine_squared.dtype).eps)) ** 2
    dangle = jnp.where(inside, dq / jnp.sqrt(jnp.where(inside, sine_squared, 1)), 0)
    return (value, kappa_0), (kappa_0 * dq, -dangle / math.pi)


@jax.custom_jvp
def arcsine(x: Array, gap: Array) -> Array:
    """Return asin x from x and gap = 1 − |x| > 0, accurate at both ends; elementwise."""
    small = jnp.abs(x) < 0.5
    z = jnp.where(small, x * x, gap / 2)
    series = _evaluate("S", z)
    large = math.pi / 2 - 2 * jnp.sqrt(z) * series
    return jnp.where(small, x * series, jnp.where(x < 0, -large, large))


@arcsine.defjvp
def _arcsine_jvp(primals, tangents):
    x, gap = primals
    return arcsine(x, gap), tangents[0] / jnp.sqrt(gap * (2 - gap))


def _evaluate(name: str, z: Array) -> Array:
    coefficients = _coefficients(name, jnp.dtype(z.dtype))
    centered = 4 * z - 1
    total = jnp.full_like(z, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * centered + coefficient
    return total


@lru_cache
def _coefficients(name: str, dtype: np.dtype) -> tuple[float, ...]:
    """Coefficients in powers of 4z − 1, which maps 0 ≤ z ≤ 1/2 to −1 … 1."""
    k = np.arange(60)  # zᵏ ≤ 2⁻ᵏ: the rest is below eps of float64
    series = np.cumprod(np.r_[1.0, (2 * k[1:] - 1) / (2 * k[1:])]) / (2 * k + 1)
    if name == "T":
        series = 2 * series / (k + 1.5)
    # All terms of this conversion are positive: each coefficient has full relative accuracy.
    coefficients = Polynomial(series).convert(kind=Chebyshev, domain=[0, 0.5]).coef
    rest = np.cumsum(coefficients[::-1])[::-1]
    needed = int(np.sum(rest > float(jnp.finfo(dtype).eps) / 4 * coefficients[0]))
    return tuple(float(c) for c in chebyshev.cheb2poly(coefficients[:needed]))
