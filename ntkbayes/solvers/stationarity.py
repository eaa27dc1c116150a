"""Solve a = s(f₀ + K a) + ξ: the trained predictor of the linearised network (theory 1.1, 2.3).

With u = K a this is the stationarity of a strictly convex problem in u,

    minimise  −Σ log p(y | f₀ + u) − ξ·u + ½ uᵀ K⁻¹ u,

solved by damped Newton steps (K⁻¹ + W) δ = s(f₀ + u) + ξ − K⁻¹u, each by conjugate gradients
preconditioned with the Hessian at a nearby point (the mode). Every vector v travels with its
K⁻¹v, so K is never inverted: the preconditioned residual z = H⁻¹ r has K⁻¹z = r − W₀z. No product
with K occurs until the certificate, which evaluates the definition itself.

All work of an iteration is one application of the preconditioner, the same for every draw, so
many draws advance together: a draw that has converged leaves its slot to the next one.

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
from ntkbayes.solvers.hessian import Hessian, uniform_hessian

__all__ = ["Solution", "default_tolerance", "find_mode", "require_converged", "solve_stationarity"]

MAX_ITERATIONS = 2000
MAX_HALVINGS = 30
FORCING = 0.7
"""Largest relative residual of a Newton system: solving early, bad linearisations well is waste."""


class Solution(eqx.Module):
    """Solutions with their certificates, one per draw.

    Parameters
    ----------
    a
        Dual coefficients; the trained function is f₀(x) + K(x, X) a.
    residual
        max |a − s(f₀ + K a) − ξ|, evaluated with a fresh product K a.
    newton_steps, iterations
        Newton steps, and applications of the preconditioner in all of them together.
    gemm_equivalents
        Work in products of K with (n c): the preconditioner's, and the certificate's one.
    """

    a: Float[Array, "*s n c"]
    residual: Float[Array, "*s"]
    newton_steps: Int[Array, "*s"]
    iterations: Int[Array, "*s"]
    gemm_equivalents: Float[Array, "*s"]


class _Pair(NamedTuple):
    """A vector u (n c) and K⁻¹u."""

    u: Array
    a: Array


class _Slot(NamedTuple):
    """One draw on its way: its problem, the Newton iterate, and the conjugate gradients within."""

    target: Array
    noise: Array
    f0: Array
    point: _Pair
    starting: Array  # the next step goes to the first-order solution around the mode
    at_point: Array  # residual of the problem at the Newton iterate
    residual: Array  # of the Newton system
    goal: Array
    delta: _Pair
    search: _Pair
    rz: Array
    newton_steps: Array
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
    """
    zero = jnp.zeros_like(targets)
    hessian = uniform_hessian(k, likelihood, zero)
    nothing = zero[None]
    solution = solve_stationarity(
        k, likelihood, targets, nothing, nothing, zero, hessian, tolerance=tolerance, num_slots=1
    )
    return jax.tree.map(lambda leaf: leaf[0], solution)


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
    num_draws = len(f_initial)
    start = _Pair(k @ a_start, a_start)

    def load(draw: Array) -> _Slot:
        draw = jnp.minimum(draw, num_draws - 1)
        return _fresh(likelihood, targets, f_initial[draw], score_noise[draw], start, hessian)

    def condition(state: tuple) -> Array:
        return jnp.any(state[0] < num_draws)

    def body(state: tuple) -> tuple:
        draws, waiting, slots, results = state
        slots = jax.vmap(lambda slot: _advance(likelihood, slot, hessian, tolerance))(slots)
        done = _is_done(slots, tolerance)
        finished = (slots.point.a, slots.newton_steps, slots.iterations)
        place = jnp.where(done, draws, num_draws)  # out of range: dropped
        results = tuple(
            r.at[place].set(x, mode="drop") for r, x in zip(results, finished, strict=True)
        )
        draws = jnp.where(done, waiting + jnp.cumsum(done) - 1, draws)
        slots = jax.lax.cond(jnp.any(done), lambda: _where(done, jax.vmap(load)(draws), slots),
                             lambda: slots)  # fmt: skip
        return draws, waiting + jnp.sum(done), slots, results

    counts = jnp.zeros(num_draws, dtype=int)
    draws = jnp.arange(num_slots)
    state = (draws, jnp.array(num_slots), jax.vmap(load)(draws),
             (jnp.zeros_like(f_initial), counts, counts))  # fmt: skip
    a, newton_steps, iterations = jax.lax.while_loop(condition, body, state)[-1]
    score = jax.vmap(jax.vmap(likelihood.score), in_axes=(None, 0))
    f = f_initial + jnp.einsum("ij,sjc->sic", k, a)
    # XLA's maximum may drop NaN on the CPU: a broken draw must not be certified.
    error = jnp.abs(score(targets, f) + score_noise - a)
    residual = jnp.max(jnp.where(jnp.isnan(error), jnp.inf, error), axis=(1, 2))
    work = iterations * hessian.cost + 1.0
    return Solution(a, residual, newton_steps, iterations, work)


def _fresh(
    likelihood: Likelihood, target: Array, f0: Array, noise: Array, start: _Pair, hessian: Hessian
) -> _Slot:
    """Prepare a draw for its first step, to the first-order solution around the start.

    There (K⁻¹ + W) δ = s(u) + ξ − K⁻¹u − W f₀, the score linearised at f = u.
    """
    zero = _Pair(jnp.zeros_like(f0), jnp.zeros_like(f0))
    residual = jax.vmap(likelihood.score)(target, start.u) + noise - start.a - hessian.curvature(f0)
    nought, none = jnp.zeros((), f0.dtype), jnp.array(0)
    return _Slot(
        target,
        noise,
        f0,
        start,
        jnp.array(True),
        residual,
        residual,
        nought,
        zero,
        zero,
        nought,
        none,
        none,
    )


def _is_done(slot: _Slot, tolerance: float) -> Array:
    """Whether the residual of the problem itself is small, or the draw has had its share of work.

    Asked at the start of a Newton system, when the residual of the system is that of the problem.
    """
    error = jnp.max(jnp.abs(slot.residual), axis=(-2, -1))
    converged = ~slot.starting & (slot.rz == 0) & (error <= tolerance / 2)
    return converged | (slot.iterations >= MAX_ITERATIONS)


def _advance(likelihood: Likelihood, slot: _Slot, hessian: Hessian, tolerance: float) -> _Slot:
    """One application of the preconditioner, and everything that follows from it for free."""
    z = hessian.solve(slot.residual)
    z = _Pair(z, slot.residual - hessian.curvature(z))
    step = _conjugate_gradient_step(likelihood, slot, z)
    solved = slot.starting | (jnp.linalg.norm(step.residual) <= slot.goal)
    step = _where(slot.starting, slot._replace(delta=z), step)
    step = step._replace(iterations=slot.iterations + 1)
    return _where(solved, _newton_step(likelihood, step, tolerance), step)


def _conjugate_gradient_step(likelihood: Likelihood, slot: _Slot, z: _Pair) -> _Slot:
    """One step on (K⁻¹ + W) δ = r; rz = 0 marks the first step of a system."""
    rz = jnp.vdot(slot.residual, z.u)
    beta = jnp.where(slot.rz > 0, rz / jnp.where(slot.rz > 0, slot.rz, 1), 0)
    search = _Pair(z.u + beta * slot.search.u, z.a + beta * slot.search.a)
    curvature = jax.vmap(likelihood.curvature_product)
    image = search.a + curvature(slot.f0 + slot.point.u, search.u)
    alpha = rz / jnp.vdot(search.u, image)
    delta = _Pair(slot.delta.u + alpha * search.u, slot.delta.a + alpha * search.a)
    residual = slot.residual - alpha * image
    return slot._replace(delta=delta, residual=residual, search=search, rz=rz)


def _newton_step(likelihood: Likelihood, slot: _Slot, tolerance: float) -> _Slot:
    """Go along δ, and set up the next Newton system with a tolerance that shrinks with it."""
    point, residual = _line_search(likelihood, slot)
    norm = jnp.linalg.norm(residual)
    zero = _Pair(jnp.zeros_like(residual), jnp.zeros_like(residual))
    return slot._replace(
        point=point,
        starting=jnp.array(False),
        at_point=residual,
        residual=residual,
        goal=jnp.maximum(norm * jnp.minimum(FORCING, jnp.sqrt(norm)), 0.3 * tolerance),
        delta=zero,
        search=zero,
        rz=jnp.zeros_like(norm),
        newton_steps=slot.newton_steps + 1,
    )


def _line_search(likelihood: Likelihood, slot: _Slot) -> tuple[_Pair, Array]:
    """Halve the step until the slope of the objective along it is no longer clearly uphill.

    The first step of all is not along a Newton direction of this objective, and is taken in full.
    On a convex problem a step is too long when the directional derivative −r·δ has changed sign
    by more than half its first size. Derivatives keep their digits where differences of the
    objective would lose them.
    """
    first = jnp.vdot(slot.at_point, slot.delta.u)

    def at(size: Array) -> tuple[_Pair, Array]:
        u = slot.point.u + size * slot.delta.u
        point = _Pair(u, slot.point.a + size * slot.delta.a)
        return point, _residual(likelihood, slot, point)

    def too_long(state: tuple) -> Array:
        _, residual, _, halvings = state
        too_far = jnp.vdot(residual, slot.delta.u) < -0.5 * first
        return ~slot.starting & too_far & (halvings < MAX_HALVINGS)

    def halve(state: tuple) -> tuple:
        *_, size, halvings = state
        return *at(size / 2), size / 2, halvings + 1

    one = jnp.ones_like(first)
    point, residual, *_ = jax.lax.while_loop(too_long, halve, (*at(one), one, jnp.array(0)))
    return point, residual


def _residual(likelihood: Likelihood, slot: _Slot, point: _Pair) -> Array:
    return jax.vmap(likelihood.score)(slot.target, slot.f0 + point.u) + slot.noise - point.a


def _where(condition: Array, yes: _Slot, no: _Slot) -> _Slot:
    """Choose slot by slot."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b
        )

    return jax.tree.map(pick, yes, no)
