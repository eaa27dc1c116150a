"""Deep ensembles: finite networks, really trained from independent random initialisations.

Each member minimises −Σ log p(yᵢ | f(xᵢ; θ)) + ½ λ ‖θ − θ₀‖² by full-batch gradient descent with
Nesterov momentum, all members at once. The step is 1 / (w_max λ_max(Θ) + λ), the largest curvature
of the linearised problem, and the momentum follows from its condition number.

References
----------
Lakshminarayanan, Pritzel, Blundell 2017, arXiv 1612.01474 (deep ensembles). Nesterov 2004, §2.2.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ntkbayes._checks import check_at_least, check_positive
from ntkbayes._problem import TrainingSet, checked_inputs, training_set
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.networks import Network, WideNetwork, linearize
from ntkbayes.predictors import Draws, Predictor

__all__ = ["TrainedEnsemble", "deep_ensemble"]

STEPS_PER_CHUNK = 25
SAFETY = 0.7
"""Share of the stable step size used: a finite network's kernel differs from the infinite one's."""


class TrainedEnsemble(Predictor):
    """Trained networks; every member is one draw.

    Attributes
    ----------
    gradient_norm
        Norm of each member's gradient after training, relative to before.
    steps
        Gradient steps done.
    """

    likelihood: Likelihood
    network: Network
    train: TrainingSet
    prior_precision: float
    params: Any
    gradient_norm: Float[Array, "s"]
    steps: int

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Evaluate the first `num_draws` members; the key is not used.

        Raises
        ------
        ValueError
            If there are fewer members.
        """
        x_test = checked_inputs(self.train, x)
        if num_draws > self.num_available:
            raise ValueError(
                f"num_draws is {num_draws}, but the ensemble has {self.num_available} members."
            )
        params = jax.tree.map(lambda leaf: leaf[:num_draws], self.params)
        latent = jax.vmap(self.network.apply, in_axes=(0, None))(params, x_test)
        progress(1.0)
        steps = jnp.full(num_draws, self.steps)
        return Draws(latent, {"gradient_norm": self.gradient_norm[:num_draws], "num_steps": steps})

    @property
    def num_available(self) -> int:
        """Number of members."""
        return len(self.gradient_norm)

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "deep_ensemble",
            "prior_precision": self.prior_precision,
            "num_members": self.num_available,
            **self.network.settings(),
        }


@typed
def deep_ensemble(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float | int,
    key: Key,
    num_members: int = 5,
    max_steps: int = 500,
    tolerance: float = 1e-2,
    progress: Progress = silent,
) -> TrainedEnsemble:
    """Train `num_members` finite networks.

    Parameters
    ----------
    network, likelihood, x, y
        The model and its training data, as in `ntkbayes.ntk_ensemble`.
    prior_precision
        λ ≥ 0, weight of ½‖θ − θ₀‖² against the summed loss.
    max_steps, tolerance
        Training stops when every gradient norm is below `tolerance` times its first value, or
        after `max_steps`; the result's ``gradient_norm`` says which.
    progress
        Called after every 25 steps.

    Raises
    ------
    ValueError
        If data or settings are out of range, or training diverges.
    """
    check_positive("prior_precision", prior_precision, or_zero=True)
    check_at_least("num_members", num_members, 1)
    check_at_least("max_steps", max_steps, 1)
    check_positive("tolerance", tolerance)
    train = training_set(likelihood, x, y)
    keys = jax.random.split(key, num_members)

    def init(key: Key) -> Any:
        params = network.init(
            key, num_features=train.x.shape[1], num_outputs=likelihood.num_outputs
        )
        return jax.tree.map(lambda leaf: leaf.astype(train.x.dtype), params)

    initial = jax.vmap(init)(keys)
    objective = _Objective(network, likelihood, train, initial, float(prior_precision))
    optimizer = _optimizer(objective, _largest_ntk_eigenvalue(network, train, initial))
    params, norm, steps = _descend(objective, optimizer, max_steps, tolerance, progress)
    return TrainedEnsemble(likelihood, network, train, float(prior_precision), params, norm, steps)


class _Objective(eqx.Module):
    network: Network
    likelihood: Likelihood
    train: TrainingSet
    initial: Any
    prior_precision: float

    def gradients(self, params: Any) -> tuple[Float[Array, "s"], Any]:
        """Objective and gradient of every member."""
        return jax.vmap(jax.value_and_grad(self._one_member))(params, self.initial)

    def _one_member(self, params: Any, initial: Any) -> Array:
        f = self.network.apply(params, self.train.x)
        fit = jnp.sum(jax.vmap(self.likelihood.log_prob)(self.train.targets, f))
        moved = jax.tree.map(lambda now, then: jnp.sum((now - then) ** 2), params, initial)
        return 0.5 * self.prior_precision * sum(jax.tree.leaves(moved)) - fit


def _largest_ntk_eigenvalue(network: Network, train: TrainingSet, initial: Any) -> float:
    """At infinite width where that is known, else the largest among the members."""
    if isinstance(network, WideNetwork):
        return float(jnp.linalg.eigvalsh(network.kernel(train.x).ntk)[-1])

    def one_member(params: Any) -> Array:
        return linearize(network, params, train.x).largest_ntk_eigenvalue()

    return float(jnp.max(jax.lax.map(one_member, initial)))


def _optimizer(objective: _Objective, ntk_max: float) -> optax.GradientTransformation:
    """Step and momentum from the largest eigenvalue of Θ and the likelihood's curvature bound."""
    likelihood, prior_precision = objective.likelihood, objective.prior_precision
    bound = 1 / likelihood.noise_variance if isinstance(likelihood, Gaussian) else 0.5
    largest = bound * ntk_max + prior_precision
    root = (max(prior_precision, 1e-4 * largest) / largest) ** 0.5
    momentum = (1 - root) / (1 + root)
    return optax.sgd(SAFETY / largest, momentum=momentum, nesterov=True)


def _descend(
    objective: _Objective,
    optimizer: optax.GradientTransformation,
    max_steps: int,
    tolerance: float,
    progress: Progress,
) -> tuple[Any, Array, int]:
    params = objective.initial
    state = optimizer.init(params)
    start, first = eqx.filter_jit(objective.gradients)(params)
    first_norm = jax.vmap(optax.tree.norm)(first)
    relative, steps = jnp.ones_like(first_norm), 0
    while steps < max_steps and not bool(jnp.all(relative <= tolerance)):
        num_steps = min(STEPS_PER_CHUNK, max_steps - steps)
        params, state, values, norm = _steps(objective, optimizer, params, state, num_steps)
        relative, steps = norm / first_norm, steps + num_steps
        if not bool(jnp.all(values <= jnp.abs(start) * 2 + 1)):
            raise ValueError(
                f"training diverged within {steps} steps: the objective rose from "
                f"{float(start.max()):.3g} to {float(values.max()):.3g}. Use a wider network."
            )
        progress(steps / max_steps)
    progress(1.0)
    return params, relative, steps


@eqx.filter_jit
def _steps(
    objective: _Objective,
    optimizer: optax.GradientTransformation,
    params: Any,
    state: Any,
    num_steps: int,
) -> tuple[Any, Any, Array, Array]:
    def body(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        _value, gradient = objective.gradients(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(body, (params, state), None, length=num_steps)
    values, gradient = objective.gradients(params)
    return params, state, values, jax.vmap(optax.tree.norm)(gradient)
