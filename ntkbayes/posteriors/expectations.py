"""Expectations of a likelihood under independent Gaussians, point by point.

For f ~ N(m, diag v) at one point: E log p, E s and E W, with the likelihood's score
s and curvature W. By a fixed set of points, so that they are smooth functions of m and v.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm, qmc

from ntkbayes._types import Array, Float
from ntkbayes.likelihoods import Likelihood

__all__ = ["Expectations", "Quadrature", "expectations", "quadrature"]

NUM_POINTS = 256
BLOCK = 25_600
"""Entries of W at each point of the rule that are held at once."""


class Quadrature(eqx.Module):
    """Points and weights for expectations over standard normal numbers."""

    points: Float[Array, "q c"]
    weights: Float[Array, "q"]


class Expectations(eqx.Module):
    """E log p, E s and E W at every training point."""

    log_prob: Float[Array, "n"]
    scores: Float[Array, "n c"]
    curvature: Float[Array, "n c c"]

    @property
    def weights(self) -> Float[Array, "n c"]:
        """The diagonals of E W."""
        return jnp.diagonal(self.curvature, axis1=1, axis2=2)


def expectations(
    likelihood: Likelihood,
    targets: Float[Array, "n c"],
    mean: Float[Array, "n c"],
    variance: Float[Array, "n c"],
    rule: Quadrature,
) -> Expectations:
    """Take expectations over f_i ~ N(mean_i, diag variance_i), a block of points at a time."""

    def at_point(row: tuple[Array, Array, Array]) -> Expectations:
        target, mean, variance = row
        f = mean[None] + jnp.sqrt(variance)[None] * rule.points
        return Expectations(
            rule.weights @ jax.vmap(likelihood.log_prob, (None, 0))(target, f),
            rule.weights @ jax.vmap(likelihood.score, (None, 0))(target, f),
            jnp.einsum("q,qcd->cd", rule.weights, jax.vmap(likelihood.curvature)(f)),
        )

    size = max(1, BLOCK // targets.shape[1] ** 2)
    return jax.lax.map(at_point, (targets, mean, variance), batch_size=size)


def quadrature(num_outputs: int, dtype: jnp.dtype) -> Quadrature:
    """Make the rule for that many independent standard normal numbers.

    For one output the trapezoidal rule on [−10, 10]. Its error e^(−2π²/(h σ)) with spacing h, where
    f has standard deviation σ and σ(f) its poles at ±iπ, is below 1e-10 up to σ = 10, where as many
    Gauss–Hermite points, most of them at weights that count for nothing, reach 1e-5 (Trefethen
    2022, SIAM Review 64, doi 10.1137/20M1389522). The rate of counts, E e^f, needs σ below 6:
    beyond, its mass lies where f is more than ten deviations off. For several outputs
    quasi-Monte-Carlo points, symmetrised so that their mean is zero.
    """
    if num_outputs == 1:
        nodes = np.linspace(-10, 10, NUM_POINTS)
        density = norm.pdf(nodes)
        points, weights = nodes[:, None], density / density.sum()
        return Quadrature(jnp.asarray(points, dtype), jnp.asarray(weights, dtype))
    sobol = qmc.Sobol(num_outputs, rng=np.random.default_rng(0)).random(NUM_POINTS // 2)
    half = norm.ppf(np.clip(sobol, 1e-9, 1 - 1e-9))
    points = np.concatenate([half, -half])
    return Quadrature(jnp.asarray(points, dtype), jnp.full(len(points), 1 / len(points), dtype))
