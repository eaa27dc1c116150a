"""Inducing points: which training points stand for all, and the prior seen through them.

With inducing inputs Z (M d) and K(Z, Z) = L Lᵀ, every function of the prior splits into two
independent parts,

    f(x) = φ(x)ᵀ v + e(x),  φ(x) = L⁻¹ K(Z, x),  v ~ N(0, I),  var e(x) = K(x, x) − φ(x)ᵀ φ(x):

what the inducing points know of it, in whitened coordinates v, and what they leave open. With
Z = X nothing is left open.

References
----------
Hensman, Matthews, Ghahramani 2015, arXiv 1411.2005 (whitened inducing points).
Burt, Rasmussen, van der Wilk 2020, JMLR 21(131), §4 (the greedy choice and its guarantees).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from ntkbayes._checks import check_at_least, check_finite, check_not_empty
from ntkbayes._linalg import covariance_factor
from ntkbayes._types import AnyArray, Array, Float
from ntkbayes.kernels.memory import check_memory

__all__ = ["Kernel", "Projection", "inducing_inputs", "prior_variance", "project"]

Kernel = Callable[..., Array]
"""The prior covariance: ``kernel(x1, x2)`` between rows, ``kernel(x)`` symmetric."""

BLOCK = 256


class Projection(eqx.Module):
    """The prior at the training points, seen through the inducing points.

    Attributes
    ----------
    z
        Inducing inputs.
    factor
        L, the Cholesky factor of K(Z, Z).
    features
        φ(x) of every training point, one per row.
    residual
        var e(x) of every training point.
    raised
        By how much of itself the diagonal of L Lᵀ is above that of K(Z, Z), at most.
    """

    z: Float[Array, "k d"]
    factor: Float[Array, "k k"]
    features: Float[Array, "n k"]
    residual: Float[Array, "n"]
    raised: float


def inducing_inputs(
    kernel: Kernel, x: Float[Array, "n d"], inducing: int | AnyArray
) -> Float[Array, "k d"]:
    """Return inducing inputs: an array as given, or that many training points chosen greedily.

    Each next point is the one of largest conditional variance given those before, as in a pivoted
    Cholesky factorisation; of equal ones the first. Fewer come back where the chosen points leave
    no variance open beyond rounding. Cost n M kernel entries and n M² operations, memory n M.

    Raises
    ------
    ValueError
        If the number is not between 1 and n, or the array is not finite with shape (M, d), M ≤ n.
    """
    count = inducing if isinstance(inducing, int) else len(inducing)
    if not isinstance(inducing, int):
        if inducing.ndim != 2 or inducing.shape[1] != x.shape[1]:
            raise ValueError(
                f"inducing must be a number of training points, or inputs of shape "
                f"(M, {x.shape[1]}), but has shape {tuple(inducing.shape)}."
            )
        check_not_empty("inducing", inducing)
        check_finite("inducing", inducing)
    check_at_least("inducing", count, 1)
    if count > len(x):
        raise ValueError(
            f"inducing must be at most the number of training points, {len(x)}, but is {count}: "
            "use None for the variational posterior without inducing points."
        )
    if not isinstance(inducing, int):
        return jnp.asarray(inducing, dtype=x.dtype)
    check_memory(
        "the choice of inducing points", len(x), count, x.dtype,
        num_matrices=2, remedy="choose fewer inducing points",
    )  # fmt: skip
    order, gains = _greedy_order(kernel, x, prior_variance(kernel, x), count)
    return x[order[: int(jnp.sum(gains > 0))]]


def prior_variance(kernel: Kernel, x: Float[Array, "n d"]) -> Float[Array, "n"]:
    """K(x, x) at each row, from small blocks of the kernel."""
    blocks = (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))
    return jnp.concatenate([jnp.diagonal(kernel(block)) for block in blocks])


def project(
    kernel: Kernel, x: Float[Array, "n d"], z: Float[Array, "k d"] | None, *, name: str
) -> Projection:
    """Factor K(Z, Z) and evaluate the features; `z` None means all training points.

    The diagonal of K(Z, Z) is raised as in `covariance_factor`, which names it `name`.
    """
    own = kernel(x if z is None else z)
    factor = covariance_factor(own, name=name)
    now, before = np.sum(np.square(factor, dtype=float), axis=1), np.diagonal(own)
    raised = max(0.0, float(np.max(now / np.where(before > 0, before, now) - 1)))
    if z is None:
        return Projection(x, factor, factor, jnp.zeros(len(x), dtype=x.dtype), raised)
    features = solve_triangular(factor, kernel(z, x), lower=True).T
    residual = prior_variance(kernel, x) - jnp.sum(features**2, axis=1)
    return Projection(z, factor, features, jnp.maximum(residual, 0), raised)


@eqx.filter_jit
def _greedy_order(
    kernel: Kernel, x: Array, variance: Array, num_inducing: int
) -> tuple[Array, Array]:
    """Pivots, and the conditional variance of each when chosen (zero where none was left)."""
    floors = len(x) * jnp.finfo(x.dtype).eps * variance

    def choose(j: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        order, gains, rows, left = state
        pivot = jnp.argmax(jnp.where(left > floors, left, -jnp.inf))
        gain, floor = left[pivot], floors[pivot]
        row = kernel(x[pivot][None], x)[0] - rows[:, pivot] @ rows
        row = jnp.where(gain > floor, row / jnp.sqrt(jnp.maximum(gain, floor)), 0)
        gains = gains.at[j].set(jnp.where(gain > floor, gain, 0))
        left = (left - row**2).at[pivot].set(-jnp.inf)
        return order.at[j].set(pivot), gains, rows.at[j].set(row), left

    order = jnp.zeros(num_inducing, dtype=int)
    gains = jnp.zeros(num_inducing, dtype=x.dtype)
    rows = jnp.zeros((num_inducing, len(x)), dtype=x.dtype)
    order, gains, *_ = jax.lax.fori_loop(0, num_inducing, choose, (order, gains, rows, variance))
    return order, gains
