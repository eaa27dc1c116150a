"""The one place that imports GPJax: regression with a network's kernel, exact or sparse."""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import gpjax as gpx
import jax
import jax.numpy as jnp
import lineax as lx

from ntkbayes._arrays import more_digits
from ntkbayes._problem import TrainingSet, prior_kernel
from ntkbayes._types import Array, Float
from ntkbayes.kernels.memory import check_memory
from ntkbayes.likelihoods import Gaussian
from ntkbayes.networks import Network
from ntkbayes.posteriors.inducing import prior_variance

__all__ = ["condition"]


class _NetworkKernel(gpx.kernels.AbstractKernel):
    """The network's kernel, in GPJax's form."""

    network: Network  # pyright: ignore[reportGeneralTypeIssues]
    prior_precision: float  # pyright: ignore[reportGeneralTypeIssues]
    kind: str = eqx.field(static=True)  # pyright: ignore[reportGeneralTypeIssues]
    raised: bool = eqx.field(static=True)  # pyright: ignore[reportGeneralTypeIssues]
    dtype: Any = eqx.field(static=True)  # pyright: ignore[reportGeneralTypeIssues]

    def __init__(
        self, network: Network, prior_precision: float, kind: str, raised: bool, dtype: Any
    ):
        super().__init__()
        self.dtype = dtype
        self.network = network
        self.prior_precision = prior_precision
        self.kind = kind
        self.raised = raised

    def __call__(self, x: Array, y: Array) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._prior(x[None], y[None])[0, 0]

    def cross_covariance(self, x: Array, y: Array) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._prior(x, y)

    def gram(self, x: Array) -> lx.AbstractLinearOperator:  # pyright: ignore[reportIncompatibleMethodOverride]
        k = self._prior(x)
        if self.raised:  # by its rounding, so that it can be factored without noise on it
            k = k + jnp.diag(len(k) * jnp.finfo(self.dtype).eps * jnp.diagonal(k))
        return lx.MatrixLinearOperator(k, lx.positive_semidefinite_tag)

    def diagonal(self, x: Array) -> lx.AbstractLinearOperator:  # pyright: ignore[reportIncompatibleMethodOverride]
        return lx.DiagonalLinearOperator(prior_variance(self._prior, x))

    def _prior(self, x: Array, y: Array | None = None) -> Array:
        """Evaluate K in the dtype of the data, whatever the linear algebra is in."""
        k = prior_kernel(
            self.network,
            x.astype(self.dtype),
            None if y is None else y.astype(self.dtype),
            prior_precision=self.prior_precision,
            kind=self.kind,
        )
        return k.astype(x.dtype)


def condition(
    likelihood: Gaussian,
    network: Network,
    train: TrainingSet,
    prior_precision: float,
    kind: str,
    z: Float[Array, "k d"] | None,
) -> tuple[tuple[Any, ...], Float[Array, ""]]:
    """Condition one GPJax model per output column; GPJax's plain kernels have one output.

    Returns the posteriors, in float64 whatever the dtype of the data, and the sum of their log
    marginal likelihoods, or with inducing inputs `z` of their collapsed bounds.

    Raises
    ------
    ValueError
        If rounding leaves the covariance of the observations not positive definite.
    """
    if z is not None:
        check_memory(
            "GP regression with inducing points", len(train.x), len(z), jnp.dtype("float64"),
            num_matrices=2 + train.targets.shape[1],
            remedy="use fewer inducing points (inducing=...)",
        )  # fmt: skip
    kernel = _NetworkKernel(network, prior_precision, kind, z is not None, train.x.dtype)
    with jax.enable_x64(True):
        wide = [each.astype(jnp.float64) for each in (train.x, train.targets)]
        # GPJax's jitter is the same at every point, noise beside small variances: none is needed.
        prior = gpx.gps.Prior(kernel=kernel, mean_function=gpx.mean_functions.Zero(), jitter=0.0)
        noise_scale = jnp.asarray(likelihood.noise_variance**0.5, dtype=jnp.float64)
        model = prior * gpx.likelihoods.Gaussian(obs_stddev=noise_scale)
        columns = [gpx.Dataset(wide[0], column[:, None]) for column in wide[1].T]
        if z is None:
            exact = tuple(model.condition(column) for column in columns)
            total = _total(
                (posterior.log_marginal_likelihood for posterior in exact), train.x.dtype
            )
            return exact, total
        family = gpx.variational_families.CollapsedVariationalGaussian(
            model=model, inducing_inputs=z.astype(jnp.float64)
        )
        collapsed = tuple(family.condition(column) for column in columns)
        return collapsed, _total((posterior.elbo_bound for posterior in collapsed), train.x.dtype)


def _total(bounds: Iterable[Any], dtype: jnp.dtype) -> Float[Array, ""]:
    total = jnp.sum(jnp.stack(list(bounds)))
    if not jnp.isfinite(total):
        raise ValueError(
            f"the covariance of the observations is not positive definite in {dtype}: "
            f"{more_digits(dtype)}use a larger noise_variance."
        )
    return total.astype(dtype)
