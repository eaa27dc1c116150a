"""The one Cholesky factorisation, and how Gaussian functions are drawn with it."""

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular

from ntkbayes._types import Array, Float


def cholesky(matrix: Float[Array, "n n"], *, name: str, remedy: str) -> Float[Array, "n n"]:
    """Return lower-triangular L with L Lᵀ = `matrix`; fail with `name` and `remedy`.

    Raises
    ------
    ValueError
        If the matrix is not positive definite (under ``jit``: an Equinox runtime error).
    """
    factor = jnp.linalg.cholesky(matrix)
    message = f"{name} is not positive definite in {matrix.dtype}: {remedy}."
    failed = jnp.any(jnp.isnan(jnp.diagonal(factor)))
    if isinstance(failed, Tracer):
        return eqx.error_if(factor, failed, message)
    if failed:
        raise ValueError(message)
    return factor


def covariance_factor(covariance: Float[Array, "n n"], *, name: str) -> Float[Array, "n n"]:
    """Factor a covariance that may be singular (repeated inputs), for drawing from it.

    The diagonal is raised by n · eps · max diag, the largest amount by which rounding in the
    entries can lower an eigenvalue.
    """
    rounding = len(covariance) * jnp.finfo(covariance.dtype).eps * jnp.max(jnp.diagonal(covariance))
    return _factor_with_rounding(covariance, rounding, name=name)


def extend_factor(
    factor: Float[Array, "n n"],
    k_cross: Float[Array, "n m"],
    k_test: Float[Array, "m m"],
    *,
    name: str,
) -> tuple[Float[Array, "m n"], Float[Array, "m m"]]:
    """Continue the factor of k_train to test points: rows [B, C] of the joint factor.

    With k_train = L Lᵀ and z ~ N(0, I), ``L z`` is a function at the training points and
    ``B z + C z'`` the *same* function at the test points.
    """
    cross, conditional = conditional_covariance(factor, k_cross, k_test)
    # A test point that repeats a training point has conditional variance 0, but the angle in a
    # ReLU kernel knows coincidence to √eps only.
    rounding = jnp.finfo(k_test.dtype).eps ** 0.5 * jnp.max(jnp.sum(factor**2, axis=1))
    return cross, _factor_with_rounding(conditional, rounding, name=name)


def conditional_covariance(
    factor: Float[Array, "n n"], k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"]
) -> tuple[Float[Array, "m n"], Float[Array, "m m"]]:
    """B = K*ᵀ L⁻ᵀ and K** − B Bᵀ: what L z says of the test points, and what it leaves open."""
    cross = solve_triangular(factor, k_cross, lower=True).T
    return cross, k_test - cross @ cross.T


def _factor_with_rounding(
    covariance: Float[Array, "n n"], rounding: Float[Array, ""], *, name: str
) -> Float[Array, "n n"]:
    return cholesky(
        covariance + rounding * jnp.eye(len(covariance), dtype=covariance.dtype),
        name=name,
        remedy="use float64 (jax_enable_x64) or remove inputs that nearly coincide",
    )
