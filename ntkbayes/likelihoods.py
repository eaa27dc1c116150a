"""Likelihoods: how an observation depends on the latent function f (c,) at one point.

Each supplies what training and inference need at *one* point; `jax.vmap` gives the rest:

- ``log_prob``: log p(y | f), normalised, in nats;
- ``score`` s(f) = ∂ log p / ∂f and ``curvature`` W(f) = −∂² log p / ∂f²;
- ``score_noise``: a draw ξ with E ξ = 0 and cov ξ = W(f), the randomisation of perturbed targets;
- ``sample``: a new observation.

Observations travel as *targets* (n c): one-hot rows for classes (or soft labels), values for
regression. ``targets`` makes them from what a user has.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._checks import check_at_least, check_finite, check_not_empty, check_positive
from ntkbayes._types import AnyArray, Array, Float, Key

__all__ = ["Categorical", "Gaussian", "Likelihood"]


class Likelihood(eqx.Module):
    """What every likelihood supplies; see the module's docstring for the notation."""

    num_outputs: eqx.AbstractVar[int]

    @abc.abstractmethod
    def targets(self, y: AnyArray) -> Float[Array, "n c"]:
        """Check observations and return them as targets (n c)."""

    @abc.abstractmethod
    def log_prob(self, target: Float[Array, "c"], f: Float[Array, "c"]) -> Float[Array, ""]:
        """Log p(target | f) at one point, normalised, in nats."""

    @abc.abstractmethod
    def score(self, target: Float[Array, "c"], f: Float[Array, "c"]) -> Float[Array, "c"]:
        """∂ log p / ∂f at one point."""

    @abc.abstractmethod
    def curvature(self, f: Float[Array, "c"]) -> Float[Array, "c c"]:
        """W = −∂² log p / ∂f² at one point, positive semi-definite."""

    @abc.abstractmethod
    def curvature_product(
        self, f: Float[Array, "c"], vector: Float[Array, "c"]
    ) -> Float[Array, "c"]:
        """W(f) · vector, without forming W."""

    @abc.abstractmethod
    def score_noise(self, key: Key, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """One draw with mean 0 and covariance W(f)."""

    @abc.abstractmethod
    def sample(self, key: Key, f: Float[Array, "c"]) -> Array:
        """One observation: a class index () or values (c,)."""

    @abc.abstractmethod
    def settings(self) -> dict[str, str | int | float]:
        """Name and parameters, as written into results."""


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
    """

    noise_variance: float
    num_outputs: int = eqx.field(static=True)

    def __init__(self, noise_variance: float, num_outputs: int = 1):
        check_positive("noise_variance", noise_variance)
        check_at_least("num_outputs", num_outputs, 1)
        self.noise_variance = float(noise_variance)
        self.num_outputs = num_outputs

    def targets(self, y: AnyArray) -> Float[Array, "n c"]:
        """Return regression targets (n c) from y (n,) when c = 1, or (n c)."""
        check_not_empty("y", y)
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

    def curvature_product(
        self, f: Float[Array, "c"], vector: Float[Array, "c"]
    ) -> Float[Array, "c"]:
        """Vector / σ²."""
        return vector / self.noise_variance

    def score_noise(self, key: Key, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """N(0, 1/σ²): adding it to the score adds N(0, σ²) to the target."""
        return jax.random.normal(key, f.shape, f.dtype) / self.noise_variance**0.5

    def sample(self, key: Key, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """F + N(0, σ²)."""
        return f + self.noise_variance**0.5 * jax.random.normal(key, f.shape, f.dtype)

    def settings(self) -> dict[str, str | int | float]:
        """Name and parameters."""
        return {
            "name": "Gaussian",
            "noise_variance": self.noise_variance,
            "num_outputs": self.num_outputs,
        }


class Categorical(Likelihood):
    """Classes with probabilities softmax(f): one logit per class.

    With two classes the difference of the two logits has kernel 2K, not K: a two-logit model
    with kernel K is the one-logit logistic model with kernel 2K.

    Parameters
    ----------
    num_classes
        Number of classes c ≥ 2.

    Raises
    ------
    ValueError
        If `num_classes` is below 2.
    """

    num_outputs: int = eqx.field(static=True)

    def __init__(self, num_classes: int):
        check_at_least("num_classes", num_classes, 2)
        self.num_outputs = num_classes

    def targets(self, y: AnyArray) -> Float[Array, "n c"]:
        """Return targets (n c) from class indices (n,) or soft targets (n c), rows summing to 1.

        Raises
        ------
        ValueError
            If a class index is out of range, a row is not a distribution, or only one class occurs.
        """
        check_not_empty("y", y)
        check_finite("y", y)
        values, c = np.asarray(y), self.num_outputs
        if values.ndim == 1 and np.issubdtype(values.dtype, np.integer):
            if values.min() < 0 or values.max() >= c:
                raise ValueError(
                    f"y must hold class indices 0 to {c - 1}, "
                    f"but holds {values.min()} to {values.max()}."
                )
            targets = np.eye(c)[values]
        elif values.ndim == 2 and values.shape[1] == c:
            if values.min() < 0 or np.abs(values.sum(axis=1) - 1).max() > 1e-6:
                raise ValueError("soft targets y must be nonnegative with rows that sum to 1.")
            targets = values
        else:
            raise ValueError(
                f"y must be integer class indices of shape (n,) or soft targets of shape (n, {c}), "
                f"but has shape {values.shape} and dtype {values.dtype}."
            )
        present = np.flatnonzero(targets.max(axis=0) > 0)
        if len(present) < 2:
            raise ValueError(
                f"y holds one class only (class {present[0]}); at least two are needed."
            )
        return jnp.asarray(targets, dtype=jnp.result_type(float))

    def log_prob(self, target: Float[Array, "c"], f: Float[Array, "c"]) -> Float[Array, ""]:
        """Σ_c target_c log softmax(f)_c: minus the cross-entropy."""
        return jnp.dot(target, jax.nn.log_softmax(f))

    def score(self, target: Float[Array, "c"], f: Float[Array, "c"]) -> Float[Array, "c"]:
        """Target − softmax(f)."""
        return target - jax.nn.softmax(f)

    def curvature(self, f: Float[Array, "c"]) -> Float[Array, "c c"]:
        """Diag(p) − p pᵀ with p = softmax(f)."""
        p = jax.nn.softmax(f)
        return jnp.diag(p) - jnp.outer(p, p)

    def curvature_product(
        self, f: Float[Array, "c"], vector: Float[Array, "c"]
    ) -> Float[Array, "c"]:
        """P ∘ (v − p·v)."""
        p = jax.nn.softmax(f)
        return p * (vector - jnp.dot(p, vector))

    def score_noise(self, key: Key, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """Onehot(y*) − p with y* ~ Categorical(p): a resampled label minus its expectation."""
        label = jax.nn.one_hot(self.sample(key, f), f.shape[0], dtype=f.dtype)
        return label - jax.nn.softmax(f)

    def sample(self, key: Key, f: Float[Array, "c"]) -> Array:
        """Return a class index drawn with probabilities softmax(f)."""
        return jax.random.categorical(key, f)

    def settings(self) -> dict[str, str | int | float]:
        """Name and parameters."""
        return {"name": "Categorical", "num_outputs": self.num_outputs}
