"""What hyperparameters are chosen by, as functions JAX can differentiate.

The mode f̂ = K a*, a* = s(K a*), is found outside differentiation. One Newton step from there,

    a = a* + (I + W K)⁻¹ r,   r = s(K a*) − a* ≈ 0,

with a*, W and the K of the inverse held fixed does not move it, but has the mode's derivative

    da = (I + W K)⁻¹ dr,   dr = −W dK a* + ds,

by the implicit function theorem. With a Gaussian likelihood a = (K + σ² I)⁻¹ y at once, and
Laplace's approximation is exact.

References
----------
Rasmussen & Williams 2006, eq. 2.30, 3.44 and §5.5.1 (the implicit terms).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from scipy.stats import qmc

from ntkbayes._linalg import covariance_factor
from ntkbayes._problem import TrainingSet, prior_kernel
from ntkbayes._types import Array, Float
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.solvers import Hessian, default_tolerance, find_mode, hessian_at

__all__ = ["NUM_POINTS", "Model", "objective_and_gradient"]

NUM_POINTS = 256
"""Quasi-Monte-Carlo points for the predictive distribution of one validation point."""


class Model(eqx.Module):
    """What the hyperparameters belong to; see `ntkbayes.hyperparameters`."""

    network: WideNetwork
    likelihood: Likelihood
    prior_precision: float | Array
    kernel: str = eqx.field(static=True)

    def prior(self, x1: Array, x2: Array | None = None) -> Float[Array, "n m"]:
        """K between rows of x1 and x2."""
        return prior_kernel(
            self.network,
            x1,
            x2,
            prior_precision=self.prior_precision,  # pyright: ignore[reportArgumentType]
            kind=self.kernel,
        )

    def value(self, name: str) -> float | Array:
        """Return a hyperparameter by its name."""
        return getattr(self._owner(name), name)

    def replace(self, values: dict[str, Array] | dict[str, float]) -> "Model":
        """Return the model with other hyperparameters, by name."""

        def fields(model: Model) -> list:
            return [model.value(name) for name in values]

        return eqx.tree_at(fields, self, list(values.values()))

    def _owner(self, name: str) -> eqx.Module:
        match name:
            case "prior_precision":
                return self
            case "noise_variance":
                return self.likelihood
            case _:
                return self.network


class _Fit(NamedTuple):
    """Laplace's approximation, exact with Gaussian noise."""

    a: Float[Array, "n c"]
    f: Float[Array, "n c"]
    hessian: Hessian


def objective_and_gradient(
    log_values: dict[str, Array], model: Model, train: TrainingSet, validation: TrainingSet | None
) -> tuple[Float[Array, ""], dict[str, Array], Float[Array, ""]]:
    """Return what is minimised, its gradient by the logarithms, and the mode's latent error.

    In nats: minus the log marginal likelihood, or with validation points the negative log
    predictive probability summed over them.
    """
    a, latent_error = jnp.zeros_like(train.targets), jnp.zeros(())
    if not isinstance(model.likelihood, Gaussian):
        k = _prior_at(log_values, model, train)
        tolerance = default_tolerance(k.dtype)
        mode = find_mode(k, model.likelihood, train.targets, tolerance=tolerance)
        a, latent_error = mode.a, mode.latent_error
    value, gradient = _value_and_gradient(log_values, model, train, validation, a)
    return value, gradient, latent_error


def _changed(model: Model, log_values: dict[str, Array]) -> Model:
    return model.replace({name: jnp.exp(value) for name, value in log_values.items()})


@eqx.filter_jit
def _prior_at(log_values: dict[str, Array], model: Model, train: TrainingSet) -> Array:
    return _changed(model, log_values).prior(train.x)


@eqx.filter_jit
def _value_and_gradient(
    log_values: dict[str, Array],
    model: Model,
    train: TrainingSet,
    validation: TrainingSet | None,
    a: Float[Array, "n c"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    def objective(log_values: dict[str, Array]) -> Array:
        changed = _changed(model, log_values)
        fit = _fit(changed, train, a)
        if validation is None:
            return -_log_marginal_likelihood(changed, train, fit)
        return -jnp.sum(_log_predictive(changed, train, fit, validation))

    return jax.value_and_grad(objective)(log_values)


def _fit(model: Model, train: TrainingSet, mode: Float[Array, "n c"]) -> _Fit:
    k, likelihood = model.prior(train.x), model.likelihood
    if isinstance(likelihood, Gaussian):
        hessian = hessian_at(k, likelihood, train.targets)
        a = hessian.dual(train.targets[None])[0]
        return _Fit(a, k @ a, hessian)
    fixed = jax.lax.stop_gradient(k)
    at_mode = hessian_at(fixed, likelihood, fixed @ mode)
    r = jax.vmap(likelihood.score)(train.targets, k @ mode) - mode
    a = mode + r - at_mode.dual((fixed @ r)[None])[0]
    f = k @ a
    return _Fit(a, f, hessian_at(k, likelihood, f))


def _log_marginal_likelihood(model: Model, train: TrainingSet, fit: _Fit) -> Float[Array, ""]:
    """Return log p(y | f̂) − ½ f̂ᵀ a − ½ log det(I + K W)."""
    log_prob = jnp.sum(jax.vmap(model.likelihood.log_prob)(train.targets, fit.f))
    return log_prob - 0.5 * jnp.vdot(fit.a, fit.f) - 0.5 * fit.hessian.log_det


def _log_predictive(
    model: Model, train: TrainingSet, fit: _Fit, validation: TrainingSet
) -> Float[Array, "m"]:
    """Return log ∫ p(y | f) N(f; mean, covariance) df at every point, over all its outputs."""
    c = model.likelihood.num_outputs
    k_cross, k_test = model.prior(train.x, validation.x), model.prior(validation.x)

    def covariance(k_cross: Array, k_test: Array) -> Float[Array, "c c"]:
        return fit.hessian.covariance(k_cross[:, None], k_test[None, None], c)[0, :, 0, :]

    mean = k_cross.T @ fit.a
    covariances = jax.vmap(covariance)(k_cross.T, jnp.diagonal(k_test))
    if isinstance(model.likelihood, Gaussian):
        variance = jnp.diagonal(covariances, axis1=1, axis2=2) + model.likelihood.noise_variance
        scale = jnp.sqrt(variance)
        return jnp.sum(jax.scipy.stats.norm.logpdf(validation.targets, mean, scale), axis=1)
    normals = jnp.asarray(_qmc_normals(c), k_test.dtype)
    factors = jax.vmap(lambda s: covariance_factor(s, name="a predictive covariance"))(covariances)
    latent = mean[:, None, :] + jnp.einsum("mcd,qd->mqc", factors, normals)
    log_probs = jax.vmap(jax.vmap(model.likelihood.log_prob, (None, 0)))(validation.targets, latent)
    return jax.scipy.special.logsumexp(log_probs, axis=1) - jnp.log(len(normals))


def _qmc_normals(num_outputs: int):
    """Quasi-Monte-Carlo standard normal points (q c), always the same."""
    return qmc.MultivariateNormalQMC([0.0] * num_outputs, rng=0).random(NUM_POINTS)
