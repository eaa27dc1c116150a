"""Train one linearised network over its weights: notation of `ensembles.linearized`.

Weights δ = Jᵀ a / λ are known by their dual coefficients a (n c), and f = f₀ + J δ = f₀ + K a.
A Newton step from a solves (I + Jᵀ W J / λ) step = Jᵀ r / λ, r = s(f) + ξ − a, by conjugate
gradients in weight space. Every vector there is Jᵀ times a dual one, which is carried along, so
that a never has to be recovered. Jacobians act by products only (`ntkbayes.linearize`).

A step starts with fresh products and ends the search if a is certified: the objective is strongly
convex in δ with constant λ, so the function is nowhere farther from the exact one than
√K(x, x) · √λ ‖Jᵀ r / λ‖ (`ntkbayes.solvers.certificate`). With Gaussian noise, where A = I +
Jᵀ W J / λ is the same everywhere, √λ times the length of the whole step, √(stepᵀ A step), takes the
place of the gradient's. Conjugate gradients know that of what they have covered, Σ α ‖r‖², and, as
A has no eigenvalue below 1, bound what they have left by Gauss and Radau's rule. Directions of a
that Jᵀ does not see (repeated inputs, fewer weights than targets) change no function and do not
count. What rounding of J δ can add is added at the end.

References
----------
Nocedal & Wright 2006, algorithms 5.2 and 7.1 (conjugate gradients, inexact Newton steps). Meurant &
Tichý 2013, doi:10.1007/s11075-012-9591-9, §4 (the bound of the error in conjugate gradients).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ntkbayes._arrays import cast
from ntkbayes._types import Array, Float
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.networks import Linearization, Network, linearize
from ntkbayes.solvers import Solution
from ntkbayes.solvers.certificate import ROUNDINGS, damped_rounding, ordinary_deviation

__all__ = ["Displacement", "WeightSpaceProblem", "minimize", "minimize_precisely"]

MAX_NEWTON = 60
MAX_CG = 5000
"""In all steps together."""
MAX_HALVINGS = 30
BLOCK_BYTES = 64 * 2**20
"""Size of the gradients that are taken at a time for prior variances of the function."""


class Displacement(eqx.Module):
    """Dual coefficients a, weights δ = Jᵀ a / λ, and the function J δ at the training inputs."""

    dual: Float[Array, "n c"]
    weights: Any
    function: Float[Array, "n c"]


class WeightSpaceProblem(eqx.Module):
    """Minimise −Σ log p(y | f) − ξ·f + ½ λ ‖δ‖² over δ, with f = f₀ + J δ.

    Parameters
    ----------
    network, params, x
        What J is the Jacobian of: a network at θ₀ and the n training inputs.
    f_initial
        f₀ at the training inputs.
    noise
        ξ.
    """

    network: Network
    params: Any
    x: Float[Array, "n d"]
    likelihood: Likelihood
    targets: Float[Array, "n c"]
    f_initial: Float[Array, "n c"]
    noise: Float[Array, "n c"]
    prior_precision: Float[Array, ""]

    def score(self, function: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """s(f₀ + function) + ξ."""
        score = jax.vmap(self.likelihood.score)(self.targets, self.f_initial + function)
        return score + self.noise

    def curvature_product(
        self, function: Float[Array, "n c"], vector: Float[Array, "n c"]
    ) -> Float[Array, "n c"]:
        """W(f₀ + function) · vector."""
        return jax.vmap(self.likelihood.curvature_product)(self.f_initial + function, vector)


class _State(NamedTuple):
    dual: Array
    found: Displacement
    error_bound: Array
    residual: Array
    stalled: Array
    newton_steps: Array
    cg_steps: Array


@eqx.filter_jit
def minimize(
    problem: WeightSpaceProblem,
    start: Float[Array, "n c"],
    *,
    tolerance: float,
    goal: float,
) -> tuple[Displacement, Solution]:
    """Solve from dual coefficients `start`; the result's products are fresh.

    `goal` is the latent error aimed at where the prior variance of the function is largest among
    the training points, in units of `Likelihood.latent_scale`; below `tolerance` a step that does
    not halve the error is the last.
    """
    linearization = linearize(problem.network, problem.params, problem.x)
    deviations = _deviations(problem)
    to_latent = jnp.max(deviations) / problem.likelihood.latent_scale
    to_ordinary = ordinary_deviation(deviations) / problem.likelihood.latent_scale
    # Where inputs are zero and there are no biases, so is the prior's deviation.
    enough, good = (each / jnp.maximum(to_latent, each) for each in (goal, tolerance))
    quadratic = isinstance(problem.likelihood, Gaussian)

    def displacement(dual: Array) -> Displacement:
        weights = optax.tree.scale(1 / problem.prior_precision, linearization.vjp(dual))
        return Displacement(dual, weights, linearization.jvp(weights))

    def condition(state: _State) -> Array:
        work_left = (state.newton_steps < MAX_NEWTON) & (state.cg_steps < MAX_CG)
        return (state.error_bound > enough) & ~state.stalled & work_left

    def body(state: _State) -> _State:
        point = displacement(state.dual)
        score = displacement(problem.score(point.function))
        gradient = optax.tree.norm(optax.tree.sub(score.weights, point.weights))
        error_bound = _sound(gradient * jnp.sqrt(problem.prior_precision))
        residual = _sound(jnp.max(jnp.abs(score.dual - point.dual)))
        unsolved = error_bound > enough
        # Relative squared error of the step; infinite, for no step, where none is needed.
        error = jnp.where(unsolved, jnp.minimum(0.01, residual), jnp.inf)
        step, function, squared_length, cg_steps = _newton_step(
            problem, linearization, point, score, error
        )
        if quadratic:
            length = _sound(jnp.sqrt(problem.prior_precision * squared_length))
            error_bound = jnp.minimum(error_bound, length)
        dual = state.dual + _step_size(problem, point, step, function) * step
        best = jax.tree.map(
            lambda old, new: jnp.where(error_bound < state.error_bound, new, old),
            (state.found, state.error_bound, state.residual),
            (point, error_bound, residual),
        )
        stalled = (best[1] <= good) & (error_bound > 0.5 * state.error_bound)
        newton_steps, cg_steps = state.newton_steps + unsolved, state.cg_steps + cg_steps
        return _State(dual, best[0], best[1], best[2], stalled, newton_steps, cg_steps)

    nothing = Displacement(start, optax.tree.zeros_like(problem.params), start)
    infinite, zero = jnp.full((), jnp.inf, start.dtype), jnp.array(0)
    initial = _State(start, nothing, infinite, infinite, jnp.array(False), zero, zero)
    final = jax.lax.while_loop(condition, body, initial)
    found = final.found
    error_bound = final.error_bound + _rounding(problem, found, deviations)
    # One product with J Jᵀ in every step of conjugate gradients, and two displacements a round;
    # half of one for the gradients of each output.
    products = final.cg_steps + 2.0 * (final.newton_steps + 1) + 0.5 * start.shape[1]
    return found, Solution(
        found.dual, error_bound, error_bound * to_latent, error_bound * to_ordinary, final.residual,
        final.cg_steps, products,
    )  # fmt: skip


def minimize_precisely(
    problem: WeightSpaceProblem,
    start: Float[Array, "n c"],
    *,
    tolerance: float,
    goal: float,
) -> tuple[Displacement, Solution]:
    """`minimize`, and once more in float64 where float32 does not reach `tolerance`.

    What comes back is in the dtype of `start`. A network that computes in float32 whatever its
    weights are is not tried again.
    """
    found, solution = minimize(problem, start, tolerance=tolerance, goal=goal)
    dtype = start.dtype
    if dtype == jnp.float64 or float(solution.latent_error) <= tolerance:
        return found, solution
    with jax.enable_x64(True):
        wide, again = cast((problem, jnp.nan_to_num(found.dual)), jnp.float64)
        if jax.eval_shape(wide.network.apply, wide.params, wide.x).dtype != jnp.float64:
            return found, solution
        precise, certified = minimize(wide, again, tolerance=tolerance, goal=goal)
        rounded = cast(precise, dtype)
        size, lost = (
            optax.tree.norm(each) * jnp.sqrt(wide.prior_precision)
            for each in (precise.weights, optax.tree.sub(precise.weights, rounded.weights))
        )
        more = lost + ROUNDINGS * float(jnp.finfo(dtype).eps) * size
        bound = certified.error_bound + more
        times = bound / certified.error_bound
        iterations = solution.iterations + certified.iterations
        work = solution.gemm_equivalents + 2 * certified.gemm_equivalents
        certified = Solution(
            rounded.dual, bound, times * certified.latent_error,
            times * certified.ordinary_error, certified.residual,
            iterations.astype(solution.iterations.dtype), work,
        )  # fmt: skip
        return rounded, cast(certified, dtype)


def _deviations(problem: WeightSpaceProblem) -> Float[Array, "n c"]:
    """√K(x, x) of training points and outputs, by the gradient of each: c passes."""
    outputs = jnp.eye(problem.targets.shape[1], dtype=problem.targets.dtype)

    def variances(row: Array) -> Float[Array, "c"]:
        _, vjp = jax.vjp(lambda p: problem.network.apply(p, row[None])[0], problem.params)
        return jax.lax.map(lambda v: optax.tree.norm(vjp(v)[0], squared=True), outputs)

    one = optax.tree.size(problem.params) * problem.x.dtype.itemsize
    found = jax.lax.map(variances, problem.x, batch_size=max(1, BLOCK_BYTES // one))
    return jnp.sqrt(found / problem.prior_precision)


def _rounding(
    problem: WeightSpaceProblem, found: Displacement, deviations: Float[Array, "n c"]
) -> Float[Array, ""]:
    """Bound what rounding of J δ adds: where it is evaluated, and in ρ."""
    size = optax.tree.norm(found.weights) * jnp.sqrt(problem.prior_precision)
    product = ROUNDINGS * float(jnp.finfo(size.dtype).eps) * size
    f = problem.f_initial + found.function
    e = deviations * product + float(jnp.finfo(f.dtype).eps) * jnp.abs(f)
    return _sound(product + damped_rounding(problem.likelihood, f[None], e[None])[0])


def _sound(value: Float[Array, ""]) -> Float[Array, ""]:
    """Infinite for NaN: a certificate must not miss it."""
    return jnp.where(jnp.isfinite(value), value, jnp.inf)


def _newton_step(
    problem: WeightSpaceProblem,
    linearization: Linearization,
    point: Displacement,
    score: Displacement,
    error: Array,
) -> tuple[Array, Array, Array, Array]:
    """Dual and function of the step, stepᵀ A step of the whole one, and the number of products.

    Lineax's solver is not used because it gives NaN where a curvature step·H step is below
    100 p eps ‖step‖², which in float32 and with p > 10⁵ is every step.
    """

    def condition(carry: tuple) -> Array:
        *_, squared, (covered, gamma), steps = carry
        unsolved = squared > error * squared0
        if isinstance(problem.likelihood, Gaussian):  # where the length is the bound
            unsolved |= (gamma * squared > covered) & jnp.isfinite(error)
        return unsolved & (steps < MAX_CG)

    def body(carry: tuple) -> tuple:
        step, r, search, squared, (covered, gamma), steps = carry
        function = linearization.jvp(search[1])
        curved = problem.curvature_product(point.function, function)
        pulled = optax.tree.scale(1 / problem.prior_precision, linearization.vjp(curved))
        image = optax.tree.add(search, (curved, pulled))
        alpha = squared / optax.tree.vdot(search[1], image[1])
        step = optax.tree.add_scale(step, alpha, (search[0], function))
        r = optax.tree.add_scale(r, -alpha, image)
        squared_new = optax.tree.vdot(r[1], r[1])
        beta = squared_new / squared
        search = optax.tree.add_scale(r, beta, search)
        rest = jnp.maximum(gamma - alpha, 0)
        length = covered + alpha * squared, rest / (rest + beta)
        return step, r, search, squared_new, length, steps + 1

    r0 = (score.dual - point.dual, optax.tree.sub(score.weights, point.weights))
    squared0 = optax.tree.vdot(r0[1], r0[1])
    zero = jnp.zeros_like(point.dual)
    length = jnp.zeros_like(squared0), jnp.ones_like(squared0)
    initial = ((zero, zero), r0, r0, squared0, length, jnp.array(0))
    (dual, function), _, _, squared, (covered, gamma), steps = jax.lax.while_loop(
        condition, body, initial
    )
    return dual, function, covered + gamma * squared, steps


def _step_size(
    problem: WeightSpaceProblem, point: Displacement, dual: Array, function: Array
) -> Array:
    """Halve the step until the slope of the objective along it is no longer clearly uphill.

    After a step t (da, du), with du = K da, the slope is du·(a + t da − s(f + t du) − ξ).
    """

    def slope(size: Array) -> Array:
        score = problem.score(point.function + size * function)
        return jnp.vdot(function, point.dual + size * dual - score)

    def too_long(carry: tuple[Array, Array]) -> Array:
        size, halvings = carry
        return (slope(size) > -0.5 * slope(jnp.zeros_like(size))) & (halvings < MAX_HALVINGS)

    def halve(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        return carry[0] / 2, carry[1] + 1

    one = jnp.ones((), function.dtype)
    return jax.lax.while_loop(too_long, halve, (one, jnp.array(0)))[0]
