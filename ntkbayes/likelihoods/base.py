"""What a likelihood supplies at one point."""

import abc
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ntkbayes._checks import check_finite, check_not_empty
from ntkbayes._types import AnyArray, Array, Float, Key

__all__ = ["Likelihood", "require_reachable", "single_output"]


class Likelihood(eqx.Module):
    """What every likelihood supplies; see `ntkbayes.likelihoods` for the notation.

    Examples
    --------
    >>> likelihood = nb.Categorical(2)
    >>> target, f = likelihood.targets(np.array([0, 1]))[0], np.zeros(2)
    >>> gradient = jax.grad(lambda f: likelihood.log_prob(target, f))(f)
    >>> np.allclose(gradient, likelihood.score(target, f))
    True
    """

    num_outputs: eqx.AbstractVar[int]

    curvature_structure: ClassVar[Literal["constant", "diagonal", "softmax", "dense"]] = "dense"
    """What is known of `curvature`, with w from `curvature_weights`:

    - ``"constant"``: w I with one number w, the same whatever f;
    - ``"diagonal"``: diag(w);
    - ``"softmax"``: diag(w) − w wᵀ / Σ w;
    - ``"dense"``: nothing. Always right; solvers then need matrices of (n c) × (n c).

    It counts for the class that defines `curvature`, and not for one that overrides it.
    """

    counts: ClassVar[bool] = False
    """Whether targets are whole numbers, which a floating type must keep."""

    @abc.abstractmethod
    def targets(self, y: AnyArray) -> Float[Array, "n c"]:
        """Check observations and return them as targets (n c)."""

    @abc.abstractmethod
    def log_prob(self, target: Float[Array, "c"], f: Float[Array, "c"]) -> Float[Array, ""]:
        """Return log p(target | f) at one point, normalised, in nats."""

    @abc.abstractmethod
    def score(self, target: Float[Array, "c"], f: Float[Array, "c"]) -> Float[Array, "c"]:
        """∂ log p / ∂f at one point."""

    @abc.abstractmethod
    def curvature(self, f: Float[Array, "c"]) -> Float[Array, "c c"]:
        """W = −∂² log p / ∂f² at one point, positive semi-definite."""

    def curvature_weights(self, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """Return w of the `curvature_structure`; its default is the diagonal of `curvature`."""
        return jnp.diagonal(self.curvature(f))

    @abc.abstractmethod
    def curvature_product(
        self, f: Float[Array, "c"], vector: Float[Array, "c"]
    ) -> Float[Array, "c"]:
        """W(f) · vector, without forming W."""

    @abc.abstractmethod
    def saturated(self, targets: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Latent values that reproduce the targets exactly: the score there is zero.

        What training without regularisation converges to.

        Raises
        ------
        ValueError
            If no finite value does.
        """

    def identified(self, dtype: jnp.dtype) -> Float[Array, "c c"]:
        """Projector onto the directions of f that the likelihood sees."""
        return jnp.eye(self.num_outputs, dtype=dtype)

    @property
    def latent_scale(self) -> float:
        """How far latent values must differ to matter: 1 for logits and logarithms of rates.

        The unit of every tolerance on latent errors.
        """
        return 1.0

    @abc.abstractmethod
    def score_noise(self, key: Key, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """One draw with mean 0 and covariance W(f)."""

    @abc.abstractmethod
    def sample(self, key: Key, f: Float[Array, "c"]) -> Array:
        """One observation: a class index () or values (c,)."""

    @abc.abstractmethod
    def settings(self) -> dict[str, str | int | float]:
        """Name and parameters, as written into results."""


def single_output(name: str, y: AnyArray) -> np.ndarray:
    """Return y (n,) or (n 1) as floating numbers (n 1).

    Raises
    ------
    ValueError
        If y is empty, not finite, or has another shape.
    """
    check_not_empty(name, y)
    check_finite(name, y)
    values = np.asarray(y, dtype=float)
    if values.shape not in ((len(values),), (len(values), 1)):
        raise ValueError(f"{name} must have shape (n,) or (n, 1), but has {values.shape}.")
    return values.reshape(-1, 1)


def require_reachable(reachable: bool, *, targets: str, remedy: str) -> None:
    """Raise `ValueError` with the three ways out if unregularised training would diverge."""
    if not reachable:
        raise ValueError(
            f"training without regularisation (prior_precision zero) on {targets} has no finite "
            f"solution: its logits diverge. Use prior_precision > 0, {remedy}, or a finite time."
        )
