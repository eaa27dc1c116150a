"""Solve a = s(f₀ + K a) + ξ: the trained predictor of the linearised network.

With u = K a this is the stationarity of a strictly convex problem in u,

    minimise  −Σ log p(y | f₀ + u) − ξ·u + ½ uᵀ K⁻¹ u,

solved by nonlinear conjugate gradients (Polak–Ribière) on the residual r = s(f₀ + u) + ξ − K⁻¹u,
preconditioned with the Hessian H = K⁻¹ + W₀ at a nearby point (the mode); the step length is that
of the second-order model along the search direction. Every vector v travels with its K⁻¹v, so K is
never inverted: the preconditioned residual z = H⁻¹ r has K⁻¹z = r − W₀z. A product with K occurs
only near the end, for the length √(rᵀ K r) that bounds the error, and in the certificate
(`ntkbayes.solvers.certificate`), which evaluates the definition itself; draws that fail it start
afresh, and at last by Newton's method, one at a time.

All work of an iteration is one application of the preconditioner, the same for every draw, so
many draws advance together: a draw that has converged leaves its slot to the next one. Against
Newton's method with the Hessian held at the mode this takes 6 to 8 iterations of 2.1 products
instead of 9 to 19 of 3.1 (digits, ten classes).

Vectors are float64 whatever the dtype of K: a is known no better than f₀ + K a, and float32 would
lose what large kernels cancel. The matrices of the preconditioner, where the work is, may be
float32.

References
----------
Nocedal & Wright 2006, §5.2 (nonlinear conjugate gradients, PR+). Rasmussen & Williams 2006, §3.5
(the problem with f₀ = 0).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from ntkbayes._arrays import more_digits
from ntkbayes._linalg import cholesky
from ntkbayes._types import Array, Float, Int
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.solvers.certificate import (
    STILL_USABLE,
    Certificate,
    certify,
    largest_deviation,
    ordinary_deviation,
    require_accurate,
    rounding_of_coefficients,
    rounding_of_products,
)
from ntkbayes.solvers.hessian import Hessian, hessian_at, uniform_hessian

__all__ = ["Solution", "find_mode", "require_converged", "solve_stationarity"]

MAX_ITERATIONS = 1000
MAX_HALVINGS = 30
MAX_NEWTON, MAX_STALLED = 200, 5
MAX_REFINEMENTS = 5
MODE_SHARE = 1e-3
"""Fraction of its tolerance that a mode is solved to: found once, it has no Monte-Carlo error."""
MAX_ROUNDS = 6
"""How often draws may start afresh from u = K a: by rounding, u and K a drift apart."""
MAX_UNUSABLE = 3
"""After so many draws that Newton's method does not make usable no other is tried."""
NEAR = 10.0
"""√(rᵀ K r) is measured once √(r·z) is within this factor of the goal."""


class Solution(eqx.Module):
    """Solutions with their certificates, one per draw.

    Parameters
    ----------
    a
        Dual coefficients; the trained function is f₀(x) + K(x, X) a.
    error_bound
        The largest |f(x) − f*(x)| / √K(x, x) that is possible at any input x: in standard
        deviations of the prior.
    latent_error
        The same at the training points, in units of `Likelihood.latent_scale`: logits.
    ordinary_error
        The same at those of them that are not outlying (`ordinary_deviation`).
    residual
        max |a − s(f₀ + K a) − ξ|, evaluated with a fresh product K a.
    iterations
        Steps, each with one application of the preconditioner.
    gemm_equivalents
        Work in products of K with (n c): the preconditioner's, and those that measure the error.
        One in float32 counts half of one in float64.
    """

    a: Float[Array, "*s n c"]
    error_bound: Float[Array, "*s"]
    latent_error: Float[Array, "*s"]
    ordinary_error: Float[Array, "*s"]
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
    checks: Array  # how often the length of the residual was measured


def require_converged(solution: Solution, *, tolerance: float) -> None:
    """Refuse solutions that are not usable, and tell of those that miss `tolerance`.

    Raises
    ------
    ValueError
        As `ntkbayes.solvers.certificate.require_accurate`.
    """
    require_accurate(
        solution.latent_error,
        tolerance=tolerance,
        dtype=solution.a.dtype,
        ordinary_error=solution.ordinary_error,
    )


def find_mode(
    k: Float[Array, "n n"],
    likelihood: Likelihood,
    targets: Float[Array, "n c"],
    *,
    tolerance: float,
) -> Solution:
    """Solve with f₀ = 0 from u = 0, preconditioned with the mean curvature at f = 0.

    Many cheap products with n c unknowns instead of a new factorisation at every Newton step,
    which takes over where curvatures differ so much that this fails (separable classes, tiny prior
    precision). With Gaussian noise it is one linear system.

    Raises
    ------
    ValueError
        If rounding of K leaves K⁻¹ + W, or with Gaussian noise K + σ² I, not positive definite, or
        the matrices do not fit memory.
    """
    if isinstance(likelihood, Gaussian):
        return _linear_mode(k, likelihood, targets, tolerance=tolerance)
    zero = jnp.zeros_like(targets)
    hessian = uniform_hessian(k, likelihood, zero)
    solution = solve_stationarity(
        k, likelihood, targets, zero[None], zero[None], zero, hessian,
        tolerance=tolerance, num_slots=1, goal=MODE_SHARE * tolerance,
    )  # fmt: skip
    return jax.tree.map(lambda leaf: leaf[0], solution)


def _linear_mode(
    k: Float[Array, "n n"], likelihood: Gaussian, targets: Float[Array, "n c"], *, tolerance: float
) -> Solution:
    """Solve (K + σ² I) a = y in float64, refined until the error is below a tenth of `tolerance`.

    What is wrong with a is the solution of the same system with the residual on the right, so that
    the certificate is the error itself, however small σ² is beside K.
    """
    with jax.enable_x64(True):
        wide, y = k.astype(jnp.float64), targets.astype(jnp.float64)
        variance = jnp.asarray(likelihood.noise_variance, jnp.float64)
        noisy = wide + variance * jnp.eye(len(wide))
        factor = cholesky(
            noisy,
            name=f"K + noise_variance I, with a kernel in {k.dtype},",
            remedy=f"{more_digits(k.dtype)}take a larger noise_variance, or remove inputs that "
            "nearly coincide",
        )
        to_latent = largest_deviation(k) / likelihood.latent_scale
        a, steps = jnp.zeros_like(y), 0
        while True:
            left = y - noisy @ a
            correction = cho_solve((factor, True), left)
            bound = jnp.sqrt(jnp.maximum(jnp.vdot(correction, wide @ correction), 0))
            if steps == MAX_REFINEMENTS or (steps and bound <= 0.1 * tolerance / to_latent):
                break
            a, steps = a + correction, steps + 1
        bound = bound + rounding_of_products(jnp.diagonal(k), a)
        # A factorisation, n³/3, and two triangular solves and a product for each refinement.
        work = len(k) / 6 / targets.shape[1] + 2.0 * steps
        residual = jnp.max(jnp.abs(left)) / variance
        found = _Found(a, bound, residual, jnp.array(steps), jnp.asarray(work))
        return _solution(found, k, to_latent)


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
    goal: float | None = None,
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
    tolerance
        Latent error at the training points to be reached, in units of `Likelihood.latent_scale`.
        Draws that do not reach it come back with the error they have: see `require_converged`.
    num_slots
        How many draws advance side by side.
    goal
        Error that conjugate gradients aim at, if it is another than half of `tolerance`.
    """
    with jax.enable_x64(True):
        wide = (targets, f_initial, score_noise, a_start)
        targets, f0, noise, start = (jnp.asarray(v, jnp.float64) for v in wide)
        to_latent = largest_deviation(k) / likelihood.latent_scale
        enough = (0.5 * tolerance if goal is None else goal) / to_latent
        problem = _Problem(k, likelihood, targets, f0, noise, to_latent, enough)
        found = _conjugate_gradients(problem, start, hessian, num_slots)
        found = _newton(problem, found, tolerance=tolerance)
        return _solution(found, k, to_latent)


class _Problem(eqx.Module):
    """The problems of all draws; everything but K is float64."""

    k: Float[Array, "n n"]
    likelihood: Likelihood
    targets: Float[Array, "n c"]
    f0: Float[Array, "s n c"]
    noise: Float[Array, "s n c"]
    to_latent: Float[Array, ""]
    enough: Float[Array, ""]  # length √(rᵀ K r) at which a draw has arrived

    def certify(self, a: Array) -> Certificate:
        return certify(self.k, self.likelihood, self.targets, self.f0, self.noise, a)

    def residual(self, f: Array, noise: Array, a: Array) -> Float[Array, "n c"]:
        """s(f) + ξ − a of one draw, whose a is K⁻¹u."""
        return jax.vmap(self.likelihood.score)(self.targets, f) + noise - a


class _Found(NamedTuple):
    """What the solvers know of every draw."""

    a: Array
    error_bound: Array
    residual: Array
    iterations: Array
    gemm_equivalents: Array


def _solution(found: _Found, k: Array, to_latent: Array) -> Solution:
    """Give back what was found in the dtype of K, with what rounding of a costs added."""
    dtype, a = k.dtype, found.a.astype(k.dtype)
    error_bound = found.error_bound + rounding_of_coefficients(k, found.a, a)
    ordinary = ordinary_deviation(jnp.sqrt(jnp.diagonal(k).astype(float)))
    share = ordinary / largest_deviation(k)
    return Solution(
        a=a,
        error_bound=error_bound.astype(dtype),
        latent_error=(error_bound * to_latent).astype(dtype),
        ordinary_error=(error_bound * to_latent * share).astype(dtype),
        residual=found.residual.astype(dtype),
        iterations=found.iterations.astype(jnp.int32),
        gemm_equivalents=found.gemm_equivalents.astype(dtype),
    )


def _conjugate_gradients(
    problem: _Problem, a_start: Array, hessian: Hessian, num_slots: int
) -> _Found:
    """Run rounds of `_solve_all`, each from a fresh product, while they bring draws nearer."""
    num_draws = len(problem.f0)
    precision = hessian.inverse.dtype.itemsize / a_start.dtype.itemsize
    # Of the residual's length two digits are enough, so that it may cost as little as the rest.
    k = problem.k.astype(hessian.inverse.dtype)
    a = jnp.broadcast_to(a_start, problem.f0.shape)
    u = jnp.broadcast_to(problem.certify(a[:1]).function, a.shape)
    none = jnp.zeros(num_draws, dtype=int)
    best = _Found(a, jnp.full(num_draws, jnp.inf), jnp.full(num_draws, jnp.inf), none, 0.0 * none)
    iterations, checks = none, none
    for rounds in range(1, MAX_ROUNDS + 1):
        a, iterations, checks = _solve_all(
            problem, k, _Pair(u, a), iterations, checks, hessian, num_slots=num_slots
        )
        found = problem.certify(a)
        u = found.function
        work = precision * (iterations * hessian.cost + checks) + 2 * rounds
        now = _Found(a, found.error_bound, found.residual, iterations, work)
        gained = bool(jnp.any(now.error_bound < 0.5 * best.error_bound))
        best = _nearer(best, now)
        if bool(jnp.all(best.error_bound <= 1.5 * problem.enough)) or not gained:
            break
    return best


def _nearer(one: _Found, other: _Found) -> _Found:
    """Choose the solution with the smaller error of each draw; the work is that of both."""
    better = other.error_bound < one.error_bound

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(better.reshape(-1, *(1,) * (a.ndim - 1)), b, a)

    return _Found(
        pick(one.a, other.a),
        pick(one.error_bound, other.error_bound),
        pick(one.residual, other.residual),
        other.iterations,
        other.gemm_equivalents,
    )


@eqx.filter_jit
def _solve_all(
    problem: _Problem,
    k: Array,
    start: _Pair,
    iterations: Array,
    checks: Array,
    hessian: Hessian,
    *,
    num_slots: int,
) -> tuple[Array, Array, Array]:
    """Advance every draw from its start until its residual, as carried along, is short."""
    num_draws = len(problem.f0)

    def load(draw: Array) -> _Slot:
        draw = jnp.minimum(draw, num_draws - 1)
        f0, noise = problem.f0[draw], problem.noise[draw]
        point = _Pair(start.u[draw], start.a[draw])
        residual = problem.residual(f0 + point.u, noise, point.a)
        # Where (K⁻¹ + W) δ is this, δ leads to the solution of the problem linearised at the mode.
        at_mode = problem.residual(point.u, noise, point.a)
        linearized = at_mode - hessian.curvature(f0[None])[0]
        first = jnp.where(iterations[draw] == 0, linearized, residual)
        zero, nought = _Pair(jnp.zeros_like(f0), jnp.zeros_like(f0)), jnp.zeros((), f0.dtype)
        return _Slot(
            noise, f0, point, first, zero, residual, nought, iterations[draw], checks[draw]
        )

    def length(residual: Array) -> Array:
        """√(rᵀ K r) of every slot."""
        v = residual.astype(k.dtype)
        squared = jnp.sum(v * jnp.einsum("ij,sjc->sic", k, v), axis=(1, 2))
        return jnp.sqrt(jnp.maximum(squared, 0)).astype(residual.dtype)

    def condition(state: tuple) -> Array:
        return jnp.any(state[0] < num_draws)

    def body(state: tuple) -> tuple:
        draws, waiting, slots, results = state
        z = hessian.solve(slots.residual)
        z = _Pair(z, slots.residual - hessian.curvature(z))
        slots = jax.vmap(lambda slot, z: _advance(problem, slot, z))(slots, z)
        # r·z, of the residual before the step, is at most rᵀ K r.
        near = slots.rz <= (NEAR * problem.enough) ** 2
        measured = jax.lax.cond(
            jnp.any(near), length, lambda r: jnp.zeros(len(r), r.dtype), slots.residual
        )
        error = jnp.where(near, measured, jnp.inf)
        slots = slots._replace(checks=slots.checks + near)
        done = (error <= problem.enough) | (slots.iterations >= MAX_ITERATIONS)
        place = jnp.where(done, draws, num_draws)  # out of range: dropped
        finished = (slots.point.a, slots.iterations, slots.checks)
        results = tuple(
            r.at[place].set(x, mode="drop") for r, x in zip(results, finished, strict=True)
        )
        draws = jnp.where(done, waiting + jnp.cumsum(done) - 1, draws)
        slots = jax.lax.cond(jnp.any(done), lambda: _where(done, jax.vmap(load)(draws), slots),
                             lambda: slots)  # fmt: skip
        return draws, waiting + jnp.sum(done), slots, results

    draws = jnp.arange(num_slots)
    state = (draws, jnp.array(num_slots), jax.vmap(load)(draws), (start.a, iterations, checks))
    return jax.lax.while_loop(condition, body, state)[-1]


def _advance(problem: _Problem, slot: _Slot, z: _Pair) -> _Slot:
    """One step along the preconditioned residual z, conjugate to the last one."""
    starting = slot.iterations == 0
    rz = jnp.vdot(slot.residual, z.u)
    change = rz - jnp.vdot(slot.residual_before, z.u)
    before = jnp.where(slot.rz > 0, slot.rz, jnp.inf)
    beta = jnp.maximum(change / before, 0)
    uphill = rz + beta * jnp.vdot(slot.residual, slot.search.u) <= 0
    beta = jnp.where(uphill, 0, beta)
    search = _Pair(z.u + beta * slot.search.u, z.a + beta * slot.search.a)
    point, residual = _line_search(problem, slot, search, starting)
    return slot._replace(
        point=point,
        residual=residual,
        search=search,
        residual_before=slot.residual,
        rz=jnp.where(starting, 0, rz),
        iterations=slot.iterations + 1,
    )


def _line_search(
    problem: _Problem, slot: _Slot, search: _Pair, starting: Array
) -> tuple[_Pair, Array]:
    """Go to the minimum of the second-order model along the search direction, or not so far.

    The first step of all goes to the solution linearised at the start. On a convex problem a step
    is too long when the directional derivative −r·δ, downhill before, has changed sign by more than
    half its first size: then it is halved. Derivatives keep their digits where differences of the
    objective would lose them.
    """
    slope = jnp.vdot(jnp.where(starting, slot.residual_before, slot.residual), search.u)
    curvature = jax.vmap(problem.likelihood.curvature_product)(slot.f0 + slot.point.u, search.u)
    full = slope / jnp.vdot(search.u, search.a + curvature)

    def at(size: Array) -> tuple[_Pair, Array]:
        u = slot.point.u + size * search.u
        a = slot.point.a + size * search.a
        return _Pair(u, a), problem.residual(slot.f0 + u, slot.noise, a)

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


def _newton(problem: _Problem, found: _Found, *, tolerance: float) -> _Found:
    """Newton's method, for the draws that conjugate gradients left outside `tolerance`.

    In dual form a step is r − (K + W⁻¹)⁻¹ K r: no division by weights, and the function K a is a
    fresh product every time. Every step costs a factorisation. Where the first draws stay unusable,
    and all will be refused (`require_converged`), the others keep the error that they have.
    """
    posed = jnp.all(jnp.isfinite(problem.f0 + problem.noise), axis=(1, 2))
    failed = jnp.flatnonzero(posed & ~(found.error_bound * problem.to_latent <= tolerance))
    usable, num_unusable = max(STILL_USABLE, tolerance) / problem.to_latent, 0
    for draw in failed:
        one = eqx.tree_at(
            lambda p: (p.f0, p.noise), problem, (problem.f0[draw][None], problem.noise[draw][None])
        )
        before = jax.tree.map(lambda leaf, draw=draw: leaf[draw][None], found)
        solved = _newton_one(one, before)
        found = _Found(*(v.at[draw].set(w[0]) for v, w in zip(found, solved, strict=True)))
        num_unusable += not bool(solved.error_bound[0] <= usable)
        if num_unusable == MAX_UNUSABLE:
            break
    return found


def _newton_one(problem: _Problem, found: _Found) -> _Found:
    """Damped steps down the objective, from the better of f₀ and what is there."""
    k = problem.k.astype(found.a.dtype)
    # A factorisation and inverse of each output, 7/3 n³ operations, against 2 n² for a product.
    price = 7 / 6 * len(k) + 5
    starts = [jnp.zeros_like(found.a), jnp.where(jnp.isfinite(found.a), found.a, 0.0)]
    points = [(a, problem.certify(a)) for a in starts]
    a, now = min(points, key=lambda point: float(_objective(problem, *point)))
    value, stalled = _objective(problem, a, now), 0
    for _ in range(MAX_NEWTON):
        try:
            hessian = hessian_at(k, problem.likelihood, problem.f0[0] + now.function[0])
        except ValueError:  # what was found so far says by its error that it is not enough
            break
        a = a + _damped_step(problem, k, hessian, a[0], now)[None]
        now, before = problem.certify(a), value
        work = found.iterations + 1, found.gemm_equivalents + price
        found = _nearer(found, _Found(a, now.error_bound, now.residual, *work))
        value = _objective(problem, a, now)
        stalled = 0 if value < before - 1e-12 * jnp.abs(before) else stalled + 1
        if bool(found.error_bound[0] <= problem.enough) or stalled == MAX_STALLED:
            break
    return found


@eqx.filter_jit
def _objective(problem: _Problem, a: Array, now: Certificate) -> Float[Array, ""]:
    """½ tr aᵀ K a − Σ log p(y | f) − ξ·f of one draw; infinite where it overflows."""
    f = problem.f0 + now.function
    fit = jnp.sum(jax.vmap(problem.likelihood.log_prob)(problem.targets, f[0]))
    value = 0.5 * jnp.vdot(a, now.function) - fit - jnp.vdot(problem.noise, f)
    return jnp.where(jnp.isfinite(value), value, jnp.inf)


@eqx.filter_jit
def _damped_step(
    problem: _Problem, k: Array, hessian: Hessian, a: Array, now: Certificate
) -> Float[Array, "n c"]:
    """Halve the Newton step while the objective's slope along it is clearly uphill."""
    r, f = now.gradient[0], problem.f0[0] + now.function[0]
    step = r - hessian.dual((k @ r)[None])[0]
    moved = k @ step
    slope = jnp.vdot(r, moved)

    def too_long(size: Array) -> Array:
        left = problem.residual(f + size * moved, problem.noise[0], a + size * step)
        return ~(jnp.vdot(left, moved) >= -0.5 * slope) & (size > 2.0**-MAX_HALVINGS)

    size = jax.lax.while_loop(too_long, lambda size: size / 2, jnp.ones((), a.dtype))
    return size * step


def _where(condition: Array, yes: _Slot, no: _Slot) -> _Slot:
    """Choose slot by slot."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b
        )

    return jax.tree.map(pick, yes, no)
