"""Gaussian processes with the network's kernel: exact where that is possible, else variational.

Regression is GPJax's exact posterior, or with inducing points its collapsed bound, in float64
whatever the dtype of the kernel. For the other likelihoods, and GPJax has none for classes, the
posterior is approximated by the best Gaussian that is independent between outputs
(`ntkbayes.posteriors.variational`), with or without inducing points.

References
----------
Rasmussen & Williams 2006, §2.2. Titsias 2009, AISTATS, eq. 9 (the collapsed bound). Pinder & Dodd
2022, JOSS 7, 4455 (GPJax).
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from ntkbayes._arrays import cast, is_traced, more_digits
from ntkbayes._checks import check_choice, check_positive
from ntkbayes._linalg import covariance_factor, extend_factor, naming_failure, repeated_rows
from ntkbayes._problem import (
    TrainingSet,
    check_draws,
    checked_inputs,
    kernel_name,
    prior_kernel,
    training_set,
    warn_of_hidden_noise,
)
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.networks import Network
from ntkbayes.posteriors.inducing import (
    Kernel,
    Projection,
    inducing_inputs,
    prior_variance,
    project,
)
from ntkbayes.posteriors.variational import (
    VariationalFit,
    check_variational_memory,
    fit_variational,
)
from ntkbayes.predictors import Draws, GaussianPredictor
from ntkbayes.solvers import default_tolerance

__all__ = ["GPRegression", "VariationalGP", "gp_posterior"]


class GPRegression(GaussianPredictor):
    """The GP posterior of a Gaussian likelihood, held by GPJax; one per output, sharing the kernel.

    Attributes
    ----------
    elbo
        The log marginal likelihood, with inducing points Titsias' bound on it; nats.
    """

    likelihood: Gaussian  # pyright: ignore[reportIncompatibleVariableOverride]
    network: Network
    train: TrainingSet
    prior_precision: float
    kernel: str = eqx.field(static=True)
    posteriors: tuple[Any, ...]
    num_inducing: int | None
    elbo: Float[Array, ""]

    def mean(self, x: AnyArray) -> Float[Array, "m c"]:
        """Posterior mean of the latent function, target units."""

        def means(posteriors: tuple[Any, ...], x: Array) -> Array:
            return jnp.stack([posterior(x).mean.reshape(-1) for posterior in posteriors], axis=1)

        return self._evaluate(means, x).astype(self.train.x.dtype)

    def covariance(self, x: AnyArray) -> Float[Array, "m c m c"]:
        """Posterior covariance, zero between outputs; noise excluded."""
        eye = jnp.eye(self.likelihood.num_outputs, dtype=self.train.x.dtype)
        return jnp.einsum("ij,kl->ikjl", self._covariance(x).astype(eye.dtype), eye)

    def variance(self, x: AnyArray) -> Float[Array, "m c"]:
        """Diagonal of `covariance`."""

        def diagonal(posteriors: tuple[Any, ...], x: Array) -> Array:
            variance = posteriors[0](x, covariance="diagonal").variance
            return jnp.maximum(variance.reshape(-1, 1), 0)  # which rounding may leave below

        variance = self._evaluate(diagonal, x).astype(self.train.x.dtype)
        return jnp.tile(variance, (1, self.likelihood.num_outputs))

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw functions jointly over the rows of x."""
        check_draws("num_draws", num_draws, self.train, checked_inputs(self.train, x))
        mean = self.mean(x)
        prior = partial(
            prior_kernel, self.network, prior_precision=self.prior_precision, kind=self.kernel
        )
        scale = prior_variance(prior, checked_inputs(self.train, x))
        with jax.enable_x64(True):
            covariance = self._covariance(x)
            factor = covariance_factor(
                covariance,
                name="the posterior covariance",
                scale=scale.astype(covariance.dtype),
                dtype=mean.dtype,
            ).astype(mean.dtype)
        noise = jax.random.normal(key, (num_draws, *mean.shape), mean.dtype)
        progress(1.0)
        return Draws(mean[None] + jnp.einsum("ij,sjc->sic", factor, noise), {})

    @property
    def is_posterior(self) -> bool:
        """Exact, or with inducing points the best approximation that these allow."""
        return True

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "gp",
            "approximation": "exact" if self.num_inducing is None else "inducing points",
            "prior_precision": self.prior_precision,
            "kernel": self.kernel,
            "elbo": float(self.elbo),
            "num_inducing": self.num_inducing,
            **self.network.settings(),
        }

    def _covariance(self, x: AnyArray) -> Float[Array, "m m"]:
        return self._evaluate(lambda posteriors, x: posteriors[0](x).covariance(), x)

    def _evaluate(
        self, function: Callable[[tuple[Any, ...], Array], Array], x: AnyArray
    ) -> Float[Array, "m ..."]:
        """Evaluate in float64; while x is traced in its own type, which derivatives keep."""
        x_test = checked_inputs(self.train, x)
        traced = is_traced(x_test)
        dtype = x_test.dtype if traced else jnp.float64
        with nullcontext() if traced else jax.enable_x64(True):
            return function(cast(self.posteriors, dtype), x_test.astype(dtype))


class VariationalGP(GaussianPredictor):
    """The variational posterior, Gaussian and independent between outputs; see `variational`.

    Correlations between the logits of different classes, which the true posterior has, are absent.
    """

    likelihood: Likelihood  # pyright: ignore[reportIncompatibleVariableOverride]
    network: Network
    train: TrainingSet
    prior_precision: float
    kernel: str = eqx.field(static=True)
    projection: Projection
    fit: VariationalFit

    @property
    def elbo(self) -> Float[Array, ""]:
        """The lower bound on the log marginal likelihood, nats."""
        return self.fit.elbo

    def mean(self, x: AnyArray) -> Float[Array, "m c"]:
        """φ(x)ᵀ μ, in latent units."""
        return self._features(checked_inputs(self.train, x)) @ self.fit.mean

    def covariance(self, x: AnyArray) -> Float[Array, "m c m c"]:
        """Posterior covariance, zero between outputs; memory (m c)² numbers."""
        _, covariances = self.moments(x)
        return jnp.einsum(
            "kij,kl->ikjl", covariances, jnp.eye(len(covariances), dtype=covariances.dtype)
        )

    def variance(self, x: AnyArray) -> Float[Array, "m c"]:
        """Diagonal of `covariance`."""
        x_test = checked_inputs(self.train, x)
        features = self._features(x_test)
        open_variance = prior_variance(self._prior, x_test) - jnp.sum(features**2, axis=1)
        explained = jnp.sum(self.fit.explained(features) ** 2, axis=1)
        return jnp.maximum(open_variance, 0)[:, None] + explained.T

    def moments(self, x: AnyArray) -> tuple[Float[Array, "m c"], Float[Array, "c m m"]]:
        """Mean, and covariance K** − φᵀ φ + φᵀ S_k φ of each output."""
        x_test = checked_inputs(self.train, x)
        features = self._features(x_test)
        open_covariance = self._prior(x_test) - features @ features.T
        explained = jax.vmap(lambda t: t.T @ t)(self.fit.explained(features))
        return features @ self.fit.mean, open_covariance[None] + explained

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw functions jointly over the rows of x: φᵀ v with v ~ q, and e from the prior."""
        x_test = checked_inputs(self.train, x)
        check_draws("num_draws", num_draws, self.train, x_test)
        key_inducing, key_open = jax.random.split(key)
        k_cross, k_test = self._prior(self.projection.z, x_test), self._prior(x_test)
        name = kernel_name(self.network, self.kernel)
        features, factor = extend_factor(
            self.projection.factor,
            k_cross,
            k_test,
            known=repeated_rows(self.projection.z, x_test),
            name=name,
        )
        shape = (num_draws, *self.fit.mean.shape)
        v = self.fit.draw(jax.random.normal(key_inducing, shape, factor.dtype))
        shape = (num_draws, len(x_test), shape[2])
        noise = jax.random.normal(key_open, shape, factor.dtype)
        progress(1.0)
        latent = jnp.einsum("ij,sjc->sic", features, v) + jnp.einsum("ij,sjc->sic", factor, noise)
        bound = jnp.broadcast_to(self.fit.error_bound, num_draws)
        return Draws(latent, {"error_bound": bound})

    @property
    def is_posterior(self) -> bool:
        """The variational approximation."""
        return True

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "gp",
            "approximation": "variational, Gaussian, independent between outputs",
            "prior_precision": self.prior_precision,
            "kernel": self.kernel,
            "elbo": float(self.fit.elbo),
            "num_inducing": len(self.projection.z),
            "num_iterations": self.fit.num_iterations,
            **self.network.settings(),
        }

    @property
    def _prior(self) -> Kernel:
        return partial(
            prior_kernel, self.network, prior_precision=self.prior_precision, kind=self.kernel
        )

    def _features(self, x_test: Array) -> Float[Array, "m k"]:
        k_cross = self._prior(self.projection.z, x_test)
        return solve_triangular(self.projection.factor, k_cross, lower=True).T


@bar_in_notebooks
@typed
def gp_posterior(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float,
    kernel: str = "ntk",
    inducing: int | AnyArray | None = None,
    tolerance: float | None = None,
    progress: Progress = silent,
) -> GPRegression | VariationalGP:
    """Condition GP(0, K) on the data: exactly for `Gaussian`, else variationally.

    Parameters
    ----------
    network, likelihood, x, y
        The model and its training data, as in `ntkbayes.ntk_ensemble`.
    prior_precision
        λ > 0; the prior covariance is kernel / λ.
    kernel
        ``"ntk"`` or ``"nngp"``.
    inducing
        Beyond a few thousand training points: a number M of inducing points, chosen greedily among
        the training inputs (`inducing_inputs`), or their inputs (M d). Memory falls from
        (3 c + 7) n² to 4 n M + 3 (c + 1) M² numbers, time from c n³ to c n M² per iteration. The
        ELBO says what they cost: it never exceeds that of all training points, which is None.
    tolerance
        Not for `Gaussian`: how far means and standard deviations may be from the variational
        optimum at the training points, in logits or `Likelihood.latent_scale`; None for 1e-3 in
        float64, else 1e-2. It is compared with a bound (`VariationalFit.error_bound`); one that
        stays above it is told up to 0.05. Without the error of the quadrature, which for several
        classes is of the size of 1e-2.
    progress
        Called after every variational step.

    Raises
    ------
    ValueError
        If the network has no infinite-width kernels, data or settings are out of range, the
        matrices would not fit in memory, or the variational iteration ends too far from its
        optimum.

    Examples
    --------
    >>> gp = nb.gp_posterior(*model_sine, prior_precision=1.0)
    >>> gp.variance(sine.x_test).shape, round(gp.elbo.item(), 1)
    ((200, 1), -16.7)
    >>> sparse = nb.gp_posterior(*model_sine, prior_precision=1.0, inducing=6)
    >>> bool(sparse.elbo <= gp.elbo)
    True
    """
    check_choice("kernel", kernel, ("ntk", "nngp"))
    check_positive("prior_precision", prior_precision)
    train = training_set(likelihood, x, y)
    tolerance = default_tolerance(train.x.dtype) if tolerance is None else float(tolerance)
    check_positive("tolerance", tolerance)
    shared = (network, train, float(prior_precision), kernel)
    prior = partial(prior_kernel, network, prior_precision=float(prior_precision), kind=kernel)
    z = None if inducing is None else inducing_inputs(prior, train.x, inducing)
    if isinstance(likelihood, Gaussian):
        warn_of_hidden_noise(likelihood, prior_variance(prior, train.x))
        # Imported here because importing GPJax starts JAX's backend, after which a user could no
        # longer choose devices.
        from ntkbayes.posteriors._gpjax import condition

        with naming_failure(
            f"{kernel_name(network, kernel)} cannot be factored in {train.x.dtype} with "
            f"{'the data' if z is None else f'these {len(z)} inducing points'}: "
            f"{more_digits(train.x.dtype)}remove inputs that nearly coincide."
        ):
            posteriors, elbo = condition(likelihood, *shared, z)
        num_inducing = None if z is None else len(z)
        return GPRegression(likelihood, *shared, posteriors, num_inducing, elbo)
    check_variational_memory(
        len(train.x), len(train.x if z is None else z), likelihood.num_outputs,
        remedy=f"use {'' if z is None else 'fewer '}inducing points (inducing=...)",
    )  # fmt: skip
    projection = project(prior, train.x, z, name=kernel_name(network, kernel))
    with naming_failure(
        "I + Φᵀ Λ Φ of the variational GP is not positive definite: take a larger prior_precision, "
        "or inputs of a smaller scale."
    ):
        fit = fit_variational(
            likelihood, train.targets, projection, tolerance=tolerance, progress=progress
        )
    return VariationalGP(likelihood, *shared, projection, fit)
