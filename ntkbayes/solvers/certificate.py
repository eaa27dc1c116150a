"""How far a computed solution of a = s(f₀ + K a) + ξ is from the exact one, at every input.

With g = K a and ρ = s(f₀ + g) + ξ − a, the objective ½ ‖g‖²_K − Σ log p(y | f₀ + g) − ξ·g is
strongly convex with constant 1 in the kernel's norm, and K(·, X) ρ is minus its gradient there.
So the solution g* is no farther than the gradient is long, and at every input x

    |f(x) − f*(x)| ≤ √K(x, x) · √tr(ρᵀ K ρ).

The second factor is one number per draw, in standard deviations of the prior. The residual
max |ρ| alone bounds nothing: it is in units of the score, and K may be as large as it likes.

To it is added what rounding can add, each part as if rounding errors were independent:

- of a, where it is kept in float32: its length in the kernel's norm;
- of K and of products with K where a function is evaluated, relative to √(K(x, x) K(x', x')) each,
  in the dtype of K: 8 eps √(Σᵢ K(xᵢ, xᵢ) |aᵢ|²);
- of the sum f₀ + K a there: eps |f|;
- of the product K a in ρ, which is evaluated in float64 whatever the dtype of K.

References
----------
Higham & Mary 2019, doi 10.1137/18M1226312 (rounding errors that are independent grow like √n).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._arrays import more_digits
from ntkbayes._checks import warn_caller
from ntkbayes._linalg import HIDDEN
from ntkbayes._types import Array, Float
from ntkbayes.likelihoods import Likelihood

__all__ = [
    "Certificate",
    "certify",
    "damped_rounding",
    "default_tolerance",
    "largest_deviation",
    "ordinary_deviation",
    "require_accurate",
    "require_resolved",
    "rounding_of_coefficients",
    "rounding_of_products",
]

ROUNDINGS = 8
"""Rounding of a kernel's entry and of a product with it, in units of eps."""
STILL_USABLE = 0.05
"""Up to this latent error a solution that misses its tolerance is told of, beyond it refused."""
OUTLYING = 10.0
"""Times the median deviation from which on a point is an outlier."""
BLOCK_BYTES = 64 * 2**20
"""Rows of a float32 kernel that are in float64 at a time."""


class Certificate(eqx.Module):
    """What is known of each draw's solution.

    Parameters
    ----------
    function
        K a at the training points, by a fresh product.
    gradient
        ρ.
    residual
        max |ρ|.
    error_bound
        The largest |f(x) − f*(x)| / √K(x, x) that is possible.
    """

    function: Float[Array, "s n c"]
    gradient: Float[Array, "s n c"]
    residual: Float[Array, "s"]
    error_bound: Float[Array, "s"]


def default_tolerance(dtype: jnp.dtype) -> float:
    """Return the latent error allowed where none is asked for: 1e-3 in float64, else 1e-2.

    Far below the Monte-Carlo error of thousands of draws.
    """
    return 1e-3 if jnp.finfo(dtype).bits > 32 else 1e-2


def largest_deviation(k: Float[Array, "n n"]) -> Float[Array, ""]:
    """Return the largest prior deviation √K(x, x) at a training point, in float64 where enabled."""
    return jnp.sqrt(jnp.max(jnp.diagonal(k)).astype(float))


def ordinary_deviation(deviations: Float[Array, "n ..."]) -> Float[Array, ""]:
    """Return the largest prior deviation of points that are not outlying.

    Of those at most ten times the median: an outlying input is refused no solution that is exact
    everywhere else, as its own functions are as much larger.
    """
    ordinary = deviations <= OUTLYING * jnp.median(deviations)
    return jnp.max(jnp.where(ordinary, deviations, 0))


def certify(
    k: Float[Array, "n n"],
    likelihood: Likelihood,
    targets: Float[Array, "n c"],
    f_initial: Float[Array, "s n c"],
    score_noise: Float[Array, "s n c"],
    a: Float[Array, "s n c"],
) -> Certificate:
    """Evaluate the bound of each draw: two products with K, in float64.

    Call it where float64 is enabled; what is not float64 but k is taken as exact.
    """
    return _certify(k, likelihood, targets, f_initial, score_noise, a)


@eqx.filter_jit
def _certify(
    k: Array, likelihood: Likelihood, targets: Array, f0: Array, noise: Array, a: Array
) -> Certificate:
    function = _product(k, a)
    f = f0 + function
    gradient = jax.vmap(jax.vmap(likelihood.score), (None, 0))(targets, f) + noise - a
    squared = jnp.sum(gradient * _product(k, gradient), axis=(1, 2))
    deviations = jnp.sqrt(jnp.diagonal(k)).astype(a.dtype)[None, :, None]
    outer = rounding_of_products(jnp.diagonal(k), a) + _rounding_of_sums(k.dtype, f, deviations)
    shaken = _shaken(likelihood, f, deviations, a)
    known = jnp.sqrt(jnp.maximum(squared, 0)) + outer
    apart = jnp.max(deviations) * (known + shaken.damped)  # of f from f*, at a training point
    bound = known + jnp.minimum(shaken.at_most, shaken.damped * jnp.exp(apart))
    residual = jnp.max(jnp.abs(gradient), axis=(1, 2))
    # XLA's maximum may drop NaN on the CPU, and a certificate must not.
    sound = jnp.all(jnp.isfinite(gradient), axis=(1, 2)) & jnp.isfinite(bound)
    return Certificate(
        function, gradient, jnp.where(sound, residual, jnp.inf), jnp.where(sound, bound, jnp.inf)
    )


class _Shaken(NamedTuple):
    """Two bounds of what rounding of the product K a in ρ adds."""

    damped: Float[Array, "s"]
    at_most: Float[Array, "s"]


def _shaken(likelihood: Likelihood, f: Array, deviations: Array, a: Array) -> _Shaken:
    """Bound what an error e of f at the training points adds to the solution, by W e in ρ.

    It moves the solution by (K⁻¹ + W)⁻¹ W e, whose length in the kernel's norm is at most
    ½ √(eᵀ W e), as √b / (1 + b) ≤ ½ for every eigenvalue b of √W K √W: a large W is damped by
    itself. Where W between f and f* is not that at f this grows with their distance, and the length
    √(eᵀ W K W e) of W e alone bounds it everywhere.
    """
    spread = jnp.sqrt(jnp.sum((deviations * a) ** 2, axis=(1, 2), keepdims=True))
    e = float(jnp.finfo(a.dtype).eps) * (deviations * spread + jnp.abs(f))
    # |W e| is at most √w (√w·|e|) with w the diagonal of W.
    roots = _root_curvatures(likelihood, f)
    shaken = roots * jnp.sum(roots * e, axis=2, keepdims=True)
    alone = jnp.sqrt(jnp.sum((deviations * shaken) ** 2, axis=(1, 2)))
    return _Shaken(damped_rounding(likelihood, f, e), alone)


def damped_rounding(
    likelihood: Likelihood, f: Float[Array, "s n c"], e: Float[Array, "s n c"]
) -> Float[Array, "s"]:
    """½ √(eᵀ W e), at most: what an error of up to e in f costs a solution; see `_shaken`."""
    along = jnp.sum(_root_curvatures(likelihood, f) * e, axis=2)
    return 0.5 * jnp.sqrt(jnp.sum(along**2, axis=1))


def _root_curvatures(likelihood: Likelihood, f: Array) -> Float[Array, "s n c"]:
    return jnp.sqrt(jax.vmap(jax.vmap(lambda f: jnp.diagonal(likelihood.curvature(f))))(f))


def _rounding_of_sums(dtype: jnp.dtype, f: Array, deviations: Array) -> Float[Array, "s"]:
    """Bound what rounding of the sum f₀ + K a to `dtype` adds, in deviations of the prior."""
    relative = jnp.abs(f) / jnp.where(deviations > 0, deviations, jnp.inf)
    return float(jnp.finfo(dtype).eps) * jnp.max(relative, axis=(1, 2))


def rounding_of_products(
    variances: Float[Array, "n"], a: Float[Array, "*s n c"]
) -> Float[Array, "*s"]:
    """8 eps √(Σᵢ K(xᵢ, xᵢ) |aᵢ|²): what rounding of K(x, X) and of its product with a adds.

    In standard deviations √K(x, x) of the prior; `variances` are the diagonal of K, in its dtype,
    whose eps it is.
    """
    weighted = jnp.sum(a**2, axis=-1) @ variances.astype(a.dtype)
    return ROUNDINGS * float(jnp.finfo(variances.dtype).eps) * jnp.sqrt(weighted)


def rounding_of_coefficients(
    k: Float[Array, "n n"], a: Float[Array, "*s n c"], rounded: Float[Array, "*s n c"]
) -> Float[Array, "*s"]:
    """√tr(δᵀ K δ) with δ = rounded − a: how far the function of the rounded coefficients is.

    To measure it by the residual of the rounded ones would cost a factor of W K more.
    """
    lost = rounded.astype(a.dtype) - a
    draws = lost.reshape(-1, *lost.shape[-2:])
    squared = jnp.sum(draws * _product(k, draws), axis=(1, 2)).reshape(lost.shape[:-2])
    return jnp.sqrt(jnp.maximum(squared, 0))


def _product(k: Array, v: Array) -> Array:
    """K v in the dtype of v, some rows of K at a time where that is another."""
    if k.dtype == v.dtype:
        return jnp.einsum("ij,sjc->sic", k, v)
    size = max(1, BLOCK_BYTES // (len(k) * v.dtype.itemsize))
    rows = jax.lax.map(
        lambda row: jnp.einsum("j,sjc->sc", row.astype(v.dtype), v), k, batch_size=size
    )
    return jnp.swapaxes(rows, 0, 1)


def require_resolved(
    eigenvalues: Float[Array, "n"],
    dtype: jnp.dtype,
    *,
    time: float,
    prior_precision: float,
    rate: float = 1.0,
) -> None:
    """Refuse to train so long that eigenvalues lost in rounding would have decided by how much.

    Parameters
    ----------
    eigenvalues
        Of Θ, in rising order.
    dtype
        Of Θ: its eigenvalues are known to n · eps · the largest.
    time
        Of training.
    prior_precision
        λ, the rate at which regularisation alone forgets.
    rate
        At which a residual shrinks, times an eigenvalue.

    Raises
    ------
    ValueError
        If the smallest eigenvalue and the regularisation are below rounding, and `time` times it
        is not small.
    """
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    rounding = len(eigenvalues) * float(jnp.finfo(dtype).eps) * largest
    lost = max(smallest, prior_precision / rate) < rounding
    if lost and time * rate * rounding > HIDDEN:
        raise ValueError(
            f"the NTK is singular in {jnp.dtype(dtype).name} (smallest eigenvalue {smallest:.1e}, "
            f"largest {largest:.1e}), and time {time:g} is so long that it matters by how much: "
            f"{more_digits(dtype)}use a shorter time or a larger prior_precision, or remove inputs "
            "that nearly coincide."
        )


def require_accurate(
    latent_error: Float[Array, "*s"],
    *,
    tolerance: float,
    dtype: jnp.dtype,
    ordinary_error: Float[Array, "*s"] | None = None,
    cause: str = "",
) -> None:
    """Tell of draws whose latent error may exceed `tolerance`, and refuse what is not usable.

    Parameters
    ----------
    latent_error
        Bound at the training points, in latent units, of one or more draws.
    tolerance
        What was asked for; more than that up to 0.05 is a `UserWarning`.
    dtype
        Of the inputs: decides the remedy.
    ordinary_error
        The same at the points that are not outlying (`ordinary_deviation`); by default at all.
    cause
        Why it is more; by default rounding.

    Raises
    ------
    ValueError
        If a bound at points that are not outlying is above 0.05 and `tolerance`.
    """
    worst = float(jnp.max(latent_error))
    if worst <= tolerance:
        return
    failed, total = int(jnp.sum(~(latent_error <= tolerance))), latent_error.size
    usable = worst if ordinary_error is None else float(jnp.max(ordinary_error))
    remedy = f"{more_digits(dtype)}take a larger prior_precision, or inputs of a smaller scale"
    if worst > usable:
        remedy = f"{more_digits(dtype)}remove or clip outlying rows of x, or take more noise"
    if not worst < float("inf"):
        raise ValueError(f"{failed} of {total} solutions are not finite; {remedy}.")
    found = (
        f"{failed} of {total} solutions may be off by more than the tolerance of {tolerance:.2g}: "
        f"the largest latent error is only known to be below {worst:.2g}"
    )
    if worst > usable:
        found += f" at an outlying row of x (elsewhere below {usable:.2g})"
    cause = cause or f"which is what rounding leaves in {jnp.dtype(dtype).name}"
    if not usable <= max(STILL_USABLE, tolerance):
        raise ValueError(f"{found}, {cause}; {remedy}.")
    warn_caller(f"{found}, {cause}; {remedy}.")
