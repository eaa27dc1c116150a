"""Solve a = s(f₀ + K a) + ξ: the trained predictor of the linearised network.

With u = K a this is the stationarity of a strictly convex problem in u,

    minimise  −Σ log p(y | f₀ + u) − ξ·u + ½ uᵀ K⁻¹ u,

solved by nonlinear conjugate gradients (Polak–Ribière) on the residual r = s(f₀ + u) + ξ − K⁻¹u,
preconditioned with the Hessian H = K⁻¹ + W₀ at a nearby point (the mode); the step length is that
of the second-order model along the search direction. Every vector v travels with its K⁻¹v, so K is
never inverted: the preconditioned residual z = H⁻¹ r has K⁻¹z = r − W₀z. No product with K occurs
until the certificate, which evaluates the definition itself; draws that fail it start afresh.

All work of an iteration is one application of the preconditioner, the same for every draw, so
many draws advance together: a draw that has converged leaves its slot to the next one.

References
----------
Nocedal & Wright 2006, §5.2 (nonlinear conjugate gradients, PR+). Rasmussen & Williams 2006, §3.5
(the problem with f₀ = 0).
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._types import Array, Float, Int
from ntkbayes.likelihoods import Likelihood
from ntkbayes.solvers.hessian import Hessian, hessian_at, uniform_hessian

__all__ = ["Solution", "default_tolerance", "find_mode", "require_converged", "solve_stationarity"]

MAX_ITERATIONS = 2000
MAX_HALVINGS = 30
MAX_NEWTON = 50
MAX_ROUNDS = 6
"""How often draws may start afresh from u = K a: rounding in the preconditioner parts the two."""


class Solution(eqx.Module):
    """Solutions with their certificates, one per draw.

    Parameters
    ----------
    a
        Dual coefficients; the trained function is f₀(x) + K(x, X) a.
    residual
        max |a − s(f₀ + K a) − ξ|, evaluated with a fresh product K a.
    iterations
        Steps, each with one application of the preconditioner.
    gemm_equivalents
        Work in products of K with (n c): the preconditioner's, and those of the certificate. One
        in float32 counts half of one in float64.
    """

    a: Float[Array, "*s n c"]
    residual: Float[Array, "*s"]
    iterations: Int[Array, "*s"]
    gemm_equivalents: Float[Array, "*s"]


class _Pair(NamedTuple):
    """A vector u (n c) and K⁻¹u."""

    u: Array
    a: Array


class _Slot(NamedTuple):
    """One draw on its way."""

    noise: Array
    f0: Array
    point: _Pair
    residual: Array  # s(f₀ + u) + ξ − K⁻¹u; before the first step as linearised at the mode
    search: _Pair
    residual_before: Array  # of the last step; before the first step the one not linearised
    rz: Array  # residual · z of the last step; 0 before the first steps
    iterations: Array


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
    """Solve with f₀ = 0 from u = 0, preconditioned with the mean curvature at f = 0.

    Many cheap products with n c unknowns instead of a new factorisation at every Newton step.
    Where curvatures differ so much that this fails (separable classes, tiny prior precision),
    Newton's method starts afresh.
    """
    zero = jnp.zeros_like(targets)
    hessian = uniform_hessian(k, likelihood, zero)
    nothing = zero[None]
    solution = solve_stationarity(
        k, likelihood, targets, nothing, nothing, zero, hessian, tolerance=tolerance, num_slots=1
    )
    solution = jax.tree.map(lambda leaf: leaf[0], solution)
    newton = partial(_newton, k, likelihood, targets, tolerance=tolerance)
    return jax.lax.cond(solution.residual <= tolerance, lambda found: found, newton, solution)


def _newton(
    k: Array, likelihood: Likelihood, targets: Array, failed: Solution, *, tolerance: float
) -> Solution:
    """Newton's method with the exact Hessian, damped; the work of both attempts is added up.

    In dual form a step is r − (K + W⁻¹)⁻¹ K r with r = s(K a) − a: no division by weights, and the
    function K a is a fresh product every time.
    """

    def objective(a: Array) -> Array:
        f = k @ a
        log_prob = jax.vmap(likelihood.log_prob)(targets, f)
        return 0.5 * jnp.vdot(a, f) - jnp.sum(log_prob)

    def residual(a: Array) -> Array:
        return _residual(likelihood, targets, k @ a, jnp.zeros_like(a), a)

    def condition(state: tuple[Array, Array, Array]) -> Array:
        return (state[1] > tolerance) & (state[2] < MAX_NEWTON)

    def body(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        a, _, steps = state
        r = residual(a)
        step = r - hessian_at(k, likelihood, k @ a).dual((k @ r)[None])[0]
        before = objective(a)

        def too_long(size: Array) -> Array:
            worse = ~(objective(a + size * step) <= before + 1e-12 * jnp.abs(before))
            return worse & (size > 2.0**-MAX_HALVINGS)

        size = jax.lax.while_loop(too_long, lambda size: size / 2, jnp.ones((), a.dtype))
        a = a + size * step
        return a, _largest(residual(a)), steps + 1

    zero = jnp.zeros_like(targets)
    a, error, steps = jax.lax.while_loop(
        condition, body, (zero, _largest(residual(zero)), jnp.zeros_like(failed.iterations))
    )
    # A factorisation and inverse of each output, 7/3 n³ operations, against 2 n² for a product.
    work = (steps * (7 / 6 * len(k) + 4)).astype(failed.gemm_equivalents.dtype)
    better = error < failed.residual
    return Solution(
        jnp.where(better, a, failed.a),
        jnp.where(better, error, failed.residual),
        failed.iterations + steps,
        failed.gemm_equivalents + work,
    )


@eqx.filter_jit
def solve_stationarity(
    k: Float[Array, "n n"],
    likelihood: Likelihood,
    targets: Float[Array, "n c"],
    f_initial: Float[Array, "s n c"],
    score_noise: Float[Array, "s n c"],
    a_start: Float[Array, "n c"],
    hessian: Hessian,
    *,
    tolerance: float,
    num_slots: int,
) -> Solution:
    """Solve one problem per draw, `num_slots` of them at a time.

    Parameters
    ----------
    targets
        Targets that all draws share.
    f_initial
        f₀(X) of each draw.
    score_noise
        ξ of each draw, added to the score; zero for exact targets.
    a_start
        Coefficients a of a solution nearby, the f₀ = 0 one. The start is its trained *function*,
        u = K a − f₀, moved into the range of (I + K W)⁻¹ by one solve with the Hessian there.
    hessian
        K⁻¹ + W at that solution, the preconditioner.
    """
    residuals = jax.vmap(partial(_residual, likelihood, targets))

    def refine(state: tuple) -> tuple:
        a, u, iterations, _, rounds = state
        a, iterations = _solve_all(
            likelihood, targets, f_initial, score_noise, _Pair(u, a), iterations, hessian,
            tolerance=tolerance, num_slots=num_slots,
        )  # fmt: skip
        u = jnp.einsum("ij,sjc->sic", k, a)
        residual = jax.vmap(_largest)(residuals(f_initial + u, score_noise, a))
        return a, u, iterations, residual, rounds + 1

    def unfinished(state: tuple) -> Array:
        *_, residual, rounds = state
        return (rounds == 0) | (jnp.any(residual > tolerance) & (rounds < MAX_ROUNDS))

    num_draws = len(f_initial)
    a, u = (jnp.broadcast_to(start, f_initial.shape) for start in (a_start, k @ a_start))
    residual = jnp.full(num_draws, jnp.inf, f_initial.dtype)
    state = (a, u, jnp.zeros(num_draws, dtype=int), residual, jnp.array(0))
    a, _, iterations, residual, rounds = jax.lax.while_loop(unfinished, refine, state)
    precision = hessian.inverse.dtype.itemsize / f_initial.dtype.itemsize
    return Solution(a, residual, iterations, iterations * hessian.cost * precision + rounds)


def _solve_all(
    likelihood: Likelihood,
    targets: Array,
    f_initial: Array,
    score_noise: Array,
    start: _Pair,
    iterations: Array,
    hessian: Hessian,
    *,
    tolerance: float,
    num_slots: int,
) -> tuple[Array, Array]:
    """Advance every draw from its start until its residual, as carried along, is small."""
    num_draws = len(f_initial)

    def load(draw: Array) -> _Slot:
        draw = jnp.minimum(draw, num_draws - 1)
        f0, noise = f_initial[draw], score_noise[draw]
        point = _Pair(start.u[draw], start.a[draw])
        residual = _residual(likelihood, targets, f0 + point.u, noise, point.a)
        # Where (K⁻¹ + W) δ is this, δ leads to the solution of the problem linearised at the mode.
        at_mode = _residual(likelihood, targets, point.u, noise, point.a)
        linearized = at_mode - hessian.curvature(f0[None])[0]
        first = jnp.where(iterations[draw] == 0, linearized, residual)
        zero, nought = _Pair(jnp.zeros_like(f0), jnp.zeros_like(f0)), jnp.zeros((), f0.dtype)
        return _Slot(noise, f0, point, first, zero, residual, nought, iterations[draw])

    def condition(state: tuple) -> Array:
        return jnp.any(state[0] < num_draws)

    def body(state: tuple) -> tuple:
        draws, waiting, slots, results = state
        z = hessian.solve(slots.residual)
        z = _Pair(z, slots.residual - hessian.curvature(z))
        slots = jax.vmap(lambda slot, z: _advance(likelihood, targets, slot, z))(slots, z)
        error = jnp.max(jnp.abs(slots.residual), axis=(1, 2))
        done = (error <= 0.9 * tolerance) | (slots.iterations >= MAX_ITERATIONS)
        place = jnp.where(done, draws, num_draws)  # out of range: dropped
        finished = (slots.point.a, slots.iterations)
        results = tuple(
            r.at[place].set(x, mode="drop") for r, x in zip(results, finished, strict=True)
        )
        draws = jnp.where(done, waiting + jnp.cumsum(done) - 1, draws)
        slots = jax.lax.cond(jnp.any(done), lambda: _where(done, jax.vmap(load)(draws), slots),
                             lambda: slots)  # fmt: skip
        return draws, waiting + jnp.sum(done), slots, results

    draws = jnp.arange(num_slots)
    state = (draws, jnp.array(num_slots), jax.vmap(load)(draws), (start.a, iterations))
    return jax.lax.while_loop(condition, body, state)[-1]


def _advance(likelihood: Likelihood, targets: Array, slot: _Slot, z: _Pair) -> _Slot:
    """One step along the preconditioned residual z, conjugate to the last one."""
    starting = slot.iterations == 0
    rz = jnp.vdot(slot.residual, z.u)
    change = rz - jnp.vdot(slot.residual_before, z.u)
    before = jnp.where(slot.rz > 0, slot.rz, jnp.inf)
    beta = jnp.maximum(change / before, 0)
    uphill = rz + beta * jnp.vdot(slot.residual, slot.search.u) <= 0
    beta = jnp.where(uphill, 0, beta)
    search = _Pair(z.u + beta * slot.search.u, z.a + beta * slot.search.a)
    point, residual = _line_search(likelihood, targets, slot, search, starting)
    return slot._replace(
        point=point,
        residual=residual,
        search=search,
        residual_before=slot.residual,
        rz=jnp.where(starting, 0, rz),
        iterations=slot.iterations + 1,
    )


def _line_search(
    likelihood: Likelihood, targets: Array, slot: _Slot, search: _Pair, starting: Array
) -> tuple[_Pair, Array]:
    """Go to the minimum of the second-order model along the search direction, or not so far.

    The first step of all goes to the solution linearised at the start. On a convex problem a step
    is too long when the directional derivative −r·δ, downhill before, has changed sign by more than
    half its first size: then it is halved. Derivatives keep their digits where differences of the
    objective would lose them.
    """
    slope = jnp.vdot(jnp.where(starting, slot.residual_before, slot.residual), search.u)
    curvature = jax.vmap(likelihood.curvature_product)(slot.f0 + slot.point.u, search.u)
    full = slope / jnp.vdot(search.u, search.a + curvature)

    def at(size: Array) -> tuple[_Pair, Array]:
        u = slot.point.u + size * search.u
        a = slot.point.a + size * search.a
        return _Pair(u, a), _residual(likelihood, targets, slot.f0 + u, slot.noise, a)

    def too_long(state: tuple) -> Array:
        _, residual, _, halvings = state
        too_far = jnp.vdot(residual, search.u) < -0.5 * slope
        return (slope > 0) & too_far & (halvings < MAX_HALVINGS)

    def halve(state: tuple) -> tuple:
        *_, size, halvings = state
        return *at(size / 2), size / 2, halvings + 1

    size = jnp.where(starting, 1, full)
    point, residual, *_ = jax.lax.while_loop(too_long, halve, (*at(size), size, jnp.array(0)))
    return point, residual


def _largest(residual: Float[Array, "n c"]) -> Float[Array, ""]:
    """Largest absolute value; infinite for NaN, which XLA's maximum may drop on the CPU."""
    return jnp.max(jnp.where(jnp.isnan(residual), jnp.inf, jnp.abs(residual)))


def _residual(
    likelihood: Likelihood, targets: Array, f: Array, noise: Array, a: Array
) -> Float[Array, "n c"]:
    """s(f) + ξ − a of one draw, whose a is K⁻¹u."""
    return jax.vmap(likelihood.score)(targets, f) + noise - a


def _where(condition: Array, yes: _Slot, no: _Slot) -> _Slot:
    """Choose slot by slot."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b
        )

    return jax.tree.map(pick, yes, no)
