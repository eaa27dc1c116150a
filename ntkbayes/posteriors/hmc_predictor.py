"""What posteriors known by Markov chains have in common, whatever the chains move in."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ntkbayes._problem import TrainingSet, checked_inputs
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.networks import Network
from ntkbayes.posteriors.chains import Chains
from ntkbayes.predictors import Draws, Predictor

__all__ = ["HMCPredictor"]


class HMCPredictor(Predictor):
    """Posterior functions visited by Markov chains; made by `hmc`.

    Attributes
    ----------
    train, network, prior_precision
        The model and its data.
    chains
        What was visited, and how the sampler fared (`ntkbayes.posteriors.chains.Chains`).
    """

    train: eqx.AbstractVar[TrainingSet]
    network: eqx.AbstractVar[Network]
    prior_precision: eqx.AbstractVar[float]
    chains: eqx.AbstractVar[Chains]

    @abc.abstractmethod
    def functions(
        self, key: Key, x: Float[Array, "m d"], chosen: np.ndarray
    ) -> Float[Array, "s m c"]:
        """Evaluate the visited functions with indices `chosen` at the rows of x."""

    @property
    @abc.abstractmethod
    def space(self) -> str:
        """What the chains moved in: ``"function"`` or ``"weight"``."""

    @typed
    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Evaluate `num_draws` visited functions, evenly spaced in every chain, at the rows of x.

        The functions are the same for every key.

        Raises
        ------
        ValueError
            If x does not fit the training data, or `num_draws` is not a multiple of the number
            of chains or exceeds what the chains visited.
        """
        inputs = checked_inputs(self.train, x)
        chosen = self.chains.evenly_spaced(num_draws)
        latent = self.functions(key, inputs, chosen)
        progress(1.0)
        return Draws(latent, {name: values[chosen] for name, values in self.stats.items()})

    @property
    def stats(self) -> dict[str, Array]:
        """How the sampler fared, per draw, as in `Chains`, and ``log_prior`` −½ ‖z‖² in nats.

        In both spaces positions are a priori N(0, I). The log prior density is that of what is
        sampled, the weights or the function at the training points, up to a constant.
        """
        z = self.chains.position.reshape(self.num_available, -1)
        return {**self.chains.stats, "log_prior": -0.5 * jnp.sum(z**2, axis=1)}

    @property
    def num_available(self) -> int:
        """Number of visited functions, all chains together."""
        return len(self.chains.position)

    @property
    def num_chains(self) -> int:
        """Number of Markov chains; draws are ordered chain by chain."""
        return self.chains.num_chains

    @property
    def is_posterior(self) -> bool:
        """The Markov chains' limit is the exact posterior."""
        return True

    @property
    def settings(self) -> dict[str, Any]:
        """Method, prior, network and length of the chains."""
        return {
            "method": "hmc",
            "space": self.space,
            "prior_precision": float(self.prior_precision),
            "num_warmup": self.chains.num_warmup,
            "num_chains": self.num_chains,
            **self.prior_settings(),
            **self.network.settings(),
        }

    @abc.abstractmethod
    def prior_settings(self) -> dict[str, Any]:
        """Describe what is particular to the prior in this space."""
