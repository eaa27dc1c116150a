"""Gaussian processes with the network's kernel: exact regression, variational classification.

Regression is GPJax's exact posterior. GPJax has no categorical likelihood, so classification is a
variational approximation of our own: q(f) = Π_c N(m_c, (K⁻¹ + Λ_c)⁻¹) with diagonal Λ_c, the form
the best Gaussian takes if it is independent between classes. At the optimum

    m = K α,  α = E_q[Y − softmax(f)],  Λ_c = E_q[p_c (1 − p_c)],

iterated by conjugate-computation steps in the natural parameters (Λ, Λm). Expectations are means
over a fixed quasi-Monte-Carlo set, so the iteration is deterministic.

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
from jax.scipy.linalg import solve_triangular
from scipy.stats import norm, qmc

from ntkbayes._checks import check_choice, check_positive
from ntkbayes._linalg import cholesky, covariance_factor
from ntkbayes._problem import TrainingSet, checked_inputs, prior_kernel, training_set
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.likelihoods import Categorical, Gaussian, Likelihood
from ntkbayes.networks import Network
from ntkbayes.predictors import Draws, GaussianPredictor, Predictor

__all__ = ["GPClassification", "GPRegression", "gp_posterior"]

NUM_QMC_POINTS = 256
MAX_ITERATIONS = 100


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
    precision: Float[Array, "n c"]
    elbo: Float[Array, ""]
    num_iterations: int

    def moments(self, x: AnyArray) -> tuple[Float[Array, "m c"], Float[Array, "c m m"]]:
        """Mean, and covariance of each class: K** − K*ᵀ √Λ (I + √Λ K √Λ)⁻¹ √Λ K*."""
        x_test = checked_inputs(self.train, x)
        k_cross = self._prior(self.train.x, x_test)
        k_train, k_test = self._prior(self.train.x), self._prior(x_test)

        def one_class(precision: Array) -> Array:
            half = _half_inverse(k_train, precision) @ k_cross
            return k_test - half.T @ half

        return k_cross.T @ self.a, jax.lax.map(one_class, self.precision.T)

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
    progress
        Called after every variational step.

    Raises
    ------
    ValueError
        If data or settings are out of range, or the variational iteration does not converge.
    """
    check_choice("kernel", kernel, ("ntk", "nngp"))
    check_positive("prior_precision", prior_precision)
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
            fit = _fit_variational(k, train.targets, progress)
            return GPClassification(likelihood, *shared, *fit)
        case _:
            raise ValueError(f"no GP posterior for the likelihood {type(likelihood).__name__}.")


def _half_inverse(k: Array, precision: Array) -> Array:
    """R with RᵀR = (K + Λ⁻¹)⁻¹, by the Cholesky factor of I + √Λ K √Λ."""
    root = jnp.sqrt(precision)
    factor = cholesky(
        jnp.eye(len(k), dtype=k.dtype) + root[:, None] * k * root[None, :],
        name="I + √Λ K √Λ",
        remedy="use float64 or a larger prior_precision",
    )
    return solve_triangular(factor, jnp.diag(root), lower=True)


def _qmc_normals(num_outputs: int) -> np.ndarray:
    """Quasi-Monte-Carlo standard normal points (q c), symmetrised so that their mean is zero."""
    sobol = qmc.Sobol(num_outputs, rng=np.random.default_rng(0)).random(NUM_QMC_POINTS // 2)
    half = norm.ppf(np.clip(sobol, 1e-9, 1 - 1e-9))
    return np.concatenate([half, -half])


def _fit_variational(
    k: Array, targets: Array, progress: Progress
) -> tuple[Array, Array, Array, int]:
    points = jnp.asarray(_qmc_normals(targets.shape[1]), dtype=k.dtype)
    # Shifts common to all classes of a point converge slowly; the ELBO is flat along them.
    tolerance = max(1e-5, float(jnp.finfo(k.dtype).eps) ** 0.5)
    a = jnp.zeros_like(targets)
    precision = jnp.full_like(targets, (targets.shape[1] - 1) / targets.shape[1] ** 2)
    rate, change, change_before = 1.0, np.inf, np.inf
    for iteration in range(1, MAX_ITERATIONS + 1):
        a_new, precision_new, elbo = _variational_step(k, targets, a, precision, points)
        step_a, step_precision = a_new - a, precision_new - precision
        change = float(jnp.maximum(jnp.abs(step_a).max(), jnp.abs(step_precision).max()))
        if change < tolerance:
            progress(1.0)
            return a, precision, elbo, iteration
        rate = max(0.1, rate / 2) if change > change_before else min(1.0, 1.2 * rate)
        a, precision = a + rate * step_a, precision + rate * step_precision
        change_before = change
        progress(min(0.95, iteration / 25))
    raise ValueError(
        f"the variational GP did not converge in {MAX_ITERATIONS} iterations: the last change is "
        f"{change:.1e}, the tolerance {tolerance:.1e}; use a larger prior_precision."
    )


@eqx.filter_jit
def _variational_step(
    k: Array, targets: Array, a: Array, precision: Array, points: Array
) -> tuple[Array, Array, Array]:
    """One natural-gradient step of length 1, and the ELBO before it."""

    def one_class(precision: Array) -> tuple[Array, Array]:
        half = _half_inverse(k, precision)
        half_k = half @ k
        variance = jnp.diagonal(k) - jnp.sum(half_k**2, axis=0)
        diagonal = jnp.diagonal(half) / jnp.sqrt(precision)  # of the inverse Cholesky factor
        kl = -jnp.sum(jnp.log(diagonal)) - 0.5 * jnp.sum(precision * variance)
        return variance, kl

    variance, kl = jax.lax.map(one_class, precision.T)
    mean, variance = k @ a, variance.T
    f = mean[None] + jnp.sqrt(variance)[None] * points[:, None, :]
    p = jax.nn.softmax(f)
    log_likelihood = jnp.sum(targets[None] * jax.nn.log_softmax(f), axis=2).mean(axis=0).sum()
    elbo = log_likelihood - jnp.sum(kl) - 0.5 * jnp.vdot(a, mean)

    precision_new = jnp.mean(p * (1 - p), axis=0)
    # Mean: Newton's step with the new precision, (K⁻¹ + Λ) m = E[Y − p] + Λ m₀; in α = K⁻¹ m.
    natural = targets - p.mean(axis=0) + precision_new * mean

    def solve_class(inputs: tuple[Array, Array]) -> Array:
        precision, b = inputs
        half = _half_inverse(k, precision)
        return b - half.T @ (half @ (k @ b))

    a_new = jax.lax.map(solve_class, (precision_new.T, natural.T)).T
    return a_new, precision_new, elbo
