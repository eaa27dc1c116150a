"""Solve a = s(f₀ + K a) + ξ: the trained predictor of the linearised network (theory 1.4, 2.3).

With u = K a this is the stationarity of a strictly convex problem in u,

    minimise  −Σ log p(y | f₀ + u) − ξ·u + ½ uᵀ K⁻¹ u,

solved by damped Newton steps (K⁻¹ + W) δ = s(f₀ + u) + ξ − K⁻¹u, each by conjugate gradients
preconditioned with the Hessian at a nearby point (the mode). Every vector v travels with its
K⁻¹v, so K is never inverted: the preconditioned residual z = (K⁻¹ + W₀)⁻¹ r has K⁻¹z = r − W₀z.
No product with K occurs until the certificate, which evaluates the definition itself.

References
----------
Rasmussen & Williams 2006, §3.5 (Newton's method). Nocedal & Wright 2006, algorithms 5.3 and 7.1
(preconditioned conjugate gradients, inexact Newton steps).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._types import Array, Float, Int
from ntkbayes.likelihoods import Likelihood
from ntkbayes.solvers.softmax_hessian import SoftmaxHessian, softmax_hessian

__all__ = ["Solution", "default_tolerance", "find_mode", "require_converged", "solve_stationarity"]

MAX_NEWTON = 60
MAX_CG = 300


class Solution(eqx.Module):
    """A solution with its certificate.

    Parameters
    ----------
    a
        Dual coefficients; the trained function is f₀(x) + K(x, X) a.
    residual
        max |a − s(f₀ + K a) − ξ|, evaluated with a fresh product K a.
    newton_steps, cg_steps
        Work done.
    """

    a: Float[Array, "*s n c"]
    residual: Float[Array, "*s"]
    newton_steps: Int[Array, "*s"]
    cg_steps: Int[Array, "*s"]


class _Pair(NamedTuple):
    """A vector u (n c) and K⁻¹u."""

    u: Array
    a: Array


def default_tolerance(dtype: jnp.dtype) -> float:
    """√eps: the residual at which float error in K a takes over."""
    return float(jnp.finfo(dtype).eps) ** 0.5


def require_converged(solution: Solution, *, tolerance: float) -> None:
    """Raise `ValueError` if any draw's residual is above `tolerance`."""
    worst = float(jnp.max(solution.residual))
    if not worst <= tolerance:
        failed = int(jnp.sum(~(solution.residual <= tolerance)))
        raise ValueError(
            f"{failed} of {solution.residual.size} draws did not converge: the largest residual "
            f"is {worst:.1e}, the tolerance {tolerance:.1e}. Use float64 or a larger "
            "prior_precision."
        )


@eqx.filter_jit
def find_mode(
    k: Float[Array, "n n"],
    likelihood: Likelihood,
    targets: Float[Array, "n c"],
    *,
    tolerance: float,
) -> Solution:
    """Solve with f₀ = 0 from u = 0, preconditioned with the Hessian of uniform probabilities.

    Many cheap products with n c unknowns instead of a new factorisation at every Newton step.
    """
    uniform = jnp.full_like(targets, 1 / targets.shape[1])
    zero = jnp.zeros_like(targets)
    start = _Pair(zero, zero)
    hessian = softmax_hessian(k, uniform)
    return _damped_newton(k, likelihood, targets, zero, start, hessian, tolerance)


@eqx.filter_jit
def solve_stationarity(
    k: Float[Array, "n n"],
    likelihood: Likelihood,
    targets: Float[Array, "s n c"],
    f_initial: Float[Array, "s n c"],
    mode: Float[Array, "n c"],
    hessian: SoftmaxHessian,
    *,
    tolerance: float,
) -> Solution:
    """Solve one problem per draw, all at once.

    Parameters
    ----------
    targets
        Targets with any perturbation ξ added, since the score is target − softmax.
    f_initial
        f₀(X) of each draw.
    mode
        Coefficients a of the f₀ = 0 solution. The start is its trained *function*, u = K a − f₀,
        moved into the range of (I + K W)⁻¹ by one solve with the Hessian there.
    hessian
        K⁻¹ + W at the mode, the preconditioner.
    """
    u_mode = k @ mode

    def one_draw(target: Array, f0: Array) -> Solution:
        start = _start(likelihood, target, f0, _Pair(u_mode, mode), hessian)
        return _damped_newton(k, likelihood, target, f0, start, hessian, tolerance)

    return jax.vmap(one_draw)(targets, f_initial)


def _damped_newton(
    k: Array,
    likelihood: Likelihood,
    target: Array,
    f0: Array,
    start: _Pair,
    hessian: SoftmaxHessian,
    tolerance: float,
) -> Solution:
    def condition(state: tuple[_Pair, Array, Array]) -> Array:
        point, newton_steps, _ = state
        error = jnp.max(jnp.abs(_residual(likelihood, target, point, f0)))
        return (error > tolerance / 10) & (newton_steps < MAX_NEWTON)

    def body(state: tuple[_Pair, Array, Array]) -> tuple[_Pair, Array, Array]:
        point, newton_steps, cg_steps = state
        step, used = _newton_direction(likelihood, target, f0, point, hessian)
        point = _line_search(likelihood, target, f0, point, step)
        return point, newton_steps + 1, cg_steps + used

    counters = (jnp.array(0), jnp.array(0))
    point, *steps = jax.lax.while_loop(condition, body, (start, *counters))
    residual = jax.vmap(likelihood.score)(target, f0 + k @ point.a) - point.a
    return Solution(point.a, jnp.max(jnp.abs(residual)), *steps)


def _start(
    likelihood: Likelihood, target: Array, f0: Array, mode: _Pair, hessian: SoftmaxHessian
) -> _Pair:
    """First-order solution around the mode: δ solves (K⁻¹ + W)δ = score(mode + f₀ linearised)."""
    curvature = jax.vmap(likelihood.curvature_product)
    r = target - jax.nn.softmax(mode.u) - mode.a - curvature(mode.u, f0)
    delta = hessian.solve(r)
    return _Pair(mode.u + delta, mode.a + r - curvature(mode.u, delta))


def _residual(likelihood: Likelihood, target: Array, point: _Pair, f0: Array) -> Array:
    return jax.vmap(likelihood.score)(target, f0 + point.u) - point.a


def _newton_direction(
    likelihood: Likelihood, target: Array, f0: Array, point: _Pair, hessian: SoftmaxHessian
) -> tuple[_Pair, Array]:
    """Conjugate gradients on (K⁻¹ + W)δ = r to a tolerance that shrinks with r."""
    f = f0 + point.u
    r0 = _residual(likelihood, target, point, f0)
    norm = jnp.linalg.norm(r0)
    goal = norm * jnp.minimum(0.1, jnp.sqrt(norm))

    def precondition(r: Array) -> _Pair:
        z = hessian.solve(r)
        p = hessian.probabilities
        return _Pair(z, r - p * (z - jnp.sum(p * z, axis=1, keepdims=True)))

    def condition(state: tuple) -> Array:
        _, r, _, _, steps = state
        return (jnp.linalg.norm(r) > goal) & (steps < MAX_CG)

    def body(state: tuple) -> tuple:
        delta, r, search, rz, steps = state
        image = search.a + jax.vmap(likelihood.curvature_product)(f, search.u)
        alpha = rz / jnp.vdot(search.u, image)
        delta = _Pair(delta.u + alpha * search.u, delta.a + alpha * search.a)
        r = r - alpha * image
        z = precondition(r)
        rz_new = jnp.vdot(r, z.u)
        beta = rz_new / rz
        search = _Pair(z.u + beta * search.u, z.a + beta * search.a)
        return delta, r, search, rz_new, steps + 1

    z0 = precondition(r0)
    zero = _Pair(jnp.zeros_like(r0), jnp.zeros_like(r0))
    initial = (zero, r0, z0, jnp.vdot(r0, z0.u), jnp.array(0))
    delta, _, _, _, steps = jax.lax.while_loop(condition, body, initial)
    return delta, steps


def _line_search(
    likelihood: Likelihood, target: Array, f0: Array, point: _Pair, step: _Pair
) -> _Pair:
    """Halve the step until the slope of the objective along it is no longer clearly uphill.

    On a convex problem a step is too long when the directional derivative −r·δ has changed sign
    by more than half its first size. Derivatives keep their digits where differences of the
    objective would lose them.
    """
    slope = jnp.vdot(_residual(likelihood, target, point, f0), step.u)

    def moved(size: Array) -> _Pair:
        return _Pair(point.u + size * step.u, point.a + size * step.a)

    def too_long(state: tuple[Array, Array]) -> Array:
        size, halvings = state
        new_slope = jnp.vdot(_residual(likelihood, target, moved(size), f0), step.u)
        return (new_slope < -0.5 * slope) & (halvings < 30)

    def halve(state: tuple[Array, Array]) -> tuple[Array, Array]:
        return state[0] / 2, state[1] + 1

    one = jnp.array(1.0, dtype=point.u.dtype)
    size, _ = jax.lax.while_loop(too_long, halve, (one, jnp.array(0)))
    return moved(size)
