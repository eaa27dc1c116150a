"""The diagonal of the GGN."""

import jax
import jax.numpy as jnp

from ntkbayes._types import Array, Float, Key
from ntkbayes.likelihoods import Likelihood
from ntkbayes.posteriors.weights.base import (
    WeightPosterior,
    blocks_of_rows,
    rows_covariance,
    rows_variance,
    weighted_rows,
)
from ntkbayes.posteriors.weights.selection import SelectedWeights

__all__ = ["DiagonalWeights", "diagonal_weights"]


class DiagonalWeights(WeightPosterior):
    """P = λ I + diag G."""

    weights: SelectedWeights
    log_det: Float[Array, ""]
    precision: Float[Array, "p"]

    def product(self, v: Float[Array, "b p"]) -> Float[Array, "b p"]:
        """Divide by the precision of each weight."""
        return v / self.precision[None]

    def draw(self, key: Key, num_draws: int) -> Float[Array, "s p"]:
        """Independent normal numbers."""
        z = jax.random.normal(key, (num_draws, len(self.precision)), self.precision.dtype)
        return z / jnp.sqrt(self.precision)[None]

    def covariance(self, x: Float[Array, "m d"]) -> Float[Array, "m c m c"]:
        """J P⁻¹ Jᵀ."""
        return rows_covariance(self, x)

    def variance(self, x: Float[Array, "m d"]) -> Float[Array, "m c"]:
        """Diagonal of `covariance`."""
        return rows_variance(self, x)


def diagonal_weights(
    weights: SelectedWeights, likelihood: Likelihood, x: Array, *, prior_precision: float
) -> DiagonalWeights:
    """Sum the squares of Rᵢᵀ Jᵢ, R Rᵀ = W, over data and outputs; time n c p."""
    diagonal = jnp.zeros_like(weights.theta)
    for block in blocks_of_rows(weights, x):
        diagonal = diagonal + jnp.sum(weighted_rows(weights, likelihood, x[block]) ** 2, axis=0)
    log_det = jnp.sum(jnp.log1p(diagonal / prior_precision))
    return DiagonalWeights(weights, log_det, prior_precision + diagonal)
