"""Classes: one logit per class, or one logit for two classes."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._arrays import one_hot
from ntkbayes._checks import check_at_least, check_finite, check_fraction, check_not_empty
from ntkbayes._types import AnyArray, Array, Float, Int, Key, typed
from ntkbayes.kernels.memory import check_memory
from ntkbayes.likelihoods.base import Likelihood, require_reachable, single_output

__all__ = ["Bernoulli", "Categorical", "smooth_labels"]

TOLERANCE = 1e-6
"""On a probability and on sums of them, beside the rounding of the type they are given in."""


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

    Examples
    --------
    >>> likelihood = nb.Categorical(3)
    >>> likelihood.targets(np.array([0, 2])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    >>> round(likelihood.log_prob(np.array([1.0, 0.0, 0.0]), np.zeros(3)).item(), 3)
    -1.099
    """

    num_outputs: int = eqx.field(static=True)
    curvature_structure: ClassVar = "softmax"

    def __init__(self, num_classes: int):
        check_at_least("num_classes", num_classes, 2)
        self.num_outputs = int(num_classes)

    def targets(self, y: AnyArray) -> Float[Array, "n c"]:
        """Return targets (n c) from class indices (n,) or soft targets (n c), rows summing to 1.

        Raises
        ------
        ValueError
            If y is empty, not finite or of another shape, a class index is out of range, a row is
            not a distribution, or only one class occurs.

        Notes
        -----
        Soft targets may leave the simplex by 1e-6, or by the rounding of their type if that is
        more: they are clipped to it, and rows that do not sum to 1 are divided by their sum.
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
            targets = one_hot(values, c)
        elif values.ndim == 2 and values.shape[1] == c:
            targets = _rows_on_simplex(values)
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
        """Return target − softmax(f), with all digits where one class is nearly certain."""
        first = jnp.arange(f.shape[0]) == jnp.argmax(f)
        odds = jnp.exp(f - jnp.max(f))
        others = jnp.sum(jnp.where(first, 0, odds))
        p = odds / (1 + others)
        complement = jnp.where(first, others / (1 + others), 1 - p)
        return target * complement - (1 - target) * p

    def curvature(self, f: Float[Array, "c"]) -> Float[Array, "c c"]:
        """Return diag(p) − p pᵀ with p = softmax(f)."""
        p = jax.nn.softmax(f)
        return jnp.diag(p) - jnp.outer(p, p)

    def curvature_weights(self, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """Return p = softmax(f)."""
        return jax.nn.softmax(f)

    def curvature_product(
        self, f: Float[Array, "c"], vector: Float[Array, "c"]
    ) -> Float[Array, "c"]:
        """Return p ∘ (v − p·v) with p = softmax(f)."""
        p = jax.nn.softmax(f)
        return p * (vector - jnp.dot(p, vector))

    def saturated(self, targets: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Return log targets, with mean 0 over the classes of a point."""
        require_reachable(
            bool(jnp.all(targets > 0)),
            targets="one-hot targets",
            remedy="label smoothing (smooth_labels)",
        )
        logits = jnp.log(targets)
        return logits - jnp.mean(logits, axis=1, keepdims=True)

    def identified(self, dtype: jnp.dtype) -> Float[Array, "c c"]:
        """I − 11ᵀ/c: a logit shift common to all classes changes nothing.

        Raises
        ------
        ValueError
            If these c² numbers do not fit memory.
        """
        c = self.num_outputs
        check_memory("a projector between classes", c, c, dtype, num_matrices=2)
        return jnp.eye(c, dtype=dtype) - jnp.full((c, c), 1 / c, dtype=dtype)

    def score_noise(self, key: Key, f: Float[Array, "c"]) -> Float[Array, "c"]:
        """Return onehot(y*) − p, y* ~ Categorical(p): a resampled label minus its expectation."""
        label = jax.nn.one_hot(self.sample(key, f), f.shape[0], dtype=f.dtype)
        return label - jax.nn.softmax(f)

    def sample(self, key: Key, f: Float[Array, "c"]) -> Array:
        """Return a class index drawn with probabilities softmax(f)."""
        return jax.random.categorical(key, f)

    def settings(self) -> dict[str, str | int | float]:
        """Name and parameters."""
        return {"name": "Categorical", "num_outputs": self.num_outputs}


class Bernoulli(Likelihood):
    """Two classes with one logit f: P(y = 1) = σ(f) = 1 / (1 + exp(−f)).

    With kernel 2K it is `Categorical` with two classes and kernel K: f = f₂ − f₁.

    Examples
    --------
    >>> likelihood = nb.Bernoulli()
    >>> likelihood.targets(np.array([0, 1])).tolist()
    [[0.0], [1.0]]
    >>> likelihood.curvature(np.zeros(1)).item()
    0.25
    """

    num_outputs: int = eqx.field(static=True, default=1, init=False)
    curvature_structure: ClassVar = "diagonal"

    def targets(self, y: AnyArray) -> Float[Array, "n 1"]:
        """Return targets (n 1) from labels 0 and 1, or from probabilities of the label 1.

        Raises
        ------
        ValueError
            If y is empty, not finite or of another shape than (n,) or (n, 1), a value lies outside
            [0, 1] by more than 1e-6 or the rounding of its type, or all are 0 or all are 1.
        """
        values = single_output("y", y)
        targets = np.clip(values, 0, 1)
        outside = np.abs(values - targets)
        if outside.max() > _tolerance(y):
            worst = np.asarray(values).ravel()[outside.argmax()]
            raise ValueError(
                "y must hold labels 0 and 1, or probabilities of the label 1 between 0 and 1, "
                f"but holds {worst:.9g}."
            )
        if targets.min() == targets.max() and targets.min() in (0, 1):
            raise ValueError(
                f"y holds one class only (class {targets.min():g}); at least two are needed."
            )
        return jnp.asarray(targets, dtype=jnp.result_type(float))

    def log_prob(self, target: Float[Array, "1"], f: Float[Array, "1"]) -> Float[Array, ""]:
        """Return target · log σ(f) + (1 − target) · log σ(−f): minus the cross-entropy."""
        return jnp.sum(target * f - jax.nn.softplus(f))

    def score(self, target: Float[Array, "1"], f: Float[Array, "1"]) -> Float[Array, "1"]:
        """Return target − σ(f), with all digits where a label is nearly certain."""
        return target * jax.nn.sigmoid(-f) - (1 - target) * jax.nn.sigmoid(f)

    def curvature(self, f: Float[Array, "1"]) -> Float[Array, "1 1"]:
        """σ(f) σ(−f)."""
        return (jax.nn.sigmoid(f) * jax.nn.sigmoid(-f))[None]

    def curvature_product(
        self, f: Float[Array, "1"], vector: Float[Array, "1"]
    ) -> Float[Array, "1"]:
        """σ(f) σ(−f) · vector."""
        return jax.nn.sigmoid(f) * jax.nn.sigmoid(-f) * vector

    def saturated(self, targets: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
        """Return the logit of the targets."""
        require_reachable(
            bool(jnp.all((targets > 0) & (targets < 1))),
            targets="labels 0 and 1",
            remedy="label smoothing (targets between 0 and 1)",
        )
        return jnp.log(targets) - jnp.log1p(-targets)

    def score_noise(self, key: Key, f: Float[Array, "1"]) -> Float[Array, "1"]:
        """Return y* − σ(f) with y* ~ Bernoulli(σ(f)): a resampled label minus its expectation."""
        p = jax.nn.sigmoid(f)
        return jax.random.bernoulli(key, p).astype(f.dtype) - p

    def sample(self, key: Key, f: Float[Array, "1"]) -> Array:
        """Return 1 with probability σ(f), else 0."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(f[0])).astype(int)

    def settings(self) -> dict[str, str | int | float]:
        """Name."""
        return {"name": "Bernoulli", "num_outputs": 1}


def _rows_on_simplex(values: np.ndarray) -> np.ndarray:
    """Return rows of probabilities that sum to 1, of rows that do but for rounding."""
    given = values.astype(float)
    clipped = np.clip(given, 0, 1)
    sums = clipped.sum(axis=1, keepdims=True)
    wrong = np.maximum(np.abs(sums - 1), np.abs(clipped - given).max(axis=1, keepdims=True))
    if wrong.max() > _tolerance(values):
        row = int(wrong.argmax())
        raise ValueError(
            "soft targets y must be nonnegative with rows that sum to 1, but row "
            f"{row} holds {values[row].min():.9g} and sums to {values[row].sum(dtype=float):.9g}."
        )
    return np.where(np.abs(sums - 1) > 4 * np.finfo(float).eps, clipped / sums, clipped)


def _tolerance(values: AnyArray) -> float:
    """Largest error of a probability, and of a sum of them, that their type may explain."""
    rounding = jnp.finfo(values.dtype).eps if jnp.issubdtype(values.dtype, jnp.floating) else 0
    return max(TOLERANCE, float(rounding))


@typed
def smooth_labels(
    y: Int[AnyArray, "n"], num_classes: int, *, label_smoothing: float
) -> Float[Array, "n c"]:
    """Return soft targets (1 − ε) onehot(y) + ε/c: every class has positive probability.

    Parameters
    ----------
    y
        Class indices.
    num_classes
        Number of classes c ≥ 2.
    label_smoothing
        ε, between 0 and 1 (exclusive).

    Raises
    ------
    ValueError
        If a class index, `num_classes` or ε is out of range, or only one class occurs.

    References
    ----------
    Szegedy et al. 2016, arXiv 1512.00567, §7.

    Examples
    --------
    >>> targets = nb.smooth_labels(np.array([0, 1]), 2, label_smoothing=0.5)
    >>> targets.tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    check_fraction("label_smoothing", label_smoothing)
    onehot = Categorical(num_classes).targets(y)
    return (1 - label_smoothing) * onehot + label_smoothing / num_classes
