"""Regression with Gaussian noise."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._checks import check_at_least, check_finite, check_not_empty, check_positive
from ntkbayes._types import AnyArray, Array, Float, Key
from ntkbayes.likelihoods.base import Likelihood

__all__ = ["Gaussian"]


class Gaussian(Likelihood):
    """Independent Gaussian noise, y = f + ε with ε ~ N(0, `noise_variance`), on each output.

    Parameters
    ----------
    noise_variance
        Variance of ε in squared target units, > 0.
    num_outputs
        Number of regression outputs c.

    Raises
    ------
    ValueError
        If `noise_variance` is not positive or `num_outputs` below 1.

    Examples
    --------
    >>> likelihood = nb.Gaussian(0.25)
    >>> likelihood.score(np.array([1.0]), np.array([0.5])).item()
    2.0
    >>> round(likelihood.log_prob(np.array([1.0]), np.array([0.5])).item(), 3)
    -0.726
    """

    noise_variance: float
    num_outputs: int = eqx.field(static=True)
    curvature_structure: ClassVar = "constant"

    def __init__(self, noise_variance: float, num_outputs: int = 1):
        check_positive("noise_variance", noise_variance)
        check_at_least("num_outputs", num_outputs, 1)
        self.noise_variance = float(noise_variance)
        self.num_outputs = int(num_outputs)

    def targets(self, y: AnyArray) -> Float[Array, "n c"]:
        """Return regression targets (n c) from y (n,) when c = 1, or (n c).

        Raises
        ------
        ValueError
            If y is empty, not finite, has another shape, or holds integers: class indices more
            often than measurements.
        """
        check_not_empty("y", y)
        if not jnp.issubdtype(y.dtype, jnp.floating):
            raise ValueError(
                f"y must hold real values with a Gaussian likelihood, but has {y.dtype}: "
                "use y.astype(float) if they are measurements, Categorical if they are classes, "
                "Poisson if they are counts."
            )
        check_finite("y", y)
        targets = jnp.asarray(y, dtype=jnp.result_type(float))
        if targets.ndim == 1 and self.num_outputs == 1:
            targets = targets[:, None]
        if targets.ndim != 2 or targets.shape[1] != self.num_outputs:
            raise ValueError(
                f"y must have shape (n, {self.num_outputs})"
                f"{' or (n,)' if self.num_outputs == 1 else ''}, but has {tuple(y.shape)}."
            )
        return targets

    def log_prob(self, target: Float[Array, "c"], f: Float[Array, "c"]) -> Float[Array, ""]:
        """−½ Σ (y − f)² / σ² − ½ c log 2πσ²."""
        squared = jnp.sum((target - f) ** 2) / self.noise_variance
        return -0.5 * (squared + self.num_outputs * jnp.log(2 * jnp.pi * self.noise_variance))

    def score(self, target: Float[Array, "c"], f: Float[Array, "c"]) -> Float[Array, "c"]:
        """(y − f) / σ²."""
        return (target - f) / self.noise_variance

    def curvature(self, f: Float[Array, "c"]) -> Float[Array, "c c"]:
        """I / σ²."""
        return jnp.eye(f.shape[0], dtype=f.dtype) / self.noise_variance

    def curvature_weights(self, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """1 / σ²."""
        return jnp.full_like(f, 1 / self.noise_variance)

    def curvature_product(
        self, f: Float[Array, "c"], vector: Float[Array, "c"]
    ) -> Float[Array, "c"]:
        """Return vector / σ²."""
        return vector / self.noise_variance

    def saturated(self, targets: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Return the targets themselves."""
        return targets

    @property
    def latent_scale(self) -> float:
        """σ, target units."""
        return self.noise_variance**0.5

    def score_noise(self, key: Key, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """N(0, 1/σ²): adding it to the score adds N(0, σ²) to the target."""
        return jax.random.normal(key, f.shape, f.dtype) / self.noise_variance**0.5

    def sample(self, key: Key, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """Return f + N(0, σ²)."""
        return f + self.noise_variance**0.5 * jax.random.normal(key, f.shape, f.dtype)

    def settings(self) -> dict[str, str | int | float]:
        """Name and parameters."""
        return {
            "name": "Gaussian",
            "noise_variance": self.noise_variance,
            "num_outputs": self.num_outputs,
        }
