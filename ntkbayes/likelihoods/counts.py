"""Counts."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._arrays import is_traced
from ntkbayes._checks import check_kept
from ntkbayes._types import AnyArray, Array, Float, Key
from ntkbayes.likelihoods.base import Likelihood, require_reachable, single_output

__all__ = ["Poisson"]

LARGE_RATE = 2.0**14
"""From here on counts are drawn by the expansion of their quantiles."""
LARGE_COUNT = 16.0
"""From here on the log factorial is Stirling's series."""


class Poisson(Likelihood):
    """Counts with mean exp(f): the log link.

    Counts are floating numbers, whole in value, so that none is too large for an integer type. Up
    to a rate of 2¹⁴ they are drawn exactly. Beyond, a standard normal z is turned into the count by
    the asymptotic expansion of the Poisson quantile,

        ⌊λ + √λ z + z²/6 + 1/3 − (z³ + 2 z) / (72 √λ)⌋,

    which differs from the exact quantile with a probability below 3e-6 [1]_; above
    2²⁴ in float32 (2⁵³ in float64) whole numbers have gaps, and counts are rounded to them.

    References
    ----------
    .. [1] Giles 2016, ACM TOMS 42 (1), doi 10.1145/2699466, eq. for Q̃_N2. Loader 2000, Fast and
       accurate computation of binomial probabilities (the form of `log_prob`).

    Examples
    --------
    >>> likelihood = nb.Poisson()
    >>> likelihood.targets(np.array([0, 3])).tolist()
    [[0.0], [3.0]]
    >>> likelihood.log_prob(np.zeros(1), np.zeros(1)).item()
    -1.0
    """

    num_outputs: int = eqx.field(static=True, default=1, init=False)
    curvature_structure: ClassVar = "diagonal"
    counts: ClassVar[bool] = True

    def targets(self, y: AnyArray) -> Float[Array, "n 1"]:
        """Return targets (n 1) from counts (n,) or (n 1).

        Raises
        ------
        ValueError
            If y is empty, not finite or of another shape than (n,) or (n, 1), or a count is
            negative, no whole number, or so large that JAX's floating type does not keep it: above
            2²⁴ in float32.
        """
        targets = single_output("y", y)
        if targets.min() < 0 or np.any(targets != np.round(targets)):
            raise ValueError("y must hold counts: whole numbers, zero or positive.")
        dtype = jnp.result_type(float)
        check_kept("y", targets, dtype, whole=True)
        return jnp.asarray(targets, dtype=dtype)

    def log_prob(self, target: Float[Array, "1"], f: Float[Array, "1"]) -> Float[Array, ""]:
        """Return target · f − exp f − log target!.

        For a large count t the three cancel; with d = f − log t their sum is
        −t (eᵈ − 1 − d) − ½ log 2πt − (1/12t − 1/360t³ + …).

        It is −∞ where exp f or the result leaves the range of its type. Targets are not checked
        here but in `targets`: numbers that are no counts have a value without meaning.
        """
        t, dtype = jnp.asarray(target), jnp.result_type(target, f)
        few = jnp.minimum(t, LARGE_COUNT)
        plain = few * f - jnp.exp(f) - jax.scipy.special.gammaln(few + 1)
        many = jnp.maximum(t, LARGE_COUNT).astype(dtype)
        moved = f - jnp.log(many)
        large = -many * (jnp.expm1(moved) - moved) - _log_root(many)
        return jnp.sum(jnp.where(t < LARGE_COUNT, plain, large))

    def score(self, target: Float[Array, "1"], f: Float[Array, "1"]) -> Float[Array, "1"]:
        """Return target − exp f."""
        return target - jnp.exp(f)

    def curvature(self, f: Float[Array, "1"]) -> Float[Array, "1 1"]:
        """Return exp f."""
        return jnp.exp(f)[None]

    def curvature_product(
        self, f: Float[Array, "1"], vector: Float[Array, "1"]
    ) -> Float[Array, "1"]:
        """Return exp f · vector."""
        return jnp.exp(f) * vector

    def saturated(self, targets: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
        """Return the log of the counts."""
        require_reachable(
            bool(jnp.all(targets > 0)), targets="counts of zero", remedy="positive counts only"
        )
        return jnp.log(targets)

    def score_noise(self, key: Key, f: Float[Array, "1"]) -> Float[Array, "1"]:
        """Return y* − exp f with y* ~ Poisson(exp f): a resampled count minus its expectation.

        Raises
        ------
        ValueError
            If exp f overflows the type of f (not under ``jit``, where it is not known: NaN there).
        """
        f = jnp.asarray(f)
        return _draw(key, _rate(f))[1]

    def sample(self, key: Key, f: Float[Array, "1"]) -> Array:
        """Return a count of mean exp f, a whole number in the floating type of f.

        Raises
        ------
        ValueError
            If exp f overflows the type of f (not under ``jit``, where it is not known: NaN there).
        """
        return _draw(key, _rate(jnp.asarray(f)[0]))[0]

    def settings(self) -> dict[str, str | int | float]:
        """Name."""
        return {"name": "Poisson", "num_outputs": 1}


def _rate(f: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return exp f, if it is finite."""
    rate = jnp.exp(f)
    if is_traced(rate):
        return jnp.where(jnp.isfinite(rate), rate, jnp.nan)
    if not bool(jnp.all(jnp.isfinite(rate))):
        raise ValueError(
            f"a rate exp f must be finite, but overflows {rate.dtype} at f = {float(jnp.max(f)):g}."
        )
    return rate


def _draw(key: Key, rate: Float[Array, "..."]) -> tuple[Array, Array]:
    """Return counts and their deviations from the rate, which keep digits that counts do not."""
    dtype = rate.dtype
    exact = jax.random.poisson(key, jnp.minimum(rate, LARGE_RATE)).astype(dtype)
    large = jnp.maximum(rate, LARGE_RATE)
    z, root = jax.random.normal(key, rate.shape, dtype), jnp.sqrt(large)
    quantile = root * z + z**2 / 6 + 1 / 3 - (z**3 + 2 * z) / (72 * root)
    whole = jnp.floor(large + quantile)
    # Rounding down takes away a half on average; types without halves do not round down.
    has_halves = large < 0.5 / float(jnp.finfo(dtype).eps)
    deviation = jnp.where(has_halves, whole - large, quantile - 0.5)
    count = jnp.where(has_halves, whole, large + deviation)
    is_large = rate >= LARGE_RATE
    bad = jnp.isnan(rate)
    counts = jnp.where(bad, jnp.nan, jnp.where(is_large, count, exact))
    return counts, jnp.where(bad, jnp.nan, jnp.where(is_large, deviation, exact - rate))


def _log_root(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log t! − (t log t − t) of numbers t ≥ 16: to 1e-14 by Stirling's series."""
    inverse = 1 / t
    square = inverse**2
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    return 0.5 * jnp.log(2 * jnp.pi * t) + series
