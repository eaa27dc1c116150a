"""Train one finite network by accelerated gradient descent, with a certificate.

Minimises F(θ) = −Σ log p(yᵢ | f(xᵢ; θ)) + ½ λ ‖θ − θ₀‖² on all data at once. The step is 0.9 / L
with L = λ_max(Jᵀ W J) + λ, found by power iteration with products Jv and Jᵀu: at θ₀, and again
after every window of 25 steps, since L falls as a classifier becomes sure and rises as features
sharpen. Momentum follows the condition number L / λ and restarts when it points uphill. A window
that ends above its start is taken back and repeated with half the step.

*Certificate.* For a linear f, F is λ-strongly convex, so ‖θ − θ*‖ ≤ ‖∇F‖ / λ and
F − F* ≤ ‖∇F‖² / 2λ. With ReLU units F has kinks wherever a unit is zero at a data point; its
minimum lies on many of them, and beside a kink the gradient does not vanish however close the
minimum is. What vanishes is the mean ḡ of the gradients over a small neighborhood, an element of
Goldstein's subdifferential; here over the last window. The residual is ‖ḡ‖ / (λ ‖θ − θ₀‖): the
bound on the error of θ relative to the way it has come; its square, that of F relative to
½ λ ‖θ − θ₀‖². Without a regulariser there is no such bound, and the residual is ‖ḡ‖ / ‖∇F(θ₀)‖.
A gradient small against the first one would say little: it is so as soon as the stiff directions
are fitted. A small residual says that training is over, not that the network is near its tangent.

References
----------
Nesterov 2004, §2.2. O'Donoghue & Candès 2015, arXiv 1204.3982, §3.2 (gradient restart). Goldstein
1977, doi 10.1007/BF01584320 (subdifferential). Martens 2020, arXiv 1412.1193 (Jᵀ W J).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ntkbayes._problem import Objective
from ntkbayes._types import Array, Float
from ntkbayes.networks import linearize

__all__ = ["TrainedNetwork", "train_network"]

WINDOW = 25
SAFETY = 0.9
FIRST_POWER_STEPS, POWER_STEPS = 10, 3
"""Products with Jᵀ W J: from a random start, and to follow it from window to window."""


class TrainedNetwork(eqx.Module):
    """Parameters with their certificate.

    Parameters
    ----------
    params
        θ.
    residual
        ‖ḡ‖ / (λ ‖θ − θ₀‖) over the last window; see the module's docstring.
    gradient_norm
        The same of the gradient at θ alone: as small for smooth networks, not so for ReLU.
    num_steps
        Gradient steps done.
    """

    params: Any
    residual: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    num_steps: int


class _State(eqx.Module):
    """Nesterov's two points, his sequence for the momentum, and F at `params`."""

    params: Any
    ahead: Any
    momentum: Array
    value: Array


def train_network(
    objective: Objective, *, max_steps: int, tolerance: float, progress: Callable[[int], None]
) -> TrainedNetwork:
    """Descend until the residual is at most `tolerance`, or for `max_steps`.

    Raises
    ------
    ValueError
        If F is not finite at θ₀, or never fell below it.
    """
    first, gradient = _value_and_gradient(objective, objective.center)
    if not jnp.isfinite(first):
        raise ValueError("the untrained network's objective is not finite: check network.init.")
    state = _State(objective.center, objective.center, jnp.ones_like(first), first)
    scale = None if objective.prior_precision else optax.tree.norm(gradient)
    direction = jax.random.normal(jax.random.key(0), objective.train.targets.shape, first.dtype)
    residual = jnp.full_like(first, jnp.inf)
    steps, safety, power_steps = 0, SAFETY, FIRST_POWER_STEPS
    while steps < max_steps and residual > tolerance:
        direction, curvature = _largest_curvature(objective, state.params, direction, power_steps)
        power_steps = POWER_STEPS
        num_steps = min(WINDOW, max_steps - steps)
        trial, mean = _window(objective, state, safety / curvature, num_steps)
        steps += num_steps
        progress(steps)
        if trial.value <= state.value:
            state, residual = trial, _relative(objective, trial.params, mean, scale)
        else:
            safety /= 2
            state = _State(state.params, state.params, jnp.ones_like(first), state.value)
    if jnp.isinf(residual):
        raise ValueError(
            f"training did not lower the objective within {steps} steps: use a wider network, "
            "or larger max_steps, prior_precision or noise."
        )
    _, gradient = _value_and_gradient(objective, state.params)
    norm = _relative(objective, state.params, gradient, scale)
    return TrainedNetwork(state.params, residual, norm, steps)


@eqx.filter_jit
def _value_and_gradient(objective: Objective, params: Any) -> tuple[Array, Any]:
    return jax.value_and_grad(objective)(params)


@eqx.filter_jit
def _largest_curvature(
    objective: Objective, params: Any, direction: Float[Array, "n c"], num_steps: int
) -> tuple[Float[Array, "n c"], Float[Array, ""]]:
    """λ_max(Jᵀ W J) + λ from below, and J v of its eigenvector v."""
    linear = linearize(objective.network, params, objective.train.x)
    weigh = jax.vmap(objective.likelihood.curvature_product)
    tiny = jnp.finfo(direction.dtype).tiny

    def body(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        v = linear.vjp(weigh(linear.value, carry[0]))
        image = linear.jvp(optax.tree.scale(1 / jnp.maximum(optax.tree.norm(v), tiny), v))
        return (image, jnp.vdot(image, weigh(linear.value, image))), None

    zero = jnp.zeros((), direction.dtype)
    (direction, largest), _ = jax.lax.scan(body, (direction, zero), None, length=num_steps)
    return direction, jnp.maximum(largest + objective.prior_precision, tiny)


@eqx.filter_jit
def _window(objective: Objective, state: _State, step: Array, num_steps: int) -> tuple[_State, Any]:
    """Do `num_steps` steps; return the weighted mean of their gradients too."""

    def body(carry: tuple[_State, Any], weight: Array) -> tuple[tuple[_State, Any], None]:
        state, mean = carry
        gradient = jax.grad(objective)(state.ahead)
        state = _accelerated_step(objective, state, gradient, step)
        return (state, optax.tree.add_scale(mean, weight, gradient)), None

    # With triangular weights the gradients' jumps across kinks cancel better than with equal ones.
    position = (jnp.arange(num_steps, dtype=step.dtype) + 0.5) / num_steps
    weights = jnp.minimum(position, 1 - position)
    start = (state, optax.tree.zeros_like(state.params))
    (state, mean), _ = jax.lax.scan(body, start, weights / jnp.sum(weights))
    return eqx.tree_at(lambda s: s.value, state, objective(state.params)), mean


def _accelerated_step(objective: Objective, state: _State, gradient: Any, step: Array) -> _State:
    """Nesterov 2004, scheme 2.2.8 with μ = λ, restarted where the momentum points uphill."""
    params = optax.tree.add_scale(state.ahead, -step, gradient)
    moved = optax.tree.sub(params, state.params)
    uphill = jnp.greater(optax.tree.vdot(gradient, moved), 0)
    t = state.momentum
    half = 0.5 * (t**2 - objective.prior_precision * step)
    t_next = jnp.sqrt(half**2 + t**2) - half
    beta = jnp.where(uphill, 0.0, t * (1 - t) / (t**2 + t_next))
    ahead = optax.tree.add_scale(params, beta, moved)
    return _State(params, ahead, jnp.where(uphill, 1.0, t_next), state.value)


@eqx.filter_jit
def _relative(objective: Objective, params: Any, gradient: Any, scale: Array | None) -> Array:
    if scale is None:
        moved = optax.tree.norm(optax.tree.sub(params, objective.center))
        scale = objective.prior_precision * moved
    return optax.tree.norm(gradient) / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)
