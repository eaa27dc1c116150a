"""The Gaussian case: the ensemble is a Gaussian process with closed-form moments.

With A(x) = Θ(x, X) φ(Θ), φ(e) = (1 − exp(−t (e/σ² + λ))) / (e + λσ²) applied to eigenvalues,

    mean        A y,
    covariance  Q₀(x, x') − A Q₀(X, x') − Q₀(x, X) Aᵀ + A (Q₀(X, X) + σ²[perturbed]) Aᵀ,

where Q₀ is the covariance of the initial function: Q, Θ/λ or 0.

References
----------
Lee et al. 2019, arXiv 1902.06720, eqs. 14-16 (λ = 0, σ² = 1). Matheron's rule makes initial
``"ntk"`` with perturbed targets the exact GP posterior (He et al. 2020, arXiv 2007.05864).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._linalg import covariance_factor
from ntkbayes._problem import TrainingSet, checked_inputs
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent
from ntkbayes.ensembles.initial import initial_kernel
from ntkbayes.likelihoods import Gaussian
from ntkbayes.networks import WideNetwork
from ntkbayes.predictors import Draws, GaussianPredictor

__all__ = ["RegressionEnsemble", "regression_ensemble"]


class RegressionEnsemble(GaussianPredictor):
    """A Gaussian ensemble; outputs are independent and share their covariance."""

    likelihood: Gaussian  # pyright: ignore[reportIncompatibleVariableOverride]
    network: WideNetwork
    train: TrainingSet
    prior_precision: float
    initial: str = eqx.field(static=True)
    perturb_targets: bool = eqx.field(static=True)
    time: float
    k_initial: Float[Array, "n n"]
    smoother: Float[Array, "n n"]

    def mean(self, x: AnyArray) -> Float[Array, "m c"]:
        """Mean of the trained function, target units; noise excluded."""
        ntk = self.network.kernel(checked_inputs(self.train, x), self.train.x).ntk
        return ntk @ (self.smoother @ self.train.targets)

    def covariance(self, x: AnyArray) -> Float[Array, "m c m c"]:
        """Covariance of the trained function, squared target units; noise excluded."""
        eye = jnp.eye(self.likelihood.num_outputs, dtype=self.train.x.dtype)
        return jnp.einsum("ij,kl->ikjl", self._covariance(x), eye)

    def variance(self, x: AnyArray) -> Float[Array, "m c"]:
        """Diagonal of `covariance`."""
        diagonal = jnp.diagonal(self._covariance(x))
        return jnp.tile(diagonal[:, None], (1, self.likelihood.num_outputs))

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw trained functions jointly over the rows of x."""
        mean, covariance = self.mean(x), self._covariance(x)
        noise = jax.random.normal(key, (num_draws, *mean.shape), mean.dtype)
        if self.initial == "zero" and not self.perturb_targets:
            return Draws(jnp.broadcast_to(mean, noise.shape), {})
        factor = covariance_factor(covariance, name="the ensemble's covariance")
        progress(1.0)
        return Draws(mean[None] + jnp.einsum("ij,sjc->sic", factor, noise), {})

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
            "perturb_targets": self.perturb_targets,
            "time": str(self.time),
            **self.network.settings(),
        }

    def _covariance(self, x: AnyArray) -> Float[Array, "m m"]:
        x_test = checked_inputs(self.train, x)
        cross = self.network.kernel(x_test, self.train.x)
        A = cross.ntk @ self.smoother
        q_cross = initial_kernel(cross, self.initial, self.prior_precision)
        q_test = initial_kernel(self.network.kernel(x_test), self.initial, self.prior_precision)
        noise = self.likelihood.noise_variance if self.perturb_targets else 0.0
        spread = q_test - A @ q_cross.T - q_cross @ A.T + A @ self.k_initial @ A.T
        spread = spread + noise * A @ A.T
        return 0.5 * (spread + spread.T)


def regression_ensemble(
    network: WideNetwork,
    likelihood: Gaussian,
    train: TrainingSet,
    prior_precision: float,
    initial: str,
    perturb_targets: bool,
    *,
    time: float,
) -> RegressionEnsemble:
    """Diagonalise Θ once; cost n³."""
    kernel = network.kernel(train.x)
    eigenvalues, vectors = jnp.linalg.eigh(kernel.ntk)
    noise = likelihood.noise_variance
    ridge = eigenvalues + prior_precision * noise
    if not bool(jnp.all(ridge > 0)):
        raise ValueError(
            "the NTK is singular and prior_precision is zero: use prior_precision > 0, "
            "or remove repeated inputs."
        )
    decay = jnp.exp(-time * jnp.maximum(ridge, 0) / noise)
    smoother = (vectors * ((1 - decay) / ridge)[None, :]) @ vectors.T
    k_initial = initial_kernel(kernel, initial, prior_precision)
    return RegressionEnsemble(
        likelihood, network, train, prior_precision, initial, perturb_targets, time, k_initial,
        smoother,
    )  # fmt: skip
