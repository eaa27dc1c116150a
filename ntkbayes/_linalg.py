"""The one Cholesky factorisation, and how Gaussian functions are drawn with it."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular

from ntkbayes._arrays import more_digits
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
    failed = _failed(factor)
    if isinstance(failed, Tracer):
        return eqx.error_if(factor, failed, message)
    if failed:
        raise ValueError(message)
    return factor


def check_positive_semidefinite(matrix: Float[Array, "n n"], *, name: str) -> None:
    """Check the eigenvalues of a symmetric matrix; cost n³.

    Raises
    ------
    ValueError
        If one is below −n · eps · max diag, more than rounding explains; with the smallest.
    """
    rounding = float(_rounding(matrix))
    smallest = float(jnp.linalg.eigvalsh(matrix)[0])
    if not smallest >= -rounding:  # also if it is NaN
        raise ValueError(
            f"{name} is not positive semidefinite in {matrix.dtype}: its smallest eigenvalue is "
            f"{smallest:.3g}, where rounding explains {-rounding:.1g}; "
            f"{more_digits(matrix.dtype)}remove inputs that nearly coincide."
        )


def covariance_factor(covariance: Float[Array, "n n"], *, name: str) -> Float[Array, "n n"]:
    """Factor a covariance that may be singular (repeated inputs), for drawing from it.

    The diagonal is raised by n · eps · max diag, the largest amount by which rounding in the
    entries can lower an eigenvalue.

    Raises
    ------
    ValueError
        If it is not positive semidefinite, with the smallest eigenvalue (under ``jit``: an
        Equinox runtime error without it).
    """
    return _raised_factor(covariance, (_rounding(covariance),), name=name)


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

    A test point that repeats a training point has conditional variance 0. The diagonal is raised
    by (n + m) · eps · max diag if that makes the conditional covariance positive definite, as it
    does for kernels that know coincidence to rounding (`dense_network`), else by √eps · max diag:
    the angle in a ReLU kernel of neural-tangents is no better.

    Raises
    ------
    ValueError
        As `covariance_factor`.
    """
    cross, conditional = conditional_covariance(factor, k_cross, k_test)
    eps, scale = float(jnp.finfo(k_test.dtype).eps), jnp.max(jnp.sum(factor**2, axis=1))
    size = len(factor) + len(k_test)
    roundings = sorted((size * eps, eps**0.5))
    return cross, _raised_factor(conditional, [scale * r for r in roundings], name=name)


def conditional_covariance(
    factor: Float[Array, "n n"], k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"]
) -> tuple[Float[Array, "m n"], Float[Array, "m m"]]:
    """B = K*ᵀ L⁻ᵀ and K** − B Bᵀ: what L z says of the test points, and what it leaves open."""
    cross = solve_triangular(factor, k_cross, lower=True).T
    return cross, k_test - cross @ cross.T


def _raised_factor(
    covariance: Float[Array, "n n"], roundings: Sequence[Float[Array, ""]], *, name: str
) -> Float[Array, "n n"]:
    """Factor with the first of the `roundings` on the diagonal that makes it possible."""

    def factor_with(rounding: Array) -> Array:
        eye = jnp.eye(len(covariance), dtype=covariance.dtype)
        return jnp.linalg.cholesky(covariance + rounding * eye)

    factor = factor_with(roundings[0])
    for rounding in roundings[1:]:
        factor = jax.lax.cond(_failed(factor), factor_with, lambda _, kept=factor: kept, rounding)
    failed = _failed(factor)
    message = (
        f"{name} is not positive semidefinite in {covariance.dtype}: "
        f"{more_digits(covariance.dtype)}remove inputs that nearly coincide."
    )
    if isinstance(failed, Tracer):
        return eqx.error_if(factor, failed, message)
    if failed:
        check_positive_semidefinite(covariance, name=name)
        raise ValueError(message)
    return factor


def _rounding(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    return len(matrix) * jnp.finfo(matrix.dtype).eps * jnp.max(jnp.diagonal(matrix))


def _failed(factor: Float[Array, "n n"]) -> Array:
    return jnp.any(jnp.isnan(jnp.diagonal(factor)))
