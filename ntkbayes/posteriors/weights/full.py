"""The whole GGN, as a p × p matrix."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from ntkbayes._arrays import more_digits
from ntkbayes._linalg import cholesky
from ntkbayes._types import Array, Float, Key
from ntkbayes.kernels.memory import check_memory
from ntkbayes.likelihoods import Likelihood
from ntkbayes.posteriors.weights.base import (
    WeightPosterior,
    blocks_of_rows,
    rows_covariance,
    rows_variance,
    weighted_rows,
)
from ntkbayes.posteriors.weights.selection import SelectedWeights

__all__ = ["FullWeights", "full_weights"]


class FullWeights(WeightPosterior):
    """P = λ I + G by its Cholesky factor L."""

    weights: SelectedWeights
    log_det: Float[Array, ""]
    factor: Float[Array, "p p"]

    def product(self, v: Float[Array, "b p"]) -> Float[Array, "b p"]:
        """L⁻ᵀ L⁻¹ v."""
        return cho_solve((self.factor, True), v.T).T

    def draw(self, key: Key, num_draws: int) -> Float[Array, "s p"]:
        """L⁻ᵀ z with z ~ N(0, I)."""
        z = jax.random.normal(key, (len(self.factor), num_draws), self.factor.dtype)
        return solve_triangular(self.factor, z, trans=1, lower=True).T

    def covariance(self, x: Float[Array, "m d"]) -> Float[Array, "m c m c"]:
        """J P⁻¹ Jᵀ."""
        return rows_covariance(self, x)

    def variance(self, x: Float[Array, "m d"]) -> Float[Array, "m c"]:
        """Diagonal of `covariance`."""
        return rows_variance(self, x)


def full_weights(
    weights: SelectedWeights, likelihood: Likelihood, x: Array, *, prior_precision: float
) -> FullWeights:
    """Factor λ I + Σᵢ Jᵢᵀ Wᵢ Jᵢ; time n c p² + p³, memory 3 p² numbers.

    Raises
    ------
    ValueError
        If p × p matrices do not fit memory.
    """
    num_weights, dtype = weights.theta.size, weights.theta.dtype
    check_memory(
        "the posterior precision", num_weights, num_weights, dtype, num_matrices=3,
        remedy='use form="dual", hessian_structure="kron" or "diag", or '
        'subset_of_weights="last_layer"',
    )  # fmt: skip
    precision = prior_precision * jnp.eye(num_weights, dtype=dtype)
    for block in blocks_of_rows(weights, x):
        rows = weighted_rows(weights, likelihood, x[block])
        precision = precision + rows.T @ rows
    factor = cholesky(
        precision,
        name="the posterior precision λ I + Jᵀ W J",
        remedy=f"{more_digits(dtype)}take a larger prior_precision",
    )
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor))) - num_weights * jnp.log(prior_precision)
    return FullWeights(weights, log_det, factor)
