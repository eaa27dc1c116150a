"""Laplace approximation in function space, with the full softmax block between classes.

Prior f ~ GP(0, K ⊗ I_c), mode f̂ = K a, a = s(f̂), W the curvature at the mode. The approximation is
N(f̂, (K⁻¹ + W)⁻¹) at the training points, extended to test points by the prior's conditional:

    mean        K(x, X) a,
    covariance  K(x, x') − K(x, X) (K + W⁻¹)⁻¹ K(X, x').

For a Gaussian likelihood it is the exact posterior.

References
----------
Rasmussen & Williams 2006, §2.2 and §3.5, algorithms 3.3, 3.4.
"""

from contextlib import nullcontext
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._arrays import is_traced
from ntkbayes._checks import check_choice, check_positive
from ntkbayes._linalg import covariance_factor, extend_factor, repeated_rows
from ntkbayes._problem import (
    TrainingSet,
    check_draws,
    checked_inputs,
    kernel_name,
    prior_kernel,
    training_set,
    warn_of_hidden_noise,
)
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Network
from ntkbayes.predictors import Draws, GaussianPredictor
from ntkbayes.solvers import (
    Hessian,
    default_tolerance,
    find_mode,
    hessian_at,
    require_converged,
)

__all__ = ["LaplacePosterior", "laplace"]


class LaplacePosterior(GaussianPredictor):
    """A Gaussian posterior approximation, with its log marginal likelihood in nats.

    Attributes
    ----------
    a, hessian
        The mode's coefficients, and the factorised Hessian there, which is float64 whatever JAX's
        default: save and load it inside ``jax.enable_x64(True)``.
    error_bound
        How far the mode may be from the exact one, in standard deviations √K(x, x) of the prior at
        any input; in the ``stats`` of every draw (`ntkbayes.solvers.certificate`).
    """

    likelihood: Likelihood
    network: Network
    train: TrainingSet
    prior_precision: float
    kernel: str = eqx.field(static=True)
    a: Float[Array, "n c"]
    hessian: Hessian
    log_marginal_likelihood: Float[Array, ""]
    error_bound: Float[Array, ""]

    def mean(self, x: AnyArray) -> Float[Array, "m c"]:
        """K(x, X) a, in latent units."""
        return self._prior(checked_inputs(self.train, x), self.train.x) @ self.a

    def covariance(self, x: AnyArray) -> Float[Array, "m c m c"]:
        """Posterior covariance between points and classes; memory (m c)² numbers.

        From kernels in the dtype of x, by float64; while x is traced in JAX's default precision
        by that, which loses what is small beside eps times the prior variance over the noise.
        """
        x_test = checked_inputs(self.train, x)
        k_cross, k_test = self._prior(self.train.x, x_test), self._prior(x_test)
        # Derivatives are transposed where float64 is no longer enabled.
        traced = is_traced(k_test)
        dtype = k_test.dtype if traced else jnp.float64
        with nullcontext() if traced else jax.enable_x64(True):
            hessian, *kernels = jax.tree.map(
                lambda leaf: leaf.astype(dtype), (self.hessian, k_cross, k_test)
            )
            found = hessian.covariance(*kernels, self.likelihood.num_outputs)
            return found.astype(k_test.dtype)

    def variance(self, x: AnyArray) -> Float[Array, "m c"]:
        """Diagonal of `covariance`; 0 where rounding leaves less."""
        return jnp.maximum(jnp.einsum("icic->ic", self.covariance(x)), 0)

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw functions jointly over the rows of x by Matheron's rule.

        A prior draw f₀ and score noise ξ ~ N(0, W) give f̂ + f₀ − K(x, X)(I + W K)⁻¹(W f₀ − ξ),
        which has the posterior's moments exactly and needs prior covariances (n + m)² only.
        """
        x_test = checked_inputs(self.train, x)
        check_draws("num_draws", num_draws, self.train, x_test)
        key_prior, key_noise = jax.random.split(key)
        k_cross = self._prior(self.train.x, x_test)
        name = kernel_name(self.network, self.kernel)
        k_train = self._prior(self.train.x)
        factor = covariance_factor(k_train, name=name)
        known = repeated_rows(self.train.x, x_test)
        cross, conditional = extend_factor(
            factor, k_cross, self._prior(x_test), known=known, name=name
        )
        n, c = self.train.targets.shape
        z = jax.random.normal(key_prior, (num_draws, n + len(x_test), c), factor.dtype)
        prior = jnp.einsum("ij,sjc->sic", factor, z[:, :n])
        prior_test = jnp.einsum("ij,sjc->sic", cross, z[:, :n])
        prior_test = prior_test + jnp.einsum("ij,sjc->sic", conditional, z[:, n:])
        noise = jax.random.normal(key_noise, (num_draws, n, c), factor.dtype)
        progress(0.5)
        with jax.enable_x64(True):
            weights = _matheron_weights(self.hessian, prior, noise)
        moved = prior_test - jnp.einsum("nm,snc->smc", k_cross, weights)
        progress(1.0)
        stats = {"error_bound": jnp.broadcast_to(self.error_bound, num_draws)}
        return Draws(self.mean(x_test)[None] + moved, stats)

    @property
    def is_posterior(self) -> bool:
        """Exact for a Gaussian likelihood, else the Laplace approximation."""
        return True

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "laplace",
            "prior_precision": self.prior_precision,
            "kernel": self.kernel,
            "log_marginal_likelihood": float(self.log_marginal_likelihood),
            **self.network.settings(),
        }

    def _prior(self, x1: Array, x2: Array | None = None) -> Array:
        return prior_kernel(
            self.network, x1, x2, prior_precision=self.prior_precision, kind=self.kernel
        )


@typed
def laplace(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float,
    kernel: str = "ntk",
) -> LaplacePosterior:
    """Approximate the posterior of the infinitely wide network around its mode.

    Parameters
    ----------
    network, likelihood, x, y
        The model and its training data, as in `ntkbayes.ntk_ensemble`.
    prior_precision
        λ > 0; the prior covariance is kernel / λ.
    kernel
        ``"ntk"`` (Bayes over the linearised weights) or ``"nngp"``.

    Raises
    ------
    ValueError
        If the network has no infinite-width kernels, the data do not fit the likelihood, a setting
        is out of range, or the mode may be off by more than 0.05 latent units; more than 1e-3, or
        1e-2 in float32, is a warning.

    Notes
    -----
    The log marginal likelihood is log p(y | f̂) − ½ f̂ᵀ K⁻¹ f̂ − ½ log det(I + K W), in nats; R&W eq.
    3.44.

    Examples
    --------
    >>> posterior = nb.laplace(*model, prior_precision=1.0)
    >>> posterior.mean(data.x_test).shape, posterior.variance(data.x_test).shape
    ((300, 2), (300, 2))
    >>> round(posterior.log_marginal_likelihood.item(), 1)
    -11.1
    """
    check_choice("kernel", kernel, ("ntk", "nngp"))
    check_positive("prior_precision", prior_precision)
    train = training_set(likelihood, x, y)
    k = prior_kernel(network, train.x, prior_precision=float(prior_precision), kind=kernel)
    warn_of_hidden_noise(likelihood, jnp.diagonal(k))
    tolerance = default_tolerance(k.dtype)
    mode = find_mode(k, likelihood, train.targets, tolerance=tolerance)
    require_converged(mode, tolerance=tolerance)
    with jax.enable_x64(True):
        wide, a = k.astype(jnp.float64), mode.a.astype(jnp.float64)
        targets, f = train.targets.astype(jnp.float64), wide @ a
        hessian = hessian_at(wide, likelihood, f)
        fit = jnp.sum(jax.vmap(likelihood.log_prob)(targets, f))
        log_marginal_likelihood = fit - 0.5 * jnp.vdot(a, f) - 0.5 * hessian.log_det
        log_marginal_likelihood = log_marginal_likelihood.astype(k.dtype)
    return LaplacePosterior(
        likelihood, network, train, float(prior_precision), kernel, mode.a, hessian,
        log_marginal_likelihood, mode.error_bound,
    )  # fmt: skip


@eqx.filter_jit
def _matheron_weights(
    hessian: Hessian, f0: Float[Array, "s n c"], noise: Float[Array, "s n c"]
) -> Float[Array, "s n c"]:
    """(I + W K)⁻¹ (W f₀ − S ε) = (K + W⁻¹)⁻¹ f₀ − (I + W K)⁻¹ S ε of each draw; S Sᵀ = W."""
    wide = [each.astype(hessian.inverse.dtype) for each in (f0, noise)]
    return (hessian.dual(wide[0]) - hessian.dual_root(wide[1])).astype(f0.dtype)
