"""Predictors whose draws and moments are known."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes.likelihoods import Likelihood
from ntkbayes.predictors import Draws, GaussianPredictor, Predictor


class Numbered(Predictor):
    """Draw number s is the constant function s / 100: the order of draws shows."""

    likelihood: Likelihood
    available: int | None = eqx.field(static=True, default=None)
    chains: int = eqx.field(static=True, default=1)

    def draw(self, key, x, *, num_draws, progress=lambda fraction: None):
        progress(1.0)
        numbers = jnp.arange(num_draws) / 100
        slopes = jnp.arange(self.likelihood.num_outputs, dtype=float)
        latent = numbers[:, None, None] * jnp.ones((1, len(x), 1)) * slopes[None, None, :]
        return Draws(latent + 1.0, {"residual": numbers, "diverging": numbers > 0.02})

    @property
    def settings(self) -> dict[str, Any]:
        return {"method": "numbered", "time": float("inf"), "exact": True, "start": None}

    @property
    def num_available(self):
        return self.available

    @property
    def num_chains(self):
        return self.chains


class Normal(GaussianPredictor):
    """Independent N(x₀, 0.25) at every point."""

    likelihood: Likelihood

    def draw(self, key, x, *, num_draws, progress=lambda fraction: None):
        noise = jax.random.normal(key, (num_draws, len(x), 1))
        return Draws(self.mean(x)[None] + 0.5 * noise, {})

    def mean(self, x):
        return jnp.asarray(x)[:, :1]

    def covariance(self, x):
        return jnp.diag(self.variance(x)[:, 0])[:, None, :, None]

    def variance(self, x):
        return jnp.full((len(x), 1), 0.25)

    @property
    def settings(self):
        return {"method": "normal"}
