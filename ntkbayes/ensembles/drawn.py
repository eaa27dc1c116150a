"""Ensembles without closed form: every member is drawn, and trained by itself."""

import abc
from typing import Any

import jax
import jax.numpy as jnp

from ntkbayes._problem import TrainingSet, check_draws, checked_inputs
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent
from ntkbayes.ensembles.initial import InitialLaw
from ntkbayes.ensembles.members import Members
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.predictors import Draws, Predictor

__all__ = ["DrawnEnsemble"]


class DrawnEnsemble(Predictor):
    """An ensemble of trained functions, each with a certificate of its training.

    Attributes
    ----------
    law
        Of the initial functions.
    mode_latent
        f at the mode, about which targets are perturbed; None where they are not.
    tolerance
        Of the training, in the units of its solver.
    """

    likelihood: Likelihood
    network: WideNetwork
    train: TrainingSet
    law: InitialLaw
    prior_precision: float
    mode_latent: Float[Array, "n c"] | None
    tolerance: float

    @abc.abstractmethod
    def _train(
        self, f0: Float[Array, "s n c"], score_noise: Float[Array, "s n c"]
    ) -> tuple[Float[Array, "s n c"], dict[str, Array]]:
        """Train functions that are f₀ at the training points: b and the certificate of each."""

    @abc.abstractmethod
    def _part(self, num_draws: int) -> int:
        """How many draws `_train` is given at a time; progress is reported in between."""

    @bar_in_notebooks
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
        check_draws("num_members", num_members, self.train)
        key_initial, key_targets = jax.random.split(key)
        num_outputs = self.likelihood.num_outputs
        f0, functions = self.law.draw(
            key_initial, self.train.x, num_draws=num_members, num_outputs=num_outputs
        )
        noise = self._score_noise(key_targets, f0)
        distinct = min(num_members, self.num_available or num_members)
        part = self._part(distinct)
        trained = []
        for start in range(0, distinct, part):
            trained.append(self._train(f0[start : start + part], noise[start : start + part]))
            progress(min(1.0, (start + part) / distinct))
        coefficients, stats = jax.tree.map(
            lambda *leaves: _repeated(jnp.concatenate(leaves), num_members), *trained
        )
        return Members(self.network, self.train, functions, coefficients, stats)

    @bar_in_notebooks
    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw trained functions jointly over the rows of x: `members`, evaluated there."""
        check_draws("num_draws", num_draws, self.train, checked_inputs(self.train, x))
        members = self.members(key, num_members=num_draws, progress=progress)
        return Draws(members.evaluate(x)[0], members.stats)

    @property
    def perturb_targets(self) -> bool:
        """Whether each member has its own noisy targets."""
        return self.mode_latent is not None

    @property
    def num_available(self) -> int | None:
        """One for a deterministic predictor, else unlimited."""
        return 1 if self.law.initial == "zero" and not self.perturb_targets else None

    @property
    def is_posterior(self) -> bool:
        """Never, also with initial ``"ntk"`` and perturbed targets.

        Randomised maximum a posteriori draws from the posterior only where the model is linear and
        its noise Gaussian (`ntkbayes.ensembles.gaussian`); these likelihoods are others.
        """
        return False

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "ntk_ensemble",
            "prior_precision": self.prior_precision,
            "initial": self.law.initial,
            "initial_functions": self.law.kind,
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


def _repeated(leaf: Array, num_members: int) -> Array:
    """All members, where a deterministic predictor has trained one of them."""
    return jnp.broadcast_to(leaf, (num_members, *leaf.shape[1:]))
