"""Counts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._types import AnyArray, Array, Float, Key
from ntkbayes.likelihoods.base import Likelihood, require_reachable, single_output

__all__ = ["Poisson"]


class Poisson(Likelihood):
    """Counts with mean exp(f): the log link.

    Examples
    --------
    >>> likelihood = nb.Poisson()
    >>> likelihood.targets(np.array([0, 3])).tolist()
    [[0.0], [3.0]]
    >>> likelihood.log_prob(np.zeros(1), np.zeros(1)).item()
    -1.0
    """

    num_outputs: int = eqx.field(static=True, default=1, init=False)

    def targets(self, y: AnyArray) -> Float[Array, "n 1"]:
        """Return targets (n 1) from counts (n,) or (n 1).

        Raises
        ------
        ValueError
            If a count is negative or no whole number.
        """
        targets = single_output("y", y)
        if targets.min() < 0 or np.any(targets != np.round(targets)):
            raise ValueError("y must hold counts: whole numbers, zero or positive.")
        return jnp.asarray(targets, dtype=jnp.result_type(float))

    def log_prob(self, target: Float[Array, "1"], f: Float[Array, "1"]) -> Float[Array, ""]:
        """Return target · f − exp f − log target!."""
        return jnp.sum(target * f - jnp.exp(f) - jax.scipy.special.gammaln(target + 1))

    def score(self, target: Float[Array, "1"], f: Float[Array, "1"]) -> Float[Array, "1"]:
        """Return target − exp f."""
        return target - jnp.exp(f)

    def curvature(self, f: Float[Array, "1"]) -> Float[Array, "1 1"]:
        """Return exp f."""
        return jnp.exp(f)[None]

    def curvature_product(
        self, f: Float[Array, "1"], vector: Float[Array, "1"]
    ) -> Float[Array, "1"]:
        """Return exp f · vector."""
        return jnp.exp(f) * vector

    def saturated(self, targets: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
        """Return the log of the counts."""
        require_reachable(
            bool(jnp.all(targets > 0)), targets="counts of zero", remedy="positive counts only"
        )
        return jnp.log(targets)

    def score_noise(self, key: Key, f: Float[Array, "1"]) -> Float[Array, "1"]:
        """Return y* − exp f with y* ~ Poisson(exp f): a resampled count minus its expectation."""
        rate = jnp.exp(f)
        return jax.random.poisson(key, rate).astype(f.dtype) - rate

    def sample(self, key: Key, f: Float[Array, "1"]) -> Array:
        """Return a count of mean exp f."""
        return jax.random.poisson(key, jnp.exp(f[0]))

    def settings(self) -> dict[str, str | int | float]:
        """Name."""
        return {"name": "Poisson", "num_outputs": 1}
