"""Gaussian processes with the network's kernel: exact regression, variational classification.

Regression is GPJax's exact posterior. GPJax has no categorical likelihood, so classification is a
variational approximation of our own: q(f) = Π_c N(m_c, (K⁻¹ + Λ_c)⁻¹) with diagonal Λ_c, the form
the best Gaussian takes if it is independent between classes. At the optimum

    m = K α,  α = E_q[Y − softmax(f)],  Λ_c = E_q[p_c (1 − p_c)].

Every iteration factors the covariances once, takes several Newton-like steps in the mean and then
replaces Λ (the natural-gradient step of length 1). The mean steps use the softmax coupling between
classes with weights Λ, so that a logit shift common to all classes, along which the likelihood is
flat, goes to its prior mean at once. Expectations are means over a fixed quasi-Monte-Carlo set, so
the iteration is deterministic.

References
----------
Rasmussen & Williams 2006, §2.2. Opper & Archambeau 2009, Neural Computation 21 (the form of Λ).
Khan & Lin 2017, arXiv 1703.04265 (the updates). Pinder & Dodd 2022, JOSS 7, 4455 (GPJax).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm, qmc

from ntkbayes._checks import check_choice, check_positive
from ntkbayes._linalg import covariance_factor
from ntkbayes._problem import TrainingSet, checked_inputs, prior_kernel, training_set
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.likelihoods import Categorical, Gaussian, Likelihood
from ntkbayes.networks import Network
from ntkbayes.predictors import Draws, GaussianPredictor, Predictor
from ntkbayes.solvers import SoftmaxHessian, softmax_hessian

__all__ = ["GPClassification", "GPRegression", "gp_posterior"]

NUM_QMC_POINTS = 256
MAX_ITERATIONS = 100
MEAN_STEPS = 5


class GPRegression(GaussianPredictor):
    """The exact GP posterior, held by GPJax; one per output, sharing the kernel."""

    likelihood: Gaussian  # pyright: ignore[reportIncompatibleVariableOverride]
    network: Network
    train: TrainingSet
    prior_precision: float
    kernel: str = eqx.field(static=True)
    posteriors: tuple[Any, ...]

    def mean(self, x: AnyArray) -> Float[Array, "m c"]:
        """Posterior mean of the latent function, target units."""
        x_test = checked_inputs(self.train, x)
        means = [posterior(x_test).mean for posterior in self.posteriors]
        return jnp.stack([mean.reshape(-1) for mean in means], axis=1)

    def covariance(self, x: AnyArray) -> Float[Array, "m c m c"]:
        """Posterior covariance, zero between outputs; noise excluded."""
        eye = jnp.eye(self.likelihood.num_outputs, dtype=self.train.x.dtype)
        return jnp.einsum("ij,kl->ikjl", self._covariance(x), eye)

    def variance(self, x: AnyArray) -> Float[Array, "m c"]:
        """Diagonal of `covariance`."""
        diagonal = jnp.diagonal(self._covariance(x))
        return jnp.tile(diagonal[:, None], (1, self.likelihood.num_outputs))

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw functions jointly over the rows of x."""
        mean = self.mean(x)
        factor = covariance_factor(self._covariance(x), name="the posterior covariance")
        noise = jax.random.normal(key, (num_draws, *mean.shape), mean.dtype)
        progress(1.0)
        return Draws(mean[None] + jnp.einsum("ij,sjc->sic", factor, noise), {})

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "gp",
            "approximation": "exact",
            "prior_precision": self.prior_precision,
            "kernel": self.kernel,
            **self.network.settings(),
        }

    def _covariance(self, x: AnyArray) -> Float[Array, "m m"]:
        return self.posteriors[0](checked_inputs(self.train, x)).covariance()


class GPClassification(Predictor):
    """The variational softmax GP, Gaussian and independent between classes; with its ELBO in nats.

    Correlations between the logits of different classes, which the true posterior has, are absent.
    """

    likelihood: Categorical  # pyright: ignore[reportIncompatibleVariableOverride]
    network: Network
    train: TrainingSet
    prior_precision: float
    kernel: str = eqx.field(static=True)
    a: Float[Array, "n c"]
    hessian: SoftmaxHessian
    elbo: Float[Array, ""]
    num_iterations: int

    def moments(self, x: AnyArray) -> tuple[Float[Array, "m c"], Float[Array, "c m m"]]:
        """Mean, and covariance of each class: K** − K*ᵀ (K + Λ_c⁻¹)⁻¹ K*."""
        x_test = checked_inputs(self.train, x)
        k_cross, k_test = self._prior(self.train.x, x_test), self._prior(x_test)
        return k_cross.T @ self.a, k_test[None] - self.hessian.explained(k_cross)

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw functions jointly over the rows of x."""
        mean, covariances = self.moments(x)
        name = "the variational covariance"
        factors = jnp.stack([covariance_factor(cov, name=name) for cov in covariances])
        noise = jax.random.normal(key, (num_draws, *mean.shape), mean.dtype)
        progress(1.0)
        return Draws(mean[None] + jnp.einsum("cij,sjc->sic", factors, noise), {})

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "gp",
            "approximation": "variational, Gaussian, independent between classes",
            "prior_precision": self.prior_precision,
            "kernel": self.kernel,
            "elbo": float(self.elbo),
            "num_iterations": self.num_iterations,
            **self.network.settings(),
        }

    def _prior(self, x1: Array, x2: Array | None = None) -> Array:
        return prior_kernel(
            self.network, x1, x2, prior_precision=self.prior_precision, kind=self.kernel
        )


@typed
def gp_posterior(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float | int,
    kernel: str = "ntk",
    tolerance: float = 1e-4,
    progress: Progress = silent,
) -> GPRegression | GPClassification:
    """Condition GP(0, K) on the data: exactly for `Gaussian`, variationally for `Categorical`.

    Parameters
    ----------
    network, likelihood, x, y
        The model and its training data, as in `ntkbayes.ntk_ensemble`.
    prior_precision
        λ > 0; the prior covariance is kernel / λ.
    kernel
        ``"ntk"`` or ``"nngp"``.
    tolerance
        Classification only: largest change of α or Λ (both in units of probability) in the last
        iteration. The steps shrink about threefold from one to the next, so it bounds the distance
        from the optimum too; 1e-4 is well below the error of the quadrature.
    progress
        Called after every variational step.

    Raises
    ------
    ValueError
        If data or settings are out of range, or the variational iteration does not converge.
    """
    check_choice("kernel", kernel, ("ntk", "nngp"))
    check_positive("prior_precision", prior_precision)
    check_positive("tolerance", tolerance)
    train = training_set(likelihood, x, y)
    shared = (network, train, float(prior_precision), kernel)
    match likelihood:
        case Gaussian():
            # Imported here because importing GPJax starts JAX's backend, after which a user
            # could no longer choose devices.
            from ntkbayes.posteriors._gpjax import condition

            return GPRegression(likelihood, *shared, condition(likelihood, *shared))
        case Categorical():
            k = prior_kernel(network, train.x, prior_precision=float(prior_precision), kind=kernel)
            fit = _fit_variational(k, train.targets, tolerance, progress)
            return GPClassification(likelihood, *shared, *fit)
        case _:
            raise ValueError(f"no GP posterior for the likelihood {type(likelihood).__name__}.")


def _qmc_normals(num_outputs: int) -> np.ndarray:
    """Quasi-Monte-Carlo standard normal points (q c), symmetrised so that their mean is zero."""
    sobol = qmc.Sobol(num_outputs, rng=np.random.default_rng(0)).random(NUM_QMC_POINTS // 2)
    half = norm.ppf(np.clip(sobol, 1e-9, 1 - 1e-9))
    return np.concatenate([half, -half])


def _fit_variational(
    k: Array, targets: Array, tolerance: float, progress: Progress
) -> tuple[Array, SoftmaxHessian, Array, int]:
    points = jnp.asarray(_qmc_normals(targets.shape[1]), dtype=k.dtype)
    a, weights = jnp.zeros_like(targets), jnp.full_like(targets, 1 / targets.shape[1])
    rate, change, change_before = 1.0, np.inf, np.inf
    for iteration in range(1, MAX_ITERATIONS + 1):
        hessian = softmax_hessian(k, weights)
        a_new, weights_new, elbo = _variational_step(k, targets, a, hessian, points)
        step = weights_new - weights
        change = float(jnp.maximum(jnp.abs(a_new - a).max(), jnp.abs(step).max()))
        a = a_new
        if change < tolerance:
            progress(1.0)
            return a, hessian, elbo, iteration
        rate = max(0.1, rate / 2) if change > change_before else min(1.0, 1.2 * rate)
        weights, change_before = weights + rate * step, change
        progress(min(0.95, iteration / 25))
    raise ValueError(
        f"the variational GP did not converge in {MAX_ITERATIONS} iterations: the last change is "
        f"{change:.1e}, the tolerance {tolerance:.1e}; use a larger prior_precision."
    )


@eqx.filter_jit
def _variational_step(
    k: Array, targets: Array, a: Array, hessian: SoftmaxHessian, points: Array
) -> tuple[Array, Array, Array]:
    """Return new mean coefficients, new Λ, and the ELBO at the new mean and old Λ."""
    variance = hessian.variance(k)
    deviations = jnp.sqrt(jnp.maximum(variance, 0))[None] * points[:, None, :]

    def mean_step(pair: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        mean, a = pair
        r = targets - jax.nn.softmax(mean[None] + deviations).mean(axis=0) - a
        step = r - hessian.dual((k @ r)[None])[0]
        return (mean + k @ step, a + step), None

    (mean, a), _ = jax.lax.scan(mean_step, (k @ a, a), None, length=MEAN_STEPS)
    p = jax.nn.softmax(mean[None] + deviations)
    log_p = jax.nn.log_softmax(mean[None] + deviations)
    # tr K⁻¹ (K⁻¹ + Λ)⁻¹ = n − tr Λ (K⁻¹ + Λ)⁻¹ in the divergence from the prior.
    divergence = jnp.sum(hessian.log_dets) - jnp.sum(hessian.weights * variance) + jnp.vdot(a, mean)
    elbo = jnp.sum(targets[None] * log_p, axis=2).mean(axis=0).sum() - 0.5 * divergence
    return a, jnp.mean(p * (1 - p), axis=0), elbo
