"""Deep ensembles: finite networks, really trained from independent random initialisations.

Each member minimises −Σ log p(yᵢ | f(xᵢ; θ)) + ½ λ ‖θ − θ₀‖² by accelerated gradient descent on all
data, one member after the other (`ntkbayes.ensembles.training`). Only ``init`` and ``apply`` of
the network are used: it need not have kernels.

References
----------
Lakshminarayanan, Pritzel, Blundell 2017, arXiv 1612.01474 (deep ensembles).
"""

from typing import Any

import jax
import jax.numpy as jnp

from ntkbayes._checks import check_at_least, check_positive, warn_caller
from ntkbayes._problem import (
    Objective,
    TrainingSet,
    checked_inputs,
    initial_params,
    training_set,
)
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import AnyArray, Array, Float, Int, Key, Progress, silent, typed
from ntkbayes.ensembles.training import TrainedNetwork, train_network
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Network
from ntkbayes.predictors import Draws, Predictor, check_available

__all__ = ["DeepEnsemble", "deep_ensemble"]


class DeepEnsemble(Predictor):
    """Trained networks; every member is one draw.

    Attributes
    ----------
    params
        Parameters, stacked over members.
    residual
        Of each member: ‖ḡ‖ / (λ ‖θ − θ₀‖), ḡ the mean gradient over the last 25 steps.
    gradient_norm
        The same of the gradient at the trained parameters alone. It does not vanish with ReLU,
        whose minima lie on kinks.
    num_steps
        Gradient steps done.
    """

    likelihood: Likelihood
    network: Network
    train: TrainingSet
    prior_precision: float
    tolerance: float
    params: Any
    residual: Float[Array, "s"]
    gradient_norm: Float[Array, "s"]
    num_steps: Int[Array, "s"]

    @property
    def converged(self) -> Array:
        """Whether each member's residual is at most the tolerance it was trained with."""
        return self.residual <= self.tolerance

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Evaluate the first `num_draws` members; the key is not used.

        Raises
        ------
        ValueError
            If x does not fit the training data, or there are fewer members.
        """
        x_test = checked_inputs(self.train, x)
        check_available(num_draws, self.num_available)
        params = jax.tree.map(lambda leaf: leaf[:num_draws], self.params)
        latent = jax.lax.map(lambda member: self.network.apply(member, x_test), params)
        progress(1.0)
        stats = {
            "converged": self.converged,
            "residual": self.residual,
            "gradient_norm": self.gradient_norm,
            "num_steps": self.num_steps,
        }
        return Draws(latent, {name: values[:num_draws] for name, values in stats.items()})

    @property
    def num_available(self) -> int:
        """Number of members."""
        return len(self.residual)

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings, and how many members' training converged."""
        return {
            "method": "deep_ensemble",
            "prior_precision": self.prior_precision,
            "num_members": self.num_available,
            "num_converged": int(self.converged.sum()),
            "tolerance": self.tolerance,
            **self.network.settings(),
        }


@bar_in_notebooks
@typed
def deep_ensemble(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float,
    key: Key,
    num_members: int = 5,
    max_steps: int = 1000,
    tolerance: float = 0.05,
    progress: Progress = silent,
) -> DeepEnsemble:
    """Train `num_members` finite networks.

    Parameters
    ----------
    network, likelihood, x, y
        The model and its training data, as in `ntkbayes.ntk_ensemble`.
    prior_precision
        λ ≥ 0, weight of ½‖θ − θ₀‖² against the summed loss.
    key
        Split once into a key per member, which `network.init` is given.
    num_members
        Number of networks, at least 1. One is the single trained network that other methods are
        compared with, alone or under `ntkbayes.temperature_scaled`.
    max_steps, tolerance
        A member's training stops at a residual ‖ḡ‖ / (λ ‖θ − θ₀‖) of at most `tolerance`, or after
        `max_steps`. For a linear model the residual bounds the error of the parameters, and its
        square that of the objective, relative to how far and how high θ₀ was. At the default, the
        test predictions of ReLU networks were 0.2 to 2 % of their movement away from those after
        many more steps.
    progress
        Called after every 25 steps.

    Warns
    -----
    UserWarning
        If members have not converged within `max_steps`; the result's ``converged`` says which.

    Raises
    ------
    ValueError
        If data or settings are out of range, the objective has no minimum, or training does not
        lower it.

    Examples
    --------
    >>> ensemble = nb.deep_ensemble(*model, prior_precision=1.0, num_members=3, key=key)
    >>> ensemble.num_available, bool(ensemble.converged.all())
    (3, True)
    >>> ensemble.sample(key, data.x_test, num_draws=3).shape
    (3, 300, 2)
    """
    check_positive("prior_precision", prior_precision, or_zero=True)
    check_at_least("num_members", num_members, 1)
    check_at_least("max_steps", max_steps, 1)
    check_positive("tolerance", tolerance)
    train = training_set(likelihood, x, y)
    if prior_precision == 0:
        likelihood.saturated(train.targets)  # raises where the objective has no minimum
    precision = jnp.asarray(prior_precision, train.x.dtype)

    def train_member(index: int, key: Key) -> TrainedNetwork:
        def report(steps: int) -> None:
            progress((index + steps / max_steps) / num_members)

        initial = initial_params(network, likelihood, train, key)
        objective = Objective(network, likelihood, train, precision, initial)
        return train_network(objective, max_steps=max_steps, tolerance=tolerance, progress=report)

    members = [train_member(*item) for item in enumerate(jax.random.split(key, num_members))]
    progress(1.0)
    ensemble = DeepEnsemble(
        likelihood,
        network,
        train,
        float(prior_precision),
        tolerance,
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *(member.params for member in members)),
        jnp.stack([member.residual for member in members]),
        jnp.stack([member.gradient_norm for member in members]),
        jnp.asarray([member.num_steps for member in members]),
    )
    _warn_unless_converged(ensemble, max_steps)
    return ensemble


def _warn_unless_converged(ensemble: DeepEnsemble, max_steps: int) -> None:
    unfinished = ensemble.num_available - int(ensemble.converged.sum())
    if unfinished:
        warn_caller(
            f"{unfinished} of {ensemble.num_available} networks are still in training after "
            f"{max_steps} steps: the largest residual is {float(ensemble.residual.max()):.2g}, "
            f"the tolerance {ensemble.tolerance:.2g}. Raise max_steps, prior_precision or the "
            "noise."
        )
