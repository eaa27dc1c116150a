"""Full-batch gradient descent with a step that is stable, and the times at which it is looked at.

A step of size η is θ ← θ − η ∇F(θ) with F(θ) = −Σ log p(yᵢ | f(xᵢ; θ)) + ½ λ ‖θ − center‖², so
after k steps gradient flow at unit rate has come to time t = η k, up to Euler's error of order η.
For a linear f the largest curvature of F is at most w_max λ_max(Θ) + λ, with w_max the largest
curvature of −log p in f: ½ for the softmax, ¼ for the logistic function, 1/σ² for Gaussian noise.
Descent is stable, and F falls in every step, for

    η < 2 / (w_max λ_max(Θ) + λ).

References
----------
Böhning 1992, doi 10.1007/bf00048682 (softmax). Nesterov 2004, §2.1.5 (the limit).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ntkbayes._checks import check_at_least, check_positive
from ntkbayes._problem import Objective, TrainingSet
from ntkbayes._types import Array, Bool, Float, Int
from ntkbayes.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from ntkbayes.networks import Network

__all__ = ["Descent", "Schedule", "TrainingProblem", "descend", "make_schedule", "stability_limit"]

RISE = 0.01
"""What an objective may rise, in parts of what it had fallen: at a kink of a ReLU it does."""
DEFAULT_SHARE = 0.2
"""Default step, in stability limits: Euler's error stays below what finite width does."""


class TrainingProblem(eqx.Module):
    """What is minimised, but for the network's initial weights θ₀.

    Parameters
    ----------
    prior_precision
        λ.
    center_scale
        The decay's center is this times θ₀: 1 or 0.
    """

    likelihood: Likelihood
    train: TrainingSet
    prior_precision: Float[Array, ""]
    center_scale: Float[Array, ""]

    def objective(self, network: Network, initial: Any) -> Objective:
        """F of one network."""
        center = optax.tree.scale(self.center_scale, initial)
        return Objective(network, self.likelihood, self.train, self.prior_precision, center)


class Schedule(eqx.Module):
    """A step size, and the numbers of steps after which training is looked at, 0 among them."""

    step: float
    records: tuple[int, ...]

    @property
    def times(self) -> list[float]:
        """Time of every record."""
        return [self.step * count for count in self.records]


class Descent(eqx.Module):
    """All seeds on their way.

    Parameters
    ----------
    params
        θ, stacked over seeds.
    first, lowest
        Objective at θ₀, and the lowest so far, nats.
    failed
        Whether the objective rose or is not finite; training stops for all seeds then.
    num_steps
        Steps done.
    """

    params: Any
    first: Float[Array, "s"]
    lowest: Float[Array, "s"]
    failed: Bool[Array, "s"]
    num_steps: Int[Array, ""]


def largest_curvature(likelihood: Likelihood) -> float:
    """w_max, the supremum over f of the largest eigenvalue of −∂² log p / ∂f².

    Raises
    ------
    ValueError
        If there is no bound.
    """
    match likelihood:
        case Categorical():
            return 0.5
        case Bernoulli():
            return 0.25
        case Gaussian():
            return 1 / likelihood.noise_variance
        case _:
            raise ValueError(f"the curvature of {type(likelihood).__name__} has no upper bound.")


def stability_limit(
    likelihood: Likelihood, largest_eigenvalue: float, prior_precision: float
) -> float:
    """2 / (w_max λ_max(Θ) + λ), from the largest eigenvalue of Θ at the training points."""
    return 2 / (largest_curvature(likelihood) * largest_eigenvalue + prior_precision)


def make_schedule(
    *, time: float, num_records: int, limit: float, step: float | None = None
) -> Schedule:
    """Divide `time` into steps, and choose about `num_records` records, even in log time.

    Without a `step`, it is at most 0.2 of the stability limit, and the last record is at `time`
    exactly; else at the multiple of `step` next to it.

    Raises
    ------
    ValueError
        If a setting is out of range, or the step is not below the limit.
    """
    check_positive("time", time)
    check_at_least("num_records", num_records, 1)
    if step is None:
        count = math.ceil(time / (DEFAULT_SHARE * limit))
        step = time / count
    else:
        check_positive("step", step)
        check_step(step, limit, "at infinite width")
        count = max(1, round(time / step))
    spaced = (round(count ** (1 - i / max(num_records - 1, 1))) for i in range(num_records))
    return Schedule(float(step), tuple(sorted({0, *spaced})))


def check_step(step: float, limit: float, where: str) -> None:
    """Raise `ValueError` unless the step is below the stability limit."""
    if not step < limit:
        raise ValueError(
            f"step is {step:.3g}, but gradient descent is stable only below {limit:.3g} {where} "
            "(2 / (largest curvature × largest eigenvalue of the NTK + prior_precision)): take a "
            "smaller one, or none for the default."
        )


def start_descent(params: Any, objective: Float[Array, "s"]) -> Descent:
    """Nothing done yet, at networks with this objective."""
    return Descent(params, objective, objective, ~jnp.isfinite(objective), jnp.zeros((), int))


@eqx.filter_jit
def descend(
    network: Network,
    problem: TrainingProblem,
    state: Descent,
    initial: Any,
    step: Float[Array, ""],
    until: Int[Array, ""],
) -> Descent:
    """Do steps, all seeds side by side, until there are `until` of them or a seed fails.

    A loop with a traced number of steps, so that all records share one compilation, and training
    ends with the step after the one that failed.
    """

    def one(params: Any, initial: Any) -> tuple[Any, Array]:
        value, gradient = jax.value_and_grad(problem.objective(network, initial))(params)
        return optax.tree.add_scale(params, -step, gradient), value

    def more(state: Descent) -> Array:
        return (state.num_steps < until) & ~jnp.any(state.failed)

    def body(state: Descent) -> Descent:
        params, value = jax.vmap(one)(state.params, initial)
        return Descent(
            params,
            state.first,
            jnp.minimum(state.lowest, value),
            has_risen(value, state),
            state.num_steps + 1,
        )

    return jax.lax.while_loop(more, body, state)


def has_risen(value: Float[Array, "s"], state: Descent) -> Bool[Array, "s"]:
    """Whether an objective is not finite, or above the lowest so far by more than `RISE` allows.

    And by more than rounding in its sum explains, √eps of its size.
    """
    rounding = jnp.finfo(value.dtype).eps ** 0.5 * jnp.abs(state.lowest)
    return ~(value <= state.lowest + RISE * (state.first - state.lowest) + rounding)
