"""What every posterior over weights supplies, and the parts they share."""

import abc
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._types import Array, Float, Key
from ntkbayes.likelihoods import Likelihood
from ntkbayes.posteriors.weights.selection import SelectedWeights

__all__ = [
    "WeightPosterior",
    "blocks_of_rows",
    "curvature_roots",
    "rows_covariance",
    "rows_variance",
    "weighted_rows",
]

CHUNK_NUMBERS = 2**25
"""Numbers of a block of Jacobian rows (256 MiB in float64)."""


class WeightPosterior(eqx.Module):
    """N(θ̂, P⁻¹) over the selected weights θ (p).

    Attributes
    ----------
    weights
        The network as a function of θ.
    log_det
        log det (P / λ): how much the data have narrowed the prior, in nats (twice).
    """

    weights: eqx.AbstractVar[SelectedWeights]
    log_det: eqx.AbstractVar[Float[Array, ""]]

    def settings(self) -> dict[str, str]:
        """Return what else there was to choose, as written into results."""
        return {}

    @abc.abstractmethod
    def product(self, v: Float[Array, "b p"]) -> Float[Array, "b p"]:
        """P⁻¹ v for each row of v."""

    @abc.abstractmethod
    def draw(self, key: Key, num_draws: int) -> Float[Array, "s p"]:
        """Draws of θ − θ̂."""

    @abc.abstractmethod
    def covariance(self, x: Float[Array, "m d"]) -> Float[Array, "m c m c"]:
        """J(x) P⁻¹ J(x')ᵀ, the covariance of the linearised function."""

    @abc.abstractmethod
    def variance(self, x: Float[Array, "m d"]) -> Float[Array, "m c"]:
        """Diagonal of `covariance`."""


def curvature_roots(likelihood: Likelihood, f: Float[Array, "n c"]) -> Float[Array, "n c c"]:
    """R with R Rᵀ = W(f) at each point; W may be singular, as it is for a softmax."""
    values, vectors = jnp.linalg.eigh(jax.vmap(likelihood.curvature)(f))
    return vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]


def blocks_of_rows(weights: SelectedWeights, x: Float[Array, "n d"]) -> Iterator[slice]:
    """Slices of points whose Jacobians together stay below `CHUNK_NUMBERS`."""
    num_outputs = jax.eval_shape(weights.apply, weights.theta, x).shape[1]
    size = max(1, CHUNK_NUMBERS // (num_outputs * weights.theta.size))
    return (slice(start, start + size) for start in range(0, len(x), size))


@eqx.filter_jit
def weighted_rows(
    weights: SelectedWeights, likelihood: Likelihood, x: Float[Array, "b d"]
) -> Float[Array, "k p"]:
    """Rᵢᵀ Jᵢ of each point, one under the other (k = b c): Σᵢ Jᵢᵀ Wᵢ Jᵢ is their Gram matrix."""
    roots = curvature_roots(likelihood, weights.apply(weights.theta, x))
    rows = jnp.einsum("bcr,bcp->brp", roots, weights.jacobian(x))
    return rows.reshape(-1, rows.shape[2])


def rows_covariance(posterior: WeightPosterior, x: Float[Array, "m d"]) -> Float[Array, "m c m c"]:
    """J P⁻¹ Jᵀ from rows of J, a block of points against all others at a time."""
    blocks = list(blocks_of_rows(posterior.weights, x))
    lower = [[_block(posterior, x[i], x[j]) for j in blocks] for i in blocks]
    covariance = jnp.concatenate([jnp.concatenate(row, axis=2) for row in lower], axis=0)
    return 0.5 * (covariance + jnp.transpose(covariance, (2, 3, 0, 1)))


def rows_variance(posterior: WeightPosterior, x: Float[Array, "m d"]) -> Float[Array, "m c"]:
    """Diagonal of `rows_covariance`, without the rest."""
    blocks = blocks_of_rows(posterior.weights, x)
    return jnp.concatenate([_diagonal(posterior, x[block]) for block in blocks])


@eqx.filter_jit
def _block(posterior: WeightPosterior, x1: Array, x2: Array) -> Float[Array, "a c b c"]:
    one, two = posterior.weights.jacobian(x1), posterior.weights.jacobian(x2)
    solved = _on_rows(posterior.product, two)
    return jnp.einsum("acp,bdp->acbd", one, solved)


@eqx.filter_jit
def _diagonal(posterior: WeightPosterior, x: Array) -> Float[Array, "b c"]:
    jacobian = posterior.weights.jacobian(x)
    return jnp.sum(jacobian * _on_rows(posterior.product, jacobian), axis=2)


def _on_rows(product: Callable[[Array], Array], jacobian: Float[Array, "b c p"]) -> Array:
    return product(jacobian.reshape(-1, jacobian.shape[2])).reshape(jacobian.shape)
