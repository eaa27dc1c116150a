"""The most probable weights of a finite network: the maximum of their posterior density.

Minimises F(θ) = −Σ log p(yᵢ | f(xᵢ; θ)) + ½ λ ‖θ − c‖², the negative log density of the weights
under the prior N(c, I/λ), on all data at once by limited-memory BFGS with line search (Optax).

The residual is ‖∇F‖ / (λ ‖θ − c‖). Where −Σ log p is convex around the minimum θ*, ‖θ − θ*‖ is at
most ‖∇F‖ / λ: the residual bounds the error of θ relative to its distance from the center.

References
----------
Liu & Nocedal 1989, doi 10.1007/BF01589116 (limited-memory BFGS).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ntkbayes._checks import check_at_least, check_choice, check_positive, warn_caller
from ntkbayes._problem import Objective, initial_params, training_set
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Network

__all__ = ["MAPEstimate", "map_estimate"]

CENTERS = ("zero", "initial")
WINDOW = 25
MEMORY = 20
"""Pairs of steps and gradient differences that BFGS keeps."""


class MAPEstimate(eqx.Module):
    """The end of a training, with its certificate.

    Parameters
    ----------
    params
        θ, as ``network.init`` lays it out.
    center
        c, the mean of the prior.
    value
        F(θ), nats.
    residual
        ‖∇F‖ / (λ ‖θ − c‖).
    converged
        Whether the residual reached the tolerance.
    num_steps
        Steps of BFGS done.
    """

    params: Any
    center: Any
    value: Float[Array, ""]
    residual: Float[Array, ""]
    converged: bool
    num_steps: int


@bar_in_notebooks
@typed
def map_estimate(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float,
    key: Key,
    center: str = "zero",
    max_steps: int = 1000,
    tolerance: float = 1e-3,
    progress: Progress = silent,
) -> MAPEstimate:
    """Train one finite network to a mode of its weights' posterior.

    Parameters
    ----------
    network, likelihood, x, y
        The model and its training data, as in `ntkbayes.linearized_ensemble`.
    prior_precision
        λ > 0, precision of the prior on every weight.
    key
        Decides the initialisation ``network.init``, where training starts.
    center
        Mean of the prior: ``"zero"``, or ``"initial"`` for the initialisation itself, as in
        `ntkbayes.deep_ensemble`.
    max_steps, tolerance
        Training stops at a residual of at most `tolerance`, after `max_steps`, or when 25 steps
        have lowered F by less than ½ λ ‖θ − c‖² `tolerance`², which is what the tolerance leaves of
        F. The last happens with ReLU: its modes lie on kinks, where the gradient does not vanish.
    progress
        Called after every 25 steps.

    Warns
    -----
    UserWarning
        If F was still falling after `max_steps`.

    Raises
    ------
    ValueError
        If data or settings are out of range, or F is not finite at the start.

    Examples
    --------
    >>> found = nb.map_estimate(*model_sine, prior_precision=1.0, key=key)
    >>> found.converged, bool(found.residual <= 1e-3)
    (True, True)
    >>> found.params[-1]["weight"].shape
    (16, 1)
    """
    check_positive("prior_precision", prior_precision)
    check_choice("center", center, CENTERS)
    check_at_least("max_steps", max_steps, 1)
    check_positive("tolerance", tolerance)
    train = training_set(likelihood, x, y)
    start = initial_params(network, likelihood, train, key)
    middle = start if center == "initial" else optax.tree.zeros_like(start)
    precision = jnp.asarray(prior_precision, train.x.dtype)
    objective = Objective(network, likelihood, train, precision, middle)
    value = _value(objective, start)
    if not jnp.isfinite(value):
        raise ValueError("the untrained network's objective is not finite: check network.init.")
    params, state, steps, falling = start, _optimizer().init(start), 0, True
    residual = jnp.full_like(value, jnp.inf)
    while falling and steps < max_steps and residual > tolerance:
        num_steps = min(WINDOW, max_steps - steps)
        params, state = _window(objective, params, state, num_steps)
        before = value
        value, residual, regulariser = _certificate(objective, params)
        falling = bool(before - value > regulariser * tolerance**2)
        steps += num_steps
        progress(min(steps / max_steps, 0.99))
    progress(1.0)
    found = MAPEstimate(params, middle, value, residual, bool(residual <= tolerance), steps)
    if falling and not found.converged:
        warn_caller(
            f"the network is still in training after {steps} steps: the residual is "
            f"{float(residual):.2g}, the tolerance {tolerance:.2g}. Raise max_steps or "
            "prior_precision."
        )
    return found


def _optimizer() -> optax.GradientTransformationExtraArgs:
    return optax.lbfgs(memory_size=MEMORY)


@eqx.filter_jit
def _window(objective: Objective, params: Any, state: Any, num_steps: int) -> tuple[Any, Any]:
    optimizer, value_and_grad = _optimizer(), optax.value_and_grad_from_state(objective)

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = optimizer.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(step, (params, state), None, length=num_steps)
    return params, state


@eqx.filter_jit
def _value(objective: Objective, params: Any) -> Array:
    return objective(params)


@eqx.filter_jit
def _certificate(objective: Objective, params: Any) -> tuple[Array, Array, Array]:
    """F, the residual, and ½ λ ‖θ − c‖² at θ."""
    value, grad = jax.value_and_grad(objective)(params)
    moved = optax.tree.norm(optax.tree.sub(params, objective.center))
    scale = jnp.maximum(objective.prior_precision * moved, jnp.finfo(moved.dtype).tiny)
    return value, optax.tree.norm(grad) / scale, 0.5 * objective.prior_precision * moved**2
