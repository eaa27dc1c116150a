"""Predictors: what every method returns, a distribution over functions one can draw from."""

import abc
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ntkbayes._checks import check_at_least
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent
from ntkbayes.likelihoods import Likelihood

__all__ = ["Draws", "GaussianPredictor", "Predictor", "check_available"]


class Draws(eqx.Module):
    """Functions drawn from a predictor, with what is known about each draw.

    Parameters
    ----------
    latent
        The latent function (logits, or regression mean without noise), joint over the m points.
    stats
        One number per draw, such as ``error_bound`` and ``iterations`` of a solver or
        ``diverging`` of a Markov chain.

    Examples
    --------
    >>> draws = nb.ntk_ensemble(*model, prior_precision=1.0).draw(key, data.x_test, num_draws=50)
    >>> draws.latent.shape, bool((draws.stats["error_bound"] < 1e-3).all())
    ((50, 300, 2), True)
    """

    latent: Float[Array, "s m c"]
    stats: dict[str, Array]


def check_available(num_draws: int, num_available: int) -> None:
    """Raise `ValueError` unless there are as many draws, and at least one."""
    check_at_least("num_draws", num_draws, 1)
    if num_draws > num_available:
        raise ValueError(f"num_draws is {num_draws}, but the ensemble has {num_available} members.")


class Predictor(eqx.Module):
    """A distribution over latent functions.

    Attributes
    ----------
    likelihood
        Turns latent functions into observations.

    Examples
    --------
    >>> ensemble = nb.ntk_ensemble(*model, prior_precision=1.0)
    >>> ensemble.settings["method"], ensemble.num_available, ensemble.is_posterior
    ('ntk_ensemble', None, False)
    >>> ensemble.sample(key, data.x_test, num_draws=50).shape
    (50, 300, 2)
    """

    likelihood: eqx.AbstractVar[Likelihood]

    def __hash__(self) -> int:
        """Equal predictors have equal structure: `jax.jit` takes methods of hashable objects."""
        leaves, structure = jax.tree.flatten(self)
        return hash((structure, *((np.shape(v), getattr(v, "dtype", v)) for v in leaves)))

    def __repr__(self) -> str:
        """Name the class and the settings, instead of pages of arrays."""
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"{type(self).__name__}({settings})"

    @abc.abstractmethod
    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw functions jointly over the rows of x, with their statistics.

        Parameters
        ----------
        key
            The same key gives the same draws.
        x
            Inputs (m d), scaled as for training.
        num_draws
            How many, at most `num_available`; of Markov chains a multiple of `num_chains`.
        progress
            Called with the finished fraction.
        """

    @property
    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Method name and settings, as written into results."""

    @property
    def num_available(self) -> int | None:
        """How many distinct draws there are; None if there is no limit.

        A Markov chain has as many as it was run for, an ensemble of trained networks one per
        member, a single network one.
        """
        return None

    @property
    def num_chains(self) -> int:
        """Number of Markov chains; draws are ordered chain by chain."""
        return 1

    @property
    def is_posterior(self) -> bool:
        """Whether draws are from the Bayesian posterior of the model, or an approximation to it.

        Then a tool that reweights posterior draws, such as PSIS-LOO, may be used on them. Ensembles
        of trained networks are distributions of another kind, whatever their spread looks like.
        """
        return False

    def sample(self, key: Key, x: AnyArray, *, num_draws: int) -> Float[Array, "s m c"]:
        """Draw latent functions jointly over the rows of x (m d): `draw` without statistics."""
        return self.draw(key, x, num_draws=num_draws).latent


class GaussianPredictor(Predictor):
    """A predictor whose functions are Gaussian, with exact moments.

    Examples
    --------
    >>> posterior = nb.laplace(*model, prior_precision=1.0)
    >>> posterior.mean(data.x_test).shape, posterior.covariance(data.x_test).shape
    ((300, 2), (300, 2, 300, 2))
    """

    @property
    def has_moments(self) -> bool:
        """Whether `covariance` and `variance` are known in closed form."""
        return True

    @abc.abstractmethod
    def mean(self, x: AnyArray) -> Float[Array, "m c"]:
        """Mean of the latent function, in latent units."""

    @abc.abstractmethod
    def covariance(self, x: AnyArray) -> Float[Array, "m c m c"]:
        """Covariance of the latent function between points and outputs; noise excluded."""

    @abc.abstractmethod
    def variance(self, x: AnyArray) -> Float[Array, "m c"]:
        """Diagonal of `covariance`."""
