"""The whole GGN for more weights than data, from the empirical NTK Θ = J Jᵀ.

With W = R Rᵀ and B = I + Rᵀ Θ R / λ, (n c) × (n c), Woodbury's identity gives

    P⁻¹ = I/λ − Jᵀ R B⁻¹ Rᵀ J / λ²,   log det(P / λ) = log det B,
    J(x) P⁻¹ J(x')ᵀ = Θ(x, x')/λ − Θ(x, X) R B⁻¹ Rᵀ Θ(X, x')/λ².

That is the posterior of a Gaussian process with prior covariance Θ / λ.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from ntkbayes._arrays import more_digits
from ntkbayes._linalg import cholesky
from ntkbayes._problem import over_precision
from ntkbayes._types import Array, Float, Key
from ntkbayes.kernels.memory import check_memory
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Network, empirical_ntk, linearize
from ntkbayes.posteriors.weights.base import WeightPosterior, curvature_roots
from ntkbayes.posteriors.weights.selection import SelectedWeights

__all__ = ["DualWeights", "dual_weights"]

PRODUCTS_AT_ONCE = 16
BLOCK_POINTS = 64


class DualWeights(WeightPosterior):
    """P⁻¹ through the data.

    Attributes
    ----------
    x_train
        Training inputs.
    roots
        R of each point.
    factor
        Cholesky factor of B.
    """

    weights: SelectedWeights
    log_det: Float[Array, ""]
    prior_precision: float
    x_train: Float[Array, "n d"]
    roots: Float[Array, "n c c"]
    factor: Float[Array, "k k"]

    def product(self, v: Float[Array, "b p"]) -> Float[Array, "b p"]:
        """Return v/λ − Jᵀ R B⁻¹ Rᵀ J v/λ²."""
        linear = linearize(self.weights, self.weights.theta, self.x_train)

        def one_vector(v: Float[Array, "p"]) -> Float[Array, "p"]:
            scaled = v / self.prior_precision
            pulled = jnp.einsum("icr,ic->ir", self.roots, linear.jvp(scaled))
            return scaled - self._pull(linear, pulled)

        return jax.lax.map(one_vector, v, batch_size=PRODUCTS_AT_ONCE)

    def draw(self, key: Key, num_draws: int) -> Float[Array, "s p"]:
        """Return w − Jᵀ R B⁻¹ (Rᵀ J w + ε)/λ with w ~ N(0, I/λ), ε ~ N(0, I) (Matheron's rule)."""
        key_weights, key_noise = jax.random.split(key)
        size, dtype = self.weights.theta.size, self.factor.dtype
        w = jax.random.normal(key_weights, (num_draws, size), dtype) / self.prior_precision**0.5
        noise = jax.random.normal(key_noise, (num_draws, *self.roots.shape[:2]), dtype)
        linear = linearize(self.weights, self.weights.theta, self.x_train)

        def one_draw(pair: tuple[Array, Array]) -> Float[Array, "p"]:
            w, noise = pair
            observed = jnp.einsum("icr,ic->ir", self.roots, linear.jvp(w)) + noise
            return w - self._pull(linear, observed)

        return jax.lax.map(one_draw, (w, noise), batch_size=PRODUCTS_AT_ONCE)

    def covariance(self, x: Float[Array, "m d"]) -> Float[Array, "m c m c"]:
        """Θ**/λ − Θ*ᵀ R B⁻¹ Rᵀ Θ*/λ²."""
        network, params = _with_params(self.weights)
        cross = over_precision(
            empirical_ntk(network, params, self.x_train, x), self.prior_precision
        )
        own = over_precision(empirical_ntk(network, params, x), self.prior_precision)
        return _conditioned(self.roots, self.factor, cross, own)

    def variance(self, x: Float[Array, "m d"]) -> Float[Array, "m c"]:
        """Diagonal of `covariance`, some points at a time."""
        starts = range(0, len(x), BLOCK_POINTS)
        blocks = [self.covariance(x[start : start + BLOCK_POINTS]) for start in starts]
        return jnp.concatenate([jnp.einsum("icic->ic", block) for block in blocks])

    def _pull(self, linear: Any, v: Float[Array, "n c"]) -> Float[Array, "p"]:
        """Jᵀ R B⁻¹ v/λ."""
        solved = cho_solve((self.factor, True), v.ravel()).reshape(v.shape)
        return linear.vjp(jnp.einsum("icr,ir->ic", self.roots, solved)) / self.prior_precision


def dual_weights(
    weights: SelectedWeights, likelihood: Likelihood, x: Array, *, prior_precision: float
) -> DualWeights:
    """Factor B = I + Rᵀ Θ R / λ; time (n c)³ besides the empirical NTK, memory 4 (n c)² numbers.

    Raises
    ------
    ValueError
        If (n c) × (n c) matrices do not fit memory.
    """
    roots = curvature_roots(likelihood, weights.apply(weights.theta, x))
    size = roots.shape[0] * roots.shape[1]
    check_memory(
        "the dual Hessian", size, size, roots.dtype, num_matrices=4,
        remedy='use form="weight", hessian_structure="kron" or "diag", or '
        'subset_of_weights="last_layer"',
    )  # fmt: skip
    network, params = _with_params(weights)
    ntk = empirical_ntk(network, params, x)
    inner = jnp.einsum("icr,icjd,jds->irjs", roots, ntk, roots).reshape(size, size)
    factor = cholesky(
        jnp.eye(size, dtype=inner.dtype) + inner / prior_precision,
        name="I + Rᵀ Θ R / λ",
        remedy=f"{more_digits(inner.dtype)}take a larger prior_precision",
    )
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    return DualWeights(weights, log_det, prior_precision, x, roots, factor)


def _with_params(weights: SelectedWeights) -> tuple[Network, Any]:
    """Choose the network whose empirical NTK is taken: the whole one has faster routes."""
    if weights.selects_all:
        return weights.network, weights.params
    return weights, weights.theta


@eqx.filter_jit
def _conditioned(
    roots: Array, factor: Array, cross: Float[Array, "n c m c"], own: Float[Array, "m c m c"]
) -> Float[Array, "m c m c"]:
    pulled = jnp.einsum("icr,icmd->irmd", roots, cross).reshape(len(factor), -1)
    half = solve_triangular(factor, pulled, lower=True)
    return own - (half.T @ half).reshape(own.shape)
