"""The one Cholesky factorisation, and how Gaussian functions are drawn with it.

Rounding of a kernel's entry is relative to that entry, which is at most √(K_ii K_jj). So it is of
the size n · eps · K_ii at point i, whatever the other points are: one outlying input with a large
K_ii hides nothing of the others. Cholesky's factorisation keeps this (its error in entry (i, j) is
relative to √(K_ii K_jj) too), eigenvalues do not: their error is relative to the largest.

References
----------
Higham 2002, Accuracy and Stability of Numerical Algorithms, theorem 10.6 (Cholesky's factor of a
scaled matrix).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from ntkbayes._arrays import is_traced, more_digits
from ntkbayes._types import Array, Float, Int

HIDDEN = 1e-2
"""Rounding below this share of what it is added to hides nothing."""


class FactorizationError(ValueError):
    """A matrix is not positive definite to rounding, and cannot be factored."""


def cholesky(matrix: Float[Array, "n n"], *, name: str, remedy: str) -> Float[Array, "n n"]:
    """Return lower-triangular L with L Lᵀ = `matrix`; fail with `name` and `remedy`.

    Raises
    ------
    FactorizationError
        If the matrix is not positive definite (under ``jit``: an Equinox runtime error).
    """
    factor = jnp.linalg.cholesky(matrix)
    message = f"{name} is not positive definite in {matrix.dtype}: {remedy}."
    failed = _failed(factor)
    if is_traced(failed):
        return eqx.error_if(factor, failed, message)
    if failed:
        raise FactorizationError(message)
    return factor


@contextmanager
def naming_failure(message: str) -> Iterator[None]:
    """Turn the failure of a factorisation in compiled code, pages long, into one line.

    Raises
    ------
    FactorizationError
        With `message`. Other errors of the runtime, such as a lack of memory, go on.
    """
    try:
        yield
    except (eqx.EquinoxRuntimeError, jax.errors.JaxRuntimeError) as error:
        if "EquinoxRuntimeError" not in f"{type(error).__name__} {error}":
            raise
        raise FactorizationError(message) from error


def check_positive_semidefinite(
    matrix: Float[Array, "n n"], *, name: str, scale: Float[Array, "n"] | None = None
) -> None:
    """Check the eigenvalues of a symmetric matrix whose diagonal is scaled to one; cost n³.

    Parameters
    ----------
    matrix, name
        The matrix, and what errors call it.
    scale
        What the diagonal is divided by, the variances that rounding is relative to; by default it
        is the diagonal itself.

    Raises
    ------
    ValueError
        If one is below −n · eps, more than rounding explains; with the smallest.
    """
    roots = jnp.sqrt(_positive(jnp.diagonal(matrix) if scale is None else scale))
    rounding = len(matrix) * float(jnp.finfo(matrix.dtype).eps)
    smallest = float(jnp.linalg.eigvalsh(matrix / roots[:, None] / roots[None, :])[0])
    if not smallest >= -rounding:  # also if it is NaN
        raise ValueError(
            f"{name} is not positive semidefinite in {matrix.dtype}: scaled to a diagonal of one, "
            f"its smallest eigenvalue is {smallest:.3g}, where rounding explains {-rounding:.1g}; "
            f"{more_digits(matrix.dtype)}remove inputs that nearly coincide."
        )


def covariance_factor(
    covariance: Float[Array, "n n"],
    *,
    name: str,
    scale: Float[Array, "n"] | None = None,
    dtype: jnp.dtype | None = None,
) -> Float[Array, "n n"]:
    """Factor a covariance that may be singular (repeated inputs), for drawing from it.

    The diagonal is raised by as little as makes it positive definite, 4, √n or n times eps · scale:
    the last is the largest amount by which rounding in the entries can lower an eigenvalue, and
    much beside a posterior variance.

    Parameters
    ----------
    covariance, name
        The matrix, and what errors call it.
    scale
        Variances that the rounding of entries is relative to: the diagonal by default, the prior's
        for a posterior covariance, which is a difference.
    dtype
        In which the entries were rounded, if it is another than the covariance's own.

    Raises
    ------
    ValueError
        If it is not positive semidefinite, with the smallest eigenvalue (under ``jit``: an
        Equinox runtime error without it).
    """
    variances = jnp.diagonal(covariance) if scale is None else scale
    types = {covariance.dtype, covariance.dtype if dtype is None else jnp.dtype(dtype)}
    roundings = sorted(share for each in types for share in _roundings(len(covariance), each))
    return _raised_factor(covariance, variances, roundings, name=name)


def extend_factor(
    factor: Float[Array, "n n"],
    k_cross: Float[Array, "n m"],
    k_test: Float[Array, "m m"],
    *,
    known: Int[np.ndarray, "m"],
    name: str,
) -> tuple[Float[Array, "m n"], Float[Array, "m m"]]:
    """Continue the factor of k_train to test points: rows [B, C] of the joint factor.

    With k_train = L Lᵀ and z ~ N(0, I), ``L z`` is a function at the training points and
    ``B z + C z'`` the *same* function at the test points. A test point that repeats a training
    point has its row of L, and C = 0: solving for it would leave what rounding makes of L⁻¹, which
    is much where data are known better than eps · K.

    The diagonal is raised as in `covariance_factor` where that makes the conditional covariance
    positive definite, as it does for kernels that know coincidence to rounding (`dense_network`),
    else by √eps · K**: the angle in a ReLU kernel of neural-tangents is no better.

    Parameters
    ----------
    factor, k_cross, k_test, name
        L, the other parts of the joint covariance, and what errors call it.
    known
        Which training point a test point repeats, −1 where none (`repeated_rows`).

    Raises
    ------
    ValueError
        As `covariance_factor`.
    """
    cross, conditional = conditional_covariance(factor, k_cross, k_test)
    worst = float(jnp.finfo(k_test.dtype).eps) ** 0.5
    roundings = sorted([*_roundings(len(factor) + len(k_test), k_test.dtype), worst])
    variances, new = jnp.diagonal(k_test), jnp.asarray(known < 0)
    apart = jnp.where(new[:, None] & new[None, :], conditional, jnp.diag(variances))
    own = _raised_factor(apart, variances, roundings, name=name)
    return jnp.where(new[:, None], cross, factor[known]), jnp.where(new[:, None], own, 0)


def repeated_rows(
    x_train: Float[Array, "n d"], x_test: Float[Array, "m d"]
) -> Int[np.ndarray, "m"]:
    """Find which training row each test row repeats, the first of several; −1 where none.

    While inputs are traced none is found.
    """
    if is_traced(x_train) or is_traced(x_test):
        return np.full(len(x_test), -1)
    both = np.concatenate([x_train, x_test]) + 0.0  # −0.0 is 0.0
    _, first, which = np.unique(both, axis=0, return_index=True, return_inverse=True)
    found = first[which.reshape(-1)[len(x_train) :]]
    return np.where(found < len(x_train), found, -1)


def eigenbasis(
    covariance: Float[Array, "n n"], *, name: str
) -> tuple[Float[Array, "n"], Float[Array, "n n"]]:
    """Eigenvalues in rising order, and eigenvectors, by float64 and in the covariance's dtype.

    Raises
    ------
    ValueError
        If the variances of points differ so much that rounding of the largest eigenvalue hides the
        smallest of them.
    """
    with jax.enable_x64(True):
        eigenvalues, vectors = jnp.linalg.eigh(covariance.astype(jnp.float64))
        variances = jnp.diagonal(covariance)
        hidden = HIDDEN * jnp.min(variances) < _rounding(eigenvalues) * eigenvalues[-1]
        if not is_traced(hidden) and hidden:
            raise ValueError(
                f"{name} of an input with itself goes from {float(jnp.min(variances)):.1e} to "
                f"{float(jnp.max(variances)):.1e}: rounding of the largest hides the smallest; "
                "remove or clip outlying inputs."
            )
        return eigenvalues.astype(covariance.dtype), vectors.astype(covariance.dtype)


def conditional_covariance(
    factor: Float[Array, "n n"], k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"]
) -> tuple[Float[Array, "m n"], Float[Array, "m m"]]:
    """B = K*ᵀ L⁻ᵀ and K** − B Bᵀ: what L z says of the test points, and what it leaves open."""
    cross = solve_triangular(factor, k_cross, lower=True).T
    return cross, k_test - cross @ cross.T


def _raised_factor(
    covariance: Float[Array, "n n"],
    scale: Float[Array, "n"],
    roundings: Sequence[float],
    *,
    name: str,
) -> Float[Array, "n n"]:
    """Factor with the first of the `roundings`, times `scale`, that makes it possible."""

    def factor_with(rounding: float | Array) -> Array:
        return jnp.linalg.cholesky(covariance + jnp.diag(rounding * _positive(scale)))

    factor = factor_with(roundings[0])
    failed = _failed(factor)
    for rounding in roundings[1:]:
        if is_traced(failed):
            factor = jax.lax.cond(failed, factor_with, lambda _, kept=factor: kept, rounding)
        elif failed:
            factor = factor_with(rounding)
        failed = _failed(factor)
    message = (
        f"{name} is not positive semidefinite in {covariance.dtype}: "
        f"{more_digits(covariance.dtype)}remove inputs that nearly coincide."
    )
    if is_traced(failed):
        return eqx.error_if(factor, failed, message)
    if failed:
        check_positive_semidefinite(covariance, name=name, scale=scale)
        raise ValueError(message)
    return factor


def _roundings(size: int, dtype: jnp.dtype) -> list[float]:
    """Shares of a variance that rounding takes: of one entry, of many by chance, at worst."""
    eps = float(jnp.finfo(dtype).eps)
    return sorted([4 * eps, size**0.5 * eps, size * eps])


def _rounding(matrix: Float[Array, "n ..."]) -> float:
    return len(matrix) * float(jnp.finfo(matrix.dtype).eps)


def _positive(variances: Float[Array, "n"]) -> Float[Array, "n"]:
    """Give points without variance, whose row is zero, a pivot that counts for nothing."""
    least = jnp.finfo(variances.dtype).eps ** 2 * jnp.max(variances)
    return jnp.maximum(variances, jnp.maximum(least, jnp.finfo(variances.dtype).tiny))


def _failed(factor: Float[Array, "n n"]) -> Array:
    return jnp.any(jnp.isnan(jnp.diagonal(factor)))
