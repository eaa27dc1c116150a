"""Train one linearised network over its weights: theory and notation of `ensembles.linearized`.

A step solves (I + Jᵀ W J / λ) step = δ⁺ − δ, where δ⁺ = Jᵀ a / λ and a = s(f) + ξ at the present
function f = f₀ + J δ. At the minimum δ⁺ = δ. The certificate compares the two functions: a must
equal s(f₀ + J δ⁺) + ξ, and δ⁺ is what is returned, so that the function is f₀ + K a exactly.

Jacobians act by products only (`ntkbayes.linearize`).

References
----------
Nocedal & Wright 2006, algorithm 7.1 (inexact Newton steps by conjugate gradients).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ntkbayes._types import Array, Float
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Linearization, Network, linearize
from ntkbayes.solvers import Solution

__all__ = ["WeightSpaceProblem", "minimize"]

MAX_NEWTON = 60
MAX_CG = 1000
MAX_HALVINGS = 30


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

    def score(self, f: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """s(f) + ξ."""
        return jax.vmap(self.likelihood.score)(self.targets, f) + self.noise


class _Certified(NamedTuple):
    """a = s(f) + ξ at a function f, δ⁺ = Jᵀ a / λ, and how much s changes from f to f₀ + J δ⁺."""

    a: Array
    delta: Any
    residual: Array


class _State(NamedTuple):
    delta: Any
    f: Array
    certified: _Certified
    newton_steps: Array
    cg_steps: Array


@eqx.filter_jit
def minimize(problem: WeightSpaceProblem, start: Any, *, tolerance: float) -> tuple[Any, Solution]:
    """Return δ and its certificate, from a start of δ's structure.

    The residual is max |a − s(f₀ + K a) − ξ| / max(1, max |a|).
    """
    linearization = linearize(problem.network, problem.params, problem.x)

    def condition(state: _State) -> Array:
        return (state.certified.residual > tolerance) & (state.newton_steps < MAX_NEWTON)

    def body(state: _State) -> _State:
        step, used = _newton_direction(problem, linearization, state)
        f_step = linearization.jvp(step)
        size = _step_size(problem, state, step, f_step)
        delta = optax.tree.add_scale(state.delta, size, step)
        f = state.f + size * f_step
        certified = _certify(problem, linearization, f)
        return _State(delta, f, certified, state.newton_steps + 1, state.cg_steps + used)

    f = problem.f_initial + linearization.jvp(start)
    zero = jnp.array(0)
    initial = _State(start, f, _certify(problem, linearization, f), zero, zero)
    final = jax.lax.while_loop(condition, body, initial)
    certified = final.certified
    solution = Solution(certified.a, certified.residual, final.newton_steps, final.cg_steps)
    return certified.delta, solution


def _certify(problem: WeightSpaceProblem, linearization: Linearization, f: Array) -> _Certified:
    a = problem.score(f)
    delta = optax.tree.scale(1 / problem.prior_precision, linearization.vjp(a))
    f_new = problem.f_initial + linearization.jvp(delta)
    change = jnp.abs(a - problem.score(f_new))
    residual = jnp.max(change) / jnp.maximum(1, jnp.max(jnp.abs(a)))
    # On a CPU jnp.max may skip NaN, and a certificate must not.
    return _Certified(a, delta, jnp.where(jnp.all(jnp.isfinite(change)), residual, jnp.inf))


def _newton_direction(
    problem: WeightSpaceProblem, linearization: Linearization, state: _State
) -> tuple[Any, Array]:
    """Conjugate gradients on (I + Jᵀ W J / λ) step = δ⁺ − δ, and their number.

    The tolerance shrinks with the residual. Lineax's solver is not used because it gives NaN
    where a curvature step·H step is below 100 p eps ‖step‖², which in float32 and with p > 10⁵
    is every step.
    """

    def hessian(vector: Any) -> Any:
        curved = jax.vmap(problem.likelihood.curvature_product)(state.f, linearization.jvp(vector))
        return optax.tree.add_scale(vector, 1 / problem.prior_precision, linearization.vjp(curved))

    def condition(carry: tuple) -> Array:
        _, _, _, squared, steps = carry
        return (squared > goal) & (steps < MAX_CG)

    def body(carry: tuple) -> tuple:
        step, r, search, squared, steps = carry
        image = hessian(search)
        alpha = squared / optax.tree.vdot(search, image)
        step = optax.tree.add_scale(step, alpha, search)
        r = optax.tree.add_scale(r, -alpha, image)
        squared_new = optax.tree.vdot(r, r)
        search = optax.tree.add_scale(r, squared_new / squared, search)
        return step, r, search, squared_new, steps + 1

    r0 = optax.tree.sub(state.certified.delta, state.delta)
    squared0 = optax.tree.vdot(r0, r0)
    goal = squared0 * jnp.minimum(0.01, state.certified.residual)
    initial = (optax.tree.zeros_like(r0), r0, r0, squared0, jnp.array(0))
    step, _, _, _, steps = jax.lax.while_loop(condition, body, initial)
    return step, steps


def _step_size(problem: WeightSpaceProblem, state: _State, step: Any, f_step: Array) -> Array:
    """Halve the step until the slope of the objective along it is no longer clearly uphill.

    The slope at size t, over λ: step·(δ + t step) − f_step·(s(f + t f_step) + ξ) / λ.
    """
    along, length = optax.tree.vdot(step, state.delta), optax.tree.vdot(step, step)

    def slope(size: Array) -> Array:
        pull = jnp.vdot(f_step, problem.score(state.f + size * f_step))
        return size * length + along - pull / problem.prior_precision

    def too_long(carry: tuple[Array, Array]) -> Array:
        size, halvings = carry
        return (slope(size) > -0.5 * slope(jnp.zeros_like(size))) & (halvings < MAX_HALVINGS)

    def halve(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        return carry[0] / 2, carry[1] + 1

    one = jnp.ones((), state.f.dtype)
    return jax.lax.while_loop(too_long, halve, (one, jnp.array(0)))[0]
