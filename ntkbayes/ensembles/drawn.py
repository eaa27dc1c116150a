"""Ensembles without closed form: every member is drawn, and trained by itself."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._problem import TrainingSet
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent
from ntkbayes.ensembles.initial import draw_initial_functions
from ntkbayes.ensembles.members import Members
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.predictors import Draws, Predictor

__all__ = ["DrawnEnsemble"]


class DrawnEnsemble(Predictor):
    """An ensemble of trained functions, each with a certificate of its training.

    Attributes
    ----------
    factor
        L with L Lᵀ = Q₀(X, X); None where it is not needed.
    mode_latent
        f at the mode, about which targets are perturbed; None where they are not.
    tolerance
        Of the training, in the units of its solver.
    """

    likelihood: Likelihood
    network: WideNetwork
    train: TrainingSet
    prior_precision: float
    initial: str = eqx.field(static=True)
    initial_functions: str = eqx.field(static=True)
    factor: Float[Array, "n n"] | None
    mode_latent: Float[Array, "n c"] | None
    tolerance: float

    @abc.abstractmethod
    def _train(
        self, f0: Float[Array, "s n c"], score_noise: Float[Array, "s n c"], progress: Progress
    ) -> tuple[Float[Array, "s n c"], dict[str, Array]]:
        """Train functions that are f₀ at the training points: b and the certificate of each."""

    def members(self, key: Key, *, num_members: int, progress: Progress = silent) -> Members:
        """Draw initial functions and targets, and train on them.

        ``stats`` holds the certificate of each member's training.

        Parameters
        ----------
        key
            The same key gives the same members.
        num_members
            How many.
        progress
            Called with the trained fraction.

        Raises
        ------
        ValueError
            If a member's training does not reach its tolerance.
        """
        key_initial, key_targets = jax.random.split(key)
        f0, functions = draw_initial_functions(
            key_initial,
            self.network,
            self.train.x,
            factor=self.factor,
            initial=self.initial,
            prior_precision=self.prior_precision,
            kind=self.initial_functions,
            num_draws=num_members,
            num_outputs=self.likelihood.num_outputs,
        )
        coefficients, stats = self._train(f0, self._score_noise(key_targets, f0), progress)
        return Members(self.network, self.train, functions, coefficients, stats)

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw trained functions jointly over the rows of x: `members`, evaluated there."""
        members = self.members(key, num_members=num_draws, progress=progress)
        return Draws(members.evaluate(x)[0], members.stats)

    @property
    def perturb_targets(self) -> bool:
        """Whether each member has its own noisy targets."""
        return self.mode_latent is not None

    @property
    def num_available(self) -> int | None:
        """One for a deterministic predictor, else unlimited."""
        return 1 if self.initial == "zero" and not self.perturb_targets else None

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "ntk_ensemble",
            "prior_precision": self.prior_precision,
            "initial": self.initial,
            "initial_functions": self.initial_functions,
            "perturb_targets": self.perturb_targets,
            "tolerance": self.tolerance,
            **self.network.settings(),
        }

    def _score_noise(self, key: Key, f0: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """ξ of each draw: observations resampled at the mode minus their mean, if perturbed."""
        if self.mode_latent is None:
            return jnp.zeros_like(f0)
        keys = jax.random.split(key, f0.shape[:2])
        noise = jax.vmap(jax.vmap(self.likelihood.score_noise), in_axes=(0, None))
        return noise(keys, self.mode_latent)
