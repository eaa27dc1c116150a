"""HMC over weights: the exact posterior of a finite network.

The weights are θ = θ̄ + z / √λ with z (p) ~ N(0, I), so that θ ~ N(θ̄, I / λ) a priori, and the
posterior log density of z is, up to a constant,

    −½ ‖z‖² + Σᵢ log p(yᵢ | f(xᵢ; θ)).

Chains start at independent draws from the prior. These are as far from one another as the model
allows, and in each of the modes that a network's symmetries give with equal probability, so that
chains which agree have found the same predictions from different sides.

References
----------
Neal 1996, Bayesian Learning for Neural Networks, ch. 3. Izmailov et al. 2021, arXiv 2104.14421.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ntkbayes._problem import TrainingSet, checked_center
from ntkbayes._types import Array, Float, Int, Key
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Network
from ntkbayes.posteriors.chains import Chains, Target
from ntkbayes.posteriors.hmc_predictor import HMCPredictor

__all__ = ["WeightSpacePosterior", "sample_weights"]


class WeightSpacePosterior(HMCPredictor):
    """Visited weights of a finite network.

    Attributes
    ----------
    center
        θ̄, the prior mean of the parameters.
    chains
        Its positions (s p) are the visited z.
    """

    likelihood: Likelihood
    train: TrainingSet
    network: Network
    center: Any
    chains: Chains
    prior_precision: float

    def weights(self, draw: int | Int[Array, ""]) -> Any:
        """Parameters θ of one visited network, of the structure of ``network.init``."""
        return _weights(self.center, self.chains.position[draw], self.prior_precision)

    def functions(
        self, key: Key, x: Float[Array, "m d"], chosen: np.ndarray
    ) -> Float[Array, "s m c"]:
        """Evaluate visited networks at the rows of x, one after the other; no key is used."""

        def evaluate(draw: Array) -> Float[Array, "m c"]:
            return self.network.apply(self.weights(draw), x).astype(x.dtype)

        return jax.lax.map(evaluate, jnp.asarray(chosen))

    @property
    def space(self) -> str:
        """``"weight"``."""
        return "weight"

    def prior_settings(self) -> dict[str, Any]:
        """Say whether the prior is centered at zero, and how many weights there are."""
        centered = not any(leaf.any() for leaf in jax.tree.leaves(self.center))
        return {
            "center": "zero" if centered else "given",
            "num_weights": self.chains.position.shape[1],
        }


def sample_weights(
    network: Network,
    likelihood: Likelihood,
    train: TrainingSet,
    *,
    prior_precision: float,
    center: Any,
    run: Callable[[Target], Chains],
) -> WeightSpacePosterior:
    """Sample z with `run`, which is `run_chains` with everything but its target.

    Raises
    ------
    ValueError
        As `checked_center`, or if the network does not fit the data.
    """
    init = partial(network.init, num_features=train.x.shape[1], num_outputs=likelihood.num_outputs)
    like = eqx.filter_eval_shape(init, jax.random.key(0))
    theta = checked_center(network, train, center, like)
    # NumPyro draws momenta in the default type, and its loops refuse to mix types.
    default = jnp.result_type(float)
    x, targets, mean = jax.tree.map(
        lambda leaf: leaf.astype(default), (train.x, train.targets, theta)
    )
    chains = run(_WeightTarget(network, likelihood, x, targets, mean, prior_precision))
    position = chains.position.astype(train.x.dtype)
    return WeightSpacePosterior(
        likelihood=likelihood,
        train=train,
        network=network,
        center=theta,
        chains=eqx.tree_at(lambda c: c.position, chains, position),
        prior_precision=prior_precision,
    )


class _WeightTarget(Target):
    """The density of z."""

    network: Network
    likelihood: Likelihood
    x: Float[Array, "n d"]
    targets: Float[Array, "n c"]
    center: Any
    prior_precision: float

    def potential(self, position: Float[Array, "p"]) -> Float[Array, ""]:
        """½ ‖z‖² − Σ log p(yᵢ | f(xᵢ; θ̄ + z / √λ))."""
        f = self.network.apply(_weights(self.center, position, self.prior_precision), self.x)
        log_likelihood = jax.vmap(self.likelihood.log_prob)(self.targets, f)
        return 0.5 * jnp.vdot(position, position) - jnp.sum(log_likelihood)

    def start(self, key: Key) -> Float[Array, "p"]:
        """Draw from the prior."""
        flat, _ = ravel_pytree(self.center)
        return jax.random.normal(key, flat.shape, flat.dtype)

    @property
    def trajectory_length(self) -> None:
        """None is right everywhere: the posterior of weights is narrow here and wide there."""

    def settings(self) -> dict[str, Any]:
        """Name space, network, prior and likelihood."""
        return {
            "space": "weight",
            "network": self.network.settings(),
            "likelihood": self.likelihood.settings(),
            "prior_precision": float(self.prior_precision),
        }


def _weights(center: Any, z: Float[Array, "p"], prior_precision: float) -> Any:
    flat, unravel = ravel_pytree(center)
    return unravel(flat + z / prior_precision**0.5)
